"""Nodes of different versions of the protocol: a cluster is changed from one to the next node by node."""

import pytest

from gossip import VERSIONS, JoinFailed, JoinFailure, Status, VersionRange
from gossip.messages import Ack, decode, encode, frame, frame_head
from tests.gossip.harness import CLUSTER, Network, Solo, alive, hold_dead, node_id, ping

OLD, BOTH, NEW, LATER = VersionRange(1, 1), VersionRange(1, 2), VersionRange(2, 2), VersionRange(3, 4)


def cluster_of(*versions: VersionRange) -> Network:
    network = Network(seed=1)
    for number, spoken in enumerate(versions, 1):
        network.start(network.host(number, versions=spoken))
    for host in list(network.hosts.values())[1:]:
        network.perform(host, host.swim.join(network.hosts[1].address, network.now))
    return network


def written_in(network: Network) -> dict[tuple[int, int], set[int]]:
    """The versions of the frames from one host to another, from now on and for two rounds of probes."""
    seen: dict[tuple[int, int], set[int]] = {}
    numbers = {host.address: host.index for host in network.hosts.values()}
    network.overheard = lambda sender, send: seen.setdefault((sender.index, numbers[send.peer.address]), set()).add(
        decode(send.frame, 1 << 22).version
    )
    network.run(4.0)
    return seen


def test_two_nodes_talk_in_the_highest_version_that_both_speak() -> None:
    network = cluster_of(BOTH, OLD, BOTH)
    network.run(10.0)
    assert network.see_each_other(list(network.hosts.values()))
    seen = written_in(network)
    assert seen[1, 3] == seen[3, 1] == {2}
    assert seen[1, 2] == seen[2, 1] == seen[3, 2] == seen[2, 3] == {1}


def test_a_cluster_is_changed_to_another_version_node_by_node_and_nobody_is_held_dead() -> None:
    network = cluster_of(OLD, OLD, OLD, OLD)
    network.run(5.0)
    hosts = list(network.hosts.values())
    for step, spoken in enumerate((BOTH, NEW), 2):
        for host in hosts:
            peers = host.swim.peers()
            network.kill(host)
            network.start(network.host(host.index, epoch=step, versions=spoken), peers)
            network.run(8.0)
            hosts = list(network.hosts.values())
            assert network.see_each_other(hosts)
        assert all(not hold_dead([one], [other]) for one in hosts for other in hosts)
    assert {version for versions in written_in(network).values() for version in versions} == {2}


def test_a_frame_that_cannot_be_read_is_answered_with_what_can_be_and_not_each_time() -> None:
    solo = Solo(knows=[2], versions=BOTH)
    unread = frame(frame_head(CLUSTER, node_id(2), version=3), [encode(ping(2))], highest=4)
    frames: list[bytes] = []
    solo.overheard = frames.append
    for _ in range(5):
        solo.receives(unread)
    (answer,) = frames
    read = decode(answer, 1 << 22, LATER)
    assert (read.version, read.highest, read.messages) == (2, 2, ())


def test_who_cannot_be_read_is_written_to_in_the_highest_version_from_then_on() -> None:
    solo = Solo(knows=[2], versions=BOTH)
    frames: list[bytes] = []
    solo.overheard = frames.append
    solo.passes(1.0)
    assert {decode(data, 1 << 22, BOTH).version for data in frames} == {1}
    frames.clear()
    solo.receives(frame(frame_head(CLUSTER, node_id(2), version=3), [encode(Ack(1, 0))], highest=3))
    solo.passes(5.0)
    assert {decode(data, 1 << 22, BOTH).version for data in frames} == {2}


def test_nodes_without_a_version_in_common_do_not_harm_each_other() -> None:
    network = cluster_of(BOTH, BOTH)
    network.run(5.0)
    stranger = network.host(3, versions=LATER)
    network.start(stranger)
    network.perform(stranger, stranger.swim.join(network.hosts[1].address, network.now))
    network.run(0.1)
    (failed,) = network.joins(stranger)
    assert isinstance(failed, JoinFailed)
    assert failed.reason is JoinFailure.VERSION
    network.run(10.0)
    assert stranger.swim.alive() == (stranger.node,)
    assert len(network.hosts[1].swim.alive()) == 2


@pytest.mark.parametrize("highest", [VERSIONS.highest, 100])
def test_a_node_that_speaks_more_than_we_do_is_a_member_like_others(highest: int) -> None:
    solo = Solo(knows=[2])
    data = frame(frame_head(CLUSTER, node_id(3)), [encode(alive(3)), encode(ping(3))], highest)
    solo.receives(data, 3)
    assert solo.status(3) is Status.ALIVE
    assert solo.sent_to(3, Ack)
