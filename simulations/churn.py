"""A large cluster in which members die and others join all the time: what that costs, and whether all keep up.

Bare membership cores in virtual time. Every so often one member dies, by turns killed and fallen silent, and a new one
joins through some other. What each agent sends, and receives, in each second is one sample.
"""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from gossip import SwimConfig
from simulations.growth import Spread, Witnesses, mean_of, spread
from simulations.swarm import Agent, Swarm

AGENTS: Final = 2000
DURATION_S: Final = 120
REPLACED_PER_MINUTE: Final = 0.01
MEAN_BYTES_MAX: Final = 600
P99_BYTES_MAX: Final = 4000
_SETTLE_S: Final = 20
_QUIET_S: Final = 30
_FACTS_PER_REPLACEMENT: Final = 3
"""That one is new, and that another is suspect and then dead."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of frames in a second, over all samples."""

    mean: float
    median: int
    p99: int
    most: int


@dataclass(frozen=True, slots=True)
class Churn:
    """What came of it. ``sent`` and ``received`` are by agents that were there for the whole second.

    ``told_lacking``: of all that agents had to learn, the share that they were told because a digest showed that they
    lacked it. ``comparisons``: of whole views, begun per agent and minute. ``false_deaths``: members held dead anywhere
    that were not. ``astray``: agents whose view is not that of most others after a quiet while.
    """

    agents: int
    replaced: int
    sent: Traffic
    received: Traffic
    killed: Spread
    silent: Spread
    newcomer: Spread
    told_lacking: float
    comparisons: float
    false_deaths: int
    astray: int


def traffic(samples: Sequence[int]) -> Traffic:
    """The figures of some samples."""
    ordered = sorted(samples)
    return Traffic(
        fmean(ordered),
        ordered[len(ordered) // 2],
        ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        ordered[-1],
    )


class _Replacing:
    """One dies and one joins, at even intervals; the deaths are by turns of either kind."""

    def __init__(self, swarm: Swarm, rng: random.Random) -> None:
        self._swarm = swarm
        self._rng = rng
        self.live = list(swarm.agents)
        self.died_at: dict[str, float] = {}
        self.killed: set[str] = set()
        self.joined_at: dict[str, float] = {}

    def replace_one(self) -> None:
        """The next death and the next newcomer."""
        place = self._rng.randrange(len(self.live))
        victim, self.live[place] = self.live[place], self.live[-1]
        self.live.pop()
        node = victim.swim.node
        self.died_at[node] = self._swarm.now
        if len(self.died_at) % 2:
            self.killed.add(node)
            self._swarm.kill(victim)
        else:
            self._swarm.silence(victim)
        newcomer = self._swarm.add(seeds=(self._rng.choice(self.live),))
        self.joined_at[newcomer.swim.node] = self._swarm.now
        self.live.append(newcomer)


def churn(
    agents: int = AGENTS,
    seed: int = 1,
    *,
    duration_s: int = DURATION_S,
    replaced_per_minute: float = REPLACED_PER_MINUTE,
    config: SwimConfig | None = None,
) -> Churn:
    """Replace a share of ``agents`` each minute, for ``duration_s`` after it has gone on for a while."""
    witnesses = Witnesses()
    swarm = Swarm(config or SwimConfig(), seed, told=witnesses.told)
    swarm.form(agents)
    gc.collect()
    gc.freeze()
    replacing = _Replacing(swarm, random.Random(seed))
    each_s = 60.0 / (agents * replaced_per_minute)
    turns = int((_SETTLE_S + duration_s) / each_s)
    for turn in range(turns):
        swarm.at(turn * each_s, replacing.replace_one)
    swarm.run(_SETTLE_S)
    sent: list[int] = []
    received: list[int] = []
    for _ in range(duration_s):
        before = [(agent, agent.bytes_sent, agent.bytes_received) for agent in replacing.live]
        swarm.run(1.0)
        for agent, had_sent, had_received in before:
            if agent.is_up and not agent.is_silent:
                sent.append(agent.bytes_sent - had_sent)
                received.append(agent.bytes_received - had_received)
    swarm.run(_QUIET_S)
    gc.unfreeze()
    live = replacing.live
    counters = Counter[str]()
    for agent in live:
        counters.update(agent.swim.counters())
    of_killed, of_silent = _deaths(replacing, witnesses, live)
    return Churn(
        agents=agents,
        replaced=turns,
        sent=traffic(sent),
        received=traffic(received),
        killed=mean_of(of_killed),
        silent=mean_of(of_silent),
        newcomer=mean_of(_newcomers(replacing, witnesses)),
        told_lacking=counters["told_lacking"] / (agents * turns * _FACTS_PER_REPLACEMENT),
        comparisons=counters["syncs_started"] / agents / (swarm.now / 60.0),
        false_deaths=sum(
            not (node in replacing.died_at and min(times.values()) >= replacing.died_at[node])
            for node, times in witnesses.dead_at.items()
        ),
        astray=len(live) - max(Counter(agent.swim.alive() for agent in live).values()),
    )


def _deaths(replacing: _Replacing, witnesses: Witnesses, live: Sequence[Agent]) -> tuple[list[Spread], list[Spread]]:
    """When each death was known, among those that were there at the time and are to the end."""
    killed: list[Spread] = []
    silent: list[Spread] = []
    for node, died_at in replacing.died_at.items():
        told = witnesses.dead_at[node]
        there = [agent for agent in live if replacing.joined_at.get(agent.swim.node, -1.0) < died_at]
        times = [told.get(agent.index, float("inf")) for agent in there]
        (killed if node in replacing.killed else silent).append(spread(times, died_at))
    return killed, silent


def _newcomers(replacing: _Replacing, witnesses: Witnesses) -> list[Spread]:
    """How each newcomer got around, after the first knew it, among those that were there at the time."""
    spreads: list[Spread] = []
    for node, joined_at in replacing.joined_at.items():
        there = [agent.index for agent in replacing.live if replacing.joined_at.get(agent.swim.node, -1.0) < joined_at]
        told = witnesses.new_at[node]
        spreads.append(spread([told.get(index, float("inf")) for index in there], min(told.values())))
    return spreads


def table(result: Churn) -> str:
    """The result in Markdown."""
    sent, received, killed, silent = result.sent, result.received, result.killed, result.silent
    return "\n".join(
        (
            "| bytes per agent and second | mean | median | p99 | most |",
            "| --- | ---: | ---: | ---: | ---: |",
            f"| sent | {sent.mean:.0f} | {sent.median} | {sent.p99:,} | {sent.most:,} |",
            f"| received | {received.mean:.0f} | {received.median} | {received.p99:,} | {received.most:,} |",
            "",
            "| known | to the first | to 99.9 % | to all |",
            "| --- | ---: | ---: | ---: |",
            f"| a member that is killed | {killed.first_s:.1f} s | {killed.most_s:.1f} s | {killed.all_s:.1f} s |",
            f"| one that falls silent | {silent.first_s:.1f} s | {silent.most_s:.1f} s | {silent.all_s:.1f} s |",
            f"| a newcomer, after the first knows | | {result.newcomer.most_s:.1f} s | {result.newcomer.all_s:.1f} s |",
            "",
            f"{result.agents:,} agents, of which {result.replaced} died and as many joined. "
            f"{result.told_lacking:.1%} of what they had to learn they were told because a digest showed that they "
            f"lacked it; each began {result.comparisons:.2f} comparisons of whole views a minute. "
            f"Members held dead by mistake: {result.false_deaths}. Views that were not those of the others "
            f"{_QUIET_S} s after the last change: {result.astray}.",
            "",
        )
    )


def problems(result: Churn) -> list[str]:
    """What does not hold of what ought to."""
    found: list[str] = []
    for name, measured in (("sent", result.sent), ("received", result.received)):
        if measured.mean > MEAN_BYTES_MAX or measured.p99 > P99_BYTES_MAX:
            found.append(f"{name} by each in a second: {measured.mean:.0f} B on average, {measured.p99} B at p99")
    if result.false_deaths:
        found.append(f"{result.false_deaths} members held dead by mistake")
    if result.astray:
        found.append(f"{result.astray} agents end with another view than the others")
    return found
