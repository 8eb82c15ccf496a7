"""After all faults: everybody sees everybody, and has heard what the cluster said."""

from __future__ import annotations

from collections.abc import Iterator

from gary.identity import NodeId
from simulations.checkers.base import Checker
from simulations.cluster import Cluster
from simulations.host import Host
from simulations.sight import Sight


def expelled(cluster: Cluster) -> set[NodeId]:
    """Who knows to be out, and whom anybody else knows to be. Whom the expelled have expelled nobody hears."""
    ledgers = {host.node: host.agent.standing.ledger for host in cluster.live() if host.agent}
    out = {node for node, ledger in ledgers.items() if node in ledger.expulsions}
    return out | {other for node, ledger in ledgers.items() if node not in out for other in ledger.expulsions}


def staying(cluster: Cluster) -> list[Host]:
    """The live hosts whose nodes are not expelled. What those do who are is nobody's business."""
    out = expelled(cluster)
    return [host for host in cluster.live() if host.node not in out]


class Membership(Checker):
    name = "membership"
    about = "every agent holds alive exactly those that are"

    def __init__(self) -> None:
        super().__init__()
        self._sight = Sight()

    def judge(self, cluster: Cluster) -> Iterator[str]:
        members = staying(cluster)
        truth = {host.node for host in members}
        for host in self._sight.mistaken(members):
            assert host.agent is not None
            seen = set(host.agent.alive)
            yield f"{host.name} misses {len(truth - seen)} live nodes and sees {len(seen - truth)} that are none"


class Trust(Checker):
    name = "trust"
    about = "all have heard the same statements, and have a certificate and the secret of the one present root"

    def judge(self, cluster: Cluster) -> Iterator[str]:
        digests: set[int] = set()
        for host in staying(cluster):
            assert host.agent is not None
            standing = host.agent.standing
            digests.add(standing.ledger.digest)
            if f" by {standing.ledger.present.certificate}>" not in host.credentials.certificate:
                yield f"{host.name} shows a certificate of another root than the present one"
            if host.vouches and not standing.vouches:
                yield f"{host.name} does not vouch for the present root"
        if len(digests) > 1:
            yield f"the nodes hold {len(digests)} different ledgers"
