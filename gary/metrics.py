"""Prometheus metrics, read from the subsystems at the moment they are asked for.

A subsystem counts in plain integers and offers ``counters() -> Mapping[str, int]``; nothing is copied, locked or
computed until somebody scrapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Provider = Callable[[], Mapping[str, int | float]]


@dataclass(frozen=True, slots=True)
class Source:
    """A subsystem and what it counts; ``monotone``: values that only grow."""

    subsystem: str
    monotone: bool
    provider: Provider


class Metrics:
    """``gary_<subsystem>_<name>``, counters with ``_total``, and what the kernel says of the process."""

    def __init__(self) -> None:
        self._sources: list[Source] = []

    def add_counters(self, subsystem: str, provider: Provider) -> None:
        """Values that only grow while the process lives."""
        self._sources.append(Source(subsystem, True, provider))

    def add_gauges(self, subsystem: str, provider: Provider) -> None:
        """Values that go up and down."""
        self._sources.append(Source(subsystem, False, provider))

    def render(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        from gary.exposition import exposition

        return exposition(self._sources)
