"""The words of the Docker engine's HTTP API: a request as the engine takes it, a container as the engine describes it.

Pure functions and values, so that every field of a spec can be judged without an engine. ``docker`` does the IO.
Written against API 1.41 (Docker 20.10) and what newer engines and Podman's Docker API answer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gary.runtime.base import Container, ContainerState, Health, Labels, LogChunk, PublishedPort, StartRequest
from gary.runtime.errors import StartRefused
from gary.spec import Healthcheck, Mount, MountType, Port, Service

LABEL_NODE: Final = "gary.node"
LABEL_PORTS: Final = "gary.ports"
"""On the host's network the engine publishes nothing, so the container carries its ports itself."""

MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError, IndexError)
"""What reading an answer raises that no engine of ours would give."""
START_INTERVAL_API: Final = (1, 44)
REASON_CHARACTERS_MAX: Final = 500
_STREAMS: Final = {1: "stdout", 2: "stderr"}
_FRAME_HEADER_BYTES: Final = 8
_PORT_TAKEN: Final = re.compile(r"port is already allocated|address already in use|proxy already running")
_HEALTH: Final = re.compile(r"\((?:health: )?(starting|healthy|unhealthy)\)")
_EXIT_CODE: Final = re.compile(r"\((-?\d+)\)")
_STATES: Final = {
    "created": ContainerState.CREATED,
    "running": ContainerState.RUNNING,
    "paused": ContainerState.RUNNING,
    "restarting": ContainerState.RUNNING,
}


def engine_labels(labels: Labels) -> dict[str, str]:
    return {
        "gary.deployment": labels.deployment,
        "gary.slot": labels.slot,
        "gary.generation": labels.generation,
        "gary.fingerprint": labels.fingerprint,
        LABEL_NODE: labels.node,
    }


def labels_of(found: object) -> Labels | None:
    """The labels of a container that Gary started; None for anybody else's."""
    if not isinstance(found, Mapping):
        return None
    values = [found.get(f"gary.{part}") for part in ("deployment", "slot", "generation", "fingerprint", "node")]
    words = [value for value in values if isinstance(value, str) and value]
    return Labels(*words) if len(words) == len(values) else None


def configuration(request: StartRequest, api_version: tuple[int, int]) -> dict[str, Any]:
    """The body of ``containers/create``. Raises ``StartRefused`` for what this engine would ignore in silence."""
    service = request.service
    refused = _unhonourable(service, api_version)
    if refused:
        raise StartRefused(refused)
    on_host = service.network_mode == "host"
    labels = {**dict(service.labels), **engine_labels(request.labels)}
    if on_host and service.ports:
        labels[LABEL_PORTS] = ",".join(f"{port.container}/{port.protocol}" for port in service.ports)
    exposed = sorted({f"{port.container}/{port.protocol}" for port in (*service.ports, *service.expose)})
    body: dict[str, Any] = {
        "Image": service.image,
        "Env": [f"{name}={value}" for name, value in service.environment],
        "Labels": labels,
        "ExposedPorts": {} if on_host else {port: {} for port in exposed},
        "StopTimeout": math.ceil(service.stop_grace_period_s),
        "HostConfig": _host_configuration(request),
    }
    optional = {
        "Cmd": None if service.command is None else list(service.command),
        "Entrypoint": None if service.entrypoint is None else list(service.entrypoint),
        "User": service.user or None,
        "WorkingDir": service.working_dir or None,
        "StopSignal": service.stop_signal or None,
        "Healthcheck": None if service.healthcheck is None else _healthcheck(service.healthcheck),
    }
    body.update({key: value for key, value in optional.items() if value is not None})
    return body


def _unhonourable(service: Service, api_version: tuple[int, int]) -> str:
    if not service.image:
        return "the service names no image"
    if service.network_mode == "none" and service.ports:
        return "ports cannot be published with network_mode: none"
    if service.network_mode == "host":
        moved = [port for port in service.ports if port.host not in (None, port.container) or port.host_ip]
        if moved:
            return f"port {moved[0].container} cannot be published elsewhere with network_mode: host"
    if service.healthcheck and service.healthcheck.start_interval_s and api_version < START_INTERVAL_API:
        return f"healthcheck.start_interval needs engine API 1.44; this engine speaks {api_version[0]}.{api_version[1]}"
    return ""


def _host_configuration(request: StartRequest) -> dict[str, Any]:
    service, limits = request.service, request.service.resources
    body: dict[str, Any] = {
        "NetworkMode": service.network_mode,
        "RestartPolicy": {"Name": "no"},
        "Init": service.init,
        "ReadonlyRootfs": service.read_only,
        "Mounts": [_mount(mount, request.application) for mount in service.mounts],
    }
    optional = {
        "PortBindings": {} if service.network_mode == "host" else _bindings(service.ports),
        "CapAdd": list(service.cap_add),
        "CapDrop": list(service.cap_drop),
        "NanoCpus": round(limits.limit_cpus * 1e9),
        "Memory": limits.limit_memory_bytes,
        "PidsLimit": limits.limit_pids,
    }
    body.update({key: value for key, value in optional.items() if value})
    return body


def _bindings(ports: Sequence[Port]) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        host = {"HostIp": port.host_ip, "HostPort": "" if port.host is None else str(port.host)}
        bindings.setdefault(f"{port.container}/{port.protocol}", []).append(host)
    return bindings


def volume_name(application: str, mount: Mount) -> str:
    """The engine's name of a volume; empty for an anonymous one."""
    if mount.external_name or not mount.source:
        return mount.external_name
    return f"{application}_{mount.source}"


def _mount(mount: Mount, application: str) -> dict[str, Any]:
    body: dict[str, Any] = {"Type": str(mount.type), "Target": mount.target, "ReadOnly": mount.read_only}
    if mount.type is MountType.BIND:
        body["Source"] = mount.source
    elif mount.type is MountType.VOLUME:
        name = volume_name(application, mount)
        if name:
            body["Source"] = name
    elif mount.size_bytes:
        body["TmpfsOptions"] = {"SizeBytes": mount.size_bytes}
    return body


def _healthcheck(check: Healthcheck) -> dict[str, Any]:
    if check.test[:1] == ("NONE",):
        return {"Test": ["NONE"]}
    durations = {
        "Interval": check.interval_s,
        "Timeout": check.timeout_s,
        "StartPeriod": check.start_period_s,
        "StartInterval": check.start_interval_s,
    }
    body: dict[str, Any] = {"Retries": check.retries}
    body.update({key: round(seconds * 1e9) for key, seconds in durations.items() if seconds})
    if check.test:
        body["Test"] = list(check.test)
    return body


def says_name_taken(words: str) -> bool:
    return "name" in words and "already in use" in words


def says_image_missing(words: str) -> bool:
    return "no such image" in words.lower() or "image not known" in words


def tagged(image: str) -> str:
    """The image's name with the tag that it means: without one, an engine would pull every tag there is."""
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def says_being_removed(words: str) -> bool:
    return "removal of container" in words and "in progress" in words


def progress_error(line: bytes) -> str:
    """What a line of a pull's progress says went wrong; empty when nothing did. A line that is no JSON says nothing."""
    progress = _object(line)
    return str(progress.get("error") or "")


def container_that_ended(line: bytes) -> str:
    """The id of the container that an event says has ended; empty for every other event."""
    event = _object(line)
    actor = event.get("Actor")
    if event.get("Action") != "die" or not isinstance(actor, dict):
        return ""
    return str(actor.get("ID") or "")


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def says_port_taken(words: str) -> bool:
    return _PORT_TAKEN.search(words) is not None


def version_of(text: str) -> tuple[int, int]:
    """``v1.41`` or ``1.41`` as numbers; (0, 0) for anything else."""
    match = re.fullmatch(r"v?(\d{1,6})\.(\d{1,6})", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


@dataclass(frozen=True, slots=True)
class Detail:
    """What only an inspection tells. It holds as long as the list says the same as then, which is its ``sign``."""

    sign: tuple[ContainerState, int | None, bool]
    started_at_s: float
    finished_at_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Summary:
    """One entry of ``containers/json``, for a container that Gary started."""

    id: str
    name: str
    labels: Labels
    state: ContainerState
    health: Health
    exit_code: int | None
    ports: tuple[PublishedPort, ...]

    @property
    def sign(self) -> tuple[ContainerState, int | None, bool]:
        return self.state, self.exit_code, self.health is Health.UNHEALTHY

    def container(self, detail: Detail) -> Container:
        return Container(
            id=self.id,
            name=self.name,
            labels=self.labels,
            state=self.state,
            health=self.health,
            exit_code=self.exit_code,
            reason=detail.reason,
            started_at_s=detail.started_at_s,
            finished_at_s=detail.finished_at_s,
            ports=self.ports,
        )


def summary_of(entry: Mapping[str, Any]) -> Summary | None:
    """Read one list entry. None: not Gary's. Raises one of ``MALFORMED`` for what is no entry."""
    labels = labels_of(entry["Labels"])
    if labels is None:
        return None
    state = _STATES.get(entry["State"], ContainerState.EXITED)
    status = str(entry.get("Status", ""))
    health, code = _HEALTH.search(status), _EXIT_CODE.search(status)
    return Summary(
        id=str(entry["Id"]),
        name=str(entry["Names"][0]).lstrip("/"),
        labels=labels,
        state=state,
        health=Health(health[1]) if health and state is ContainerState.RUNNING else Health.NONE,
        exit_code=int(code[1]) if code and state is ContainerState.EXITED else None,
        ports=_sorted_ports(
            [
                PublishedPort(int(port["PrivatePort"]), str(port["Type"]), str(port["IP"]), int(port["PublicPort"]))
                for port in entry.get("Ports") or ()
                if port.get("PublicPort")
            ]
            + _host_network_ports(entry["Labels"])
        ),
    )


def inspected(body: Mapping[str, Any]) -> tuple[Summary, Detail] | None:
    """Read an inspection. None: not Gary's. Raises like ``summary_of``."""
    labels = labels_of(body["Config"].get("Labels"))
    if labels is None:
        return None
    told = body["State"]
    state = _STATES.get(told["Status"], ContainerState.EXITED)
    health = Health.NONE
    if state is ContainerState.RUNNING and told.get("Health"):
        health = Health(told["Health"]["Status"])
    published = (body.get("NetworkSettings") or {}).get("Ports") or {}
    ports = [
        PublishedPort(int(number), protocol or "tcp", str(host["HostIp"]), int(host["HostPort"]))
        for port, hosts in published.items()
        for number, _, protocol in [port.partition("/")]
        for host in hosts or ()
    ]
    summary = Summary(
        id=str(body["Id"]),
        name=str(body["Name"]).lstrip("/"),
        labels=labels,
        state=state,
        health=health,
        exit_code=int(told["ExitCode"]) if state is ContainerState.EXITED else None,
        ports=_sorted_ports(ports + _host_network_ports(body["Config"]["Labels"])),
    )
    detail = Detail(
        sign=summary.sign,
        started_at_s=seconds_of(told.get("StartedAt")),
        finished_at_s=seconds_of(told.get("FinishedAt")),
        reason=_reason(told, summary),
    )
    return summary, detail


def _reason(told: Mapping[str, Any], summary: Summary) -> str:
    if summary.state is ContainerState.EXITED and told.get("OOMKilled"):
        return "it was killed because it needed more memory than it may have"
    if summary.state is not ContainerState.RUNNING:
        return str(told.get("Error") or "")[:REASON_CHARACTERS_MAX]
    if summary.health is Health.UNHEALTHY:
        checks = told["Health"].get("Log") or [{}]
        words = str(checks[-1].get("Output") or "").strip()[:REASON_CHARACTERS_MAX]
        return f"its health check failed: {words}" if words else "its health check failed"
    return ""


def _host_network_ports(labels: Mapping[str, str]) -> list[PublishedPort]:
    ports = []
    for port in labels.get(LABEL_PORTS, "").split(","):
        number, _, protocol = port.partition("/")
        if number.isdecimal() and protocol:
            ports.append(PublishedPort(int(number), protocol, "0.0.0.0", int(number)))
    return ports


def _sorted_ports(ports: Sequence[PublishedPort]) -> tuple[PublishedPort, ...]:
    """In order, and without the IPv6 half of a port that is published on every address."""
    everywhere = {(port.container_port, port.protocol, port.host_port) for port in ports if port.host_ip == "0.0.0.0"}
    kept = {
        port
        for port in ports
        if port.host_ip != "::" or (port.container_port, port.protocol, port.host_port) not in everywhere
    }
    return tuple(sorted(kept, key=lambda port: (port.container_port, port.protocol, port.host_ip, port.host_port)))


def seconds_of(text: object) -> float:
    """The engine's RFC 3339 time as seconds since 1970; 0 for the year 1, which is how it writes never."""
    if not isinstance(text, str) or not text or text.startswith("0001-"):
        return 0.0
    return datetime.fromisoformat(text).timestamp()


class LogFrames:
    """Takes the bytes of the engine's log stream apart: 8 bytes of header (stream, 3 zeros, length) and the data.

    Data is given on as it comes, so nothing but a header is ever kept. A stream that Gary does not know (the engine's
    own messages) counts as stderr.
    """

    def __init__(self) -> None:
        self._header = b""
        self._stream = ""
        self._left = 0

    def feed(self, data: bytes) -> list[LogChunk]:
        chunks: list[LogChunk] = []
        while data:
            if not self._left:
                missing = _FRAME_HEADER_BYTES - len(self._header)
                self._header, data = self._header + data[:missing], data[missing:]
                if len(self._header) == _FRAME_HEADER_BYTES:
                    self._stream = _STREAMS.get(self._header[0], "stderr")
                    self._left = int.from_bytes(self._header[4:], "big")
                    self._header = b""
                continue
            part, data = data[: self._left], data[self._left :]
            self._left -= len(part)
            chunks.append(LogChunk(self._stream, part))
        return chunks
