"""The driver itself: one seed, one trace; and whole runs with all kinds of faults, after which all is well."""

import json
import os
import shutil
import subprocess
import sys
from typing import get_args

import pytest

from gary.deployment import Deployment
from gary.effects import Effect, Observe, SetAlarm
from gary.replication import COMPARE_S
from gossip import CancelTimer, Lane, Send, SetTimer
from simulations.host import Host
from simulations.run import Run
from simulations.scenarios.model import Chance, Deployments, Hosts, Scenario
from tests.simulations.support import app, cluster_of, settled


def trace_in_a_process(hash_seed: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "simulations", *arguments, "--json"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(json.loads(done.stdout)["trace"])


def test_an_agent_at_rest_without_deployments_probes_and_looks_at_its_engine_and_does_nothing_else() -> None:
    cluster = settled(cluster_of(8, 1), app(2))
    cluster.run(30.0)
    asked: dict[str, set[object]] = {host.name: set() for host in cluster.hosts}

    def see(host: Host, effect: Effect) -> None:
        asked[host.name].add(effect.alarm.kind if isinstance(effect, SetAlarm) else type(effect))

    for kind in get_args(Effect):
        cluster.driver.watch(kind, see)
    cluster.run(120.0)
    idle = [host for host in cluster.hosts if host.agent is not None and not host.agent.deployments]
    assert idle
    for host in idle:
        assert asked[host.name] == {Send, SetTimer, CancelTimer, Observe, "observe"}


def test_a_member_at_rest_compares_its_document_and_looks_at_it_anew_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = settled(cluster_of(3, 1), app(2))
    cluster.run(30.0)
    looks: list[float] = []
    evaluate = Deployment.evaluate

    def look(deployment: Deployment, now: float) -> None:
        looks.append(now)
        evaluate(deployment, now)

    monkeypatch.setattr(Deployment, "evaluate", look)
    compared: list[str] = []

    def see(host: Host, effect: Effect) -> None:
        if isinstance(effect, Send) and effect.lane is Lane.BULK:
            compared.append(host.name)

    cluster.driver.watch(Send, see)
    cluster.run(300.0)
    holding = [host for host in cluster.hosts if host.agent is not None and host.agent.deployments]
    assert holding
    assert len(looks) == 5 * len(holding)
    assert all(compared.count(host.name) >= 300.0 / (1.25 * COMPARE_S) - 1 for host in holding)


def test_no_timer_goes_off_for_nothing_and_none_is_kept_that_is_over() -> None:
    cluster = settled(cluster_of(8, 1), app(4))
    cluster.kill(cluster.hosts[3])
    cluster.run(15.0)
    cluster.start(cluster.hosts[3])
    cluster.run(60.0)
    for host in cluster.live():
        assert host.agent is not None
        assert host.agent.swim.counters().get("timers_stale", 0) == 0
        assert len(host.timers) <= 4


@pytest.mark.long
def test_equal_seeds_give_equal_traces_whatever_the_hash_seed() -> None:
    options = ("--nodes", "7", "--deployments", "2", "--for", "40s", "--faults", "--seed")
    first = trace_in_a_process("1", *options, "5")
    assert first == trace_in_a_process("4711", *options, "5")
    assert first != trace_in_a_process("1", *options, "6")


@pytest.mark.long
def test_the_compiled_form_gives_the_same_trace() -> None:
    if shutil.which("cc") is None and not os.environ.get("GARY_REQUIRE_ENGINES"):
        pytest.skip("there is no C compiler here: apt install gcc libc6-dev python3-dev")
    options = ("--nodes", "12", "--deployments", "3", "--for", "60s", "--faults", "--seed", "9")
    assert trace_in_a_process("1", *options, "--compiled") == trace_in_a_process("1", *options)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 9))
def test_all_kinds_of_faults_are_survived_and_once_they_are_over_all_is_whole(seed: int) -> None:
    scenario = Scenario(
        name="bad day",
        seed=seed,
        for_s=90.0,
        hosts=(Hosts(12),),
        deployments=(Deployments(count=3, within_s=3.0),),
        chance=Chance(for_s=75.0, from_s=10.0, lasts_s=(1.0, 15.0)),
    )
    run = Run(scenario)
    for _ in run.steps():
        pass
    result = run.report()
    assert len(result.happenings) > 10
    assert [finding.said for finding in result.findings] == []


@pytest.mark.long
def test_a_hundred_hosts_have_a_bad_day() -> None:
    scenario = Scenario(
        name="bad day",
        seed=7,
        for_s=60.0,
        hosts=(Hosts(100),),
        deployments=(Deployments(count=10, within_s=3.0),),
        chance=Chance(for_s=45.0, from_s=10.0),
    )
    run = Run(scenario)
    for _ in run.steps():
        pass
    assert [finding.said for finding in run.report().findings] == []
