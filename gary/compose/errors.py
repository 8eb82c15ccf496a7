"""What is wrong with a Compose file: every single thing, with its place, its reason and what to do instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a file. ``line`` and ``column`` count from 1; 0 is the file as a whole."""

    file: str
    line: int
    column: int
    key: str


@dataclass(frozen=True, slots=True)
class ComposeError:
    """One thing wrong. ``key``: its path (``services.web.ports[0]``); ``hint``: what to do instead, may be empty."""

    file: str
    line: int
    column: int
    key: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        what = f"{self.key}: {self.reason}" if self.key else self.reason
        return f"{where}: {what}. {self.hint}".rstrip() if self.hint else f"{where}: {what}"


class ComposeErrors(Exception):
    """All that is wrong with a file, in the order of its lines."""

    def __init__(self, errors: Iterable[ComposeError]) -> None:
        self.errors = tuple(sorted(set(errors), key=lambda error: (error.line, error.column, error.key, error.reason)))
        super().__init__("\n".join(str(error) for error in self.errors))


class Wrong(Exception):
    """Raised by whoever reads one value and cannot; ``Problems`` collects it and reading goes on with the next."""

    def __init__(self, place: Place, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.place = place
        self.reason = reason
        self.hint = hint


In = TypeVar("In")
Out = TypeVar("Out")
Default = TypeVar("Default")


@dataclass(slots=True)
class Problems:
    """Collects what is wrong, so that the user hears all of it at once."""

    errors: list[ComposeError] = field(default_factory=list)
    spoilt: set[Place] = field(default_factory=set)

    def add(self, place: Place, reason: str, hint: str = "", *, spoils: bool = False) -> None:
        """Note that something is wrong at ``place``. ``spoils``: whatever else is found there is its consequence."""
        if place not in self.spoilt:
            self.errors.append(problem(place, reason, hint))
        if spoils:
            self.spoilt.add(place)

    def read(self, reader: Callable[[In], Out], value: In, default: Default) -> Out | Default:
        """``reader(value)``, or ``default`` once what is wrong has been noted."""
        try:
            return reader(value)
        except Wrong as wrong:
            self.add(wrong.place, wrong.reason, wrong.hint)
            return default

    def check(self) -> None:
        """Raise ``ComposeErrors`` if anything was noted."""
        if self.errors:
            raise ComposeErrors(self.errors)


def problem(place: Place, reason: str, hint: str = "") -> ComposeError:
    """What is wrong at ``place``, as a value."""
    return ComposeError(place.file, place.line, place.column, place.key, reason, hint)
