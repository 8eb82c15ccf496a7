"""Frames of a member that says it is another, and frames that were recorded and are sent again."""

import pytest

from gossip import Advertisement, Deliver, Effect, Incarnation, Lane, Send
from gossip.messages import Ack, Join, Message, Payload, PingRequest, Refuse, encode, frame, frame_head
from simulations.swarm import Agent
from tests.gossip.harness import CLUSTER, Network, Solo, alive, left, node_id, ping

HOSTILE, VICTIM, STRANGER = 2, 3, 9


@pytest.mark.parametrize(
    "message",
    [
        ping(VICTIM, epoch=9),
        Ack(1, 0),
        PingRequest(1, node_id(HOSTILE)),
        alive(VICTIM, counter=5, address="10.6.6.6:1"),
        left(VICTIM),
        Payload(b"from the victim"),
        Refuse(1, "identity", "you live twice"),
    ],
    ids=lambda message: type(message).__name__,
)
@pytest.mark.parametrize("claimed", [VICTIM, STRANGER, 1])
def test_a_frame_that_says_it_is_from_another_than_who_sent_it_is_dropped_and_counted(
    message: Message, claimed: int
) -> None:
    solo = Solo(knows=[HOSTILE, VICTIM])
    members, heard = solo.swim.members(), solo.swim.last_heard(node_id(VICTIM))
    solo.now += 1.0
    solo.receives(frame(frame_head(CLUSTER, node_id(claimed)), [encode(message)]), number=HOSTILE)
    assert solo.swim.counters()["drop_sender"] == 1
    assert solo.swim.members() == members
    assert solo.swim.last_heard(node_id(VICTIM)) == heard
    assert solo.events == []
    assert solo.sent == []


def test_a_frame_for_whose_sender_nobody_vouches_is_dropped() -> None:
    solo = Solo(knows=[HOSTILE])
    data = frame(frame_head(CLUSTER, node_id(HOSTILE)), [encode(Payload(b"payload"))])
    assert solo.swim.receive("", Lane.PROBE, data, solo.now) == []
    assert solo.swim.counters()["drop_sender"] == 1


def test_nobody_is_let_in_under_the_id_of_another() -> None:
    solo = Solo(knows=[HOSTILE, VICTIM])
    join = Join(5, "10.6.6.6:1", Incarnation(9, 0))
    solo.receives(frame(frame_head(b"", node_id(VICTIM)), [encode(join)]), number=HOSTILE)
    assert solo.sent == []
    assert solo.swim.counters()["drop_sender"] == 1


# Recorded frames


class Recorder(Network):
    """A network on which somebody listens."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.recorded: list[tuple[int, int, Lane, bytes]] = []
        self.overheard = self._record

    def _record(self, sender: Agent, send: Send) -> None:
        target = next(host for host in self.hosts.values() if host.address == send.peer.address)
        self.recorded.append((sender.index, target.index, send.lane, send.frame))


def eventful_history() -> tuple[Recorder, list[Agent]]:
    """Joins, advertisements, payloads, a death, a restart, a refuted suspicion and a leave, then peace."""
    network = Recorder(seed=4)
    hosts = network.cluster_of(6)
    for host in hosts:
        network.perform(host, host.swim.advertise(Advertisement((f"app{host.index}",), b"old"), network.now))
    network.run(2)
    network.perform(hosts[0], hosts[0].swim.send(hosts[1].node, b"payload"))
    network.kill(hosts[4])
    network.run(8)
    hosts[4] = network.host(5, epoch=2)
    network.start(hosts[4], hosts[0].swim.peers())
    network.isolate(hosts[3])
    network.run(1.2)
    network.heal()
    network.run(3)
    network.perform(hosts[5], hosts[5].swim.leave(network.now))
    network.run(1)
    network.kill(hosts.pop())
    for host in hosts:
        network.perform(host, host.swim.advertise(Advertisement((f"app{host.index}",), b"new"), network.now))
    network.run(20)
    return network, hosts


def views(hosts: list[Agent]) -> list[object]:
    return [
        (host.swim.members(), [host.swim.advertisement(other.node) for other in hosts], host.swim._view.digest.total)
        for host in hosts
    ]


def told_since(hosts: list[Agent], start: float) -> list[Effect]:
    return [event for host in hosts for at, event in host.events if at > start]


def test_recorded_frames_that_their_sender_sends_again_to_anybody_change_nothing() -> None:
    network, hosts = eventful_history()
    before, start = views(hosts), network.now
    recorded = list(network.recorded)
    assert {5, 6} <= {sender for sender, *_ in recorded}
    for sender, _, lane, data in recorded[:: len(recorded) // 500]:
        for host in hosts:
            if host.index != sender:
                network.perform(host, host.swim.receive(node_id(sender), lane, data, network.now))
    network.run(10)
    assert views(hosts) == before
    assert [event for event in told_since(hosts, start) if not isinstance(event, Deliver)] == []


def test_recorded_frames_that_another_member_sends_are_dropped_whole() -> None:
    network, hosts = eventful_history()
    before, start = views(hosts), network.now
    replayer = hosts[1]
    for sender, _, lane, data in list(network.recorded):
        for host in (hosts[0], hosts[2]):
            if sender != replayer.index:
                effects = host.swim.receive(replayer.node, lane, data, network.now)
                assert effects == []
    assert views(hosts) == before
    assert told_since(hosts, start) == []
