"""The driver itself: one seed, one trace; checkers that can fail; random faults that heal."""

import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest

from crdt import Replica
from gary.document import Document
from gary.effects import StartContainer, StopContainer
from gary.facts import MAPS
from gary.identity import Slot
from gary.runtime.base import StartRequest
from gary.spec import Service
from gary.state import PromiseState
from gary.storage import DeleteRecord, PutRecord, PutSnapshot, Table
from simulations.checkers import Safety, growth, liveness
from simulations.cluster import Cluster
from simulations.faults.bad_day import BadDay
from simulations.host import Host
from simulations.scenario import life
from tests.simulations.support import app, cluster_of, settled

CANARY = "canary-d4b2f7"


def trace_in_a_process(hash_seed: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "simulations", "life", *arguments],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split("trace ")[1].split()[0]


@pytest.mark.long
def test_equal_seeds_give_equal_traces_whatever_the_hash_seed() -> None:
    options = ("--nodes", "7", "--replicas", "4", "--faults", "10", "--seed")
    first = trace_in_a_process("1", *options, "5")
    assert first == trace_in_a_process("4711", *options, "5")
    assert first != trace_in_a_process("1", *options, "6")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 7))
def test_a_bad_day_is_survived_and_once_it_is_over_all_is_whole(seed: int) -> None:
    cluster = cluster_of(7, seed)
    safety = Safety(CANARY.encode())
    cluster.watchers.append(safety)
    spec = app(8, name=f"{CANARY}-app", image=CANARY)
    assert cluster.deploy(cluster.hosts[0], spec).error is None
    day = BadDay(cluster, random.Random(seed), spec)
    day.go_on(60.0)
    day.end()
    assert sum(day.happened.values()) > 10
    cluster.run_until(lambda: not liveness(cluster), 180.0, 1.0)
    cluster.run(40.0)
    assert [*liveness(cluster), *growth(cluster, 60.0), *safety.violations] == []


@pytest.mark.long
@pytest.mark.parametrize("nodes", [20, 100])
def test_a_scripted_life_of_many_nodes_goes_well(nodes: int) -> None:
    assert life(nodes, 7).problems == []


def test_liveness_sees_a_container_that_is_missing_and_one_too_many() -> None:
    cluster = settled(cluster_of(4, 1), app(4))
    assert liveness(cluster) == []
    host = cluster.hosts[1]
    (container,) = host.engine.present(cluster.clock.now)
    host.engine.stop(container.id, 0.0, cluster.clock.now)
    assert any("web/" in problem for problem in liveness(cluster))


def test_liveness_sees_nodes_that_do_not_see_each_other_and_documents_that_differ() -> None:
    cluster = settled(cluster_of(4, 1), app(4))
    cluster.cut(cluster.hosts[2])
    cluster.run(8.0)
    problems = liveness(cluster)
    assert any("misses" in problem for problem in problems)
    assert any("different documents" in problem for problem in problems)


def test_liveness_expects_who_is_expelled_to_be_out_and_all_others_to_be_of_the_present_root() -> None:
    cluster = settled(cluster_of(5, 1), app(5))
    cluster.answer(cluster.hosts[0], "expel", {"node": "n2"})
    cluster.answer(cluster.hosts[0], "rotate", {"overlap_s": 3600.0})
    assert any("different ledgers" in problem for problem in liveness(cluster))
    assert cluster.run_until(lambda: not liveness(cluster), 60.0, 1.0)
    assert any(container.labels.slot for container in cluster.hosts[2].engine.present(cluster.clock.now))
    lagging = cluster.hosts[3]
    assert lagging.agent is not None
    lagging.credentials = replace(lagging.credentials, certificate="<n3 by <another root>>")
    assert liveness(cluster) == ["n3 shows a certificate of another root than the present one"]


def test_liveness_waits_for_what_has_to_be_said_still() -> None:
    cluster = settled(cluster_of(4, 1), app(4))
    host = cluster.hosts[1]
    (container,) = host.engine.present(cluster.clock.now)
    for _ in range(2):
        host.engine.crash(container.id, cluster.clock.now)
        cluster.run_until(lambda: len(cluster.running()) == 4, 20.0)
    cluster.run(0.5)
    problems = liveness(cluster)
    assert [problem for problem in problems if "the document says" not in problem] == []
    assert problems
    assert cluster.run_until(lambda: not liveness(cluster), 60.0, 1.0)


def test_growth_sees_a_document_that_grows() -> None:
    cluster = settled(cluster_of(4, 1), app(4))
    assert growth(cluster, 60.0) == []
    cluster.post(cluster.hosts[0], "scale", {"app": "shop", "services": {"web": 5}})
    assert growth(cluster, 10.0) != []


def test_safety_sees_bytes_outside_of_documents_and_what_is_told_too_early() -> None:
    cluster = cluster_of(4, 1)
    safety = Safety(CANARY.encode())
    cluster.watchers.append(safety)
    safety.wrote(cluster, cluster.hosts[3], [PutRecord(Table.DEPLOYMENT, "x", CANARY.encode())])
    assert "outside of any document" in safety.violations.pop()
    settled(cluster, app(1, name=f"{CANARY}-app"))
    assert safety.violations == []


def test_safety_sees_what_is_told_before_it_is_on_disk() -> None:
    cluster = settled(cluster_of(5, 1), app(1))
    late = Safety()
    cluster.watchers.append(late)  # it has seen none of the writes so far, so to it they did not happen
    cluster.kill(next(host for host in cluster.hosts[1:] if host.storage.load().documents))
    cluster.run(15.0)
    assert any("not on its disk" in violation for violation in late.violations)


def test_safety_sees_statements_that_are_told_before_they_are_on_disk() -> None:
    cluster = cluster_of(4, 1)
    safety = Safety()
    cluster.watchers.append(safety)
    settled(cluster, app(1))
    cluster.cut(cluster.hosts[3])
    cluster.answer(cluster.hosts[0], "rotate", {"overlap_s": 3600.0})
    cluster.run(10.0)
    assert safety.violations == []
    for host in cluster.hosts:
        names = [name for name in host.storage.load().records[Table.TRUST] if name.startswith("statement/")]
        host.storage.write([DeleteRecord(Table.TRUST, name) for name in names])
    cluster.heal()
    cluster.run(20.0)
    assert any("statements that are not on its disk" in violation for violation in safety.violations)


def test_safety_sees_a_start_without_a_promise_and_a_stop_of_what_nobody_else_promised() -> None:
    cluster = settled(cluster_of(4, 1), app(4))
    safety = Safety()
    here, there = cluster.hosts[1], cluster.hosts[2]
    (container,) = here.engine.present(cluster.clock.now)
    request = StartRequest("shop", "shop", container.labels, Service("web"), "1")
    safety.performs(cluster, there, StartContainer(1, "docker", request))
    assert "without a promise" in safety.violations.pop()
    safety.performs(cluster, here, StartContainer(1, "docker", request))
    safety.performs(cluster, here, StopContainer(1, "docker", container.id, 0.0))
    assert safety.violations == []
    withdraw(cluster, here, container.labels.slot)
    safety.performs(cluster, here, StopContainer(1, "docker", container.id, 0.0))
    assert "nobody has promised it" in safety.violations.pop()


def withdraw(cluster: Cluster, host: Host, slot: Slot) -> None:
    """Put on every disk that ``host`` withdrew its promise, behind the agents' backs."""
    ((id, stored),) = host.storage.load().documents.items()
    actor = bytes.fromhex(host.node) + b"\0" * 8
    document = Document(Replica.load(actor, MAPS, stored.snapshot, stored.changes), host.node)
    promise = document.state.promise(host.node, slot)
    assert promise is not None
    draft = document.draft()
    draft.promise(replace(promise, state=PromiseState.WITHDRAWN))
    document.commit(draft)
    for other in cluster.hosts:
        other.storage.write([PutSnapshot(id, document.replica.save())])
