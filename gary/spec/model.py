"""The values that a spec is made of. Immutable and plain; nothing is checked here (``gary.spec.codec`` does)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gary.spec.limits import RESILIENCE_DEFAULT


class SpecError(Exception):
    """A spec that cannot be: ``path`` says where (``services.web.replicas``; empty: the whole), ``reason`` why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


class RuntimeName(StrEnum):
    """What a service runs on."""

    DOCKER = "docker"
    PROCESS = "process"
    ANY = "any"


class Mode(StrEnum):
    """A number of replicas anywhere, or one on each node that satisfies the constraints."""

    REPLICATED = "replicated"
    GLOBAL = "global"


class Partition(StrEnum):
    """What the others do about the slots of a node they cannot see: replace them, or keep them reserved."""

    HEAL = "heal"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Port:
    """``host`` None: the engine chooses a port."""

    container: int
    protocol: str = "tcp"
    host: int | None = None
    host_ip: str = ""


class MountType(StrEnum):
    """Where a mount's files live: the host's tree, a volume of the engine, memory."""

    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"


@dataclass(frozen=True, slots=True)
class Mount:
    """``source``: absolute host path (bind), volume name as in the file (volume; empty: anonymous), empty (tmpfs).

    ``external_name``: the engine's name of a volume that has one of its own. ``size_bytes``: of a tmpfs; 0: no limit.
    """

    type: MountType
    source: str
    target: str
    read_only: bool = False
    external_name: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """``test``: ``("CMD", …)`` or ``("CMD-SHELL", line)`` or ``("NONE",)``, as engines take it."""

    test: tuple[str, ...] = ()
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 3
    start_period_s: float = 0.0
    start_interval_s: float = 0.0


class RestartCondition(StrEnum):
    """After which ends a container is started again."""

    NONE = "none"
    ON_FAILURE = "on-failure"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """``attempts_max`` 0: without end. ``delay_s``: the first delay; it doubles with each failure in a row."""

    condition: RestartCondition = RestartCondition.ANY
    delay_s: float = 1.0
    attempts_max: int = 0
    window_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Resources:
    """0 means: not said. ``limit_*`` bound the container, ``reserve_*`` are counted when a node is chosen."""

    limit_cpus: float = 0.0
    limit_memory_bytes: int = 0
    limit_pids: int = 0
    reserve_cpus: float = 0.0
    reserve_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Constraint:
    """``attribute``: ``node.id``, ``node.hostname`` or ``node.labels.NAME``; ``equal`` False means ``!=``."""

    attribute: str
    equal: bool
    value: str


@dataclass(frozen=True, slots=True)
class Service:
    """One service. Lists keep the file's order where it matters (command, mounts) and are sorted where it does not.

    ``command`` and ``entrypoint``: None leaves the image's own, ``()`` clears it. ``replicas`` means nothing when
    ``mode`` is global. ``replicas_per_node_max`` 0: no limit. ``update_parallelism`` 0: all at once.
    """

    name: str
    image: str = ""
    runtime: RuntimeName = RuntimeName.DOCKER
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[Port, ...] = ()
    expose: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network_mode: str = "bridge"
    user: str = ""
    working_dir: str = ""
    healthcheck: Healthcheck | None = None
    restart: RestartPolicy = RestartPolicy()
    stop_grace_period_s: float = 10.0
    stop_signal: str = ""
    init: bool = False
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    resources: Resources = Resources()
    mode: Mode = Mode.REPLICATED
    replicas: int = 1
    constraints: tuple[Constraint, ...] = ()
    replicas_per_node_max: int = 0
    update_parallelism: int = 1
    partition: Partition = Partition.HEAL

    @property
    def fixed_ports(self) -> tuple[Port, ...]:
        """Ports that name the host's port. One node can hold only one replica of a service that has any."""
        return tuple(port for port in self.ports if port.host is not None)


@dataclass(frozen=True, slots=True)
class Spec:
    """One application. ``services`` is sorted by name. ``resilience``: live members that shall hold the document."""

    name: str
    services: tuple[Service, ...]
    resilience: int = RESILIENCE_DEFAULT

    def service(self, name: str) -> Service | None:
        """The service of that name."""
        return next((service for service in self.services if service.name == name), None)
