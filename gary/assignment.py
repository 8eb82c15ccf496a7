"""Who keeps which slot: pure functions of a document's state and of who is alive, as one node sees both.

Every member evaluates the same functions on what it knows; nobody plans for all. Two rules keep that safe:

*Precedence* orders the promises on one slot: the higher generation first, then the lower claim. A promise's place in
that order never falls (its claim is immutable, its generation only rises), so two nodes with old news of each other can
both believe that they win, but never both that they lose: the last holder does not withdraw.

*Positive knowledge*: only a promise of a live node, or the spec itself, takes a slot from its holder (rule 5). A node
that cannot be seen loses nothing that it keeps; it only stops counting for those who cannot see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gary.identity import WITNESS, NodeId, Slot, rendezvous, slot_order
from gary.spec import Mode, Partition
from gary.state import Promise, PromiseState, Role, State

FAILURES_THAT_TOUR_MAX = 2
"""A slot that failed for good on this many nodes stays where it is: a bad image does not tour the cluster."""


class Epochs(Protocol):
    """The boot epoch of each of some nodes, in no order that means anything: a dict, or ``gossip.Layered``."""

    def __len__(self) -> int: ...

    def __contains__(self, node: NodeId, /) -> bool: ...

    def __iter__(self) -> Iterator[NodeId]: ...

    def __getitem__(self, node: NodeId, /) -> int: ...

    def get(self, node: NodeId, /) -> int | None: ...


@dataclass(frozen=True, slots=True)
class View:
    """What one node believes about the cluster.

    ``alive``: the boot epoch of every node it holds alive, itself included. ``left``: nodes that said they left.
    ``eligible``: for each global service the live nodes that satisfy its constraints, sorted. ``draining``: live nodes
    that are about to leave.
    """

    node: NodeId
    alive: Epochs
    left: frozenset[NodeId] = frozenset()
    eligible: Mapping[str, tuple[NodeId, ...]] = field(default_factory=dict)
    draining: frozenset[NodeId] = frozenset()


@dataclass(frozen=True, slots=True)
class Keeping:
    """One slot that the spec wants, and how it stands with it.

    ``holder``: the live node's promise that takes precedence. ``lost``: nodes that promised it and are not alive.
    ``held``: its last holder is away and the service says that the others keep the slot reserved for it.
    ``replaceable``: the holder yields, and somebody else should try.
    """

    slot: Slot
    holder: Promise | None
    lost: tuple[NodeId, ...] = ()
    held: bool = False
    replaceable: bool = False

    @property
    def is_needed(self) -> bool:
        return self.replaceable or (self.holder is None and not self.held)


def wanted_slots(state: State, view: View) -> tuple[Slot, ...]:
    """The slots that the effective spec asks for, in the fixed order in which updates visit them."""
    everywhere = [service.name for service in state.services.values() if service.mode is Mode.GLOBAL]
    if not everywhere:
        return state.replicas
    slots = (f"{service}/{node}" for service in everywhere for node in view.eligible.get(service, ()))
    return tuple(sorted((*state.replicas, *slots), key=slot_order))


def live_promises(state: State, view: View, slot: Slot) -> list[Promise]:
    """The promises on ``slot`` of live nodes, withdrawn ones left out, the winner first.

    Whoever was forgotten, and lives, does not hold the document: it may have lost it, and keeps nothing that it has not
    promised anew.
    """
    return [
        promise
        for promise in state.standing.get(slot, ())
        if promise.node in view.alive and not state.is_gone(promise.node)
    ]


def is_believed_healthy(promise: Promise, view: View) -> bool:
    """Healthy by its promiser's word since the promiser's last start; older words are no evidence."""
    return promise.state is PromiseState.HEALTHY and view.alive.get(promise.node) == promise.epoch


def keeping(state: State, view: View, slot: Slot) -> Keeping:
    live = live_promises(state, view, slot)
    if live:
        working = [promise for promise in live if not promise.yielding]
        holder = working[0] if working else live[0]
        tried = state.failed_at(slot)
        return Keeping(slot, holder, replaceable=not working and len(tried) < FAILURES_THAT_TOUR_MAX)
    absent = state.standing.get(slot, ())
    service = state.service(slot)
    held = (
        service is not None
        and service.partition is Partition.HOLD
        and any(
            p.node not in view.left and p.node in state.holders and (p.node, slot) not in state.releases for p in absent
        )
    )
    return Keeping(slot, None, lost=tuple(p.node for p in absent if p.node not in view.alive), held=held)


def keepings(state: State, view: View) -> dict[Slot, Keeping]:
    """Every wanted slot, in order."""
    return {slot: keeping(state, view, slot) for slot in wanted_slots(state, view)}


OBSERVERS_MIN = 2
"""So many members must have found another one silent, each for itself, before its slots are replaced."""
ALONE_S = 30.0
"""After so long the word of one is enough, if it is well itself and nobody who could confirm it says anything."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure a node may be that another one is gone, when it is about to replace what that one kept.

    A view may be wrong for a moment, and costs nothing; a replacement starts containers. So it asks for more evidence
    than a view does (Rapid, Suresh and others 2018, section 4). ``observers``: live nodes, this one perhaps among them,
    that have each found the other one silent. ``doubters``: live nodes that were asked and hold it alive. ``unheard``:
    those that were asked and have not answered. ``missing_for_s``: for how long it has been held down here.
    ``is_well``: this node finds nothing wrong with itself; otherwise what it observed itself is not among the evidence.
    """

    observers: frozenset[NodeId]
    doubters: frozenset[NodeId]
    unheard: frozenset[NodeId]
    missing_for_s: float
    is_well: bool

    @property
    def suffices(self) -> bool:
        """Two independent observers; or one, where nobody else is there to ask, or nobody has answered for long."""
        if len(self.observers) >= OBSERVERS_MIN:
            return True
        if self.doubters:
            return False
        return not self.unheard or (self.is_well and self.missing_for_s >= ALONE_S)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Why a promise ends; ``keeper``: the node that keeps the slot instead, if it is kept at all."""

    reason: str
    keeper: NodeId = ""


def reason_to_withdraw(state: State, view: View, mine: Promise) -> Withdrawal | None:
    """Why the promiser ought to withdraw ``mine``; None to go on keeping it.

    Needs positive knowledge: the effective spec does not want the slot, or a live node is known to keep it.
    """
    if state.service(mine.slot) is None or mine.slot not in wanted_slots(state, view):
        return Withdrawal("no longer wanted")
    for rival in live_promises(state, view, mine.slot):
        if rival.node == mine.node:
            continue
        replaced = mine.yielding and mine.node in rival.instead_of and not rival.yielding
        if replaced and (mine.state is not PromiseState.HEALTHY or is_believed_healthy(rival, view)):
            return Withdrawal("handed over", rival.node)
        if rival.precedence < mine.precedence and not rival.yielding and is_believed_healthy(rival, view):
            return Withdrawal("kept elsewhere", rival.node)
    return None


def relieved(state: State, view: View, mine: Promise) -> tuple[NodeId, ...]:
    """The nodes instead of which the promiser keeps the slot: also those that began to yield after it had claimed it.

    Who yields withdraws on nothing less than such a word, since its giver will not withdraw for the one it relieves.
    """
    if mine.yielding:
        return mine.instead_of
    yielding = (p.node for p in live_promises(state, view, mine.slot) if p.yielding and p.node != mine.node)
    return tuple(dict.fromkeys((*mine.instead_of, *yielding)))


def live_members(state: State, view: View) -> tuple[NodeId, ...]:
    """The live nodes that hold the document by their own word, sorted."""
    return tuple(node for node in state.holders if node in view.alive and state.members[node].role is Role.MEMBER)


def staying_members(state: State, view: View) -> tuple[NodeId, ...]:
    """The live members that are not about to leave."""
    return tuple(node for node in live_members(state, view) if node not in view.draining)


def resilience(state: State, view: View) -> int:
    """How many live members there should be: as many as the spec says, or all nodes where there are fewer."""
    staying = len(view.alive) - sum(node in view.alive for node in view.draining)
    return 0 if state.spec is None else min(state.spec.resilience, staying)


def depends_on_all(state: State, alive: Epochs) -> bool:
    """Whether what is to be done depends on nodes that hold nothing of it: each of them has a slot of its own, or they
    are so few that they limit how many members there should be.
    """
    few = state.spec is not None and len(alive) <= 2 * state.spec.resilience
    return few or any(service.mode is Mode.GLOBAL for service in state.services.values())


def witnesses_needed(state: State, view: View) -> tuple[Slot, ...]:
    """``witness/i`` for every member that is missing; a witness guards the document and runs nothing."""
    missing = resilience(state, view) - len(staying_members(state, view))
    return tuple(f"{WITNESS}/{index}" for index in range(1, missing + 1))


def is_dispensable(state: State, view: View) -> bool:
    """Whether this node may leave: it keeps no slot, and enough others would hold the document without it."""
    if state.promises_of(view.node):
        return False
    members = staying_members(state, view)
    runners = [node for node in members if state.promises_of(node)]
    idle = [node for node in members if node not in runners]
    guards = max(0, resilience(state, view) - len(runners))
    return view.node in rendezvous(WITNESS, idle)[guards:]


def callers(state: State, view: View, missing: NodeId) -> list[NodeId]:
    """The live members in the order in which they call for replacements of ``missing``'s slots.

    ``missing`` empty: slots that nobody has kept yet; the author of the generation comes first, since it knows first.
    """
    members = live_members(state, view)
    order = rendezvous(missing or str(state.effective), members)
    if not missing and state.effective is not None and state.effective.author in members:
        order.sort(key=lambda node: state.effective is None or node != state.effective.author)
    return order


def patience_s(vanished: int, others: int) -> float:
    """How long to wait before replacing the slots of nodes that vanished together.

    The larger the share of its peers that a node misses, the likelier it is the one that was cut off. One of five costs
    about 1.5 s; all others at once cost 8 s.
    """
    share = vanished / others if others else 0.0
    return float(1.5 + 6.5 * min(1.0, share) ** 4)
