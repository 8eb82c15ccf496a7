"""Whole agents far from each other, with the profile that is meant for that."""

import pytest

from gossip import PROFILES, Status
from simulations.cluster import Cluster
from simulations.network import Link
from tests.simulations.support import SEEDS, app, is_whole, runs, settled

seeds = pytest.mark.parametrize("seed", SEEDS)
FAR = Link(delay_s=(0.04, 0.15), loss=0.01)


def five_far_apart(seed: int) -> Cluster:
    cluster = Cluster(5, seed, swim=PROFILES["wan"], link=FAR)
    cluster.join_all()
    assert cluster.run_until(cluster.sees_all, 60.0)
    cluster.run(5.0)
    return cluster


@seeds
def test_members_far_apart_are_not_held_dead_by_mistake_for_ten_minutes(seed: int) -> None:
    cluster = five_far_apart(seed)
    for _ in range(60):
        cluster.run(10.0)
        for host in cluster.hosts:
            assert host.agent is not None
            statuses = {member.status for member in host.agent.swim.members()}
            assert statuses <= {Status.ALIVE, Status.SUSPECT}


@seeds
def test_members_far_apart_deploy_lose_one_and_heal(seed: int) -> None:
    cluster = settled(five_far_apart(seed), app(10))
    cluster.run(30.0)
    assert runs(cluster, 10)
    cluster.kill(cluster.hosts[seed])
    assert cluster.run_until(lambda: runs(cluster, 10), 40.0)
    cluster.run(60.0)
    assert runs(cluster, 10)
    assert is_whole(cluster, cluster.hosts[0])
