"""Time as the core has it: the moment of the input that is being handled, and what is due later. It reads no clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gary.effects import Alarm, SetAlarm

DEADLINE = "deadline"
"""The kind of the alarms that a deadline sets."""


class Clock:
    """``now`` is monotonic seconds; ``wall_offset_s`` is what to add to it to get seconds since 1970."""

    def __init__(self, emit: Callable[[Sequence[SetAlarm]], None], next_number: Callable[[], int]) -> None:
        self.now = 0.0
        self.wall_offset_s = 0.0
        self._emit = emit
        self._next_number = next_number
        self._deadlines: dict[int, Callable[[float], None]] = {}

    def wall_s(self) -> float:
        """Seconds since 1970 by this host's clock; only people and generations see it."""
        return self.now + self.wall_offset_s

    def after(self, delay_s: float, due: Callable[[float], None]) -> int:
        """Call ``due(now)`` in ``delay_s``, unless the returned deadline is forgotten first."""
        deadline = self._next_number()
        self._deadlines[deadline] = due
        self._emit([SetAlarm(Alarm(DEADLINE, "", deadline), delay_s)])
        return deadline

    def forget(self, deadline: int) -> None:
        self._deadlines.pop(deadline, None)

    def passed(self, deadline: int) -> None:
        """Its alarm went off."""
        due = self._deadlines.pop(deadline, None)
        if due is not None:
            due(self.now)
