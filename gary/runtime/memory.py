"""Containers that are only remembered, for simulations and for tests.

``MemoryEngine`` is a host's engine as a synchronous object: every method takes ``now``, nothing waits, and what changes
by itself (a container that becomes healthy, one that ends) is computed from ``now``. A driver in virtual time calls
it, and asks ``next_change_s`` when to look again. ``MemoryRuntime`` is the same engine behind the asynchronous
interface, with a clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from gary.runtime.base import (
    Capacity,
    Container,
    ContainerState,
    Health,
    LogChunk,
    PublishedPort,
    StartRequest,
)
from gary.runtime.errors import (
    ContainerMissing,
    EngineUnavailable,
    ImageMissing,
    NameTaken,
    PortTaken,
    StartRefused,
)

FIRST_CHOSEN_PORT: Final = 32768
DEFAULT_CAPACITY: Final = Capacity(cpus=4.0, memory_bytes=8 << 30, architecture="x86_64")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What containers of an image do. The default: run for ever, healthy at once where there is a health check.

    ``healthy_after_s``: after the start; negative: never. ``ends_after_s``: after the start, with ``exit_code``; None:
    never. ``refusal``: the engine refuses to start it, with these words.
    """

    healthy_after_s: float = 0.0
    ends_after_s: float | None = None
    exit_code: int = 1
    refusal: str = ""


@dataclass(slots=True)
class _Record:
    """A container, as it was when something was last done to it; ``_seen`` adds what time does.

    ``health``: what it was told to say until it is started again; None: what comes by itself.
    """

    container: Container
    behaviour: Behaviour
    checked: bool
    health: Health | None = None
    written: list[LogChunk] = field(default_factory=list)


class MemoryEngine:
    """One host's containers. Deterministic: the same calls give the same ids, ports and times.

    It takes no time; how long things take is a driver's to say.
    """

    def __init__(
        self,
        *,
        host: str = "memory",
        capacity: Capacity = DEFAULT_CAPACITY,
    ) -> None:
        self._host = host
        self._capacity = capacity
        self._records: dict[str, _Record] = {}
        self._behaviours: dict[str, Behaviour] = {}
        self._missing: set[str] = set()
        self._down = ""
        self._created = 0
        self._listeners: list[Callable[[], None]] = []

    # What the world does to it

    def behave(self, image: str, behaviour: Behaviour) -> None:
        """How containers of ``image`` that are started from now on behave."""
        self._behaviours[image] = behaviour

    def lose_image(self, image: str) -> None:
        self._missing.add(image)

    def gain_image(self, image: str) -> None:
        self._missing.discard(image)

    def go_down(self, reason: str = "it is switched off") -> None:
        """The engine stops to answer; its containers run on."""
        self._down = reason
        self._changed()

    def come_up(self) -> None:
        self._down = ""
        self._changed()

    def lose_power(self, now: float) -> None:
        """Every running container ends and nobody sees its exit code."""
        for record in self._records.values():
            if self._seen(record, now).state is ContainerState.RUNNING:
                self._end(record, now, None, "the host was switched off")
        self._changed()

    def crash(self, container_id: str, now: float, exit_code: int = 1) -> None:
        """The container ends by itself."""
        self._end(self._records[container_id], now, exit_code, "")
        self._changed()

    def vanish(self, container_id: str) -> None:
        """The container is not there any more, and nobody is told."""
        del self._records[container_id]

    def set_health(self, container_id: str, health: Health | None) -> None:
        """The container's health is this until it is started again; None: what its health check makes of it."""
        self._records[container_id].health = health
        self._changed()

    def write(self, container_id: str, chunk: LogChunk) -> None:
        """The container writes to its log."""
        self._records[container_id].written.append(chunk)
        self._changed()

    def present(self, now: float) -> tuple[Container, ...]:
        """What there really is, whether the engine answers or not: for whoever judges, never for an agent."""
        return tuple(self._all(now))

    # What the interface does with it

    def capacity(self, now: float) -> Capacity:
        self._answer()
        used = {port.host_port for c in self._all(now) if c.state is ContainerState.RUNNING for port in c.ports}
        return replace(self._capacity, ports_in_use=self._capacity.ports_in_use | used)

    def containers(self, node: str | None, now: float) -> tuple[Container, ...]:
        self._answer()
        return tuple(c for c in self._all(now) if node is None or c.labels.node == node)

    def start(self, request: StartRequest, now: float) -> Container:
        self._answer()
        present = next((record for record in self._records.values() if record.container.name == request.name), None)
        if present is not None:
            container = self._seen(present, now)
            if not request.labels.owns(container.labels):
                raise NameTaken(request.name)
            if request.labels.satisfied_by(container.labels):
                return container if container.state is ContainerState.RUNNING else self._run(present, now)
            del self._records[container.id]
        return self._run(self._create(request, now), now)

    def stop(self, container_id: str, grace_s: float, now: float) -> None:
        self._answer()
        if self._records.pop(container_id, None) is not None:
            self._changed()

    def logs(self, container_id: str) -> Sequence[LogChunk]:
        self._answer()
        record = self._records.get(container_id)
        if record is None:
            raise ContainerMissing(container_id)
        return tuple(record.written)

    def next_change_s(self, now: float) -> float | None:
        """When, after ``now``, a container next changes by itself; None: never."""
        times = [at for record in self._records.values() for at in self._turns(record) if at > now]
        return min(times, default=None)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after every change that something did; gives the function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # Inside

    def _answer(self) -> None:
        if self._down:
            raise EngineUnavailable("memory", self._down)

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def _create(self, request: StartRequest, now: float) -> _Record:
        service = request.service
        if service.image in self._missing:
            raise ImageMissing(service.image, "the registry does not know it")
        behaviour = self._behaviours.get(service.image, Behaviour())
        if behaviour.refusal:
            raise StartRefused(behaviour.refusal)
        taken = self.capacity(now).ports_in_use
        ports: list[PublishedPort] = []
        for port in service.ports:
            if port.host is not None and port.host in taken:
                raise PortTaken(f"{port.host}/{port.protocol}")
            chosen = port.host if port.host is not None else next(self._free_ports(taken))
            taken |= {chosen}
            ports.append(PublishedPort(port.container, port.protocol, port.host_ip or "0.0.0.0", chosen))
        check = service.healthcheck
        self._created += 1
        container = Container(
            id=f"{self._host}-{self._created}",
            name=request.name,
            labels=request.labels,
            state=ContainerState.CREATED,
            ports=tuple(ports),
        )
        record = _Record(container, behaviour, checked=bool(check and check.test and check.test[0] != "NONE"))
        self._records[container.id] = record
        return record

    @staticmethod
    def _free_ports(taken: frozenset[int]) -> Iterator[int]:
        return (port for port in range(FIRST_CHOSEN_PORT, 65536) if port not in taken)

    def _run(self, record: _Record, now: float) -> Container:
        record.health = None
        record.container = replace(
            record.container,
            state=ContainerState.RUNNING,
            health=Health.STARTING if record.checked else Health.NONE,
            exit_code=None,
            reason="",
            started_at_s=now,
            finished_at_s=0.0,
        )
        self._changed()
        return self._seen(record, now)

    def _end(self, record: _Record, now: float, exit_code: int | None, reason: str) -> None:
        record.container = replace(
            self._seen(record, now),
            state=ContainerState.EXITED,
            health=Health.NONE,
            exit_code=exit_code,
            reason=reason,
            finished_at_s=now,
        )

    def _all(self, now: float) -> list[Container]:
        return sorted((self._seen(record, now) for record in self._records.values()), key=lambda c: c.name)

    def _turns(self, record: _Record) -> tuple[float, ...]:
        """When the container becomes healthy and when it ends, as far as either happens by itself."""
        if record.container.state is not ContainerState.RUNNING:
            return ()
        started, behaviour = record.container.started_at_s, record.behaviour
        healthy = (started + behaviour.healthy_after_s,) if record.checked and behaviour.healthy_after_s >= 0 else ()
        return healthy if behaviour.ends_after_s is None else (*healthy, started + behaviour.ends_after_s)

    def _seen(self, record: _Record, now: float) -> Container:
        container, behaviour = record.container, record.behaviour
        if container.state is not ContainerState.RUNNING:
            return container
        # Compared as ``_turns`` computes them: a driver that looks exactly then has to see the change.
        ended = None if behaviour.ends_after_s is None else container.started_at_s + behaviour.ends_after_s
        if ended is not None and now >= ended:
            return replace(
                container,
                state=ContainerState.EXITED,
                health=Health.NONE,
                exit_code=behaviour.exit_code,
                finished_at_s=ended,
            )
        if record.health is not None:
            return replace(container, health=record.health)
        healthy = container.started_at_s + behaviour.healthy_after_s
        if record.checked and behaviour.healthy_after_s >= 0 and now >= healthy:
            return replace(container, health=Health.HEALTHY)
        return container


class MemoryRuntime:
    """A ``MemoryEngine`` behind the asynchronous interface. Several runtimes may share one engine."""

    def __init__(self, engine: MemoryEngine | None = None, clock: Callable[[], float] = time.time) -> None:
        self.engine = engine if engine is not None else MemoryEngine()
        self._clock = clock

    @property
    def name(self) -> str:
        return "memory"

    async def capacity(self) -> Capacity:
        return self.engine.capacity(self._clock())

    async def containers(self, node: str | None) -> Sequence[Container]:
        return self.engine.containers(node, self._clock())

    async def start(self, request: StartRequest) -> Container:
        return self.engine.start(request, self._clock())

    async def stop(self, container_id: str, grace_s: float) -> None:
        self.engine.stop(container_id, grace_s, self._clock())

    async def logs(self, container_id: str, *, follow: bool, tail: int | None) -> AsyncGenerator[LogChunk, None]:
        written = self.engine.logs(container_id)
        given = len(written)
        for chunk in written if tail is None else last_lines(written, tail):
            yield chunk
        if not follow:
            return
        async with aclosing(self._turns()) as turns:
            async for _ in turns:
                found = [c for c in self.engine.containers(None, self._clock()) if c.id == container_id]
                if not found:
                    return  # it was removed while it was followed: that is its end
                written = self.engine.logs(container_id)
                for chunk in written[given:]:
                    yield chunk
                given = len(written)
                if found[0].state is not ContainerState.RUNNING:
                    return

    async def changes(self) -> AsyncGenerator[None, None]:
        async with aclosing(self._turns()) as turns:
            async for _ in turns:
                self.engine.capacity(self._clock())  # raises when the engine is down
                yield None

    async def close(self) -> None:
        return None

    async def _turns(self) -> AsyncGenerator[None, None]:
        """At once, and after every change: one that was made, or one that time makes."""
        changed = asyncio.Event()
        unlisten = self.engine.listen(changed.set)
        try:
            while True:
                changed.clear()
                yield None
                due = self.engine.next_change_s(self._clock())
                wait = None if due is None else max(0.0, due - self._clock())
                try:
                    async with asyncio.timeout(wait):
                        await changed.wait()
                except TimeoutError:
                    continue  # time has made a change
        finally:
            unlisten()


def last_lines(chunks: Sequence[LogChunk], count: int) -> list[LogChunk]:
    """The last ``count`` lines of what was written, taking each chunk's lines in order."""
    lines = [LogChunk(chunk.stream, line) for chunk in chunks for line in chunk.data.splitlines(keepends=True)]
    return lines[-count:] if count > 0 else []
