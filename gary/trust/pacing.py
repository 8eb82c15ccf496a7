"""How often something is done for somebody: at most once in a while, for as many as are remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

REMEMBERED_MAX = 256


class Pacing:
    """``interval_s``: as long has to pass before the same is done again."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._last: OrderedDict[Hashable, float] = OrderedDict()

    def allows(self, key: Hashable, now: float) -> bool:
        """Whether it is time for ``key``; if so, it counts as done."""
        last = self._last.get(key)
        if last is not None and now < last + self._interval_s:
            return False
        self._last[key] = now
        self._last.move_to_end(key)
        if len(self._last) > REMEMBERED_MAX:
            self._last.popitem(last=False)
        return True
