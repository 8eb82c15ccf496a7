"""How fast whole agents run in virtual time, and what memory they take.

    python -m tests.benchmarks.simulating [--nodes 500,1000,2000] [--faults] [--compiled]

A deployment of three containers for every ten hosts; measured at rest, after start. With ``--faults`` also 200 hosts
with all kinds of faults, checkers included. Each size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gary.spec import Service, Spec, to_json
from simulations.build import build
from simulations.compilation import compiled, default_cache, take_over
from simulations.run import Run
from simulations.scenarios.library import Changes, Source
from simulations.scenarios.model import Deployments, Hosts, Scenario
from simulations.trials import collect_seldom
from tests.benchmarks.measuring import resident_mb

REST_S = 20.0
NODES_PER_DEPLOYMENT = 10
SETTLE_S = 30.0
FAULTY = 200


@dataclass(frozen=True, slots=True)
class Row:
    """``speed``: seconds of virtual time in one of real time."""

    what: str
    speed: float
    memory_mb: float


def at_rest(nodes: int) -> Row:
    collect_seldom()
    scenario = Scenario(hosts=(Hosts(nodes),), deployments=())
    cluster, _ = build(scenario)
    cluster.found()
    # Each ten are a cluster of their own until their deployment runs: so not everybody has to hear how it came about.
    for first in range(0, nodes, NODES_PER_DEPLOYMENT):
        cluster.acquaint(cluster.hosts[first : first + NODES_PER_DEPLOYMENT])
        spec = Spec(f"app-{first}", (Service("web", image="registry.example/app:1", replicas=3),))
        cluster.post(cluster.hosts[first], "deploy", {"spec": to_json(spec)})
    cluster.run(SETTLE_S)
    cluster.acquaint()
    cluster.run(SETTLE_S)
    assert cluster.sees_all()
    assert len(cluster.started()) == 3 * len(range(0, nodes, NODES_PER_DEPLOYMENT))
    began = time.perf_counter()
    cluster.run(REST_S)
    return Row(f"{nodes} hosts at rest", REST_S / (time.perf_counter() - began), resident_mb(os.getpid()))


def with_faults(nodes: int) -> Row:
    collect_seldom()
    changes = Changes(nodes=nodes, deployments=nodes // 10, for_s=120.0, seed=1, chance=True)
    run = Run(replace(changes.apply(Source("plain.toml", "")), deployments=(Deployments(count=nodes // 10),)))
    began = time.perf_counter()
    for _ in run.steps():
        pass
    speed = run.cluster.clock.now / (time.perf_counter() - began)
    return Row(f"{nodes} hosts with all faults, checkers included", speed, resident_mb(os.getpid()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="500,1000,2000", help="sizes (default: %(default)s)")
    parser.add_argument("--faults", action="store_true", help=f"{FAULTY} hosts with all faults, too")
    parser.add_argument(
        "--compiled", action="store_true", help="what runs most is compiled, as gary simulate --compiled"
    )
    options = parser.parse_args()
    if options.compiled:
        arguments = [argument for argument in sys.argv[1:] if argument != "--compiled"]
        here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        take_over(compiled(default_cache(os.environ)), "tests.benchmarks.simulating", arguments, here)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = [pool.apply(at_rest, (nodes,)) for nodes in map(int, options.nodes.split(","))]
        if options.faults:
            rows.append(pool.apply(with_faults, (FAULTY,)))
    table = Table("whole agents in virtual time", "x real time", "MB")
    for row in rows:
        table.add_row(row.what, f"{row.speed:.1f}", f"{row.memory_mb:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
