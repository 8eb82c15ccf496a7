"""A hostile member: what it can make others believe, and what it can make them do and keep."""

from collections.abc import Sequence

import pytest

from gossip import Advertisement, Claim, Incarnation, Lane, Member, MemberChanged, Peer, Status, SwimConfig
from gossip.directory import Publication
from gossip.messages import (
    Ack,
    Join,
    Message,
    Ping,
    PingRequest,
    Records,
    Refuse,
    Welcome,
    encode,
    frame,
    frame_head,
)
from simulations.swarm import Agent
from tests.gossip.harness import (
    CLUSTER,
    CONFIG,
    Network,
    Solo,
    address_of,
    alive,
    dead,
    left,
    member,
    node_id,
    ping,
    suspect,
)

NOWHERE = "10.6.6.6:1"
VICTIM, HOSTILE = 3, 6


def settled_cluster(count: int = 6, seed: int = 1) -> tuple[Network, list[Agent]]:
    network = Network(seed=seed)
    hosts = network.cluster_of(count)
    network.run(10)
    return network, hosts


def say(network: Network, hosts: Sequence[Agent], *messages: Message, sender: int = HOSTILE) -> None:
    """The hostile node sends a frame of its own making to each of ``hosts``."""
    data = frame(frame_head(CLUSTER, node_id(sender)), [encode(message) for message in messages])
    for host in hosts:
        network.perform(host, host.swim.receive(node_id(sender), Lane.PROBE, data, network.now))


def held_down(hosts: Sequence[Agent], victim: Agent) -> list[Status]:
    """As what the applications were told that ``victim`` is down."""
    events = [event for host in hosts for _, event in host.events if isinstance(event, MemberChanged)]
    return [e.member.status for e in events if e.member.node == victim.node and not e.member.status.live]


def above(held: Member, by: int = 1) -> Incarnation:
    return Incarnation(held.incarnation.epoch, held.incarnation.counter + by)


def forged(victim: Member) -> dict[str, Claim]:
    """What to say in order to make others believe that ``victim``, as they hold it, is gone or elsewhere."""
    node, address, now = victim.node, victim.address, victim.incarnation
    accusers = tuple(node_id(number) for number in (1, 2, 4, 5))
    return {
        "it is dead": Claim(Member(node, address, now, Status.DEAD)),
        "it is dead in an incarnation to come": Claim(Member(node, address, above(victim), Status.DEAD)),
        "it is dead for ages": Claim(Member(node, address, above(victim), Status.DEAD), down_for_s=2**32),
        "it left": Claim(Member(node, address, now, Status.LEFT)),
        "all suspect it": Claim(Member(node, address, now, Status.SUSPECT), accusers),
        "a stranger lives at its address": alive(77, address=address),
        "I live at its address": alive(HOSTILE, counter=now.counter + 50, address=address),
        "it lives at mine": Claim(Member(node, address_of(HOSTILE), above(victim), Status.ALIVE)),
        "it lives nowhere": Claim(Member(node, NOWHERE, above(victim), Status.ALIVE)),
        "it is suspected nowhere": Claim(Member(node, NOWHERE, above(victim), Status.SUSPECT), accusers),
        "it is dead nowhere": Claim(Member(node, NOWHERE, above(victim), Status.DEAD)),
    }


@pytest.mark.parametrize("lie", forged(member(VICTIM, Status.ALIVE)))
@pytest.mark.parametrize("also_to_the_victim", [True, False])
def test_no_lie_however_often_it_is_told_makes_anybody_hold_down_a_member_that_answers(
    lie: str, also_to_the_victim: bool
) -> None:
    network, hosts = settled_cluster()
    honest, victim = hosts[:5], hosts[VICTIM - 1]
    audience = [host for host in honest if also_to_the_victim or host is not victim]
    for _ in range(20):
        held = audience[0].swim.member(victim.node)
        assert held is not None
        say(network, audience, forged(held)[lie])
        network.run(0.4)
    assert held_down(honest, victim) == []
    network.run(15)
    for host in honest:
        assert {other.node for other in honest} <= set(host.swim.alive())
        held = host.swim.member(victim.node)
        assert held is not None
        assert held.address == victim.address
    assert held_down(honest, victim) == []


@pytest.mark.parametrize(
    "held",
    [alive(3, counter=5, address=NOWHERE), suspect(3, 2, counter=5), left(3)],
    ids=["elsewhere", "suspect", "left"],
)
def test_whoever_asks_is_answered_where_it_is_and_told_what_it_is_held_to_be(held: Claim) -> None:
    solo = Solo(config=SwimConfig(probe_interval_s=100, probe_window_s=100, probe_timeout_s=50), knows=[2, 3])
    solo.hears(2 if held.member.status.live else 3, held)
    solo.passes(1.0)
    assert not solo.swim._outbox.has_news
    solo.forget()
    solo.hears(3, ping(3))
    assert solo.sent_to(3, Ack)
    assert {peer.address for peer, _ in solo.sent} == {address_of(3)}
    assert [claim.member for claim in solo.sent_to(3, Claim)] == [held.member]


def test_a_member_that_objects_to_have_been_replaced_does_not_replace_its_successor() -> None:
    solo = Solo(knows=[2, 8])
    solo.answering = (2, 8)
    solo.hears(8, alive(8, counter=1, address=address_of(2)))
    assert solo.status(2) is Status.SUSPECT
    solo.hears(2, alive(2, counter=1))
    assert [solo.status(number) for number in (2, 8)] == [Status.ALIVE] * 2
    solo.hears(8, alive(8, counter=2, address=address_of(2)))
    assert [solo.status(number) for number in (2, 8)] == [Status.ALIVE] * 2


def test_a_node_said_to_be_elsewhere_objects() -> None:
    solo = Solo(knows=[2])
    solo.hears(2, alive(1, counter=5, address=NOWHERE))
    assert solo.swim.incarnation == Incarnation(1, 6)
    solo.hears(2, suspect(1, 2, counter=6, epoch=1))
    assert solo.swim.incarnation == Incarnation(1, 7)


def test_what_others_call_a_leave_is_held_to_be_one_when_the_member_confirms_it_or_is_silent() -> None:
    for confirms in (True, False):
        solo = Solo(knows=[2, 3])
        solo.answering = (3,)
        solo.hears(3, left(2))
        assert solo.status(2) is Status.SUSPECT
        if confirms:
            solo.hears(2, left(2))
        else:
            solo.passes(1.6)
        assert solo.status(2) is Status.LEFT


def test_a_node_that_has_left_confirms_it_to_whoever_doubts_it() -> None:
    solo = Solo(knows=[2, 3])
    solo.perform(solo.swim.leave(solo.now))
    solo.forget()
    solo.hears(2, suspect(1, 2))
    assert solo.sent_to(2, Claim) == [left(1)]


def test_a_death_that_others_tell_leaves_the_shortest_time_of_a_suspicion_and_no_more() -> None:
    solo = Solo(config=SwimConfig(probe_interval_s=100, probe_window_s=100, probe_timeout_s=50), knows=range(2, 9))
    solo.hears(3, suspect(2, 3))
    solo.passes(1.0)
    solo.hears(4, dead(2))
    assert solo.status(2) is Status.SUSPECT
    solo.passes(0.51)
    assert solo.status(2) is Status.DEAD


def test_how_long_a_member_is_down_is_not_for_others_to_say() -> None:
    solo = Solo(config=SwimConfig(forget_after_s=60.0), knows=[2, 3])
    solo.answering = (3,)
    solo.hears(2, Publication(node_id(2), Incarnation(1, 1), Advertisement(("app",), b"")), left(2))
    solo.hears(3, Claim(member(2, Status.LEFT, epoch=2), down_for_s=2**32))
    solo.passes(50.0)
    assert solo.swim.directory.names() == ("app",)
    solo.passes(15.0)
    assert solo.swim.directory.names() == ()


# What it can make others do


def test_a_frame_with_a_thousand_joins_or_pings_is_answered_with_nothing() -> None:
    solo = Solo(knows=[2])
    solo.receives(frame(frame_head(b"", node_id(2)), [encode(Join(5, address_of(2), Incarnation(1, 0)))] * 1000))
    solo.receives(frame(frame_head(CLUSTER, node_id(2)), [encode(ping(2))] * 1000))
    assert solo.sent == []
    assert solo.swim.counters()["drop_malformed"] == 2


def test_a_node_that_asks_to_join_again_and_again_is_answered_as_often_as_an_honest_one() -> None:
    solo = Solo(config=SwimConfig(joins_answered_max=3), knows=[2])
    for number in (2, 2, 2, 3, 4, 5):
        solo.hears(number, Join(number, address_of(number), Incarnation(1, 0)), cluster=b"")
    assert [len(solo.sent_to(number, Welcome)) for number in (2, 3, 4, 5)] == [1, 1, 1, 0]
    assert solo.swim.counters()["drop_join"] == 3
    solo.now += CONFIG.join_retry_s / 2
    solo.hears(5, Join(5, address_of(5), Incarnation(1, 0)), cluster=b"")
    assert len(solo.sent_to(5, Welcome)) == 1


def test_a_frame_full_of_lies_about_its_hearer_is_answered_once() -> None:
    solo = Solo(knows=[2])
    claims = [Claim(member(1, Status.DEAD, 1, counter)) for counter in range(500)]
    solo.hears(2, *claims, Records(tuple(claims), ()))
    assert len(solo.sent) == 1


# What it can make others keep


def flood(solo: Solo, first: int, count: int, status: Status = Status.ALIVE) -> None:
    solo.hears(2, *(Claim(member(number, status)) for number in range(first, first + count)))


def test_a_table_full_of_members_that_do_not_exist_has_room_for_those_that_do_once_they_are_dead() -> None:
    solo = Solo(config=SwimConfig(members_max=50), knows=[2])
    solo.answering = (2,)
    flood(solo, 100, 200)
    assert len(solo.swim.members()) == 50
    solo.hears(3, Join(1, address_of(3), Incarnation(1, 0)), cluster=b"")
    assert [refusal.reason for refusal in solo.sent_to(3, Refuse)] == ["full"]
    solo.passes(120.0)
    assert len(solo.swim.alive()) == 2
    solo.hears(3, Join(1, address_of(3), Incarnation(1, 0)), cluster=b"")
    solo.hears(3, ping(3))
    assert len(solo.sent_to(3, Welcome)) == 1
    assert solo.status(3) is Status.ALIVE
    assert len(solo.swim.members()) == 50
    flood(solo, 400, 200, Status.DEAD)
    assert solo.status(3) is Status.ALIVE
    assert len(solo.swim.members()) == 50


def test_advertisements_that_nobody_may_publish_are_not_kept() -> None:
    solo = Solo(config=SwimConfig(advertisement_bytes_max=100), knows=[2])
    for number, body in ((2, bytes(101)), (9, bytes(101)), (2, bytes(100))):
        solo.hears(2, Publication(node_id(number), Incarnation(1, len(body)), Advertisement((), body)))
    assert solo.swim.counters()["drop_advertisement_too_large"] == 2
    assert solo.swim.advertisement(node_id(2)) == Advertisement((), bytes(100))


def test_the_size_of_all_advertisements_is_bounded_and_the_dead_make_room() -> None:
    def publication(number: int, counter: int, size_bytes: int) -> Publication:
        return Publication(node_id(number), Incarnation(1, counter), Advertisement((), bytes(size_bytes)))

    solo = Solo(config=SwimConfig(directory_bytes_max=1000), knows=[2, 3, 4, 5])
    solo.answering = (2, 3, 4)
    for number in (3, 4, 5):
        solo.hears(2, publication(number, 1, 300))
    solo.hears(2, publication(2, 1, 200))
    assert solo.swim.advertisement(node_id(2)) is None
    assert solo.swim.counters()["drop_directory_full"] == 1
    solo.hears(2, publication(3, 2, 400))
    assert solo.swim.directory.size_bytes == 1000
    solo.hears(2, dead(5))
    solo.passes(5.0)
    solo.hears(2, publication(2, 1, 200))
    assert solo.swim.advertisement(node_id(2)) is not None
    assert solo.swim.member(node_id(5)) is None
    assert solo.swim.directory.size_bytes == 900


def test_what_a_hostile_member_keeps_going_is_bounded() -> None:
    solo = Solo(config=SwimConfig(members_max=200), knows=[2, 3])
    for turn in range(50):
        numbers = range(100 * turn, 100 * turn + 100)
        solo.hears(2, *(suspect(number, *range(number, number + 8)) for number in numbers))
        solo.hears(2, *(Publication(node_id(n), Incarnation(1, 1), Advertisement(("x",), b"")) for n in numbers))
        solo.hears(2, PingRequest(turn, node_id(3)))
    swim = solo.swim
    assert len(swim.members()) <= 200
    assert len(swim._view.suspicions.nodes()) <= 200
    assert all(len(swim._view.suspicions.accusers(node)) <= 4 for node in swim._view.suspicions.nodes())
    assert len(swim._prober._relayed) <= CONFIG.relayed_probes_per_member
    assert len(swim._prober._early) <= CONFIG.probe_early_peers
    assert len(swim.directory._orphans) <= CONFIG.orphans_max
    assert len(swim._outbox.membership_news) <= 200
    assert len(swim._outbox._armed) <= 200 + CONFIG.relayed_probes_per_member + CONFIG.probe_early_peers + 8
    assert not [message for _, message in solo.sent if isinstance(message, Ping)][CONFIG.relayed_probes_per_member :]


def test_a_member_that_is_said_to_have_moved_is_asked_where_it_was_and_hears_so() -> None:
    solo = Solo(knows=[2, 3])
    solo.hears(3, alive(2, counter=1, address=NOWHERE))
    there = [message for peer, message in solo.sent if peer == Peer(node_id(2), address_of(2))]
    assert [type(message) for message in there[:2]] == [Ping, Claim]
    assert there[1] == alive(2, counter=1, address=NOWHERE)
