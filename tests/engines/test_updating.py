"""Updates go on in order, and their limit holds, while hosts are lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.engines.applications import application, slots
from tests.engines.hosts import Cluster, Host
from tests.engines.watch import most_down_at_once, watching

pytestmark = pytest.mark.engine

REPLICAS = 10
PARALLELISM = 2
UPDATE_TIMEOUT_S = 90.0
RETURN_TIMEOUT_S = 60.0


@pytest.mark.parametrize("loss", ["dies", "is cut off"])
def test_11_an_update_takes_down_two_at_most_and_ends_although_a_host_is_lost(hosts: Cluster, loss: str) -> None:
    everyone = hosts.start_agents(5)
    version = {number: _version(number) for number in (1, 2)}
    hosts.deploy(everyone[0], version[1])
    running = hosts.placed()
    assert sorted(one.slot for one in running) == slots_in_order()
    last_slot = slots(REPLICAS)[-1]
    lost = next(host for host in everyone if any(one.slot == last_slot and one.host == host.name for one in running))
    sponsor = next(host for host in everyone if host is not lost)
    left = [host for host in everyone if host is not lost]
    spared = [slot for slot in slots(REPLICAS) if slot not in hosts.running([lost])[lost.name]]

    with watching(left) as watch, ThreadPoolExecutor(max_workers=1) as pool:
        update = pool.submit(sponsor.agent.run, "deploy", str(hosts.write(version[2])))
        hosts.eventually(lambda: any(each.runs for each in watch.history()), UPDATE_TIMEOUT_S, "the update has begun")
        if loss == "dies":
            lost.power_off()
        else:
            lost.cut()
        done = update.result(timeout=UPDATE_TIMEOUT_S)
        assert done.exit_code == 0, f"{done.talk}\n{hosts.report()}"
        assert hosts.each_once(slots(REPLICAS), left), hosts.report()
        history = watch.history()

    at_first = [(one.slot, one.id) for one in running]
    assert most_down_at_once(history, at_first, spared) <= PARALLELISM, history
    assert _versions(left) == {"VERSION=2"}

    if loss == "is cut off":
        lost.restore()
        hosts.eventually(
            lambda: hosts.each_once(slots(REPLICAS)) and _versions(everyone) == {"VERSION=2"},
            RETURN_TIMEOUT_S,
            "the host that missed the update follows",
        )


def slots_in_order() -> list[str]:
    return sorted(slots(REPLICAS))


def _version(number: int) -> dict[str, object]:
    return application(REPLICAS, parallelism=PARALLELISM, environment={"VERSION": str(number)})


def _versions(hosts: list[Host]) -> set[str]:
    """The versions that really run."""
    return {
        variable
        for host in hosts
        for container in host.running()
        for variable in host.engine.environment(container.id)
        if variable.startswith("VERSION=")
    }
