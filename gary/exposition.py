"""The Prometheus text format. Loaded by the first scrape: an agent that nobody scrapes does not pay for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gary.metrics import Source

_NOT_IN_NAMES = re.compile(r"[^a-z0-9_]+")


def exposition(sources: Sequence[Source]) -> bytes:
    """What ``sources`` say now, and what the kernel says of the process; version 0.0.4 of the format."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Sources(sources))
    return generate_latest(registry)


class _Sources(Collector):
    def __init__(self, sources: Sequence[Source]) -> None:
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
