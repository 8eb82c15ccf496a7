"""What the membership core asks its driver to do, in the order in which it must happen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

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


class Timer(NamedTuple):
    """Given back to ``Swim.timer`` once its delay has passed. A timer whose token was superseded is a no-op."""

    kind: TimerKind
    key: str
    token: int


class Send(NamedTuple):
    """Give ``frame`` to the transport."""

    peer: Peer
    lane: Lane
    frame: bytes


class SetTimer(NamedTuple):
    """Call ``Swim.timer(timer, now)`` in ``delay_s`` seconds."""

    timer: Timer
    delay_s: float


class CancelTimer(NamedTuple):
    """``timer`` is stale: to let it go off does nothing, and wakes a process for nothing."""

    timer: Timer


class Deliver(NamedTuple):
    """An application payload arrived from the node ``sender``."""

    sender: str
    payload: bytes


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


class MemberChanged(NamedTuple):
    """A member is new (``before`` is None), changed its status, restarted, or moved to another address."""

    member: Member
    before: Status | None


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
