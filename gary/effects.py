"""What the core asks its driver to do, in the order in which it must happen.

``gossip.Send``, ``gossip.SetTimer`` and ``gossip.CancelTimer`` are passed on as they are; the rest is here. The daemon
executes effects on the real world, the simulation executes them in virtual time; nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gary.identity import NodeId
from gary.runtime.base import StartRequest
from gary.storage import Write
from gary.trust.notary import Request
from gossip import CancelTimer, Send, SetTimer
from gossip.transport import Credentials


@dataclass(frozen=True, slots=True)
class Alarm:
    """A timer of Gary's own. A stale one is a no-op: whoever set it compares ``token`` with the one it expects."""

    kind: str
    key: str
    token: int


@dataclass(frozen=True, slots=True)
class SetAlarm:
    """Give ``alarm`` back to ``Agent.alarm`` after ``delay_s``."""

    alarm: Alarm
    delay_s: float


@dataclass(frozen=True, slots=True)
class Persist:
    """Make ``writes`` durable, after all earlier ones, then call ``Agent.persisted`` or ``Agent.persist_failed``."""

    token: int
    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Have ``runtime`` start it, then call ``Agent.operated``."""

    operation: int
    runtime: str
    request: StartRequest


@dataclass(frozen=True, slots=True)
class StopContainer:
    """Have ``runtime`` stop and remove it, then call ``Agent.operated``."""

    operation: int
    runtime: str
    container_id: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Observe:
    """Look at the containers of ``nodes`` (this node and the ids it had before) and call ``Agent.observed``."""

    nodes: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """One item of the answer to a local command. ``error`` set: it failed, so; ``last``: nothing follows."""

    command: int
    item: Mapping[str, object] = field(default_factory=dict)
    last: bool = True
    error: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person may want to know. ``at_s``: seconds since 1970 by this node's clock."""

    at_s: float
    kind: str
    message: str
    deployment: str = ""
    slot: str = ""


@dataclass(frozen=True, slots=True)
class Notify:
    event: Event


@dataclass(frozen=True, slots=True)
class ReadLogs:
    """Read a container's output and feed it to ``Agent.logged``. ``tail`` None: from the beginning."""

    stream: int
    runtime: str
    container_id: str
    follow: bool
    tail: int | None


@dataclass(frozen=True, slots=True)
class StopLogs:
    stream: int


@dataclass(frozen=True, slots=True)
class Consult:
    """Ask the notary, then call ``Agent.consulted``."""

    number: int
    request: Request = field(repr=False)


@dataclass(frozen=True, slots=True)
class Knock:
    """Say ``frame`` to whoever lives at ``address``, as ``guest`` with ``credentials``; then call ``Agent.knocked``.

    The answer begins with ``addressee``: other frames are for others who came with the same invitation.
    """

    number: int
    address: str
    guest: str
    credentials: Credentials = field(repr=False)
    frame: bytes
    addressee: bytes


@dataclass(frozen=True, slots=True)
class Renew:
    """Show peers these credentials from now on, then call ``Agent.renewed``."""

    number: int
    credentials: Credentials = field(repr=False)


@dataclass(frozen=True, slots=True)
class Expel:
    """Have nothing to do with ``node`` any more, on any connection."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to all ports of a node at ``address`` and hang up, then call ``Agent.dialled``."""

    number: int
    address: str


@dataclass(frozen=True, slots=True)
class Inspect:
    """Look at the disk that has the node's state, then call ``Agent.inspected``."""

    number: int


@dataclass(frozen=True, slots=True)
class Exit:
    """The node has left its cluster; the agent ends."""


Effect = (
    Send
    | SetTimer
    | CancelTimer
    | SetAlarm
    | Persist
    | StartContainer
    | StopContainer
    | Observe
    | Reply
    | Notify
    | ReadLogs
    | StopLogs
    | Consult
    | Knock
    | Renew
    | Expel
    | Dial
    | Inspect
    | Exit
)

__all__ = [
    "Alarm",
    "CancelTimer",
    "Consult",
    "Dial",
    "Effect",
    "Event",
    "Exit",
    "Expel",
    "Inspect",
    "Knock",
    "Notify",
    "Observe",
    "Persist",
    "ReadLogs",
    "Renew",
    "Reply",
    "Send",
    "SetAlarm",
    "SetTimer",
    "StartContainer",
    "StopContainer",
    "StopLogs",
]
