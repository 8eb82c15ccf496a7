"""How detection time, false positives and traffic trade, with one setting changed at a time.

Exits with 1 if the curves run the wrong way. Takes some minutes.
"""

from __future__ import annotations

import argparse
import sys

from simulations import outputs, tradeoff
from simulations.trials import run_all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How random, how fast, and where plots go."""
    parser.add_argument("--seed", type=int, default=1, help="decides everything that is random (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one for each core)")
    parser.add_argument("--plots", type=outputs.plots, metavar="DIRECTORY", help="write plots there, as SVG")


def run(options: argparse.Namespace) -> int:
    """1 if something of what ought to hold does not."""
    tried = [(*configuration, options.seed) for configuration in tradeoff.configurations()]
    points = run_all(tradeoff.measured, tried, workers=options.workers)
    print(tradeoff.table(points), end="")
    if options.plots:
        for name, drawing in tradeoff.drawn(points).items():
            (options.plots / name).write_text(drawing, encoding="utf-8")
    problems = tradeoff.problems(points)
    for problem in problems:
        print(f"wrong: {problem}", file=sys.stderr)
    return 1 if problems else 0
