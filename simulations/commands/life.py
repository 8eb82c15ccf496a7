"""A scripted life of whole agents: join, deploy, deaths, partition, healing."""

from __future__ import annotations

import argparse
import sys

from simulations.scenario import Report, life
from simulations.trials import collect_seldom


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many agents, and what becomes of them."""
    parser.add_argument("--nodes", type=int, default=200, help="how many agents, at least 5 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="decides everything that is random (default: %(default)s)")
    parser.add_argument("--replicas", type=int, default=0, help="of the deployment (default: a tenth of the nodes)")
    parser.add_argument("--faults", type=float, default=0.0, metavar="S", help="seconds of random faults afterwards")
    parser.set_defaults(error=parser.error)


def run(options: argparse.Namespace) -> int:
    """1 if anything went wrong, with the command that replays it."""
    if options.nodes < 5 or options.replicas < 0 or options.faults < 0:
        options.error("at least 5 nodes, and nothing below 0")
    collect_seldom()
    report = life(options.nodes, options.seed, options.replicas, options.faults)
    show(report)
    if report.problems:
        replay = (
            f"--nodes {options.nodes} --seed {options.seed} --replicas {options.replicas} --faults {options.faults:g}"
        )
        print(f"replay: python -m simulations life {replay}", file=sys.stderr)
        return 1
    return 0


def show(report: Report) -> None:
    """How each phase went."""
    print(f"{report.nodes} nodes, seed {report.seed}")
    for phase in report.phases:
        speed = phase.simulated_s / phase.real_s
        print(f"  {phase.name:<10} after {phase.took_s:6.1f} s   ({speed:5.1f} x real time)")
    if report.faults:
        print("  faults     " + ", ".join(f"{name} {count}" for name, count in report.faults.items()))
    print(f"  {report.frames} frames, trace {report.trace}")
    for problem in report.problems:
        print(f"  wrong: {problem}", file=sys.stderr)
