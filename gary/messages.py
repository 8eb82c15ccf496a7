"""What nodes say to each other beyond membership: strict decoding of every message, in one place.

A message is msgpack: ``[kind, field, …]``. Unknown kinds and extra fields are ignored, so that a later version can add
to them. Anything else that does not fit is ``MalformedMessage``; the caller counts it and goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack

from gary.errors import GaryError
from gary.identity import DeploymentId, NodeId, Slot, is_node_id
from gary.spec import Constraint, RuntimeName
from gary.volunteering import Requirement, Room

LIST_LENGTH_MAX = 20_000


class MalformedMessage(GaryError):
    """The peer's mistake: bytes that are no message. State is as it was."""


@dataclass(frozen=True, slots=True)
class Sync:
    """A message of a document's exchange, between two that hold it in the same ``epoch``."""

    deployment: DeploymentId
    epoch: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Behind:
    """The sender heard of a later epoch than its own, ``epoch``, and asks for that document."""

    deployment: DeploymentId
    epoch: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The document of ``epoch`` as a whole, for a fellow that is behind."""

    deployment: DeploymentId
    epoch: int
    snapshot: bytes


@dataclass(frozen=True, slots=True)
class Gone:
    """These instances, of which it tells digests, are removed. ``proofs``: that the sender knows them itself."""

    deployment: DeploymentId
    digests: tuple[str, ...]
    proofs: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class CallForVolunteers:
    """Who can take replicas that need this? Names nothing but requirements."""

    id: int
    deployment: DeploymentId
    requirements: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """What the answering node has room for."""

    id: int
    deployment: DeploymentId
    room: Room


@dataclass(frozen=True, slots=True)
class Invitation:
    """Take these slots (none: be a witness). ``snapshot``: the document; empty for a node that holds it."""

    id: int
    deployment: DeploymentId
    slots: tuple[Slot, ...]
    snapshot: bytes


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The invited node's answer; its promises follow in the document. ``declined``: (slot, reason)."""

    id: int
    deployment: DeploymentId
    accepted: tuple[Slot, ...]
    declined: tuple[tuple[Slot, str], ...]


@dataclass(frozen=True, slots=True)
class ContactQuery:
    """When did you last hear from this node yourself, and is it gone in your view?"""

    id: int
    node: NodeId


@dataclass(frozen=True, slots=True)
class ContactAnswer:
    """``age_s`` below zero: not since this node started. ``is_missed``: it is not alive in this node's view."""

    id: int
    node: NodeId
    age_s: float
    is_missed: bool


@dataclass(frozen=True, slots=True)
class Orphans:
    """Containers of this deployment run here, on these slots, and there is no document to say why.

    ``proofs``: of the instances that they are of; see ``acquaintance``.
    """

    deployment: DeploymentId
    slots: tuple[Slot, ...]
    proofs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Without:
    """The sender holds no such document, though the receiver takes it for a member: it has left, as far as it remembers
    (``has_left``), or its disk does not know of it.
    """

    deployment: DeploymentId
    has_left: bool


@dataclass(frozen=True, slots=True)
class Released:
    """These slots are kept elsewhere or no longer wanted: positive knowledge for whoever still runs them."""

    deployment: DeploymentId
    slots: tuple[Slot, ...]
    proofs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Acquaintance:
    """The sender holds the document, which ``proofs`` shows; and whether it asks the receiver to show the same."""

    deployment: DeploymentId
    proofs: tuple[bytes, ...]
    asks: bool


@dataclass(frozen=True, slots=True)
class Dismissed:
    """The receiver is no member any more: somebody stated so, or it did itself, in ``epoch`` with this ``counter``.

    ``proofs``: of the instances of which the sender knows, since it says nothing about another one of that name.
    """

    deployment: DeploymentId
    epoch: int
    counter: int
    proofs: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """An operator's command (or a member's question) carried to a node that can answer it. ``body``: msgpack."""

    id: int
    operation: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """One item of an answer. ``sequence`` counts from 0; ``last`` ends it."""

    id: int
    sequence: int
    last: bool
    body: bytes


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody listens to the answers to this request any more."""

    id: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What a member says at another's door, and the answer; see ``gary.trust.entry``."""

    body: bytes


@dataclass(frozen=True, slots=True)
class CompareLedger:
    """These statements of the cluster are known here; send the others, and say which are missing there."""

    ids: tuple[bytes, ...]
    is_answer: bool


@dataclass(frozen=True, slots=True)
class LedgerStatements:
    """Statements of the cluster, as they travel."""

    statements: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Entrust:
    """Keep the secret half of the root that ``rotation``, a statement which nobody has heard yet, is going to name.
    ``secret``: sealed to who is to keep it.
    """

    rotation: bytes
    secret: bytes


@dataclass(frozen=True, slots=True)
class Entrusted:
    """The secret half of the root with this public key is kept here."""

    root: bytes


Message = (
    Sync
    | Gone
    | CallForVolunteers
    | Offer
    | Invitation
    | Acceptance
    | ContactQuery
    | ContactAnswer
    | Orphans
    | Released
    | Acquaintance
    | Dismissed
    | Without
    | Request
    | Response
    | Cancel
    | Behind
    | Snapshot
    | Entry
    | CompareLedger
    | LedgerStatements
    | Entrust
    | Entrusted
)
_KINDS: dict[int, type[Message]] = {
    1: Sync,
    2: Gone,
    3: CallForVolunteers,
    4: Offer,
    5: Invitation,
    6: Acceptance,
    7: ContactQuery,
    8: ContactAnswer,
    9: Orphans,
    10: Released,
    11: Request,
    12: Response,
    13: Cancel,
    14: Behind,
    15: Snapshot,
    16: Entry,
    17: CompareLedger,
    18: LedgerStatements,
    19: Acquaintance,
    20: Dismissed,
    21: Without,
    22: Entrust,
    23: Entrusted,
}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}


def encode(message: Message) -> bytes:
    fields: list[Any] = [_NUMBERS[type(message)]]
    match message:
        case CallForVolunteers(id, deployment, requirements):
            fields += [id, deployment, [_requirement_fields(needed) for needed in requirements]]
        case Offer(id, deployment, room):
            fields += [id, deployment, room_fields(room)]
        case _:
            fields += [getattr(message, name) for name in message.__dataclass_fields__]
    packed: bytes = msgpack.packb(fields)
    return packed


def decode(payload: bytes) -> Message | None:
    """The message in ``payload``; None for a kind that this version does not know. Raises ``MalformedMessage``."""
    try:
        fields = msgpack.unpackb(payload, strict_map_key=True, use_list=True)
        if not isinstance(fields, list) or not fields or not isinstance(fields[0], int):
            raise MalformedMessage("not a message")
        kind = _KINDS.get(fields[0])
        return None if kind is None else _decode(kind, fields[1:])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise MalformedMessage(f"{type(error).__name__}: {error}") from error


def _decode(kind: type[Message], fields: list[Any]) -> Message:
    match kind.__name__:
        case "Sync":
            return Sync(_id(fields[0]), _number(fields[1]), bytes_from(fields[2]))
        case "Gone":
            return Gone(_id(fields[0]), _texts(fields[1]), _all_bytes(fields[2]) if len(fields) > 2 else ())
        case "CallForVolunteers":
            requirements = tuple(_requirement(one) for one in _list(fields[2]))
            return CallForVolunteers(_number(fields[0]), _id(fields[1]), requirements)
        case "Offer":
            return Offer(_number(fields[0]), _id(fields[1]), room_from(fields[2]))
        case "Invitation":
            return Invitation(_number(fields[0]), _id(fields[1]), _texts(fields[2]), bytes_from(fields[3]))
        case "Acceptance":
            declined = tuple((_text(slot), _text(reason)) for slot, reason in _list(fields[3]))
            return Acceptance(_number(fields[0]), _id(fields[1]), _texts(fields[2]), declined)
        case "ContactQuery":
            return ContactQuery(_number(fields[0]), _id(fields[1]))
        case "ContactAnswer":
            return ContactAnswer(_number(fields[0]), _id(fields[1]), _real(fields[2]), _flag(fields[3]))
        case "Orphans":
            return Orphans(_id(fields[0]), _texts(fields[1]), _all_bytes(fields[2]))
        case "Released":
            return Released(_id(fields[0]), _texts(fields[1]), _all_bytes(fields[2]))
        case "Acquaintance":
            return Acquaintance(_id(fields[0]), _all_bytes(fields[1]), fields[2] is True)
        case "Dismissed":
            proofs = _all_bytes(fields[3]) if len(fields) > 3 else ()
            return Dismissed(_id(fields[0]), _number(fields[1]), _number(fields[2]), proofs)
        case "Without":
            return Without(_id(fields[0]), fields[1] is True)
        case "Request":
            return Request(_number(fields[0]), _text(fields[1]), bytes_from(fields[2]))
        case "Response":
            return Response(_number(fields[0]), _number(fields[1]), fields[2] is True, bytes_from(fields[3]))
        case "Behind":
            return Behind(_id(fields[0]), _number(fields[1]))
        case "Snapshot":
            return Snapshot(_id(fields[0]), _number(fields[1]), bytes_from(fields[2]))
        case "Entry":
            return Entry(bytes_from(fields[0]))
        case "CompareLedger":
            return CompareLedger(tuple(bytes_from(id) for id in _list(fields[0])), fields[1] is True)
        case "LedgerStatements":
            return LedgerStatements(tuple(bytes_from(raw) for raw in _list(fields[0])))
        case "Entrust":
            return Entrust(bytes_from(fields[0]), bytes_from(fields[1]))
        case "Entrusted":
            return Entrusted(bytes_from(fields[0]))
    return Cancel(_number(fields[0]))


def _requirement_fields(needed: Requirement) -> list[Any]:
    return [
        needed.runtime.value,
        needed.cpus,
        needed.memory_bytes,
        [list(port) for port in needed.ports],
        [[constraint.attribute, constraint.equal, constraint.value] for constraint in needed.constraints],
    ]


def _requirement(fields: Any) -> Requirement:
    runtime, cpus, memory, ports, constraints = _list(fields)[:5]
    return Requirement(
        RuntimeName(runtime),
        _real(cpus),
        _number(memory),
        tuple((_number(port), _text(protocol)) for port, protocol in _list(ports)),
        tuple(
            Constraint(_text(attribute), equal is True, _text(value)) for attribute, equal, value in _list(constraints)
        ),
    )


def room_fields(room: Room) -> list[Any]:
    """A node's room as msgpack takes it; also the larger part of its advertisement."""
    return [
        room.node,
        room.hostname,
        dict(sorted(room.labels.items())),
        list(room.runtimes),
        room.free_cpus,
        room.free_memory_bytes,
        room.free_containers,
        [list(port) for port in sorted(room.ports)],
        room.accepting,
    ]


def room_from(fields: Any) -> Room:
    node, hostname, labels, runtimes, cpus, memory, containers, ports, accepting = _list(fields)[:9]
    if not isinstance(labels, dict) or len(labels) > 1000:
        raise TypeError("labels")
    return Room(
        node=_id(node),
        hostname=_text(hostname),
        labels={_text(key): _text(value) for key, value in labels.items()},
        runtimes=_texts(runtimes),
        free_cpus=_real(cpus),
        free_memory_bytes=_signed(memory),
        free_containers=_signed(containers),
        ports=frozenset((_number(port), _text(protocol)) for port, protocol in _list(ports)),
        accepting=accepting is True,
    )


def _id(value: Any) -> str:
    if not is_node_id(value):
        raise ValueError("not an id")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise TypeError("not a text")
    return value


def bytes_from(value: Any) -> bytes:
    """``value`` if it is bytes; raises ``TypeError``."""
    if not isinstance(value, bytes):
        raise TypeError("not bytes")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > LIST_LENGTH_MAX:
        raise TypeError("not a list")
    return value


def _all_bytes(value: Any) -> tuple[bytes, ...]:
    return tuple(bytes_from(one) for one in _list(value))


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(one) for one in _list(value))


def _signed(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise TypeError("not a number")
    return value


def _number(value: Any) -> int:
    if _signed(value) < 0:
        raise TypeError("not a count")
    return int(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not true or false")
    return value


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e18 < value < 1e18:
        raise TypeError("not a real number")
    return float(value)
