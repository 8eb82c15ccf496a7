"""How a node that is itself unwell judges others: local health, stalls, and what the silence of relays tells."""

from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip import Evidence, Status, SwimConfig
from gossip.health import LocalHealth
from gossip.messages import Ack, Nack
from tests.gossip.harness import Network, Solo, alive, dead, hold_dead, node_id, pinged, settled_cluster, suspect

EVENTS = ("better", "worse", "silence", "explained")


@given(st.lists(st.sampled_from(EVENTS)), st.integers(0, 12))
def test_health_stays_within_its_bounds_and_never_makes_a_wait_shorter(events: Sequence[str], scores_max: int) -> None:
    health = LocalHealth(SwimConfig(awareness_max=scores_max), defaultdict(int))
    for event in events:
        match event:
            case "better":
                health.better()
            case "worse":
                health.worse()
            case "silence":
                health.silence("relay")
            case "explained":
                health.explained("relay")
        assert 0 <= health.score <= max(0, scores_max - 1)
        assert health.scaled(0.5) >= 0.5


def test_a_node_that_gets_no_answer_at_all_probes_ever_more_slowly() -> None:
    solo = Solo(knows=range(2, 8))
    solo.passes(60.0)
    assert solo.swim.local_health == solo.config.awareness_max - 1


def test_without_awareness_a_node_never_doubts_itself() -> None:
    solo = Solo(config=SwimConfig(awareness_max=0), knows=range(2, 8))
    solo.passes(60.0)
    assert solo.swim.local_health == 0


def test_a_relay_that_somebody_else_finds_silent_does_not_count_against_this_node() -> None:
    for explained in (False, True):
        solo = Solo(knows=[2, 3, 4])
        solo.answering = (3,)
        ask = pinged(solo, 2)
        solo.passes(0.3)
        solo.hears(3, Nack(ask.sequence))
        solo.passes(0.21)
        assert solo.swim.local_health == 1
        if explained:
            solo.hears(3, suspect(4, 3))
        assert solo.swim.local_health == (0 if explained else 1)


def test_a_refused_probe_in_a_cluster_of_two_does_not_count_against_this_node() -> None:
    network, hosts = settled_cluster(1, 2)
    network.kill(hosts[1])
    network.wait(lambda: hold_dead(hosts[:1], hosts[1:]), 4.0)
    assert hosts[0].swim.local_health == 0


# Standing still


def test_a_node_that_stood_still_holds_nobody_dead_for_it() -> None:
    for stall_s in (1.0, 10.0, 600.0):
        network, hosts = settled_cluster(2, 5)
        sleeper, *others = hosts
        network.stand_still(sleeper, stall_s)
        network.run(stall_s + 20.0)
        assert sleeper.swim.counters()["stalls"] >= 1
        assert all(network.died_at(sleeper, other) is None for other in others)
        assert all(network.died_at(other, fellow) is None for other in others for fellow in others)
        network.wait(lambda n=network, h=hosts: n.see_each_other(h), 10.0)  # type: ignore[misc]


def test_without_notice_of_stalls_a_node_that_stood_still_holds_others_dead() -> None:
    network = Network(seed=2, config=SwimConfig(stall_s=0, awareness_max=0))
    hosts = network.cluster_of(5)
    network.isolate(hosts[0])
    network.run(1.0)
    network.stand_still(hosts[0], 60.0)
    network.run(59.0)
    network.heal()
    network.run(10.0)
    assert any(network.died_at(hosts[0], other) for other in hosts[1:])


def test_the_time_in_which_a_node_stood_still_is_no_time_for_a_suspect_to_object() -> None:
    solo = Solo(knows=range(2, 6))
    solo.answering = (3, 4, 5)
    solo.hears(3, suspect(2, 3, 4, 5))
    solo.passes(0.1)
    solo.stands_still(30.0)
    solo.passes(solo.config.suspicion_min_s - 0.1 - solo.config.probe_interval_s)
    assert solo.status(2) is Status.SUSPECT
    solo.passes(solo.config.probe_interval_s)
    assert solo.status(2) is Status.DEAD


def test_a_suspicion_that_would_have_ended_while_this_node_stood_still_waits_until_all_is_read() -> None:
    config = SwimConfig(probe_interval_s=1.4, probe_window_s=1.4, suspicion_min_s=1.5)
    solo = Solo(config=config, knows=range(2, 6))
    solo.answering = (3, 4, 5)
    solo.hears(3, suspect(2, 3, 4, 5))
    solo.passes(1.49)
    solo.stands_still(30.0)
    solo.passes(1.3)
    assert solo.status(2) is Status.SUSPECT
    solo.passes(0.2)
    assert solo.status(2) is Status.DEAD


def test_an_answer_that_waited_while_this_node_stood_still_is_read_before_a_probe_fails() -> None:
    solo = Solo(knows=[2, 3])
    solo.answering = (3,)
    ask = pinged(solo, 2)
    solo.stands_still(5.0)
    solo.passes(0.05)
    solo.hears(2, Ack(ask.sequence, 0))
    solo.passes(0.4)
    assert solo.changes(2) == []


def test_one_stall_counts_once_however_many_timers_are_late() -> None:
    solo = Solo(knows=range(2, 6))
    solo.answering = (2, 3, 4, 5)
    solo.hears(3, suspect(2, 3), suspect(4, 3))
    solo.stands_still(3.0)
    solo.passes(0.01)
    assert solo.swim.counters()["stalls"] == 1


@pytest.mark.parametrize("late_s", [0.0, 0.2])
def test_a_loop_that_is_a_little_late_is_no_stall(late_s: float) -> None:
    solo = Solo(knows=[2, 3])
    solo.answering = (2, 3)
    for _ in range(50):
        solo.passes(0.3)
        solo.stands_still(late_s)
    assert "stalls" not in solo.swim.counters()


# Evidence


def test_evidence_names_who_got_no_answer_and_since_when() -> None:
    solo = Solo(knows=range(2, 6))
    solo.answering = (2, 3, 4, 5)
    assert solo.swim.evidence(node_id(2)) is None
    solo.hears(3, suspect(2, 3))
    solo.hears(4, suspect(2, 4))
    assert solo.swim.evidence(node_id(2)) == Evidence((node_id(3), node_id(4)), since=100.0)
    solo.hears(2, alive(2, counter=1))
    assert solo.swim.evidence(node_id(2)) is None


def test_evidence_outlives_the_death_and_ends_with_the_return() -> None:
    solo = Solo(knows=range(2, 6))
    solo.answering = (3, 4, 5)
    solo.hears(3, dead(2))
    solo.passes(5.0)
    assert solo.status(2) is Status.DEAD
    evidence = solo.swim.evidence(node_id(2))
    assert evidence is not None
    assert set(evidence.observers) == {solo.swim.node, node_id(3)}
    solo.hears(2, alive(2, counter=1))
    assert solo.swim.evidence(node_id(2)) is None


def test_what_one_member_that_stood_still_tells_is_the_word_of_one_observer() -> None:
    solo = Solo(knows=range(2, 6))
    solo.answering = (2, 3, 4, 5)
    for _ in range(10):
        solo.hears(3, dead(2))
    evidence = solo.swim.evidence(node_id(2))
    assert evidence is not None
    assert evidence.observers == (node_id(3),)
