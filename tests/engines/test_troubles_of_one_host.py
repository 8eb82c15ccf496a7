"""One host's agent, engine, disk or clock fails, and nothing is lost, doubled or left to guess."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engines.applications import application, slots
from tests.engines.hosts import Cluster, Host
from tests.engines.requirement import require_other_clocks

pytestmark = pytest.mark.engine

TAKE_OVER_TIMEOUT_S = 20.0
RECOVERY_TIMEOUT_S = 60.0
STEADY_S = 3.0
SMALL_DISK = "4m"


def test_06_an_agent_that_is_killed_and_started_again_finds_its_containers_as_they_were(hosts: Cluster) -> None:
    everyone = hosts.start_agents(5)
    hosts.deploy(everyone[0], application(20))
    before = hosts.placed()

    for host in (everyone[0], everyone[2]):
        host.agent.kill()
        host.agent.start()
        hosts.eventually(functools.partial(hosts.sees, host, everyone), TAKE_OVER_TIMEOUT_S, f"{host} is back")
    # what others took on meanwhile, if anything, they give back: the one who promised first still keeps it
    hosts.eventually(lambda: hosts.placed() == before, TAKE_OVER_TIMEOUT_S, "the same containers run, never restarted")
    hosts.eventually(lambda: whole(everyone[2]), TAKE_OVER_TIMEOUT_S, "it is whole")
    hosts.always(lambda: hosts.placed() == before, STEADY_S, "the same containers run, never restarted")


def test_06_an_agent_that_lost_its_disk_leaves_no_container_doubled_or_orphaned(hosts: Cluster) -> None:
    everyone = hosts.start_agents(5)
    hosts.deploy(everyone[0], application(20))
    host = everyone[2]

    host.agent.kill()
    host.agent.wipe()
    host.agent.start()
    host.agent.gary("join", "--token", everyone[0].agent.invite())

    hosts.eventually_each_once(slots(20), RECOVERY_TIMEOUT_S, "20 run, each once")
    hosts.eventually(lambda: whole(everyone[0]), RECOVERY_TIMEOUT_S, "it is whole")
    hosts.stays_each_once(slots(20), STEADY_S)
    said = {slot["slot"]: slot["node_name"] for slot in everyone[0].agent.ask("/v1/deployments/shop")["slots"]}
    assert said == {slot: name for name, kept in hosts.running().items() for slot in kept}
    everyone[1].agent.gary("remove", "shop")
    hosts.eventually(lambda: hosts.count() == 0, TAKE_OVER_TIMEOUT_S, "somebody feels responsible for every container")


def test_13_an_engine_that_stops_and_starts_under_a_live_agent(hosts: Cluster) -> None:
    everyone = hosts.start_agents(5)
    hosts.deploy(everyone[0], application(20))
    host, others = everyone[2], [each for each in everyone if each.number != 3]
    untouched = set(hosts.placed(others))

    host.engine.stop()
    hosts.eventually(lambda: "engine" in kinds(host), TAKE_OVER_TIMEOUT_S, "an event says that the engine is away")
    hosts.eventually(
        lambda: hosts.each_once(slots(20), others) or is_explained(everyone[0]),
        TAKE_OVER_TIMEOUT_S,
        "its slots run elsewhere, or status says why they do not run",
    )
    host.engine.start()

    hosts.eventually_each_once(slots(20), RECOVERY_TIMEOUT_S, "20 run, each once")
    hosts.eventually(lambda: whole(everyone[0]), RECOVERY_TIMEOUT_S, "it is whole")
    hosts.stays_each_once(slots(20), STEADY_S)
    assert host.agent.runs
    assert untouched <= set(hosts.placed(others)), "nobody else's containers were touched"


def test_13_a_full_disk_stops_what_needs_writing_and_nothing_else(hosts: Cluster) -> None:
    host = hosts.hosts[2]
    with small_disk(host):
        everyone = hosts.start_agents(5)
        hosts.deploy(everyone[0], application(10))
        before = set(hosts.placed())
        ballast = host.machine.outside(host.agent.directory) / "ballast"
        fill(ballast)

        everyone[0].agent.run("scale", "shop", "web=20", timeout_s=90)
        hosts.eventually(lambda: "storage" in kinds(host), TAKE_OVER_TIMEOUT_S, "an event says that the disk is full")
        assert host.agent.runs
        assert hosts.sees(everyone[0], everyone), "a full disk is no death"
        assert before <= set(hosts.placed()), "what ran goes on"

        ballast.unlink()
        hosts.eventually_each_once(slots(20), RECOVERY_TIMEOUT_S, "20 run, each once")
        hosts.eventually(lambda: whole(host), RECOVERY_TIMEOUT_S, "it is whole")
        assert before <= set(hosts.placed()), "what ran was not touched"


def test_13_a_clock_that_is_an_hour_ahead_wins_no_argument_for_ever(hosts: Cluster) -> None:
    require_other_clocks()
    everyone = hosts.start_agents(5, clocks_ahead_s={3: 3600.0})
    ahead = everyone[2]
    hosts.deploy(everyone[0], application(10))
    before = set(hosts.placed())

    ahead.agent.gary("scale", "shop", "web=15")
    assert hosts.each_once(slots(15)), hosts.report()
    assert "clock" in kinds(everyone[0]), "the others say that a clock is wrong"
    everyone[0].agent.gary("scale", "shop", "web=12")
    assert hosts.each_once(slots(12)), "what was said last holds, though it was said by the slower clock"
    assert before <= set(hosts.placed())

    left = [host for host in everyone if host.number != 4]
    everyone[3].power_off()
    hosts.eventually_each_once(slots(12), TAKE_OVER_TIMEOUT_S, "all 12 run without the dead host", on=left)
    events = ahead.agent.gary_lines("events")
    offset_s = {event["node_name"]: event["at"] for event in events}[ahead.name] - newest(events, everyone[0].name)
    assert offset_s > 3000, "its clock is an hour ahead indeed"


def newest(events: list[dict[str, object]], name: str) -> float:
    return max(float(str(event["at"])) for event in events if event["node_name"] == name)


def whole(host: Host) -> bool:
    return bool(host.agent.ask("/v1/deployments/shop")["state"] == "whole")


def kinds(host: Host) -> set[str]:
    """The kinds of events that happened on a host."""
    return {event["kind"] for event in host.agent.events() if event["node_name"] == host.name}


def is_explained(host: Host) -> bool:
    """Whether status names a reason for every slot that is not healthy, and there is one."""
    troubled = [slot for slot in host.agent.ask("/v1/deployments/shop")["slots"] if slot["state"] != "healthy"]
    return bool(troubled) and all("engine" in json.dumps(slot) for slot in troubled)


@contextmanager
def small_disk(host: Host) -> Iterator[None]:
    """Give the agent of a host a disk of its own for its state."""
    directory = str(host.agent.directory)
    host.machine.run(["mkdir", "-p", directory])
    host.machine.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=0700", "tmpfs", directory])
    try:
        yield
    finally:
        host.agent.kill()
        if host.is_on:
            host.machine.run(["umount", directory])


def fill(path: Path) -> None:
    """Write to a file until there is no room left for a byte."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
