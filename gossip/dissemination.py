"""News that rides on other messages until it has been sent often enough.

Each queue holds one piece of news per key (the node it is about, or what the application chose); a newer piece takes
the place of an older one, even half-way. What was sent least goes first, and among equals what waited longest. Queues
about members therefore never hold more than one entry per member; the application's has a limit of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

# A nearly full frame looks at so many pieces that are too large before it goes: a long queue must not be scanned.
_MISFITS_MAX: Final = 4


def _nothing(key: str) -> bytes:
    raise AssertionError(f"news without words: {key}")


class Broadcasts:
    """One queue of encoded news by key, at most ``entries_max`` pieces.

    ``encoded(key)`` gives the news that were put in without words, at the time when they are first to be sent: what is
    replaced before that is never encoded.
    """

    def __init__(self, entries_max: float = math.inf, encoded: Callable[[str], bytes] = _nothing) -> None:
        self._entries_max = entries_max
        self._encoded = encoded
        # One dict per number of transmits so far: taking the k next costs k, however long the queue.
        self._tiers: list[dict[str, bytes]] = [{}]
        self._tier_of: dict[str, int] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, key: str, news: bytes = b"") -> bool:
        """Queue news under ``key`` in place of what was queued there. False if another piece had to make room."""
        self.drop(key)
        fits = len(self) < self._entries_max
        if not fits:
            self.drop(next(iter(next(entries for entries in reversed(self._tiers) if entries))))
        self._queue(key, news, 0)
        return fits

    def amend(self, key: str, limit: int) -> None:
        """There is more to say than what is queued under ``key``, or was: it counts as sent as often as that.

        Under a key that is queued no more it is sent once.
        """
        tier = min(self._tier_of.get(key, limit), limit - 1)
        self.drop(key)
        self._queue(key, b"", tier)

    def heard(self, key: str, limit: int) -> None:
        """Somebody else tells what is queued under ``key``: that counts as sent, since so many know it already."""
        tier = self._tier_of.get(key)
        if tier is not None:
            self._sent(key, tier, self._tiers[tier][key], limit)
            self._rest()

    def drop(self, key: str) -> None:
        """Take back what is queued under ``key``."""
        tier = self._tier_of.pop(key, None)
        if tier is not None:
            del self._tiers[tier][key]
            self._rest()

    def take(self, budget_bytes: int, limit: int, *, counts: bool = True) -> list[bytes]:
        """News for one frame, within ``budget_bytes``; counts as sent, and leaves the queue after ``limit`` times.

        Unless it ``counts``, it stays as it is: the frame will hardly be read.
        A piece that is larger than the whole budget goes by itself, instead of never.
        """
        if not self._size:
            return []
        chosen: list[tuple[str, int, bytes]] = []
        left_bytes = budget_bytes
        misfits = 0
        for tier, entries in enumerate(self._tiers):
            for key, news in entries.items():
                if not news:
                    news = entries[key] = self._encoded(key)
                if len(news) <= left_bytes or not chosen:
                    chosen.append((key, tier, news))
                    left_bytes -= len(news)
                else:
                    misfits += 1
                if left_bytes <= 0 or misfits > _MISFITS_MAX:
                    break
            if left_bytes <= 0 or misfits > _MISFITS_MAX:
                break
        if counts:
            for key, tier, news in chosen:
                self._sent(key, tier, news, limit)
            self._rest()
        return [news for _, _, news in chosen]

    def _sent(self, key: str, tier: int, news: bytes, limit: int) -> None:
        del self._tiers[tier][key]
        if tier + 1 >= limit:
            del self._tier_of[key]
        else:
            self._queue(key, news, tier + 1)

    def _queue(self, key: str, news: bytes, tier: int) -> None:
        while len(self._tiers) <= tier:
            self._tiers.append({})
        self._tiers[tier][key] = news
        self._tier_of[key] = tier
        self._size = len(self._tier_of)

    def _rest(self) -> None:
        """An empty queue keeps no room for as many entries as it once had."""
        self._size = len(self._tier_of)
        if not self._size:
            self._tiers, self._tier_of = [{}], {}
