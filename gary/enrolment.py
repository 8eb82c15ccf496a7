"""How this node is enrolled in its cluster, as its disk has it: the secret, the peers, and who this host was before.

Who is alive is ``gossip``'s to say; this is what a restart begins with. Methods return the writes that make it durable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from gary.boot import Boot, cluster_writes, ids_write, peer_writes
from gary.identity import PSEUDONYM_MARK, DeploymentId, NodeId, deployment_id, pseudonym
from gary.storage import DeleteRecord, Table, Write
from gossip import Peer


class Enrolment:
    """``former``: the ids that this host had before its disk was lost; its containers may still carry them."""

    def __init__(self, boot: Boot) -> None:
        self.node = boot.node
        self.cluster = boot.cluster
        self.secret = boot.secret
        self.former = boot.former
        self._peers = {peer.node: peer.address for peer in boot.peers}

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """Whose containers are this host's to look after: this node's, and those of the ids that it had before."""
        return (self.node, *self.former)

    @property
    def addresses(self) -> Collection[str]:
        """Where its peers were last seen."""
        return self._peers.values()

    def id_of(self, app: str) -> DeploymentId:
        """The deployment id of ``app``, a name or a pseudonym, in this cluster."""
        known = app if app.startswith(PSEUDONYM_MARK) else pseudonym(app, self.cluster)
        return deployment_id(known, self.secret)

    def joined(self, cluster: bytes, secret: bytes) -> list[Write]:
        """Another cluster's secret makes this node one of its own; nothing to write if it was that already."""
        is_new = secret != self.secret
        self.cluster, self.secret = cluster, secret
        return cluster_writes(cluster, secret) if is_new else []

    def left(self, *, is_expelled: bool) -> list[Write]:
        """What makes the next start one in a new cluster, with no peers. Who is expelled can be nobody's node again
        under the same id, and becomes another one.
        """
        writes: list[Write] = [DeleteRecord(Table.NODE, name) for name in ("cluster", "secret")]
        if is_expelled:
            writes += [DeleteRecord(Table.NODE, "seed"), ids_write(self.nodes)]
        return [*writes, *(DeleteRecord(Table.PEER, node) for node in sorted(self._peers))]

    def remember(self, peers: Iterable[Peer]) -> list[Write]:
        """Whom to ask after a restart. Seeing nobody forgets nobody."""
        seen = {peer.node: peer.address for peer in peers}
        if not seen or seen == self._peers:
            return []
        before, self._peers = self._peers, seen
        return peer_writes(before, seen)

    def recognise(self, node: NodeId) -> list[Write]:
        """``node`` was this host before; nothing to write if that is known."""
        if node in self.former:
            return []
        self.former = (*self.former, node)
        return [ids_write(self.nodes)]
