"""News that rides on other messages until it has been sent often enough.

Each queue holds one piece of news per node; a newer piece takes the place of an older one, even half-way. What was sent
least goes first, and among equals what waited longest. Queues therefore never hold more than one entry per member.
"""

from __future__ import annotations

from typing import Final

# A nearly full frame looks at so many pieces that are too large before it goes: a long queue must not be scanned.
_MISFITS_MAX: Final = 4


class Broadcasts:
    """One queue of encoded news, keyed by the node it is about."""

    def __init__(self) -> None:
        # One dict per number of transmits so far: taking the k next costs k, however long the queue.
        self._tiers: list[dict[str, bytes]] = [{}]
        self._tier_of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._tier_of)

    def put(self, node: str, news: bytes) -> None:
        """Queue news about ``node``, and drop what was queued about it before."""
        self.drop(node)
        self._tiers[0][node] = news
        self._tier_of[node] = 0

    def drop(self, node: str) -> None:
        """Take back what is queued about ``node``."""
        tier = self._tier_of.pop(node, None)
        if tier is not None:
            del self._tiers[tier][node]

    def take(self, budget_bytes: int, limit: int) -> list[bytes]:
        """News for one frame, within ``budget_bytes``; counts as sent, and leaves the queue after ``limit`` times.

        A piece that is larger than the whole budget goes by itself, instead of never.
        """
        if not self._tier_of:
            return []
        chosen: list[tuple[str, int, bytes]] = []
        left_bytes = budget_bytes
        misfits = 0
        for tier, entries in enumerate(self._tiers):
            for node, news in entries.items():
                if len(news) <= left_bytes or not chosen:
                    chosen.append((node, tier, news))
                    left_bytes -= len(news)
                else:
                    misfits += 1
                if left_bytes <= 0 or misfits > _MISFITS_MAX:
                    break
            if left_bytes <= 0 or misfits > _MISFITS_MAX:
                break
        for node, tier, news in chosen:
            self._sent(node, tier, news, limit)
        return [news for _, _, news in chosen]

    def _sent(self, node: str, tier: int, news: bytes, limit: int) -> None:
        del self._tiers[tier][node]
        if tier + 1 >= limit:
            del self._tier_of[node]
            return
        if tier + 1 == len(self._tiers):
            self._tiers.append({})
        self._tiers[tier + 1][node] = news
        self._tier_of[node] = tier + 1
