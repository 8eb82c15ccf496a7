"""Whole agents in virtual time: sides of a partition, links that work one way, nodes that miss what was said."""

from collections.abc import Sequence
from typing import Any

import pytest

from gary.effects import Effect, StartContainer
from gary.storage import Write
from simulations.cluster import Cluster
from simulations.host import Host
from tests.simulations.support import SEEDS, app, cluster_of, has_all, is_whole, per_host, runs, settled

seeds = pytest.mark.parametrize("seed", SEEDS)


@seeds
def test_a_host_cut_off_and_back_withdraws_the_surplus_and_restarts_nothing_else(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(20))
    lonely, before = cluster.hosts[2], cluster.started()
    rest = [host for host in cluster.hosts if host is not lonely]
    cluster.cut(lonely)
    assert cluster.run_until(lambda: has_all(cluster, 20, rest), 6.0)
    cluster.run(20.0)
    assert has_all(cluster, 20, [lonely])
    everything = cluster.started()
    cluster.heal()
    assert cluster.run_until(lambda: runs(cluster, 20), 10.0)
    cluster.run(20.0)
    after = cluster.started()
    assert runs(cluster, 20)
    assert sorted(per_host(cluster).values()) == [4, 4, 4, 4, 4]
    assert after.items() <= everything.items()
    assert after == before


@seeds
@pytest.mark.parametrize("away_s", [3.0, 4.0, 5.0, 6.0])
def test_a_host_that_was_cut_off_for_seconds_starts_nothing_when_the_others_return_to_it(
    seed: int, away_s: float
) -> None:
    """They return one after the other. That the last ones are still missing then says nothing about them."""
    cluster = settled(cluster_of(5, seed), app(20))
    lonely, before = cluster.hosts[2], cluster.started()
    cluster.cut(lonely)
    cluster.run(away_s)
    starts = Starts(lonely)
    cluster.watch(starts)
    cluster.heal()
    cluster.run(20.0)
    assert starts.slots == []
    assert runs(cluster, 20)
    assert before == cluster.started()


@pytest.mark.parametrize("seed", range(6))
def test_a_partition_that_heals_starts_nothing(seed: int) -> None:
    """Word of a slot that was withdrawn may come before word of the node in whose favour it was."""
    cluster = settled(cluster_of(5, seed), app(20))
    cluster.partition(cluster.hosts[:2], cluster.hosts[2:])
    cluster.run(20.0)
    starts = Starts(*cluster.hosts)
    cluster.watch(starts)
    cluster.heal()
    cluster.run(20.0)
    assert starts.slots == []
    assert runs(cluster, 20)


class Starts:
    """Which slots some hosts start a container for."""

    watches = (StartContainer,)

    def __init__(self, *hosts: Host) -> None:
        self.slots: list[str] = []
        self._hosts = hosts

    def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
        if host in self._hosts and isinstance(effect, StartContainer):
            self.slots.append(effect.request.labels.slot)

    def wrote(self, cluster: Cluster, host: Host, writes: Sequence[Write]) -> None:
        pass


@seeds
def test_each_side_of_a_partition_is_whole_and_a_scale_on_one_side_holds_for_both(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    two, three = cluster.hosts[:2], cluster.hosts[2:]
    cluster.partition(two, three)
    cluster.run(15.0)
    assert has_all(cluster, 10, two)
    assert has_all(cluster, 10, three)
    scale(cluster, two[0], 14)
    cluster.run(10.0)
    assert has_all(cluster, 14, two)
    cluster.heal()
    assert cluster.run_until(lambda: runs(cluster, 14), 20.0)
    cluster.run(20.0)
    assert runs(cluster, 14)
    assert all(is_whole(cluster, host) for host in cluster.hosts)


@seeds
def test_a_removal_on_one_side_outlives_scales_on_the_other_and_says_so(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    two, three = cluster.hosts[:2], cluster.hosts[2:]
    cluster.partition(two, three)
    cluster.run(12.0)
    cluster.answer(two[0], "remove", {"app": "shop"})
    scale(cluster, three[0], 12)
    scale(cluster, three[0], 14)
    cluster.run(10.0)
    cluster.heal()
    cluster.run(40.0)
    assert cluster.running() == {}
    assert all(not host.agent.deployments for host in cluster.live() if host.agent is not None)
    assert any(event["kind"] == "superseded" for event in events(cluster, three[0]))
    assert cluster.command(three[1], "status", {"app": "shop"}).error is not None


@seeds
def test_scales_on_both_sides_end_with_the_later_one_and_the_earlier_author_is_told(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(4))
    two, three = cluster.hosts[:2], cluster.hosts[2:]
    cluster.partition(two, three)
    cluster.run(12.0)
    scale(cluster, two[0], 6)
    cluster.run(3.0)
    scale(cluster, three[0], 8)
    cluster.run(3.0)
    cluster.heal()
    assert cluster.run_until(lambda: runs(cluster, 8), 20.0)
    cluster.run(10.0)
    assert runs(cluster, 8)
    assert any(event["kind"] == "superseded" for event in events(cluster, two[0]))


@seeds
def test_a_host_that_was_cut_off_during_the_removal_removes_its_containers_when_it_returns(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    lonely = cluster.hosts[3]
    cluster.cut(lonely)
    cluster.run(5.0)
    cluster.answer(cluster.hosts[0], "remove", {"app": "shop"})
    cluster.run(20.0)
    assert set(per_host(cluster)) == {lonely.name}
    cluster.heal()
    assert cluster.run_until(lambda: not cluster.running(), 15.0)
    cluster.run(20.0)
    assert all(not host.storage.load().documents for host in cluster.hosts)


@seeds
def test_a_host_that_was_off_during_the_removal_removes_its_containers_when_it_returns(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    absent = cluster.hosts[3]
    cluster.kill(absent, with_host=False)
    cluster.run(5.0)
    cluster.answer(cluster.hosts[0], "remove", {"app": "shop"})
    cluster.run(20.0)
    cluster.start(absent)
    assert cluster.run_until(lambda: not cluster.running(), 20.0)
    cluster.run(20.0)
    assert all(not host.storage.load().documents for host in cluster.hosts)


@seeds
def test_a_link_that_works_one_way_moves_no_slot(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    before = cluster.started()
    cluster.network.deafen(cluster.hosts[1].address, cluster.hosts[2].address)
    cluster.run(60.0)
    assert cluster.started() == before
    cluster.heal()
    cluster.run(10.0)
    assert cluster.started() == before


@seeds
def test_a_service_that_holds_waits_for_its_host_until_it_is_released(seed: int) -> None:
    from gary.spec import Partition

    cluster = settled(cluster_of(5, seed), app(5, partition=Partition.HOLD))
    lost = cluster.hosts[4]
    slots = [slot for slot, where in cluster.running().items() if where == [lost.name]]
    assert slots
    cluster.kill(lost)
    cluster.run(20.0)
    assert not set(slots) & set(cluster.running())
    status = cluster.answer(cluster.hosts[0], "status", {"app": "shop"})
    assert {slot["slot"] for slot in status["slots"] if slot["state"] == "held"} == set(slots)
    cluster.answer(cluster.hosts[0], "release", {"app": "shop", "slot": slots[0]})
    assert cluster.run_until(lambda: slots[0] in cluster.running(), 6.0)
    cluster.start(lost)
    cluster.run(20.0)
    assert runs(cluster, 5)


@seeds
def test_frames_lost_now_and_then_move_no_slot_and_lose_no_command(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    cluster.network.link = type(cluster.network.link)(loss=0.05)
    before = cluster.started()
    cluster.run(30.0)
    assert cluster.started() == before
    scale(cluster, cluster.hosts[1], 12)
    assert cluster.run_until(lambda: runs(cluster, 12), 20.0)


def scale(cluster: Cluster, host: Host, replicas: int) -> Any:
    return cluster.answer(host, "scale", {"app": "shop", "services": {"web": replicas}})


def events(cluster: Cluster, host: Host) -> list[dict[str, Any]]:
    return [dict(item) for item in cluster.operator(host).command("events", {})]
