"""How long a virtual host's disk and engine take."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from simulations.units import Span


@dataclass(slots=True)
class Timing:
    """Drawn uniformly from each span. ``pull_s``: once for each image. With a chance of ``stalls`` a write takes
    ``stall_s`` longer. ``write_factor``: how many times as long all writes take; ``engine_late_s``: how much longer all
    that the engine does.
    """

    rng: random.Random
    write_s: Span = (0.002, 0.002)
    stalls: float = 0.0
    stall_s: float = 0.0
    pull_s: Span = (0.0, 0.0)
    start_s: Span = (0.1, 0.1)
    stop_s: Span = (0.1, 0.1)
    write_factor: float = 1.0
    engine_late_s: float = 0.0
    _pulled: set[str] = field(default_factory=set)

    def write(self) -> float:
        """How long the next write takes."""
        stall_s = self.stall_s if self.stalls and self.rng.random() < self.stalls else 0.0
        return self._drawn(self.write_s) * self.write_factor + stall_s

    def start(self, image: str) -> float:
        """How long it takes to start a container of ``image``, which is there from then on."""
        pull_s = 0.0 if image in self._pulled else self._drawn(self.pull_s)
        self._pulled.add(image)
        return pull_s + self._drawn(self.start_s) + self.engine_late_s

    def stop(self) -> float:
        return self._drawn(self.stop_s) + self.engine_late_s

    def _drawn(self, span: Span) -> float:
        low, high = span
        return low if low == high else self.rng.uniform(low, high)
