"""Whole agents in virtual time: hosts that come back with disks of earlier days."""

import pytest

from gary.acquaintance import digest
from gary.messages import Gone, Orphans
from gary.storage import MemoryStorage, Table
from gossip import Lane, Send
from simulations.checkers import liveness
from simulations.checkers.frames import messages
from simulations.cluster import Cluster
from simulations.host import Host
from tests.simulations.support import SEEDS, Safely, app, cluster_of, growth, settled
from tests.simulations.test_trust_attacks import payload

seeds = pytest.mark.parametrize("seed", SEEDS)


def restore(cluster: Cluster, host: Host, copy: MemoryStorage) -> None:
    cluster.kill(host, with_host=False)
    host.storage.restore(copy)
    cluster.start(host)


def holders(cluster: Cluster) -> list[Host]:
    return [host for host in cluster.live() if host.agent is not None and host.agent.deployments]


def keeper(cluster: Cluster) -> Host:
    return next(host for host in cluster.hosts[1:] if host.engine.present(cluster.clock.now))


@seeds
def test_a_member_whose_disk_is_from_before_it_was_invited_is_given_the_document_again(seed: int) -> None:
    cluster = cluster_of(5, seed)
    copies = {host.name: host.storage.copy() for host in cluster.hosts}
    safety = Safely()
    cluster.watch(safety)
    settled(cluster, app(5))
    host, started = keeper(cluster), cluster.started()
    restore(cluster, host, copies[host.name])
    assert not host.storage.load().documents
    assert cluster.run_until(lambda: not liveness(cluster), 90.0, 1.0), liveness(cluster)
    assert host.storage.load().documents
    assert cluster.started() == started
    assert growth(cluster, 60.0) == []
    assert safety.violations == []


@seeds
def test_a_witness_whose_disk_is_from_before_it_was_invited_guards_again(seed: int) -> None:
    cluster = cluster_of(5, seed)
    copies = {host.name: host.storage.copy() for host in cluster.hosts}
    settled(cluster, app(1))
    members = [host for host in cluster.hosts if host.agent and host.agent.deployments]
    witness = next(host for host in members if not host.engine.present(cluster.clock.now))
    restore(cluster, witness, copies[witness.name])
    assert cluster.run_until(lambda: bool(witness.storage.load().documents), 60.0)
    assert cluster.run_until(lambda: not liveness(cluster), 60.0, 1.0), liveness(cluster)


@seeds
def test_who_left_and_told_only_a_disk_that_forgot_it_leaves_once_more(seed: int) -> None:
    cluster = settled(cluster_of(6, seed), app(3, resilience=1))
    side = [host for host in cluster.hosts if host.engine.present(cluster.clock.now)][:2]
    cluster.partition(side, [host for host in cluster.hosts if host not in side])
    cluster.run(20.0)
    cluster.answer(side[0], "scale", {"app": "shop", "services": {"web": 1}})
    cluster.run(2.0)
    (name,) = set(cluster.running("web/1")["web/1"]) & {host.name for host in side}
    keeper, leaver = sorted(side, key=lambda host: host.name != name)
    copy = keeper.storage.copy()
    assert cluster.run_until(lambda: not leaver.storage.load().documents, 60.0)
    restore(cluster, keeper, copy)
    cluster.heal()
    assert cluster.run_until(lambda: not liveness(cluster), 120.0, 1.0), liveness(cluster)


@seeds
def test_who_holds_the_next_instance_says_what_it_knows_of_the_removed_one(seed: int) -> None:
    cluster = settled(cluster_of(3, seed), app(3))
    orphaned, host = cluster.hosts[0], cluster.hosts[1]
    container = orphaned.engine.present(cluster.clock.now)[0]
    cluster.kill(orphaned, with_host=False)
    orphaned.storage.wipe()
    cluster.run(10.0)
    cluster.answer(host, "remove", {"app": "shop"})
    assert cluster.run_until(lambda: not holders(cluster), 60.0)
    cluster.run(3.0)
    assert cluster.deploy(host, app(3)).error is None
    cluster.run(5.0)
    agent = host.agent
    assert agent is not None
    (id,) = agent.deployments
    instance = container.labels.generation.partition(".")[0]
    frame = payload(host, cluster.hosts[2].node, Orphans(id, (container.labels.slot,), ()))
    effects = agent.received(cluster.hosts[2].node, Lane.BULK, frame, cluster.clock.now)
    told = [m for e in effects if isinstance(e, Send) for m in messages(e.frame) if isinstance(m, Gone)]
    assert [digest(instance) in gone.digests for gone in told] == [True]


@seeds
def test_a_removal_is_remembered_while_one_lives_who_knows_of_it_though_no_restored_disk_knows_of_that_one(
    seed: int,
) -> None:
    cluster = settled(cluster_of(6, seed), app(3, resilience=2))
    first = [host for host in cluster.hosts if host.storage.load().documents]
    copies = {host.name: host.storage.copy() for host in first}
    cluster.kill(first[-1])
    assert cluster.run_until(lambda: len(holders(cluster)) >= len(first), 60.0)
    cluster.run(10.0)
    late = next(host for host in holders(cluster) if host not in first)
    cluster.answer(late, "remove", {"app": "shop"})
    assert cluster.run_until(lambda: not holders(cluster), 60.0)
    cluster.kill(late)
    cluster.run(10.0)
    for host in first:
        restore(cluster, host, copies[host.name])
    cluster.run(30.0)
    assert holders(cluster), "nobody whom they know is left to tell them"
    cluster.start(late)
    assert cluster.run_until(lambda: not holders(cluster) and not cluster.running(), 60.0)


@seeds
def test_who_knows_an_earlier_life_to_be_removed_does_no_harm_to_the_next_one(seed: int) -> None:
    cluster = settled(cluster_of(6, seed), app(3, resilience=2))
    first = holders(cluster)
    cluster.answer(first[0], "remove", {"app": "shop"})
    assert cluster.run_until(lambda: not holders(cluster), 60.0)
    cluster.run(5.0)
    outside = next(host for host in cluster.hosts if host not in first)
    settled(cluster, app(1, resilience=1), outside)
    for host in first:
        cluster.restart(host)
    cluster.run(60.0)
    assert outside in holders(cluster)
    assert len(cluster.running()) == 1
    assert not [e for host in cluster.live() if host.agent for e in host.agent.events if e.kind == "stranger"]


@seeds
def test_a_node_goes_on_in_the_life_in_which_others_have_seen_it(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(5))
    host = keeper(cluster)
    copy = host.storage.copy()
    for _ in range(3):
        cluster.restart(host)
        cluster.run(5.0)
    assert host.agent is not None
    lived = host.agent.swim.incarnation.epoch
    restore(cluster, host, copy)
    assert cluster.run_until(lambda: not liveness(cluster), 60.0, 1.0), liveness(cluster)
    assert host.agent.swim.incarnation.epoch >= lived
    seen = {other.agent.alive[host.node] for other in cluster.live() if other.agent is not None}
    assert seen == {host.agent.swim.incarnation.epoch}
    (deployment,) = host.agent.deployments.values()
    assert {promise.epoch for promise in deployment.state.promises_of(host.node)} == seen
    cluster.run(1.0)
    cluster.restart(host)
    assert host.agent.swim.incarnation.epoch > lived


@seeds
def test_no_word_of_others_uses_up_the_epochs_of_a_node(seed: int) -> None:
    cluster = cluster_of(3, seed)
    host = cluster.hosts[1]
    before = host.storage.load().records[Table.NODE]["epoch"]
    cluster.act(host, lambda agent, now: agent._here.raise_epoch(2**41) or [])  # type: ignore[func-returns-value]
    cluster.run(1.0)
    assert host.storage.load().records[Table.NODE]["epoch"] == before
    assert host.agent is not None
    assert host.agent.counters["epochs_refused"] == 1


@seeds
def test_who_left_and_comes_back_as_it_was_before_does_not_wait_for_those_that_hold_nothing(seed: int) -> None:
    cluster = cluster_of(6, seed)
    settled(cluster, app(3))
    members = [host for host in cluster.hosts if host.agent and host.agent.deployments]
    host = members[-1]
    copy = host.storage.copy()
    for other in members[1:]:
        cluster.cut(other)
        cluster.run(25.0)
        cluster.heal()
        cluster.run(25.0)
    restore(cluster, host, copy)
    assert cluster.run_until(lambda: not liveness(cluster), 120.0, 1.0), liveness(cluster)
