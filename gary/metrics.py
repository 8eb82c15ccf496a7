"""Prometheus metrics, read from the subsystems at the moment they are asked for.

A subsystem counts in plain integers and offers ``counters() -> Mapping[str, int]``; nothing is copied, locked or
computed until somebody scrapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Provider = Callable[[], Mapping[str, int | float]]

_NOT_IN_NAMES = re.compile(r"[^a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class _Source:
    subsystem: str
    monotone: bool
    provider: Provider


class Metrics:
    """``gary_<subsystem>_<name>``, counters with ``_total``, and what the kernel says of the process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._sources: list[_Source] = []
        ProcessCollector(registry=self._registry)
        self._registry.register(_Sources(self._sources))

    def add_counters(self, subsystem: str, provider: Provider) -> None:
        """Values that only grow while the process lives."""
        self._sources.append(_Source(subsystem, True, provider))

    def add_gauges(self, subsystem: str, provider: Provider) -> None:
        """Values that go up and down."""
        self._sources.append(_Source(subsystem, False, provider))

    def render(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        return generate_latest(self._registry)


class _Sources(Collector):
    def __init__(self, sources: list[_Source]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        for source in self._sources:
            for key, value in sorted(source.provider().items()):
                name = _NOT_IN_NAMES.sub("_", f"gary_{source.subsystem}_{key}".lower()).strip("_")
                about = f"{source.subsystem}: {key.replace('_', ' ')}"
                yield (
                    CounterMetricFamily(name, about, value)
                    if source.monotone
                    else GaugeMetricFamily(name, about, value)
                )
