"""Rule 1: a node writes promises only for itself."""

from __future__ import annotations

from collections.abc import Sequence

from crdt import Replica
from gary.facts import BREAKS, CARRIED, MAPS, PROMISES
from gary.storage import AppendChanges, PutSnapshot, Write
from simulations.checkers.base import Checker
from simulations.cluster import Cluster
from simulations.host import Host

_NODE_SIZE_BYTES = 16
_READER = b"\xfe" * 24
_OWN = frozenset({PROMISES, BREAKS, CARRIED})
"""Whose keys begin with the one node that may write them."""


class Writers(Checker):
    """Of all changes that come to any disk. The first bytes of an actor are its node's id."""

    name = "one writer"
    about = "what a node promises was written by that node"

    def __init__(self) -> None:
        super().__init__()
        self._replicas: dict[str, Replica] = {}
        self._snapshots: set[bytes] = set()
        self._strange: list[str] = []

    def wrote(self, cluster: Cluster, host: Host, writes: Sequence[Write]) -> None:
        for write in writes:
            match write:
                case PutSnapshot(id, snapshot) if snapshot not in self._snapshots:
                    self._snapshots.add(snapshot)
                    self._replicas[id] = Replica.load(_READER, MAPS, snapshot, permit=self._see)
                case AppendChanges(id, changes):
                    replica = self._replicas.get(id)
                    if replica is None:
                        replica = self._replicas[id] = Replica(_READER, MAPS)
                    replica.apply(changes, self._see)
                case _:
                    continue
            for said in self._strange:
                self.found(cluster, f"{said}, as the disk of {host.name} says")
            self._strange.clear()

    def _see(self, actor: bytes, name: str, key: str, before: bytes | None, after: bytes) -> str | None:
        author, owner = actor[:_NODE_SIZE_BYTES].hex(), key.partition("/")[0]
        if name in _OWN and owner != author:
            self._strange.append(f"{author[:6]} wrote {name}/{key[:6]}")
        return None
