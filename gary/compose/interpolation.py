"""Variables in a text, as Compose replaces them.

``$NAME``, ``${NAME}``, ``${NAME:-default}``, ``${NAME-default}``, ``${NAME:?error}``, ``${NAME?error}``,
``${NAME:+other}``, ``${NAME+other}`` and ``$$``; defaults, errors and alternatives may hold variables themselves. With
a colon an empty variable counts as unset.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gary.spec.limits import TEXT_MAX

Lookup = Callable[[str], str | None]
"""The value of a variable, None if it is unset."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR: Final = re.compile(r":?[-?+]")
_NESTING_MAX: Final = 32


class InterpolationError(Exception):
    """``reason`` says what is wrong with the text or which variable is missing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def interpolate(text: str, lookup: Lookup, unset: Callable[[str], None]) -> str:
    """``text`` with its variables replaced. ``unset`` hears of variables that are replaced by nothing."""
    return _interpolate(text, lookup, unset, 0) if "$" in text else text


def _interpolate(text: str, lookup: Lookup, unset: Callable[[str], None], depth: int) -> str:
    if depth > _NESTING_MAX:
        raise InterpolationError(f"nests variables more than {_NESTING_MAX} deep")
    parts, size, position = [], 0, 0
    while position < len(text):
        dollar = text.find("$", position)
        if dollar < 0:
            dollar = len(text)
        part, position = text[position:dollar], dollar
        if not part:
            part, position = _replace(text, dollar, lookup, unset, depth)
        parts.append(part)
        size += len(part)
        if size > TEXT_MAX and depth + len(parts) > 1:
            raise InterpolationError(f"becomes longer than {TEXT_MAX} characters")
    return "".join(parts)


def _replace(text: str, dollar: int, lookup: Lookup, unset: Callable[[str], None], depth: int) -> tuple[str, int]:
    """What stands for the variable at ``dollar``, and where the text goes on."""
    after = text[dollar + 1 : dollar + 2]
    if after == "$":
        return "$", dollar + 2
    if after == "{":
        end = _closing(text, dollar)
        return _braced(text[dollar + 2 : end], lookup, unset, depth), end + 1
    name = _NAME.match(text, dollar + 1)
    if name is None:
        raise InterpolationError('has a "$" that begins no variable; write "$$" for a dollar sign')
    return _value(name[0], lookup, unset), name.end()


def _braced(inner: str, lookup: Lookup, unset: Callable[[str], None], depth: int) -> str:
    name = _NAME.match(inner)
    if name is None:
        raise InterpolationError(f'has "${{{inner[:40]}}}", which names no variable')
    if name.end() == len(inner):
        return _value(inner, lookup, unset)
    operator = _OPERATOR.match(inner, name.end())
    if operator is None:
        raise InterpolationError(f'has "${{{inner[:40]}}}", which is no form of variable that Compose knows')
    value = lookup(name[0])
    there = value if value is not None and (value or len(operator[0]) == 1) else None
    argument = inner[operator.end() :]
    if operator[0].endswith("+"):
        return "" if there is None else _interpolate(argument, lookup, unset, depth + 1)
    if there is not None:
        return there
    argument = _interpolate(argument, lookup, unset, depth + 1)
    if operator[0].endswith("?"):
        raise InterpolationError(
            f"needs the variable {name[0]}" + (f": {argument}" if argument else ", which is not set")
        )
    return argument


def _value(name: str, lookup: Lookup, unset: Callable[[str], None]) -> str:
    value = lookup(name)
    if value is None:
        unset(name)
    return value or ""


def _closing(text: str, start: int) -> int:
    depth, position = 0, start
    while position < len(text):
        if text.startswith("${", position):
            depth += 1
            position += 1
        elif text[position] == "}":
            depth -= 1
            if not depth:
                return position
        position += 1
    raise InterpolationError('has a "${" without its "}"')
