"""Getting in, being refused, leaving, coming back, and living twice."""

import pytest

from gossip import Advertisement, Incarnation, Joined, JoinFailed, JoinFailure, Peer, Status, SwimConfig
from gossip.directory import Publication
from gossip.messages import VERSIONS, Join, Refuse, Welcome, frame, frame_head
from tests.gossip.harness import CLUSTER, Network, Solo, address_of, alive, dead, left, node_id, of_type, suspect

OTHER_CLUSTER = b"another cluster!"


def only_failure(solo: Solo) -> JoinFailed:
    (failure,) = of_type(solo.events, JoinFailed)
    return failure


def test_a_node_joins_another_cluster_and_takes_over_its_id_members_and_advertisements() -> None:
    network = Network(seed=1)
    hosts = network.cluster_of(3)
    network.perform(hosts[1], hosts[1].swim.advertise(Advertisement(("app",), b"body"), network.now))
    network.run(5)
    newcomer = network.host(9, cluster=OTHER_CLUSTER)
    network.start(newcomer)
    network.perform(newcomer, newcomer.swim.join(hosts[2].address, network.now))
    network.run(0.01)
    assert network.joins(newcomer) == [Joined(CLUSTER, b"secret")]
    assert newcomer.swim.cluster == CLUSTER
    assert newcomer.swim.alive() == tuple(sorted(host.node for host in (*hosts, newcomer)))
    assert newcomer.swim.directory.responsible("app") == (hosts[1].node,)
    network.wait(lambda: network.see_each_other([*hosts, newcomer]), 1.0)


def test_a_join_gets_through_a_lossy_network() -> None:
    for seed in range(20):
        network = Network(seed=seed, loss=0.3)
        member, newcomer = network.host(1), network.host(2, cluster=OTHER_CLUSTER)
        network.start(member)
        network.start(newcomer)
        network.perform(newcomer, newcomer.swim.join(member.address, network.now))
        network.run(5.1)
        assert [type(answer) for answer in network.joins(newcomer)] == [Joined]


def test_joining_the_own_cluster_again_is_a_success() -> None:
    network = Network()
    hosts = network.cluster_of(3)
    hosts[1].events.clear()
    network.perform(hosts[1], hosts[1].swim.join(hosts[2].address, network.now))
    network.run(1.0)
    assert network.joins(hosts[1]) == [Joined(CLUSTER, b"secret")]


def test_a_join_that_nobody_answers_times_out_and_is_asked_again_until_then() -> None:
    solo = Solo()
    solo.perform(solo.swim.join("10.0.0.2:7946", solo.now))
    solo.passes(4.9)
    assert len([message for _, message in solo.sent if isinstance(message, Join)]) == 10
    assert solo.events == []
    solo.passes(0.2)
    assert only_failure(solo).reason is JoinFailure.TIMEOUT
    solo.forget()
    solo.passes(10)
    assert solo.events == []


@pytest.mark.parametrize(
    ("reason", "failure"),
    [
        ("connection refused", JoinFailure.UNREACHABLE),
        ("not a Gary node: handshake failed", JoinFailure.NOT_GARY),
        ("protocol error", JoinFailure.NOT_GARY),
    ],
)
def test_what_the_transport_knows_is_the_diagnosis(reason: str, failure: JoinFailure) -> None:
    solo = Solo()
    solo.perform(solo.swim.join("10.0.0.2:7946", solo.now))
    solo.perform(solo.swim.unreachable(Peer("", "10.0.0.2:7946"), reason, solo.now))
    assert solo.events == [JoinFailed("10.0.0.2:7946", failure, reason)]


def test_joining_the_own_address_fails_as_self() -> None:
    solo = Solo()
    solo.perform(solo.swim.join(address_of(1), solo.now))
    assert only_failure(solo).reason is JoinFailure.SELF


def test_joining_oneself_under_another_address_fails_as_self() -> None:
    network = Network()
    host = network.host(1)
    network._by_address["localhost:7946"] = host
    network.perform(host, host.swim.join("localhost:7946", network.now))
    network.run(1.0)
    (failed,) = network.joins(host)
    assert isinstance(failed, JoinFailed)
    assert failed.reason is JoinFailure.SELF
    assert network.conflicts(host) == []


def test_a_node_that_speaks_another_version_is_named_as_the_reason() -> None:
    solo = Solo()
    solo.perform(solo.swim.join("10.0.0.2:7946", solo.now))
    newer = bytes((0x95, VERSIONS.highest + 1)) + frame(frame_head(OTHER_CLUSTER, node_id(2)), [])[2:]
    solo.receives(newer)
    assert only_failure(solo).reason is JoinFailure.VERSION


def test_a_cluster_with_other_live_members_is_not_deserted_by_a_join() -> None:
    solo = Solo(knows=[2])
    solo.perform(solo.swim.join("10.0.0.9:7946", solo.now))
    (join,) = [message for _, message in solo.sent if isinstance(message, Join)]
    solo.hears(9, Welcome(join.attempt, b"come"), cluster=OTHER_CLUSTER)
    assert only_failure(solo).reason is JoinFailure.REFUSED
    assert solo.swim.cluster == CLUSTER


def test_a_welcome_that_was_not_asked_for_changes_nothing() -> None:
    solo = Solo()
    solo.hears(9, Welcome(123, b"come"), cluster=OTHER_CLUSTER)
    solo.hears(9, Welcome(123, b"come"))
    assert solo.swim.cluster == CLUSTER
    assert solo.events == []


def test_whoever_asks_becomes_a_member_only_when_it_speaks_as_one() -> None:
    solo = Solo()
    solo.hears(2, Join(1, address_of(2), Incarnation(1, 0)), cluster=b"")
    assert len(solo.sent_to(2, Welcome)) == 1
    assert solo.status(2) is None
    solo.hears(2, alive(2))
    assert solo.status(2) is Status.ALIVE


def test_a_full_cluster_and_a_leaving_node_refuse() -> None:
    solo = Solo(config=SwimConfig(members_max=3), knows=[2, 3])
    solo.hears(4, Join(1, address_of(4), Incarnation(1, 0)), cluster=b"")
    assert [refusal.reason for refusal in solo.sent_to(4, Refuse)] == ["full"]
    solo.hears(3, alive(5))
    assert solo.status(5) is None
    assert solo.swim.counters()["drop_members_full"] == 1
    solo.perform(solo.swim.leave(solo.now))
    solo.hears(2, Join(1, address_of(2), Incarnation(1, 0)), cluster=b"")
    assert [refusal.reason for refusal in solo.sent_to(2, Refuse)] == ["leaving"]


# Leaving and coming back


def test_a_leave_is_known_to_all_at_once_as_left_not_dead() -> None:
    network = Network(seed=2)
    hosts = network.cluster_of(5)
    network.run(5)
    network.perform(hosts[2], hosts[2].swim.leave(network.now))
    network.run(1.0)
    network.kill(hosts[2])
    network.run(10.0)
    for host in hosts:
        member = host.swim.member(hosts[2].node)
        assert member is not None
        assert member.status is Status.LEFT


def test_a_node_that_left_does_not_refute_and_does_not_probe() -> None:
    solo = Solo(knows=[2, 3])
    solo.perform(solo.swim.leave(solo.now))
    solo.passes(2.0)
    solo.forget()
    solo.hears(2, dead(1), left(1))
    solo.passes(5.0)
    assert solo.status(1) is Status.LEFT
    assert solo.sent == []
    assert solo.swim.leave(solo.now) == []


def test_all_nodes_that_crashed_together_find_each_other_whoever_is_first() -> None:
    network = Network(seed=6)
    peers = {host.index: host.swim.peers() for host in network.cluster_of(4)}
    again = []
    for number in peers:
        network.kill(network.hosts[number])
        again.append(network.host(number, epoch=2))
        network.kill(again[-1])
    for host in again:
        host.is_up = True
        network.start(host, peers[host.index])
        network.run(1.0)
    network.wait(lambda: network.see_each_other(again), 15.0)


def test_a_restart_within_the_suspicion_is_no_death() -> None:
    network = Network(seed=7)
    hosts = network.cluster_of(4)
    network.run(5)
    network.kill(hosts[3])
    network.run(1.0)
    again = network.host(4, epoch=2)
    network.start(again, hosts[3].swim.peers())
    network.run(10)
    assert all(network.died_at(host, again) is None for host in hosts[:3])


# Identity


def test_a_known_address_with_a_new_id_replaces_the_old_member() -> None:
    solo = Solo(knows=[2, 3])
    solo.answering = (3, 8)
    solo.hears(8, alive(8, address=address_of(2)))
    assert solo.status(2) is Status.SUSPECT
    solo.passes(1.6)
    assert solo.status(2) is Status.DEAD
    assert solo.status(8) is Status.ALIVE


def test_whoever_lived_at_our_own_address_before_is_dead_unless_it_objects() -> None:
    for objects in (False, True):
        solo = Solo(knows=[2])
        solo.answering = (2,)
        solo.hears(2, alive(7, address=address_of(1)))
        assert solo.status(7) is Status.SUSPECT
        if objects:
            solo.hears(7, alive(7, counter=1))
        solo.passes(1.6)
        assert (solo.status(7) is Status.DEAD) is not objects


def test_one_node_id_living_twice_is_told_to_both() -> None:
    network = Network(seed=8)
    hosts = network.cluster_of(3)
    network.run(5)
    twin = network.host(2, address="10.7.7.7:1")
    hosts[1].is_up = True
    network.start(twin)
    network.perform(twin, twin.swim.join(hosts[0].address, network.now))
    network.run(2.0)
    assert [conflict.address for conflict in network.conflicts(twin)] == [hosts[1].address]
    assert [conflict.address for conflict in network.conflicts(hosts[1])] == [twin.address]
    (failed,) = network.joins(twin)
    assert isinstance(failed, JoinFailed)
    assert failed.reason is JoinFailure.REFUSED


def test_a_twin_is_reported_at_a_bounded_rate() -> None:
    solo = Solo(knows=[2])
    for _ in range(50):
        solo.hears(2, alive(1, address="10.7.7.7:1"))
    assert len(solo.events) == 1


def test_a_node_that_left_judges_nobody_and_goes_on_judging_when_it_is_back() -> None:
    solo = Solo(knows=[2, 3])
    solo.hears(3, suspect(2, 3))
    solo.perform(solo.swim.leave(solo.now))
    solo.hears(3, suspect(2, 4))
    solo.passes(30.0)
    assert solo.status(2) is Status.SUSPECT
    solo.perform(solo.swim.join(address_of(3), solo.now))
    join = next(message for _, message in solo.sent if isinstance(message, Join))
    solo.hears(3, Welcome(join.attempt, b""))
    solo.passes(0.01)
    assert solo.status(1) is Status.ALIVE
    assert solo.status(2) is Status.DEAD


def test_a_restarted_node_goes_on_publishing_what_it_published_until_it_publishes_anew() -> None:
    solo = Solo(knows=[2])
    old = Advertisement(("app",), b"old")
    solo.hears(2, Publication(solo.swim.node, Incarnation(0, 3), old))
    assert solo.swim.advertisement(solo.swim.node) == old
    solo.perform(solo.swim.advertise(Advertisement(("app",), b"new"), solo.now))
    solo.hears(2, Publication(solo.swim.node, Incarnation(0, 3), old))
    assert solo.swim.advertisement(solo.swim.node) == Advertisement(("app",), b"new")
