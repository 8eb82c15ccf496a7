"""Play a scenario: whole agents by the thousand in virtual time, and what becomes of them.

Without a scenario: --nodes hosts with --deployments deployments. Exits with 1 if anything was found to be wrong, with 2
if the run cannot begin, and with 130 after Ctrl-C, with the report so far.

  gary simulate zone-loss
  gary simulate --nodes 2000 --deployments 200 --for 10m --seed 7 --report run.html
  gary simulate my.toml --faults --record run.trace
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gary import __version__
from simulations import outputs, units
from simulations.estimate import available_bytes, memory_bytes
from simulations.report.text import summary
from simulations.result import Result
from simulations.run import REST_S, Run
from simulations.scenarios.library import Changes, Source, find
from simulations.scenarios.model import Scenario
from simulations.scenarios.reader import ScenarioError
from simulations.trace import Head, Mark
from simulations.trials import collect_seldom

PLAIN = Source("plain.toml", 'about = "Hosts and deployments, as the command line says."\nhosts = [{ count = 20 }]\n')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which scenario, what to change about it, and where results go."""
    parser.add_argument("scenario", nargs="?", help="one that comes with Gary (see: scenarios), or a file of TOML")
    add_changes(parser)
    parser.add_argument("--record", type=outputs.file, metavar="FILE", help="write what it takes to replay the run")
    parser.add_argument("--report", type=outputs.page, metavar="FILE", help="write a page with plots, for a browser")
    parser.add_argument("--json", action="store_true", help="write the whole result as JSON to stdout")


def add_changes(parser: argparse.ArgumentParser) -> None:
    """What to change about a scenario."""
    parser.add_argument("--nodes", type=int, metavar="N", help="so many hosts")
    parser.add_argument("--deployments", type=int, metavar="N", help="so many deployments like the first one")
    parser.add_argument(
        "--for", dest="for_s", type=_duration_s, metavar="TIME", help="let things happen for so long: 10m"
    )
    parser.add_argument("--seed", type=int, help="decides everything that is random")
    parser.add_argument("--faults", action="store_true", help="all kinds of faults by chance, too")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", type=_setting, help="a key of the scenario's file"
    )


def changes_in(options: argparse.Namespace) -> Changes:
    return Changes(options.nodes, options.deployments, options.for_s, options.seed, options.faults, tuple(options.set))


def run(options: argparse.Namespace) -> int:
    """1 if anything was wrong."""
    try:
        source = find(options.scenario) if options.scenario else PLAIN
        head = Head(__version__, source, changes_in(options))
        scenario = head.scenario()
    except ScenarioError as error:
        print(error, file=sys.stderr)
        return 2
    impossible = refusal(scenario)
    if impossible:
        print(impossible, file=sys.stderr)
        return 2
    collect_seldom()
    result, marks, interrupted = play(Run(scenario, replay_command(options.scenario, head.changes, scenario.seed)))
    if options.json:
        print(result.to_json())
    else:
        Console().print(summary(result))
    status = 130 if interrupted else 0 if result.is_good else 1
    if options.record:
        text = "\n".join([head.encode(), *(mark.encode() for mark in marks)])
        status = max(status, outputs.write("trace", options.record, text + "\n"))
    if options.report:
        # Drawing is an extra of its own.
        from simulations.report.page import page

        status = max(status, outputs.write("report", options.report, page(result)))
    return status


def refusal(scenario: Scenario) -> str:
    """Why a run cannot begin; empty if it can."""
    if scenario.nodes < 1:
        return "--nodes: a cluster has at least one host"
    needed, there = memory_bytes(scenario), available_bytes()
    if there is not None and needed > there:
        return (
            f"{scenario.nodes} nodes would take about {needed / 1e9:.1f} GB of memory, and {there / 1e9:.1f} GB are "
            f"free here; run fewer nodes (--nodes), or on a larger machine"
        )
    return ""


def play(run: Run) -> tuple[Result, list[Mark], bool]:
    """Run it with a bar on stderr; gives the result, what a trace of it has, and whether Ctrl-C ended it."""
    began = time.perf_counter()
    interrupted = False
    marks: list[Mark] = []
    total_s = run.scenario.for_s + REST_S
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[simulated]}"),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(run.scenario.name, total=total_s, simulated="forming", speed="")
        try:
            for at_s in run.steps():
                marks.append(Mark(at_s, run.cluster.trace))
                speed = run.cluster.clock.now / max(1e-9, time.perf_counter() - began)
                progress.update(
                    bar, completed=min(at_s, total_s), simulated=units.in_words(at_s), speed=units.speed(speed)
                )
        except KeyboardInterrupt:
            interrupted = True
    result = run.report()
    result.real_s = time.perf_counter() - began
    return result, marks, interrupted


def replay_command(scenario: str | None, changes: Changes, seed: int) -> str:
    """The one command that does the same again."""
    parts = ["gary", "simulate", *([scenario] if scenario else [])]
    for flag, value in (("--nodes", changes.nodes), ("--deployments", changes.deployments)):
        parts += [flag, str(value)] if value is not None else []
    parts += ["--for", units.exactly(changes.for_s)] if changes.for_s is not None else []
    parts += ["--faults"] if changes.chance else []
    for key, setting in changes.sets:
        parts += ["--set", f"{key}={setting}"]
    return shlex.join([*parts, "--seed", str(seed)])


def _duration_s(text: str) -> float:
    try:
        return units.duration_s(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value
