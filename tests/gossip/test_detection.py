"""How one node finds out who does not answer: probes, relays, suspicion, refutation."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip import (
    Advertisement,
    Claim,
    Evidence,
    Incarnation,
    MemberChanged,
    Peer,
    Status,
    SwimConfig,
    TimerKind,
)
from gossip.directory import Publication
from gossip.messages import Ack, Nack, Ping, PingRequest
from gossip.suspicion import Suspicions, suspicion_timeout_s
from gossip.transport import HUNG_UP
from tests.gossip.harness import Solo, address_of, alive, dead, left, node_id, of_type, ping, pinged, suspect


def test_an_acked_probe_leaves_no_trace() -> None:
    solo = Solo(knows=[2])
    for _ in range(5):
        solo.forget()
        solo.hears(2, Ack(pinged(solo, 2).sequence, 0))
        solo.passes(0.4)
    assert solo.status(2) is Status.ALIVE
    assert solo.swim.counters().get("probes_failed", 0) == 0


def test_relays_are_asked_when_the_direct_ping_times_out_and_their_ack_is_enough() -> None:
    solo = Solo(knows=[2, 3, 4])
    ask = pinged(solo, 2)
    solo.passes(0.25)
    assert solo.sent_to(3, PingRequest) == [PingRequest(ask.sequence, node_id(2))]
    assert solo.sent_to(4, PingRequest) == [PingRequest(ask.sequence, node_id(2))]
    solo.hears(3, Ack(ask.sequence, 0))
    solo.passes(0.24)
    assert solo.status(2) is Status.ALIVE


def test_an_ack_from_somebody_who_was_not_asked_does_not_count() -> None:
    solo = Solo(knows=[2, 3])
    ask = pinged(solo, 2)
    solo.hears(3, Ack(ask.sequence, 0))
    solo.passes(0.52)
    assert solo.status(2) is Status.SUSPECT


def test_a_refused_connection_asks_relays_at_once_and_is_no_death() -> None:
    solo = Solo(knows=[2, 3, 4])
    ask = pinged(solo, 2)
    solo.perform(solo.swim.unreachable(Peer(node_id(2), address_of(2)), "connection refused", solo.now))
    assert [request.target for request in solo.sent_to(3, PingRequest)] == [node_id(2)]
    solo.hears(3, Ack(ask.sequence, 0))
    solo.passes(0.5)
    assert solo.status(2) is Status.ALIVE


def refuse(solo: Solo, number: int) -> None:
    solo.perform(solo.swim.unreachable(Peer(node_id(number), address_of(number)), "connection refused", solo.now))


@pytest.mark.parametrize("nacks_first", [True, False])
def test_refused_here_twice_and_by_every_relay_ends_the_probe_early(nacks_first: bool) -> None:
    solo = Solo(knows=[2, 3, 4])
    ask = pinged(solo, 2)
    start = solo.now
    refuse(solo, 2)
    solo.hears(3, Nack(ask.sequence))
    if nacks_first:
        solo.hears(4, Nack(ask.sequence))
    solo.passes(0.06)
    assert solo.sent_to(2, Ping) == [ask, ask]
    assert solo.status(2) is Status.ALIVE
    refuse(solo, 2)
    if not nacks_first:
        assert solo.status(2) is Status.ALIVE
        solo.hears(4, Nack(ask.sequence))
    assert solo.status(2) is Status.SUSPECT
    assert solo.now - start < 0.07


def test_a_member_that_refuses_everybody_for_a_moment_is_not_suspected() -> None:
    solo = Solo(knows=[2, 3, 4])
    ask = pinged(solo, 2)
    refuse(solo, 2)
    refuse(solo, 2)
    solo.hears(3, Nack(ask.sequence))
    solo.hears(4, Nack(ask.sequence))
    solo.passes(0.06)
    solo.hears(2, Ack(ask.sequence, 0))
    solo.passes(0.5)
    assert solo.changes(2) == []


@pytest.mark.parametrize("is_refused", [True, False])
def test_in_a_cluster_of_two_one_ping_that_is_refused_or_lost_leads_to_no_suspicion(is_refused: bool) -> None:
    solo = Solo(knows=[2])
    ask = pinged(solo, 2)
    if is_refused:
        refuse(solo, 2)
    solo.passes(0.21)
    assert solo.sent_to(2, Ping) == [ask, ask]
    solo.hears(2, Ack(ask.sequence, 0))
    solo.passes(0.5)
    assert solo.changes(2) == []


def test_a_probe_pings_directly_no_more_than_twice() -> None:
    solo = Solo(config=SwimConfig(probe_interval_s=2.0, probe_window_s=2.0), knows=[2, 3])
    solo.answering = (3,)
    ask = pinged(solo, 2, within_s=5)
    for _ in range(10):
        refuse(solo, 2)
        solo.passes(0.1)
    assert solo.sent_to(2, Ping) == [ask, ask]


def test_a_refused_frame_of_any_kind_is_a_reason_to_probe() -> None:
    solo = Solo(knows=[2, 3, 4])
    solo.perform(solo.swim.unreachable(Peer(node_id(4), address_of(4)), "connection refused", solo.now))
    pinged(solo, 4, within_s=0.11)
    assert solo.status(4) is Status.ALIVE


def test_a_member_that_hangs_up_is_looked_after_at_once_and_not_suspected_for_that() -> None:
    solo = Solo(knows=[2, 3, 4])
    solo.answering = (2, 3, 4)
    solo.passes(2.2)
    solo.forget()
    solo.perform(solo.swim.unreachable(Peer(node_id(4), address_of(4)), HUNG_UP, solo.now))
    pinged(solo, 4, within_s=0.11)
    solo.passes(2.0)
    assert solo.changes(4) == []


def test_in_a_large_cluster_some_look_after_a_member_that_hangs_up_on_all() -> None:
    looking = 0
    for seed in range(40):
        solo = Solo(seed=seed, knows=range(2, 102))
        solo.perform(solo.swim.unreachable(Peer(node_id(4), address_of(4)), HUNG_UP, solo.now))
        looking += bool(solo.armed(TimerKind.PROBE_EARLY))
    assert 0 < looking < 15


def test_a_refusal_from_an_address_the_member_has_left_says_nothing() -> None:
    solo = Solo(knows=[2])
    solo.hears(2, alive(2, epoch=2, address="10.9.9.9:1"))
    ask = pinged(solo, 2)
    solo.perform(solo.swim.unreachable(Peer(node_id(2), address_of(2)), "connection refused", solo.now))
    assert solo.status(2) is Status.ALIVE
    solo.hears(2, Ack(ask.sequence, 0))


def test_a_relay_passes_on_the_ack_and_says_so_when_there_is_none() -> None:
    solo = Solo(knows=[2, 3])
    solo.hears(2, PingRequest(55, node_id(3)))
    solo.hears(3, Ack(solo.sent_to(3, Ping)[-1].sequence, 0))
    assert [ack.sequence for ack in solo.sent_to(2, Ack)] == [55]

    solo.forget()
    solo.hears(2, PingRequest(56, node_id(3)))
    relayed = solo.sent_to(3, Ping)[-1]
    solo.passes(0.17)
    assert solo.sent_to(2, Nack) == [Nack(56)]
    solo.hears(3, Ack(relayed.sequence, 0))
    assert [ack.sequence for ack in solo.sent_to(2, Ack)] == [56]


def test_a_relay_that_does_not_know_the_target_says_nack() -> None:
    solo = Solo(knows=[2])
    solo.hears(2, PingRequest(55, node_id(9)))
    assert solo.sent_to(2, Nack) == [Nack(55)]


def test_a_relay_takes_on_a_bounded_number_of_probes() -> None:
    solo = Solo(config=SwimConfig(relayed_probes_max=5), knows=[2, 3])
    solo.forget()
    for sequence in range(20):
        solo.hears(2, PingRequest(sequence, node_id(3)))
    assert len(solo.sent_to(3, Ping)) == 5
    assert solo.swim.counters()["drop_relayed_probe"] == 15


def test_a_relay_that_one_member_asks_again_and_again_still_probes_for_others() -> None:
    solo = Solo(config=SwimConfig(relayed_probes_per_member=3), knows=[2, 3, 4])
    solo.forget()
    for sequence in range(20):
        solo.hears(2, PingRequest(sequence, node_id(3)))
    solo.hears(4, PingRequest(99, node_id(3)))
    assert len(solo.sent_to(3, Ping)) == 4


def test_a_silent_relay_is_probed_out_of_turn() -> None:
    solo = Solo(knows=[2, 3, 4, 5])
    solo.answering = (3, 4, 5)
    pinged(solo, 2)
    solo.answering = ()
    solo.forget()
    solo.passes(0.65)
    probed = {number for number in (3, 4, 5) if solo.sent_to(number, Ping)}
    assert probed == {3, 4, 5}


def test_every_member_is_probed_once_in_a_round() -> None:
    peers = list(range(2, 12))
    solo = Solo(knows=peers)
    solo.answering = tuple(peers)
    for _ in range(3):
        solo.forget()
        solo.passes(len(peers) * solo.config.probe_period_s(len(peers) + 1))
        probes = [peer.node for peer, message in solo.sent if isinstance(message, Ping)]
        assert sorted(probes) == sorted(node_id(number) for number in peers)


def test_probes_stay_within_a_subset_that_rotates_slowly() -> None:
    config = SwimConfig(probe_subset=8, probe_rotation_rounds=1)
    solo = Solo(config=config, knows=range(2, 102))
    solo.answering = tuple(range(2, 102))

    def round_of_probes() -> set[str]:
        solo.forget()
        solo.passes(8 * config.probe_interval_s)
        return {peer.node for peer, message in solo.sent if isinstance(message, Ping)}

    rounds = [round_of_probes() for _ in range(40)]
    assert all(len(probed) == 8 for probed in rounds)
    assert all(len(before & after) >= 7 for before, after in itertools.pairwise(rounds))
    assert len(set().union(*rounds)) > 30


# Suspicion


@given(
    confirmations=st.integers(0, 20),
    wanted=st.integers(0, 7),
    min_s=st.floats(0.1, 10),
    factor=st.floats(1, 10),
)
def test_a_suspicion_lasts_between_min_and_max_and_confirmations_only_shorten_it(
    confirmations: int, wanted: int, min_s: float, factor: float
) -> None:
    max_s = min_s * factor
    timeout_s = suspicion_timeout_s(confirmations, wanted, min_s, max_s)
    assert min_s <= timeout_s <= max_s
    assert suspicion_timeout_s(confirmations + 1, wanted, min_s, max_s) <= timeout_s
    if confirmations >= wanted:
        assert timeout_s == pytest.approx(min_s)
    if confirmations == 0 and wanted:
        assert timeout_s == max_s


def test_with_nobody_to_confirm_only_the_minimum_is_waited() -> None:
    solo = Solo(knows=[2])
    pinged(solo, 2)
    solo.passes(0.5)
    assert solo.status(2) is Status.SUSPECT
    solo.passes(1.51)
    assert solo.status(2) is Status.DEAD


def test_the_same_accuser_again_confirms_nothing() -> None:
    solo = Solo(config=SwimConfig(probe_interval_s=100, probe_window_s=100, probe_timeout_s=50), knows=range(2, 11))
    for _ in range(5):
        solo.hears(3, suspect(2, 3))
    solo.passes(solo.config.suspicion_bounds_s(10)[1] - 0.1)
    assert solo.status(2) is Status.SUSPECT


def test_suspects_cannot_confirm_so_when_most_vanish_at_once_the_wait_is_short_also_for_those_suspected_before() -> (
    None
):
    solo = Solo(config=SwimConfig(probe_interval_s=100, probe_window_s=100, probe_timeout_s=50), knows=[2, 3, 4, 5])
    solo.hears(3, suspect(2, 3))
    solo.passes(1.0)
    for number in (3, 4, 5):
        solo.hears(2, suspect(number, 2))
    solo.passes(0.6)
    assert solo.status(2) is Status.DEAD
    assert [solo.status(number) for number in (3, 4, 5)] == [Status.SUSPECT] * 3
    solo.passes(1.0)
    assert [solo.status(number) for number in (3, 4, 5)] == [Status.DEAD] * 3


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from(["start", "end", "time", "time", "time", "due"]), st.integers(0, 9)
        ),
        max_size=60,
    )
)
def test_each_suspicion_is_over_once_at_the_time_that_was_set_last_and_few_times_are_kept(
    happens: list[tuple[str, str, int]],
) -> None:
    suspicions = Suspicions(SwimConfig())
    ends: dict[str, float] = {}
    for node, what, at in happens:
        if what == "start":
            suspicions.start(node, (), 0.0)
            ends[node] = float("inf")
        elif what == "end":
            suspicions.end(node)
            ends.pop(node, None)
        elif what == "time" and node in ends:
            suspicions.time(node, at)
            ends[node] = at
        elif what == "due":
            due = sorted(suspect for suspect, end in ends.items() if end <= at)
            assert sorted(suspicions.take_due(at)) == due
            ends |= dict.fromkeys(due, float("inf"))
        assert suspicions.next_end == min(ends.values(), default=float("inf"))
        assert len(suspicions._ends) <= 4 * len(ends) + 4 or what == "end"


def test_one_timer_serves_all_suspects_and_each_is_given_up_in_its_time() -> None:
    solo = Solo(config=SwimConfig(suspicion_max_factor=1), knows=[2, 3, 4, 5])
    solo.answering = (3, 5)
    solo.hears(5, suspect(2, 5))
    first = solo.armed(TimerKind.SUSPICION)
    assert len(first) == 1
    solo.passes(1.0)
    solo.hears(5, suspect(3, 5), suspect(4, 5))
    assert solo.armed(TimerKind.SUSPICION) == first
    solo.hears(3, alive(3, counter=1))
    solo.passes(first[0] - solo.now + 0.1)
    assert [solo.status(number) for number in (2, 3, 4)] == [Status.DEAD, Status.ALIVE, Status.SUSPECT]
    assert len(solo.armed(TimerKind.SUSPICION)) == 1
    solo.passes(1.0)
    assert [solo.status(number) for number in (2, 3, 4)] == [Status.DEAD, Status.ALIVE, Status.DEAD]
    assert solo.armed(TimerKind.SUSPICION) == []


def test_suspicion_grows_with_the_logarithm_of_the_cluster() -> None:
    config = SwimConfig()
    assert config.suspicion_bounds_s(1) == config.suspicion_bounds_s(10) == (1.25, 7.5)
    assert config.suspicion_bounds_s(1000) == pytest.approx((3.75, 22.5))


def test_a_suspicion_heard_from_others_is_checked_out_of_turn_and_confirmed_within_half_a_second() -> None:
    peers = range(2, 10)
    solo = Solo(config=SwimConfig(probe_interval_s=0.4, probe_window_s=0.4), knows=peers)
    solo.answering = tuple(peers[1:])
    solo.hears(3, suspect(2, 3))
    solo.passes(0.51)
    evidence = solo.swim.evidence(node_id(2))
    assert evidence == Evidence((node_id(3), solo.swim.node), since=100.0)
    solo.passes(0.1)
    assert solo.said_about(2)[-1].accusers == evidence.observers


def test_a_suspect_that_answers_is_not_accused_by_whoever_got_the_answer() -> None:
    solo = Solo(knows=[2, 3, 4])
    solo.hears(3, suspect(2, 3))
    solo.hears(2, Ack(pinged(solo, 2, within_s=0.2).sequence, 0))
    solo.passes(0.45)
    assert all(solo.swim.node not in claim.accusers for claim in solo.said_about(2))


def test_in_a_large_cluster_only_some_probe_a_suspect_out_of_turn() -> None:
    config = SwimConfig(probe_interval_s=100, probe_window_s=100, probe_timeout_s=50, probe_early_peers=10)
    probing = 0
    for seed in range(60):
        solo = Solo(config=config, seed=seed, knows=range(2, 62))
        solo.hears(3, suspect(2, 3))
        solo.passes(0.2)
        probing += bool(solo.sent_to(2, Ping))
    assert 2 <= probing <= 25


def test_a_suspect_that_pings_learns_of_it() -> None:
    solo = Solo(knows=[2, 3, 4])
    solo.hears(3, suspect(2, 3))
    solo.forget()
    solo.hears(2, ping(2))
    assert any(claim.member.status is Status.SUSPECT for claim in solo.sent_to(2, Claim))


def test_however_often_one_frame_doubts_this_node_it_gets_one_answer() -> None:
    solo = Solo(knows=[2])
    solo.hears(2, *(suspect(1, accuser) for accuser in range(2, 100)), dead(1), left(1))
    assert len(solo.sent_to(2, Claim)) == 1


def test_a_claim_that_self_is_alive_in_a_future_incarnation_is_outbid() -> None:
    solo = Solo(knows=[2])
    solo.hears(2, alive(1, epoch=7, counter=3))
    assert solo.swim.incarnation == Incarnation(7, 4)
    solo.hears(2, alive(1, epoch=7, counter=3))
    assert solo.swim.incarnation == Incarnation(7, 4)


@pytest.mark.parametrize("number", [1, 3, 9])
def test_nobody_is_driven_by_others_to_an_epoch_that_no_count_of_starts_reaches(number: int) -> None:
    solo = Solo(knows=[2, 3])
    members = solo.swim.members()
    for message in (dead(number, epoch=2**48, counter=2**48), alive(number, epoch=2**32 + 1)):
        solo.hears(2, message)
    solo.hears(2, Publication(node_id(number), Incarnation(2**32 + 1, 1), Advertisement((), b"forged")))
    assert solo.swim.counters()["drop_incredible"] == 3
    assert solo.swim.members() == members
    assert solo.swim.advertisement(node_id(number)) is None


def test_beyond_that_epoch_what_others_say_is_taken_in_small_steps_and_what_a_member_says_of_itself_at_once() -> None:
    solo = Solo(knows=[2, 3])
    solo.hears(2, alive(3, epoch=2**32), alive(3, epoch=2**32 + 2**16), alive(3, epoch=2**32 + 2**17 + 1))
    assert solo.swim.members()[-1].incarnation == Incarnation(2**32 + 2**16, 0)
    solo.hears(3, alive(3, epoch=2**40))
    solo.hears(2, alive(3, epoch=2**40, counter=1))
    assert solo.swim.members()[-1].incarnation == Incarnation(2**40, 1)


def test_a_node_outbids_what_is_said_of_it_up_to_the_last_counter() -> None:
    solo = Solo(knows=[2])
    solo.hears(2, alive(1, epoch=7, counter=2**48))
    assert solo.swim.incarnation == Incarnation(8, 0)


def test_a_restart_is_told_to_the_application_and_a_mere_refutation_is_not() -> None:
    solo = Solo(knows=[2])
    solo.hears(2, alive(2, counter=5))
    assert of_type(solo.events, MemberChanged) == []
    solo.hears(2, alive(2, epoch=2))
    assert solo.changes(2) == [(Status.ALIVE, Status.ALIVE)]
