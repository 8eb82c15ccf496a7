"""Changes that came before what they depend on: kept outside the document, bounded, oldest dropped first.

Nothing is lost by dropping one: whoever is behind is found out by the next comparison of heads.
"""

from __future__ import annotations

from dataclasses import dataclass

from crdt.changes import Change
from crdt.chunks import Limits


@dataclass(frozen=True, slots=True)
class Arrived:
    """A decoded change and the bytes in which it came."""

    change: Change
    raw: bytes


class Waiting:
    """Arrived changes by hash, each filed under one dependency that is missing."""

    __slots__ = ("_by_dependency", "_by_hash", "_limits", "_size_bytes", "dropped")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_hash: dict[bytes, tuple[Arrived, bytes]] = {}
        self._by_dependency: dict[bytes, dict[bytes, None]] = {}
        self._size_bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._by_hash)

    def __contains__(self, change_hash: bytes) -> bool:
        return change_hash in self._by_hash

    def add(self, arrived: Arrived, missing: bytes) -> None:
        """Keep ``arrived`` until ``release(missing)``, at the cost of the oldest ones if there is no room."""
        self._by_hash[arrived.change.hash] = (arrived, missing)
        self._by_dependency.setdefault(missing, {})[arrived.change.hash] = None
        self._size_bytes += _size_bytes(arrived)
        while len(self) > self._limits.waiting_max or self._size_bytes > self._limits.waiting_size_bytes_max:
            self._take(next(iter(self._by_hash)))
            self.dropped += 1

    def release(self, dependency: bytes) -> list[Arrived]:
        """Take out what waited for ``dependency``, in order of arrival."""
        return [self._take(waiting) for waiting in list(self._by_dependency.get(dependency, ()))]

    def _take(self, change_hash: bytes) -> Arrived:
        arrived, missing = self._by_hash.pop(change_hash)
        filed = self._by_dependency[missing]
        del filed[change_hash]
        if not filed:
            del self._by_dependency[missing]
        self._size_bytes -= _size_bytes(arrived)
        return arrived


def _size_bytes(arrived: Arrived) -> int:
    """An estimate of what it occupies: its bytes, its values inflated, and the objects around them."""
    return len(arrived.raw) + sum(128 + len(write.key) + len(write.value) for write in arrived.change.writes)
