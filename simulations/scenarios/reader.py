"""Scenario files: TOML whose tables are the classes of ``model``, read with all their errors at once.

A field is a key: ``memory_bytes`` is written as ``memory``, because the value says its unit (``"8GB"``). A table that
has a ``kind`` is a fault, and has that fault's fields beside those of ``Planned``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from gary.compose import ComposeErrors, load
from gary.spec import Spec
from simulations import units
from simulations.faults.base import Fault
from simulations.faults.catalogue import KINDS
from simulations.scenarios import places
from simulations.scenarios.model import Planned, Scenario

T = TypeVar("T")
SIZE_CHARACTERS_MAX: Final = 1_000_000
FORMINGS: Final = ("at once", "by tokens")
PROFILES: Final = ("lan", "wan")
_UNITS: Final = ("_bytes_per_s", "_bytes", "_s")
_SCALARS: Final[Mapping[Any, Callable[[object], Any]]] = {
    str: units.word,
    int: units.whole,
    float: units.number,
    bool: units.flag,
}


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in a scenario. ``line``: from 1, 0 for the file as a whole. ``key``: its path, may be empty."""

    line: int
    key: str
    said: str


class ScenarioError(Exception):
    """The user's mistake: all that is wrong with a scenario, in the order of its lines."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = sorted(set(problems))
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """``FILE:LINE: KEY: what is wrong`` for each problem."""
        return [
            f"{self.file}{f':{p.line}' if p.line else ''}: {f'{p.key}: ' if p.key else ''}{p.said}"
            for p in self.problems
        ]


def read(text: str, file: str, opened: Callable[[str], str], sets: Sequence[tuple[str, str]] = ()) -> Scenario:
    """The scenario that ``text`` is; ``file`` names it in errors. ``opened(name)``: the text of a file that it names.

    ``sets``: keys (``hosts.0.count``) with other values than the text has. Raises ``ScenarioError``.
    """
    if len(text) > SIZE_CHARACTERS_MAX:
        raise ScenarioError(file, [Problem(1, "", f"is longer than {SIZE_CHARACTERS_MAX} characters")])
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ScenarioError(file, [Problem(_line_in(str(error)), "", f"is not TOML: {error}")]) from error
    reader = _Reader(places.lines(text), opened)
    for key, value in sets:
        reader.put(table, key, value)
    scenario: Scenario = reader.table(Scenario, table, ())
    reader.judge(scenario)
    if reader.problems:
        raise ScenarioError(file, reader.problems)
    return scenario


def key_of(field: str) -> str:
    """How a field is written in a file."""
    for unit in _UNITS:
        field = field.removesuffix(unit)
    return field.replace("_", "-")


class _Reader:
    def __init__(self, lines: dict[places.Path, int], opened: Callable[[str], str]) -> None:
        self.problems: list[Problem] = []
        self._lines = lines
        self._opened = opened

    def wrong(self, path: places.Path, said: str) -> None:
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
        self.problems.append(Problem(places.line_of(path, self._lines), key, said))

    def put(self, table: dict[str, Any], key: str, value: str) -> None:
        """Let ``key`` in ``table`` have another value: as TOML has it, or else a text."""
        path = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        try:
            given = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            given = value
        at: Any = table
        try:
            for part in path[:-1]:
                at = at.setdefault(part, {}) if isinstance(at, dict) else at[part]
            at[path[-1]] = given
        except (LookupError, TypeError, AttributeError):
            self.wrong(path, f"there is no such place for {value!r}")

    def table(
        self,
        kind: type[Any],
        given: object,
        path: places.Path,
        beside: frozenset[str] = frozenset(),
        **known: Any,
    ) -> Any:
        """An instance of ``kind``, some of whose fields are ``known``. Keys ``beside`` its own are somebody else's."""
        if not isinstance(given, dict):
            self.wrong(path, f"{given!r} is not a table")
            return kind()
        hints = get_type_hints(kind, include_extras=True)
        own = {key_of(field.name): field for field in fields(kind) if field.name not in known}
        for key in given:
            if key not in own and key not in beside:
                self.wrong((*path, key), f"there is no such key; keys are {', '.join(sorted({*own, *beside}))}")
        values: dict[str, Any] = dict(known)
        for key, field in own.items():
            if key in given:
                values[field.name] = self.value(hints[field.name], given[key], (*path, key))
            elif field.default is MISSING and field.default_factory is MISSING:
                self.wrong(path, f"lacks {key}")
                values[field.name] = None
        return kind(**{name: value for name, value in values.items() if value is not _WRONG})

    def value(self, hint: Any, given: object, path: places.Path) -> Any:
        """What ``given`` means to a field of type ``hint``; ``_WRONG`` if nothing."""
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self._parsed(arguments[1], given, path)
        if origin in (Union, UnionType):
            return self.value(next(argument for argument in arguments if argument is not type(None)), given, path)
        if hint is Spec:
            return self._compose(given, path)
        if origin is tuple and arguments[0] is Planned:
            return self._list(given, path, self._planned)
        if origin is tuple:
            return self._list(given, path, lambda item, where: self.value(arguments[0], item, where))
        if origin is not None and issubclass(origin, Mapping):
            return self._mapping(arguments[1], given, path)
        if hint in _SCALARS:
            return self._parsed(_SCALARS[hint], given, path)
        return self.table(hint, given, path)

    def judge(self, scenario: Scenario) -> None:
        """What cannot be, though each value by itself could."""
        if scenario.nodes < 1:
            self.wrong(("hosts",), "a cluster has at least one host")
        if scenario.forming not in FORMINGS:
            self.wrong(("forming",), f"{scenario.forming!r} is none of {', '.join(FORMINGS)}")
        if scenario.profile not in PROFILES:
            self.wrong(("profile",), f"{scenario.profile!r} is none of {', '.join(PROFILES)}")
        if not any(hosts.count and hosts.joins_s is None for hosts in scenario.hosts):
            self.wrong(("hosts",), "some have to be there from the beginning: without joins")
        zones = set(scenario.topology.zones)
        if not zones or not scenario.topology.racks:
            self.wrong(("topology",), "there is at least one zone, and one rack in each")
        for number, hosts in _right(scenario.hosts):
            self._known("zone", hosts.zone, zones, ("hosts", number, "zone"))
        for number, between in _right(scenario.topology.between):
            if len(between.zones) != 2:
                self.wrong(("topology", "between", number, "zones"), "names two zones")
            for zone in between.zones:
                self._known("zone", zone, zones, ("topology", "between", number, "zones"))
        apps = {d.compose.name if d.compose else d.name for d in scenario.deployments}
        for number, planned in _right(scenario.faults):
            path = ("faults", number)
            self._known("zone", planned.where.zone, zones, (*path, "where", "zone"))
            self._known("deployment", planned.where.holding.rstrip("0123456789-"), apps, (*path, "where", "holding"))
            if planned.times > 1 and not planned.every_s:
                self.wrong((*path, "times"), "needs every")
            if planned.at_s > scenario.for_s:
                self.wrong((*path, "at"), f"is after the end, {units.in_words(scenario.for_s)}")

    # Inside

    def _known(self, what: str, name: str, names: set[str], path: places.Path) -> None:
        if name and name not in names:
            self.wrong(path, f"there is no {what} {name!r}; there are {', '.join(sorted(names))}")

    def _parsed(self, parse: Callable[[object], Any], given: object, path: places.Path) -> Any:
        try:
            return parse(given)
        except ValueError as error:
            self.wrong(path, str(error))
            return _WRONG

    def _list(self, given: object, path: places.Path, item: Callable[[object, places.Path], Any]) -> Any:
        if not isinstance(given, list):
            self.wrong(path, f"{given!r} is not a list")
            return _WRONG
        return tuple(item(one, (*path, number)) for number, one in enumerate(given))

    def _mapping(self, hint: Any, given: object, path: places.Path) -> Any:
        if not isinstance(given, dict):
            self.wrong(path, f"{given!r} is not a table")
            return _WRONG
        values = {key: self.value(hint, value, (*path, key)) for key, value in given.items()}
        if path[-1] == "kinds":
            for kind in values.keys() - KINDS.keys():
                self.wrong((*path, kind), f"there is no such fault; faults are {', '.join(KINDS)}")
        return values

    def _planned(self, given: object, path: places.Path) -> Any:
        if not isinstance(given, dict) or given.get("kind") not in KINDS:
            what = given.get("kind") if isinstance(given, dict) else given
            self.wrong((*path, "kind"), f"{what!r} is no fault; faults are {', '.join(KINDS)}")
            return _WRONG
        make = KINDS[given["kind"]].make
        shared = frozenset(key_of(field.name) for field in fields(Planned)) - {"fault"}
        own = frozenset(key_of(field.name) for field in fields(make))  # type: ignore[arg-type]
        fault: Fault = self.table(
            make,
            {key: value for key, value in given.items() if key in own or key not in shared},
            path,
            frozenset({"kind"}) | shared,
        )
        plan = {key: value for key, value in given.items() if key in shared}
        return self.table(Planned, plan, path, fault=fault)

    def _compose(self, given: object, path: places.Path) -> Any:
        try:
            name = units.word(given)
            return load(Path(name), {}, text=self._opened(name))
        except ComposeErrors as errors:
            for error in errors.errors:
                self.wrong(path, str(error))
        except (ValueError, OSError) as error:
            self.wrong(path, str(error))
        return _WRONG


_WRONG: Final = object()
"""In place of a value that could not be read: the default is used, since nothing will run anyway."""


def _right(items: Sequence[T]) -> Iterator[tuple[int, T]]:
    """Those that could be read, with their places."""
    return ((number, item) for number, item in enumerate(items) if item is not _WRONG)


def _line_in(said: str) -> int:
    """The line that ``tomllib`` names in an error, 1 if none."""
    found = re.search(r"at line (\d+)", said)
    return int(found[1]) if found else 1
