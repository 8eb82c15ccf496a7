"""What a larger cluster costs each of its members, and how much longer everything takes in it.

Bare membership cores in virtual time, in clusters that begin formed: idle traffic, detection of deaths, spreading of
news, and what a member takes in the memory of one real node.
"""

from __future__ import annotations

import gc
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from statistics import mean
from types import ModuleType
from typing import Final

from gossip import Claim, Incarnation, Lane, Member, MemberChanged, Send, Status, Swim, SwimConfig
from gossip.messages import Join, Records, Welcome, decode, encode, frame, frame_head
from simulations.swarm import CLUSTER, Agent, Swarm, address_of, node_id

SIZES: Final = (100, 300, 1000, 3000, 10_000)
VICTIMS: Final = 3
AGENTS_MIN: Final = 4 * VICTIMS
IDLE_GROWTH_MAX: Final = 0.2
MEMBER_BYTES_MAX: Final = 512
FRAME_OVERHEAD_BYTES: Final = 96
"""What carries a frame over TLS and TCP, at least: 22 bytes for the TLS record, 8 for nng's length, 52 for IPv4 and TCP
with timestamps, 14 for Ethernet. Acknowledgements of TCP that ride on nothing come on top of it."""
_SETTLE_S: Final = 2.0
_IDLE_S: Final = 5.0
_APART_S: Final = 0.7
_PATIENCE_S: Final = 60.0
_RECORDS: Final = 500
_CHANCE: Final = 1.3
# What gossip misses comes with one of the next pings, wherever it did not miss anybody in a small cluster.
_PINGS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Spread:
    """When something was known, in seconds after it happened: to the first agent, to 99.9 % of all, to all."""

    first_s: float
    most_s: float
    all_s: float


@dataclass(frozen=True, slots=True)
class Growth:
    """One size. ``idle_bytes`` and ``idle_frames`` are sent per agent and second.

    ``killed`` and ``silent`` are means over some victims; ``news``: of a new member, after the first has heard of it.
    ``member_bytes``: memory that one member takes in a node that has joined a cluster of this size.
    """

    agents: int
    idle_bytes: float
    idle_frames: float
    killed: Spread
    silent: Spread
    news: Spread
    member_bytes: float


class Witnesses:
    """Who has been told of which member, that it is new or dead, and when."""

    def __init__(self) -> None:
        self.new_at: defaultdict[str, dict[int, float]] = defaultdict(dict)
        self.dead_at: defaultdict[str, dict[int, float]] = defaultdict(dict)

    def told(self, agent: Agent, change: MemberChanged, now: float) -> None:
        """Take note of what the application of ``agent`` is told."""
        if change.before is None:
            self.new_at[change.member.node].setdefault(agent.index, now)
        elif change.member.status is Status.DEAD:
            self.dead_at[change.member.node].setdefault(agent.index, now)


def spread(times: Sequence[float], since: float) -> Spread:
    """How something got around that was told at ``times``."""
    ordered = sorted(times)
    most = ordered[min(len(ordered) - 1, int(len(ordered) * 0.999))]
    return Spread(ordered[0] - since, most - since, ordered[-1] - since)


def mean_of(spreads: Sequence[Spread]) -> Spread:
    """The mean of each of the three."""
    return Spread(
        mean(each.first_s for each in spreads),
        mean(each.most_s for each in spreads),
        mean(each.all_s for each in spreads),
    )


def grow(agents: int, seed: int, config: SwimConfig | None = None) -> Growth:
    """Measure a cluster of ``agents``; equal seeds give equal results, memory aside."""
    config = config or SwimConfig()
    member_bytes = bytes_per_member(agents, config)
    witnesses = Witnesses()
    swarm = Swarm(config, seed, told=witnesses.told)
    swarm.form(agents)
    gc.collect()
    gc.freeze()
    swarm.run(_SETTLE_S)
    bytes_before = sum(agent.bytes_sent for agent in swarm.agents)
    frames_before = sum(agent.frames_sent for agent in swarm.agents)
    swarm.run(_IDLE_S)
    idle_bytes = (sum(agent.bytes_sent for agent in swarm.agents) - bytes_before) / agents / _IDLE_S
    idle_frames = (sum(agent.frames_sent for agent in swarm.agents) - frames_before) / agents / _IDLE_S
    news = _newcomer(swarm, witnesses)
    killed, silent = _deaths(swarm, witnesses, random.Random(seed))
    gc.unfreeze()
    return Growth(agents, idle_bytes, idle_frames, killed, silent, news, member_bytes)


def _newcomer(swarm: Swarm, witnesses: Witnesses) -> Spread:
    """One more joins, and all get to know it."""
    count = len(swarm.agents)
    newcomer = swarm.add(seeds=swarm.agents[count // 2 : count // 2 + 1])
    told = witnesses.new_at[newcomer.swim.node]
    took_s = swarm.run_until(lambda: len(told) == count, _PATIENCE_S)
    assert took_s is not None, f"{count - len(told)} of {count} have not heard of a newcomer after {_PATIENCE_S:g} s"
    return spread(list(told.values()), min(told.values()))


def _deaths(swarm: Swarm, witnesses: Witnesses, rng: random.Random) -> tuple[Spread, Spread]:
    """Some are killed and some fall silent, one after another."""
    victims = rng.sample(swarm.agents, 2 * VICTIMS)
    died_at: dict[str, float] = {}
    for victim in victims:
        died_at[victim.swim.node] = swarm.now
        (swarm.kill if len(died_at) <= VICTIMS else swarm.silence)(victim)
        swarm.run(_APART_S)
    live = {agent.index for agent in swarm.agents} - {victim.index for victim in victims}
    took_s = swarm.run_until(lambda: all(live <= witnesses.dead_at[node].keys() for node in died_at), _PATIENCE_S)
    assert took_s is not None, f"not all know of {2 * VICTIMS} deaths after {_PATIENCE_S:g} s"
    spreads = [
        spread([at for index, at in witnesses.dead_at[node].items() if index in live], died)
        for node, died in died_at.items()
    ]
    return mean_of(spreads[:VICTIMS]), mean_of(spreads[VICTIMS:])


def bytes_per_member(count: int, config: SwimConfig) -> float:
    """Memory, in bytes, that each of ``count`` members takes in a node that joins them and has heard each of them.

    It is what hangs on such a node beyond one that knows one member only.
    """
    alone, joined = (_size_bytes(_joined(members, config)) for members in (1, count))
    return (joined - alone) / (count - 1)


def _size_bytes(root: object) -> int:
    """What all objects that hang on ``root`` take, code aside, in Python's steps of 16 bytes."""
    seen: set[int] = set()
    todo, size_bytes = [root], 0
    while todo:
        item = todo.pop()
        if id(item) not in seen and not isinstance(item, type | ModuleType) and not callable(item):
            seen.add(id(item))
            size_bytes += -(-sys.getsizeof(item) // 16) * 16
            todo += gc.get_referents(item)
    return size_bytes


def _joined(count: int, config: SwimConfig) -> Swim:
    """A node that has joined a cluster of ``count``, each of whom has spoken to it."""
    swim = Swim(
        node=node_id(0),
        address=address_of(0),
        cluster=CLUSTER,
        epoch=1,
        config=config,
        rng=random.Random(count),
        welcome=bytes,
    )
    nodes = [node_id(index) for index in range(1, count + 1)]
    claims = [
        Claim(Member(node, address_of(index), Incarnation(1, 0), Status.ALIVE)) for index, node in enumerate(nodes, 1)
    ]
    (asked,) = [effect for effect in swim.join(claims[0].member.address, 0.0) if isinstance(effect, Send)]
    (join,) = decode(asked.frame, config.frame_size_bytes_max).messages
    assert isinstance(join, Join)
    head = frame_head(CLUSTER, nodes[0])
    swim.receive(nodes[0], Lane.BULK, frame(head, [encode(Welcome(join.attempt, b""))]), 0.0)
    for start in range(0, count, _RECORDS):
        records = Records(tuple(claims[start : start + _RECORDS]), ())
        swim.receive(nodes[0], Lane.BULK, frame(head, [encode(records)]), 0.0)
    for index, node in enumerate(nodes):
        swim.receive(node, Lane.PROBE, frame(frame_head(CLUSTER, node), []), float(index))
    swim.alive()
    return swim


def table(rows: Sequence[Growth]) -> str:
    """The results as a table in Markdown."""
    lines = [
        "| agents | idle, sent by each | frames | killed: first / 99.9 % / all know | silent: the same "
        "| a newcomer is known to 99.9 % / all | memory of a member |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.agents:,} | {row.idle_bytes:.0f} B/s | {row.idle_frames:.2f}/s "
        f"| {row.killed.first_s:.1f} / {row.killed.most_s:.1f} / {row.killed.all_s:.1f} s "
        f"| {row.silent.first_s:.1f} / {row.silent.most_s:.1f} / {row.silent.all_s:.1f} s "
        f"| {row.news.most_s:.1f} / {row.news.all_s:.1f} s | {row.member_bytes:.0f} B |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def problems(rows: Sequence[Growth]) -> list[str]:
    """What does not hold of what ought to: hardly more idle traffic, times as the logarithm, little memory."""
    smallest, largest = min(rows, key=_agents), max(rows, key=_agents)
    found: list[str] = []
    if largest.idle_bytes > smallest.idle_bytes * (1 + IDLE_GROWTH_MAX):
        found.append(
            f"{largest.agents} agents send {largest.idle_bytes:.0f} B/s each, {smallest.idle_bytes:.0f} before"
        )
    # What is proportional to the logarithm grows by its ratio; a part of it need not grow at all.
    factor = max(1.0, log(largest.agents) / log(smallest.agents)) * _CHANCE
    for name in ("killed", "silent"):
        before, after = getattr(smallest, name).all_s, getattr(largest, name).all_s
        if after > before * factor:
            found.append(
                f"{name}: all of {largest.agents} know after {after:.1f} s, of {smallest.agents} {before:.1f} s"
            )
    if largest.news.most_s > smallest.news.all_s * factor + _PINGS_S:
        found.append(f"99.9 % of {largest.agents} know a newcomer after {largest.news.most_s:.1f} s only")
    if largest.member_bytes > MEMBER_BYTES_MAX:
        found.append(f"a member takes {largest.member_bytes:.0f} B where there are {largest.agents}")
    return found


def plots(rows: Sequence[Growth]) -> dict[str, str]:
    """Two plots over the number of agents, as SVG, by the names of their files."""
    from simulations.plots import lines  # An extra brings what this needs.

    times = {
        "killed: first knows": [(row.agents, row.killed.first_s) for row in rows],
        "killed: all know": [(row.agents, row.killed.all_s) for row in rows],
        "silent: first knows": [(row.agents, row.silent.first_s) for row in rows],
        "silent: all know": [(row.agents, row.silent.all_s) for row in rows],
        "newcomer: 99.9 % know": [(row.agents, row.news.most_s) for row in rows],
    }
    traffic = {
        "sent by each idle agent, bytes a second": [(row.agents, row.idle_bytes) for row in rows],
        "memory of a member, bytes": [(row.agents, row.member_bytes) for row in rows],
    }
    return {
        "growth-times.svg": lines(
            times, title="Detection and dissemination", x="agents", y="seconds", logarithmic_x=True
        ),
        "growth-costs.svg": lines(traffic, title="Idle traffic and memory", x="agents", y="bytes", logarithmic_x=True),
    }


def _agents(row: Growth) -> int:
    return row.agents
