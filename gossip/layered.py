"""A dict that may begin as another one, which it shares with many.

Thousands of views in one process begin equal and come to differ in little. Each keeps what differs, and looks the rest
up in one dict that none of them changes. Alone, with nothing to begin from, it is a dict and costs as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_OWN_SHARE = 2
"""When the differences are one in so many, all is copied: looking in two places does not pay any more."""

_SPARSE = 4
"""A dict that was so many times as large is built anew: those of Python never shrink by themselves."""


class Layered(Generic[K, V]):
    """Keys in the order in which they came in, as in a dict. No value is None.

    ``changes``: how often something was put in or removed.
    """

    def __init__(self, base: dict[K, V] | None = None) -> None:
        """Begin as ``base``, which must not change from now on."""
        self._base: dict[K, V] = {} if base is None else base
        self._own: dict[K, V] = {}
        self._own_max = 0
        # Keys whose place is not, or no more, the one that they have in the base.
        self._gone: set[K] = set()
        self._size = len(self._base)
        self.changes = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, key: K) -> bool:
        return self.get(key) is not None

    def __getitem__(self, key: K) -> V:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def get(self, key: K) -> V | None:
        """The value of ``key``; None if there is none."""
        value = self._own.get(key) if self._own else None
        if value is None and self._base and not (self._gone and key in self._gone):
            value = self._base.get(key)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self.changes += 1
        if key in self._own:
            self._own[key] = value
            return
        self._size += self.get(key) is None
        self._own[key] = value
        self._own_max = max(self._own_max, len(self._own))
        self._settle()

    def pop(self, key: K) -> V | None:
        """Remove ``key`` and give the value that it had; None if it was not there."""
        value = self.get(key)
        if value is not None:
            self._size -= 1
            self.changes += 1
            self._own.pop(key, None)
            if key in self._base:
                self._gone.add(key)
                self._settle()
            if self._own_max > _SPARSE * len(self._own):
                self._own, self._own_max = dict(self._own), len(self._own)
        return value

    def __iter__(self) -> Iterator[K]:
        base, gone = self._base, self._gone
        for key in base:
            if key not in gone:
                yield key
        for key in self._own:
            if key not in base or key in gone:
                yield key

    def values(self) -> Iterator[V]:
        """All values, in the order of the keys."""
        return (self[key] for key in self) if self._base else iter(self._own.values())

    def items(self) -> Iterator[tuple[K, V]]:
        """All keys with their values, in the order of the keys."""
        return ((key, self[key]) for key in self) if self._base else iter(self._own.items())

    def as_base(self) -> dict[K, V]:
        """All of it in one dict, for others to begin with; this one must not change any more."""
        if self._base:
            self._own = dict(self.items())
            self._own_max = len(self._own)
            self._base, self._gone = {}, set()
        return self._own

    def _settle(self) -> None:
        if self._base and _OWN_SHARE * (len(self._own) + len(self._gone)) > len(self._base):
            self.as_base()
