"""A spec as bytes and as JSON, one plain form under both.

The plain form is nested maps, lists and scalars that JSON can carry, with defaults left out. Reading it is strict: an
unknown key, a wrong type, a value out of range is a ``SpecError`` that names the path, and what is read is canonical
(sorted where order means nothing), so equal meanings are equal values, equal bytes and equal fingerprints.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import msgpack

from gary.spec import limits
from gary.spec.model import (
    Constraint,
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
    Spec,
    SpecError,
)
from gary.spec.readers import (
    Record,
    flag,
    instance_of,
    integer,
    join,
    list_of,
    map_of,
    matching,
    number,
    one_of,
    pairs,
    set_of,
    text,
    word_of,
)

NOT_IN_CONTAINER: Final = frozenset(
    {"mode", "replicas", "constraints", "replicas_per_node_max", "update_parallelism", "partition", "restart"}
)
"""Fields of a service that a container does not depend on: they say where, how many, and what Gary does about it."""

_FINGERPRINT_CHARACTERS = 16
_FINGERPRINTS_REMEMBERED_MAX = 128


def encode(spec: Spec) -> bytes:
    """The one byte string of ``spec``. Raises ``SpecError`` if it could not be read back (too large, out of range)."""
    plain = _spec_out(spec)
    return _pack(_spec_out(_spec_in(plain)))


def decode(data: bytes) -> Spec:
    """The spec that ``data`` stands for. Any bytes give a spec or ``SpecError``."""
    if len(data) > limits.SIZE_BYTES_MAX:
        raise SpecError("", f"is {len(data)} bytes long; at most {limits.SIZE_BYTES_MAX} are taken")
    try:
        plain = msgpack.unpackb(
            data,
            max_str_len=limits.TEXT_MAX * 4,
            max_bin_len=0,
            max_ext_len=0,
            max_array_len=limits.ITEMS_MAX,
            max_map_len=limits.ITEMS_MAX,
        )
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise SpecError("", "is not a spec: the bytes are not msgpack of one") from error
    return _spec_in(plain)


def to_json(spec: Spec) -> dict[str, Any]:
    """``spec`` as JSON of the API. ``from_json`` reads it back. Raises as ``encode``."""
    return _spec_out(_spec_in(_spec_out(spec)))


def from_json(value: object) -> Spec:
    """The spec that parsed JSON stands for. Any value gives a spec or ``SpecError``.

    Besides what ``decode`` asks, there must be something to run: this is where specs come from outside.
    """
    spec = _spec_in(value)
    if not spec.services:
        raise SpecError("services", "is empty; there must be at least one service")
    for service in spec.services:
        path = f"services.{service.name}"
        if service.runtime is not RuntimeName.PROCESS and not service.image:
            raise SpecError(path, f"needs an image, because it runs on {service.runtime}")
        if service.runtime is not RuntimeName.DOCKER and not (service.command or service.entrypoint):
            raise SpecError(path, f"needs a command, because it runs on {service.runtime}")
    if len(_pack(_spec_out(spec))) > limits.SIZE_BYTES_MAX:
        raise SpecError("", f"is too large; at most {limits.SIZE_BYTES_MAX} bytes are taken")
    return spec


@lru_cache(_FINGERPRINTS_REMEMBERED_MAX)
def fingerprint(service: Service) -> str:
    """A short hash over all that a container of ``service`` is made of: another hash means that a new one is needed."""
    plain = _service_out(_service_in(service.name, _service_out(service), "service"))
    packed = _dump({"name": service.name, **{key: plain[key] for key in plain.keys() - NOT_IN_CONTAINER}})
    return hashlib.sha256(packed).hexdigest()[:_FINGERPRINT_CHARACTERS]


# Writing


def _pack(plain: Mapping[str, Any]) -> bytes:
    packed = _dump(plain)
    if len(packed) > limits.SIZE_BYTES_MAX:
        raise SpecError("", f"is {len(packed)} bytes long; at most {limits.SIZE_BYTES_MAX} are taken")
    return packed


def _dump(plain: object) -> bytes:
    packed: bytes = msgpack.packb(_sorted(plain))
    return packed


def _sorted(plain: object) -> object:
    if isinstance(plain, dict):
        return {key: _sorted(plain[key]) for key in sorted(plain)}
    if isinstance(plain, list):
        return [_sorted(item) for item in plain]
    return plain


def _spec_out(spec: Spec) -> dict[str, Any]:
    services: dict[str, Any] = {}
    for index, service in enumerate(spec.services):
        if service.name in services:
            raise SpecError(f"services[{index}]", f"there are two services called {service.name!r}")
        services[service.name] = _service_out(service)
    whole = _without_defaults(spec, Spec(name="", services=()), {"services"})
    return {"name": spec.name, **whole, "services": services}


def _service_out(service: Service) -> dict[str, Any]:
    plain = _without_defaults(service, Service(name=service.name), set())
    for key in ("environment", "labels"):
        if key in plain:
            plain[key] = dict(getattr(service, key))
    for key in ("ports", "expose", "constraints"):
        if key in plain:
            plain[key] = sorted(plain[key], key=lambda item: json.dumps(item, sort_keys=True))
    for key in ("cap_add", "cap_drop"):
        if key in plain:
            plain[key] = sorted(plain[key])
    return plain


_REQUIRED: Final[Mapping[type, frozenset[str]]] = {
    Port: frozenset({"container"}),
    Mount: frozenset({"type", "target"}),
    Constraint: frozenset({"attribute", "equal", "value"}),
}
_PROTOTYPES: Final[Mapping[type, Any]] = {
    Port: Port(0),
    Mount: Mount(MountType.VOLUME, "", ""),
    Constraint: Constraint("", True, ""),
    Healthcheck: Healthcheck(),
    RestartPolicy: RestartPolicy(),
    Resources: Resources(),
}


def _without_defaults(value: Any, prototype: Any, skip: set[str]) -> dict[str, Any]:
    required = _REQUIRED.get(type(value), frozenset())
    plain = {}
    for field in fields(value):
        own = getattr(value, field.name)
        if field.name not in skip and (field.name in required or own != getattr(prototype, field.name)):
            plain[field.name] = _value_out(own)
    return plain


def _value_out(value: Any) -> Any:
    if type(value) in _PROTOTYPES:
        return _without_defaults(value, _PROTOTYPES[type(value)], set())
    if isinstance(value, tuple):
        return [_value_out(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


# Reading

_LONG = text(limits.TEXT_MAX)
_WORD = text(limits.WORD_MAX)
_SECONDS = number(limits.SECONDS_MAX)
_BYTES = integer(0, limits.BYTES_MAX)
_PORT_NUMBER = integer(1, 65_535)
_NAME = matching(limits.NAME, limits.NAME_RULE)
_CAPABILITY = matching(limits.CAPABILITY, "the name of a capability, such as NET_ADMIN")
_VARIABLE = matching(limits.VARIABLE, "a name without '='")

_PORT = instance_of(
    Port,
    Record(
        {
            "container": _PORT_NUMBER,
            "protocol": word_of(limits.PROTOCOLS),
            "host": _PORT_NUMBER,
            "host_ip": _WORD,
        },
        required=("container",),
    ),
)

_MOUNT_KEYS = Record(
    {
        "type": one_of(MountType),
        "source": _WORD,
        "target": text(limits.WORD_MAX, empty=False),
        "read_only": flag,
        "external_name": _WORD,
        "size_bytes": _BYTES,
    },
    required=("type", "target"),
)


def _mount(value: object, path: str) -> Mount:
    mount = Mount(**{"source": "", **_MOUNT_KEYS(value, path)})
    if mount.type is MountType.BIND and not mount.source.startswith("/"):
        raise SpecError(f"{path}.source", "must be an absolute path of the host")
    return mount


_CONSTRAINT = instance_of(
    Constraint,
    Record(
        {
            "attribute": matching(limits.CONSTRAINT_ATTRIBUTE, "node.id, node.hostname or node.labels.NAME"),
            "equal": flag,
            "value": _WORD,
        },
        required=("attribute", "equal", "value"),
    ),
)
_HEALTHCHECK = instance_of(
    Healthcheck,
    Record(
        {
            "test": list_of(_LONG),
            "interval_s": _SECONDS,
            "timeout_s": _SECONDS,
            "retries": integer(0, limits.COUNT_MAX),
            "start_period_s": _SECONDS,
            "start_interval_s": _SECONDS,
        }
    ),
)
_RESTART = instance_of(
    RestartPolicy,
    Record(
        {
            "condition": one_of(RestartCondition),
            "delay_s": _SECONDS,
            "attempts_max": integer(0, limits.COUNT_MAX),
            "window_s": _SECONDS,
        }
    ),
)
_RESOURCES = instance_of(
    Resources,
    Record(
        {
            "limit_cpus": number(limits.CPUS_MAX),
            "limit_memory_bytes": _BYTES,
            "limit_pids": integer(0, limits.COUNT_MAX),
            "reserve_cpus": number(limits.CPUS_MAX),
            "reserve_memory_bytes": _BYTES,
        }
    ),
)
_SERVICE = Record(
    {
        "image": _WORD,
        "runtime": one_of(RuntimeName),
        "command": list_of(_LONG),
        "entrypoint": list_of(_LONG),
        "environment": pairs(_VARIABLE, _LONG),
        "labels": pairs(text(limits.WORD_MAX, empty=False), _LONG),
        "ports": set_of(_PORT),
        "expose": set_of(_PORT),
        "mounts": list_of(_mount),
        "network_mode": word_of(limits.NETWORK_MODES),
        "user": _WORD,
        "working_dir": _WORD,
        "healthcheck": _HEALTHCHECK,
        "restart": _RESTART,
        "stop_grace_period_s": _SECONDS,
        "stop_signal": _WORD,
        "init": flag,
        "read_only": flag,
        "cap_add": set_of(_CAPABILITY),
        "cap_drop": set_of(_CAPABILITY),
        "resources": _RESOURCES,
        "mode": one_of(Mode),
        "replicas": integer(0, limits.REPLICAS_MAX),
        "constraints": set_of(_CONSTRAINT),
        "replicas_per_node_max": integer(0, limits.REPLICAS_MAX),
        "update_parallelism": integer(0, limits.REPLICAS_MAX),
        "partition": one_of(Partition),
    }
)


def _services(value: object, path: str) -> tuple[Service, ...]:
    entries = map_of(value, path)
    if len(entries) > limits.SERVICES_MAX:
        raise SpecError(path, f"has {len(entries)} services; at most {limits.SERVICES_MAX} are taken")
    services = []
    for name in sorted(entries):
        own = join(path, name)
        _NAME(name, own)
        if name in limits.RESERVED_SERVICES:
            raise SpecError(own, f"the name {name!r} is Gary's own")
        services.append(_service_in(name, entries[name], own))
    return tuple(services)


def _service_in(name: str, value: object, path: str) -> Service:
    return Service(name=name, **_SERVICE(value, path))


_SPEC = Record(
    {"name": _NAME, "services": _services, "resilience": integer(1, limits.RESILIENCE_MAX)},
    required=("name", "services"),
)


def _spec_in(value: object) -> Spec:
    return Spec(**_SPEC(value, ""))
