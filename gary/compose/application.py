"""A Compose file from its bytes to a ``Spec``: the whole way, with everything that is wrong told at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gary.compose import keys, values
from gary.compose.dotenv import read_dotenv
from gary.compose.errors import ComposeError, ComposeErrors, Place, Problems, Wrong, problem
from gary.compose.interpolation import Lookup
from gary.compose.mounts import read_volumes, table_of
from gary.compose.readers import parsed, table
from gary.compose.readers import text as text_of
from gary.compose.service import Surroundings, read_service
from gary.compose.tree import Entry, Node, Table, Text, parse
from gary.spec import Service, Spec, SpecError, from_json, to_json
from gary.spec.limits import (
    NAME,
    NAME_RULE,
    RESERVED_SERVICES,
    RESILIENCE_DEFAULT,
    RESILIENCE_MAX,
    SERVICES_MAX,
    SIZE_BYTES_MAX,
)

Warn = Callable[[ComposeError], None]


def load(
    path: Path | None,
    environment: Mapping[str, str] | None = None,
    *,
    text: str | bytes | None = None,
    name: str | None = None,
    env_files: Sequence[Path] = (),
    warn: Warn = lambda warning: None,
) -> Spec:
    """The canonical spec of the Compose file at ``path``.

    ``text``: its contents, if they have been read already (from a pipe, say; ``path`` None then means the working
    directory). ``environment`` (default: the process's) and, where it is silent, ``.env`` beside the file, or else
    ``env_files``, fill in variables. ``name`` overrides the application's name. ``warn`` hears of what is odd and no
    error. Raises ``ComposeErrors`` with all that is wrong.
    """
    file = path if path is not None else Path("compose.yaml")
    shown = str(path) if path is not None else "<input>"
    directory = file.absolute().parent
    problems = Problems()
    try:
        source = _source(file, shown, text)
        outside = os.environ if environment is None else environment
        lookup = _variables(directory, outside, env_files, shown, problems)
        tree = _tree(source, shown, lookup, problems, warn)
        spec = _application(tree, directory, lookup, name, problems, warn)
    except Wrong as wrong:
        problems.add(wrong.place, wrong.reason, wrong.hint)
        raise ComposeErrors(problems.errors) from wrong
    problems.check()
    return _canonical(spec, tree)


def default_name(directory: Path) -> str:
    """The name that Compose gives to an application in ``directory``; empty if nothing of that can be used."""
    return re.sub(r"[^a-z0-9_-]", "", directory.name.lower()).lstrip("_-")[:63]


def _source(file: Path, shown: str, data: str | bytes | None) -> str:
    top = Place(shown, 0, 0, "")
    if data is None:
        try:
            with file.open("rb") as stream:
                data = stream.read(SIZE_BYTES_MAX + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise Wrong(top, f"cannot be read: {reason}") from error
    if len(data) > SIZE_BYTES_MAX:
        raise Wrong(top, f"is larger than {SIZE_BYTES_MAX} bytes")
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        place = Place(shown, before.count(b"\n") + 1, len(before) - before.rfind(b"\n"), "")
        raise Wrong(place, "is not UTF-8 text") from error


def _variables(
    directory: Path, environment: Mapping[str, str], env_files: Sequence[Path], shown: str, problems: Problems
) -> Lookup:
    beside = directory / ".env"
    own: dict[str, str] = {}
    for file in env_files or ((beside,) if beside.is_file() else ()):
        own |= read_dotenv(file, environment.get, problems, Place(shown, 0, 0, ""))

    def lookup(name: str) -> str | None:
        value = environment.get(name)
        return own.get(name) if value is None else value

    return lookup


def _tree(source: str, shown: str, lookup: Lookup, problems: Problems, warn: Warn) -> Table:
    told: set[str] = set()

    def warn_once(place: Place, reason: str) -> None:
        if reason not in told:
            told.add(reason)
            warn(problem(place, reason))

    node = parse(source, shown, lookup, problems, warn_once)
    if not isinstance(node, Table):
        empty = isinstance(node, Text) and node.null
        raise Wrong(node.place, "is empty" if empty else "is no Compose file: it must be a mapping with services")
    return node


def _application(
    tree: Table, directory: Path, lookup: Lookup, name: str | None, problems: Problems, warn: Warn
) -> Spec:
    entries = keys.honoured(tree, keys.TOP, problems)
    if "version" in entries:
        warn(problem(entries["version"].place, "has no effect; Compose calls it obsolete"))
    volumes: dict[str, str] = {}
    if "volumes" in entries and not _null(entries["volumes"].value):
        volumes = problems.read(lambda node: read_volumes(node, problems), entries["volumes"].value, volumes)
    gary = table_of(entries["x-gary"].value, keys.X_GARY, problems) if "x-gary" in entries else {}
    resilience = RESILIENCE_DEFAULT
    if "resilience" in gary:
        reader = parsed(lambda written: values.integer(written, 1, RESILIENCE_MAX))
        resilience = problems.read(reader, gary["resilience"].value, resilience)
    around = Surroundings(directory, lookup, volumes, problems)
    services = _services(entries, tree, around)
    return Spec(_name(entries, directory, name, tree.place, problems), services, resilience)


def _services(entries: Mapping[str, Entry], tree: Table, around: Surroundings) -> tuple[Service, ...]:
    if "services" not in entries:
        raise Wrong(tree.place, "has no services", "Add services: with at least one service")
    found = []
    for name, entry in table(entries["services"].value).entries.items():
        if name.startswith("x-"):
            continue
        if not NAME.fullmatch(name):
            around.problems.add(entry.place, f"is no name that a service can have: it is {NAME_RULE}", "Rename it")
        elif name in RESERVED_SERVICES:
            around.problems.add(entry.place, f"is no name that a service can have: {name} is Gary's own", "Rename it")
        found.append(read_service(name, entry, around))
    if not found:
        raise Wrong(entries["services"].place, "has no service", "Add at least one")
    if len(found) > SERVICES_MAX:
        raise Wrong(entries["services"].place, f"has {len(found)} services; at most {SERVICES_MAX} are taken")
    return tuple(found)


def _name(entries: Mapping[str, Entry], directory: Path, override: str | None, top: Place, problems: Problems) -> str:
    if "name" in entries:
        written, place = problems.read(text_of, entries["name"].value, ""), entries["name"].value.place
        if not NAME.fullmatch(written):
            problems.add(place, f"is {written[:64]!r}; a name is {NAME_RULE}")
    else:
        written, place = default_name(directory), replace(top, line=0, column=0, key="name")
        if not written and override is None:
            problems.add(place, f"is missing, and the directory {directory} cannot give one", "Add name: at the top")
    if override is None:
        return written
    if not NAME.fullmatch(override):
        problems.add(replace(top, line=0, column=0, key="--name"), f"is {override[:64]!r}; a name is {NAME_RULE}")
    return override


def _null(node: Node) -> bool:
    return isinstance(node, Text) and node.null


def _canonical(spec: Spec, tree: Table) -> Spec:
    try:
        return from_json(to_json(spec))
    except SpecError as error:
        # Only limits of size are left for the codec to find; the service is as near as it can tell.
        place = tree.place
        first, _, rest = error.path.partition(".")
        services = tree.entries.get(first)
        if services is not None and isinstance(services.value, Table):
            entry = services.value.entries.get(rest.partition(".")[0])
            place = entry.place if entry is not None else services.place
        raise ComposeErrors([problem(replace(place, key=error.path), error.reason)]) from error
