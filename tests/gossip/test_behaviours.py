"""The behaviours that the field expects of a membership layer, by number and in its words, on the core.

They are collected from the test suites of memberlist, serf, foca, swift-cluster-membership and Rapid. The one about a
slow disk (23) needs whole agents: ``tests/simulations/test_troubles_of_one_host.py``.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from gossip import (
    Advertisement,
    Claim,
    Incarnation,
    Joined,
    Lane,
    Peer,
    SetTimer,
    Status,
    SwimConfig,
    TimerKind,
)
from gossip.directory import Publication
from gossip.dissemination import Broadcasts
from gossip.messages import Ack, Nack, Ping, Records, encode, frame, frame_head
from tests.gossip.harness import (
    CLUSTER,
    CONFIG,
    Network,
    Solo,
    alive,
    dead,
    hold_dead,
    left,
    make_swim,
    node_id,
    ping,
    pinged,
    reachable,
    settled_cluster,
    suspect,
)

OTHER_CLUSTER = b"another cluster!"


def test_01_no_ack_and_no_relayed_ack_makes_a_suspect_after_the_interval() -> None:
    solo = Solo(knows=[2])
    pinged(solo, 2)
    start = solo.now
    solo.passes(0.48)
    assert solo.status(2) is Status.ALIVE
    solo.passes(0.05)
    assert solo.status(2) is Status.SUSPECT
    assert solo.changes(2) == [(Status.ALIVE, Status.SUSPECT)]
    assert solo.now - start < 0.6


def test_02_confirmations_shorten_a_suspicion_from_max_to_min_on_a_log_scale() -> None:
    low, high = CONFIG.suspicion_bounds_s(10)
    expected = [high - (high - low) * math.log(count) / math.log(4) for count in (1, 2, 3, 4)]
    for confirmations, timeout_s in enumerate(expected):
        accusers = range(3, 4 + confirmations)
        solo = Solo(config=SwimConfig(probe_interval_s=100, probe_window_s=100, probe_timeout_s=50), knows=range(2, 11))
        solo.hears(3, suspect(2, *accusers))
        solo.passes(timeout_s - 0.01)
        assert solo.status(2) is Status.SUSPECT
        solo.passes(0.02)
        assert solo.status(2) is Status.DEAD


@pytest.mark.parametrize("count", [2, 3, 4])
def test_02_with_few_members_nobody_waits_for_confirmations_that_cannot_come(count: int) -> None:
    network, hosts = settled_cluster(3, count)
    network.isolate(*hosts[1:])
    network.wait(lambda: hold_dead(hosts[:1], hosts[1:]), 5.0)


def test_03_local_health_1_doubles_the_probe_window() -> None:
    solo = Solo(knows=[2])
    solo.hears(2, suspect(1, 2))
    assert solo.swim.local_health == 1
    pinged(solo, 2)
    began = solo.now
    solo.passes(0.39)
    assert len(solo.sent_to(2, Ping)) == 1
    solo.passes(0.02)
    assert len(solo.sent_to(2, Ping)) == 2
    solo.passes(0.57)
    assert solo.status(2) is Status.ALIVE
    solo.passes(0.04)
    assert solo.status(2) is Status.SUSPECT
    assert solo.now - began < 1.05


def test_04_a_relay_that_is_dead_gives_no_nack_and_health_is_worse_by_1() -> None:
    solo = Solo(knows=[2, 3, 4])
    solo.answering = (3,)
    ask = pinged(solo, 2)
    solo.passes(0.3)
    solo.hears(3, Nack(ask.sequence))
    solo.passes(0.21)
    assert solo.status(2) is Status.SUSPECT
    assert solo.swim.local_health == 1


def test_05_an_ack_makes_health_better_by_1() -> None:
    solo = Solo(knows=[2])
    for _ in range(2):
        solo.hears(2, suspect(1, 2, counter=solo.swim.incarnation.counter))
    assert solo.swim.local_health == 2
    solo.hears(2, Ack(pinged(solo, 2).sequence, 0))
    assert solo.swim.local_health == 1


def test_06_a_suspect_that_is_pinged_learns_of_it_and_refutes() -> None:
    solo, other = Solo(knows=[2, 3, 4]), Solo(knows=[2])
    solo.hears(3, suspect(2, 3))
    solo.forget()
    pinged(solo, 2, within_s=0.2)
    (doubt,) = [claim for claim in solo.sent_to(2, Claim) if claim.member.node == node_id(2)]
    assert doubt.member.status is Status.SUSPECT

    other.hears(2, Claim(replace(doubt.member, node=other.swim.node, address=other.swim.address), doubt.accusers))
    (answer,) = other.sent_to(2, Claim)
    assert (answer.member.status, answer.member.incarnation) == (Status.ALIVE, Incarnation(1, 1))


def test_07_a_version_that_we_do_not_speak_is_ignored_without_a_crash() -> None:
    solo = Solo(knows=[2])
    members = solo.swim.members()
    unread = frame(frame_head(CLUSTER, node_id(2), version=9), [b"\xc1 no msgpack at all"], highest=9)
    for data in (unread[:-1] + b"", frame(frame_head(CLUSTER, node_id(2), version=9), [encode(dead(2))], highest=9)):
        solo.receives(data)
    assert solo.swim.members() == members
    assert solo.swim.counters()["drop_version"] == 1
    assert solo.swim.counters()["drop_malformed"] == 1


def test_08_a_higher_incarnation_clears_suspicion_and_an_equal_one_does_not() -> None:
    solo = Solo(knows=[2, 3, 4])
    solo.hears(3, suspect(2, 3))
    solo.hears(4, alive(2))
    assert solo.status(2) is Status.SUSPECT
    solo.hears(4, alive(2, counter=1))
    assert solo.status(2) is Status.ALIVE
    solo.forget()
    solo.hears(3, suspect(2, 3))
    assert solo.status(2) is Status.ALIVE
    assert solo.events == []


def test_09_alive_about_self_with_other_metadata_raises_the_version_and_is_told() -> None:
    solo = Solo(knows=[2])
    mine = Advertisement(("app",), b"mine")
    solo.perform(solo.swim.advertise(mine, solo.now))
    solo.hears(2, Publication(node_id(1), Incarnation(1, 7), Advertisement(("other",), b"not mine")))
    assert solo.swim.advertisement(node_id(1)) == mine
    solo.passes(0.3)
    assert solo.sent_to(2, Publication)[-1] == Publication(node_id(1), Incarnation(1, 8), mine)


def test_10_repeat_of_a_suspicion_is_no_event_and_no_timer() -> None:
    solo = Solo(knows=[2, 3, 4])
    solo.hears(3, suspect(2, 3))
    solo.forget()
    timers = solo.armed(TimerKind.SUSPICION)
    solo.hears(4, suspect(2, 3))
    assert solo.events == []
    assert solo.armed(TimerKind.SUSPICION) == timers


@pytest.mark.parametrize("claim", [alive, suspect, dead, left])
def test_11_a_lower_incarnation_is_ignored(claim: Callable[..., Claim]) -> None:
    solo = Solo(knows=[3])
    solo.hears(2, alive(2, epoch=2, counter=5))
    solo.forget()
    told = claim(2, 3, epoch=2, counter=4) if claim is suspect else claim(2, epoch=2, counter=4)
    solo.hears(3, told)
    assert solo.status(2) is Status.ALIVE
    assert solo.events == []
    assert solo.armed(TimerKind.SUSPICION) == []


@pytest.mark.parametrize("claim", [suspect(1, 2), dead(1), left(1)])
def test_12_suspect_or_dead_about_self_raises_the_incarnation_and_the_node_stays_alive(claim: Claim) -> None:
    solo = Solo(knows=[2, 3])
    solo.hears(2, claim)
    assert solo.swim.incarnation == Incarnation(1, 1)
    assert solo.status(1) is Status.ALIVE
    assert solo.sent_to(2, Claim) == [alive(1, counter=1)]
    solo.passes(0.2)
    assert alive(1, counter=1) in solo.sent_to(3, Claim)


def test_13_dead_said_by_the_member_itself_is_left_and_it_may_come_back_from_a_new_address() -> None:
    solo = Solo(knows=[2, 3])
    solo.hears(2, left(2))
    assert solo.changes(2) == [(Status.ALIVE, Status.LEFT)]
    solo.hears(2, alive(2))
    solo.hears(3, dead(2))
    assert solo.status(2) is Status.LEFT
    solo.hears(2, alive(2, epoch=2, address="10.9.9.9:1"))
    member = solo.swim.member(node_id(2))
    assert member is not None
    assert (member.status, member.address) == (Status.ALIVE, "10.9.9.9:1")


def test_14_a_replayed_alive_of_the_same_incarnation_does_not_revive_the_dead() -> None:
    solo = Solo(knows=[2, 3])
    solo.answering = (3,)
    solo.hears(3, dead(2))
    solo.passes(2.0)
    assert solo.status(2) is Status.DEAD
    for teller in (2, 3):
        solo.hears(teller, alive(2))
    assert solo.status(2) is Status.DEAD


def test_15_a_remote_dead_merges_as_suspect() -> None:
    solo = Solo(knows=[2, 3])
    solo.hears(3, Records((dead(2),), ()))
    assert solo.status(2) is Status.SUSPECT
    solo.hears(2, alive(2, counter=1))
    assert solo.status(2) is Status.ALIVE


def test_16_gossip_goes_to_the_recently_dead_and_stops_after_the_window() -> None:
    config = SwimConfig(gossip_dead_window_s=1.0, redial_interval_s=1000)
    solo = Solo(config=config, knows=[2, 3])
    solo.answering = (3,)
    solo.hears(3, dead(2))
    solo.passes(1.8)
    assert dead(2) in solo.sent_to(2, Claim)
    solo.passes(1.0)
    solo.forget()
    solo.hears(3, alive(9))
    solo.passes(1.0)
    assert solo.sent_to(2, Claim) == []


def test_17_dead_and_left_members_are_reaped_after_the_window() -> None:
    network = Network(seed=7, config=SwimConfig(forget_after_s=120.0))
    hosts = network.cluster_of(4)
    network.perform(hosts[2], hosts[2].swim.leave(network.now))
    network.kill(hosts[3])
    network.run(100)
    assert len(hosts[0].swim.members()) == 4
    network.run(60)
    assert all(len(host.swim.members()) == 2 for host in hosts[:2])
    network.run(60)
    assert all(len(host.swim.members()) == 2 for host in hosts[:2])


def test_18_fewest_transmits_first() -> None:
    news = Broadcasts()
    news.put("a", b"a")
    assert news.take(1, 9) == [b"a"]
    news.put("b", b"b")
    news.put("c", b"c")
    assert news.take(1, 9) == [b"b"]
    assert news.take(1, 9) == [b"c"]
    assert news.take(3, 9) == [b"a", b"b", b"c"]


def test_18_a_newer_update_invalidates_the_older() -> None:
    news = Broadcasts()
    news.put("a", b"old")
    assert news.take(10, 2) == [b"old"]
    news.put("a", b"new")
    assert [news.take(10, 2) for _ in range(3)] == [[b"new"], [b"new"], []]
    assert len(news) == 0


def test_19_a_node_of_another_cluster_is_refused() -> None:
    solo = Solo()
    solo.hears(9, ping(9), alive(9), cluster=OTHER_CLUSTER)
    assert solo.status(9) is None
    assert solo.sent == []
    assert solo.swim.counters()["drop_foreign_cluster"] == 1


@pytest.mark.parametrize("count", [2, 3, 5])
def test_20_a_rolling_change_of_keys_loses_no_member(count: int) -> None:
    network, hosts = settled_cluster(1, count)
    for turn in range(200):
        network.refusing = (hosts[turn % count].index,)
        network.run(0.03)
        network.refusing = ()
        network.run(0.25)
    assert sum(host.swim.counters()["unreachable"] for host in hosts) >= 10
    assert [host.swim.counters().get("suspicions", 0) for host in hosts] == [0] * count


def test_21_an_intent_that_arrives_before_its_member_is_applied_later() -> None:
    solo = Solo(knows=[2])
    solo.hears(2, Publication(node_id(3), Incarnation(1, 1), Advertisement(("app",))))
    solo.hears(2, left(4))
    assert solo.swim.directory.responsible("app") == ()
    solo.hears(2, alive(3), alive(4))
    assert solo.swim.directory.responsible("app") == (node_id(3),)
    assert solo.status(4) is Status.LEFT


def test_22_left_then_restarted_a_node_does_not_rejoin_by_itself() -> None:
    network = Network(seed=4)
    hosts = network.cluster_of(3)
    network.perform(hosts[2], hosts[2].swim.leave(network.now))
    network.run(30)
    assert hosts[2].swim.peers() == []
    assert hosts[0].swim.alive() == hosts[1].swim.alive() == tuple(sorted(host.node for host in hosts[:2]))
    network.perform(hosts[2], hosts[2].swim.join(hosts[0].address, network.now))
    network.wait(lambda: network.see_each_other(hosts), 2.0)


def test_22_crashed_then_restarted_a_node_rejoins_by_itself() -> None:
    network = Network(seed=5)
    hosts = network.cluster_of(4)
    peers = hosts[3].swim.peers()
    assert peers == [Peer(host.node, host.address) for host in sorted(hosts[:3], key=lambda host: host.node)]
    network.kill(hosts[3])
    network.run(20)
    again = network.host(4, epoch=2)
    network.start(again, peers)
    network.wait(lambda: network.see_each_other([*hosts[:3], again]), 2.0)
    assert isinstance(network.joins(again)[0], Joined)


def test_24_leave_messages_do_not_echo_for_ever() -> None:
    network = Network(seed=3)
    hosts = network.cluster_of(5)
    network.run(10)
    network.perform(hosts[4], hosts[4].swim.leave(network.now))
    network.run(5)
    network.kill(hosts[4])
    before = network.frames
    network.run(20)
    probes_and_acks = 4 * 2 * 20 / CONFIG.probe_period_s(4)
    assert network.frames - before == pytest.approx(probes_and_acks, abs=8)


def test_25_each_suspicion_of_self_is_answered_at_once_and_a_stale_one_does_not_raise_the_incarnation() -> None:
    solo = Solo(knows=[2])
    solo.hears(2, suspect(1, 2))
    solo.forget()
    for _ in range(3):
        solo.now += 0.001
        solo.hears(2, suspect(1, 2))
    assert solo.swim.incarnation == Incarnation(1, 1)
    assert solo.sent_to(2, Claim) == [alive(1, counter=1)] * 3


def test_26_declared_down_a_node_comes_back_with_a_new_incarnation() -> None:
    network, hosts = settled_cluster(4)
    network.isolate(hosts[0])
    network.wait(lambda: hold_dead(hosts[1:], hosts[:1]), 5)
    network.heal()
    network.wait(lambda: network.see_each_other(hosts), 5)
    assert hosts[0].swim.incarnation > Incarnation(1, 0)


def test_27_a_message_from_a_member_held_dead_is_answered_with_that_fact_rate_limited() -> None:
    solo = Solo(config=SwimConfig(gossip_dead_window_s=0, redial_interval_s=1000), knows=[2, 3])
    solo.answering = (3,)
    solo.hears(3, dead(2))
    solo.passes(3.0)
    solo.forget()
    for _ in range(10):
        solo.hears(2, Nack(1))
    assert [claim.member.status for claim in solo.sent_to(2, Claim)] == [Status.DEAD]
    solo.passes(1.0)
    solo.hears(2, Nack(1))
    assert len(solo.sent_to(2, Claim)) == 2


def test_28_probes_still_end_when_the_probed_member_vanishes_midway() -> None:
    solo = Solo(knows=[2, 3])
    solo.answering = (3,)
    pinged(solo, 2)
    solo.hears(2, left(2))
    solo.passes(3.0)
    assert solo.status(2) is Status.LEFT
    solo.forget()
    solo.passes(1.0)
    assert solo.sent_to(3, Ping)


def test_29_timers_that_come_late_or_out_of_order_do_no_harm() -> None:
    swim = make_swim(1)
    effects = swim.start(1.0)
    for number in range(2, 6):
        data = frame(frame_head(CLUSTER, node_id(number)), [encode(alive(number))])
        effects += swim.receive(node_id(number), Lane.PROBE, data, 1.0)
    pending = [effect.timer for effect in effects if isinstance(effect, SetTimer)]
    for turn in range(200):
        if not pending:
            break
        timer = pending.pop(turn * 7 % len(pending))
        for effect in (*swim.timer(timer, 50.0 + turn), *swim.timer(timer, 50.0 + turn)):
            if isinstance(effect, SetTimer) and len(pending) < 100:
                pending.append(effect.timer)
    assert swim.counters()["timers_stale"] >= 200
    assert len(swim.members()) == 5


def test_30_a_nack_keeps_local_health_as_it_was() -> None:
    solo = Solo(knows=[2, 3])
    solo.answering = (3,)
    ask = pinged(solo, 2)
    solo.passes(0.3)
    solo.hears(3, Nack(ask.sequence))
    solo.passes(0.21)
    assert solo.status(2) is Status.SUSPECT
    assert solo.swim.local_health == 0


@pytest.mark.parametrize("down", [dead, left])
def test_31_tombstones_expire_and_are_not_taken_up_again_from_others(down: Callable[[int], Claim]) -> None:
    solo = Solo(config=SwimConfig(forget_after_s=60.0), knows=[2, 3])
    solo.answering = (3,)
    solo.hears(2, down(2))
    solo.passes(30.0)
    assert solo.status(2) is not None
    solo.passes(35.0)
    assert solo.status(2) is None
    solo.hears(3, Records((replace(down(2), down_for_s=59),), ()))
    assert solo.status(2) is None


def test_32_a_third_of_the_nodes_failing_at_once_leaves_the_others_agreeing() -> None:
    for seed in range(3):
        network, hosts = settled_cluster(seed, 12)
        network.isolate(*hosts[8:])
        network.wait(lambda h=hosts: hold_dead(h[:8], h[8:]), 8.0)  # type: ignore[misc]
        network.run(10)
        assert all(network.died_at(host, other) is None for host in hosts[:8] for other in hosts[:8])


def test_32_with_asymmetric_loss_the_remaining_views_agree() -> None:
    network, hosts = settled_cluster(2, 8)
    network.cut = lambda sender, receiver: receiver == 8 and sender % 2 == 0
    network.run(60)
    network.heal()
    network.wait(lambda: network.see_each_other(hosts), 10)
    assert all(network.died_at(host, other) is None for host in hosts[:7] for other in hosts[:7])


@pytest.mark.parametrize("sides", [(1, 1), (1, 4), (2, 3)])
def test_33_a_partition_longer_than_every_suspicion_timeout_heals_by_itself(sides: tuple[int, int]) -> None:
    for seed in range(3):
        network, hosts = settled_cluster(seed, sum(sides))
        one, other = hosts[: sides[0]], hosts[sides[0] :]
        network.partition(one)
        network.run(120)
        assert hold_dead(one, other)
        assert hold_dead(other, one)
        network.heal()
        network.wait(lambda n=network, h=hosts: n.see_each_other(h), 5.0)  # type: ignore[misc]


def test_34_ten_thousand_members_that_come_and_go_leave_no_memory_behind() -> None:
    solo = Solo(config=SwimConfig(forget_after_s=60.0), knows=[2])
    solo.answering = (2,)

    def come_and_go(first: int, count: int) -> None:
        for number in range(first, first + count):
            solo.hears(number, alive(number))
            solo.hears(number, left(number) if number % 2 else dead(number))
        solo.passes(200.0)
        solo.forget()

    come_and_go(10, 500)
    before = reachable(solo.swim)
    for batch in range(1, 20):
        come_and_go(10 + 500 * batch, 500)
    assert len(solo.swim.members()) == 2
    assert reachable(solo.swim) <= before + 50
