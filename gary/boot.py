"""What a node is when it starts: read from its disk, or made new on a disk that has nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgpack

from gary.identity import NodeId, is_node_id
from gary.storage import DeleteRecord, PutRecord, Stored, Table, Write
from gary.trust.keys import SEED_SIZE_BYTES, KeyPair, node_id_of
from gary.trust.standing import is_standing
from gossip import Peer

CLUSTER_ID_SIZE_BYTES = 16
SECRET_SIZE_BYTES = 32
EPOCH_MAX = 2**48
"""A record with a higher one cannot be read."""
EPOCH_RAISED_MAX = 2**40
"""To no more than this is an epoch raised on the word of others, so that no word can use them up."""


@dataclass(frozen=True, slots=True)
class Boot:
    """``key`` makes the node who it is. ``epoch`` is higher at each start. ``former``: the ids that this host had
    before its disk was lost. ``secret`` is the cluster's: it makes names into ids. ``is_founded``: the
    disk has a standing in the cluster; else ``trust.standing.founding_writes`` has to make one.
    """

    key: KeyPair
    epoch: int
    cluster: bytes
    secret: bytes = field(repr=False)
    is_founded: bool = True
    former: tuple[NodeId, ...] = ()
    peers: tuple[Peer, ...] = ()

    @property
    def node(self) -> NodeId:
        return node_id_of(self.key.public)


def boot(stored: Stored, entropy: Callable[[int], bytes]) -> tuple[Boot, list[Write]]:
    """Who this node is now, and what must be durable before it says a word to anybody.

    A record that cannot be read counts as absent: the node then is a new one, and its peers treat it as such.
    """
    node = stored.records[Table.NODE]
    seed = node.get("seed", b"")
    last_epoch = _epoch(node.get("epoch", b""))
    known = len(seed) == SEED_SIZE_BYTES and last_epoch > 0
    epoch = last_epoch + 1 if known else 1
    cluster, secret = node.get("cluster", b""), node.get("secret", b"")
    ids = [text for text in node.get("ids", b"").decode(errors="replace").split() if is_node_id(text)]
    if not known:
        seed = entropy(SEED_SIZE_BYTES)
    key = KeyPair(seed)
    former = tuple(id for id in ids if id != node_id_of(key.public))
    trust = stored.records[Table.TRUST]
    is_founded = (
        (known and is_standing(trust)) and len(cluster) == CLUSTER_ID_SIZE_BYTES and len(secret) == SECRET_SIZE_BYTES
    )
    if not is_founded:
        cluster, secret = entropy(CLUSTER_ID_SIZE_BYTES), entropy(SECRET_SIZE_BYTES)
    peers = tuple(
        Peer(id, value.decode(errors="replace"))
        for id, value in sorted(stored.records[Table.PEER].items())
        if is_node_id(id) and id != node_id_of(key.public)
    )
    writes: list[Write] = [
        PutRecord(Table.NODE, "seed", seed),
        epoch_write(epoch),
        *cluster_writes(cluster, secret),
        ids_write((node_id_of(key.public), *former)),
        *([] if is_founded else [DeleteRecord(Table.TRUST, name) for name in sorted(trust)]),
    ]
    return Boot(key, epoch, cluster, secret, is_founded, former, peers), writes


def cluster_writes(cluster: bytes, secret: bytes) -> list[Write]:
    return [PutRecord(Table.NODE, "cluster", cluster), PutRecord(Table.NODE, "secret", secret)]


def epoch_write(epoch: int) -> Write:
    return PutRecord(Table.NODE, "epoch", msgpack.packb(epoch))


def ids_write(ids: tuple[NodeId, ...]) -> Write:
    """All ids of this host, the present one as well: once its key cannot be read any more that is a former one."""
    return PutRecord(Table.NODE, "ids", " ".join(ids).encode())


def peer_writes(before: dict[NodeId, str], peers: dict[NodeId, str]) -> list[Write]:
    """What turns the stored peers into ``peers``."""
    gone: list[Write] = [DeleteRecord(Table.PEER, node) for node in sorted(before) if node not in peers]
    changed = [node for node in sorted(peers) if before.get(node) != peers[node]]
    return gone + [PutRecord(Table.PEER, node, peers[node].encode()) for node in changed]


def _epoch(raw: bytes) -> int:
    try:
        value = msgpack.unpackb(raw)
    except (ValueError, msgpack.UnpackException):
        return 0
    return value if isinstance(value, int) and 0 <= value < EPOCH_MAX else 0
