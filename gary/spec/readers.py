"""Strict readers of plain values (of msgpack and JSON). Each takes a value and its path, or raises ``SpecError``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from gary.spec import limits
from gary.spec.model import SpecError

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
Read = Callable[[object, str], Any]


@dataclass(frozen=True, slots=True)
class Record:
    """A map with known keys, each with its reader; ``required`` ones must be there."""

    keys: Mapping[str, Read]
    required: tuple[str, ...] = ()

    def __call__(self, value: object, path: str) -> dict[str, Any]:
        entries = map_of(value, path)
        read = {}
        for key, entry in entries.items():
            if key not in self.keys:
                raise SpecError(join(path, key), "is not a key that is known here")
            read[key] = self.keys[key](entry, join(path, key))
        for key in self.required:
            if key not in read:
                raise SpecError(join(path, key), "is missing")
        return read


def join(path: str, key: object) -> str:
    """The path of ``key`` under ``path``."""
    # A key can be any text of any length; a message carries only its beginning.
    name = str(key)[:64]
    return f"{path}.{name}" if path else name


def map_of(value: object, path: str) -> dict[str, object]:
    """A map whose keys are texts."""
    if not isinstance(value, dict):
        raise SpecError(path, "must be a map")
    if len(value) > limits.ITEMS_MAX:
        raise SpecError(path, f"has {len(value)} entries; at most {limits.ITEMS_MAX} are taken")
    for key in value:
        if not isinstance(key, str):
            raise SpecError(path, "has a key that is not text")
    return value


def list_of(item: Read) -> Callable[[object, str], tuple[Any, ...]]:
    """A list, each entry read by ``item``."""

    def read(value: object, path: str) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise SpecError(path, "must be a list")
        if len(value) > limits.ITEMS_MAX:
            raise SpecError(path, f"has {len(value)} entries; at most {limits.ITEMS_MAX} are taken")
        return tuple(item(entry, f"{path}[{index}]") for index, entry in enumerate(value))

    return read


def set_of(item: Read) -> Callable[[object, str], tuple[Any, ...]]:
    """A list whose order means nothing: sorted, each entry once."""
    read_list = list_of(item)

    def read(value: object, path: str) -> tuple[Any, ...]:
        return tuple(sorted(set(read_list(value, path)), key=repr))

    return read


def text(length_max: int, *, empty: bool = True) -> Callable[[object, str], str]:
    """Text that UTF-8 can carry, without NUL."""

    def read(value: object, path: str) -> str:
        if not isinstance(value, str):
            raise SpecError(path, "must be text")
        if not value and not empty:
            raise SpecError(path, "must not be empty")
        if len(value) > length_max:
            raise SpecError(path, f"is {len(value)} characters long; at most {length_max} are taken")
        if "\0" in value:
            raise SpecError(path, "contains a NUL character")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise SpecError(path, "is not valid Unicode") from error
        return value

    return read


def matching(pattern: re.Pattern[str], rule: str) -> Callable[[object, str], str]:
    """Text that ``pattern`` matches as a whole; ``rule`` says so in words."""
    read_text = text(limits.WORD_MAX)

    def read(value: object, path: str) -> str:
        text = read_text(value, path)
        if not pattern.fullmatch(text):
            raise SpecError(path, f"must be {rule}")
        return text

    return read


def integer(low: int, high: int) -> Callable[[object, str], int]:
    """A whole number from ``low`` to ``high``; a bool is none."""

    def read(value: object, path: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise SpecError(path, "must be a whole number")
        if not low <= value <= high:
            raise SpecError(path, f"must be from {low} to {high}")
        return value

    return read


def number(high: float) -> Callable[[object, str], float]:
    """A number from 0 to ``high``, whole or not."""

    def read(value: object, path: str) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise SpecError(path, "must be a number")
        if not (0 <= value <= high) or not math.isfinite(value):
            raise SpecError(path, f"must be from 0 to {high:g}")
        # "+ 0.0" so that -0.0, which equals 0.0, does not become other bytes.
        return float(value) + 0.0

    return read


def flag(value: object, path: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise SpecError(path, "must be true or false")
    return value


def one_of(enumeration: type[E]) -> Callable[[object, str], E]:
    """A member of ``enumeration``, by its value."""

    def read(value: object, path: str) -> E:
        names = [str(member) for member in enumeration]
        if not isinstance(value, str) or value not in names:
            raise SpecError(path, f"must be one of {', '.join(names)}")
        return enumeration(value)

    return read


def word_of(words: tuple[str, ...]) -> Callable[[object, str], str]:
    """One of ``words``."""

    def read(value: object, path: str) -> str:
        if not isinstance(value, str) or value not in words:
            raise SpecError(path, f"must be one of {', '.join(words)}")
        return value

    return read


def pairs(name: Read, text: Read) -> Callable[[object, str], tuple[tuple[str, str], ...]]:
    """A map of names and texts, as sorted pairs."""

    def read(value: object, path: str) -> tuple[tuple[str, str], ...]:
        entries = map_of(value, path)
        return tuple(sorted((name(key, path), text(entry, join(path, key))) for key, entry in entries.items()))

    return read


def instance_of(type_: Callable[..., T], record: Record) -> Callable[[object, str], T]:
    """A value of ``type_`` with the fields that ``record`` reads."""

    def read(value: object, path: str) -> T:
        return type_(**record(value, path))

    return read
