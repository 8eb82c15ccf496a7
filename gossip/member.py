"""A member and the order in which claims about it supersede each other.

All merging rests on one total order: (incarnation, status). A higher incarnation wins; within one incarnation
alive < suspect < dead < left. Whatever order claims arrive in, and however often, everyone ends with the greatest, so
views converge without agreement. Only the member itself raises its incarnation, therefore only it can refute.

Here and in other modules, values of which a node makes many have an ``__init__`` of their own and final fields: frozen
dataclasses take twice the time, and the compiled form (``simulations.compilation``) can only make the former directly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

INCARNATION_MAX: Final = 2**48
"""Neither part of an incarnation is larger: nobody can be driven to one that others do not accept."""

DOWN_FOR_S_MAX: Final = 2**32
"""Nobody says of a member that it is down for longer: all have forgotten it by then."""


class Status(StrEnum):
    """What is believed about a member. ``LEFT`` is a death that the member announced itself."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"

    @property
    def rank(self) -> int:
        """Position in the order in which one incarnation ages."""
        return _RANK[self]

    @property
    def live(self) -> bool:
        """Counts as part of the cluster: alive, or suspect and not yet given up."""
        return self is Status.ALIVE or self is Status.SUSPECT


_RANK = {Status.ALIVE: 0, Status.SUSPECT: 1, Status.DEAD: 2, Status.LEFT: 3}
STATUS_BY_RANK = tuple(Status)


class Incarnation(NamedTuple):
    """(boot epoch, counter): the epoch is persisted and grows at every start, so a restart supersedes its past."""

    epoch: int
    counter: int

    def above(self, other: Incarnation) -> Incarnation:
        """The lowest incarnation that is higher than both this one and ``other``.

        At the very end of what can be told to others it stays where it is.
        """
        top = max(self, other)
        if top.counter < INCARNATION_MAX:
            return Incarnation(top.epoch, top.counter + 1)
        return Incarnation(top.epoch + 1, 0) if top.epoch < INCARNATION_MAX else top


@dataclass(slots=True, init=False, unsafe_hash=True)
class Member:
    """A node as membership sees it. The address is data: identity is ``node`` alone.

    ``fingerprint``: that of ``gossip.digest``, once somebody has asked for it; 0 before.
    """

    node: Final[str]
    address: Final[str]
    incarnation: Final[Incarnation]
    status: Final[Status]
    fingerprint: int = field(init=False, compare=False, repr=False)

    def __init__(self, node: str, address: str, incarnation: Incarnation, status: Status, fingerprint: int = 0) -> None:
        self.node = node
        self.address = address
        self.incarnation = incarnation
        self.status = status
        self.fingerprint = fingerprint

    @property
    def precedence(self) -> tuple[Incarnation, int]:
        """Where this stands in the total order of claims about one node."""
        return (self.incarnation, self.status.rank)

    def with_status(self, status: Status) -> Member:
        """The same node in the same incarnation, but for its status."""
        return Member(self.node, self.address, self.incarnation, status)


@dataclass(slots=True, init=False, unsafe_hash=True)
class Claim:
    """A statement about a member that travels from node to node.

    ``accusers``: who found a suspect unresponsive, each from own experience. ``down_for_s``: how long a dead or left
    member has been down, so that everyone forgets it at about the same time.
    """

    member: Final[Member]
    accusers: Final[tuple[str, ...]]
    down_for_s: Final[int]

    def __init__(self, member: Member, accusers: tuple[str, ...] = (), down_for_s: int = 0) -> None:
        self.member = member
        self.accusers = accusers
        self.down_for_s = down_for_s
