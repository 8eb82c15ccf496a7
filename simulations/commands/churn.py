"""What churn costs: 2,000 agents, 1 % of them replaced every minute; bytes a second, mean and p99, and who misses what.

Exits with 1 if it costs more than it may, or anybody is held dead by mistake or ends with another view.
"""

from __future__ import annotations

import argparse
import sys

from simulations import churn
from simulations.trials import collect_seldom


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many, for how long, how fast."""
    parser.add_argument("--agents", type=int, default=churn.AGENTS, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides everything that is random (default: %(default)s)")
    parser.add_argument(
        "--duration", type=int, default=churn.DURATION_S, metavar="S", help="seconds measured (default: %(default)s)"
    )
    parser.add_argument(
        "--replaced",
        type=float,
        default=churn.REPLACED_PER_MINUTE,
        metavar="SHARE",
        help="of the agents, each minute (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """1 if something of what ought to hold does not."""
    if options.agents * options.replaced * options.duration < 120:
        print("nobody, or one only, would be replaced in that time", file=sys.stderr)
        return 2
    collect_seldom()
    result = churn.churn(
        options.agents, options.seed, duration_s=options.duration, replaced_per_minute=options.replaced
    )
    print(churn.table(result), end="")
    problems = churn.problems(result)
    for problem in problems:
        print(f"wrong: {problem}", file=sys.stderr)
    return 1 if problems else 0
