"""Virtual time: a queue of things that happen, in a defined order."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Clock:
    """Time moves only when the next thing happens. Equal times are served in the order of their scheduling."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0

    def after(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Let ``action(*arguments)`` happen; after no time at all if ``delay_s`` is negative."""
        self._sequence += 1
        heappush(self._queue, (self.now + delay_s if delay_s > 0.0 else self.now, self._sequence, action, arguments))

    def run_until(self, at: float) -> None:
        """Let everything happen that is due by ``at``; then it is ``at``."""
        queue = self._queue
        while queue and queue[0][0] <= at:
            self.now, _, action, arguments = heappop(queue)
            action(*arguments)
        self.now = at
