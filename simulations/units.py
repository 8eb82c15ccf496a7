"""How people write quantities: ``250ms``, ``8GB``, ``100Mbit/s``, ``30%``.

``Seconds`` and the others are the types of fields that are read from a scenario: they carry how to read them. Every
function raises ``ValueError``.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Final, TypeAlias

_DURATIONS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES: Final = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_RATES: Final = {"kbit/s": 125.0, "Mbit/s": 125e3, "Gbit/s": 125e6, "KB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9}
_QUANTITY: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z/%]+)")


def duration_s(text: object) -> float:
    """``1m30s``, ``250ms``: in seconds."""
    if not isinstance(text, str) or not text:
        raise ValueError(f"{text!r} is not a duration such as 250ms or 1m30s")
    total, at = 0.0, 0
    while at < len(text):
        part = _QUANTITY.match(text, at)
        if part is None or part[2] not in _DURATIONS:
            raise ValueError(f"{text!r} is not a duration such as 250ms or 1m30s (units: {', '.join(_DURATIONS)})")
        total += float(part[1]) * _DURATIONS[part[2]]
        at = part.end()
    return total


def size_bytes(text: object) -> int:
    """``8GB``, ``512MiB``: in bytes."""
    return int(_quantity(text, _SIZES, "a size such as 8GB"))


def bytes_per_s(text: object) -> float:
    """``100Mbit/s``, ``10MB/s``: in bytes a second."""
    return _quantity(text, _RATES, "a bandwidth such as 100Mbit/s")


def share(given: object) -> float:
    """``30%``, or a number from 0 to 1."""
    if isinstance(given, str):
        value = _quantity(given, {"%": 0.01}, "a share such as 30%")
    elif isinstance(given, int | float) and not isinstance(given, bool):
        value = float(given)
    else:
        raise ValueError(f"{given!r} is not a share such as 30%")
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{given!r} is not between 0 and 100%")
    return value


def whole(given: object) -> int:
    """A number without a fraction, 0 or more."""
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise ValueError(f"{given!r} is not a whole number")
    return given


def number(given: object) -> float:
    """0 or more."""
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 <= given < float("inf"):
        raise ValueError(f"{given!r} is not a number")
    return float(given)


def word(given: object) -> str:
    if not isinstance(given, str):
        raise ValueError(f"{given!r} is not a text")
    return given


def flag(given: object) -> bool:
    if not isinstance(given, bool):
        raise ValueError(f"{given!r} is neither true nor false")
    return given


def span_s(given: object) -> tuple[float, float]:
    """``["1ms", "5ms"]``, or one duration for both ends: in seconds."""
    if isinstance(given, str):
        return duration_s(given), duration_s(given)
    if not isinstance(given, list) or len(given) != 2:
        raise ValueError(f"{given!r} is not a pair of durations such as ['1ms', '5ms']")
    low, high = duration_s(given[0]), duration_s(given[1])
    if low > high:
        raise ValueError(f"{given!r}: the shorter duration comes first")
    return low, high


Seconds: TypeAlias = Annotated[float, duration_s]
Span: TypeAlias = Annotated[tuple[float, float], span_s]
"""Seconds, the shortest and the longest."""
Bytes: TypeAlias = Annotated[int, size_bytes]
BytesPerSecond: TypeAlias = Annotated[float, bytes_per_s]
Share: TypeAlias = Annotated[float, share]
"""From 0 to 1."""


def in_words(seconds: float) -> str:
    """A duration as people write it: the inverse of ``duration_s``, as far as three digits go."""
    if seconds < 1.0:
        return f"{seconds * 1000:.3g}ms"
    if seconds < 60.0:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (rest, "s"))
    return "".join(f"{value}{unit}" for value, unit in parts if value)


def exactly(seconds: float) -> str:
    """A duration as a command line has it: ``duration_s`` of it is ``seconds``."""
    return in_words(seconds) if seconds.is_integer() else f"{Decimal(repr(seconds)):f}s"


def _quantity(text: object, units: dict[str, float] | dict[str, int], what: str) -> float:
    found = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[2] not in units:
        raise ValueError(f"{text!r} is not {what} (units: {', '.join(units)})")
    return float(found[1]) * units[found[2]]


def speed(times: float) -> str:
    """How fast time passes: ``31 x real time``, ``0.07 x real time``."""
    return f"{times:.0f} x real time" if times >= 10.0 else f"{times:.2g} x real time"
