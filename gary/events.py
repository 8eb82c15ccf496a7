"""What happened on this node and a person may want to know: the latest of it, and who hears of what comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from gary.clock import Clock
from gary.effects import Event, Notify
from gary.identity import Slot

EVENTS_MAX = 1000


class EventLog:
    """``past``: the last events, oldest first."""

    def __init__(self, clock: Clock, emit: Callable[[Sequence[Notify]], None]) -> None:
        self.past: deque[Event] = deque(maxlen=EVENTS_MAX)
        self._clock = clock
        self._emit = emit
        self._listeners: list[Callable[[Event], None]] = []

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call ``listener`` with every event from now on."""
        self._listeners.append(listener)

    def tell(self, kind: str, message: str, *, deployment: str = "", slot: Slot = "") -> None:
        event = Event(self._clock.wall_s(), kind, message, deployment, slot)
        self.past.append(event)
        self._emit([Notify(event)])
        for listener in self._listeners:
            listener(event)
