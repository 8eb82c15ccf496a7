"""Durable before told: what was written but is not on disk yet, and what waits for it (rule 3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gary.effects import Persist
from gary.storage import Write

After = Callable[[float], None]


@dataclass(slots=True)
class _Entry:
    token: int
    writes: tuple[Write, ...]
    after: After


class Outbox:
    """One queue of writes in order. A failed write keeps its place, and all behind it waits."""

    def __init__(self, next_token: Callable[[], int]) -> None:
        self._next_token = next_token
        self._entries: deque[_Entry] = deque()
        self.failure = ""
        """Why the last write failed; empty once one worked."""
        self._is_waiting = False

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, writes: Sequence[Write], after: After) -> list[Persist]:
        """Queue ``writes``; ``after(now)`` is called once they are durable. Nothing is sent while the disk fails."""
        entry = _Entry(self._next_token(), tuple(writes), after)
        self._entries.append(entry)
        return [] if self._is_waiting else [Persist(entry.token, entry.writes)]

    def persisted(self, token: int, now: float) -> bool:
        """``token`` is durable: run what waited for it. False if it is not the oldest one outstanding."""
        if not self._entries or self._entries[0].token != token:
            return False
        self.failure = ""
        self._entries.popleft().after(now)
        return True

    def holds(self, token: int) -> bool:
        return any(entry.token == token for entry in self._entries)

    def persist_failed(self, reason: str) -> tuple[bool, bool]:
        """A write of this queue failed: nothing more is written until ``retry``.

        Returns whether a retry has to be arranged (the first failure since the last), and whether the reason is news.
        """
        has_to_retry, is_news = not self._is_waiting, reason != self.failure
        self._is_waiting, self.failure = True, reason
        return has_to_retry, is_news

    def retry(self) -> list[Persist]:
        """Write everything outstanding once more, under new tokens and in the same order."""
        self._is_waiting = False
        for entry in self._entries:
            entry.token = self._next_token()
        return [Persist(entry.token, entry.writes) for entry in self._entries]
