"""How detection time, false positives and traffic trade, with one setting changed at a time.

Exits with 1 if the curves run the wrong way. Takes some minutes.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from simulations import tradeoff
from simulations.trials import collect_seldom


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How random, how fast, and where plots go."""
    parser.add_argument("--seed", type=int, default=1, help="decides everything that is random (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one for each core)")
    parser.add_argument("--plots", type=Path, default=None, metavar="DIRECTORY", help="write plots there, as SVG")


def run(options: argparse.Namespace) -> int:
    """1 if something of what ought to hold does not."""
    points: list[tradeoff.Point] = []
    tried = tradeoff.configurations()
    with ProcessPoolExecutor(options.workers, initializer=collect_seldom) as workers:
        running = [workers.submit(tradeoff.measure, *one, options.seed) for one in tried]
        for number, (one, future) in enumerate(zip(tried, running, strict=True), 1):
            points.append(future.result())
            print(f"{number} of {len(tried)}: {one[0]} {one[1]:g} s", file=sys.stderr)
    print(tradeoff.table(points), end="")
    if options.plots is not None:
        for name, drawing in tradeoff.drawn(points).items():
            (options.plots / name).write_text(drawing, encoding="utf-8")
    problems = tradeoff.problems(points)
    for problem in problems:
        print(f"wrong: {problem}", file=sys.stderr)
    return 1 if problems else 0
