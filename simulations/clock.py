"""Virtual time: a queue of things that happen, in a defined order."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

SLOTS_PER_S: Final = 1000
"""So finely is the future divided. What is in one slot is put in order when its time comes."""

_Happening = tuple[float, int, Callable[..., None], tuple[Any, ...]]
"""With the time and the place in the order negated, so that what comes next is the last of a sorted list."""


class Clock:
    """Time moves only when the next thing happens. Equal times are served in the order of their scheduling.

    Thousands of agents have tens of thousands of timers, most of them far off. One heap of them all would be walked
    through for each; so there is one of what comes next, and the rest waits in slots (a calendar queue, Brown, 1988).
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._sequence = 0
        # All that is in the slot ``_slot`` or before it, sorted.
        self._near: list[_Happening] = []
        self._slot = 0
        # What is in later slots, in no order, and a heap of these slots.
        self._far: dict[int, list[_Happening]] = {}
        self._slots: list[int] = []

    def after(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Let ``action(*arguments)`` happen; after no time at all if ``delay_s`` is negative."""
        self._sequence += 1
        at = self.now + delay_s if delay_s > 0.0 else self.now
        slot = int(at * SLOTS_PER_S)
        if slot <= self._slot:
            insort(self._near, (-at, -self._sequence, action, arguments))
            return
        happenings = self._far.get(slot)
        if happenings is None:
            happenings = self._far[slot] = []
            heappush(self._slots, slot)
        happenings.append((-at, -self._sequence, action, arguments))

    def run_until(self, at: float) -> None:
        """Let everything happen that is due by ``at``; then it is ``at``."""
        last = int(at * SLOTS_PER_S)
        while True:
            near = self._near
            if near:
                if near[-1][0] < -at:
                    break
                negated, _, action, arguments = near.pop()
                self.now = -negated
                action(*arguments)
            elif self._slots and self._slots[0] <= last:
                self._slot = heappop(self._slots)
                self._near = self._far.pop(self._slot)
                self._near.sort()
            else:
                break
        self.now = at
