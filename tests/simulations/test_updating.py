"""Whole agents in virtual time: updates, global services, leaving, and what operators ask on any node."""

from typing import Any

import pytest

from gary.agent import Agent
from gary.effects import Effect
from gary.runtime.memory import Behaviour
from gary.spec import Constraint, Healthcheck, Mode, Port, Resources, to_json
from simulations.cluster import Cluster
from simulations.host import Host
from tests.simulations.support import SEEDS, app, cluster_of, has_all, is_whole, per_host, runs, settled, wanted

seeds = pytest.mark.parametrize("seed", SEEDS)
CHECK = Healthcheck(test=("CMD", "true"))


def images(cluster: Cluster, image_of: dict[str, str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for host in cluster.hosts:
        for container in host.engine.present(cluster.clock.now):
            found.setdefault(image_of.get(container.labels.fingerprint, "?"), set()).add(container.labels.slot)
    return found


@seeds
def test_an_update_takes_down_no_more_than_its_parallelism(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10, image="one", healthcheck=CHECK, update_parallelism=2))
    for host in cluster.hosts:
        host.engine.behave("two", Behaviour(healthy_after_s=1.5))
    cluster.answer(
        cluster.hosts[0],
        "deploy",
        {"spec": to_json(app(10, image="two", healthcheck=CHECK, update_parallelism=2))},
    )
    fewest = 10
    for _ in range(600):
        cluster.run(0.1)
        fewest = min(fewest, healthy(cluster))
        if is_updated(cluster, 10):
            break
    assert is_updated(cluster, 10)
    assert fewest >= 8
    assert cluster.run_until(lambda: is_whole(cluster, cluster.hosts[4]), 10.0)


def healthy(cluster: Cluster) -> int:
    return sum(
        container.health.value == "healthy"
        for host in cluster.hosts
        for container in host.engine.present(cluster.clock.now)
    )


def is_updated(cluster: Cluster, replicas: int) -> bool:
    agent = next(host.agent for host in cluster.live() if host.agent is not None and host.agent.deployments)
    (deployment,) = agent.deployments.values()
    state = deployment.state
    done = {p.slot for p in state.promises if p.once_healthy and state.is_current(p) and p.node in agent.alive}
    return len(done) == replicas


@seeds
def test_an_update_ends_though_the_host_of_a_waiting_slot_dies(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10, image="one", healthcheck=CHECK, update_parallelism=2))
    for host in cluster.hosts:
        host.engine.behave("two", Behaviour(healthy_after_s=1.5))
    spec = to_json(app(10, image="two", healthcheck=CHECK, update_parallelism=2))
    cluster.answer(cluster.hosts[0], "deploy", {"spec": spec})
    cluster.run(2.5)
    (victim,) = cluster.running()["web/9"]
    cluster.kill(next(host for host in cluster.hosts if host.name == victim))
    assert cluster.run_until(lambda: is_updated(cluster, 10), 40.0)
    assert cluster.run_until(lambda: runs(cluster, 10), 10.0)
    assert cluster.run_until(lambda: is_whole(cluster, cluster.live()[0]), 10.0)


@seeds
def test_an_update_ends_though_a_host_is_cut_off(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10, image="one", healthcheck=CHECK, update_parallelism=2))
    for host in cluster.hosts:
        host.engine.behave("two", Behaviour(healthy_after_s=1.5))
    spec = to_json(app(10, image="two", healthcheck=CHECK, update_parallelism=2))
    cluster.answer(cluster.hosts[0], "deploy", {"spec": spec})
    cluster.run(2.5)
    (victim,) = cluster.running()["web/9"]
    lonely = next(host for host in cluster.hosts if host.name == victim)
    cluster.cut(lonely)
    rest = [host for host in cluster.hosts if host is not lonely]
    assert cluster.run_until(lambda: has_all(cluster, 10, rest), 40.0)
    cluster.run(20.0)
    cluster.heal()
    assert cluster.run_until(lambda: runs(cluster, 10), 30.0)
    assert cluster.run_until(lambda: all(is_whole(cluster, host) for host in cluster.hosts), 20.0)


@seeds
def test_a_bad_image_stops_the_rollout_at_its_limit(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10, image="one", update_parallelism=2))
    for host in cluster.hosts:
        host.engine.behave("bad", Behaviour(ends_after_s=0.2))
    spec = to_json(app(10, image="bad", update_parallelism=2))
    cluster.answer(cluster.hosts[0], "deploy", {"spec": spec})
    cluster.run(60.0)
    assert len(cluster.running()) >= 8
    cluster.answer(cluster.hosts[1], "deploy", {"spec": to_json(app(10, image="one", update_parallelism=2))})
    assert cluster.run_until(lambda: is_whole(cluster, cluster.hosts[0]), 60.0)


@seeds
def test_the_same_spec_again_changes_nothing_and_scaling_touches_nothing_that_stays(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    before = cluster.started()
    answer = cluster.answer(cluster.hosts[3], "deploy", {"spec": to_json(app(10))})
    assert answer["generation"] == 1
    cluster.answer(cluster.hosts[2], "scale", {"app": "shop", "services": {"web": 15}})
    assert cluster.run_until(lambda: runs(cluster, 15), 5.0)
    assert before.items() <= cluster.started().items()
    cluster.run(60.0)
    cluster.answer(cluster.hosts[1], "scale", {"app": "shop", "services": {"web": 5}})
    assert cluster.run_until(lambda: runs(cluster, 5), 5.0)
    cluster.run(5.0)
    assert all(is_whole(cluster, host) for host in cluster.hosts)


@seeds
def test_scaling_up_long_after_the_deploy_starts_each_new_slot_once(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(5))
    cluster.run(120.0)
    created = sum(len(host.engine.present(cluster.clock.now)) for host in cluster.hosts)
    assert created == 5
    cluster.answer(cluster.hosts[2], "scale", {"app": "shop", "services": {"web": 20}})
    seen: set[str] = set()
    for _ in range(100):
        cluster.run(0.1)
        seen |= {c.id for host in cluster.hosts for c in host.engine.present(cluster.clock.now)}
    assert runs(cluster, 20)
    assert len(seen) == 20
    assert sorted(per_host(cluster).values()) == [4, 4, 4, 4, 4]


@seeds
def test_a_global_service_runs_on_every_node_and_on_each_that_joins(seed: int) -> None:
    cluster = Cluster(6, seed)
    late = cluster.hosts.pop()
    cluster.join_all()
    assert cluster.run_until(cluster.sees_all, 10.0)
    cluster.run(1.5)
    cluster = settled(cluster, app(1, mode=Mode.GLOBAL))
    assert all(count == 1 for count in per_host(cluster).values())
    assert len(per_host(cluster)) == 5
    cluster.hosts.append(late)
    cluster.start(late)
    cluster.run(0.5)
    assert cluster.join(late, cluster.hosts[1]).error is None
    assert cluster.run_until(lambda: per_host(cluster)[late.name] == 1, 10.0)
    cluster.kill(cluster.hosts[0])
    cluster.run(20.0)
    assert per_host(cluster) == {host.name: 1 for host in cluster.hosts[1:]}
    assert cluster.run_until(lambda: is_whole(cluster, late), 5.0)


@seeds
def test_a_global_service_keeps_to_its_constraints(seed: int) -> None:
    spec = app(1, mode=Mode.GLOBAL, constraints=(Constraint("node.labels.zone", True, "z0"),))
    cluster = settled(cluster_of(6, seed), spec)
    assert per_host(cluster) == {"n0": 1, "n3": 1}


@seeds
def test_leaving_hands_over_healthy_replacements_first(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10, healthcheck=CHECK, image="slow"))
    for host in cluster.hosts:
        host.engine.behave("slow", Behaviour(healthy_after_s=2.0))
    leaver = cluster.hosts[1]
    number = cluster.post(leaver, "leave", {"timeout_s": 60})
    fewest = 10
    for _ in range(400):
        cluster.run(0.05)
        fewest = min(fewest, healthy_slots(cluster))
        if leaver.agent is None:
            break
    assert leaver.agent is None
    assert fewest == 10
    assert [reply.item.get("left") for reply in leaver.replies[number]][-1] is True
    cluster.run(5.0)
    assert runs(cluster, 10)
    assert per_host(cluster)[leaver.name] == 0
    assert all(is_whole(cluster, host) for host in cluster.live())
    assert cluster.sees_all()


def healthy_slots(cluster: Cluster) -> int:
    return len(
        {
            container.labels.slot
            for host in cluster.hosts
            for container in host.engine.present(cluster.clock.now)
            if container.health.value == "healthy"
        }
    )


@seeds
def test_who_leaves_and_is_told_to_be_no_member_any_more_first_stops_what_it_ran(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(4))
    leaver = next(host for host in cluster.hosts if len(host.engine.present(cluster.clock.now)) == 1)
    other = next(host for host in cluster.hosts if host is not leaver and host.agent and host.agent.deployments)
    assert leaver.agent is not None
    assert other.agent is not None
    (id,) = leaver.agent.deployments
    number = cluster.post(leaver, "leave", {"timeout_s": 60})
    deployment, out = other.agent.deployments[id], leaver.node

    def strike_off(agent: Agent, now: float) -> list[Effect]:
        draft = deployment.document.draft()
        draft.forget(out)
        deployment.write(draft, now)
        return agent._finish()

    leaver.agent._here.part_with(id)
    cluster.driver.input(other, other.life, strike_off)
    cluster.run(0.5)
    assert leaver.engine.present(cluster.clock.now)
    assert not leaver.replies[number][-1].last
    assert cluster.run_until(lambda: leaver.replies[number][-1].last, 60.0)
    assert leaver.replies[number][-1].error is None
    assert not leaver.engine.present(cluster.clock.now)
    cluster.run(20.0)
    assert len(cluster.running()) == 4


@seeds
def test_leaving_where_nobody_can_take_over_stays_and_says_so(seed: int) -> None:
    cluster = settled(cluster_of(3, seed), app(6, replicas_per_node_max=2))
    before = cluster.started()
    reply = cluster.command(cluster.hosts[1], "leave", {"timeout_s": 5})
    assert reply.error is not None
    cluster.run(20.0)
    assert cluster.started() == before
    assert is_whole(cluster, cluster.hosts[0])


@seeds
def test_a_node_that_is_no_member_answers_as_the_members_do(seed: int) -> None:
    cluster = settled(cluster_of(8, seed), app(2, resilience=2))
    cluster.run(60.0)
    holding = [host for host in cluster.hosts if host.storage.load().documents]
    assert len(holding) == 2
    outside = next(host for host in cluster.hosts if host not in holding)
    for operation in ("status", "promises", "endpoints"):
        assert cluster.answer(outside, operation, {"app": "shop"})
    (line,) = cluster.answer(outside, "ps")["deployments"]
    assert (line["name"], line["wanted"], line["healthy"], line["state"]) == ("shop", 2, 2, "whole")
    assert stream(cluster, outside, "events", {"app": "shop"})
    answer = cluster.answer(outside, "deploy", {"spec": to_json(app(3, resilience=2))})
    assert answer["generation"] == 2
    assert cluster.run_until(lambda: runs(cluster, 3), 5.0)
    cluster.answer(outside, "scale", {"app": "shop", "services": {"web": 4}})
    assert cluster.run_until(lambda: runs(cluster, 4), 5.0)
    assert not outside.storage.load().documents or per_host(cluster)[outside.name]
    cluster.answer(outside, "remove", {"app": "shop"})
    assert cluster.run_until(lambda: not cluster.running(), 5.0)
    cluster.run(5.0)
    assert cluster.answer(outside, "ps")["deployments"] == []


def stream(cluster: Cluster, host: Host, operation: str, arguments: dict[str, Any]) -> list[Any]:
    return list(cluster.operator(host).command(operation, arguments))


@seeds
def test_a_removed_name_can_be_deployed_again(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(5))
    cluster.answer(cluster.hosts[0], "remove", {"app": "shop"})
    assert cluster.run_until(lambda: not cluster.running(), 5.0)
    cluster.run(5.0)
    settled(cluster, app(3), cluster.hosts[2])
    assert runs(cluster, 3)


@seeds
def test_a_name_that_is_taken_is_refused_with_what_it_runs(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(5))
    from dataclasses import replace

    other = app(2)
    other = replace(other, services=(replace(other.services[0], name="database"),))
    for host in (cluster.hosts[0], cluster.hosts[4]):
        reply = cluster.deploy(host, other)
        assert reply.error is not None
        assert reply.error["error"]["code"] == "name_taken"  # type: ignore[index]
        assert "web" in str(reply.error)


@seeds
def test_what_does_not_fit_says_for_each_slot_how_many_nodes_declined_and_why(seed: int) -> None:
    cluster = cluster_of(4, seed)
    cluster.deploy(cluster.hosts[0], app(6, ports=(Port(80, host=8080),)))
    cluster.run(10.0)
    assert len(cluster.running()) == 4
    status = cluster.answer(cluster.hosts[2], "status", {"app": "shop"})
    assert len(status["missing"]) == 2
    assert status["state"] == "degraded"
    spec = app(1, name="huge", resources=Resources(reserve_memory_bytes=1 << 50))
    assert cluster.deploy(cluster.hosts[1], spec).error is None
    cluster.run(5.0)
    (missing,) = cluster.answer(cluster.hosts[3], "status", {"app": "huge"})["missing"]
    assert missing["declined"] == {"not enough memory": 4}
    nowhere = app(1, name="nowhere", constraints=(Constraint("node.labels.zone", True, "moon"),))
    assert cluster.deploy(cluster.hosts[1], nowhere).error is None
    cluster.run(5.0)
    (missing,) = cluster.answer(cluster.hosts[3], "status", {"app": "nowhere"})["missing"]
    assert sum(missing["declined"].values()) == 4


@seeds
def test_a_node_with_room_that_joins_later_takes_what_was_missing(seed: int) -> None:
    cluster = Cluster(4, seed)
    late = cluster.hosts.pop()
    cluster.join_all()
    assert cluster.run_until(cluster.sees_all, 10.0)
    cluster.run(1.5)
    cluster.deploy(cluster.hosts[0], app(4, ports=(Port(80, host=8080),)))
    cluster.run(60.0)
    assert len(cluster.running()) == 3
    cluster.hosts.append(late)
    cluster.start(late)
    cluster.run(0.5)
    assert cluster.join(late, cluster.hosts[0]).error is None
    assert cluster.run_until(lambda: runs(cluster, 4), 6.0)


@seeds
def test_joins_that_cannot_be_say_why_and_change_nothing(seed: int) -> None:
    cluster = Cluster(3, seed)
    for host in cluster.hosts:
        cluster.start(host)
    cluster.run(0.5)
    own = cluster.command(cluster.hosts[0], "join", {"peer": cluster.hosts[0].address})
    assert own.error is not None
    assert "very node" in str(own.error)
    nobody = cluster.command(cluster.hosts[0], "join", {"peer": "10.9.9.9:7946"})
    assert nobody.error is not None
    assert nobody.error["error"]["code"] == "unavailable"  # type: ignore[index]
    stranger = cluster.command(cluster.hosts[0], "join", {"peer": cluster.hosts[1].address})
    assert stranger.error is not None
    assert "an invitation is needed" in str(stranger.error)
    token = cluster.invite(cluster.hosts[1])
    cluster.cut(cluster.hosts[1])
    silent = cluster.command(cluster.hosts[0], "join", {"token": token})
    assert silent.error is not None
    cluster.heal()
    assert [len(host.agent.alive) for host in cluster.hosts if host.agent is not None] == [1, 1, 1]
    for host in (cluster.hosts[0], cluster.hosts[2]):
        assert cluster.join(host, cluster.hosts[1]).error is None
    assert cluster.run_until(cluster.sees_all, 5.0)


@seeds
def test_endpoints_are_where_containers_listen_and_drop_dead_hosts_at_once(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(5, ports=(Port(80),)))
    found = cluster.answer(cluster.hosts[1], "endpoints", {"app": "shop"})["endpoints"]
    assert sorted(endpoint["slot"] for endpoint in found) == wanted(5)
    victim = cluster.hosts[3]
    cluster.kill(victim)
    assert cluster.run_until(lambda: cluster.sees_all(), 6.0)
    found = cluster.answer(cluster.hosts[1], "endpoints", {"app": "shop"})["endpoints"]
    assert victim.name not in {endpoint["node_name"] for endpoint in found}
