"""News of the application: everybody hears it, once new it is passed on, and then there is silence."""

from collections.abc import Sequence

import pytest

from gossip import Claim, Effect, Heard, NewsTooLarge, SwimConfig, TimerKind
from gossip.dissemination import Broadcasts
from gossip.messages import Ack, News
from simulations.swarm import Agent
from tests.gossip.harness import CONFIG, Network, Solo, alive, dead, left, node_id, of_type, ping


class Rumours(Network):
    """A network whose applications pass on each piece of news when it is new to them."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.heard: dict[tuple[int, bytes], float] = {}
        self.told = 0

    def spread(self, host: Agent, body: bytes) -> None:
        self.heard[host.index, body] = self.now
        self.perform(host, host.swim.broadcast(body.decode(), body, self.now))

    def tell(self, agent: Agent, effect: Effect) -> None:
        super().tell(agent, effect)
        if isinstance(effect, Heard):
            self.told += 1
            if (agent.index, effect.body) not in self.heard:
                self.spread(agent, effect.body)

    def know(self, hosts: Sequence[Agent], body: bytes) -> bool:
        return all((host.index, body) in self.heard for host in hosts)


def settled_cluster(count: int, seed: int, loss: float = 0.0) -> tuple[Rumours, list[Agent]]:
    network = Rumours(seed=seed)
    hosts = network.cluster_of(count)
    network.run(10)
    network.loss = loss
    return network, hosts


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_of_fifty_nodes_all_but_very_few_hear_news_within_some_rounds_of_gossip_even_with_loss(loss: float) -> None:
    network, hosts = settled_cluster(50, 1, loss)
    missed = 0
    for turn in range(40):
        body = f"news {turn}".encode()
        network.spread(hosts[turn], body)
        network.run(6 * CONFIG.gossip_interval_s)
        missed += sum((host.index, body) not in network.heard for host in hosts)
    # Each node tells it 8 times, so that a share of about exp(-8 x (1 - loss)) hears nothing.
    assert missed <= 8


def test_in_a_small_cluster_everybody_hears_news() -> None:
    for seed in range(20):
        network, hosts = settled_cluster(5, seed)
        network.spread(hosts[seed % 5], b"news")
        network.wait(lambda n=network, h=hosts: n.know(h, b"news"), 0.5)  # type: ignore[misc]


def test_news_ends_and_afterwards_only_probes_are_sent() -> None:
    network, hosts = settled_cluster(10, 1)
    network.spread(hosts[0], b"news")
    network.run(10)
    assert network.told <= 10 * CONFIG.retransmit_limit(10)
    frames, told = network.frames, network.told
    network.run(20)
    assert network.frames - frames == pytest.approx(10 * 2 * 20 / CONFIG.probe_period_s(10), rel=0.02)
    assert network.told == told


def test_replayed_news_is_told_to_the_application_and_to_nobody_else() -> None:
    network, hosts = settled_cluster(5, 2)
    network.spread(hosts[0], b"news")
    network.run(10)
    frames = network.frames
    for host in hosts[1:]:
        network.perform(host, host.swim.broadcast("again", b"news", network.now))
    network.run(20)
    replays = 4 * CONFIG.retransmit_limit(5)
    assert network.frames - frames <= 5 * 2 * 20 / CONFIG.probe_period_s(5) + replays + 4


def test_who_hears_news_is_told_of_it_each_time_and_passes_nothing_on_by_itself() -> None:
    solo = Solo(knows=[2, 3])
    solo.passes(0.5)
    solo.forget()
    solo.hears(2, News(b"news"))
    solo.hears(3, News(b"news"))
    assert solo.events == [Heard(node_id(2), b"news"), Heard(node_id(3), b"news")]
    solo.passes(0.5)
    assert [message for _, message in solo.sent if isinstance(message, News)] == []


def test_newer_news_under_the_same_key_takes_the_place_of_older() -> None:
    solo = Solo(knows=[2])
    for body in (b"old", b"new"):
        solo.perform(solo.swim.broadcast("key", body, solo.now))
    solo.perform(solo.swim.broadcast("other", b"other", solo.now))
    solo.hears(2, ping(2))
    assert solo.sent_to(2, News) == [News(b"new"), News(b"other")]


def test_a_node_without_live_members_tells_nobody_and_keeps_nothing_for_later() -> None:
    solo = Solo(knows=[2])
    solo.hears(2, left(2))
    solo.forget()
    assert solo.swim.broadcast("key", b"news", solo.now) == []
    solo.hears(3, ping(3))
    assert solo.sent_to(3, Ack)
    assert solo.sent_to(3, News) == []


def test_news_goes_also_to_those_held_dead_since_a_short_while() -> None:
    solo = Solo(config=SwimConfig(redial_interval_s=1000), knows=[2, 3])
    solo.answering = (3,)
    solo.hears(3, dead(2))
    solo.passes(2.0)
    solo.perform(solo.swim.broadcast("key", b"news", solo.now))
    solo.passes(0.5)
    assert News(b"news") in solo.sent_to(2, News)


def test_news_that_is_too_large_is_refused_and_from_others_dropped() -> None:
    solo = Solo(config=SwimConfig(news_bytes_max=100), knows=[2])
    with pytest.raises(NewsTooLarge, match="101 bytes, at most 100"):
        solo.swim.broadcast("key", bytes(101), solo.now)
    solo.hears(2, News(bytes(101)), News(bytes(100)))
    assert of_type(solo.events, Heard) == [Heard(node_id(2), bytes(100))]
    assert solo.swim.counters()["drop_news_too_large"] == 1
    assert not solo.armed(TimerKind.GOSSIP) or solo.sent_to(2, News) == []


def test_news_larger_than_its_room_in_a_frame_is_sent_one_by_one() -> None:
    solo = Solo(config=SwimConfig(gossip_news_bytes=100), knows=[2])
    for key in ("a", "b"):
        solo.perform(solo.swim.broadcast(key, key.encode() * 500, solo.now))
    for bodies in ([News(b"a" * 500)], [News(b"b" * 500)]):
        solo.forget()
        solo.hears(2, ping(2))
        assert solo.sent_to(2, News) == bodies


def test_news_does_not_starve_membership_nor_the_other_way_round() -> None:
    solo = Solo(config=SwimConfig(gossip_membership_bytes=200, gossip_news_bytes=200), knows=[2])
    for number in range(10, 60):
        solo.hears(2, alive(number))
        solo.perform(solo.swim.broadcast(str(number), b"x" * 90, solo.now))
    solo.forget()
    solo.hears(2, ping(2))
    assert 2 <= len(solo.sent_to(2, Claim)) <= 6
    assert len(solo.sent_to(2, News)) == 2


def test_waiting_news_is_bounded_and_what_was_sent_most_makes_room() -> None:
    news = Broadcasts(entries_max=3)
    assert news.put("a", b"a")
    assert news.take(1, 9) == [b"a"]
    assert all(news.put(key, key.encode()) for key in "bc")
    assert news.put("c", b"C")
    assert not news.put("d", b"d")
    assert news.take(9, 9) == [b"b", b"C", b"d"]

    solo = Solo(config=SwimConfig(gossip_news_max=3), knows=[2])
    for key in "abcde":
        solo.perform(solo.swim.broadcast(key, key.encode(), solo.now))
    assert solo.swim.counters()["drop_news_full"] == 2


def test_a_node_that_goes_to_another_cluster_takes_no_news_along() -> None:
    network = Network(seed=5)
    hosts = network.cluster_of(2)
    elsewhere = network.host(3, cluster=bytes(reversed(range(16))))
    network.start(elsewhere)
    network.perform(hosts[1], hosts[1].swim.broadcast("key", b"of the old cluster", network.now))
    network.perform(hosts[1], hosts[1].swim.expel(hosts[0].node, network.now))
    network.perform(hosts[1], hosts[1].swim.join(elsewhere.address, network.now))
    network.run(5)
    assert network.see_each_other([hosts[1], elsewhere])
    assert [event for _, event in elsewhere.events if isinstance(event, Heard)] == []
