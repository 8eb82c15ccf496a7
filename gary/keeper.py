"""What this node keeps of one deployment: its own promises, and the containers that keep them.

The pure functions of ``assignment``, ``rollout`` and ``reconciler`` decide; this brings together what they need, and
carries out what they say through the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gary import spec as specs
from gary.assignment import (
    View,
    is_believed_healthy,
    keeping,
    live_promises,
    reason_to_withdraw,
    relieved,
    wanted_slots,
)
from gary.document import Draft
from gary.host import Host
from gary.identity import Claim, DeploymentId, Slot, index_of, service_of
from gary.reconciler import (
    Containers,
    Slate,
    Start,
    Stop,
    Wanted,
    by_slot,
    failed,
    observe,
    operations,
    outcome,
    settles_at_s,
)
from gary.rollout import waits_for
from gary.runtime.base import Container, ContainerState, Labels, StartRequest
from gary.state import Promise, PromiseState, State
from gary.volunteering import Room, after, per_node_max, refusal, requirement

ENGINE_NOTICE_S = 3.0
"""After this long without its engine a node says that it cannot know whether it keeps what it promised."""
ENGINE_PATIENCE_S = 30.0
"""After this long without its engine a node lets others take over what it cannot keep."""
DEFAULT_GRACE_S = 10.0


class Keeper:
    """``slates``: what is remembered of each slot kept here between two looks; none of it is in the document."""

    def __init__(self, id: DeploymentId, host: Host) -> None:
        self.slates: dict[Slot, Slate] = {}
        self._id = id
        self._host = host
        self._busy: set[Slot] = set()

    def containers(self) -> Containers:
        return by_slot(self._host.containers(self._id))

    @property
    def is_busy(self) -> bool:
        """An operation is under way."""
        return bool(self._busy)

    def slots_here(self, state: State) -> set[Slot]:
        """Where this node's containers are, or may be: an engine that does not answer cannot tell."""
        own = [promise for promise in state.promises if promise.node == self._host.node]
        unseen = (p.slot for p in own if self._host.away_since_s(self._runtime(state, p)) is not None)
        return {*self.containers(), *self._busy, *unseen}

    # Taking on

    def consider(self, state: State, view: View, slot: Slot, room: Room, taken: int) -> tuple[str | None, Room]:
        """Why this node does not take ``slot``, or None and the room that is left."""
        service = state.service(slot)
        if service is None or not state.wants(slot):
            return "the slot is not wanted any more", room
        mine = state.promise(self._host.node, slot)
        if mine is not None and mine.state is not PromiseState.WITHDRAWN:
            return None, room
        holder = keeping(state, view, slot).holder
        if holder is not None and not holder.yielding:
            return f"it is kept by {self._host.display_name(holder.node)}", room
        limit = per_node_max(service)
        here = [p for p in state.promises_of(self._host.node) if state.service(p.slot) is service]
        if limit and len(here) + taken >= limit:
            return f"at most {limit} per node", room
        needed = requirement(service)
        reason = refusal(needed, room)
        return (reason, room) if reason else (None, after(room, needed))

    def claim(self, draft: Draft, state: State, view: View, slot: Slot) -> None:
        """Promise ``slot``, if this node does not keep it already."""
        assert state.effective is not None
        mine = state.promise(self._host.node, slot)
        if mine is not None and mine.state is not PromiseState.WITHDRAWN:
            return
        promise = Promise(
            node=self._host.node,
            slot=slot,
            claim=Claim(state.lamport + 1, self._host.node),
            generation=state.effective,
            epoch=self._host.epoch,
            state=PromiseState.STARTING,
            instead_of=tuple(p.node for p in live_promises(state, view, slot) if p.yielding),
        )
        draft.promise(promise)
        self.slates.pop(slot, None)

    def adoptable(self, state: State, view: View, containers: Containers) -> list[Slot]:
        """Slots that nobody keeps and whose container runs here: this node keeps them from now on.

        It may have withdrawn from one, and somebody wants it again before the container was stopped.
        """
        found: list[Slot] = []
        wanted = wanted_slots(state, view)
        for slot, present in containers.items():
            service = state.service(slot)
            mine = state.promise(self._host.node, slot)
            is_over = mine is not None and (self._host.is_draining or self._host.node in state.failed_at(slot))
            if service is None or slot not in wanted or slot in self._busy or is_over:
                continue
            fits = any(
                c.state is ContainerState.RUNNING and c.labels.fingerprint == specs.fingerprint(service)
                for c in present
            )
            if fits and keeping(state, view, slot).holder is None:
                found.append(slot)
        return found

    # Promises

    def look(self, state: State, containers: Containers, now: float, wake: list[float]) -> None:
        """Take in what the containers of this node's slots look like now."""
        kept = set()
        for promise in state.promises_of(self._host.node):
            kept.add(promise.slot)
            service = state.promised(promise)
            if service is None or promise.slot in self._busy:
                continue
            slate = self.slates.get(promise.slot, Slate())
            seen = observe(slate, _container(state, containers, promise), service.restart, now)
            if seen != slate:
                self.slates[promise.slot] = seen
            if seen.running:
                wake.extend(at for at in (settles_at_s(seen), seen.since_s + 300.0) if at > now)
            if seen.retry_at_s > now:
                wake.append(seen.retry_at_s)
        for slot in [slot for slot in self.slates if slot not in kept]:
            del self.slates[slot]

    def restate(
        self, state: State, view: View, containers: Containers, draft: Draft, now: float, wake: list[float]
    ) -> None:
        """State each of this node's promises as it now has to be stated."""
        for promise in state.promises_of(self._host.node):
            container = _container(state, containers, promise)
            stated = self._stated(state, view, promise, container, now, wake)
            if stated != promise:
                draft.promise(stated)
                self._tell_of(state, promise, stated)
                if self._has_failed_for_good(state, promise, stated):
                    draft.judge(stated.generation, stated.slot)

    def _stated(
        self, state: State, view: View, promise: Promise, container: Container | None, now: float, wake: list[float]
    ) -> Promise:
        """``promise``, which ``container`` keeps, as this node now has to state it."""
        withdrawal = reason_to_withdraw(state, view, promise)
        if withdrawal is not None:
            keeper = f", now by {self._host.display_name(withdrawal.keeper)}" if withdrawal.keeper else ""
            return replace(promise, state=PromiseState.WITHDRAWN, reason=withdrawal.reason + keeper)
        if promise.epoch != self._host.epoch:
            return self._affirm(state, view, promise, container)
        if not state.is_current(promise) and not waits_for(state, view, promise):
            assert state.effective is not None
            self.slates.pop(promise.slot, None)
            return replace(
                promise,
                generation=state.effective,
                state=PromiseState.STARTING,
                once_healthy=False,
                yielding=self._host.is_draining,
                reason="",
            )
        away_since = self._host.away_since_s(self._runtime(state, promise))
        if away_since is not None:
            away_s = now - away_since
            wake.extend(away_since + limit for limit in (ENGINE_NOTICE_S, ENGINE_PATIENCE_S) if limit > away_s)
            if away_s < ENGINE_NOTICE_S:
                return promise
            yielding = promise.yielding or away_s >= ENGINE_PATIENCE_S
            reason = "the container engine does not answer"
            return replace(promise, state=PromiseState.FAILING, yielding=yielding, reason=reason)
        stated = promise
        if promise.slot not in self._busy:
            stated = outcome(promise, container, self.slates.get(promise.slot, Slate()), now)
        if self._host.is_draining:
            return replace(stated, yielding=True)
        instead_of = relieved(state, view, stated)
        return stated if instead_of == stated.instead_of else replace(stated, instead_of=instead_of)

    def _affirm(self, state: State, view: View, promise: Promise, container: Container | None) -> Promise:
        """After a restart: keep what still runs; yield what does not and is kept elsewhere; start the rest again."""
        epoch = self._host.epoch
        if container is not None and container.state is ContainerState.RUNNING:
            return replace(promise, epoch=epoch)
        if self._host.away_since_s(self._runtime(state, promise)) is not None:
            return promise
        for rival in live_promises(state, view, promise.slot):
            if rival.node != promise.node and is_believed_healthy(rival, view):
                name = self._host.display_name(rival.node)
                return replace(promise, state=PromiseState.WITHDRAWN, reason=f"kept by {name} since this node was away")
        return replace(promise, epoch=epoch, state=PromiseState.STARTING, reason="")

    def _tell_of(self, state: State, before: Promise, stated: Promise) -> None:
        if stated.state is not before.state:
            words = f"{stated.state}" + (f": {stated.reason}" if stated.reason else "")
            self._host.tell("promise", words, deployment=state.name, slot=stated.slot)

    def _has_failed_for_good(self, state: State, before: Promise, stated: Promise) -> bool:
        """Whether it is the container that failed, and not the node that leaves or its engine that is away."""
        if stated.state is not PromiseState.FAILING or not stated.yielding or before.yielding:
            return False
        return not self._host.is_draining and self._host.away_since_s(self._runtime(state, stated)) is None

    def _runtime(self, state: State, promise: Promise) -> str | None:
        service = state.promised(promise)
        return None if service is None else self._host.runtime_for(service)

    # Containers

    def operate(
        self, state: State, containers: Containers, settled: frozenset[Slot], unwanted: frozenset[Slot], now: float
    ) -> None:
        """Bring the containers to what was promised on ``settled`` slots: other promises are not durable yet."""
        wanted: dict[Slot, Wanted] = {}
        for promise in state.promises_of(self._host.node):
            service = state.promised(promise)
            ready = promise.epoch == self._host.epoch and promise.slot in settled
            if service is not None and ready and self._host.away_since_s(self._host.runtime_for(service)) is None:
                wanted[promise.slot] = Wanted(promise.slot, service, specs.fingerprint(service))
        for operation in operations(wanted, unwanted, containers, self.slates, frozenset(self._busy), now):
            self._perform(state, operation)

    def is_elsewhere(self, state: State, view: View, slot: Slot) -> bool:
        """Positive knowledge that ``slot`` is not this node's to keep."""
        mine = state.promise(self._host.node, slot)
        if mine is not None:
            return mine.state is PromiseState.WITHDRAWN
        if slot not in wanted_slots(state, view):
            return True
        return any(is_believed_healthy(promise, view) for promise in live_promises(state, view, slot))

    def stop_all(self, state: State) -> bool:
        """The deployment was removed: stop what runs. Whether nothing is left."""
        containers: Sequence[Container] = self._host.containers(self._id)
        for container in containers:
            if container.labels.slot not in self._busy:
                self._perform(state, Stop(container, "the deployment was removed"))
        return not containers and not self._busy

    def operated(self, state: State, slot: Slot, error: str, now: float) -> None:
        """An operation on ``slot`` has ended. ``error`` empty: it worked."""
        self._busy.discard(slot)
        if not error:
            return
        promise = state.promise(self._host.node, slot)
        service = None if promise is None else state.promised(promise)
        slate = self.slates.get(slot, Slate())
        if service is not None:
            self.slates[slot] = failed(slate, service.restart, error, now)
        if slate.reason != error:
            self._host.tell("container", error, deployment=state.name, slot=slot)

    def _perform(self, state: State, operation: Start | Stop) -> None:
        match operation:
            case Start(slot, service):
                promise = state.promise(self._host.node, slot)
                runtime = self._host.runtime_for(service)
                if promise is None or runtime is None:
                    return
                fingerprint = specs.fingerprint(service)
                labels = Labels(self._id, slot, str(promise.generation), fingerprint, self._host.node)
                name = f"{state.name}-{service.name}-{index_of(slot)[:12]}-{self._host.node[:6]}-{fingerprint[:6]}"
                self._busy.add(slot)
                self._host.start_container(runtime, StartRequest(name, state.name, labels, service, index_of(slot)))
            case Stop(container):
                self._busy.add(container.labels.slot)
                self._host.stop_container(self._id, container.labels.slot, container, _grace_s(state, container))


def _container(state: State, containers: Containers, promise: Promise) -> Container | None:
    """The container that keeps ``promise``, the running one if there are several."""
    wanted = state.fingerprints.get((promise.generation, service_of(promise.slot)))
    matching = [c for c in containers.get(promise.slot, ()) if c.labels.fingerprint == wanted]
    return next((c for c in matching if c.state is ContainerState.RUNNING), next(iter(matching), None))


def _grace_s(state: State, container: Container) -> float:
    """How long a container may take to end, by the spec that it was started from; Compose's default if that is lost."""
    for generation, spec in state.specs.items():
        if str(generation) == container.labels.generation:
            service = spec.service(service_of(container.labels.slot))
            if service is not None:
                return service.stop_grace_period_s
    return DEFAULT_GRACE_S
