"""Records on disk that are not what was written: the node goes on without them, and nothing else is lost."""

import pytest

from gary.storage import Table
from simulations.cluster import Cluster
from simulations.host import Host
from tests.simulations.support import SEEDS, Safely, app, cluster_of, is_whole, runs, settled

seeds = pytest.mark.parametrize("seed", SEEDS)


def find_damaged(cluster: Cluster, host: Host, table: Table, key: str) -> bool:
    """Whether ``host``'s agent, started again on a disk on which that record is damaged, still knows its cluster."""
    assert host.agent is not None
    before = host.agent.swim.cluster
    cluster.kill(host, with_host=False)
    host.storage.damage(table, key)
    cluster.start(host)
    assert host.agent is not None
    return host.agent.swim.cluster == before


def join_again(cluster: Cluster, host: Host) -> None:
    token = cluster.answer(cluster.hosts[0], "invite")["token"]
    cluster.answer(host, "join", {"token": token})


def vouches(host: Host) -> bool:
    return host.agent is not None and host.agent.standing.vouches


def members(cluster: Cluster) -> tuple[set[str], set[str]]:
    """Whom the deployment names as its members, and who holds it."""
    holders = {host.node: host.agent for host in cluster.live() if host.agent is not None and host.agent.deployments}
    (named,) = {deployment.state.holders for agent in holders.values() for deployment in agent.deployments.values()}
    return set(named), set(holders)


@seeds
@pytest.mark.parametrize("key", ["seed", "epoch"])
def test_a_host_that_is_another_node_now_holds_and_keeps_in_its_new_name_what_it_did(seed: int, key: str) -> None:
    cluster = settled(cluster_of(6, seed), app(4))
    safety = Safely()
    cluster.watch(safety)
    before, running, host = cluster.hosts[2].node, cluster.started(), cluster.hosts[2]
    assert not find_damaged(cluster, host, Table.NODE, key)
    assert host.node != before
    cluster.run(1.0)
    join_again(cluster, host)
    assert cluster.run_until(lambda: cluster.sees_all() and runs(cluster, 4), 60.0)
    cluster.run(60.0)
    named, holding = members(cluster)
    assert named == holding
    assert before not in named
    assert host.node in named
    assert cluster.started() == running
    assert is_whole(cluster, cluster.hosts[0])
    assert safety.violations == []


@seeds
@pytest.mark.parametrize(("table", "key"), [(Table.NODE, "cluster"), (Table.NODE, "secret"), (Table.TRUST, "root")])
def test_a_host_that_has_forgotten_its_cluster_may_join_it_again_with_all_that_it_holds(
    seed: int, table: Table, key: str
) -> None:
    cluster = settled(cluster_of(6, seed), app(6))
    host, running = cluster.hosts[2], cluster.started()
    node = host.node
    assert not find_damaged(cluster, host, table, key)
    assert host.node == node
    join_again(cluster, host)
    assert cluster.run_until(lambda: cluster.sees_all() and runs(cluster, 6), 60.0)
    assert cluster.started() == running
    assert is_whole(cluster, host)


def test_a_cluster_of_one_with_deployments_of_its_own_joins_no_other() -> None:
    cluster = cluster_of(3, 1)
    loner = cluster.add()
    cluster.start(loner)
    cluster.run(2.0)
    assert cluster.deploy(loner, app(1)).error is None
    with pytest.raises(AssertionError, match="runs deployments"):
        join_again(cluster, loner)


@seeds
def test_a_host_that_has_lost_the_secret_of_the_root_says_so_and_has_it_again_after_an_invitation(seed: int) -> None:
    cluster = settled(cluster_of(4, seed), app(2))
    host = cluster.hosts[2]
    (secret,) = [key for key in host.storage.load().records[Table.TRUST] if key.startswith("secret/")]
    assert find_damaged(cluster, host, Table.TRUST, secret)
    cluster.run(60.0)
    assert not vouches(host)
    assert "has lost the secret" in str(cluster.answer(host, "doctor"))
    with pytest.raises(AssertionError, match="vouch"):
        cluster.answer(host, "invite")
    join_again(cluster, host)
    assert vouches(host)
    assert "token" in str(cluster.answer(host, "invite"))
