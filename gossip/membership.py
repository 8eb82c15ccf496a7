"""The table of members, and what is counted and indexed along with it.

The table only stores what it is told; whether a claim supersedes what is held is decided in ``gossip.swim``. Every
change costs the same however many members there are.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gossip.member import Member, Status


@dataclass(slots=True)
class Record:
    """What this node remembers about one member, beyond the member itself."""

    member: Member
    down_since: float = 0.0
    heard_at: float | None = None
    answered_at: float | None = None
    objected_at: float | None = None


class Roster:
    """Nodes in a list with removal in one step, for random choice without copying."""

    def __init__(self) -> None:
        self._nodes: list[str] = []
        self._index: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node: str) -> bool:
        return node in self._index

    def __getitem__(self, index: int) -> str:
        return self._nodes[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def add(self, node: str) -> None:
        """Add ``node``, unless it is there."""
        if node not in self._index:
            self._index[node] = len(self._nodes)
            self._nodes.append(node)

    def remove(self, node: str) -> None:
        """Remove ``node`` if it is there; the last one takes its place."""
        index = self._index.pop(node, None)
        if index is None:
            return
        last = self._nodes.pop()
        if last != node:
            self._nodes[index] = last
            self._index[last] = index

    def sample(self, rng: random.Random, count: int, without: Iterable[str] = ()) -> list[str]:
        """Up to ``count`` different nodes at random, none of ``without``."""
        excluded = tuple(without)
        wanted = min(len(self._nodes), count + len(excluded))
        drawn = [self._nodes[index] for index in rng.sample(range(len(self._nodes)), wanted)]
        return [node for node in drawn if node not in excluded][:count]


class Membership:
    """All members this node knows, itself included."""

    def __init__(self, myself: Member) -> None:
        self.node = myself.node
        self.live_others = Roster()
        self.dead = Roster()
        self._records: dict[str, Record] = {}
        self._node_by_address: dict[str, str] = {}
        self._unsuspected = 0
        self._sorted: tuple[Member, ...] | None = None
        self._alive: tuple[str, ...] | None = None
        self.put(myself, 0.0)

    def __len__(self) -> int:
        return len(self._records)

    @property
    def myself(self) -> Member:
        """This node."""
        return self._records[self.node].member

    @property
    def size(self) -> int:
        """How many members are alive or suspect, this node included even when it has left."""
        return len(self.live_others) + 1

    @property
    def able_to_confirm(self) -> int:
        """How many members could confirm a suspicion that one of them raised."""
        return max(0, self._unsuspected - 1)

    def get(self, node: str) -> Member | None:
        """The member called ``node``."""
        record = self._records.get(node)
        return record.member if record else None

    def record(self, node: str) -> Record | None:
        """What is remembered about ``node``."""
        return self._records.get(node)

    def at(self, address: str) -> str | None:
        """The live member last known at ``address``."""
        return self._node_by_address.get(address)

    def members(self) -> tuple[Member, ...]:
        """All members, sorted by node."""
        if self._sorted is None:
            self._sorted = tuple(record.member for _, record in sorted(self._records.items()))
        return self._sorted

    def alive(self) -> tuple[str, ...]:
        """The nodes of all members that are alive or suspect, sorted."""
        if self._alive is None:
            self._alive = tuple(member.node for member in self.members() if member.status.live)
        return self._alive

    def put(self, member: Member, now: float, down_for_s: float = 0.0) -> None:
        """Store ``member`` in place of what is held under its node. If it is down, it is since ``down_for_s``.

        Of a member that was known to be down already, it is known since when.
        """
        node = member.node
        record = self._records.get(node)
        was_down = record is not None and not record.member.status.live
        if record is None:
            record = self._records[node] = Record(member)
        else:
            self._unindex(record.member)
            if member.status.live or record.member.status.live:
                record.answered_at = None
            record.member = member
        if not member.status.live and not was_down:
            record.down_since = now - down_for_s
        self._index(member)

    def remove(self, node: str) -> None:
        """Forget everything about ``node``."""
        self._unindex(self._records.pop(node).member)

    def down(self) -> list[Record]:
        """The records of all members that are dead or left, in a fixed order."""
        return [record for record in self._records.values() if not record.member.status.live]

    def _index(self, member: Member) -> None:
        self._sorted = self._alive = None
        self._unsuspected += member.status is Status.ALIVE
        if member.node == self.node:
            return
        if member.status.live:
            self.live_others.add(member.node)
            self._node_by_address[member.address] = member.node
        elif member.status is Status.DEAD:
            self.dead.add(member.node)

    def _unindex(self, member: Member) -> None:
        self._sorted = self._alive = None
        self._unsuspected -= member.status is Status.ALIVE
        self.live_others.remove(member.node)
        self.dead.remove(member.node)
        if self._node_by_address.get(member.address) == member.node:
            del self._node_by_address[member.address]
