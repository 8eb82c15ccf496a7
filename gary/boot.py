"""What a node is when it starts: read from its disk, or made new on a disk that has nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgpack

from gary.identity import NODE_ID_SIZE_BYTES, NodeId, is_node_id
from gary.storage import DeleteRecord, PutRecord, Stored, Table, Write
from gossip import Peer

CLUSTER_ID_SIZE_BYTES = 16
SECRET_SIZE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Boot:
    """``epoch`` is higher at each start. ``former``: the ids that this host had before its disk was lost."""

    node: NodeId
    epoch: int
    cluster: bytes
    secret: bytes
    former: tuple[NodeId, ...] = ()
    peers: tuple[Peer, ...] = ()


def boot(stored: Stored, entropy: Callable[[int], bytes]) -> tuple[Boot, list[Write]]:
    """Who this node is now, and what must be durable before it says a word to anybody.

    A record that cannot be read counts as absent: the node then is a new one, and its peers treat it as such.
    """
    node = stored.records[Table.NODE]
    name = node.get("id", b"").decode(errors="replace")
    last_epoch = _epoch(node.get("epoch", b""))
    known = is_node_id(name) and last_epoch > 0
    epoch = last_epoch + 1 if known else 1
    cluster, secret = node.get("cluster", b""), node.get("secret", b"")
    former = tuple(text for text in node.get("former", b"").decode(errors="replace").split() if is_node_id(text))
    if not known:
        former = (*former, name) if is_node_id(name) and name not in former else former
        name = entropy(NODE_ID_SIZE_BYTES).hex()
    if not known or len(cluster) != CLUSTER_ID_SIZE_BYTES or len(secret) != SECRET_SIZE_BYTES:
        cluster, secret = entropy(CLUSTER_ID_SIZE_BYTES), entropy(SECRET_SIZE_BYTES)
    peers = tuple(
        Peer(key, value.decode(errors="replace"))
        for key, value in sorted(stored.records[Table.PEER].items())
        if is_node_id(key) and key != name
    )
    writes: list[Write] = [
        PutRecord(Table.NODE, "id", name.encode()),
        PutRecord(Table.NODE, "epoch", msgpack.packb(epoch)),
        *cluster_writes(cluster, secret),
        *([former_write(former)] if former else []),
    ]
    return Boot(name, epoch, cluster, secret, former, peers), writes


def cluster_writes(cluster: bytes, secret: bytes) -> list[Write]:
    return [PutRecord(Table.NODE, "cluster", cluster), PutRecord(Table.NODE, "secret", secret)]


def former_write(former: tuple[NodeId, ...]) -> Write:
    return PutRecord(Table.NODE, "former", " ".join(former).encode())


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
    return value if isinstance(value, int) and 0 <= value < 2**48 else 0
