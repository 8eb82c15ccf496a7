"""How often others may have something done for them, so that a small frame again and again is not much work."""

from __future__ import annotations

from collections import defaultdict


class Pace:
    """In each window of ``window_s`` at most ``each`` times for one node, and ``all_`` times for all of them."""

    def __init__(self, window_s: float, *, each: int, all_: int) -> None:
        self._window_s = window_s
        self._each = each
        self._all = all_
        self._since = float("-inf")
        self._done: defaultdict[str, int] = defaultdict(int)
        self._in_all = 0

    def allows(self, node: str, now: float) -> bool:
        """Whether it may be done for ``node`` once more; counts as done."""
        if now >= self._since + self._window_s:
            self._since = now
            self._done.clear()
            self._in_all = 0
        if self._done[node] >= self._each or self._in_all >= self._all:
            return False
        self._done[node] += 1
        self._in_all += 1
        return True
