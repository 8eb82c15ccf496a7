"""Virtual time: a queue of things that happen, in a defined order."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Clock:
    """Time moves only when the next thing happens. Equal times are served in the order of their scheduling."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (self.now + max(0.0, delay_s), self._sequence, action))

    def run_until(self, at: float) -> None:
        """Let everything happen that is due by ``at``; then it is ``at``."""
        while self._queue and self._queue[0][0] <= at:
            when, _, action = heapq.heappop(self._queue)
            self.now = when
            action()
        self.now = at
