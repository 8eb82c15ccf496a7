"""What a larger cluster costs each member: idle traffic, detection, spreading of news, memory; 100 to 10,000 agents.

Exits with 1 if what ought to hold does not. The whole of it takes some minutes and 8 GB.
"""

from __future__ import annotations

import argparse
import sys

from simulations import growth, outputs
from simulations.trials import collect_seldom


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which sizes, and where the results go."""
    sizes = list(growth.SIZES)
    parser.add_argument("--agents", type=int, nargs="+", default=sizes, metavar="N", help=f"sizes (default: {sizes})")
    parser.add_argument("--seed", type=int, default=1, help="decides everything that is random (default: %(default)s)")
    parser.add_argument("--plots", type=outputs.plots, metavar="DIRECTORY", help="write plots there, as SVG")


def run(options: argparse.Namespace) -> int:
    """1 if idle traffic, detection or memory grow faster than they may."""
    if min(options.agents) < growth.AGENTS_MIN:
        print(f"at least {growth.AGENTS_MIN} agents: some of them die", file=sys.stderr)
        return 2
    collect_seldom()
    rows = []
    for agents in options.agents:
        print(f"{agents} agents", file=sys.stderr)
        rows.append(growth.grow(agents, options.seed))
    print(growth.table(rows), end="")
    if options.plots:
        for name, svg in growth.plots(rows).items():
            (options.plots / name).write_text(svg, encoding="utf-8")
    problems = growth.problems(rows)
    for problem in problems:
        print(f"wrong: {problem}", file=sys.stderr)
    return 1 if problems else 0
