"""What a rollout takes down stays within its limit."""

from __future__ import annotations

from collections.abc import Sequence

from gary.effects import Effect, StopContainer
from gary.identity import DeploymentId, Slot, service_of
from gary.runtime.base import Container, ContainerState
from gary.state import PromiseState, State
from gary.storage import AppendChanges, PutSnapshot, Write
from simulations.checkers.base import Checker
from simulations.checkers.books import Books
from simulations.cluster import Cluster
from simulations.host import Host

_Run = tuple[str, float]


class Rollout(Checker):
    """Counts the slots whose container was stopped, though it was healthy, for one that has not been so yet.

    What a host had promised before its disk lost something it may not know any more: then no update takes it down. Nor
    what was healthy before it ended, with its host perhaps, and has only just started anew.
    """

    name = "rollout"
    about = "an update takes down no more slots at a time than the deployment allows"
    watches = (StopContainer,)

    def __init__(self, books: Books) -> None:
        super().__init__()
        self._books = books
        self._healthy: dict[tuple[str, int, DeploymentId, Slot, str], _Run] = {}
        self._down: dict[tuple[DeploymentId, str, str], dict[Slot, Host]] = {}

    def wrote(self, cluster: Cluster, host: Host, writes: Sequence[Write]) -> None:
        if host.agent is None:
            return
        for id in dict.fromkeys(write.deployment for write in writes if isinstance(write, AppendChanges | PutSnapshot)):
            state = self._books.on_disk(host, id)
            for promise in () if state is None else state.promises_of(host.node):
                if state is not None:
                    what = state.fingerprints.get((promise.generation, service_of(promise.slot)), "")
                    place = (host.name, host.storage.losses_count, id, promise.slot, what)
                    self._healthy.pop(place, None)
                    for found in host.engine.present(cluster.clock.now):
                        if promise.state is PromiseState.HEALTHY and _is_of(found, id, promise.slot, what):
                            self._healthy[place] = _run_of(found)

    def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
        assert isinstance(effect, StopContainer)
        now = cluster.clock.now
        found = next((c for c in host.engine.present(now) if c.id == effect.container_id), None)
        # As the agent knows it: to stop something is no promise, and does not wait for the disk.
        own = _known_to(host, found.labels.deployment) if found else None
        if found is None or own is None or found.state is not ContainerState.RUNNING:
            return
        id, slot = found.labels.deployment, found.labels.slot
        service = own.service(slot)
        mine = own.promise(host.node, slot)
        generation = own.effective
        if service is None or generation is None or mine is None or not service.update_parallelism:
            return
        wanted = own.fingerprints.get((generation, service.name))
        if found.labels.fingerprint == wanted or not own.is_current(mine):
            return
        place = (host.name, host.storage.losses_count, id, slot, found.labels.fingerprint)
        if self._healthy.get(place) != _run_of(found):
            return  # The update took nothing down that was up.
        down = self._down.setdefault((id, service_of(slot), str(generation)), {})
        # That its own container became healthy an agent knows before its disk does.
        known_to = [own, *(state for other in cluster.hosts if (state := self._books.on_disk(other, id)) is not None)]
        states = [state for state in known_to if state.effective == generation]
        if _has_been_healthy(states, slot):
            return  # Somebody else keeps it.
        for other, stopper in list(down.items()):
            if _has_been_healthy(states, other) or not _keeps(stopper, id, other):
                del down[other]
        down[slot] = host
        # Who sees no keeper of a slot may pass it; and on two sides of a partition nobody knows of the other's.
        known = [other for other, stopper in down.items() if other == slot or _knows(host, own, other, stopper)]
        if len(known) > service.update_parallelism:
            self.found(cluster, f"{host.name} stops {slot} for an update that has {', '.join(known)} down already")


def _run_of(container: Container) -> _Run:
    return container.id, container.started_at_s


def _is_of(container: Container, id: DeploymentId, slot: Slot, fingerprint: str) -> bool:
    labels = container.labels
    return (labels.deployment, labels.slot, labels.fingerprint) == (id, slot, fingerprint)


def _knows(host: Host, own: State, slot: Slot, stopper: Host) -> bool:
    """Whether ``host`` sees ``stopper`` alive, as one that keeps something, and has heard that it moved ``slot``."""
    is_there = stopper.agent is not None and not own.is_gone(stopper.node)
    moved = own.promise(stopper.node, slot) if is_there else None
    return moved is not None and own.is_current(moved) and host.agent is not None and stopper.node in host.agent.alive


def _keeps(host: Host, id: DeploymentId, slot: Slot) -> bool:
    """Whether the update still has it down: a slot that lost its keeper meanwhile is down for another reason."""
    state = _known_to(host, id)
    promise = None if state is None else state.promise(host.node, slot)
    return promise is not None and promise.state is not PromiseState.WITHDRAWN


def _known_to(host: Host, id: DeploymentId) -> State | None:
    deployment = None if host.agent is None else host.agent.deployments.get(id)
    return None if deployment is None else deployment.state


def _has_been_healthy(states: list[State], slot: Slot) -> bool:
    return any(p.once_healthy and state.is_current(p) for state in states for p in state.by_slot.get(slot, ()))
