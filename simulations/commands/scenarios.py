"""The scenarios that come with Gary."""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.table import Table

from simulations import units
from simulations.scenarios.library import find, names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which one to show as it is written."""
    parser.add_argument("name", nargs="?", choices=names(), metavar="NAME", help="show this one's text, to begin from")
    parser.add_argument("--json", action="store_true", help="write the list as JSON to stdout")


def run(options: argparse.Namespace) -> int:
    """Always 0."""
    if options.name:
        print(find(options.name).text, end="")
        return 0
    scenarios = {name: find(name).read() for name in names()}
    if options.json:
        print(
            json.dumps(
                [{"scenario": n, "hosts": s.nodes, "for_s": s.for_s, "about": s.about} for n, s in scenarios.items()]
            )
        )
        return 0
    table = Table("scenario", "hosts", "time", "what happens")
    for name, scenario in scenarios.items():
        table.add_row(name, str(scenario.nodes), units.in_words(scenario.for_s), scenario.about)
    Console().print(table)
    return 0
