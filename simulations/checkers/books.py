"""What is on disks, kept while it is written: what several checkers need to know, and none of them judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgpack

from crdt import CorruptReplica, Replica
from gary.document import Document
from gary.facts import MAPS
from gary.identity import DeploymentId, NodeId
from gary.permission import permit
from gary.state import State
from gary.storage import AppendChanges, PutRecord, PutSnapshot, StoredDocument, Table, Write
from simulations.checkers.base import Checker
from simulations.cluster import Cluster
from simulations.host import Host

_READER = b"\xff" * 24


class Books(Checker):
    """Belongs before all checkers that read it.

    ``named``: whom the members of a document have named as its members, ever. ``durable``: the changes that a host's
    disk has had. ``hosts``: those whose disks have had something of a document, or of its removal, ever.
    """

    name = "books"
    about = "reads what is on disks"

    def __init__(self) -> None:
        super().__init__()
        self.named: dict[DeploymentId, set[NodeId]] = {}
        self.durable: dict[tuple[str, DeploymentId], set[bytes]] = {}
        self.hosts: dict[DeploymentId, dict[str, Host]] = {}
        self._disks: dict[tuple[str, DeploymentId], _Read] = {}

    def wrote(self, cluster: Cluster, host: Host, writes: Sequence[Write]) -> None:
        for write in writes:
            match write:
                case AppendChanges(id, changes):
                    self._knows(host, id)
                    self.durable.setdefault((host.name, id), set()).update(changes)
                case PutSnapshot(id, snapshot):
                    self._knows(host, id)
                    self.durable.setdefault((host.name, id), set()).update(changes_in(snapshot))
                case PutRecord(Table.TOMBSTONE, id):
                    self._knows(host, id)

    def _knows(self, host: Host, id: DeploymentId) -> None:
        self.hosts.setdefault(id, {})[host.name] = host

    def remember(self, id: DeploymentId, instance: str) -> bool:
        """Whether any disk knows that instance of the deployment, be it as one that was removed."""
        for host in self.hosts.get(id, {}).values():
            buried, state = buried_on(host, id), self.on_disk(host, id)
            known = set() if state is None else {generation.instance for generation in state.specs} | state.removed
            if instance in known or instance in buried:
                return True
        return False

    def name_members(self, host: Host, id: DeploymentId) -> None:
        """Whom the agent on ``host`` holds to be a member has been named."""
        deployment = None if host.agent is None else host.agent.deployments.get(id)
        if deployment is not None:
            self.named.setdefault(id, set()).update(deployment.state.members)

    def on_disk(self, host: Host, id: DeploymentId) -> State | None:
        """What the document on the host's disk says. What has been appended since the last look is all that is read."""
        stored = host.storage.document(id)
        if stored is None:
            return None
        read = self._disks.get((host.name, id))
        if read is None or not read.is_continued_by(stored):
            try:
                replica = Replica.load(_READER, MAPS, stored.snapshot, stored.changes)
            except CorruptReplica:
                return None
            read = _Read(stored, Document(replica, ""))
        else:
            read.document.replica.apply(stored.changes[len(read.stored.changes) :], permit)
            read.stored = stored
        self._disks[host.name, id] = read
        return read.document.state


@dataclass(slots=True)
class _Read:
    """A document as it was on a disk."""

    stored: StoredDocument
    document: Document

    def is_continued_by(self, later: StoredDocument) -> bool:
        known = self.stored.changes
        return later.snapshot == self.stored.snapshot and later.changes[: len(known)] == known


def buried_on(host: Host, id: DeploymentId) -> frozenset[str]:
    """The instances of the deployment of which the host's disk knows that they were removed."""
    tombstone = host.storage.record(Table.TOMBSTONE, id)
    return frozenset(msgpack.unpackb(tombstone)) if tombstone else frozenset()


@lru_cache(64)
def changes_in(snapshot: bytes) -> tuple[bytes, ...]:
    """All changes that a saved document has."""
    return tuple(Replica.load(_READER, MAPS, snapshot).changes_since(()))
