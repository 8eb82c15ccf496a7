"""What the membership core asks its driver to do, in the order in which it must happen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gossip.member import Member, Status
from gossip.transport import Lane, Peer


class TimerKind(StrEnum):
    """What a timer is for."""

    PROBE = "probe"
    PROBE_DIRECT = "probe-direct"
    PROBE_END = "probe-end"
    PROBE_EARLY = "probe-early"
    RELAY = "relay"
    SUSPICION = "suspicion"
    GOSSIP = "gossip"
    REDIAL = "redial"
    REAP = "reap"
    JOIN = "join"
    REJOIN = "rejoin"


@dataclass(slots=True, init=False, unsafe_hash=True)
class Timer:
    """Given back to ``Swim.timer`` once its delay has passed. A timer whose token was superseded is a no-op."""

    kind: Final[TimerKind]
    key: Final[str]
    token: Final[int]

    def __init__(self, kind: TimerKind, key: str, token: int) -> None:
        self.kind = kind
        self.key = key
        self.token = token


@dataclass(slots=True, init=False, unsafe_hash=True)
class Send:
    """Give ``frame`` to the transport."""

    peer: Final[Peer]
    lane: Final[Lane]
    frame: Final[bytes]

    def __init__(self, peer: Peer, lane: Lane, frame: bytes) -> None:
        self.peer = peer
        self.lane = lane
        self.frame = frame


@dataclass(slots=True, init=False, unsafe_hash=True)
class SetTimer:
    """Call ``Swim.timer(timer, now)`` in ``delay_s`` seconds."""

    timer: Final[Timer]
    delay_s: Final[float]

    def __init__(self, timer: Timer, delay_s: float) -> None:
        self.timer = timer
        self.delay_s = delay_s


@dataclass(slots=True, init=False, unsafe_hash=True)
class CancelTimer:
    """``timer`` is stale: to let it go off does nothing, and wakes a process for nothing."""

    timer: Final[Timer]

    def __init__(self, timer: Timer) -> None:
        self.timer = timer


@dataclass(slots=True, init=False, unsafe_hash=True)
class Deliver:
    """An application payload arrived from the node ``sender``."""

    sender: Final[str]
    payload: Final[bytes]

    def __init__(self, sender: str, payload: bytes) -> None:
        self.sender = sender
        self.payload = payload


@dataclass(frozen=True, slots=True)
class Heard:
    """A piece of the application's news arrived by way of ``sender``, who need not be its author.

    It comes once for every time that somebody passes it on. Whoever finds it new passes it on with ``Swim.broadcast``.
    """

    sender: str
    body: bytes


@dataclass(frozen=True, slots=True)
class MarkDiffers:
    """The member ``node`` shows another mark than this node. It comes with each ping and ack in which that is so."""

    node: str


@dataclass(slots=True, init=False, unsafe_hash=True)
class MemberChanged:
    """A member is new (``before`` is None), changed its status, restarted, or moved to another address."""

    member: Final[Member]
    before: Final[Status | None]

    def __init__(self, member: Member, before: Status | None) -> None:
        self.member = member
        self.before = before


@dataclass(frozen=True, slots=True)
class AdvertisementChanged:
    """``Swim.advertisement(node)`` has a new value."""

    node: str


@dataclass(frozen=True, slots=True)
class Joined:
    """This node is part of ``cluster``; ``welcome`` is what the node that let it in had to give."""

    cluster: bytes
    welcome: bytes


class JoinFailure(StrEnum):
    """Why a join came to nothing."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    NOT_GARY = "not_gary"
    NOT_TRUSTED = "not_trusted"
    SELF = "self"
    VERSION = "version"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class JoinFailed:
    """The join of ``address`` ended; nothing has changed."""

    address: str
    reason: JoinFailure
    detail: str


@dataclass(frozen=True, slots=True)
class IdentityConflict:
    """Another process lives under this node's id, at ``address``: a copied state directory."""

    node: str
    address: str


@dataclass(frozen=True, slots=True)
class EpochRaised:
    """Others know this node in a later boot epoch than it began with: its disk is an older copy, or it forgot what it
    wrote. It lives in ``epoch`` from now on. Make that durable, so that the next start is in a later one.
    """

    epoch: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Nothing is kept about a member any more: it was down for long, was expelled, or belongs to another cluster."""

    node: str


Effect = (
    Send
    | SetTimer
    | CancelTimer
    | Deliver
    | Heard
    | MarkDiffers
    | MemberChanged
    | AdvertisementChanged
    | Joined
    | JoinFailed
    | IdentityConflict
    | EpochRaised
    | Forgotten
)
