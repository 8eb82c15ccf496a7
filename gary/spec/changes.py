"""What differs between two specs, in words; and a spec with other numbers of replicas. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final

from gary.spec.codec import fingerprint
from gary.spec.limits import REPLICAS_MAX
from gary.spec.model import Constraint, Mode, Mount, Port, Resources, Service, Spec, SpecError


class Action(StrEnum):
    """What a new spec does to a service. Only ``REPLACE`` stops containers to start others; ``SCALE`` adds or takes."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"
    SCALE = "scale"
    UPDATE = "update"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Change:
    """``service`` is empty for what concerns the whole application. ``detail`` never holds values of variables."""

    service: str
    action: Action
    detail: str


def changes(old: Spec | None, new: Spec) -> tuple[Change, ...]:
    """What ``new`` does to ``old`` (None: nothing was there), the application first, then each service by name."""
    before = {service.name: service for service in old.services} if old else {}
    after = {service.name: service for service in new.services}
    whole = []
    if old and old.resilience != new.resilience:
        whole.append(Change("", Action.UPDATE, f"resilience {old.resilience} -> {new.resilience}"))
    return (*whole, *(_change(name, before.get(name), after.get(name)) for name in sorted(before | after)))


def scaled(spec: Spec, replicas: Mapping[str, int]) -> Spec:
    """``spec`` with other numbers of replicas. Raises ``SpecError`` if a service is unknown or global, a number bad."""
    for name, count in sorted(replicas.items()):
        service = spec.service(name)
        if service is None:
            known = ", ".join(service.name for service in spec.services)
            raise SpecError(f"services.{name}", f"there is no such service in {spec.name}; there are: {known}")
        if service.mode is Mode.GLOBAL:
            raise SpecError(f"services.{name}", "is global: it runs once on every node and cannot be scaled")
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= REPLICAS_MAX:
            raise SpecError(f"services.{name}.replicas", f"must be a whole number from 0 to {REPLICAS_MAX}")
    services = (replace(service, replicas=replicas.get(service.name, service.replicas)) for service in spec.services)
    return replace(spec, services=tuple(services))


def _change(name: str, old: Service | None, new: Service | None) -> Change:
    if new is None:
        assert old is not None
        return Change(name, Action.REMOVE, _introduction(old))
    if old is None:
        return Change(name, Action.ADD, _introduction(new))
    differing = [field.name for field in fields(Service) if getattr(old, field.name) != getattr(new, field.name)]
    detail = "; ".join(_difference(field, getattr(old, field), getattr(new, field)) for field in differing)
    return Change(name, _action(old, new, differing), detail)


def _action(old: Service, new: Service, differing: list[str]) -> Action:
    if not differing:
        return Action.KEEP
    # Another mode names its slots otherwise, so none of the old containers can stay.
    if fingerprint(old) != fingerprint(new) or old.mode is not new.mode:
        return Action.REPLACE
    return Action.SCALE if "replicas" in differing else Action.UPDATE


def _introduction(service: Service) -> str:
    what = service.image or " ".join(service.entrypoint or service.command or ())[:60]
    if service.mode is Mode.GLOBAL:
        return f"{what}, one on every node"
    return f"{what}, {service.replicas} replica{'s' if service.replicas != 1 else ''}"


_TITLES: Final[Mapping[str, str]] = {
    "mounts": "volumes",
    "network_mode": "network mode",
    "working_dir": "working directory",
    "healthcheck": "health check",
    "restart": "restart policy",
    "stop_grace_period_s": "stop grace period (s)",
    "stop_signal": "stop signal",
    "read_only": "read-only",
    "replicas_per_node_max": "replicas per node at most",
    "update_parallelism": "update parallelism",
}
_UNQUOTED: Final = frozenset({"command", "entrypoint", "healthcheck", "restart"})
"""Too long for a line, or (arguments) where people put secrets: told as changed, not how."""


def _difference(field: str, old: Any, new: Any) -> str:
    title = _TITLES.get(field, field)
    if field in _UNQUOTED:
        return f"{title} {'added' if old is None else 'removed' if new is None else 'changed'}"
    if field in ("environment", "labels"):
        return f"{title} {_names_difference(dict(old), dict(new))}"
    if field == "resources":
        return _resources_difference(old, new)
    if isinstance(old, tuple):
        return f"{title} {_items_difference(old, new)}"
    return f"{title} {_word(old)} -> {_word(new)}"


def _names_difference(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    changed = (name for name in old if name in new and old[name] != new[name])
    return _marked(added=new.keys() - old.keys(), removed=old.keys() - new.keys(), changed=changed)


def _items_difference(old: tuple[Any, ...], new: tuple[Any, ...]) -> str:
    before, after = {_word(item) for item in old}, {_word(item) for item in new}
    return "in another order" if before == after else _marked(added=after - before, removed=before - after)


def _marked(*, added: Iterable[str], removed: Iterable[str], changed: Iterable[str] = ()) -> str:
    marks = (("+", added), ("-", removed), ("~", changed))
    return " ".join(f"{mark}{name}" for mark, names in marks for name in sorted(names))


def _resources_difference(old: Resources, new: Resources) -> str:
    differing = (field.name for field in fields(Resources) if getattr(old, field.name) != getattr(new, field.name))
    return "; ".join(
        f"{name.replace('_', ' ')} {_word(getattr(old, name) or '')} -> {_word(getattr(new, name) or '')}"
        for name in differing
    )


def _word(value: object) -> str:
    match value:
        case Port(container, protocol, host, host_ip):
            outside = ":".join(part for part in (host_ip, str(host or "")) if part)
            return f"{outside}:{container}/{protocol}" if outside else f"{container}/{protocol}"
        case Mount(type=type_, source=source, target=target, read_only=read_only):
            return f"{source or type_}:{target}{':ro' if read_only else ''}"
        case Constraint(attribute, equal, text):
            return f"{attribute}{'==' if equal else '!='}{text}"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case "":
            return "none"
    return str(value)
