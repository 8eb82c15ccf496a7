"""``volumes`` of a service, short and long syntax, and the top-level ``volumes`` they refer to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gary.compose import keys
from gary.compose.errors import Place, Problems, Wrong
from gary.compose.readers import absolute_path, host_path, one_of, parsed, table, text
from gary.compose.tree import Entry, Node, Table, Text
from gary.compose.values import flag, size_bytes
from gary.spec.model import Mount, MountType

_MODES: Final = ("ro", "rw")
_VOLUME_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")


def read_volumes(node: Node, problems: Problems) -> dict[str, str]:
    """The volumes that a file declares: its name for each, and the engine's own name (empty: none)."""
    found = {}
    for name, entry in table(node).entries.items():
        if name.startswith("x-"):
            continue
        if not _VOLUME_NAME.fullmatch(name):
            problems.add(entry.place, f"{name[:64]!r} is no name of a volume: letters, digits, _, . and -")
        found[name] = (
            "" if _empty(entry.value) else _engine_name(name, table_of(entry.value, keys.VOLUME, problems), problems)
        )
    return found


def table_of(node: Node, scope: str, problems: Problems) -> dict[str, Entry]:
    """What is honoured of a mapping; nothing of something else, which is noted."""
    if isinstance(node, Table):
        return keys.honoured(node, scope, problems)
    problems.read(table, node, None)
    return {}


def _empty(node: Node) -> bool:
    return isinstance(node, Text) and node.null


def _engine_name(name: str, entries: Mapping[str, Entry], problems: Problems) -> str:
    own = problems.read(parsed(_volume_name), entries["name"].value, "") if "name" in entries else ""
    external = False
    if "external" in entries:
        external = problems.read(parsed(flag), entries["external"].value, False)
    if "driver" in entries:
        problems.read(one_of("local"), entries["driver"].value, "")
    return own or (name if external else "")


def _volume_name(name: str) -> str:
    if not _VOLUME_NAME.fullmatch(name):
        raise ValueError(f"is {name[:64]!r}; a volume's name is made of letters, digits, _, . and -")
    return name


def read_mount(node: Node, directory: Path, volumes: Mapping[str, str], problems: Problems) -> Mount:
    """One item of ``volumes``. Raises ``Wrong``."""
    if isinstance(node, Table):
        return _long(node, directory, volumes, problems)
    return _short(text(node), node.place, directory, volumes)


def _short(written: str, place: Place, directory: Path, volumes: Mapping[str, str]) -> Mount:
    parts = written.split(":")
    if len(parts) > 3:
        raise Wrong(place, f"is {written[:64]!r}; it must be [SOURCE:]TARGET[:ro|rw]")
    if len(parts) == 1:
        parts = ["", written]
    source, target, *modes = parts
    if not target.startswith("/"):
        raise Wrong(place, f"has the target {target[:64]!r}; it must be an absolute path")
    for mode in ",".join(modes).split(",") if modes else ():
        if mode not in _MODES:
            raise Wrong(place, f"has the mode {mode[:64]!r}; only ro and rw are supported", "Leave the other modes out")
    read_only = bool(modes) and "ro" in modes[0].split(",")
    if source.startswith((".", "/", "~")):
        return Mount(MountType.BIND, host_path(source, directory, place), target, read_only)
    if len(parts) > 1 and not source and written.startswith(":"):
        raise Wrong(place, "has no source before the colon")
    return _volume(source, target, read_only, volumes, place)


def _long(node: Table, directory: Path, volumes: Mapping[str, str], problems: Problems) -> Mount:
    entries = keys.honoured(node, keys.MOUNT, problems)
    for key in ("type", "target"):
        if key not in entries:
            raise Wrong(node.place, f"has no {key}")
    type_ = MountType(one_of(*MountType)(entries["type"].value))
    target = absolute_path(entries["target"].value)
    read_only = parsed(flag)(entries["read_only"].value) if "read_only" in entries else False
    for key, owner in (("bind", MountType.BIND), ("tmpfs", MountType.TMPFS)):
        if key in entries and type_ is not owner:
            problems.add(entries[key].place, f"does not go with type {type_}")
    source = text(entries["source"].value) if "source" in entries else ""
    if type_ is MountType.TMPFS:
        if source:
            raise Wrong(entries["source"].place, "does not go with type tmpfs")
        return Mount(type_, "", target, read_only, size_bytes=_tmpfs_size(entries, problems))
    if type_ is MountType.VOLUME:
        return _volume(source, target, read_only, volumes, entries.get("source", entries["target"]).place)
    if not source:
        raise Wrong(node.place, "has no source, which type bind needs")
    _check_bind(entries, problems)
    return Mount(type_, host_path(source, directory, entries["source"].value.place), target, read_only)


def _tmpfs_size(entries: Mapping[str, Entry], problems: Problems) -> int:
    options = table_of(entries["tmpfs"].value, keys.MOUNT_TMPFS, problems) if "tmpfs" in entries else {}
    return parsed(size_bytes)(options["size"].value) if "size" in options else 0


def _check_bind(entries: Mapping[str, Entry], problems: Problems) -> None:
    options = table_of(entries["bind"].value, keys.MOUNT_BIND, problems) if "bind" in entries else {}
    create = options.get("create_host_path")
    if create is not None and problems.read(parsed(flag), create.value, False):
        reason = "is true, but Gary makes no directories: an empty one would hide that the data is missing"
        problems.add(create.value.place, reason, "Make it on every node that may run the service")


def _volume(source: str, target: str, read_only: bool, volumes: Mapping[str, str], place: Place) -> Mount:
    if source and source not in volumes:
        hint = f"Add {source[:64]!r} under volumes at the top of the file, or begin a path with ./ or /"
        raise Wrong(place, f"refers to the volume {source[:64]!r}, which the file does not declare", hint)
    return Mount(MountType.VOLUME, source, target, read_only, external_name=volumes.get(source, ""))
