"""A deployment's document: which facts it holds, how they are written, and the state they add up to.

The document is a ``crdt.Replica`` with one register per fact. Every fact has one kind of author (rule 1); ``Draft`` has
no method that would write a fact of somebody else's, and ``permission`` refuses such a fact when it comes from the
network. What the facts add up to is a ``state.State``.

    meta/schema                            the form of what follows; only ever added to
    meta/epoch                             which of the documents of this deployment it is; absent in the first one
    specs/<generation>                     canonical spec, immutable, by the generation's author
    removed/<instance>                     immutable; kills that instance for ever; by any member
    members/<node>                         role; first by the inviter, then by the node itself alone
    promises/<node>/<slot>                 by <node> alone
    verdicts/<generation>/<node>/<slot>    grow-only "failed here", by <node> alone
    calling/<dead node>                    who calls for replacements of that node's slots; by any member
    releases/<node>/<slot>                 an operator gave up the reservation of a node that is away; by any member
    operators/<instance>/<key>             who may command that instance through nodes that are no members; by any
                                           member, which names itself
    breaks/<node>, carried/<node>/...      see ``facts``; by <node> alone
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, TypeVar

import msgpack

from crdt import Replica
from gary import spec as specs
from gary.facts import (
    BREAKS,
    CALLING,
    CARRIED,
    EPOCH,
    MEMBERS,
    META,
    OPERATORS,
    PROMISES,
    RELEASES,
    REMOVED,
    SPECS,
    VERDICTS,
    Fact,
    Facts,
    Place,
    decode_number,
    encode_carried,
    epoch_of,
    read,
)
from gary.identity import Claim, Generation, NodeId, Slot, is_node_id, slot_order
from gary.spec import Spec
from gary.state import Grant, Membership, Promise, PromiseState, Role, State
from gary.trust.credentials import KEY_SIZE_BYTES, WATCHWORD_SIZE_BYTES

SCHEMA = 1
NOBODY = "-"
REASON_LENGTH_MAX = 300
WRITES_PER_CHANGE = 512
CHANGE_SIZE_BYTES = 256 * 1024

T = TypeVar("T")


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
            if is_kept or (place[0] == MEMBERS and role_in(place[1], fact.value) in (Role.MEMBER, Role.LEFT)):
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

    def grant(self, instance: str, key: bytes, watchword: bytes) -> None:
        """The operator with this public key may command that instance, and knows its members by ``watchword``."""
        self._writes[OPERATORS, f"{instance}/{key.hex()}"] = _pack([True, self._node, watchword])

    def revoke(self, instance: str, key: bytes) -> None:
        self._writes[OPERATORS, f"{instance}/{key.hex()}"] = _pack([False, self._node, b""])


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

        members = dict(registers(MEMBERS, _membership))
        # Who comes back with an old document may promise something before it hears that it has left.
        left = {node for node, membership in members.items() if membership.role is Role.LEFT}
        promises = (promise for promise in registers(PROMISES, _promise) if promise.node not in left)
        state = State(
            specs=dict(registers(SPECS, _spec)),
            removed=frozenset(registers(REMOVED, lambda key, raw: key)),
            members=members,
            promises=tuple(sorted(promises, key=lambda p: (slot_order(p.slot), p.node))),
            verdicts=frozenset(registers(VERDICTS, _verdict)),
            calling=dict(registers(CALLING, _calling)),
            releases=frozenset(registers(RELEASES, _release)),
            grants=dict(registers(OPERATORS, _grant)),
            malformed=malformed,
        )
        self._decoded = seen
        return state, facts


def role_in(node: NodeId, raw: bytes) -> Role | None:
    """The role that a membership says; None for what is none."""
    try:
        return _membership(node, raw)[1].role
    except (ValueError, TypeError, LookupError, msgpack.UnpackException):
        return None


def granter_of(key: str, raw: bytes) -> NodeId | None:
    """The node that says who may command; None for what says nothing of the kind."""
    try:
        return _grant(key, raw)[1].by
    except (ValueError, TypeError, LookupError, msgpack.UnpackException):
        return None


def is_withdrawn(place: Place, fact: Fact) -> bool:
    """Whether it is a promise that its promiser withdrew."""
    try:
        return _promise(place[1], fact.value).state is PromiseState.WITHDRAWN
    except (ValueError, TypeError, LookupError, msgpack.UnpackException):
        return False


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


def _grant(key: str, raw: bytes) -> tuple[tuple[str, bytes], Grant]:
    instance, _, operator = key.partition("/")
    is_granted, by, watchword = _unpack(raw)
    public = bytes.fromhex(operator)
    if not instance or len(public) != KEY_SIZE_BYTES or public.hex() != operator:
        raise ValueError("not an operator")
    if not isinstance(watchword, bytes) or len(watchword) != (WATCHWORD_SIZE_BYTES if is_granted is True else 0):
        raise ValueError("not a watchword")
    return (instance, public), Grant(is_granted is True, _node(by), watchword)


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
