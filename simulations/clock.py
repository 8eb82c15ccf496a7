"""Virtual time: a queue of things that happen, in a defined order."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, Final

SLOTS_PER_S: Final = 1000
"""So finely is the future divided. What is in one slot is put in order when its time comes."""

Happening = tuple[float, int, Callable[..., None], tuple[Any, ...]]


class Clock:
    """Time moves only when the next thing happens. Equal times are served in the order of their scheduling.

    Thousands of agents have tens of thousands of timers, most of them far off. One heap of them all would be walked
    through for each; so there is one of what comes next, and the rest waits in slots (a calendar queue, Brown, 1988).
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._sequence = 0
        # A heap of all that is in the slot ``_slot`` or before it.
        self._near: list[Happening] = []
        self._slot = 0
        # What is in later slots, in no order, and a heap of these slots.
        self._far: dict[int, list[Happening]] = {}
        self._slots: list[int] = []

    def after(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Let ``action(*arguments)`` happen; after no time at all if ``delay_s`` is negative."""
        self._sequence += 1
        at = self.now + delay_s if delay_s > 0.0 else self.now
        slot = int(at * SLOTS_PER_S)
        if slot <= self._slot:
            heappush(self._near, (at, self._sequence, action, arguments))
            return
        happenings = self._far.get(slot)
        if happenings is None:
            happenings = self._far[slot] = []
            heappush(self._slots, slot)
        happenings.append((at, self._sequence, action, arguments))

    def run_until(self, at: float) -> None:
        """Let everything happen that is due by ``at``; then it is ``at``."""
        last = int(at * SLOTS_PER_S)
        while True:
            near = self._near
            if near:
                if near[0][0] > at:
                    break
                self.now, _, action, arguments = heappop(near)
                action(*arguments)
            elif self._slots and self._slots[0] <= last:
                self._slot = heappop(self._slots)
                self._near = self._far.pop(self._slot)
                heapify(self._near)
            else:
                break
        self.now = at
