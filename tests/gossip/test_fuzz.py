"""Whatever a hostile member sends: no exception, nothing that grows without end, and the others go on agreeing.

Frames that were found to be interesting are kept in ``corpus/``; see the README there.
"""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip import BadFrame, Lane, MemberChanged, Status, Swim, SwimConfig
from gossip.messages import Frame, decode
from simulations.swarm import Agent
from tests.gossip.harness import Network, Solo, node_id
from tests.gossip.strategies import hostile_frames, messages, messages_of_a_cluster

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.bin"))
HOSTILE = 2
SMALL = SwimConfig(members_max=12, orphans_max=4, relayed_probes_max=6, relayed_probes_per_member=4)


def assert_bounded(swim: Swim, config: SwimConfig) -> None:
    """Everything in which a hostile member leaves traces has its limit."""
    view, prober, outbox = swim._view, swim._prober, swim._outbox
    assert len(swim.members()) <= config.members_max
    assert len(view.recently_dead) <= config.members_max
    assert set(view.suspicions.nodes()) <= {member.node for member in swim.members() if member.status.live}
    assert all(len(view.suspicions.accusers(node)) <= 4 for node in view.suspicions.nodes())
    assert len(swim.directory._orphans) <= config.orphans_max
    assert swim.directory.size_bytes <= config.directory_bytes_max
    assert len(prober._relayed) <= config.relayed_probes_max
    assert len(prober._early) <= config.probe_early_peers
    assert len(outbox.membership_news) <= config.members_max
    assert len(outbox.advertisement_news) <= config.members_max
    assert len(outbox.application_news) <= config.gossip_news_max
    assert len(outbox._armed) <= 2 * config.members_max + config.relayed_probes_max + config.probe_early_peers + 16


@settings(max_examples=200)
@given(hostile_frames(HOSTILE, messages))
def test_a_frame_that_was_changed_is_a_frame_or_a_bad_frame(data: bytes) -> None:
    with contextlib.suppress(BadFrame):
        assert isinstance(decode(data, 1 << 20), Frame)


@settings(max_examples=150)
@given(st.lists(st.tuples(hostile_frames(HOSTILE, messages_of_a_cluster(5)), st.floats(0, 1.0)), max_size=8))
def test_no_frames_of_a_hostile_member_raise_anything_or_grow_anything_without_end(
    frames: list[tuple[bytes, float]],
) -> None:
    solo = Solo(config=SMALL, knows=[2, 3, 4, 5])
    solo.answering = (3, 4, 5)
    for data, pause_s in frames:
        solo.receives(data, HOSTILE)
        assert_bounded(solo.swim, SMALL)
        solo.passes(pause_s)
    solo.passes(3.0)
    assert_bounded(solo.swim, SMALL)
    assert solo.status(1) is Status.ALIVE
    assert len(solo.sent) < 100 * (len(frames) + 10)


def receive(network: Network, host: Agent, data: bytes) -> None:
    network.perform(host, host.swim.receive(node_id(5), Lane.PROBE, data, network.now))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    frames=st.lists(
        st.tuples(hostile_frames(5, messages_of_a_cluster(5)), st.integers(1, 15), st.floats(0, 2.0)), max_size=8
    ),
)
def test_nobody_who_answers_is_held_down_and_once_the_hostile_member_is_expelled_the_others_agree(
    seed: int, frames: list[tuple[bytes, int, float]]
) -> None:
    network = Network(seed=seed)
    hosts = network.cluster_of(5)
    honest, hostile = hosts[:4], hosts[4]
    for data, audience, pause_s in frames:
        for place, host in enumerate(honest):
            if audience & 1 << place:
                receive(network, host, data)
        network.run(pause_s)
    network.kill(hostile)
    for host in honest:
        network.perform(host, host.swim.expel(hostile.node, network.now))
    network.run(30)
    nodes = tuple(sorted(host.node for host in honest))
    assert [host.swim.alive() for host in honest] == [nodes] * 4
    assert len({host.swim._view.digest.total for host in honest}) == 1
    for host in honest:
        told = [event for _, event in host.events if isinstance(event, MemberChanged)]
        assert [event for event in told if event.member.node in nodes and not event.member.status.live] == []


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_frames_that_were_interesting_once_do_no_harm(path: Path) -> None:
    solo = Solo(config=SMALL, knows=[2, 3, 4, 5])
    solo.answering = (2, 3, 4, 5)
    for _ in range(3):
        solo.receives(path.read_bytes(), HOSTILE)
        assert_bounded(solo.swim, SMALL)
        assert len(solo.sent) < 100
        solo.passes(0.1)
    assert {node_id(number) for number in (1, 3, 4, 5)} <= set(solo.swim.alive())


def test_there_is_a_corpus() -> None:
    assert len(CORPUS) > 15
