"""One service of a Compose file as a ``Service``. What is wrong is noted, and the service counts only if nothing is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from gary.compose import keys, values
from gary.compose.dotenv import read_dotenv
from gary.compose.errors import Place, Problems, Wrong
from gary.compose.interpolation import Lookup
from gary.compose.mounts import read_mount, table_of
from gary.compose.readers import absolute_path, host_path, items, one_of, parsed, table, text, texts
from gary.compose.runtimes import check_runtime
from gary.compose.tree import Entry, Items, Node, Table, Text
from gary.spec.limits import COUNT_MAX, NETWORK_MODES, REPLICAS_MAX
from gary.spec.model import (
    Healthcheck,
    Mode,
    Mount,
    MountType,
    Partition,
    Port,
    Resources,
    RestartCondition,
    RestartPolicy,
    RuntimeName,
    Service,
)

Entries = Mapping[str, Entry]
Reader = Callable[[Node], Any]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a service is read in: the file's directory, the environment, the volumes that the file declares."""

    directory: Path
    lookup: Lookup
    volumes: Mapping[str, str]
    problems: Problems


def read_service(name: str, entry: Entry, around: Surroundings) -> Service:
    """The service ``name`` that stands at ``entry``."""
    problems = around.problems
    if not isinstance(entry.value, Table):
        problems.read(table, entry.value, None)
        return Service(name)
    entries = keys.honoured(entry.value, keys.SERVICE, problems)
    deploy = _section(entries, "deploy", keys.DEPLOY, problems)
    gary = _section(entries, "x-gary", keys.SERVICE_X_GARY, problems)
    mounts = _mounts(entries, around)
    service = Service(
        name=name,
        **_simple(entries, _SIMPLE, problems),
        **_simple(gary, {"runtime": ("runtime", parsed(_runtime))}, problems),
        environment=_environment(entries, around),
        labels=_labels(entries, problems),
        ports=_ports(entries, problems),
        expose=_expose(entries, problems),
        mounts=mounts,
        cap_add=_list(entries, "cap_add", parsed(values.capability), problems),
        cap_drop=_list(entries, "cap_drop", parsed(values.capability), problems),
        healthcheck=_healthcheck(entries, problems),
        restart=_restart(entries, deploy, problems),
        resources=_resources(entries, deploy, problems),
        **_placement(deploy, problems),
        partition=_partition(gary, mounts, problems),
    )
    service = _on_network(service, entries, problems)
    check_runtime(service, entry.place, entries, problems)
    return service


def _runtime(written: str) -> RuntimeName:
    if written not in list(RuntimeName):
        raise ValueError(f"is {written[:64]!r}; it must be one of {', '.join(RuntimeName)}")
    return RuntimeName(written)


def _arguments(node: Node) -> tuple[str, ...] | None:
    if isinstance(node, Items):
        return tuple(text(item) for item in node.items)
    if isinstance(node, Text) and node.null:
        return None
    return parsed(values.arguments)(node)


_SIMPLE: Final[Mapping[str, tuple[str, Reader]]] = {
    "image": ("image", parsed(values.image)),
    "command": ("command", _arguments),
    "entrypoint": ("entrypoint", _arguments),
    "network_mode": ("network_mode", one_of(*NETWORK_MODES)),
    "user": ("user", text),
    "working_dir": ("working_dir", absolute_path),
    "stop_grace_period": ("stop_grace_period_s", parsed(values.duration_s)),
    "stop_signal": ("stop_signal", parsed(values.signal)),
    "init": ("init", parsed(values.flag)),
    "read_only": ("read_only", parsed(values.flag)),
}
"""Keys that stand for one field: the field and its reader."""


def _simple(entries: Entries, readers: Mapping[str, tuple[str, Reader]], problems: Problems) -> dict[str, Any]:
    found = {}
    for key, (field, reader) in readers.items():
        if key in entries:
            try:
                found[field] = reader(entries[key].value)
            except Wrong as wrong:
                problems.add(wrong.place, wrong.reason, wrong.hint)
    return found


def _section(entries: Entries, key: str, scope: str, problems: Problems) -> dict[str, Entry]:
    return table_of(entries[key].value, scope, problems) if key in entries else {}


def _list(entries: Entries, key: str, reader: Reader, problems: Problems) -> tuple[Any, ...]:
    if key not in entries:
        return ()
    return problems.read(lambda node: texts(node, problems, reader), entries[key].value, ())


def _integer(low: int, high: int) -> Reader:
    return parsed(lambda written: values.integer(written, low, high))


# Variables and labels


def _environment(entries: Entries, around: Surroundings) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    if "env_file" in entries:
        node = entries["env_file"].value
        for item in node.items if isinstance(node, Items) else (node,):
            found |= around.problems.read(lambda one: _env_file(one, around), item, {})
    if "environment" in entries:
        for name, value, place in _pairs(entries["environment"].value, around.problems):
            if not name or "=" in name:
                around.problems.add(place, "has a variable without a name" if not name else "has a name with '=' in it")
                continue
            given = around.lookup(name) if value is None else value
            if given is None:
                found.pop(name, None)
            else:
                found[name] = given
    return tuple(sorted(found.items()))


def _env_file(node: Node, around: Surroundings) -> dict[str, str]:
    required = True
    if isinstance(node, Table):
        entries = keys.honoured(node, keys.ENV_FILE, around.problems)
        if "path" not in entries:
            raise Wrong(node.place, "has no path")
        if "required" in entries:
            required = parsed(values.flag)(entries["required"].value)
        node = entries["path"].value
    path = Path(host_path(text(node), around.directory, node.place))
    if not required and not path.exists():
        return {}
    return read_dotenv(path, around.lookup, around.problems, node.place)


def _labels(entries: Entries, problems: Problems) -> tuple[tuple[str, str], ...]:
    found = {}
    if "labels" in entries:
        for name, value, place in _pairs(entries["labels"].value, problems):
            if not name:
                problems.add(place, "has a label without a name")
            elif name.startswith("gary."):
                problems.add(place, f"sets {name[:64]!r}; labels that begin with gary. are Gary's own", "Rename it")
            else:
                found[name] = value or ""
    return tuple(sorted(found.items()))


def _pairs(node: Node, problems: Problems) -> list[tuple[str, str | None, Place]]:
    """The names and values of a mapping, or of a list of ``NAME=VALUE``. None: no value is given."""
    if isinstance(node, Table):
        found = []
        for name, entry in node.entries.items():
            empty = isinstance(entry.value, Text) and entry.value.null
            found.append((name, None if empty else problems.read(text, entry.value, ""), entry.place))
        return found
    pairs: list[tuple[str, str | None, Place]] = []
    for item in problems.read(items, node, ()):
        name, sign, value = problems.read(text, item, "x").partition("=")
        pairs.append((name, value if sign else None, item.place))
    return pairs


# Ports and mounts


def _ports(entries: Entries, problems: Problems) -> tuple[Port, ...]:
    found: list[Port] = []
    taken: set[tuple[int, str, str]] = set()
    node = entries["ports"].value if "ports" in entries else None
    for item in problems.read(items, node, ()) if node is not None else ():
        for port in problems.read(lambda one: _port(one, problems), item, ()):
            if port.host is not None and (port.host, port.protocol, port.host_ip) in taken:
                problems.add(item.place, f"publishes the host's port {port.host}/{port.protocol} a second time")
            elif port.host is not None:
                taken.add((port.host, port.protocol, port.host_ip))
            found.append(port)
    return tuple(found)


def _port(node: Node, problems: Problems) -> tuple[Port, ...]:
    if not isinstance(node, Table):
        return parsed(values.ports)(node)
    entries = keys.honoured(node, keys.PORT, problems)
    if "target" not in entries:
        raise Wrong(node.place, "has no target, the port of the container")
    if "mode" in entries and text(entries["mode"].value) != "host":
        hint = "Write mode: host, or leave it out; gary endpoints tells where each replica answers"
        raise Wrong(entries["mode"].value.place, "is not host; there is no routing mesh", hint)
    parts = {key: text(entries[key].value) for key in ("target", "published", "host_ip", "protocol") if key in entries}
    try:
        return values.published(
            parts["target"], parts.get("published", ""), parts.get("host_ip", ""), parts.get("protocol", "tcp")
        )
    except ValueError as error:
        raise Wrong(node.place, str(error)) from error


def _expose(entries: Entries, problems: Problems) -> tuple[Port, ...]:
    def exposed(written: str) -> tuple[Port, ...]:
        numbers, _, protocol = written.partition("/")
        return values.published(numbers, "", "", protocol or "tcp")

    return tuple(port for ports in _list(entries, "expose", parsed(exposed), problems) for port in ports)


def _mounts(entries: Entries, around: Surroundings) -> tuple[Mount, ...]:
    found: dict[str, Mount] = {}
    node = entries["volumes"].value if "volumes" in entries else None
    for item in around.problems.read(items, node, ()) if node is not None else ():
        try:
            mount = read_mount(item, around.directory, around.volumes, around.problems)
        except Wrong as wrong:
            around.problems.add(wrong.place, wrong.reason, wrong.hint)
            continue
        if mount.target in found:
            around.problems.add(item.place, f"mounts something at {mount.target[:64]} a second time")
        found[mount.target] = mount
    return tuple(found.values())


def _partition(gary: Entries, mounts: tuple[Mount, ...], problems: Problems) -> Partition:
    if "partition" in gary:
        return Partition(problems.read(one_of(*Partition), gary["partition"].value, "heal"))
    local = any(mount.type is not MountType.TMPFS and mount.source for mount in mounts)
    return Partition.HOLD if local else Partition.HEAL


def _on_network(service: Service, entries: Entries, problems: Problems) -> Service:
    """On the host's network a port is the host's own, and on none there is no port to publish."""
    if service.network_mode == "bridge" or not service.ports:
        return service
    place = entries["ports"].place
    if service.network_mode == "none":
        problems.add(place, "cannot be published with network_mode: none", "Remove ports, or use bridge")
        return service
    if any(port.host not in (None, port.container) or port.host_ip for port in service.ports):
        problems.add(
            place, "cannot be mapped with network_mode: host", "Name the container's ports alone, or use bridge"
        )
    return replace(service, ports=tuple(replace(port, host=port.container) for port in service.ports))


# Health, restart, resources, placement


def _healthcheck(entries: Entries, problems: Problems) -> Healthcheck | None:
    if "healthcheck" not in entries:
        return None
    own = _section(entries, "healthcheck", keys.HEALTHCHECK, problems)
    if "disable" in own and problems.read(parsed(values.flag), own["disable"].value, False):
        if "test" in own:
            problems.add(own["disable"].place, "does not go with a test", "Remove one of the two")
        return Healthcheck(test=("NONE",))
    readers: dict[str, tuple[str, Reader]] = {
        "test": ("test", _test),
        "interval": ("interval_s", parsed(values.duration_s)),
        "timeout": ("timeout_s", parsed(values.duration_s)),
        "retries": ("retries", _integer(1, COUNT_MAX)),
        "start_period": ("start_period_s", parsed(values.duration_s)),
        "start_interval": ("start_interval_s", parsed(values.duration_s)),
    }
    check = Healthcheck(**_simple(own, readers, problems))
    return Healthcheck(test=("NONE",)) if check.test[:1] == ("NONE",) else check


def _test(node: Node) -> tuple[str, ...]:
    if not isinstance(node, Items):
        return ("CMD-SHELL", text(node))
    test = tuple(text(item) for item in node.items)
    if test and test[0] not in ("CMD", "CMD-SHELL", "NONE"):
        raise Wrong(node.place, f"begins with {test[0][:64]!r}; it must begin with CMD, CMD-SHELL or NONE")
    if test and ((test[0] == "CMD-SHELL" and len(test) != 2) or (test[0] == "CMD" and len(test) < 2)):
        raise Wrong(node.place, f"has {len(test) - 1} words after {test[0]}", "CMD takes some, CMD-SHELL one line")
    return test


_RESTART: Final = {
    "no": RestartCondition.NONE,
    "always": RestartCondition.ANY,
    "unless-stopped": RestartCondition.ANY,
    "on-failure": RestartCondition.ON_FAILURE,
}


def _restart(entries: Entries, deploy: Entries, problems: Problems) -> RestartPolicy:
    policy = RestartPolicy()
    if "restart_policy" in deploy:
        readers: dict[str, tuple[str, Reader]] = {
            "condition": ("condition", lambda node: RestartCondition(one_of(*RestartCondition)(node))),
            "delay": ("delay_s", parsed(values.duration_s)),
            "max_attempts": ("attempts_max", _integer(0, COUNT_MAX)),
            "window": ("window_s", parsed(values.duration_s)),
        }
        own = _section(deploy, "restart_policy", keys.RESTART_POLICY, problems)
        policy = RestartPolicy(**_simple(own, readers, problems))
    if "restart" not in entries:
        return policy
    restart = problems.read(parsed(_restart_word), entries["restart"].value, policy)
    if "restart_policy" not in deploy:
        return restart
    if (restart.condition, restart.attempts_max or policy.attempts_max) != (policy.condition, policy.attempts_max):
        problems.add(entries["restart"].place, "differs from deploy.restart_policy", "Remove one of the two")
    return policy


def _restart_word(written: str) -> RestartPolicy:
    word, colon, count = written.partition(":")
    if word not in _RESTART or (colon and word != "on-failure"):
        raise ValueError(f"is {written[:64]!r}; it must be no, always, on-failure, on-failure:N or unless-stopped")
    return RestartPolicy(_RESTART[word], attempts_max=values.integer(count, 0, COUNT_MAX) if colon else 0)


def _resources(entries: Entries, deploy: Entries, problems: Problems) -> Resources:
    own = _section(deploy, "resources", keys.RESOURCES, problems)
    limits = _section(own, "limits", keys.LIMITS, problems)
    reservations = _section(own, "reservations", keys.RESERVATIONS, problems)
    cpus, memory = parsed(values.cpus), parsed(values.size_bytes)
    limit = {
        **_simple(entries, {"cpus": ("limit_cpus", cpus), "mem_limit": ("limit_memory_bytes", memory)}, problems),
    }
    detailed = _simple(
        limits,
        {
            "cpus": ("limit_cpus", cpus),
            "memory": ("limit_memory_bytes", memory),
            "pids": ("limit_pids", parsed(_pids)),
        },
        problems,
    )
    for key, field, name in (("cpus", "limit_cpus", "cpus"), ("mem_limit", "limit_memory_bytes", "memory")):
        if field in limit and field in detailed and limit[field] != detailed[field]:
            reason = f"differs from deploy.resources.limits.{name}"
            problems.add(entries[key].place, reason, "Remove one of the two")
    reserve = _simple(
        reservations, {"cpus": ("reserve_cpus", cpus), "memory": ("reserve_memory_bytes", memory)}, problems
    )
    found = Resources(**{**limit, **detailed, **reserve})
    if found.limit_cpus and found.reserve_cpus > found.limit_cpus:
        problems.add(reservations["cpus"].place, "is more than the limit", "Raise the limit or lower the reservation")
    if found.limit_memory_bytes and found.reserve_memory_bytes > found.limit_memory_bytes:
        problems.add(reservations["memory"].place, "is more than the limit", "Raise the limit or lower the reservation")
    return found


def _pids(written: str) -> int:
    # Compose and engines take -1 for "no limit".
    return max(0, values.integer(written, -1, COUNT_MAX))


def _placement(deploy: Entries, problems: Problems) -> dict[str, Any]:
    own = _section(deploy, "placement", keys.PLACEMENT, problems)
    update = _section(deploy, "update_config", keys.UPDATE_CONFIG, problems)
    count = _integer(0, REPLICAS_MAX)
    found = {
        **_simple(deploy, {"mode": ("mode", _mode), "replicas": ("replicas", count)}, problems),
        **_simple(own, {"max_replicas_per_node": ("replicas_per_node_max", count)}, problems),
        **_simple(update, {"parallelism": ("update_parallelism", count)}, problems),
        "constraints": _list(own, "constraints", parsed(values.constraint), problems),
    }
    if found.get("mode") is Mode.GLOBAL:
        for entries, key in ((deploy, "replicas"), (own, "max_replicas_per_node")):
            if key in entries:
                problems.add(entries[key].place, "does not go with mode: global", "Remove one of the two")
    return found


def _mode(node: Node) -> Mode:
    written = text(node)
    if written in ("replicated-job", "global-job"):
        hint = "Use restart: on-failure for a program that ends"
        raise Wrong(node.place, f"is {written}; jobs are not supported yet", hint)
    return Mode(one_of(*Mode)(node))
