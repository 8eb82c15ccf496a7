"""How detection time, false positives and traffic trade: one setting of ``SwimConfig`` at a time is changed.

128 agents. *Detection* is until all hold a host dead that has vanished, the mean over some. *Held dead by mistake*
counts deaths told to any application while a third of all frames is lost and nobody dies: so much loss that even many
ways to reach a member fail now and then. *Traffic* is what each agent sends in a second while nothing happens.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gossip import PROFILES, MemberChanged, Status, SwimConfig
from simulations.swarm import Agent, Swarm

AGENTS: Final = 128
REST_S: Final = 40.0
IDLE_S: Final = 30.0
VICTIMS: Final = 5
LOSS: Final = 0.35
LOSSY_S: Final = 120.0
DETECTION_TIMEOUT_S: Final = 300.0
SUSPICIONS_S: Final = (0.25, 0.5, 0.75, 1.25, 2.0, 3.0, 5.0)
INTERVALS_S: Final = (0.5, 1.0, 2.0, 4.0)
WINDOWS_S: Final = (0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Point:
    """One configuration and what came of it. ``setting``: which field was changed, to ``value``."""

    setting: str
    value: float
    detection_s: float
    false_positives: int
    traffic_bytes_per_s: float
    is_chosen: bool


def configurations() -> list[tuple[str, float, SwimConfig]]:
    """All that are tried: the profile ``lan`` with one setting changed, and the profile ``wan``."""
    lan = PROFILES["lan"]
    found = [("suspicion_min_s", value, replace(lan, suspicion_min_s=value)) for value in SUSPICIONS_S]
    found += [("probe_interval_s", value, replace(lan, probe_interval_s=value)) for value in INTERVALS_S]
    found += [("probe_window_s", value, replace(lan, probe_window_s=value)) for value in WINDOWS_S]
    return [*found, ("profile wan", PROFILES["wan"].suspicion_min_s, PROFILES["wan"])]


def measured(trial: tuple[str, float, SwimConfig, int]) -> Point:
    """``measure`` of all its parts."""
    return measure(*trial)


def measure(setting: str, value: float, config: SwimConfig, seed: int, agents: int = AGENTS) -> Point:
    """Try one configuration. Equal seeds give equal points."""
    deaths: list[tuple[float, int, str]] = []

    def told(agent: Agent, change: MemberChanged, now: float) -> None:
        if change.member.status is Status.DEAD:
            deaths.append((now, agent.index, change.member.node))

    swarm = Swarm(config, seed, told=told)
    swarm.form(agents)
    swarm.run(REST_S)
    sent = sum(agent.bytes_sent for agent in swarm.agents)
    swarm.run(IDLE_S)
    traffic = (sum(agent.bytes_sent for agent in swarm.agents) - sent) / IDLE_S / agents

    took = [_detection_s(swarm, victim, deaths) for victim in swarm.agents[1 : 1 + VICTIMS]]

    lossy = Swarm(config, seed, told=told, loss=LOSS)
    lossy.form(agents)
    deaths.clear()
    lossy.run(LOSSY_S)
    is_chosen = config in PROFILES.values()
    return Point(setting, value, statistics.mean(took), len(deaths), traffic, is_chosen)


def _detection_s(swarm: Swarm, victim: Agent, deaths: list[tuple[float, int, str]]) -> float:
    """How long it takes from the moment in which ``victim`` vanishes until all others hold it dead."""
    deaths.clear()
    began, others = swarm.now, sum(agent.is_up and not agent.is_silent for agent in swarm.agents) - 1
    swarm.silence(victim)
    while len({observer for _, observer, node in deaths if node == victim.swim.node}) < others:
        assert swarm.now - began < DETECTION_TIMEOUT_S, f"{victim.index} is not missed by all"
        swarm.run(0.25)
    return max(when for when, _, node in deaths if node == victim.swim.node) - began


def table(points: Sequence[Point]) -> str:
    """The points as a table in Markdown; what a profile has chosen is bold."""
    lines = [
        "| setting | value | all know of a silent member | held dead by mistake | idle, sent by each |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for point in points:
        value = f"**{point.value:g} s**" if point.is_chosen else f"{point.value:g} s"
        told = f"{point.detection_s:.1f} s | {point.false_positives} | {point.traffic_bytes_per_s:.0f} B/s"
        lines.append(f"| `{point.setting}` | {value} | {told} |")
    return "\n".join(lines) + "\n"


def drawn(points: Sequence[Point]) -> dict[str, str]:
    """Plots by file name: detection against false positives, and detection against traffic."""
    from simulations.plots import lines  # An extra brings what this needs.

    mistakes = {setting: _curve(points, setting, by_mistakes=True) for setting in ("suspicion_min_s", "probe_window_s")}
    traffic = {"probe_interval_s": _curve(points, "probe_interval_s", by_mistakes=False)}
    chosen = [point for point in points if point.is_chosen]
    mistakes["chosen: lan, wan"] = sorted({(point.detection_s, float(point.false_positives)) for point in chosen})
    traffic["chosen: lan, wan"] = sorted({(point.detection_s, point.traffic_bytes_per_s) for point in chosen})
    return {
        "tradeoff-mistakes.svg": lines(
            mistakes,
            title=f"{AGENTS} agents, {LOSS:.0%} of all frames lost for {LOSSY_S:g} s",
            x="until all know of a silent member, s",
            y="held dead by mistake",
            logarithmic=True,
        ),
        "tradeoff-traffic.svg": lines(
            traffic,
            title=f"{AGENTS} agents, nothing lost",
            x="until all know of a silent member, s",
            y="idle, sent by each, B/s",
        ),
    }


def _curve(points: Sequence[Point], setting: str, *, by_mistakes: bool) -> list[tuple[float, float]]:
    return [
        (point.detection_s, float(point.false_positives) if by_mistakes else point.traffic_bytes_per_s)
        for point in points
        if point.setting == setting
    ]


def problems(points: Sequence[Point]) -> list[str]:
    """What ought to hold of the curves and does not."""
    by_suspicion = [point for point in points if point.setting == "suspicion_min_s"]
    by_interval = [point for point in points if point.setting == "probe_interval_s"]
    found = []
    if by_suspicion[0].detection_s >= by_suspicion[-1].detection_s:
        found.append("a shorter suspicion does not find deaths sooner")
    if by_suspicion[0].false_positives < by_suspicion[-1].false_positives:
        found.append("a longer suspicion makes more mistakes")
    if by_interval[0].traffic_bytes_per_s <= by_interval[-1].traffic_bytes_per_s:
        found.append("fewer probes do not cost less")
    return found
