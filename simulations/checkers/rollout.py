"""What a rollout takes down stays within its limit."""

from __future__ import annotations

from gary.effects import Effect, StopContainer
from gary.identity import DeploymentId, Slot, service_of
from gary.runtime.base import ContainerState
from gary.state import State
from simulations.checkers.base import Checker
from simulations.checkers.books import Books
from simulations.cluster import Cluster
from simulations.host import Host


class Rollout(Checker):
    """Counts the slots whose running container was stopped for a newer one that has not been healthy yet."""

    name = "rollout"
    about = "an update takes down no more slots at a time than the deployment allows"
    watches = (StopContainer,)

    def __init__(self, books: Books) -> None:
        super().__init__()
        self._books = books
        self._down: dict[tuple[DeploymentId, str, str], dict[Slot, None]] = {}

    def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
        assert isinstance(effect, StopContainer)
        now = cluster.clock.now
        found = next((c for c in host.engine.present(now) if c.id == effect.container_id), None)
        own = self._books.on_disk(host, found.labels.deployment) if found else None
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
        down = self._down.setdefault((id, service_of(slot), str(generation)), {})
        states = [state for other in cluster.hosts if (state := self._books.on_disk(other, id)) is not None]
        for other in [other for other in down if _has_been_healthy(states, other)]:
            del down[other]
        down[slot] = None
        if len(down) > service.update_parallelism:
            self.found(cluster, f"{host.name} stops {slot} for an update that has {', '.join(down)} down already")


def _has_been_healthy(states: list[State], slot: Slot) -> bool:
    return any(p.once_healthy and state.is_current(p) for state in states for p in state.by_slot.get(slot, ()))
