"""What Gary asks of something that runs containers.

A runtime starts, lists and stops *containers*: whatever it is that keeps one slot. It is level-triggered:
``containers`` says what is there, and every operation can be repeated without harm, because a container is known by
its name and its labels.

An implementation is found by name through the entry point group ``gary.runtimes``. ``gary.runtime.testing`` holds the
contract suite that every implementation passes. All methods raise only the errors of ``gary.runtime.errors``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import entry_points
from typing import Protocol

from gary.runtime.errors import UnknownRuntime
from gary.spec import Service

ENTRY_POINT_GROUP = "gary.runtimes"


class ContainerState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


class Health(StrEnum):
    """What the container's health check says; ``NONE`` when it has none."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Labels:
    """What a container carries to be found and adopted again, in engine labels or on disk.

    ``deployment``: opaque id; ``slot``: ``service/index``; ``generation``: text form; ``fingerprint``: of the service's
    canonical spec, so that a container of an older generation with the same service spec stays; ``node``: NodeId.
    """

    deployment: str
    slot: str
    generation: str
    fingerprint: str
    node: str

    def owns(self, other: Labels) -> bool:
        """Whether ``other`` marks a container of the same deployment, slot and node, at any generation."""
        return (self.deployment, self.slot, self.node) == (other.deployment, other.slot, other.node)

    def satisfied_by(self, other: Labels) -> bool:
        """Whether a container marked ``other`` is what these labels ask for."""
        return self.owns(other) and (self.generation == other.generation or self.fingerprint == other.fingerprint)


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A container's port and where the host answers for it. ``host_ip`` may be ``0.0.0.0``."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the runtime sees it now.

    ``exit_code`` is None while it runs or when nobody saw it end. ``reason``: why it ended or is unhealthy, where the
    runtime knows. ``started_at_s`` and ``finished_at_s``: the runtime's clock, seconds since 1970, 0 if never; only
    differences between two of the same container mean anything. ``id`` and ``started_at_s`` together name one run.
    """

    id: str
    name: str
    labels: Labels
    state: ContainerState
    health: Health = Health.NONE
    exit_code: int | None = None
    reason: str = ""
    started_at_s: float = 0.0
    finished_at_s: float = 0.0
    ports: tuple[PublishedPort, ...] = ()


@dataclass(frozen=True, slots=True)
class StartRequest:
    """All that is needed to start one container.

    ``name`` is the container's name on this host; ``application`` the deployment's name (volumes are named after it);
    ``index`` the slot's last part. ``service`` is the spec to honour in full.
    """

    name: str
    application: str
    labels: Labels
    service: Service
    index: str


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the host can give: ``cpus`` (logical), ``memory_bytes``, ``architecture`` (``x86_64``, ``aarch64``)."""

    cpus: float
    memory_bytes: int
    architecture: str
    ports_in_use: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Some bytes that the container wrote. ``stream`` is ``stdout`` or ``stderr``."""

    stream: str
    data: bytes


class ContainerRuntime(Protocol):
    """One host's engine. Methods may run at the same time; those for one container name should not."""

    @property
    def name(self) -> str:
        """The name by which specs ask for it: ``docker``, ``process``, ``memory``."""

    async def capacity(self) -> Capacity:
        """What this host can give. Raises ``EngineUnavailable``."""

    async def containers(self, node: str | None) -> Sequence[Container]:
        """Every container labelled with ``node``, in any state, sorted by name; None: with any node's labels.

        Cheap enough to be called on every change. Raises ``EngineUnavailable``; never answers with a part.
        """

    async def start(self, request: StartRequest) -> Container:
        """Make the container ``request.name`` run, and give it as it then is.

        The one of that name is returned when it already runs for the same deployment, slot and node with the same
        generation or fingerprint, is started again when it stands still, and is replaced when it cannot be started or
        is of another generation and fingerprint.

        Raises ``ImageMissing`` (neither here nor to be pulled), ``NameTaken`` (the name belongs to a container that is
        not of this deployment, slot and node; it is not touched), ``PortTaken``, ``StartRefused`` (the engine says no,
        with its words) or ``EngineUnavailable``.
        """

    async def stop(self, container_id: str, grace_s: float) -> None:
        """Ask it to end, kill it after ``grace_s`` seconds, remove it. Named volumes stay; repeating it is no error.

        Raises ``StopFailed`` or ``EngineUnavailable``.
        """

    def logs(self, container_id: str, *, follow: bool, tail: int | None) -> AsyncGenerator[LogChunk, None]:
        """What it wrote: the last ``tail`` lines (None: all), and with ``follow`` what it will write until it ends.

        Close the generator (``aclose``) when it is not read to its end. Raises ``ContainerMissing`` or
        ``EngineUnavailable``.
        """

    def changes(self) -> AsyncGenerator[None, None]:
        """Yields once when it has begun to listen, and then when something may have changed; repeats are fine.

        It never ends by itself: it raises ``EngineUnavailable`` when the engine goes away. Close the generator
        (``aclose``) when it is not wanted any more.
        """

    async def close(self) -> None:
        """Let go of connections. Containers run on."""


RuntimeFactory = Callable[[str], ContainerRuntime]
"""Makes a runtime from the one string that says where it works: an engine's URL, or a directory."""


def load_runtime(name: str) -> RuntimeFactory:
    """Find the installed runtime called ``name``; raises ``UnknownRuntime`` naming those that are installed."""
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise UnknownRuntime(name, sorted(found))
    factory: RuntimeFactory = found[name].load()
    return factory
