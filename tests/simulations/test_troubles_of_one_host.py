"""Whole agents in virtual time: bad images, engines that go away, full disks, wrong clocks."""

import pytest

from gary.runtime import docker
from gary.runtime.base import ContainerState, Health
from gary.runtime.memory import Behaviour
from gary.spec import Healthcheck, Mode
from gary.state import PromiseState
from simulations import driver
from simulations.cluster import Cluster
from simulations.host import Host
from tests.simulations.support import SEEDS, app, cluster_of, has_all, is_whole, per_host, runs, settled

CHECK = Healthcheck(test=("CMD", "true"))
YEAR_S = 365 * 86_400.0

seeds = pytest.mark.parametrize("seed", SEEDS)


def nodes_that_tried(cluster: Cluster, slot: str) -> set[str]:
    (deployment, *_) = next(h.agent for h in cluster.live() if h.agent and h.agent.deployments).deployments.values()
    return {promise.node for promise in deployment.state.by_slot.get(slot, ())}


def changes(cluster: Cluster) -> dict[str, int]:
    return {
        host.name: deployment.document.replica.change_count
        for host in cluster.live()
        if host.agent is not None
        for deployment in host.agent.deployments.values()
    }


@pytest.mark.long
@seeds
@pytest.mark.parametrize("trouble", ["exits", "missing", "refused"])
def test_a_container_that_cannot_run_tries_two_nodes_and_the_document_stops_growing(seed: int, trouble: str) -> None:
    cluster = cluster_of(5, seed)
    for host in cluster.hosts:
        match trouble:
            case "exits":
                host.engine.behave("bad", Behaviour(ends_after_s=0.3, exit_code=3))
            case "missing":
                host.engine.lose_image("bad")
            case _:
                host.engine.behave("bad", Behaviour(refusal="no such device"))
    cluster.deploy(cluster.hosts[0], app(1, image="bad"))
    cluster.run(120.0)
    before = changes(cluster)
    cluster.run(900.0)
    assert changes(cluster) == before
    assert len(nodes_that_tried(cluster, "web/1")) <= 2
    status = cluster.answer(cluster.hosts[3], "status", {"app": "shop"})
    (slot,) = status["slots"]
    assert slot["state"] == PromiseState.FAILING
    words = {"exits": "code 3", "missing": "bad", "refused": "no such device"}
    assert words[trouble] in slot["reason"]
    assert status["state"] == "degraded"


@seeds
def test_an_image_that_arrives_later_heals_the_slot(seed: int) -> None:
    cluster = cluster_of(5, seed)
    for host in cluster.hosts:
        host.engine.lose_image("late")
    cluster.deploy(cluster.hosts[0], app(2, image="late"))
    cluster.run(60.0)
    for host in cluster.hosts:
        host.engine.gain_image("late")
    assert cluster.run_until(lambda: runs(cluster, 2), 120.0)
    assert cluster.run_until(lambda: is_whole(cluster, cluster.hosts[0]), 30.0)


@seeds
def test_a_container_that_crashes_is_started_again_where_it_was(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(5))
    where = cluster.running()
    victim = cluster.hosts[1]
    (container,) = victim.engine.present(cluster.clock.now)
    victim.engine.crash(container.id, cluster.clock.now)
    assert cluster.run_until(lambda: runs(cluster, 5), 5.0)
    cluster.run(30.0)
    assert cluster.running() == where
    assert all(is_whole(cluster, host) for host in cluster.hosts)


@seeds
def test_a_health_check_decides_when_a_slot_is_healthy(seed: int) -> None:
    cluster = cluster_of(5, seed)
    for host in cluster.hosts:
        host.engine.behave("slow", Behaviour(healthy_after_s=4.0))
    cluster.deploy(cluster.hosts[0], app(3, image="slow", healthcheck=CHECK))
    cluster.run(2.0)
    assert not is_whole(cluster, cluster.hosts[0])
    assert cluster.run_until(lambda: is_whole(cluster, cluster.hosts[0]), 5.0)


@seeds
def test_a_container_whose_check_fails_is_started_again_where_it_was(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(5, healthcheck=CHECK))
    before = cluster.started()
    victim = cluster.hosts[1]
    (container,) = victim.engine.present(cluster.clock.now)
    victim.engine.set_health(container.id, Health.UNHEALTHY)
    cluster.run(0.5)
    assert not is_whole(cluster, cluster.hosts[0])
    assert cluster.run_until(lambda: is_whole(cluster, cluster.hosts[0]), 40.0)
    after = cluster.started()
    assert per_host(cluster)[victim.name] == 1
    assert sum(before.get(id) == at for id, at in after.items()) == 4


@seeds
def test_a_container_whose_check_fails_again_and_again_moves_to_a_host_where_it_passes(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(1, healthcheck=CHECK))
    (name,) = per_host(cluster)
    victim = next(host for host in cluster.hosts if host.name == name)

    def sicken() -> bool:
        for container in victim.engine.present(cluster.clock.now):
            if container.state is ContainerState.RUNNING and container.health is not Health.UNHEALTHY:
                victim.engine.set_health(container.id, Health.UNHEALTHY)
        return per_host(cluster)[victim.name] == 0

    assert cluster.run_until(sicken, 120.0)
    assert cluster.run_until(lambda: is_whole(cluster, cluster.hosts[0]), 60.0)


@seeds
def test_an_engine_that_is_away_for_a_moment_costs_nothing(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    before = cluster.started()
    cluster.hosts[2].engine.go_down()
    cluster.run(15.0)
    trouble = cluster.answer(cluster.hosts[0], "status", {"app": "shop"})
    assert "engine does not answer" in str(trouble)
    cluster.hosts[2].engine.come_up()
    cluster.run(15.0)
    assert cluster.started() == before
    assert all(is_whole(cluster, host) for host in cluster.hosts)


def test_the_simulated_client_of_an_engine_is_as_patient_as_the_real_one() -> None:
    assert (driver.LOOK_S_MAX, driver.OPERATE_S_MAX) == (docker.REQUEST_S_MAX, docker.START_S_MAX)


@seeds
def test_an_engine_that_hangs_is_away_once_its_client_gives_up_and_costs_no_container(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    before = cluster.started()
    host = cluster.hosts[2]
    assert host.agent is not None
    cluster.driver.set_engine_hanging(host, hangs=True)
    cluster.run(driver.LOOK_S_MAX - 5.0)
    assert host.agent.gauges()["engines_away"] == 0
    assert cluster.run_until(lambda: host.agent is not None and host.agent.gauges()["engines_away"] == 1, 60.0)
    cluster.run(15.0)
    assert "engine does not answer" in str(cluster.answer(cluster.hosts[0], "status", {"app": "shop"}))
    cluster.driver.set_engine_hanging(host, hangs=False)
    cluster.run(15.0)
    assert host.agent.gauges()["engines_away"] == 0
    assert cluster.started() == before
    assert all(is_whole(cluster, host) for host in cluster.hosts)


@seeds
def test_what_an_engine_that_hung_does_after_nobody_waits_for_it_is_found_and_kept(seed: int) -> None:
    cluster = settled(cluster_of(3, seed), app(3))
    host = cluster.hosts[1]
    (container,) = host.engine.present(cluster.clock.now)
    # To start a container takes long enough for the engine to hang meanwhile.
    host.timing.engine_late_s = 3.0
    host.engine.crash(container.id, cluster.clock.now)
    cluster.run(2.5)
    cluster.driver.set_engine_hanging(host, hangs=True)
    cluster.run(5.0)
    assert any(request.is_awaited for request in host.hanging)
    cluster.run(driver.OPERATE_S_MAX + 10.0)
    assert not host.hanging[0].is_awaited
    cluster.driver.set_engine_hanging(host, hangs=False)
    assert cluster.run_until(lambda: runs(cluster, 3), 30.0)
    cluster.run(30.0)
    assert runs(cluster, 3)
    assert all(is_whole(cluster, host) for host in cluster.hosts)


@seeds
@pytest.mark.parametrize("agent", ["that lives on", "that starts anew"])
def test_an_engine_that_is_away_takes_no_slot_of_a_global_service_from_its_node(seed: int, agent: str) -> None:
    cluster = settled(cluster_of(4, seed), app(1, mode=Mode.GLOBAL))
    before = cluster.started()
    host = cluster.hosts[2]
    host.engine.go_down()
    if agent == "that starts anew":
        cluster.restart(host)
    cluster.run(12.0)
    host.engine.come_up()
    cluster.run(15.0)
    assert cluster.started() == before
    assert all(is_whole(cluster, other) for other in cluster.hosts)


@seeds
def test_an_engine_that_stays_away_gives_its_slots_to_others_and_doubles_nothing_when_it_returns(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    host = cluster.hosts[2]
    host.engine.go_down()
    rest = [other for other in cluster.hosts if other is not host]
    assert cluster.run_until(lambda: has_all(cluster, 10, rest), 60.0)
    host.engine.come_up()
    assert cluster.run_until(lambda: runs(cluster, 10), 30.0)
    cluster.run(30.0)
    assert runs(cluster, 10)
    assert all(is_whole(cluster, other) for other in cluster.hosts)


@seeds
def test_a_full_disk_stops_what_is_told_and_not_what_runs(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    before = cluster.started()
    host = cluster.hosts[1]
    host.storage.failing = "no space left on the disk"
    reply = cluster.command(host, "scale", {"app": "shop", "services": {"web": 12}})
    assert reply.error is not None
    assert "no space left" in str(reply.error)
    cluster.run(20.0)
    assert before.items() <= cluster.started().items()
    host.storage.failing = None
    assert cluster.run_until(lambda: runs(cluster, 12), 20.0)
    cluster.run(10.0)
    assert all(is_whole(cluster, other) for other in cluster.hosts)


@seeds
def test_a_host_with_a_full_disk_dies_with_its_slots_taken_over(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    cluster.hosts[1].storage.failing = "no space left on the disk"
    cluster.run(5.0)
    cluster.kill(cluster.hosts[2])
    assert cluster.run_until(lambda: runs(cluster, 10), 15.0)


@seeds
@pytest.mark.parametrize("skew_s", [-YEAR_S, -3600.0, 3600.0, YEAR_S])
def test_a_clock_an_hour_or_a_year_off_loses_no_update(seed: int, skew_s: float) -> None:
    cluster = cluster_of(5, seed)
    cluster.hosts[1].wall_skew_s = skew_s
    cluster = settled(cluster, app(4))
    for replicas, host in ((6, cluster.hosts[1]), (8, cluster.hosts[2]), (10, cluster.hosts[1]), (7, cluster.hosts[0])):
        cluster.answer(host, "scale", {"app": "shop", "services": {"web": replicas}})
        assert cluster.run_until(lambda replicas=replicas: runs(cluster, replicas), 10.0)  # type: ignore[misc]
    cluster.run(10.0)
    assert runs(cluster, 7)
    assert all(is_whole(cluster, host) for host in cluster.hosts)
    behind = cluster.hosts[1:2] if skew_s < 0 else [cluster.hosts[0], *cluster.hosts[2:]]
    for host in behind:
        assert host.agent is not None
        assert any(event.kind == "clock" for event in host.agent.events), f"{host.name} says that a clock is wrong"


@seeds
def test_a_poisoned_document_on_disk_is_fetched_again_and_its_containers_run_on(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    before = cluster.started()
    host = cluster.hosts[3]
    cluster.kill(host, with_host=False)
    host.storage.wipe_documents() if hasattr(host.storage, "wipe_documents") else spoil(host)
    cluster.start(host)
    cluster.run(40.0)
    assert runs(cluster, 10)
    assert cluster.started() == before
    assert sorted(per_host(cluster).values()) == [2, 2, 2, 2, 2]


def spoil(host: object) -> None:
    from gary.storage import PutSnapshot

    assert isinstance(host, Host)
    (id,) = host.storage.load().documents
    host.storage.write([PutSnapshot(id, b"\x85\x6f\x4a\x83 not a document")])


@seeds
def test_23_a_slow_disk_never_blocks_membership_events(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(5))
    slow, *_, victim = cluster.hosts
    slow.timing.write_s = (3600.0, 3600.0)
    cluster.run(60.0)
    gone = victim.node
    assert cluster.sees_all()
    cluster.kill(victim)

    def is_seen_by(host: Host) -> bool:
        return host.agent is not None and gone not in host.agent.swim.alive()

    assert cluster.run_until(lambda: is_seen_by(slow), 5.0)
