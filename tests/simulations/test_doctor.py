"""``gary doctor`` on whole agents in virtual time: what peers are asked, and what they do not do for just anybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from gary.commands.doctor import DIALS_MAX
from gary.effects import Dial, Effect
from gary.storage import Write
from simulations.cluster import Cluster
from simulations.host import Host
from tests.simulations.support import SEEDS, app, cluster_of, settled

seeds = pytest.mark.parametrize("seed", SEEDS)
CHECKS = ("disk", "privacy", "clock", "versions", "certificate", "roots", "expulsions", "address", "members", "health")


def verdicts(cluster: Cluster, host: Host) -> dict[str, tuple[str, str]]:
    """The verdict and the words of each check."""
    findings: Any = cluster.answer(host, "doctor")["findings"]
    return {finding["check"]: (finding["verdict"], finding["what"]) for finding in findings}


@seeds
def test_a_sound_cluster_has_nothing_wrong(seed: int) -> None:
    cluster = cluster_of(4, seed)
    for host in cluster.hosts:
        found = verdicts(cluster, host)
        assert {verdict for verdict, _ in found.values()} == {"ok"}, found
        assert list(found) == ["engine docker", *CHECKS]
    assert "reached by n1, n2, n3" in verdicts(cluster, cluster.hosts[0])["address"][1]


def test_an_agent_that_stood_still_says_so() -> None:
    cluster = cluster_of(4, seed=1)
    cluster.pause(cluster.hosts[0])
    cluster.run(1.0)
    cluster.resume(cluster.hosts[0])
    cluster.run(5.0)
    verdict, what = verdicts(cluster, cluster.hosts[0])["health"]
    assert verdict == "ok"
    assert "stood still once" in what


def test_a_node_alone_has_nobody_to_ask() -> None:
    cluster = Cluster(1, seed=1)
    cluster.start(cluster.hosts[0])
    cluster.run(0.5)
    found = verdicts(cluster, cluster.hosts[0])
    assert "clock" not in found
    assert found["members"] == ("ok", "this node is a cluster of one")


@pytest.mark.parametrize(("ahead_s", "verdict"), [(0.5, "ok"), (3.0, "warning"), (-90.0, "problem")])
def test_a_clock_is_compared_with_those_of_peers(ahead_s: float, verdict: str) -> None:
    cluster = cluster_of(4, seed=1)
    cluster.hosts[0].wall_skew_s = ahead_s
    assert verdicts(cluster, cluster.hosts[0])["clock"][0] == verdict
    assert verdicts(cluster, cluster.hosts[1])["clock"][0] == ("ok" if verdict == "ok" else "warning")


def test_a_host_that_is_away_is_named_and_one_that_left_is_not() -> None:
    cluster = cluster_of(4, seed=1)
    assert cluster.command(cluster.hosts[3], "leave", {"timeout_s": 5.0}).error is None
    cluster.kill(cluster.hosts[2])
    cluster.run(10.0)
    verdict, words = verdicts(cluster, cluster.hosts[0])["members"]
    assert (verdict, "n2" in words, "n3" in words) == ("warning", True, False)


def test_an_engine_and_a_disk_that_fail_are_problems_with_their_reasons() -> None:
    cluster = settled(cluster_of(3, seed=1), app(3))
    host = cluster.hosts[0]
    host.engine.go_down("it burns")
    host.storage.failing = "no space left"
    cluster.post(host, "scale", {"app": "shop", "services": {"web": 4}})
    cluster.run(1.0)
    found: Any = cluster.answer(host, "doctor")["findings"]
    problems = {finding["check"]: finding["what"] for finding in found if finding["verdict"] == "problem"}
    assert "it burns" in problems["engine docker"]
    assert "no space left" in problems["disk"]


def test_an_address_that_peers_cannot_connect_to_is_found_out() -> None:
    cluster = cluster_of(4, seed=1)
    cluster.network.shut(cluster.hosts[0].address)
    verdict, words = verdicts(cluster, cluster.hosts[0])["address"]
    assert verdict == "problem"
    assert "n1" in words
    assert verdicts(cluster, cluster.hosts[1])["address"][0] == "ok"


def test_nobody_dials_for_another_than_whom_it_hears() -> None:
    cluster = cluster_of(12, seed=1)
    dialled: list[tuple[str, str]] = []

    class Watcher:
        watches = (Dial,)

        def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
            if isinstance(effect, Dial):
                dialled.append((host.name, effect.address))

        def wrote(self, cluster: Cluster, host: Host, writes: Sequence[Write]) -> None: ...

    cluster.watch(Watcher())
    for host in cluster.hosts:
        cluster.post(host, "doctor", {})
    cluster.run(0.005)
    assert {address for _, address in dialled} <= {host.address for host in cluster.hosts}
    assert max(Counter(name for name, _ in dialled).values()) == DIALS_MAX, "more were asked for, and refused"
    cluster.run(1.0)
    assert all(cluster.answer(host, "doctor")["findings"] for host in cluster.hosts), "and they dial again"
