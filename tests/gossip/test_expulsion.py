"""The expelled: out for ever in the eyes of whoever knows of it, and quietly so."""

import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip import Advertisement, Claim, Forgotten, Incarnation, MemberChanged, Peer, Status, SwimConfig
from gossip.directory import Publication
from gossip.messages import Ack, Buckets, Join, Message, Nack, Ping, PingRequest, Records, Versions, Wanted
from simulations.swarm import Agent
from tests.gossip.harness import (
    CONFIG,
    Network,
    Solo,
    address_of,
    alive,
    dead,
    left,
    make_swim,
    member,
    node_id,
    ping,
    pinged,
    suspect,
)


def expel(solo: Solo, *numbers: int) -> None:
    for number in numbers:
        solo.perform(solo.swim.expel(node_id(number), solo.now))


def publication(number: int, counter: int = 1) -> Publication:
    return Publication(node_id(number), Incarnation(1, counter), Advertisement((f"app{number}",), b"body"))


def digest(solo: Solo) -> int:
    return solo.swim._view.digest.total


def mentions(value: object, node: str) -> bool:
    """Whether ``node`` is anywhere in what hangs on ``value``, code aside."""
    seen: set[int] = set()
    todo = [value]
    while todo:
        item = todo.pop()
        if item == node:
            return True
        if id(item) not in seen and not isinstance(item, type) and not callable(item):
            seen.add(id(item))
            todo += gc.get_referents(item)
    return False


# One node


def test_the_application_hears_of_an_expelled_member_that_it_left_and_is_forgotten() -> None:
    solo = Solo(knows=[2, 3])
    expel(solo, 2)
    assert solo.events == [MemberChanged(member(2, Status.LEFT), Status.ALIVE), Forgotten(node_id(2))]
    assert solo.swim.member(node_id(2)) is None
    assert solo.swim.alive() == tuple(sorted((node_id(1), node_id(3))))


@pytest.mark.parametrize(("passed_s", "before"), [(0.0, Status.SUSPECT), (2.0, Status.DEAD)])
def test_expelling_a_suspect_or_a_dead_member_tells_what_it_was(passed_s: float, before: Status) -> None:
    solo = Solo(knows=[2, 3])
    solo.hears(3, dead(2))
    solo.passes(passed_s)
    solo.forget()
    expel(solo, 2)
    assert solo.events == [MemberChanged(member(2, Status.LEFT), before), Forgotten(node_id(2))]


def test_a_member_that_had_left_is_only_forgotten() -> None:
    solo = Solo(knows=[2, 3])
    solo.hears(2, left(2))
    solo.forget()
    expel(solo, 2)
    assert solo.events == [Forgotten(node_id(2))]


def test_expelling_a_stranger_twice_or_oneself_changes_nothing_that_shows() -> None:
    solo = Solo(knows=[2])
    before = digest(solo)
    expel(solo, 7, 7, 1)
    assert solo.sent == []
    assert solo.events == []
    assert digest(solo) == before
    solo.hears(2, ping(2))
    assert solo.sent_to(2, Ack)


def test_no_part_of_the_core_but_the_list_of_the_expelled_remembers_one() -> None:
    solo = Solo(knows=[2, 3, 4])
    solo.passes(5.0)
    solo.hears(2, publication(2), suspect(3, 2), suspect(2, 3), PingRequest(9, node_id(4)))
    solo.hears(4, publication(7))
    solo.perform(solo.swim.unreachable(Peer(node_id(2), address_of(2)), "connection refused", solo.now))
    expel(solo, 2, 7)
    solo.passes(5.0)
    assert {node_id(2), node_id(7)} == solo.swim._view.expelled
    solo.swim._view.expelled.clear()
    assert not mentions(solo.swim, node_id(7))
    subset = solo.swim._prober._rotation
    subset._subset = [node for node in subset._subset if node != node_id(2)]
    assert not mentions(solo.swim, node_id(2))


def test_nothing_that_is_said_about_the_expelled_or_by_them_is_heard_and_all_is_counted() -> None:
    solo = Solo(knows=[2, 3])
    expel(solo, 2)
    before = digest(solo)
    solo.forget()
    said_about: list[Message] = [alive(2), alive(2, epoch=9), dead(2), left(2), suspect(2, 3), publication(2)]
    for message in said_about:
        solo.hears(3, message)
    solo.hears(3, Records((alive(2, epoch=5),), (publication(2, 3),)))
    assert solo.swim.counters()["drop_expelled"] == len(said_about) + 2
    solo.hears(2, ping(2), alive(4), publication(2))
    solo.hears(2, Join(5, address_of(2), Incarnation(7, 0)), cluster=b"")
    assert solo.swim.counters()["drop_expelled"] == len(said_about) + 4
    assert solo.events == []
    assert solo.sent == []
    assert digest(solo) == before
    assert solo.swim.directory.names() == ()
    assert solo.swim.peers() == [Peer(node_id(3), address_of(3))]


def test_the_expelled_are_neither_probed_nor_dialled_nor_told_anything() -> None:
    solo = Solo(knows=[2, 3])
    solo.answering = (3,)
    solo.hears(3, dead(2))
    solo.passes(2.0)
    expel(solo, 2)
    solo.passes(1.0)
    solo.forget()
    solo.hears(3, alive(4))
    solo.perform(solo.swim.send(node_id(2), b"payload"))
    solo.passes(60.0)
    assert [peer for peer, _ in solo.sent if peer.node == node_id(2)] == []
    assert solo.swim.counters()["drop_payload_to_unknown"] == 1


def test_a_probe_under_way_to_the_expelled_ends_without_a_verdict() -> None:
    solo = Solo(config=SwimConfig(probe_window_s=1.0), knows=[2])
    pinged(solo, 2)
    expel(solo, 2)
    solo.passes(5.0)
    assert solo.swim.counters().get("suspicions", 0) == 0


def test_nobody_relays_for_the_expelled_nor_to_them() -> None:
    solo = Solo(knows=[2, 3, 4])
    solo.hears(2, PingRequest(1, node_id(3)))
    solo.hears(3, PingRequest(2, node_id(2)))
    to_three = solo.sent_to(3, Ping)[-1]
    expel(solo, 2)
    solo.forget()
    solo.hears(3, Ack(to_three.sequence, 0))
    solo.hears(3, PingRequest(3, node_id(2)))
    solo.passes(0.2)
    assert [peer for peer, _ in solo.sent if peer.node == node_id(2)] == []
    assert sorted(nack.sequence for nack in solo.sent_to(3, Nack)) == [2, 3]


def test_what_the_expelled_accused_others_of_counts_no_more() -> None:
    config = SwimConfig(probe_interval_s=100, probe_window_s=100, probe_timeout_s=50)
    solo = Solo(config=config, knows=range(2, 11))
    solo.hears(3, suspect(9, 3, 4, 5, 2))
    expel(solo, 2, 4, 5)
    solo.hears(3, suspect(9, 2, 4, 5))
    solo.passes(config.suspicion_bounds_s(10)[1] - 0.1)
    assert solo.status(9) is Status.SUSPECT
    assert solo.said_about(9)[-1].accusers == (node_id(3),)


def test_another_node_at_the_address_of_the_expelled_is_left_in_peace() -> None:
    solo = Solo(knows=[2])
    expel(solo, 2)
    solo.hears(3, alive(3, address=address_of(2)))
    solo.forget()
    solo.hears(3, alive(2, epoch=9))
    assert solo.status(3) is Status.ALIVE
    assert solo.events == []


def test_known_from_the_start_the_expelled_are_neither_asked_for_a_way_in_nor_met() -> None:
    swim = make_swim(1, expelled=[node_id(2)])
    assert swim.start(100.0, [Peer(node_id(2), address_of(2))])[1:] == []
    solo = Solo(expelled=[node_id(2)])
    solo.hears(3, alive(3), alive(2))
    assert solo.swim.member(node_id(2)) is None


def test_expelled_while_asked_for_a_way_in_a_node_is_asked_no_more() -> None:
    solo = Solo()
    solo.perform(solo.swim.start(solo.now, [Peer(node_id(2), address_of(2))]))
    assert solo.sent
    expel(solo, 2)
    solo.forget()
    solo.passes(60.0)
    assert solo.sent == []


def test_of_two_who_know_of_an_expulsion_the_digests_are_equal_whatever_they_knew_before() -> None:
    ignorant, versed = Solo(knows=[3]), Solo(knows=[2, 3])
    versed.hears(2, publication(2), suspect(3, 2))
    versed.hears(3, alive(3, counter=1), dead(2, epoch=4))
    ignorant.hears(3, alive(3, counter=1))
    expel(ignorant, 2)
    expel(versed, 2)
    assert digest(ignorant) == digest(versed)


def test_a_comparison_with_somebody_who_does_not_know_asks_for_nothing_and_ends() -> None:
    solo = Solo(knows=[2, 3])
    expel(solo, 2)
    solo.forget()
    other = Solo(knows=[2, 3])
    solo.hears(3, Buckets(other.swim._view.digest.buckets))
    (versions,) = solo.sent_to(3, Versions)
    assert versions.versions == ()
    bucket = int(node_id(2)[:2], 16) % 64
    theirs = other.swim._reconciliation._version(node_id(2))
    solo.forget()
    solo.hears(3, Versions((bucket,), (theirs,)), Wanted((node_id(2),)))
    assert solo.sent == []


# Clusters


def settled_cluster(count: int, seed: int = 1) -> tuple[Network, list[Agent]]:
    network = Network(seed=seed)
    hosts = network.cluster_of(count)
    network.run(10)
    return network, hosts


def expel_at(network: Network, hosts: list[Agent], *victims: Agent) -> None:
    for host in hosts:
        for victim in victims:
            network.perform(host, host.swim.expel(victim.node, network.now))


def digests(hosts: list[Agent]) -> set[int]:
    return {host.swim._view.digest.total for host in hosts}


def test_expelled_by_all_a_node_that_goes_on_is_seen_by_none_and_idle_traffic_does_not_grow() -> None:
    network, hosts = settled_cluster(6)
    victim, others = hosts[5], hosts[:5]
    expel_at(network, others, victim)
    network.run(20)
    assert network.see_each_other(others)
    assert len(digests(others)) == 1
    network.kill(victim)
    before, bytes_before = network.frames, network.bytes_sent
    network.run(20)
    assert network.frames - before == pytest.approx(5 * 2 * 20 / CONFIG.probe_period_s(5), rel=0.02)
    assert (network.bytes_sent - bytes_before) / 5 / 20 < 300


def test_while_half_of_the_cluster_does_not_know_of_an_expulsion_nothing_melts_and_then_all_agree() -> None:
    network, hosts = settled_cluster(6)
    victim, knowing, ignorant = hosts[5], hosts[:3], hosts[3:5]
    expel_at(network, knowing, victim)
    network.run(30)
    before = network.frames
    network.run(60)
    probes_and_relays = 6 * 60 / CONFIG.probe_period_s(6) * (2 + 5 * CONFIG.probe_relays)
    assert network.frames - before < probes_and_relays
    for host in hosts[:5]:
        assert {other.node for other in hosts[:5]} <= set(host.swim.alive())
        assert all(network.died_at(host, other) is None for other in hosts[:5])
    expel_at(network, ignorant, victim)
    network.run(5)
    assert network.see_each_other(hosts[:5])
    assert len(digests(hosts[:5])) == 1


def test_what_changed_while_an_expulsion_was_known_to_some_only_is_known_to_all_afterwards() -> None:
    network, hosts = settled_cluster(5)
    expel_at(network, hosts[:2], hosts[4])
    network.perform(hosts[0], hosts[0].swim.advertise(Advertisement(("app",), b""), network.now))
    network.run(3)
    assert all(host.swim.directory.names() == ("app",) for host in hosts[:4])


def test_both_sides_of_a_partition_expel_one_of_the_other_and_afterwards_both_are_out() -> None:
    network, hosts = settled_cluster(6)
    one, other = hosts[:3], hosts[3:]
    network.partition(one)
    network.run(20)
    expel_at(network, one, other[0])
    expel_at(network, other, one[0])
    network.heal()
    network.run(10)
    expel_at(network, one, one[0])
    expel_at(network, other, other[0])
    rest = one[1:] + other[1:]
    network.wait(lambda: network.see_each_other(rest), 20)
    network.run(60)
    assert network.see_each_other(rest)
    assert len(digests(rest)) == 1


# Whatever is said in whatever order

TELLER = 9
expellable, staying = st.integers(2, 4), st.integers(5, 7)
# An address that changes hands takes part only among those who stay: what a node did to others before it was expelled
# is not undone by its expulsion.
places = st.one_of(expellable.map(lambda number: (number, number)), st.tuples(staying, staying))
claims = st.builds(
    lambda place, status, epoch, counter, accusers: Claim(
        member(place[0], status, epoch, counter, address_of(place[1])), tuple(node_id(accuser) for accuser in accusers)
    ),
    places,
    st.sampled_from(Status),
    st.integers(1, 3),
    st.integers(0, 3),
    st.lists(st.integers(2, 7), max_size=3),
)
publications = st.builds(publication, st.integers(2, 7), st.integers(1, 4))
said = st.one_of(
    claims,
    publications,
    st.builds(lambda *known: Records(known[:1], known[1:]), claims, publications),
    st.builds(PingRequest, st.integers(0, 9), st.integers(2, 7).map(node_id)),
)


@settings(max_examples=100)
@given(
    messages=st.lists(said, max_size=20),
    turns=st.dictionaries(expellable, st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1),
)
def test_the_expelled_are_never_seen_again_and_whoever_knows_the_same_has_the_same_digest(
    messages: list[Message], turns: dict[int, tuple[int, int]]
) -> None:
    """Nodes that hear the same, and of the same expulsions, each at other times; one has known of them always."""
    versed = Solo(knows=[TELLER], expelled=[node_id(number) for number in turns])
    solos = [Solo(knows=[TELLER]), Solo(knows=[TELLER])]
    for turn in range(21):
        for which, solo in enumerate(solos):
            expel(solo, *(number for number, times in turns.items() if times[which] == turn))
        for solo in (*solos, versed):
            solo.forget()
            solo.hears(TELLER, *messages[turn : turn + 1])
        for which, solo in enumerate(solos):
            for gone in (node_id(number) for number, times in turns.items() if times[which] <= turn):
                assert solo.swim.member(gone) is None
                assert solo.swim.advertisement(gone) is None
                assert all(gone not in solo.swim._view.suspicions.accusers(other) for other in solo.swim.alive())
                assert [peer for peer, _ in solo.sent if peer.node == gone] == []
    assert len({digest(solo) for solo in (*solos, versed)}) == 1
