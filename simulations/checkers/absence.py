"""Rule 5: absence is never permission. Only positive knowledge stops a container."""

from __future__ import annotations

from gary.effects import Effect, StopContainer
from gary.identity import Slot, index_of
from gary.runtime.base import ContainerState
from gary.spec import Mode
from gary.state import Promise, PromiseState, State
from simulations.checkers.base import Checker
from simulations.checkers.books import Books
from simulations.cluster import Cluster
from simulations.host import Host


class Absence(Checker):
    """No container of a wanted slot is stopped while nobody has promised it, on any disk; nor for another one while
    all that others promised is failing.
    """

    name = "absence"
    about = "no container is stopped unless somebody else promised its slot, or it is not wanted any more"
    watches = (StopContainer,)

    def __init__(self, books: Books) -> None:
        super().__init__()
        self._books = books

    def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
        assert isinstance(effect, StopContainer)
        present = host.engine.present(cluster.clock.now)
        found = next((container for container in present if container.id == effect.container_id), None)
        if found is None or found.state is not ContainerState.RUNNING:
            return
        slot, id = found.labels.slot, found.labels.deployment
        on_disks = [state for other in cluster.hosts if (state := self._books.on_disk(other, id)) is not None]
        own = None if host.agent is None else host.agent.deployments.get(id)
        known = on_disks if own is None else [*on_disks, own.state]
        if not known or not all(_wants(state, slot) for state in known):
            return
        promised = [promise for state in on_disks for promise in state.by_slot.get(slot, ())]
        if all(promise.state is PromiseState.WITHDRAWN for promise in promised):
            self.found(cluster, f"{host.name} stops {slot}, and nobody has promised it")
        elif found.labels.node == host.node and all(not _keeps(promise, host) for promise in promised):
            self.found(cluster, f"{host.name} stops {slot}, and whoever else promised it does not keep it")


def _keeps(promise: Promise, host: Host) -> bool:
    """Whether it is a reason for ``host`` to stop: its own is one, to start another; a failing one of others is none."""
    if promise.node == host.node:
        return promise.state is not PromiseState.WITHDRAWN
    return promise.state in (PromiseState.STARTING, PromiseState.HEALTHY)


def _wants(state: State, slot: Slot) -> bool:
    service = state.service(slot)
    if service is None or service.mode is Mode.GLOBAL:
        return service is not None
    return int(index_of(slot)) <= service.replicas
