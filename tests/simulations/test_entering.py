"""Letting hosts into a simulated cluster: not those that it has expelled."""

import random

from gary.storage import DeleteRecord, Table
from simulations.entering import Entering
from tests.simulations.support import cluster_of


def test_nobody_invites_a_host_that_the_cluster_has_expelled() -> None:
    cluster = cluster_of(4, 1)
    host = cluster.hosts[3]
    node = host.node
    cluster.kill(host, with_host=False)
    cluster.answer(cluster.hosts[0], "expel", {"node": node})
    host.storage.write([DeleteRecord(Table.PEER, peer) for peer in host.storage.load().records[Table.PEER]])
    entering = Entering(cluster, random.Random(1))
    entering.start(host)
    assert host.node == node
    given = cluster.counters["commands"]
    for _ in range(60):
        cluster.run(0.5)
        entering.look()
    assert cluster.counters["commands"] == given
    assert host.agent is not None
    assert len(host.agent.alive) == 1
