"""Checkers can fail: each is shown something that it has to find."""

from dataclasses import replace

from crdt import Replica
from gary.document import Document
from gary.effects import StartContainer, StopContainer
from gary.facts import MAPS
from gary.identity import Slot
from gary.runtime.base import StartRequest
from gary.spec import Service
from gary.state import PromiseState
from gary.storage import DeleteRecord, PutRecord, PutSnapshot, Table
from simulations.checkers import liveness
from simulations.cluster import Cluster
from simulations.host import Host
from tests.simulations.support import Safely, app, cluster_of, growth, settled

CANARY = "canary-d4b2f7"


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
    safety = Safely(CANARY.encode())
    cluster.watch(safety)
    safety.wrote(cluster, cluster.hosts[3], [PutRecord(Table.DEPLOYMENT, "x", CANARY.encode())])
    assert "outside of any document" in safety.pop()
    settled(cluster, app(1, name=f"{CANARY}-app"))
    assert safety.violations == []


def test_safety_sees_what_is_told_before_it_is_on_disk() -> None:
    cluster = settled(cluster_of(5, 1), app(1))
    late = Safely()
    cluster.watch(late)  # it has seen none of the writes so far, so to it they did not happen
    cluster.kill(next(host for host in cluster.hosts[1:] if host.storage.load().documents))
    cluster.run(15.0)
    assert any("not on its disk" in violation for violation in late.violations)


def test_safety_sees_statements_that_are_told_before_they_are_on_disk() -> None:
    cluster = cluster_of(4, 1)
    safety = Safely()
    cluster.watch(safety)
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
    safety = Safely()
    here, there = cluster.hosts[1], cluster.hosts[2]
    (container,) = here.engine.present(cluster.clock.now)
    request = StartRequest("shop", "shop", container.labels, Service("web"), "1")
    safety.performs(cluster, there, StartContainer(1, "docker", request))
    assert "without a promise" in safety.pop()
    safety.performs(cluster, here, StartContainer(1, "docker", request))
    safety.performs(cluster, here, StopContainer(1, "docker", container.id, 0.0))
    assert safety.violations == []
    withdraw(cluster, here, container.labels.slot)
    safety.performs(cluster, here, StopContainer(1, "docker", container.id, 0.0))
    assert "nobody has promised it" in safety.pop()


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
