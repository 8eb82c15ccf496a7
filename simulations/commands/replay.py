"""Do a recorded run again, up to any moment, and show what an agent is and knows then.

It checks on the way that everything is as it was. Without --node: all hosts, one to a line.

  gary simulate replay run.trace --until 1m30s --node n7
  gary simulate replay run.trace --json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from gary import __version__
from simulations import units
from simulations.inspection import overview, whole_state
from simulations.run import Run
from simulations.scenarios.reader import ScenarioError
from simulations.trace import TraceError, decode
from simulations.trials import collect_seldom


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, until when, and whom to show."""
    parser.add_argument("trace", type=Path, help="what --record wrote")
    parser.add_argument("--until", metavar="TIME", help="since the cluster was formed (default: to its end)")
    parser.add_argument("--node", metavar="HOST", help="show all about this host and its agent, as JSON")
    parser.add_argument("--json", action="store_true", help="write all about all hosts as JSON, one to a line")


def run(options: argparse.Namespace) -> int:
    """1 if the run is not the same; 2 if it cannot be replayed."""
    try:
        until_s = float("inf") if options.until is None else units.duration_s(options.until)
        head, marks = decode(options.trace.read_text(encoding="utf-8").splitlines(), __version__)
        scenario = head.scenario()
    except (TraceError, ScenarioError, ValueError) as error:
        print(f"{options.trace}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{options.trace}: cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    collect_seldom()
    recorded = {mark.at_s: mark.trace for mark in marks}
    playing = Run(scenario, until_s=until_s)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(scenario.name, total=min(until_s, scenario.for_s))
        for at_s in playing.steps():
            progress.update(bar, completed=at_s)
            if recorded.get(at_s, playing.cluster.trace) != playing.cluster.trace:
                print(f"at {at_s:.1f} s this is not the run that was recorded", file=sys.stderr)
                return 1
    if options.node is None:
        if options.json:
            for each in playing.cluster.hosts:
                print(json.dumps(whole_state(playing.cluster, each)))
        else:
            Console().print(overview(playing.cluster))
        return 0
    host = next((host for host in playing.cluster.hosts if host.name == options.node), None)
    if host is None:
        print(f"there is no host {options.node!r}; they are n0 to n{len(playing.cluster.hosts) - 1}", file=sys.stderr)
        return 2
    print(json.dumps(whole_state(playing.cluster, host), indent=1))
    return 0
