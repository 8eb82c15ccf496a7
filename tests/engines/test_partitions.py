"""Networks that fall apart and come together again, and links that work in one direction only."""

from __future__ import annotations

import pytest

from tests.engines.applications import application, slots
from tests.engines.hosts import Cluster

pytestmark = pytest.mark.engine

TAKE_OVER_TIMEOUT_S = 25.0
HEAL_TIMEOUT_S = 60.0
STEADY_S = 3.0
ONE_WAY_S = 20.0


def test_07_both_sides_of_a_partition_are_whole_and_become_one_application_again(hosts: Cluster) -> None:
    everyone = hosts.start_agents(5)
    hosts.deploy(everyone[0], application(20))
    small, large = everyone[:2], everyone[2:]

    hosts.divide(small, large)
    for side in (small, large):
        hosts.eventually_each_once(slots(20), TAKE_OVER_TIMEOUT_S, f"the side of {side} is whole", on=side)
    small[0].agent.gary("scale", "shop", "web=12")
    hosts.eventually_each_once(slots(12), TAKE_OVER_TIMEOUT_S, "one side is scaled", on=small)
    assert hosts.each_once(slots(20), large), "the other side does not know"

    hosts.unite()
    hosts.eventually_each_once(slots(12), HEAL_TIMEOUT_S, "12 run, each once")
    hosts.stays_each_once(slots(12), STEADY_S)
    for host in everyone:
        deployments = host.agent.gary("ps")["deployments"]
        assert [deployment["name"] for deployment in deployments] == ["shop"]
        assert deployments[0]["wanted"] == 12

    hosts.divide(small, large)
    for side in (small, large):
        hosts.eventually_each_once(slots(12), TAKE_OVER_TIMEOUT_S, f"the side of {side} is whole", on=side)
    small[1].agent.gary("remove", "shop")
    large[0].agent.gary("scale", "shop", "web=6")
    large[1].agent.gary("scale", "shop", "web=9")
    hosts.eventually(lambda: hosts.count(small) == 0, TAKE_OVER_TIMEOUT_S, "it is removed on one side")
    hosts.eventually_each_once(slots(9), TAKE_OVER_TIMEOUT_S, "it is scaled on the other", on=large)

    hosts.unite()
    hosts.eventually(lambda: hosts.count() == 0, HEAL_TIMEOUT_S, "the removal wins")
    hosts.always(lambda: hosts.count() == 0, STEADY_S, "it stays removed")
    superseded = [event for event in large[1].agent.gary_lines("events") if event["kind"] == "superseded"]
    assert any(event.get("deployment") == "shop" for event in superseded), superseded


def test_12_nothing_moves_to_and_fro_while_one_host_cannot_hear_another(hosts: Cluster) -> None:
    everyone = hosts.start_agents(5)
    hosts.deploy(everyone[0], application(20))
    before = {container.id for host in everyone for container in host.running()}

    everyone[1].lose_all_from(everyone[3])

    hosts.always(
        lambda: {container.id for host in everyone for container in host.running()} == before,
        ONE_WAY_S,
        "every container stays where it is",
    )
    everyone[1].lose_nothing()
    hosts.always(
        lambda: {container.id for host in everyone for container in host.running()} == before,
        STEADY_S,
        "every container stays where it is",
    )
