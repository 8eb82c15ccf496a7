"""The table of members, and what is counted and indexed along with it.

The table only stores what it is told; whether a claim supersedes what is held is decided in ``gossip.view``. Every
change costs the same however many members there are.

One entry of the table, of the index of addresses and of the roster is all that a member costs besides the immutable
``Member`` itself, which many tables can share; where many begin with equal tables they share these, too
(``gossip.layered``). What only some members have, a time of death or of their last frame, stands in tables of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

from gossip.layered import Layered
from gossip.member import Member, Status
from gossip.roll import Roll

_DENSE: Final = 4
"""Where more than one of so many is wanted they are drawn from a list of all that may be, and not until they fit."""


class Roster:
    """Those nodes of which something holds, in a list, for random choice without copying.

    ``belongs(node)`` tells whether it holds; each time it begins to, ``add`` must follow, and ``remove`` when it ends.
    ``changes``: how often any of that has happened.
    """

    def __init__(self, belongs: Callable[[str], bool]) -> None:
        self._belongs = belongs
        # The list is these two, one after the other. The first one may be shared with many and never changes.
        self._base: Sequence[str] = ()
        self._nodes: list[str] = []
        # Still in the list, until all of it is gone through anyway: where in the list they are is not known.
        self._removed: set[str] = set()
        self._size = 0
        self.changes = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, node: str) -> bool:
        return self._belongs(node)

    def __iter__(self) -> Iterator[str]:
        return (node for node in chain(self._base, self._nodes) if node not in self._removed)

    def add(self, node: str) -> None:
        """``node`` belongs here from now on."""
        self.changes += 1
        self._size += 1
        if node in self._removed:
            self._removed.remove(node)
        else:
            self._nodes.append(node)

    def remove(self, node: str) -> None:
        """``node`` belongs here no more."""
        self.changes += 1
        self._size -= 1
        self._removed.add(node)
        if 2 * len(self._removed) > len(self._base) + len(self._nodes):
            self._tidy()

    def adopt(self, nodes: Sequence[str]) -> None:
        """Hold exactly ``nodes``, which are shared and must not change from now on."""
        self._base, self._nodes, self._removed = nodes, [], set()
        self._size = len(nodes)
        self.changes += 1

    def first(self) -> str:
        """One of the nodes, always the same for the same history. There must be one."""
        return next(iter(self))

    def sample(self, rng: random.Random, count: int, without: Iterable[str] = ()) -> list[str]:
        """Up to ``count`` different nodes at random, none of ``without``."""
        excluded = set(without)
        wanted = min(count, len(self) - sum(node in self for node in excluded))
        places = len(self._base) + len(self._nodes)
        if wanted * _DENSE > places:
            self._tidy()
            return rng.sample([node for node in self if node not in excluded], wanted)
        drawn: dict[str, None] = {}
        while len(drawn) < wanted:
            node = self._at(int(rng.random() * places))
            if node not in self._removed and node not in excluded:
                drawn[node] = None
        return list(drawn)

    def _tidy(self) -> None:
        if self._removed:
            self._nodes = list(self)
            self._base, self._removed = (), set()

    def _at(self, index: int) -> str:
        shared = len(self._base)
        return self._base[index] if index < shared else self._nodes[index - shared]


class Membership:
    """All members this node knows, itself included."""

    def __init__(self, myself: Member) -> None:
        self.node = myself.node
        self.live_others = Roster(self._is_live_other)
        self.dead = Roster(self._is_dead_other)
        self._members: Layered[str, Member] = Layered()
        self._node_by_address: Layered[str, str] = Layered()
        self._down_since: Layered[str, float] = Layered()
        self._heard_at: Layered[str, float] = Layered()
        self._unsuspected = 0
        self.put(myself, 0.0)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def myself(self) -> Member:
        """This node."""
        return self._members[self.node]

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
        return self._members.get(node)

    def at(self, address: str) -> str | None:
        """The live member last known at ``address``."""
        return self._node_by_address.get(address)

    def nodes(self) -> Iterable[str]:
        """The nodes of all members, in a fixed order."""
        return self._members

    def members(self) -> tuple[Member, ...]:
        """All members, sorted by node."""
        return tuple(member for _, member in sorted(self._members.items()))

    def alive(self) -> tuple[str, ...]:
        """The nodes of all members that are alive or suspect, sorted."""
        return tuple(sorted(member.node for member in self._members.values() if member.status.live))

    def put(self, member: Member, now: float, down_for_s: float = 0.0) -> None:
        """Store ``member`` in place of what is held under its node. If it is down, it is since ``down_for_s``.

        Of a member that was known to be down already, it is known since when.
        """
        held = self._members.get(member.node)
        if held is not None:
            member = _with_strings_of(held, member)
        node, is_live = member.node, member.status.live
        self._members[node] = member
        if held is None:
            self._enter(member)
        elif held.address != member.address or not (is_live and held.status.live):
            self._leave(held)
            self._enter(member)
        else:
            self._unsuspected += (member.status is Status.ALIVE) - (held.status is Status.ALIVE)
        if is_live:
            self._down_since.pop(node)
        elif self._down_since.get(node) is None:
            self._down_since[node] = now - down_for_s

    def remove(self, node: str) -> None:
        """Forget everything about ``node``."""
        held = self._members.pop(node)
        assert held is not None, "only members are forgotten"
        self._leave(held)
        self._heard_at.pop(node)
        self._down_since.pop(node)

    def down_since(self, node: str) -> float:
        """Since when ``node``, which is dead or has left, is down."""
        return self._down_since[node]

    def down(self) -> list[tuple[str, float]]:
        """All members that are dead or have left, with the time since when, in a fixed order."""
        return list(self._down_since.items())

    def heard(self, member: Member, now: float) -> None:
        """A frame came from ``member``, which is held here, itself."""
        self._heard_at[member.node] = now

    def heard_at(self, node: str) -> float | None:
        """When the last frame came from ``node`` itself; None if none did since it is a member."""
        return self._heard_at.get(node)

    def adopt(self, roll: Roll, now: float) -> None:
        """Hold exactly the members of ``roll``, all of them just heard, this node as it is among them."""
        self._members = Layered(roll.members)
        self._node_by_address = Layered(roll.node_by_address)
        self._node_by_address.pop(self.myself.address)
        self._heard_at = Layered(roll.heard_at(now))
        self.live_others.adopt(roll.nodes)
        self.live_others.remove(self.node)
        self._unsuspected = len(roll.members)

    def _is_live_other(self, node: str) -> bool:
        member = self._members.get(node)
        return member is not None and member.status.live and node != self.node

    def _is_dead_other(self, node: str) -> bool:
        member = self._members.get(node)
        return member is not None and member.status is Status.DEAD and node != self.node

    def _enter(self, member: Member) -> None:
        self._unsuspected += member.status is Status.ALIVE
        if member.node == self.node:
            return
        if member.status.live:
            self.live_others.add(member.node)
            self._node_by_address[member.address] = member.node
        elif member.status is Status.DEAD:
            self.dead.add(member.node)

    def _leave(self, member: Member) -> None:
        self._unsuspected -= member.status is Status.ALIVE
        if member.node == self.node:
            return
        if member.status.live:
            self.live_others.remove(member.node)
            if self._node_by_address.get(member.address) == member.node:
                self._node_by_address.pop(member.address)
        elif member.status is Status.DEAD:
            self.dead.remove(member.node)


def _with_strings_of(held: Member, member: Member) -> Member:
    """The same as ``member``, made of the strings of ``held`` where they are equal: those are kept anyway."""
    address = held.address if held.address == member.address else member.address
    if member.node is held.node and member.address is address:
        return member
    return Member(held.node, address, member.incarnation, member.status, member.fingerprint)
