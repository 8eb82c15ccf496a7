"""Whole agents in virtual time: documents go from epoch to epoch, and nobody who looks at containers can tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gary.deployment import Deployment
from gary.spec import Partition, Service, Spec
from simulations.checkers import liveness
from simulations.cluster import Cluster
from simulations.faults.catalogue import KINDS
from simulations.host import Host
from simulations.run import Run
from simulations.scenarios.model import Chance, Hosts, Scenario
from tests.simulations.support import SEEDS, Safely, app, cluster_of, growth, has_all, is_whole, runs, settled

pytestmark = pytest.mark.long

seeds = pytest.mark.parametrize("seed", SEEDS)
EPOCH_CHANGES = 25

# ``web`` is left alone; ``busy`` is scaled up and down to make changes.
SHOP = Spec("shop", (Service("web", image="img", replicas=5), Service("busy", image="img", replicas=1)))


def busy_cluster(seed: int, spec: Spec = SHOP, changes_per_epoch: int = EPOCH_CHANGES) -> tuple[Cluster, Safely]:
    cluster = cluster_of(5, seed, changes_per_epoch=changes_per_epoch)
    safety = Safely()
    cluster.watch(safety)
    return settled(cluster, spec), safety


def deployments(cluster: Cluster) -> Iterator[Deployment]:
    for host in cluster.live():
        if host.agent is not None:
            yield from host.agent.deployments.values()


def epochs(cluster: Cluster) -> list[int]:
    return sorted({deployment.document.epoch for deployment in deployments(cluster)})


def epoch_of(host: Host) -> int:
    assert host.agent is not None
    (deployment,) = host.agent.deployments.values()
    return deployment.document.epoch


def work(cluster: Cluster, host: Host, rounds: int, pause_s: float = 6.0) -> int:
    """Scale ``busy`` up and down; the largest number of changes that a document had meanwhile."""
    most = 0
    for number in range(rounds):
        scale(cluster, host, busy=6 if number % 2 == 0 else 1)
        for _ in range(int(pause_s)):
            cluster.run(1.0)
            most = max(most, *(deployment.document.replica.change_count for deployment in deployments(cluster)))
    return most


def scale(cluster: Cluster, host: Host, **services: int) -> Any:
    return cluster.answer(host, "scale", {"app": "shop", "services": services})


def started(cluster: Cluster, service: str = "web") -> dict[str, float]:
    running = cluster.started()
    return {
        container.id: running[container.id]
        for host in cluster.hosts
        for container in host.engine.present(cluster.clock.now)
        if container.id in running and container.labels.slot.startswith(service)
    }


def all_is_well(cluster: Cluster, safety: Safely) -> None:
    assert liveness(cluster) == []
    assert growth(cluster, 60.0) == []
    assert safety.violations == []
    assert len(epochs(cluster)) == 1


@seeds
def test_epochs_go_by_documents_stay_small_and_nothing_is_restarted(seed: int) -> None:
    cluster, safety = busy_cluster(seed)
    before = started(cluster)
    most = work(cluster, cluster.hosts[1], 24)
    assert epochs(cluster)[0] >= 4
    assert most <= 2 * (EPOCH_CHANGES + 5)
    assert started(cluster) == before
    all_is_well(cluster, safety)
    stored = [host.storage.load().documents for host in cluster.hosts]
    assert all(len(document.changes) <= most for documents in stored for document in documents.values())


@seeds
def test_hosts_die_and_return_with_old_disks_while_epochs_go_by(seed: int) -> None:
    cluster, safety = busy_cluster(seed)
    lost = cluster.hosts[3]
    cluster.kill(lost)
    assert cluster.run_until(lambda: web_runs(cluster, 5), 10.0)
    work(cluster, cluster.hosts[1], 16)
    assert epochs(cluster)[0] >= 3
    before = started(cluster)
    cluster.start(lost)
    cluster.run(40.0)
    assert started(cluster) == before
    assert epochs(cluster)[0] >= 3
    all_is_well(cluster, safety)


@seeds
def test_an_agent_that_was_off_for_epochs_takes_up_its_containers_and_restarts_none(seed: int) -> None:
    cluster, safety = busy_cluster(seed, app(5, partition=Partition.HOLD))
    absent = cluster.hosts[2]
    before = started(cluster)
    cluster.kill(absent, with_host=False)
    for number in range(60):
        scale(cluster, cluster.hosts[0], web=5 + number % 2)
        cluster.run(5.0)
    assert epochs(cluster)[0] >= 2
    scale(cluster, cluster.hosts[0], web=5)
    cluster.run(5.0)
    status = cluster.answer(cluster.hosts[0], "status", {"app": "shop"})
    assert [slot["state"] for slot in status["slots"]].count("held") == 1
    cluster.start(absent)
    cluster.run(30.0)
    assert started(cluster) == before
    assert runs(cluster, 5)
    all_is_well(cluster, safety)


@seeds
def test_sides_of_a_partition_go_to_different_epochs_and_merge_without_loss(seed: int) -> None:
    cluster, safety = busy_cluster(seed)
    two, three = cluster.hosts[:2], cluster.hosts[2:]
    cluster.partition(two, three)
    cluster.run(15.0)
    work(cluster, two[0], 8)
    work(cluster, three[0], 20)
    left, right = max(map(epoch_of, two)), max(map(epoch_of, three))
    assert 0 < left < right
    scale(cluster, two[1], web=7)
    cluster.run(10.0)
    cluster.heal()
    assert cluster.run_until(lambda: web_runs(cluster, 7), 30.0)
    cluster.run(40.0)
    assert all(is_whole(cluster, host) for host in cluster.hosts)
    all_is_well(cluster, safety)


@seeds
def test_sides_of_a_partition_go_to_the_same_epoch_and_merge_without_loss(seed: int) -> None:
    cluster, safety = busy_cluster(seed)
    two, three = cluster.hosts[:2], cluster.hosts[2:]
    cluster.partition(two, three)
    cluster.run(15.0)
    for host, side in ((two[0], two), (three[0], three)):
        while min(map(epoch_of, side)) < 3:
            work(cluster, host, 2)
    assert epochs(cluster) == [3]
    cluster.heal()
    cluster.run(60.0)
    assert web_runs(cluster, 5)
    all_is_well(cluster, safety)


@seeds
def test_a_removal_on_one_side_outlives_epochs_on_the_other(seed: int) -> None:
    cluster, safety = busy_cluster(seed)
    two, three = cluster.hosts[:2], cluster.hosts[2:]
    cluster.partition(two, three)
    cluster.run(15.0)
    cluster.answer(two[0], "remove", {"app": "shop"})
    work(cluster, three[0], 16)
    assert epochs(cluster)[0] >= 2
    cluster.heal()
    assert cluster.run_until(lambda: cluster.running() == {}, 40.0)
    cluster.run(30.0)
    assert all(not host.storage.load().documents for host in cluster.hosts)
    assert safety.violations == []


@seeds
def test_a_lone_survivor_goes_on_to_new_epochs(seed: int) -> None:
    cluster, safety = busy_cluster(seed)
    survivor = cluster.hosts[4]
    for host in cluster.hosts[:4]:
        cluster.kill(host)
    cluster.run(20.0)
    work(cluster, survivor, 24)
    assert epoch_of(survivor) >= 3
    assert has_all_web(cluster, survivor)
    for host in cluster.hosts[:4]:
        cluster.start(host)
    cluster.run(60.0)
    all_is_well(cluster, safety)


@seeds
def test_a_command_is_answered_when_it_is_durable_whatever_epoch_begins_meanwhile(seed: int) -> None:
    cluster, safety = busy_cluster(seed, changes_per_epoch=3)
    for number in range(12):
        scale(cluster, cluster.hosts[number % 5], busy=1 + number % 3)
        cluster.run(3.0)
    assert epochs(cluster)[0] >= 4
    all_is_well(cluster, safety)


@seeds
def test_frames_that_get_lost_delay_an_epoch_and_break_nothing(seed: int) -> None:
    cluster, safety = busy_cluster(seed)
    cluster.network.link = type(cluster.network.link)(loss=0.1)
    before = started(cluster)
    work(cluster, cluster.hosts[1], 12, pause_s=10.0)
    assert started(cluster) == before
    cluster.network.link = type(cluster.network.link)()
    cluster.run(60.0)
    assert epochs(cluster)[0] >= 1
    all_is_well(cluster, safety)


@pytest.mark.parametrize("seed", range(1, 5))
def test_on_a_bad_day_with_an_epoch_every_few_changes_all_recovers(seed: int) -> None:
    scenario = Scenario(
        name="bad day",
        seed=seed,
        for_s=200.0,
        epoch_changes=10,
        hosts=(Hosts(7),),
        chance=Chance(
            for_s=180.0,
            from_s=10.0,
            lasts_s=(1.0, 15.0),
            kinds={name: kind.weight for name, kind in KINDS.items() if name != "remove"},
        ),
    )
    run = Run(scenario)
    for _ in run.steps():
        pass
    assert [finding.said for finding in run.report().findings] == []
    assert epochs(run.cluster)[-1] >= 3


def web_runs(cluster: Cluster, replicas: int) -> bool:
    found = {slot: where for slot, where in cluster.running().items() if slot.startswith("web/")}
    return len(found) == replicas and all(len(where) == 1 for where in found.values())


def has_all_web(cluster: Cluster, host: Host) -> bool:
    return has_all(cluster, 5, [host])
