"""A YAML text as a tree in which every value knows its place.

PyYAML's events are read one by one, so that nothing in the text decides how deep Python recurses or how much memory an
alias takes. Merge keys (``<<``) and aliases are resolved, duplicate keys are errors, variables in values are replaced.
No scalar gets a type here: who reads a value knows what it must be, so ``no`` can be a text and ``22:22`` is no number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import yaml

from gary.compose.errors import Place, Problems, Wrong
from gary.compose.interpolation import InterpolationError, Lookup, interpolate
from gary.spec.limits import SIZE_BYTES_MAX

_DEPTH_MAX: Final = 48
_NODES_MAX: Final = 100_000
_CHARACTERS_MAX: Final = 8 * SIZE_BYTES_MAX
"""Of all values together once variables and aliases are replaced."""
_TAGS: Final = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar as it is written. ``null``: nothing stands there, or ``null`` unquoted."""

    place: Place
    text: str
    null: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A sequence."""

    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's own place and its value."""

    place: Place
    value: Node


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping, in the order of the file."""

    place: Place
    entries: dict[str, Entry]


Node: TypeAlias = Text | Items | Table


@dataclass(slots=True)
class _Raw:
    """A node as written, before aliases, merges and variables. ``value``: text, list of nodes, or list of pairs."""

    line: int
    column: int
    value: str | list[_Raw] | list[tuple[_Raw, _Raw]]
    plain: bool = False
    mapping: bool = False
    complete: bool = True


def parse(text: str, file: str, lookup: Lookup, problems: Problems, warn: Callable[[Place, str], None]) -> Node:
    """The tree of ``text``. Raises ``Wrong`` if it is no YAML or out of bounds; smaller faults go to ``problems``."""
    top = Place(file, 0, 0, "")
    try:
        raw = _Composer(file, yaml.parse(text, Loader=_LOADER)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # libyaml puts what is missing at the end onto the line after the last.
        last = max(1, len(text.splitlines()))
        place = replace(top, line=min(mark.line + 1, last), column=mark.column + 1) if mark else top
        words = " ".join(part for part in (error.context, error.problem) if part)
        raise Wrong(place, f"is not YAML: {words}") from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = replace(top, line=before.count("\n") + 1, column=len(before) - before.rfind("\n"))
        raise Wrong(place, f"is not YAML: the character {error.character!r} is not allowed there") from error
    except (yaml.YAMLError, ValueError) as error:
        raise Wrong(top, f"is not YAML: {error}") from error
    return _Resolver(file, lookup, problems, warn).resolve(raw, "", 0)


@dataclass(slots=True)
class _Composer:
    """Events to raw nodes; refuses what is too deep, has several documents, or refers to itself."""

    file: str
    events: Iterator[Any]
    anchors: dict[str, _Raw] = field(default_factory=dict)

    def document(self) -> _Raw:
        raw: _Raw | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent) and raw is not None:
                raise self._wrong(
                    event, "is a second document in one file", "Put each application into a file of its own"
                )
            if isinstance(event, yaml.NodeEvent):
                raw = self._node(event, 0)
        return raw or _Raw(1, 1, "", plain=True)

    def _node(self, event: Any, depth: int) -> _Raw:
        if depth > _DEPTH_MAX:
            raise self._wrong(event, f"is nested more than {_DEPTH_MAX} deep")
        if isinstance(event, yaml.AliasEvent):
            target = self.anchors.get(event.anchor or "")
            if target is None:
                raise self._wrong(event, f"there is no anchor &{event.anchor} before this alias")
            if not target.complete:
                raise self._wrong(event, f"the alias *{event.anchor} stands inside of what it refers to")
            return target
        if event.tag is not None and event.tag != "!" and event.tag not in _TAGS:
            raise self._wrong(event, f"has the tag {event.tag}, which means nothing here", "Leave the tag out")
        raw = _Raw(event.start_mark.line + 1, event.start_mark.column + 1, "", complete=False)
        if event.anchor is not None:
            self.anchors[event.anchor] = raw
        if isinstance(event, yaml.ScalarEvent):
            raw.value, raw.plain = event.value, bool(event.implicit[0])
        elif isinstance(event, yaml.SequenceStartEvent):
            raw.value = list(self._until(yaml.SequenceEndEvent, depth))
        else:
            nodes = list(self._until(yaml.MappingEndEvent, depth))
            raw.value, raw.mapping = list(zip(nodes[::2], nodes[1::2], strict=True)), True
        raw.complete = True
        return raw

    def _until(self, end: type, depth: int) -> Iterator[_Raw]:
        for event in self.events:
            if isinstance(event, end):
                return
            yield self._node(event, depth + 1)

    def _wrong(self, event: Any, reason: str, hint: str = "") -> Wrong:
        mark = event.start_mark
        return Wrong(Place(self.file, mark.line + 1, mark.column + 1, ""), reason, hint)


@dataclass(slots=True)
class _Resolver:
    """Raw nodes to the tree: aliases and merges spread out, variables replaced, each node with its path."""

    file: str
    lookup: Lookup
    problems: Problems
    warn: Callable[[Place, str], None]
    nodes: int = 0
    characters: int = 0

    def resolve(self, raw: _Raw, key: str, depth: int) -> Node:
        place = Place(self.file, raw.line, raw.column, key)
        self.nodes += 1
        if self.nodes > _NODES_MAX or self.characters > _CHARACTERS_MAX or depth > _DEPTH_MAX:
            raise Wrong(place, "the file becomes too large once its aliases and variables are replaced")
        if isinstance(raw.value, str):
            return self._text(raw, raw.value, place)
        if raw.mapping:
            return Table(place, self._entries(raw, key, depth))
        items: list[Any] = raw.value
        return Items(place, tuple(self.resolve(item, f"{key}[{index}]", depth + 1) for index, item in enumerate(items)))

    def _text(self, raw: _Raw, text: str, place: Place) -> Text:
        if raw.plain and text in _NULLS:
            return Text(place, "", null=True)
        try:
            value = interpolate(text, self.lookup, lambda name: self.warn(place, _unset(name)))
        except InterpolationError as error:
            self.problems.add(place, error.reason, spoils=True)
            value = ""
        self.characters += len(value)
        return Text(place, value)

    def _entries(self, raw: _Raw, key: str, depth: int) -> dict[str, Entry]:
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        pairs: list[Any] = raw.value if isinstance(raw.value, list) else []
        for name_raw, value_raw in pairs:
            place = Place(self.file, name_raw.line, name_raw.column, key)
            if not isinstance(name_raw.value, str) or (name_raw.plain and name_raw.value in _NULLS):
                self.problems.add(place, "a key must be a text")
                continue
            name = name_raw.value
            if name == "<<" and name_raw.plain:
                for entry_name, entry in self._merged(value_raw, key, depth):
                    merged.setdefault(entry_name, entry)
                continue
            path = f"{key}.{name[:128]}" if key else name[:128]
            place = replace(place, key=path)
            if name in own:
                self.problems.add(place, f"is given twice; the first time on line {own[name].place.line}")
                continue
            own[name] = Entry(place, self.resolve(value_raw, path, depth + 1))
        return merged | own if merged else own

    def _merged(self, raw: _Raw, key: str, depth: int) -> Iterator[tuple[str, Entry]]:
        sources: list[Any] = [raw] if raw.mapping or isinstance(raw.value, str) else raw.value
        for source in sources:
            if not source.mapping:
                place = Place(self.file, source.line, source.column, f"{key}.<<" if key else "<<")
                self.problems.add(place, "can only merge mappings, such as an alias of one")
                continue
            node = self.resolve(source, key, depth + 1)
            assert isinstance(node, Table)
            yield from node.entries.items()


def _unset(name: str) -> str:
    return f"the variable {name} is not set; it is replaced by nothing"
