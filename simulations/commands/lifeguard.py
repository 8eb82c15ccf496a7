"""The Lifeguard paper's experiment: false positives, latency and messages with and without its three parts.

Exits with 1 if what the paper found does not hold.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from simulations import lifeguard, outputs
from simulations.lifeguard_report import from_json, plots, tables, to_json, verdicts
from simulations.trials import run_all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which trials, and where the results go."""
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--smoke", action="store_const", const="smoke", dest="grid", help="a few seconds")
    size.add_argument("--full", action="store_const", const="full", dest="grid", help="many more sizes and seeds: days")
    size.add_argument("--from", type=Path, dest="results", metavar="FILE", help="show what --json wrote, run nothing")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one for each core)")
    parser.add_argument("--json", action="store_true", help="write all trials as JSON, no table")
    parser.add_argument("--plots", type=outputs.plots, metavar="DIRECTORY", help="write plots there, as SVG")
    parser.set_defaults(grid="default")


def run(options: argparse.Namespace) -> int:
    """1 if what the paper found does not hold."""
    if options.results:
        results = from_json(options.results.read_text(encoding="utf-8"))
    else:
        trials = lifeguard.GRIDS[options.grid].trials()
        results = list(zip(trials, run_all(lifeguard.run, trials, workers=options.workers), strict=True))
    if options.plots:
        for name, svg in plots(results).items():
            (options.plots / name).write_text(svg, encoding="utf-8")
    if options.json:
        print(to_json(results), end="")
        return 0
    console = Console()
    console.print(*tables(results))
    found = verdicts(results)
    for verdict in found:
        console.print(f"{'holds' if verdict.holds else '[red]fails[/red]'}  {verdict.claim}: {verdict.found}")
    return 0 if all(verdict.holds for verdict in found) else 1
