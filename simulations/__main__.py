"""``python -m simulations``: run a cluster of whole agents in virtual time and say how it went."""

from __future__ import annotations

import argparse
import gc
import sys

from simulations.scenario import Report, life

OBJECTS_PER_COLLECTION = 100_000
"""Agents live as long as the run, and looking through all of them again and again would take a fifth of its time."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m simulations",
        description="Join, deploy, deaths, partition, healing: whole agents in virtual time, equal for equal seeds.",
    )
    parser.add_argument("--nodes", type=int, default=200, help="how many agents, at least 5 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="decides everything that is random (default: %(default)s)")
    parser.add_argument("--replicas", type=int, default=0, help="of the deployment (default: a tenth of the nodes)")
    parser.add_argument("--faults", type=float, default=0.0, metavar="S", help="seconds of random faults afterwards")
    options = parser.parse_args()
    if options.nodes < 5 or options.replicas < 0 or options.faults < 0:
        parser.error("at least 5 nodes, and nothing below 0")
    gc.set_threshold(OBJECTS_PER_COLLECTION)
    report = life(options.nodes, options.seed, options.replicas, options.faults)
    show(report)
    if report.problems:
        replay = (
            f"--nodes {options.nodes} --seed {options.seed} --replicas {options.replicas} --faults {options.faults:g}"
        )
        print(f"replay: python -m simulations {replay}", file=sys.stderr)
        return 1
    return 0


def show(report: Report) -> None:
    print(f"{report.nodes} nodes, seed {report.seed}")
    for phase in report.phases:
        speed = phase.simulated_s / phase.real_s
        print(f"  {phase.name:<10} after {phase.took_s:6.1f} s   ({speed:5.1f} x real time)")
    if report.faults:
        print("  faults     " + ", ".join(f"{name} {count}" for name, count in report.faults.items()))
    print(f"  {report.frames} frames, trace {report.trace}")
    for problem in report.problems:
        print(f"  wrong: {problem}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
