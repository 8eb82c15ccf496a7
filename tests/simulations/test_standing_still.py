"""An agent that stands still, or is starved, starts nothing for nothing; and real deaths are healed all the same."""

import pytest

from simulations.cluster import Cluster
from simulations.host import Host
from tests.simulations.support import SEEDS, app, cluster_of, has_all, is_whole, per_host, runs, settled

seeds = pytest.mark.parametrize("seed", SEEDS)


def five_with_ten(seed: int) -> Cluster:
    cluster = settled(cluster_of(5, seed), app(10))
    assert cluster.run_until(lambda: runs(cluster, 10), 5.0)
    cluster.run(5.0)
    return cluster


@seeds
@pytest.mark.parametrize("duration_s", [1.0, 3.0, 10.0, 60.0])
def test_an_agent_that_stood_still_starts_nothing_when_it_goes_on(seed: int, duration_s: float) -> None:
    cluster = five_with_ten(seed)
    sleeper = cluster.hosts[seed]
    mine = {slot for slot, where in cluster.running().items() if sleeper.name in where}
    cluster.pause(sleeper)
    cluster.run(duration_s)
    before = cluster.started()
    elsewhere = {slot for slot, where in cluster.running().items() if where != [sleeper.name]}
    cluster.resume(sleeper)
    cluster.run(20.0)
    assert set(cluster.started()) <= set(before)
    assert cluster.run_until(lambda: runs(cluster, 10), 30.0)
    if duration_s <= 1.0:
        assert mine.isdisjoint(elsewhere)


@seeds
def test_an_agent_that_is_starved_for_a_minute_causes_no_replacement(seed: int) -> None:
    cluster = five_with_ten(seed)
    before = cluster.started()
    starved = cluster.hosts[seed]
    names = per_host(cluster)
    starved.late_s = 1.0
    cluster.run(60.0)
    starved.late_s = 0.0
    cluster.run(20.0)
    replaced = set(cluster.started()) - set(before)
    # Others may hold it dead, and take over what it keeps; it takes over nothing.
    assert not {id for id in replaced if cluster_host(cluster, id) is starved}
    assert cluster.run_until(lambda: runs(cluster, 10), 30.0)
    assert names[starved.name] == 2


def cluster_host(cluster: Cluster, container: str) -> Host:
    now = cluster.clock.now
    return next(host for host in cluster.hosts if any(one.id == container for one in host.engine.present(now)))


@seeds
def test_a_real_death_is_healed_in_time_while_another_member_stands_still(seed: int) -> None:
    cluster = five_with_ten(seed)
    sleeper, victim = cluster.hosts[seed], cluster.hosts[seed + 1]
    cluster.pause(sleeper)
    cluster.kill(victim)
    others = [host for host in cluster.hosts if host not in (sleeper, victim)]
    assert cluster.run_until(lambda: has_all(cluster, 10, [*others, sleeper]), 8.0)
    cluster.resume(sleeper)
    assert cluster.run_until(lambda: runs(cluster, 10) and is_whole(cluster, sleeper), 30.0)


@seeds
def test_the_last_one_left_standing_takes_everything_over_though_nobody_confirms_anything(seed: int) -> None:
    cluster = five_with_ten(seed)
    last = cluster.hosts[seed]
    for host in cluster.hosts:
        if host is not last:
            cluster.kill(host)
    assert cluster.run_until(lambda: runs(cluster, 10), 14.0)
