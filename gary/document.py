"""A deployment's document: which facts it holds, who may write them, and the state they add up to.

The document is a ``crdt.Replica`` with one register per fact. Every fact has one kind of author (rule 1); ``Draft`` has
no method that would write a fact of somebody else's, and ``permit`` refuses such a fact when it comes from the network.
``State`` is an immutable value: all decisions in ``assignment`` and ``rollout`` are functions of it.

    meta/schema                            the form of what follows; only ever added to
    meta/epoch                             which of the documents of this deployment it is; absent in the first one
    specs/<generation>                     canonical spec, immutable, by the generation's author
    removed/<instance>                     immutable; kills that instance for ever; by any member
    members/<node>                         role; first by the inviter, then by the node itself alone
    promises/<node>/<slot>                 by <node> alone
    verdicts/<generation>/<node>/<slot>    grow-only "failed here", by <node> alone
    calling/<dead node>                    who calls for replacements of that node's slots; by any member
    releases/<node>/<slot>                 an operator gave up the reservation of a node that is away; by any member
    breaks/<node>, carried/<node>/...      see ``facts``; by <node> alone
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeVar

import msgpack

from crdt import Permit, Replica
from gary import spec as specs
from gary.facts import (
    BREAKS,
    CALLING,
    CARRIED,
    EPOCH,
    MEMBERS,
    META,
    PROMISES,
    RELEASES,
    REMOVED,
    SPECS,
    VERDICTS,
    Fact,
    Facts,
    Place,
    decode_carried,
    decode_number,
    encode_carried,
    epoch_of,
    read,
)
from gary.identity import NODE_ID_SIZE_BYTES, Claim, Generation, NodeId, Slot, is_node_id, service_of, slot_order
from gary.spec import Mode, Service, Spec

SCHEMA = 1
NOBODY = "-"
REASON_LENGTH_MAX = 300
WRITES_PER_CHANGE = 512
CHANGE_SIZE_BYTES = 256 * 1024

T = TypeVar("T")


class Role(StrEnum):
    """``invited`` by another, ``member`` by its own word; ``left`` of its own accord, ``forgotten`` by the others."""

    INVITED = "invited"
    MEMBER = "member"
    LEFT = "left"
    FORGOTTEN = "forgotten"


class PromiseState(StrEnum):
    STARTING = "starting"
    HEALTHY = "healthy"
    FAILING = "failing"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Promise:
    """A node's own statement: "I keep this slot at this generation".

    ``epoch`` is the promiser's boot epoch when it last said so: a promise of an earlier epoch is no evidence of health.
    ``once_healthy``: has once been healthy at ``generation``; never goes back. ``yielding``: somebody else may take
    over, because it fails for good here or because the node is leaving. ``instead_of``: the nodes whose yielding
    promise on this slot it replaces.
    """

    node: NodeId
    slot: Slot
    claim: Claim
    generation: Generation
    epoch: int
    state: PromiseState
    once_healthy: bool = False
    yielding: bool = False
    instead_of: tuple[NodeId, ...] = ()
    reason: str = ""

    @property
    def precedence(self) -> tuple[int, int, int, str]:
        """Sorts the promises on one slot, the winner first: the higher generation, then the lower claim."""
        clock, author, _ = self.generation.order
        return (-clock, -author, self.claim.lamport, self.claim.node)


@dataclass(frozen=True, slots=True)
class Membership:
    role: Role
    inviter: NodeId


@dataclass(frozen=True)
class State:
    """What a document says, as one immutable value; the same for all who hold the same changes."""

    specs: Mapping[Generation, Spec] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    members: Mapping[NodeId, Membership] = field(default_factory=dict)
    promises: tuple[Promise, ...] = ()
    verdicts: frozenset[tuple[Generation, NodeId, Slot]] = frozenset()
    calling: Mapping[NodeId, NodeId] = field(default_factory=dict)
    releases: frozenset[tuple[NodeId, Slot]] = frozenset()
    malformed: int = 0

    @cached_property
    def effective(self) -> Generation | None:
        """The generation that counts: the highest of an instance that lives; None once all are removed."""
        living = [generation for generation in self.specs if generation.instance not in self.removed]
        return max(living, key=lambda generation: generation.order, default=None)

    @cached_property
    def spec(self) -> Spec | None:
        return None if self.effective is None else self.specs[self.effective]

    @cached_property
    def name(self) -> str:
        """The deployment's name; all generations share it."""
        return next((spec.name for spec in self.specs.values()), "")

    @property
    def is_removed(self) -> bool:
        return bool(self.specs or self.removed) and self.effective is None

    @cached_property
    def clock(self) -> int:
        """The highest hybrid logical clock in it."""
        return max((generation.clock for generation in self.specs), default=0)

    @cached_property
    def lamport(self) -> int:
        return max((promise.claim.lamport for promise in self.promises), default=0)

    @cached_property
    def by_slot(self) -> Mapping[Slot, tuple[Promise, ...]]:
        """All promises by slot, withdrawn ones too."""
        found: dict[Slot, list[Promise]] = {}
        for promise in self.promises:
            found.setdefault(promise.slot, []).append(promise)
        return {slot: tuple(promises) for slot, promises in found.items()}

    @cached_property
    def standing(self) -> Mapping[Slot, tuple[Promise, ...]]:
        """The promises that are not withdrawn by slot, the winner first."""
        found: dict[Slot, list[Promise]] = {}
        for promise in self.promises:
            if promise.state is not PromiseState.WITHDRAWN:
                found.setdefault(promise.slot, []).append(promise)
        return {slot: tuple(sorted(promises, key=lambda p: p.precedence)) for slot, promises in found.items()}

    @cached_property
    def _by_node(self) -> Mapping[NodeId, tuple[Promise, ...]]:
        found: dict[NodeId, list[Promise]] = {}
        for promise in self.promises:
            if promise.state is not PromiseState.WITHDRAWN:
                found.setdefault(promise.node, []).append(promise)
        return {node: tuple(promises) for node, promises in found.items()}

    @cached_property
    def _by_place(self) -> Mapping[tuple[NodeId, Slot], Promise]:
        return {(promise.node, promise.slot): promise for promise in self.promises}

    @cached_property
    def replicas(self) -> tuple[Slot, ...]:
        """The slots of all services that run in a number of replicas, in order."""
        replicated = (service for service in self.services.values() if service.mode is Mode.REPLICATED)
        slots = (f"{service.name}/{index}" for service in replicated for index in range(1, service.replicas + 1))
        return tuple(sorted(slots, key=slot_order))

    @cached_property
    def fingerprints(self) -> Mapping[tuple[Generation, str], str]:
        return {
            (generation, service.name): specs.fingerprint(service)
            for generation, spec in self.specs.items()
            for service in spec.services
        }

    @cached_property
    def services(self) -> Mapping[str, Service]:
        """The effective spec's services by name."""
        return {} if self.spec is None else {service.name: service for service in self.spec.services}

    def service(self, slot: Slot) -> Service | None:
        return self.services.get(service_of(slot))

    def is_current(self, promise: Promise) -> bool:
        """Whether the promised container is the one that the effective spec wants, whichever generation named it."""
        if self.effective is None:
            return False
        service = service_of(promise.slot)
        wanted = self.fingerprints.get((self.effective, service))
        return wanted is not None and wanted == self.fingerprints.get((promise.generation, service))

    def promise(self, node: NodeId, slot: Slot) -> Promise | None:
        return self._by_place.get((node, slot))

    def promises_of(self, node: NodeId) -> tuple[Promise, ...]:
        """That node's promises which it has not withdrawn."""
        return self._by_node.get(node, ())

    def promised(self, promise: Promise) -> Service | None:
        """The service as ``promise`` keeps it, which may be an earlier generation's."""
        spec = self.specs.get(promise.generation)
        return None if spec is None else spec.service(service_of(promise.slot))

    def failed_at(self, slot: Slot) -> frozenset[NodeId]:
        """The nodes on which the container that the effective spec wants for ``slot`` has failed for good."""
        if self.effective is None or not self.verdicts:
            return frozenset()
        service = service_of(slot)
        wanted = self.fingerprints.get((self.effective, service))
        return frozenset(
            node
            for generation, node, judged in self.verdicts
            if judged == slot and self.fingerprints.get((generation, service)) == wanted
        )

    def number(self, generation: Generation) -> int:
        """The generation's place in the deployment's history, from 1; what people are shown."""
        earlier = [g for g in self.specs if g.instance == generation.instance and g.order <= generation.order]
        return len(earlier)

    @cached_property
    def holders(self) -> tuple[NodeId, ...]:
        """The nodes that hold the document or were asked to: neither left nor forgotten."""
        gone = (Role.LEFT, Role.FORGOTTEN)
        return tuple(node for node, membership in sorted(self.members.items()) if membership.role not in gone)


class Draft:
    """Facts that one node is about to write, in one change. It can only state what that node may state."""

    def __init__(self, node: NodeId, breaks: int = 0) -> None:
        """``breaks``: how often the node has broken with what it promised before."""
        self._node = node
        self._breaks = breaks
        self._writes: dict[Place, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._writes)

    @property
    def writes(self) -> Mapping[Place, bytes]:
        return self._writes

    def found(self) -> None:
        self._writes[META, "schema"] = _pack(SCHEMA)

    def begin(self, epoch: int) -> None:
        """This is the first change of the document of ``epoch``."""
        self.found()
        self._writes[META, EPOCH] = _pack(epoch)

    def break_off(self) -> None:
        """What this node has promised so far is void, unless it is stated anew, now or later."""
        self._writes[BREAKS, self._node] = _pack(self._breaks + 1)

    def state_anew(self, facts: Facts, slots: Container[Slot] = ()) -> None:
        """Break with all that this node has stated but its membership and what it keeps, which it states as it was.

        Of what it has withdrawn, only promises on ``slots`` are stated again.
        """
        self.break_off()
        for place, fact in facts.items():
            owner, _, slot = place[1].partition("/")
            if owner != self._node or place in self._writes:
                continue
            is_kept = place[0] == PROMISES and (slot in slots or not is_withdrawn(place, fact))
            if is_kept or (place[0] == MEMBERS and role_in(place, fact) in (Role.MEMBER, Role.LEFT)):
                self._writes[place] = fact.value

    def carry(self, place: Place, fact: Fact) -> None:
        """Take along what somebody had stated in another document."""
        self._writes[CARRIED, f"{self._node}/{place[0]}/{place[1]}"] = encode_carried(fact)

    def deploy(self, generation: Generation, spec: Spec) -> None:
        assert generation.author == self._node
        self._writes[SPECS, str(generation)] = specs.encode(spec)

    def remove(self, instance: str) -> None:
        self._writes[REMOVED, instance] = _pack(True)

    def stay(self, inviter: NodeId) -> None:
        """This node holds the document."""
        self._writes[MEMBERS, self._node] = _pack([Role.MEMBER, inviter])

    def leave(self) -> None:
        self._writes[MEMBERS, self._node] = _pack([Role.LEFT, self._node])
        self.break_off()

    def invite(self, node: NodeId) -> None:
        self._writes[MEMBERS, node] = _pack([Role.INVITED, self._node])

    def forget(self, node: NodeId) -> None:
        """That node has been away for longer than anybody waits."""
        self._writes[MEMBERS, node] = _pack([Role.FORGOTTEN, self._node])

    def promise(self, promise: Promise) -> None:
        assert promise.node == self._node
        assert promise.claim.node == self._node
        self._writes[PROMISES, f"{promise.node}/{promise.slot}"] = _pack(
            [
                promise.claim.lamport,
                str(promise.generation),
                promise.epoch,
                promise.state,
                promise.once_healthy,
                promise.yielding,
                list(promise.instead_of),
                promise.reason[:REASON_LENGTH_MAX],
            ]
        )

    def judge(self, generation: Generation, slot: Slot) -> None:
        """``slot`` failed for good here at ``generation``."""
        self._writes[VERDICTS, f"{generation}/{self._node}/{slot}"] = _pack(True)

    def call(self, missing: NodeId) -> None:
        self._writes[CALLING, missing or NOBODY] = _pack(self._node)

    def release(self, node: NodeId, slot: Slot) -> None:
        self._writes[RELEASES, f"{node}/{slot}"] = _pack(self._node)


class Document:
    """A replica read as a ``State`` and written through ``Draft``s."""

    def __init__(self, replica: Replica, node: NodeId) -> None:
        self.replica = replica
        self.node = node
        self._heads: tuple[bytes, ...] | None = None
        self._state = State()
        self._facts: Facts = {}
        self._decoded: dict[tuple[str, str, bytes], Any] = {}

    def draft(self) -> Draft:
        said = self.facts.get((BREAKS, self.node))
        return Draft(self.node, 0 if said is None else decode_number(said.value) or 0)

    def commit(self, draft: Draft) -> bytes:
        """Write the draft; the new change, or nothing when all of it was there already.

        With its first word in an epoch a node takes over what others have brought along of it.
        """
        has_entered = not self.epoch or self.replica.get(BREAKS, self.node) is not None
        if draft and not has_entered and (BREAKS, self.node) not in draft.writes:
            draft.state_anew(self.facts)
        return self.replica.put(draft.writes)

    def commit_all(self, draft: Draft) -> list[bytes]:
        """Write a draft of any size, as it is; the new changes, in order."""
        pieces: list[dict[Place, bytes]] = [{}]
        room = CHANGE_SIZE_BYTES
        for place, value in sorted(draft.writes.items()):
            size = len(place[1].encode()) + len(value)
            if pieces[-1] and (size > room or len(pieces[-1]) >= WRITES_PER_CHANGE):
                pieces.append({})
                room = CHANGE_SIZE_BYTES
            pieces[-1][place] = value
            room -= size
        return [change for piece in pieces if (change := self.replica.put(piece))]

    @property
    def epoch(self) -> int:
        return epoch_of(self.replica)

    @property
    def state(self) -> State:
        self._look()
        return self._state

    @property
    def facts(self) -> Facts:
        self._look()
        return self._facts

    def _look(self) -> None:
        heads = self.replica.heads()
        if heads != self._heads:
            self._state, self._facts = self._read()
            self._heads = heads

    def _read(self) -> tuple[State, Facts]:
        seen: dict[tuple[str, str, bytes], Any] = {}
        facts, malformed = read(self.replica)
        raws: dict[str, list[tuple[str, bytes]]] = {}
        for (map, key), fact in facts.items():
            raws.setdefault(map, []).append((key, fact.value))

        def registers(name: str, decode: Callable[[str, bytes], T]) -> list[T]:
            nonlocal malformed
            values: list[T] = []
            for key, raw in raws.get(name, ()):
                token = (name, key, raw)
                if token in self._decoded:
                    value = self._decoded[token]
                else:
                    try:
                        value = decode(key, raw)
                    except (ValueError, TypeError, LookupError, specs.SpecError, msgpack.UnpackException):
                        value = None
                seen[token] = value
                if value is None:
                    malformed += 1
                else:
                    values.append(value)
            return values

        state = State(
            specs=dict(registers(SPECS, _spec)),
            removed=frozenset(registers(REMOVED, lambda key, raw: key)),
            members=dict(registers(MEMBERS, _membership)),
            promises=tuple(sorted(registers(PROMISES, _promise), key=lambda p: (slot_order(p.slot), p.node))),
            verdicts=frozenset(registers(VERDICTS, _verdict)),
            calling=dict(registers(CALLING, _calling)),
            releases=frozenset(registers(RELEASES, _release)),
            malformed=malformed,
        )
        self._decoded = seen
        return state, facts


def author_of(actor: bytes) -> NodeId:
    """The node behind an actor: its id and 8 bytes that are new at every start."""
    return actor[:NODE_ID_SIZE_BYTES].hex()


def permit(actor: bytes, name: str, key: str, before: bytes | None, after: bytes) -> str | None:
    """Why the author of a change may not write this register so; None when it may (rule 1)."""
    author = author_of(actor)
    owner = key.partition("/")[0]
    match name:
        case "specs":
            if before is not None:
                return "a spec is immutable"
            return None if key.endswith("." + author) else "a generation is written by its author"
        case "meta" if key == EPOCH and decode_number(after) is None:
            return "not an epoch"
        case "removed" | "meta":
            return None if before is None or before == after else f"{name} is immutable"
        case "members":
            return _permit_membership(author, owner, before, after)
        case "promises":
            return None if owner == author else "a promise is written by its promiser"
        case "breaks":
            return None if owner == author else "a node breaks only with what it promised itself"
        case "carried" if decode_carried(key, after) is None:
            return "not a fact that was taken along"
        case "carried":
            return None if owner == author else "who takes a fact along says so itself"
        case "verdicts":
            if before is not None:
                return "a verdict is immutable"
            return None if key.split("/")[1:2] == [author] else "a verdict is written by the node that it is about"
        case "calling" | "releases":
            return None
    return "no such kind of fact"


def permit_in(epoch: int) -> Permit:
    """``permit`` for the document of ``epoch``: it can be of no other, and what is carried into it is older."""

    def judge(actor: bytes, name: str, key: str, before: bytes | None, after: bytes) -> str | None:
        if name == META and key == EPOCH and decode_number(after) != epoch:
            return "a document is of one epoch"
        if name == CARRIED:
            carried = decode_carried(key, after)
            if carried is not None and carried[1].epoch >= epoch:
                return "what is carried into an epoch was stated before it"
        return permit(actor, name, key, before, after)

    return judge


def role_in(place: Place, fact: Fact | None) -> Role | None:
    """The role that a membership says; None for what is none."""
    try:
        return None if fact is None else _membership(place[1], fact.value)[1].role
    except (ValueError, TypeError, LookupError, msgpack.UnpackException):
        return None


def is_withdrawn(place: Place, fact: Fact) -> bool:
    """Whether it is a promise that its promiser withdrew."""
    try:
        return _promise(place[1], fact.value).state is PromiseState.WITHDRAWN
    except (ValueError, TypeError, LookupError, msgpack.UnpackException):
        return False


def _permit_membership(author: NodeId, subject: NodeId, before: bytes | None, after: bytes) -> str | None:
    if author == subject:
        return None
    try:
        role = _membership(subject, after)[1].role
        was = None if before is None else _membership(subject, before)[1].role
    except (ValueError, TypeError, LookupError, msgpack.UnpackException):
        return "not a membership"
    if role is Role.FORGOTTEN or (role is Role.INVITED and was is not Role.MEMBER):
        return None
    return "a node speaks for its own membership"


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _unpack(raw: bytes) -> Any:
    return msgpack.unpackb(raw, strict_map_key=True)


def _spec(key: str, raw: bytes) -> tuple[Generation, Spec]:
    return Generation.parse(key), specs.decode(raw)


def _membership(key: str, raw: bytes) -> tuple[NodeId, Membership]:
    role, inviter = _unpack(raw)
    return _node(key), Membership(Role(role), _node(inviter))


def _promise(key: str, raw: bytes) -> Promise:
    node, _, slot = key.partition("/")
    lamport, generation, epoch, state, once_healthy, yielding, instead_of, reason = _unpack(raw)
    if not isinstance(generation, str):
        raise TypeError("not a generation")
    return Promise(
        node=_node(node),
        slot=_slot(slot),
        claim=Claim(_count(lamport), node),
        generation=Generation.parse(generation),
        epoch=_count(epoch),
        state=PromiseState(state),
        once_healthy=once_healthy is True,
        yielding=yielding is True,
        instead_of=tuple(_node(other) for other in instead_of),
        reason=str(reason)[:REASON_LENGTH_MAX],
    )


def _verdict(key: str, raw: bytes) -> tuple[Generation, NodeId, Slot]:
    generation, node, slot = key.split("/", 2)
    return Generation.parse(generation), _node(node), _slot(slot)


def _calling(key: str, raw: bytes) -> tuple[NodeId, NodeId]:
    return ("" if key == NOBODY else _node(key)), _node(_unpack(raw))


def _release(key: str, raw: bytes) -> tuple[NodeId, Slot]:
    node, _, slot = key.partition("/")
    return _node(node), _slot(slot)


def _node(value: object) -> NodeId:
    if not is_node_id(value):
        raise ValueError("not a node id")
    return str(value)


def _slot(value: str) -> Slot:
    service, _, index = value.partition("/")
    if not service or not index or len(value) > 128:
        raise ValueError("not a slot")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError("not a count")
    return value
