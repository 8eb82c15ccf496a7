"""Everybody at once: for many cores in one process that are to begin as members of a formed cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gossip.digest import Digest
from gossip.directory import Directory, Publication
from gossip.member import Member, Status


class Roll:
    """Live members and what they publish, ready to be taken over by each of them (``Swim.adopt``).

    Made once for all. The cores share it and keep for themselves only what differs from it (``gossip.layered``), so it
    must not change, and a member costs a core nothing. Raises ``ValueError`` if somebody is not alive, or a node or an
    address is there twice, or somebody publishes who is no member.
    """

    def __init__(self, members: Iterable[Member], publications: Iterable[Publication] = ()) -> None:
        self.members: Final[dict[str, Member]] = {}
        self.node_by_address: Final[dict[str, str]] = {}
        self.directory: Final = Directory(orphans_max=0)
        members, publications = tuple(members), tuple(publications)
        for member in members:
            if member.status is not Status.ALIVE:
                raise ValueError(f"not alive: {member}")
            if member.node in self.members or member.address in self.node_by_address:
                raise ValueError(f"a node or an address is in the roll twice: {member}")
            self.members[member.node] = member
            self.node_by_address[member.address] = member.node
        for publication in publications:
            if publication.node not in self.members or not self.directory.publish(publication):
                raise ValueError(f"not a member, or a second time: {publication.node}")
        self.nodes: Final = tuple(self.members)
        self.digest: Final = Digest((*members, *publications))
        self._heard_at: tuple[float, dict[str, float]] = 0.0, {}

    def heard_at(self, now: float) -> dict[str, float]:
        """Of every member, that it was heard just ``now``."""
        if not self._heard_at[1] or self._heard_at[0] != now:
            self._heard_at = now, dict.fromkeys(self.members, now)
        return self._heard_at[1]
