"""When a slot may move to the effective generation: pure, and safe with old news.

The slots of a service have a fixed order. A slot may move once few enough of its predecessors are still to be seen
healthy at the new generation. "Has once been healthy there" never goes back, so a node that knows less than the others
waits longer than it must, and never moves too early.
"""

from __future__ import annotations

from gary.assignment import View, live_promises, wanted_slots
from gary.identity import Slot, service_of
from gary.state import Promise, PromiseState, State


def is_done(state: State, slot: Slot) -> bool:
    """Whether ``slot`` has once been healthy at what the effective spec wants, wherever that was."""
    return any(promise.once_healthy and state.is_current(promise) for promise in state.by_slot.get(slot, ()))


def waits_for(state: State, view: View, mine: Promise) -> tuple[Slot, ...]:
    """The slots that ``mine`` has to wait for before it moves to the effective generation; empty: it may move now.

    What is not healthy anyway moves at once, since the update takes nothing down with it. A predecessor that nobody
    keeps counts against the limit, but cannot stop the rollout: at least one slot at a time goes on. Once it is kept
    again, it waits for those that went on without it and have not been healthy yet.
    """
    service = state.service(mine.slot)
    if service is None or state.is_current(mine) or mine.state is not PromiseState.HEALTHY:
        return ()
    if service.update_parallelism == 0:
        return ()
    pending: list[Slot] = []
    unheld = 0
    is_before = True
    for slot in wanted_slots(state, view):
        if slot == mine.slot:
            is_before = False
        elif service_of(slot) != service.name or is_done(state, slot):
            continue
        elif not is_before:
            pending += [slot] if any(state.is_current(held) for held in live_promises(state, view, slot)) else []
        elif live_promises(state, view, slot):
            pending.append(slot)
        else:
            unheld += 1
    limit = max(1, service.update_parallelism - unheld)
    return tuple(pending) if len(pending) >= limit else ()
