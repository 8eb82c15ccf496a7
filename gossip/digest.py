"""All that a node knows as one number, and what another lacks as the difference of two.

The digest is the sum (exclusive or) of a fingerprint of each fact: a member in its present state, an advertisement in
its present version. A change adds a number that nobody but who has seen it knows: the fingerprint of the old and of the
new state. So two digests differ by the sum of all changes that one node has seen and the other has not; and which of
the latest changes sum up to a given difference is a system of linear equations over GF(2), with 64 equations and fewer
unknowns: at most one answer, but for a chance of one in 2^24.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from gossip.directory import Publication
from gossip.member import Member
from gossip.messages import HASH_SIZE_BYTES

BUCKETS: Final = 64
LATEST_MAX: Final = 40
"""From so many changes those are found that another lacks. More find more, and more often what is not so."""

_HASHES_REMEMBERED_MAX: Final = 2048

Fact = Member | Publication


def bucket_of(node: str) -> int:
    """Node ids are hashes: their first bits spread evenly."""
    return int(node[:2], 16) % BUCKETS


def fingerprint(fact: Fact | None) -> int:
    """A hash of how new this knowledge is, and about whom; 0 of nothing."""
    if fact is None:
        return 0
    if isinstance(fact, Member):
        # Each is asked for twice, when it comes and when it goes, and many views in one process hear of the same one.
        fact.fingerprint = fact.fingerprint or _hash(fact.node, *fact.incarnation, fact.status.rank)
        return fact.fingerprint
    return _hash(fact.node, *fact.version)


# What replaces something is soon replaced itself, and many views in one process see the same.
@lru_cache(_HASHES_REMEMBERED_MAX)
def _hash(*of: str | int) -> int:
    return int.from_bytes(blake2b(" ".join(map(str, of)).encode(), digest_size=HASH_SIZE_BYTES).digest(), "big")


class Changes:
    """The latest changes, and which of them sum up to a given number (Gaussian elimination)."""

    def __init__(self) -> None:
        self._latest: list[tuple[int, Fact]] = []
        # By its highest bit: a sum of some changes, and which ones, as bits by their place in the list.
        self._sums: dict[int, tuple[int, int]] = {}
        # So many of the changes are in the sums; the others will be when somebody asks.
        self._summed = 0

    def add(self, change: int, after: Fact) -> None:
        """Something has changed the digest by ``change``, and is ``after`` since."""
        if len(self._latest) == LATEST_MAX:
            self._keep(self._latest[LATEST_MAX // 2 :])
        self._latest.append((change, after))

    def forget(self, node: str) -> None:
        """Keep nothing about ``node``."""
        if any(after.node == node for _, after in self._latest):
            self._keep([(change, after) for change, after in self._latest if after.node != node])

    def of_sum(self, total: int) -> list[Fact]:
        """What has changed by those changes that sum up to ``total``, oldest first; nothing if there are none."""
        for place in range(self._summed, len(self._latest)):
            left, chosen = self._reduce(self._latest[place][0], 1 << place)
            if left:
                self._sums[left.bit_length()] = (left, chosen)
        self._summed = len(self._latest)
        left, chosen = self._reduce(total, 0)
        if left or not total:
            return []
        return [after for place, (_, after) in enumerate(self._latest) if chosen >> place & 1]

    def _keep(self, latest: list[tuple[int, Fact]]) -> None:
        self._latest, self._sums, self._summed = latest, {}, 0

    def _reduce(self, total: int, chosen: int) -> tuple[int, int]:
        """What is left of ``total`` without the sums that it holds, and which changes these are, from ``chosen`` on."""
        while total:
            held = self._sums.get(total.bit_length())
            if held is None:
                break
            total ^= held[0]
            chosen ^= held[1]
        return total, chosen


class Digest:
    """The digest of all that is known, and one for each bucket of nodes.

    It holds nothing about anybody but the latest changes: what is held elsewhere tells which fingerprint has to go.
    """

    def __init__(self, known: Iterable[Fact] = ()) -> None:
        self._buckets = [0] * BUCKETS
        self._total = 0
        self._changes = Changes()
        for fact in known:
            self._add(fact.node, fingerprint(fact))

    @property
    def total(self) -> int:
        """Equal at two nodes exactly if they know the same (but for chance)."""
        return self._total

    @property
    def buckets(self) -> tuple[int, ...]:
        """The same for each bucket of nodes."""
        return tuple(self._buckets)

    def change(self, node: str, before: Fact | None, after: Fact | None) -> None:
        """What is known about one node has changed; None is nothing."""
        change = fingerprint(before) ^ fingerprint(after)
        self._add(node, change)
        if after is None:
            self._changes.forget(node)
        elif change:
            self._changes.add(change, after)

    def lacking(self, total: int) -> list[Fact]:
        """What has changed here and not where ``total`` is the digest, oldest first.

        It is found if these are some of the latest changes, and nothing is known only there. Of what has changed twice,
        both are told.
        """
        return self._changes.of_sum(self._total ^ total)

    def copy_from(self, other: Digest) -> None:
        """The same is known here as there, and for long."""
        self._buckets = other._buckets.copy()
        self._total = other._total
        self._changes = Changes()

    def _add(self, node: str, change: int) -> None:
        self._buckets[bucket_of(node)] ^= change
        self._total ^= change
