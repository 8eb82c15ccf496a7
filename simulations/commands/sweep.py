"""Play a scenario many times: with many seeds, with other measures, on all cores.

Each result is kept in a directory, so that a sweep that was stopped goes on where it was. At the end there is one
report of all. --vary takes a key of the scenario's file, and values; several make a grid.

  gary simulate sweep zone-loss --seeds 1-100 --into sweep
  gary simulate sweep my.toml --seeds 1-10 --vary hosts.0.count=10,30,100 --vary faults.0.lasts=10s,1m --into sweep
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from gary import __version__
from simulations import outputs
from simulations.commands.run import PLAIN, add_changes, changes_in, refusal, replay_command
from simulations.report.text import merged_summary
from simulations.result import from_json
from simulations.run import Run
from simulations.scenarios.library import Changes, Source, find
from simulations.scenarios.model import Scenario
from simulations.scenarios.reader import ScenarioError
from simulations.trials import BACKENDS, DaskMissing, run_all


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a sweep. ``file``: where its result belongs."""

    source: Source
    changes: Changes
    replay: str
    file: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which scenario, which seeds and measures, where, and on what."""
    parser.add_argument("scenario", nargs="?", help="one that comes with Gary, or a file of TOML")
    add_changes(parser)
    parser.add_argument("--seeds", type=_seeds, default=[1], metavar="RANGE", help="1-100, or 3,5,8 (default: 1)")
    parser.add_argument("--vary", action="append", default=[], metavar="KEY=V1,V2", help="other values of one key")
    parser.add_argument(
        "--into", type=outputs.directory, default="sweep", metavar="DIRECTORY", help="default: %(default)s"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one for each core)")
    parser.add_argument("--backend", choices=BACKENDS, default="loky", help="dask: on a cluster of machines")
    parser.add_argument(
        "--scheduler", default="", metavar="ADDRESS", help="of the Dask cluster (default: this machine)"
    )
    parser.add_argument("--json", action="store_true", help="write all results as JSON to stdout, one to a line")


def run(options: argparse.Namespace) -> int:
    """1 if anything was wrong in any run."""
    try:
        trials = _trials(options)
        impossible = next((said for trial in trials if (said := refusal(_scenario(trial)))), "")
    except ScenarioError as error:
        print(error, file=sys.stderr)
        return 2
    if impossible:
        print(impossible, file=sys.stderr)
        return 2
    missing = [trial for trial in trials if not trial.file.exists()]
    if len(missing) < len(trials):
        print(f"{len(trials) - len(missing)} of {len(trials)} runs are there already", file=sys.stderr)
    interrupted = False
    try:
        run_all(
            play,
            missing,
            workers=options.workers,
            backend=options.backend,
            scheduler=options.scheduler,
            done=lambda trial, text: keep(trial.file, text),
        )
    except DaskMissing as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        interrupted = True
        print(f"stopped; the same command goes on where it was, in {options.into}", file=sys.stderr)
    results = [from_json(trial.file.read_text(encoding="utf-8")) for trial in trials if trial.file.exists()]
    if options.json:
        for result in results:
            print(result.to_json(indent=None))
    else:
        Console().print(merged_summary(results))
    status = 130 if interrupted else 0 if all(result.is_good for result in results) else 1
    if not outputs.can_draw():
        print(f"no report as a page: {outputs.NO_PLOTS}", file=sys.stderr)
        return status
    # Drawing is an extra of its own.
    from simulations.report.merged import merged_page

    return max(status, outputs.write("report", options.into / "report.html", merged_page(results)))


def play(trial: Trial) -> str:
    """Its result, as JSON: it may be played on another machine."""
    run = Run(_scenario(trial), trial.replay)
    for _ in run.steps():
        pass
    return run.report().to_json()


def keep(file: Path, text: str) -> None:
    """Write a result as a whole or not at all."""
    unfinished = file.with_suffix(".part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.rename(file)


def _scenario(trial: Trial) -> Scenario:
    return trial.changes.apply(trial.source)


def _trials(options: argparse.Namespace) -> list[Trial]:
    source = find(options.scenario) if options.scenario else PLAIN
    axes = [[(key, value) for value in _values(values)] for key, _, values in (v.partition("=") for v in options.vary)]
    trials = []
    for *settings, seed in itertools.product(*axes, options.seeds):
        changes = replace(changes_in(options), seed=seed, sets=(*changes_in(options).sets, *settings))
        replay = replay_command(options.scenario, changes, seed)
        digest = hashlib.sha256(f"{__version__} {source.text} {sorted(source.files.items())} {changes}".encode())
        trials.append(Trial(source, changes, replay, options.into / f"seed-{seed}-{digest.hexdigest()[:12]}.json"))
    return trials


def _seeds(text: str) -> list[int]:
    try:
        found: list[int] = []
        for part in text.split(","):
            low, dash, high = part.partition("-")
            found += range(int(low), int(high) + 1) if dash else [int(low)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of seeds such as 1-100 or 3,5,8") from error
    return found


def _values(text: str) -> list[str]:
    return text.split(",")
