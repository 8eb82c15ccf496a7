"""Rule 5: absence is never permission. Only positive knowledge stops a container."""

from __future__ import annotations

from collections.abc import Sequence

from crdt import Limits
from crdt.changes import author_of
from crdt.chunks import open_change
from gary.effects import Effect, StopContainer
from gary.identity import DeploymentId, Slot, index_of
from gary.runtime.base import ContainerState
from gary.spec import Mode
from gary.state import Promise, PromiseState, State
from gary.storage import AppendChanges, PutSnapshot, Write
from simulations.checkers.base import Checker
from simulations.checkers.books import Books
from simulations.cluster import Cluster
from simulations.host import Host


class Absence(Checker):
    """No container of a wanted slot is stopped while nobody has promised it, on any disk; nor by who has withdrawn its
    promise while all that others promised was failing.
    """

    name = "absence"
    about = "no container is stopped unless somebody else promised its slot, or it is not wanted any more"
    watches = (StopContainer,)

    def __init__(self, books: Books) -> None:
        super().__init__()
        self._books = books
        self._said: dict[tuple[str, DeploymentId, Slot], PromiseState] = {}
        self._groundless: set[tuple[str, DeploymentId, Slot]] = set()

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
        if all(p.state is PromiseState.WITHDRAWN for state in on_disks for p in state.by_slot.get(slot, ())):
            self.found(cluster, f"{host.name} stops {slot}, and nobody has promised it")
        elif (host.name, id, slot) in self._groundless:
            self.found(cluster, f"{host.name} stops {slot}, and knew nobody who kept it when it withdrew")

    def wrote(self, cluster: Cluster, host: Host, writes: Sequence[Write]) -> None:
        """A promise that is withdrawn: its promiser has to know somebody else who keeps the slot."""
        if host.agent is None:
            return
        for id in dict.fromkeys(filter(None, (_stated_in(host, write) for write in writes))):
            state = self._books.on_disk(host, id)
            if state is None:
                continue
            for promise in state.promises:
                if promise.node == host.node:
                    self._judge(host, id, state, promise)

    def _judge(self, host: Host, id: DeploymentId, state: State, promise: Promise) -> None:
        key = host.name, id, promise.slot
        was, self._said[key] = self._said.get(key), promise.state
        if promise.state is not PromiseState.WITHDRAWN:
            self._groundless.discard(key)
        elif was not in (None, PromiseState.WITHDRAWN) and _wants(state, promise.slot):
            others = [other for other in state.by_slot[promise.slot] if other.node != host.node]
            if not any(other.state in (PromiseState.STARTING, PromiseState.HEALTHY) for other in others):
                self._groundless.add(key)


def _stated_in(host: Host, write: Write) -> DeploymentId | None:
    """The deployment about which the host itself may say something new there."""
    match write:
        case AppendChanges(id, changes):
            own, limits = bytes.fromhex(host.node), Limits()
            is_own = any(author_of(open_change(change, limits), limits).startswith(own) for change in changes)
            return id if is_own else None
        case PutSnapshot(id, _):
            return id
    return None


def _wants(state: State, slot: Slot) -> bool:
    service = state.service(slot)
    if service is None or service.mode is Mode.GLOBAL:
        return service is not None
    return int(index_of(slot)) <= service.replicas
