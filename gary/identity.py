"""Who is who: nodes, deployments, slots, generations, and the one hash that orders nodes without asking anybody."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

NodeId = str
"""32 lowercase hex characters."""

DeploymentId = str
"""32 lowercase hex characters; opaque to everyone who does not know the name and the cluster's secret."""

Pseudonym = str
"""``~`` and 32 lowercase hex characters: what operators call a deployment towards nodes that need not know its name."""

Slot = str
"""``service/index``; for global services ``service/<NodeId>``; and ``witness/i``."""

NODE_ID_SIZE_BYTES = 16
WITNESS = "witness"
PSEUDONYM_MARK = "~"
_PSEUDONYMS_REMEMBERED_MAX = 4096
_ORDERS_REMEMBERED_MAX = 256


def is_node_id(value: object) -> bool:
    return isinstance(value, str) and len(value) == 2 * NODE_ID_SIZE_BYTES and set(value) <= set("0123456789abcdef")


def pseudonym(name: str, cluster: bytes) -> Pseudonym:
    """The pseudonym of the deployment called ``name`` in the cluster with this id.

    scrypt (RFC 7914) makes trying names from a dictionary expensive. Costs about 10 ms and 4 MiB, so answers are
    remembered, but no names.
    """
    return _pseudonym(hashlib.sha256(name.encode()).digest(), cluster)


@lru_cache(_PSEUDONYMS_REMEMBERED_MAX)
def _pseudonym(digest: bytes, cluster: bytes) -> Pseudonym:
    return PSEUDONYM_MARK + hashlib.scrypt(digest, salt=cluster, n=2**12, r=8, p=1, dklen=16).hex()


def deployment_id(pseudonym: Pseudonym, secret: bytes) -> DeploymentId:
    """The opaque id of a deployment in the cluster that shares ``secret``: who does not know that cannot try at all."""
    return hashlib.blake2b(pseudonym.encode(), key=secret, digest_size=16).hexdigest()


def service_of(slot: Slot) -> str:
    return slot.partition("/")[0]


def index_of(slot: Slot) -> str:
    return slot.partition("/")[2]


def slot_order(slot: Slot) -> tuple[str, int, str]:
    """Sorts slots by service, then by index as a number where it is one."""
    service, _, index = slot.partition("/")
    return (service, int(index) if index.isdecimal() else -1, index)


def rendezvous(key: str, nodes: Iterable[NodeId]) -> list[NodeId]:
    """``nodes`` in the order in which they answer for ``key``: highest random weight (Thaler and Ravishankar, 1998).

    Every node computes the same order for the same set; taking one node out leaves the order of the others as it was.
    """
    return list(_rendezvous(key, tuple(nodes)))


@lru_cache(_ORDERS_REMEMBERED_MAX)
def _rendezvous(key: str, nodes: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
    weights = {node: hashlib.blake2b(f"{key}\0{node}".encode(), digest_size=8).digest() for node in nodes}
    return tuple(sorted(nodes, key=weights.__getitem__))


@dataclass(frozen=True, slots=True)
class Generation:
    """A version of a deployment's spec.

    ``instance`` names the life of the deployment from its first deploy to its removal; ``clock`` is a hybrid logical
    clock (milliseconds shifted by 16 bits, plus a counter; Kulkarni et al., 2014), so a later generation has a higher
    one whatever the hosts' clocks say; ``author`` breaks ties.
    """

    instance: str
    clock: int
    author: NodeId

    def __str__(self) -> str:
        return f"{self.instance}.{self.clock:x}.{self.author}"

    @property
    def order(self) -> tuple[int, int, str]:
        return (self.clock, int(self.author, 16), self.instance)

    @staticmethod
    def parse(text: str) -> Generation:
        """The inverse of ``str``; raises ``ValueError`` for anything else."""
        instance, clock, author = text.split(".")
        if not is_node_id(author) or not 1 <= len(instance) <= 32 or not instance.isalnum() or len(clock) > 20:
            raise ValueError("not a generation")
        generation = Generation(instance, int(clock, 16), author)
        if str(generation) != text:
            raise ValueError("not the canonical form of a generation")
        return generation


def next_clock(wall_s: float, seen: int) -> int:
    """The hybrid logical clock's next tick: ahead of the wall clock and of everything seen so far."""
    return max(int(wall_s * 1000) << 16, seen + 1)


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """The immutable birth mark of a promise; the lower one wins when two nodes hold one slot."""

    lamport: int
    node: NodeId

    def __str__(self) -> str:
        return f"{self.lamport}.{self.node}"
