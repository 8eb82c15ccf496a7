"""Whole agents in virtual time: containers whose agent holds no document of them."""

import pytest

from gary.agent import Agent
from gary.effects import Effect
from simulations.cluster import Cluster
from simulations.host import Host
from tests.simulations.support import SEEDS, app, cluster_of, per_host, settled

seeds = pytest.mark.parametrize("seed", SEEDS)


def strike_off(cluster: Cluster, struck: Host) -> None:
    """``struck`` was told to be no member any more, and the members agree."""
    other = next(host for host in cluster.hosts if host is not struck and host.agent and host.agent.deployments)
    assert struck.agent is not None
    assert other.agent is not None
    (id,) = struck.agent.deployments
    deployment = other.agent.deployments[id]

    def forget(agent: Agent, now: float) -> list[Effect]:
        draft = deployment.document.draft()
        draft.forget(struck.node)
        deployment.write(draft, now)
        return agent._finish()

    def part(agent: Agent, now: float) -> list[Effect]:
        agent._here.part_with(id)
        return agent._finish()

    cluster.driver.input(struck, struck.life, part)
    cluster.driver.input(other, other.life, forget)


def of_one_container(cluster: Cluster) -> Host:
    return next(host for host in cluster.hosts if len(host.engine.present(cluster.clock.now)) == 1)


@seeds
def test_a_container_that_comes_up_after_its_node_was_struck_off_is_stopped(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(4))
    struck = of_one_container(cluster)
    struck.timing.start_s = (12.0, 12.0)
    (container,) = struck.engine.present(cluster.clock.now)
    struck.engine.crash(container.id, cluster.clock.now)
    cluster.run(3.0)
    strike_off(cluster, struck)
    cluster.run(7.0)
    assert cluster.run_until(lambda: per_host(cluster)[struck.name] == 1, 10.0)
    assert cluster.run_until(lambda: not struck.engine.present(cluster.clock.now), 20.0)


@seeds
def test_who_hears_nobody_that_knows_of_its_containers_asks_again(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(4))
    struck = of_one_container(cluster)
    cluster.cut(struck)
    strike_off(cluster, struck)
    cluster.run(30.0)
    assert per_host(cluster)[struck.name] == 1
    cluster.heal()
    assert cluster.run_until(lambda: not struck.engine.present(cluster.clock.now), 30.0)
