"""Whom agents see, and whether that is the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gary.identity import NodeId
from gossip import Layered
from simulations.host import Host


class Edition(NamedTuple):
    """A table as it is at one moment."""

    table: Layered[NodeId, int]
    changes: int

    @classmethod
    def of(cls, table: Layered[NodeId, int]) -> Edition:
        return cls(table, table.changes)


class Sight:
    """Finds those whose view is not the truth. A view that has not changed is not looked at again."""

    def __init__(self) -> None:
        self._truth: frozenset[NodeId] = frozenset()
        self._judged: dict[str, tuple[Edition, bool]] = {}

    def mistaken(self, members: Sequence[Host]) -> list[Host]:
        """The hosts among the live ``members`` whose agents do not hold alive exactly the nodes of all of them."""
        truth = frozenset(host.node for host in members)
        if truth != self._truth:
            self._truth = truth
            self._judged.clear()
        return [host for host in members if not self._is_right(host)]

    def _is_right(self, host: Host) -> bool:
        assert host.agent is not None
        alive = host.agent.alive
        edition, judged = Edition.of(alive), self._judged.get(host.name)
        if judged is None or judged[0] != edition:
            is_right = len(alive) == len(self._truth) and all(node in alive for node in self._truth)
            judged = self._judged[host.name] = edition, is_right
        return judged[1]
