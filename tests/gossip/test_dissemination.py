"""News: what goes first, how often it goes, and when it stops."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gossip import Advertisement, AdvertisementChanged, Claim, EpochRaised, Incarnation, Status, SwimConfig, TimerKind
from gossip.directory import Publication
from gossip.dissemination import Broadcasts
from gossip.messages import Ping
from tests.gossip.harness import Solo, alive, dead, left, node_id, ping, suspect


def test_a_piece_larger_than_the_budget_goes_alone() -> None:
    news = Broadcasts()
    news.put("large", b"x" * 50)
    news.put("small", b"y")
    assert news.take(10, 1) == [b"x" * 50]
    assert news.take(10, 1) == [b"y"]


def test_what_is_new_about_a_node_is_put_into_words_when_it_is_first_sent_and_once() -> None:
    said: list[str] = []

    def encoded(key: str) -> bytes:
        said.append(key)
        return f"{key}{len(said)}".encode()

    news = Broadcasts(encoded=encoded)
    news.put("a")
    news.put("a")
    news.put("b")
    news.drop("b")
    assert news.take(10, 3) == [b"a1"]
    assert news.take(10, 3) == [b"a1"]
    news.amend("a", 3)
    assert news.take(10, 3) == [b"a2"]
    assert news.take(10, 3) == []
    news.amend("a", 3)
    news.heard("a", 3)
    assert news.take(10, 3) == []
    assert said == ["a", "a"]


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.binary(min_size=1, max_size=30)), max_size=30), st.integers(1, 5)
)
def test_every_piece_is_sent_as_often_as_the_limit_says_within_the_budget(
    puts: list[tuple[str, bytes]], limit: int
) -> None:
    news = Broadcasts()
    for node, piece in puts:
        news.put(node, piece)
    latest = dict(puts)
    sent: list[bytes] = []
    while len(news):
        taken = news.take(40, limit)
        assert taken
        assert len(taken) == 1 or sum(map(len, taken)) <= 40
        sent += taken
    assert sorted(sent) == sorted(piece for piece in latest.values() for _ in range(limit))


def test_the_retransmit_limit_grows_with_the_logarithm_of_the_cluster() -> None:
    config = SwimConfig()
    assert [config.retransmit_limit(n) for n in (1, 5, 9, 10, 99, 100, 1000)] == [4, 4, 4, 8, 8, 12, 16]


def test_the_gossip_timer_runs_only_while_there_is_news() -> None:
    solo = Solo(knows=[2, 3])
    solo.answering = (2, 3)
    solo.passes(10.0)
    assert not solo.armed(TimerKind.GOSSIP)
    solo.hears(2, alive(4))
    assert solo.armed(TimerKind.GOSSIP)


def test_news_about_one_member_is_told_no_more_often_than_the_limit() -> None:
    solo = Solo(knows=range(2, 8))
    solo.answering = (*range(2, 8), 50)
    solo.passes(10.0)
    solo.forget()
    solo.hears(2, alive(50))
    solo.passes(10.0)
    assert len(solo.said_about(50)) == solo.config.view_retransmit_limit(8)


def test_advertisements_do_not_starve_membership_nor_the_other_way_round() -> None:
    solo = Solo(config=SwimConfig(gossip_membership_bytes=200, gossip_advertisement_bytes=200), knows=[2])
    for number in range(10, 60):
        solo.hears(2, alive(number))
        solo.hears(2, Publication(node_id(number), Incarnation(1, 1), Advertisement((), b"x" * 60)))
    solo.forget()
    solo.hears(2, ping(2))
    assert 2 <= len(solo.sent_to(2, Claim)) <= 6
    assert len(solo.sent_to(2, Publication)) == 2


def test_news_is_told_to_those_who_are_likely_to_listen_and_not_spent_on_suspects() -> None:
    solo = Solo(knows=[2, 3, 4, 5])
    solo.answering = (5,)
    solo.hears(5, suspect(2, 5), suspect(3, 5), suspect(4, 5))
    solo.passes(1.2)
    told = [claim.member.node for claim in solo.sent_to(5, Claim)]
    limit = solo.config.retransmit_limit(5)
    assert all(told.count(node_id(number)) >= limit for number in (2, 3, 4))


def test_suspects_get_news_like_everybody_else_where_nobody_probes_them_out_of_turn() -> None:
    solo = Solo(
        config=SwimConfig(probe_interval_s=100, probe_window_s=100, probe_timeout_s=50, probe_early_peers=0),
        knows=[2, 3],
    )
    solo.hears(3, suspect(2, 3))
    solo.passes(1.2)
    assert solo.sent_to(2, Claim)


def test_a_member_that_is_probed_because_it_is_doubted_gets_no_news_but_what_is_said_of_itself() -> None:
    solo = Solo(
        config=SwimConfig(probe_interval_s=100, probe_window_s=100, probe_timeout_s=50, gossip_interval_s=10),
        knows=[2, 3, 4, 5],
    )
    solo.hears(5, alive(6), suspect(2, 5), suspect(3, 5))
    solo.forget()
    solo.passes(0.2)
    for number in (2, 3):
        assert solo.sent_to(number, Ping)
        assert {claim.member.node for claim in solo.sent_to(number, Claim)} == {node_id(number)}


def test_in_a_large_cluster_news_goes_to_the_members_that_are_probed_anyway() -> None:
    count = 200
    solo = Solo(config=SwimConfig(), knows=range(2, count))
    solo.answering = tuple(range(2, count))
    solo.passes(solo.config.probe_subset * solo.config.probe_interval_s)
    probed = {peer.node for peer, message in solo.sent if isinstance(message, Ping)}
    solo.forget()
    solo.hears(2, alive(count))
    solo.passes(1.0)
    told = [peer.node for peer, message in solo.sent if isinstance(message, Claim)]
    assert len(told) == solo.config.view_retransmit_limit(count)
    assert len(set(told) - probed) <= 2


def test_a_newcomer_that_pings_has_its_turn_soon_however_large_the_cluster() -> None:
    count = 200
    solo = Solo(knows=range(2, count))
    solo.answering = tuple(range(2, count + 1))
    solo.passes(20.0)
    solo.hears(count, ping(count))
    solo.forget()
    solo.passes(solo.config.probe_subset * solo.config.probe_interval_s)
    assert solo.sent_to(count, Ping)


def test_a_replayed_leave_is_no_news() -> None:
    solo = Solo(knows=[2, 3])
    solo.hears(2, left(2))
    solo.passes(10.0)
    solo.forget()
    for _ in range(5):
        solo.hears(3, left(2))
    solo.passes(2.0)
    assert solo.said_about(2) == []
    assert solo.events == []


# Advertisements


def publication(number: int, counter: int, *names: str, body: bytes = b"") -> Publication:
    return Publication(node_id(number), Incarnation(1, counter), Advertisement(names, body))


def test_only_newer_versions_of_an_advertisement_are_taken() -> None:
    solo = Solo(knows=[2])
    for counter, body in ((2, b"two"), (1, b"one"), (2, b"forged"), (3, b"three")):
        solo.hears(2, publication(2, counter, body=body))
    assert solo.swim.advertisement(node_id(2)) == Advertisement((), b"three")
    assert solo.events == [AdvertisementChanged(node_id(2))] * 2


def test_an_advertisement_that_arrives_before_its_member_is_applied_later() -> None:
    solo = Solo(knows=[2])
    solo.hears(2, publication(3, 1, "app"))
    assert solo.swim.advertisement(node_id(3)) is None
    assert solo.swim.directory.responsible("app") == ()
    solo.hears(2, alive(3))
    assert solo.swim.directory.responsible("app") == (node_id(3),)
    assert solo.events[-1] == AdvertisementChanged(node_id(3))


def test_advertisements_of_unknown_nodes_are_kept_in_bounded_number() -> None:
    solo = Solo(config=SwimConfig(orphans_max=3), knows=[2])
    for number in range(10, 16):
        solo.hears(2, publication(number, 1, "app"))
    for number in range(10, 16):
        solo.hears(2, alive(number))
    assert solo.swim.directory.responsible("app") == tuple(sorted(node_id(number) for number in (13, 14, 15)))


def test_the_same_advertisement_again_is_no_change() -> None:
    solo = Solo(knows=[2])
    solo.perform(solo.swim.advertise(Advertisement(("app",), b"body"), solo.now))
    solo.passes(10.0)
    solo.forget()
    solo.perform(solo.swim.advertise(Advertisement(("app",), b"body"), solo.now))
    assert solo.sent == []
    assert solo.armed(TimerKind.GOSSIP) == []


def test_after_a_restart_own_advertisements_supersede_those_of_the_past() -> None:
    solo = Solo(knows=[2])
    solo.perform(solo.swim.advertise(Advertisement((), b"now"), solo.now))
    solo.hears(2, Publication(solo.swim.node, Incarnation(5, 9), Advertisement((), b"before the disk was restored")))
    solo.passes(0.2)
    told = [p for p in solo.sent_to(2, Publication) if p.node == solo.swim.node]
    assert told[-1] == Publication(solo.swim.node, Incarnation(5, 10), Advertisement((), b"now"))


def test_who_is_known_in_a_later_epoch_goes_on_in_that_one_and_tells_its_application_once() -> None:
    solo = Solo(knows=[2, 3])
    mine = solo.swim.member(solo.swim.node)
    assert mine is not None
    later = Incarnation(mine.incarnation.epoch + 4, 2)
    solo.hears(2, Claim(replace(mine, incarnation=later)))
    assert [event for event in solo.events if isinstance(event, EpochRaised)] == [EpochRaised(later.epoch)]
    assert solo.swim.incarnation > later
    solo.hears(3, Claim(replace(mine, incarnation=later)))
    assert len([event for event in solo.events if isinstance(event, EpochRaised)]) == 1


def test_who_is_suspected_in_its_own_epoch_stays_in_it() -> None:
    solo = Solo(knows=[2])
    mine = solo.swim.member(solo.swim.node)
    assert mine is not None
    solo.hears(2, Claim(replace(mine, status=Status.SUSPECT), (node_id(2),)))
    assert solo.swim.incarnation > mine.incarnation
    assert not [event for event in solo.events if isinstance(event, EpochRaised)]


def test_the_directory_keeps_members_that_are_down_and_drops_those_forgotten() -> None:
    solo = Solo(config=SwimConfig(forget_after_s=60.0), knows=[2, 3])
    solo.answering = (3,)
    solo.hears(2, publication(2, 1, "app", "other"))
    solo.hears(3, dead(2))
    solo.passes(30.0)
    assert solo.swim.directory.responsible("app") == (node_id(2),)
    solo.passes(32.0)
    assert solo.swim.directory.responsible("app") == ()
    assert solo.swim.directory.names() == ()


@given(st.lists(st.tuples(st.integers(2, 5), st.lists(st.sampled_from("abcd"), unique=True)), max_size=20))
def test_the_directory_is_the_union_of_all_advertisements(changes: list[tuple[int, list[str]]]) -> None:
    solo = Solo(knows=[2, 3, 4, 5])
    expected: dict[int, list[str]] = {}
    for counter, (number, names) in enumerate(changes, 1):
        solo.hears(number, publication(number, counter, *names))
        expected[number] = names
    for name in "abcd":
        nodes = sorted(node_id(number) for number, names in expected.items() if name in names)
        assert solo.swim.directory.responsible(name) == tuple(nodes)
    assert solo.swim.directory.names() == tuple(sorted({name for names in expected.values() for name in names}))
