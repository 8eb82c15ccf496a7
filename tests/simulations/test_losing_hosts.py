"""Whole agents in virtual time: hosts die, in any order and number, and the application is whole again by itself."""

import pytest

from gary.storage import Table
from gossip import SwimConfig
from simulations.cluster import Cluster
from tests.simulations.support import (
    SEEDS,
    app,
    cluster_of,
    has_all,
    is_whole,
    per_host,
    runs,
    settled,
)

seeds = pytest.mark.parametrize("seed", SEEDS)


def five_with_twenty(seed: int) -> Cluster:
    return settled(cluster_of(5, seed), app(20))


@seeds
def test_twenty_replicas_spread_over_five_hosts_and_every_node_tells_the_same(seed: int) -> None:
    cluster = cluster_of(6, seed)
    outsider = cluster.hosts[5]
    outsider.labels = {"zone": "elsewhere"}
    outsider.containers_max = 0
    cluster = settled(cluster, app(20))
    assert cluster.run_until(lambda: runs(cluster, 20), 5.0)
    assert sum(per_host(cluster).values()) == 20
    for host in cluster.hosts:
        assert is_whole(cluster, host)


@seeds
def test_five_hosts_keep_four_of_twenty_each(seed: int) -> None:
    cluster = five_with_twenty(seed)
    assert sorted(per_host(cluster).values()) == [4, 4, 4, 4, 4]


@seeds
def test_a_dead_hosts_share_runs_elsewhere_within_six_seconds(seed: int) -> None:
    cluster = five_with_twenty(seed)
    before = cluster.started()
    cluster.kill(cluster.hosts[seed])
    assert cluster.run_until(lambda: runs(cluster, 20), 6.0)
    after = cluster.started()
    assert sum(before.get(id) == at for id, at in after.items()) == 16


@seeds
def test_three_of_five_die_in_one_instant_with_the_sponsor_among_them(seed: int) -> None:
    cluster = five_with_twenty(seed)
    for host in cluster.hosts[:3]:
        cluster.kill(host)
    assert cluster.run_until(lambda: runs(cluster, 20), 10.0)
    cluster.run(10.0)
    assert sorted(per_host(cluster).values()) == [10, 10]


@seeds
def test_all_but_one_die_in_one_instant(seed: int) -> None:
    cluster = five_with_twenty(seed)
    for host in cluster.hosts[1:]:
        cluster.kill(host)
    assert cluster.run_until(lambda: runs(cluster, 20), 15.0)


@seeds
def test_four_of_five_die_one_after_the_other_and_return_with_their_disks(seed: int) -> None:
    cluster = five_with_twenty(seed)
    for host in cluster.hosts[:4]:
        cluster.kill(host)
        cluster.run(10.0)
    assert cluster.run_until(lambda: runs(cluster, 20), 15.0)
    for host in cluster.hosts[:4]:
        cluster.start(host)
    cluster.run(30.0)
    assert runs(cluster, 20)
    assert all(is_whole(cluster, host) for host in cluster.hosts)


@seeds
def test_volunteers_come_from_outside_until_two_hosts_are_left(seed: int) -> None:
    cluster = settled(cluster_of(8, seed), app(5, replicas_per_node_max=2))
    while len(cluster.live()) > 3:
        victim = next(host for host in cluster.live() if per_host(cluster)[host.name])
        cluster.kill(victim)
        assert cluster.run_until(lambda: runs(cluster, 5), 15.0)
        cluster.run(2.0)
        assert max(per_host(cluster).values()) <= 2
    cluster.kill(cluster.live()[0])
    cluster.run(20.0)
    assert sum(per_host(cluster).values()) == 4
    status = cluster.answer(cluster.live()[0], "status", {"app": "shop"})
    assert len(status["missing"]) == 1
    assert "at most 2 per node" in str(status["missing"][0]["declined"])


@seeds
def test_a_single_replica_walks_to_the_last_host(seed: int) -> None:
    cluster = settled(cluster_of(6, seed), app(1))
    while len(cluster.live()) > 1:
        assert cluster.run_until(lambda: len(documents(cluster)) >= min(3, len(cluster.live())), 15.0)
        (name,) = per_host(cluster)
        cluster.kill(next(host for host in cluster.live() if host.name == name))
        assert cluster.run_until(lambda: runs(cluster, 1), 15.0)


def documents(cluster: Cluster) -> list[str]:
    return [host.name for host in cluster.live() if host.agent is not None and host.agent.deployments]


@seeds
def test_an_agent_killed_and_started_again_restarts_no_container_and_moves_no_slot(seed: int) -> None:
    cluster = five_with_twenty(seed)
    before = cluster.started()
    cluster.kill(cluster.hosts[1], with_host=False)
    cluster.run(0.5)
    cluster.start(cluster.hosts[1])
    cluster.run(20.0)
    assert cluster.started() == before
    assert all(is_whole(cluster, host) for host in cluster.hosts)


@seeds
def test_an_agent_that_stays_away_finds_its_slots_taken_and_stops_what_is_doubled(seed: int) -> None:
    cluster = five_with_twenty(seed)
    cluster.kill(cluster.hosts[1], with_host=False)
    rest = [host for host in cluster.hosts if host is not cluster.hosts[1]]
    assert cluster.run_until(lambda: has_all(cluster, 20, rest), 10.0)
    cluster.start(cluster.hosts[1])
    assert cluster.run_until(lambda: runs(cluster, 20), 20.0)
    cluster.run(20.0)
    assert runs(cluster, 20)
    assert all(is_whole(cluster, host) for host in cluster.hosts)


@seeds
@pytest.mark.parametrize("away_s", [0.2, 10.0])
def test_containers_of_a_wiped_disk_are_adopted_or_released(seed: int, away_s: float) -> None:
    cluster = five_with_twenty(seed)
    host = cluster.hosts[2]
    cluster.kill(host, with_host=False)
    host.storage.wipe()
    cluster.run(away_s)
    cluster.start(host)
    cluster.run(1.0)
    assert cluster.join(host, cluster.hosts[0]).error is None
    cluster.run(40.0)
    assert runs(cluster, 20)
    assert all(is_whole(cluster, other) for other in cluster.hosts)
    assert cluster.run_until(cluster.sees_all, 10.0)


@seeds
def test_the_whole_cluster_loses_power_and_comes_back(seed: int) -> None:
    cluster = five_with_twenty(seed)
    for host in cluster.hosts:
        cluster.kill(host)
    cluster.run(5.0)
    for host in cluster.hosts:
        cluster.start(host)
    assert cluster.run_until(lambda: runs(cluster, 20), 30.0)
    cluster.run(20.0)
    assert runs(cluster, 20)
    assert sorted(per_host(cluster).values()) == [4, 4, 4, 4, 4]


@seeds
def test_the_list_of_nodes_says_who_misses_one_that_is_dead(seed: int) -> None:
    cluster = cluster_of(5, seed)
    cluster.kill(cluster.hosts[4])
    cluster.run(5.0)
    rows = {row["name"]: row for row in cluster.answer(cluster.hosts[0], "nodes")["nodes"]}
    assert rows["n4"]["status"] == "dead"
    assert len(rows["n4"]["missed_by"]) >= 2
    assert set(rows["n4"]["missed_by"]) <= {"n0", "n1", "n2", "n3"}
    assert all(rows[name]["missed_by"] == [] for name in ("n0", "n1", "n2", "n3"))


def test_who_is_forgotten_is_no_peer_on_disk_any_more() -> None:
    cluster = cluster_of(4, 1, swim=SwimConfig(forget_after_s=60.0))
    gone = cluster.hosts[3]
    node = gone.node
    cluster.kill(gone)
    cluster.run(30.0)
    assert all(node in host.storage.load().records[Table.PEER] for host in cluster.live())
    cluster.run(60.0)
    assert not any(node in host.storage.load().records[Table.PEER] for host in cluster.live())
