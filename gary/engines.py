"""What was last seen of this host's runtimes: their containers, their capacity, and since when one does not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gary.doctor import EngineFacts
from gary.effects import StartContainer, StopContainer
from gary.identity import DeploymentId, Slot
from gary.runtime.base import Capacity, Container, StartRequest
from gary.spec import RuntimeName, Service


@dataclass(slots=True)
class _Engine:
    capacity: Capacity | None = None
    containers: tuple[Container, ...] = ()
    away_since: float | None = 0.0
    reason: str = ""
    """Why it does not answer."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A container being started, or, with ``container_id``, being stopped."""

    deployment: DeploymentId
    slot: Slot
    runtime: str
    container_id: str = ""


class Engines:
    """The runtimes of this host by name, in the order of the configuration. All count as away until they answer."""

    def __init__(
        self, runtimes: Iterable[str], next_number: Callable[[], int], tell: Callable[[str, str], None]
    ) -> None:
        self._engines = {name: _Engine() for name in runtimes}
        self.names = tuple(self._engines)
        self._operations: dict[int, Operation] = {}
        self._started_at = 0.0
        self._next_number = next_number
        self._tell = tell

    # What comes in

    def start(self, now: float) -> None:
        self._started_at = now
        for engine in self._engines.values():
            engine.away_since = now

    def observed(
        self,
        runtime: str,
        containers: Sequence[Container] | None,
        capacity: Capacity | None,
        now: float,
        reason: str,
    ) -> bool:
        """What ``runtime`` runs now; None: it does not answer. ``capacity`` None: as before. Whether that is news."""
        engine = self._engines[runtime]
        before = engine.away_since is None, engine.containers, engine.capacity
        engine.reason = reason
        if containers is None:
            if engine.away_since is None:
                engine.away_since = now
                self._tell("engine", f"the {runtime} runtime does not answer: {reason}")
        else:
            if engine.away_since is not None and engine.capacity is not None:
                self._tell("engine", f"the {runtime} runtime answers again")
            engine.away_since = None
            engine.containers = tuple(containers)
            engine.capacity = capacity or engine.capacity
        return before != (engine.away_since is None, engine.containers, engine.capacity)

    def operated(self, number: int, container: Container | None, error: str) -> Operation | None:
        """An operation has ended; it is returned, if it was one of these."""
        operation = self._operations.pop(number, None)
        if operation is not None and not error:
            engine = self._engines[operation.runtime]
            removed = container.id if container is not None else operation.container_id
            others = tuple(c for c in engine.containers if c.id != removed)
            engine.containers = others if container is None else (*others, container)
        return operation

    # What follows from it

    def start_container(self, runtime: str, request: StartRequest) -> StartContainer:
        number = self._next_number()
        self._operations[number] = Operation(request.labels.deployment, request.labels.slot, runtime)
        return StartContainer(number, runtime, request)

    def stop_container(
        self, deployment: DeploymentId, slot: Slot, container: Container, grace_s: float
    ) -> StopContainer | None:
        """What stops it; None if no runtime has it any more."""
        runtime = self.runtime_of(container.id)
        if runtime is None:
            return None
        number = self._next_number()
        self._operations[number] = Operation(deployment, slot, runtime, container.id)
        return StopContainer(number, runtime, container.id, grace_s)

    def is_being_stopped(self, container: Container) -> bool:
        return any(operation.container_id == container.id for operation in self._operations.values())

    def containers(self) -> list[Container]:
        """All that the runtimes that answer were last seen to have."""
        return [c for engine in self._engines.values() if engine.away_since is None for c in engine.containers]

    def runtime_of(self, container: str) -> str | None:
        """The runtime that has that container."""
        return next(
            (name for name, engine in self._engines.items() if any(c.id == container for c in engine.containers)), None
        )

    def runtime_for(self, service: Service) -> str | None:
        """The runtime that would keep the service here; None if there is none for it."""
        if service.runtime is not RuntimeName.ANY:
            return service.runtime.value if service.runtime.value in self._engines else None
        preferred = ["docker", "process"] if service.image else ["process", "docker"]
        present = [name for name in [*preferred, *self._engines] if name in self._engines]
        answering = [name for name in present if self._engines[name].away_since is None]
        return next(iter([*answering, *present]), None)

    def answering(self) -> list[str]:
        return [name for name, engine in self._engines.items() if engine.away_since is None]

    def away(self) -> list[str]:
        """The runtimes that do not answer at the moment."""
        return [name for name, engine in self._engines.items() if engine.away_since is not None]

    def facts(self) -> tuple[EngineFacts, ...]:
        """Each runtime as it was last seen."""
        return tuple(
            EngineFacts(name, engine.away_since is None, engine.capacity is not None, engine.reason)
            for name, engine in self._engines.items()
        )

    def away_since_s(self, runtime: str | None) -> float | None:
        """Since when that runtime has not answered; None if it does. One that is not here never has."""
        return self._started_at if runtime not in self._engines else self._engines[runtime].away_since

    def capacity(self, runtimes: Iterable[str]) -> tuple[float, int]:
        """The CPUs and the bytes of memory of the host, by the runtimes named: several see the same ones."""
        seen = [self._engines[name].capacity for name in runtimes]
        known = [capacity for capacity in seen if capacity is not None]
        cpus = max((capacity.cpus for capacity in known), default=0.0)
        return cpus, max((capacity.memory_bytes for capacity in known), default=0)
