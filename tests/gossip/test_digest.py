"""From the difference of two digests it is seen which of the latest changes one of them lacks."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gossip import Advertisement, Claim, Incarnation, Publication, Send, Status, SwimConfig
from gossip.digest import LATEST_MAX, Digest
from gossip.messages import Ack, News, Records
from tests.gossip.harness import Network, Solo, alive, dead, member, node_id, ping, suspect

OWN = member(1, Status.ALIVE)


def published(number: int, counter: int = 1) -> Publication:
    return Publication(node_id(number), Incarnation(1, counter), Advertisement((f"app{number}",)))


@settings(max_examples=50)
@given(st.integers(0, 100), st.sets(st.integers(0, LATEST_MAX // 2 - 1), min_size=1), st.randoms(use_true_random=False))
def test_any_of_the_latest_changes_that_another_lacks_are_found(
    earlier: int, lacking: set[int], rng: random.Random
) -> None:
    here, there = Digest([OWN]), Digest([OWN])
    for number in range(earlier):
        for digest in (here, there):
            digest.change(node_id(number), None, member(number, Status.ALIVE))
    changes = [
        (member(number, Status.ALIVE), member(number, rng.choice(list(Status)), 2)) for number in range(200, 220)
    ]
    for place, (before, after) in enumerate(changes):
        here.change(after.node, before, after)
        if place not in lacking:
            there.change(after.node, before, after)
    assert here.lacking(there.total) == [changes[place][1] for place in sorted(lacking)]


@given(st.integers(1, 2**64 - 1))
def test_what_no_changes_sum_up_to_is_not_explained(difference: int) -> None:
    digest = Digest([OWN])
    for number in range(30):
        digest.change(node_id(number), None, member(number, Status.ALIVE))
    assert digest.lacking(digest.total ^ difference) == []
    assert digest.lacking(digest.total) == []


def test_what_is_known_only_there_is_not_explained() -> None:
    here, there = Digest([OWN]), Digest([OWN])
    here.change(node_id(2), None, member(2, Status.ALIVE))
    there.change(node_id(3), None, member(3, Status.ALIVE))
    assert here.lacking(there.total) == []


def test_nothing_is_kept_about_a_member_that_is_forgotten() -> None:
    digest = Digest([OWN])
    before = digest.total
    digest.change(node_id(2), None, member(2, Status.ALIVE))
    digest.change(node_id(2), member(2, Status.ALIVE), None)
    assert digest.total == before
    assert digest._changes._latest == []


def level(solo: Solo) -> int:
    """The digest of whoever knows what this core knows."""
    return solo.swim._view.digest.total


def quiet(solo: Solo) -> None:
    """All news has been told."""
    solo.passes(5.0)
    assert not solo.swim._outbox.has_news
    solo.forget()


def test_whoever_pings_and_lacks_the_latest_changes_is_told_just_these_with_the_ack() -> None:
    solo = Solo(knows=range(2, 8))
    solo.answering = tuple(range(2, 8))
    quiet(solo)
    before = level(solo)
    solo.hears(3, alive(5, counter=1), published(6))
    quiet(solo)
    solo.hears(2, ping(2, digest=before))
    assert [message for _, message in solo.sent] == [Ack(7, level(solo)), alive(5, counter=1), published(6)]
    assert len(solo.lanes) == 1


def test_whoever_acks_and_lacks_the_latest_changes_is_told_just_these() -> None:
    solo = Solo(knows=range(2, 8))
    solo.answering = tuple(range(2, 8))
    quiet(solo)
    before = level(solo)
    solo.hears(3, suspect(5, 3))
    quiet(solo)
    solo.hears(2, Ack(0, before))
    assert [message for _, message in solo.sent] == [suspect(5, 3)]


def test_of_what_has_changed_again_since_only_the_present_is_told() -> None:
    solo = Solo(knows=range(2, 8))
    solo.answering = tuple(range(2, 8))
    quiet(solo)
    before = level(solo)
    solo.hears(3, suspect(5, 3))
    solo.hears(5, alive(5, counter=1))
    quiet(solo)
    solo.hears(2, ping(2, digest=before))
    assert solo.sent_to(2, Claim) == [alive(5, counter=1)]


def test_whoever_knows_the_same_gets_no_news_about_members_but_the_application_s() -> None:
    solo = Solo(knows=range(2, 8))
    solo.hears(3, alive(9))
    solo.perform(solo.swim.broadcast("key", b"news", solo.now))
    solo.forget()
    solo.hears(2, ping(2, digest=level(solo)))
    assert not solo.sent_to(2, Claim)
    assert solo.sent_to(2, News)


def test_whoever_asks_again_and_again_is_told_at_a_bounded_rate() -> None:
    solo = Solo(knows=range(2, 8))
    solo.answering = tuple(range(2, 8))
    quiet(solo)
    before = level(solo)
    solo.hears(3, alive(5, counter=1))
    quiet(solo)
    for _ in range(50):
        solo.hears(2, ping(2, digest=before))
    assert len(solo.sent_to(2, Claim)) == solo.config.sync_answers_per_member


def test_what_is_told_has_a_bounded_size() -> None:
    solo = Solo(config=SwimConfig(gossip_advertisement_bytes=1000, gossip_membership_bytes=1000), knows=range(2, 30))
    solo.answering = tuple(range(2, 30))
    quiet(solo)
    before = level(solo)
    for number in range(2, 20):
        body = Advertisement((), b"x" * 900)
        solo.hears(number, Publication(node_id(number), Incarnation(1, 1), body))
    quiet(solo)
    solo.hears(25, ping(25, digest=before))
    assert len(solo.sent_to(25, Publication)) == 3


def test_comparisons_that_bring_nothing_become_rare_and_one_that_brought_something_makes_them_frequent() -> None:
    solo = Solo(knows=range(2, 8))
    solo.answering = tuple(range(2, 8))

    def compared_within(span_s: int) -> int:
        before = solo.swim.counters().get("syncs_started", 0)
        for _ in range(span_s):
            solo.hears(3, ping(3, digest=1))
            solo.passes(1.0)
        return solo.swim.counters().get("syncs_started", 0) - before

    quiet(solo)
    assert 4 <= compared_within(75) <= 8
    assert compared_within(20) == 0
    solo.hears(3, Records((alive(5),), ()))
    assert compared_within(20) == 0
    solo.hears(3, Records((alive(5, counter=1),), ()))
    assert compared_within(20) >= 3


def test_it_can_be_switched_off() -> None:
    solo = Solo(config=SwimConfig(tell_lacking=False), knows=range(2, 8))
    solo.answering = tuple(range(2, 8))
    quiet(solo)
    before = level(solo)
    solo.hears(3, alive(5, counter=1))
    quiet(solo)
    solo.hears(2, ping(2, digest=before))
    assert not solo.sent_to(2, Claim)
    assert solo.config.view_retransmit_limit(5000) == solo.config.retransmit_limit(5000)


def test_who_tells_as_news_what_a_member_has_refuted_is_told_so() -> None:
    solo = Solo(knows=range(2, 8))
    solo.answering = tuple(range(2, 8))
    solo.hears(4, alive(4, counter=1), alive(5, counter=1))
    quiet(solo)
    solo.hears(2, suspect(4), dead(5), suspect(6), suspect(4))
    told = [claim.member for claim in solo.sent_to(2, Claim)]
    assert [(member.node, member.status, member.incarnation.counter) for member in told[:2]] == [
        (node_id(4), Status.ALIVE, 1),
        (node_id(5), Status.ALIVE, 1),
    ]
    assert node_id(6) not in [member.node for member in told]
    assert solo.swim.counters()["told_refuted"] == 2


def test_refutations_are_told_at_a_bounded_rate_and_in_frames_of_bounded_size() -> None:
    solo = Solo(knows=range(2, 200))
    solo.answering = tuple(range(2, 200))
    solo.hears(2, *[alive(number, counter=1) for number in range(3, 200)])
    quiet(solo)
    for _ in range(50):
        solo.hears(2, *[suspect(number) for number in range(3, 200)])
    assert 0 < len(solo.sent_to(2, Claim)) <= solo.config.sync_answers_per_member * 60


def test_news_that_others_tell_as_well_is_told_less_often() -> None:
    solo = Solo(knows=range(2, 8))
    solo.hears(2, dead(7))
    solo.passes(3.0)
    solo.forget()
    solo.hears(2, alive(9))
    for number in range(3, 7):
        solo.hears(number, alive(9))
    solo.passes(5.0)
    assert not solo.said_about(9)


def test_what_a_member_says_of_itself_again_does_not_count_as_told_to_others() -> None:
    solo = Solo(knows=range(2, 8))
    solo.answering = tuple(range(2, 10))
    for _ in range(10):
        solo.hears(9, alive(9))
    solo.passes(5.0)
    assert len(solo.said_about(9)) == solo.config.view_retransmit_limit(8)


def test_a_confirmation_by_others_is_passed_on_once_when_the_suspicion_has_been_told() -> None:
    solo = Solo(config=SwimConfig(suspicion_min_s=60, probe_early_peers=1), knows=range(2, 8))
    solo.answering = tuple(range(2, 8))
    solo.hears(2, suspect(7, 2))
    quiet_after = solo.config.gossip_interval_s * 10
    solo.passes(quiet_after)
    solo.forget()
    solo.hears(3, suspect(7, 3))
    solo.passes(quiet_after)
    told = [m for peer, m in solo.sent if isinstance(m, Claim) and m.member.node == node_id(7) != peer.node]
    assert [claim.accusers for claim in told] == [(node_id(2), node_id(3))]


def test_of_many_who_relay_to_one_that_refuses_few_probe_it_themselves() -> None:
    network = Network(seed=2)
    hosts = network.formed(150)
    network.run(3)
    network.kill(hosts[7])
    network.run(1.5)
    assert sum(host.swim.counters().get("probes_failed", 0) for host in hosts) < 40


def test_one_that_is_held_dead_hears_news_from_some_of_a_large_cluster_not_from_all() -> None:
    network = Network(seed=2)
    hosts = network.formed(150)
    network.run(3)
    network.isolate(hosts[7])
    network.wait(lambda: all(network.died_at(host, hosts[7]) for host in hosts if host is not hosts[7]), 12)
    to_the_dead: list[Send] = []
    network.overheard = lambda sender, send: to_the_dead.append(send) if send.peer.node == hosts[7].node else None
    network.perform(hosts[0], hosts[0].swim.advertise(Advertisement(("app",)), network.now))
    network.run(1.0)
    assert 3 <= len(to_the_dead) < 150
