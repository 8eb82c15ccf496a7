"""One scripted life of a cluster: join, deploy, deaths, partition, healing; judged throughout."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gary.epochs import CHANGES_PER_EPOCH
from gary.spec import Service, Spec, to_json
from simulations.checkers import Safety, growth, liveness
from simulations.cluster import Cluster
from simulations.faults.bad_day import BadDay

CANARY = "canary-5c1d0e"


@dataclass(frozen=True, slots=True)
class Phase:
    """``took_s``: virtual time until what was waited for held. ``real_s``: what it cost here."""

    name: str
    took_s: float
    simulated_s: float
    real_s: float


@dataclass(slots=True)
class Report:
    """What a run showed. Equal seeds give equal ``trace``; ``problems`` empty: all went well."""

    nodes: int
    seed: int
    phases: list[Phase] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    epochs: int = 0
    trace: str = ""


class _Run:
    def __init__(self, nodes: int, seed: int, changes_per_epoch: int) -> None:
        self.cluster = Cluster(nodes, seed, changes_per_epoch=changes_per_epoch)
        self.report = Report(nodes, seed)

    def phase(
        self, name: str, until: Callable[[], bool], timeout_s: float, rest_s: float = 2.0, step_s: float = 0.1
    ) -> None:
        began, real = self.cluster.clock.now, time.perf_counter()
        if not self.cluster.run_until(until, timeout_s, step_s):
            self.report.problems.append(f"{name}: not done after {timeout_s:.0f} s")
        took = self.cluster.clock.now - began
        self.cluster.run(rest_s)
        simulated = self.cluster.clock.now - began
        self.report.phases.append(Phase(name, took, simulated, time.perf_counter() - real))


def life(
    nodes: int, seed: int, replicas: int = 0, fault_s: float = 0.0, changes_per_epoch: int = CHANGES_PER_EPOCH
) -> Report:
    """Run ``nodes`` whole agents (at least 5) through it. ``fault_s``: so many seconds of random faults, too."""
    run = _Run(nodes, seed, changes_per_epoch)
    cluster, report = run.cluster, run.report
    safety = Safety(CANARY.encode())
    cluster.watchers.append(safety)
    replicas = replicas or max(5, nodes // 10)
    spec = Spec(f"{CANARY}-app", (Service("web", image=f"{CANARY}-image", replicas=replicas),))
    rng = random.Random(seed)

    def kept(names: set[str]) -> bool:
        running = cluster.running()
        return sum(bool(names & set(where)) for where in running.values()) >= replicas

    def live_names() -> set[str]:
        return {host.name for host in cluster.live()}

    cluster.join_all()
    run.phase("join", cluster.sees_all, 60.0, 3.0)
    cluster.post(cluster.hosts[0], "deploy", {"spec": to_json(spec)})
    run.phase("deploy", lambda: kept(live_names()), 30.0)
    dead = rng.sample(cluster.hosts, max(1, nodes // 20))
    for host in dead:
        cluster.kill(host)
    run.phase("deaths", lambda: kept(live_names()), 30.0, 5.0)
    hosts = list(cluster.hosts)
    rng.shuffle(hosts)
    sides = hosts[: nodes // 3], hosts[nodes // 3 :]
    cluster.partition(*sides)
    holding = [{host.name for host in side if host.agent is not None and host.agent.deployments} for side in sides]
    names = [{host.name for host in side} for side in sides]
    whole = [side for side, members in zip(names, holding, strict=True) if members]
    run.phase("partition", lambda: all(kept(side) for side in whole), 60.0, 5.0)
    cluster.heal()
    for host in dead:
        cluster.start(host)
    run.phase("healing", lambda: not liveness(cluster), 180.0, 5.0, 1.0)
    if fault_s:
        day = BadDay(cluster, rng, spec)
        day.go_on(fault_s)
        day.end()
        report.faults = dict(sorted(day.happened.items()))
        run.phase("recovery", lambda: not liveness(cluster), 240.0, 5.0, 1.0)
    report.problems += [*liveness(cluster), *growth(cluster, 30.0), *safety.violations]
    held = [deployment for host in cluster.live() if host.agent for deployment in host.agent.deployments.values()]
    report.epochs = max((deployment.document.epoch for deployment in held), default=0)
    report.frames = cluster.network.counters["frames"]
    report.trace = cluster.trace
    return report
