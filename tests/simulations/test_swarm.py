"""Many membership cores in virtual time: what an anomaly holds back, and in which order it goes on."""

import pytest

from gossip import Lane, MemberChanged, Status, SwimConfig
from simulations.lifeguard import swim
from simulations.swarm import Agent, Anomaly, Swarm


def settled(count: int = 5, config: SwimConfig | None = None, read_s: float = 0.0001) -> tuple[Swarm, list[str]]:
    deaths: list[str] = []

    def told(agent: Agent, change: MemberChanged, now: float) -> None:
        if change.member.status is Status.DEAD:
            deaths.append(f"{agent.index} holds {change.member.node[:2]} dead")

    swarm = Swarm(config or swim(), 1, told=told, read_s=read_s)
    swarm.join_all(count)
    swarm.run(10.0)
    return swarm, deaths


def holds(agent: Agent, other: Agent) -> Status | None:
    member = agent.swim.member(other.swim.node)
    return member.status if member else None


def test_a_blocked_agent_sends_nothing_and_wakes_to_find_that_its_probe_has_failed() -> None:
    swarm, _ = settled()
    agent = swarm.agents[1]
    swarm.begin_anomaly(agent, Anomaly.BLOCKED)
    swarm.run(1.0)
    sent = agent.frames_sent
    swarm.run(4.0)
    assert agent.frames_sent == sent
    assert agent.held_frames
    assert agent.swim.counters().get("probes_failed", 0) == 0
    swarm.end_anomaly(agent)
    swarm.run(0.0)
    assert agent.frames_sent > sent
    assert agent.swim.counters().get("probes_failed", 0) == 1
    assert agent.held_frames
    swarm.run(0.1)
    assert not agent.held_frames


def test_what_waited_is_read_in_order_one_frame_at_a_time_and_not_while_the_next_anomaly_lasts() -> None:
    swarm, _ = settled(read_s=0.01)
    agent = swarm.agents[1]
    swarm.begin_anomaly(agent, Anomaly.BLOCKED)
    swarm.run(5.0)
    waiting = list(agent.held_frames)
    assert len(waiting) > 5
    swarm.end_anomaly(agent)
    swarm.run(0.025)
    assert list(agent.held_frames)[: len(waiting) - 2] == waiting[2:]
    swarm.begin_anomaly(agent, Anomaly.BLOCKED)
    swarm.run(1.0)
    assert list(agent.held_frames)[: len(waiting) - 2] == waiting[2:]


@pytest.mark.parametrize(("kind", "is_dead"), [(Anomaly.BLOCKED, True), (Anomaly.FROZEN, False)])
def test_suspicions_run_out_at_a_blocked_agent_and_not_at_a_frozen_one(kind: Anomaly, is_dead: bool) -> None:
    swarm, deaths = settled()
    agent, other = swarm.agents[1], swarm.agents[2]
    swarm.silence(other)
    assert swarm.run_until(lambda: holds(agent, other) is Status.SUSPECT, 10.0) is not None
    swarm.begin_anomaly(agent, kind)
    swarm.run(8.0)
    assert (f"1 holds {other.swim.node[:2]} dead" in deaths) is is_dead


def test_whoever_is_killed_is_refused_and_who_falls_silent_is_not() -> None:
    swarm, _ = settled()
    swarm.silence(swarm.agents[4])
    swarm.run(3.0)
    refused = sum(agent.swim.counters().get("unreachable", 0) for agent in swarm.agents)
    assert refused == 0
    swarm.kill(swarm.agents[3])
    swarm.run(3.0)
    assert sum(agent.swim.counters().get("unreachable", 0) for agent in swarm.agents) > 0


def test_a_restarted_agent_is_back_in_everybody_s_view() -> None:
    swarm, deaths = settled()
    agent = swarm.agents[3]
    swarm.kill(agent)
    swarm.run(30.0)
    assert deaths
    swarm.restart(agent)
    assert swarm.run_until(swarm.all_see_all, 10.0) is not None


def test_a_cut_link_carries_nothing_one_way() -> None:
    swarm, _ = settled()
    first, second = swarm.agents[:2]
    swarm.cut = lambda sender, receiver: (sender, receiver) == (first.index, second.index)
    received = second.bytes_received
    swarm.perform(first, first.swim.send(second.node, b"x", Lane.PROBE))
    swarm.run(0.01)
    assert second.bytes_received == received
