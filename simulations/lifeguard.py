"""The experiment of the Lifeguard paper, repeated with this library's own core.

Dadgar, Phillips and Currey, "Lifeguard: Local Health Awareness for More Accurate Failure Detection" (2018), section V:
128 agents with memberlist's settings for a LAN, some of which are anomalous again and again. How often is a member that
is well held dead, and how fast is one that is not?

The variants are configurations of ``gossip.SwimConfig``: plain SWIM, each of Lifeguard's three parts by itself, all of
them, and what Gary runs with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from gossip import MemberChanged, Status, SwimConfig
from simulations.swarm import Agent, Anomaly, Swarm

AGENTS: Final = 128
QUIESCE_S: Final = 15.0
EXPERIMENT_S: Final = 120.0
ALPHA: Final = 5.0
BETA: Final = 6.0
READ_S: Final = 0.0001
"""How long an agent needs for each frame that waited for it. With infinitely fast agents nobody falls behind, and only
anomalies longer than a suspicion do any harm."""


def swim(alpha: float = ALPHA) -> SwimConfig:
    """SWIM as in memberlist without Lifeguard, for a LAN; a suspicion lasts alpha x log10 N x the probe interval.

    Rounds of gossip come every 0.2 s on average. All members are probed in turn, and all are told news.
    """
    return SwimConfig(
        probe_interval_s=1.0,
        probe_window_s=1.0,
        probe_timeout_s=0.5,
        probe_subset=10_000,
        probe_relays=3,
        probe_early_peers=0,
        awareness_max=0,
        stall_s=0,
        buddy=False,
        deaths_on_trust=True,
        suspicion_min_s=alpha,
        suspicion_max_factor=1.0,
        suspicion_confirmations=0,
        gossip_interval_s=0.2 / 0.75,
        gossip_fanout=3,
        gossip_dead_window_s=30.0,
        retransmit_mult=4,
        tell_lacking=False,
        sync_interval_s=30.0,
    )


def with_lha_probe(config: SwimConfig) -> SwimConfig:
    return replace(config, awareness_max=8)


def with_lha_suspicion(config: SwimConfig) -> SwimConfig:
    return replace(config, suspicion_confirmations=3, suspicion_max_factor=BETA)


def with_buddy(config: SwimConfig) -> SwimConfig:
    return replace(config, buddy=True)


def lifeguard(alpha: float = ALPHA) -> SwimConfig:
    return with_buddy(with_lha_suspicion(with_lha_probe(swim(alpha))))


VARIANTS: Final[dict[str, SwimConfig]] = {
    "SWIM": swim(),
    "LHA-Probe": with_lha_probe(swim()),
    "LHA-Suspicion": with_lha_suspicion(swim()),
    "Buddy System": with_buddy(swim()),
    "Lifeguard": lifeguard(),
    "Lifeguard, alpha 4": lifeguard(4.0),
    "Lifeguard, alpha 2": lifeguard(2.0),
    "Gary": SwimConfig(),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One run: ``anomalous`` agents do not keep up for ``duration_s``, are well for ``interval_s``, and so on.

    With an ``interval_s`` of 0 there is one anomaly only.
    """

    variant: str
    anomalous: int
    duration_s: float
    interval_s: float
    seed: int
    kind: Anomaly = Anomaly.BLOCKED
    agents: int = AGENTS
    read_s: float = READ_S


@dataclass(frozen=True, slots=True)
class Grid:
    """Which trials make up an experiment.

    The interval experiment runs each of ``variants`` with each of ``anomalous``, ``durations_s``, ``intervals_s`` and
    ``seeds``; the threshold experiment runs each of ``threshold_variants`` with ``threshold_anomalous`` agents that do
    not keep up once, for ``threshold_s``, with each of ``threshold_seeds``.
    """

    variants: tuple[str, ...]
    anomalous: tuple[int, ...]
    durations_s: tuple[float, ...]
    intervals_s: tuple[float, ...]
    seeds: tuple[int, ...]
    threshold_variants: tuple[str, ...]
    threshold_anomalous: int
    threshold_s: float
    threshold_seeds: tuple[int, ...]
    agents: int = AGENTS
    kind: Anomaly = Anomaly.BLOCKED

    def trials(self) -> list[Trial]:
        """All of them, those first that take longest."""
        intervals = [
            Trial(variant, anomalous, duration_s, interval_s, seed, self.kind, self.agents)
            for seed, anomalous, duration_s, interval_s, variant in product(
                self.seeds, self.anomalous[::-1], self.durations_s, self.intervals_s, self.variants
            )
        ]
        thresholds = [
            Trial(variant, self.threshold_anomalous, self.threshold_s, 0.0, seed, self.kind, self.agents)
            for seed, variant in product(self.threshold_seeds, self.threshold_variants)
        ]
        return intervals + thresholds


_ALL: Final = tuple(VARIANTS)
GRIDS: Final[dict[str, Grid]] = {
    "default": Grid(
        variants=tuple(variant for variant in VARIANTS if variant != "Lifeguard, alpha 2"),
        anomalous=(1, 8, 16, 32),
        durations_s=(2.048, 12.288, 32.768),
        intervals_s=(0.064, 1.024, 16.384),
        seeds=(1,),
        threshold_variants=_ALL,
        threshold_anomalous=4,
        threshold_s=32.768,
        threshold_seeds=tuple(range(1, 7)),
    ),
    "full": Grid(
        variants=_ALL,
        anomalous=(1, 4, 8, 12, 16, 20, 24, 28, 32),
        durations_s=(0.128, 0.512, 2.048, 8.192, 12.288, 16.384, 32.768),
        intervals_s=(0.001, 0.004, 0.016, 0.064, 0.256, 1.024, 4.096, 16.384),
        seeds=tuple(range(1, 11)),
        threshold_variants=_ALL,
        threshold_anomalous=4,
        threshold_s=32.768,
        threshold_seeds=tuple(range(1, 101)),
    ),
    "smoke": Grid(
        variants=("SWIM", "LHA-Probe", "LHA-Suspicion", "Buddy System", "Lifeguard"),
        anomalous=(12,),
        durations_s=(10.0,),
        intervals_s=(0.256,),
        seeds=(1,),
        threshold_variants=("SWIM", "Lifeguard", "Lifeguard, alpha 4"),
        threshold_anomalous=4,
        threshold_s=16.384,
        threshold_seeds=(1,),
        agents=48,
    ),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was counted.

    ``false_positives``: deaths told to any application about agents that were never anomalous;
    ``false_positives_at_healthy``: of these, at agents that were never anomalous either. ``detection_s`` and
    ``dissemination_s``: until the first healthy agent, and until all of them, held each anomalous one dead (in a trial
    with one anomaly). ``messages`` and ``size_bytes``: frames sent by all agents during the experiment.
    """

    false_positives: int
    false_positives_at_healthy: int
    detection_s: tuple[float, ...]
    dissemination_s: tuple[float, ...]
    messages: int
    size_bytes: int
    simulated_s: float


def run(trial: Trial) -> Outcome:
    """Run one trial. The same trial gives the same outcome."""
    deaths: list[tuple[float, Agent, str]] = []

    def told(agent: Agent, change: MemberChanged, now: float) -> None:
        if change.member.status is Status.DEAD:
            deaths.append((now, agent, change.member.node))

    swarm = Swarm(VARIANTS[trial.variant], trial.seed, read_s=trial.read_s, told=told)
    swarm.form(trial.agents)
    swarm.run(QUIESCE_S)
    began, sent = swarm.now, _sent(swarm)
    # The first agent let all others in; which ones are anomalous is of no other importance.
    victims = swarm.agents[1 : 1 + trial.anomalous]
    while True:
        for agent in victims:
            swarm.begin_anomaly(agent, trial.kind)
        swarm.run(trial.duration_s)
        for agent in victims:
            swarm.end_anomaly(agent)
        if not trial.interval_s:
            break
        swarm.run(trial.interval_s)
        if swarm.now - began >= EXPERIMENT_S:
            break
    ended, sent_after = swarm.now, _sent(swarm)
    nodes = {agent.swim.node for agent in victims}
    false = [agent for _, agent, node in deaths if node not in nodes]
    detection, dissemination = (
        _latencies(deaths, victims, len(swarm.agents), began) if not trial.interval_s else ((), ())
    )
    return Outcome(
        len(false),
        sum(not agent.was_anomalous for agent in false),
        detection,
        dissemination,
        sent_after[0] - sent[0],
        sent_after[1] - sent[1],
        ended - began,
    )


def _sent(swarm: Swarm) -> tuple[int, int]:
    return sum(agent.frames_sent for agent in swarm.agents), sum(agent.bytes_sent for agent in swarm.agents)


def _latencies(
    deaths: Sequence[tuple[float, Agent, str]], victims: Sequence[Agent], agents: int, began: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """For each victim that was detected: when the first, and when the last healthy agent held it dead."""
    first: list[float] = []
    last: list[float] = []
    for victim in victims:
        heard: dict[int, float] = {}
        for when, agent, node in deaths:
            if node == victim.swim.node and not agent.was_anomalous:
                heard.setdefault(agent.index, when - began)
        if heard:
            first.append(min(heard.values()))
        if len(heard) == agents - len(victims):
            last.append(max(heard.values()))
    return tuple(first), tuple(last)
