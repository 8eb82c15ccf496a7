"""On which line of a TOML text each key stands. ``tomllib`` does not say."""

from __future__ import annotations

import tomllib
from collections import Counter
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys, and indices in arrays of tables, from the top."""


def lines(text: str) -> dict[Path, int]:
    """The line, from 1, of every table and every key that is not within a value. ``text`` is valid TOML."""
    found: dict[Path, int] = {}
    table: Path = ()
    tables: Counter[Path] = Counter()
    statement, began = "", 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        began = began if statement else number
        statement += line
        try:
            parsed = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # It goes on in the next line.
        head, statement = statement.lstrip(), ""
        if head.startswith("["):
            table = _indexed(_keys(parsed), tables, is_another=head.startswith("[["))
            found[table] = began
        elif parsed:
            path = table
            for key in _keys(parsed):
                path = (*path, key)
                found.setdefault(path, began)
    return found


def line_of(path: Path, found: dict[Path, int]) -> int:
    """The line of ``path``, or of what it is in."""
    while path and path not in found:
        path = path[:-1]
    return found.get(path, 1)


def _keys(parsed: object) -> tuple[str, ...]:
    """The keys of tables that have one each, outermost first."""
    keys: list[str] = []
    while (isinstance(parsed, dict) and len(parsed) == 1) or (isinstance(parsed, list) and len(parsed) == 1):
        if isinstance(parsed, list):
            parsed = parsed[0]
        else:
            [(key, parsed)] = parsed.items()
            keys.append(key)
    return tuple(keys)


def _indexed(keys: tuple[str, ...], tables: Counter[Path], *, is_another: bool) -> Path:
    """The path of a table's head: keys of arrays of tables are followed by the index of the last one."""
    path: Path = ()
    for number, key in enumerate(keys):
        path = (*path, key)
        if is_another and number == len(keys) - 1:
            tables[path] += 1
        if tables[path]:
            path = (*path, tables[path] - 1)
    return path
