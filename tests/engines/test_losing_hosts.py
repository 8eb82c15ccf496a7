"""Hosts are cut off or die, in any number and order, and what they ran runs on those that are left."""

from __future__ import annotations

import functools
import time

import pytest

from tests.engines.applications import application, slots
from tests.engines.hosts import Cluster, Host, power_off

pytestmark = pytest.mark.engine

TAKE_OVER_TIMEOUT_S = 20.0
RETURN_TIMEOUT_S = 60.0
STEADY_S = 3.0


def test_02_a_host_that_is_cut_off_is_replaced_and_its_return_restarts_nothing(hosts: Cluster) -> None:
    everyone = hosts.start_agents(5)
    hosts.deploy(everyone[0], application(20))
    assert hosts.each_once(slots(20)), hosts.report()
    before = hosts.placed()
    away, present = everyone[3], [host for host in everyone if host.number != 4]

    away.cut()
    hosts.eventually_each_once(
        slots(20), TAKE_OVER_TIMEOUT_S, f"all 20 run without {away}, which is cut off", on=present
    )
    assert len(hosts.running([away])[away.name]) == 4, "a host that is cut off goes on with what it has"
    meanwhile = hosts.placed()
    assert set(before) <= set(meanwhile), "nothing was restarted or moved that did not have to"

    away.restore()
    hosts.eventually_each_once(slots(20), RETURN_TIMEOUT_S, "the surplus is withdrawn")
    hosts.stays_each_once(slots(20), STEADY_S)
    assert set(hosts.placed()) <= set(meanwhile), "nothing was restarted"


def test_03_three_of_five_hosts_die_in_one_instant_the_sponsor_among_them(hosts: Cluster) -> None:
    everyone = hosts.start_agents(5)
    hosts.deploy(everyone[0], application(20))
    left = everyone[3:]
    before = hosts.placed(left)

    power_off(everyone[:3])

    hosts.eventually_each_once(slots(20), TAKE_OVER_TIMEOUT_S, "all 20 run on the two that are left", on=left)
    assert set(before) <= set(hosts.placed(left)), "what ran there was not touched"


def test_04_four_of_five_die_one_by_one_and_return_with_their_disks(hosts: Cluster) -> None:
    everyone = hosts.start_agents(5)
    deployed = hosts.deploy(everyone[0], application(20))
    last = everyone[4]
    before = hosts.placed([last])
    for host in everyone[:4]:
        begin = time.monotonic()
        host.power_off()
        left = [each for each in everyone if each.is_on]
        hosts.eventually_each_once(slots(20), TAKE_OVER_TIMEOUT_S, f"all 20 run on {left}", on=left)
        time.sleep(max(0.0, begin + 10 - time.monotonic()))  # they die 10 s apart
    assert hosts.each_once(slots(20), [last]), hosts.report()
    assert set(before) <= set(hosts.placed([last]))

    for host in everyone[:4]:
        host.power_on()
        host.agent.start()

    hosts.eventually(lambda: all(hosts.sees(host, everyone) for host in everyone), RETURN_TIMEOUT_S, "all are back")
    hosts.eventually_each_once(slots(20), RETURN_TIMEOUT_S, "20 run, each once")
    hosts.eventually(
        lambda: last.agent.ask("/v1/deployments/shop")["state"] == "whole", RETURN_TIMEOUT_S, "it is whole"
    )
    hosts.stays_each_once(slots(20), STEADY_S)
    assert last.agent.gary("status", "shop")["id"] == deployed["id"]


def test_08_one_replica_outlives_host_after_host(hosts: Cluster) -> None:
    everyone = hosts.start_agents(5)
    hosts.deploy(everyone[0], application(1))
    left = list(everyone)
    while len(left) > 1:
        keeper = only_runner(left)
        hosts.eventually(
            functools.partial(is_guarded, keeper, min(3, len(left))),
            TAKE_OVER_TIMEOUT_S,
            "enough nodes guard the document again",
        )
        left.remove(keeper)
        keeper.power_off()
        hosts.eventually_each_once(slots(1), TAKE_OVER_TIMEOUT_S, f"it runs on, now that {keeper} is dead", on=left)
    hosts.eventually(
        lambda: left[0].agent.gary("status", "shop")["state"] == "whole", TAKE_OVER_TIMEOUT_S, "it is whole on the last"
    )


def only_runner(hosts: list[Host]) -> Host:
    runners = [host for host in hosts if host.running()]
    assert len(runners) == 1, runners
    return runners[0]


def is_guarded(keeper: Host, members: int) -> bool:
    """Whether at least so many live members hold the document, by the word of the one that runs it."""
    have: int = keeper.agent.ask("/v1/deployments/shop")["resilience"]["have"]
    return have >= members
