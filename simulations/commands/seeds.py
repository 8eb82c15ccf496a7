"""All kinds of faults by chance, with the same seeds each time and then with fresh ones for a while.

Every other seed is a ``bad-day``: few hosts, many faults at a time.
Prints the seeds, and for each that finds something the command that does it again. Exits with 1 if one of the same
seeds did, and with --strict if any did: what a fresh seed finds was there before the change that happens to be tested.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from simulations import units
from simulations.commands.run import PLAIN, replay_command
from simulations.result import Result
from simulations.run import Run
from simulations.scenarios.library import Changes, find
from simulations.trials import run_all

BATCH = 16
BAD_DAY = "bad-day"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many, how large, for how long."""
    parser.add_argument(
        "--nodes", type=int, default=20, metavar="N", help="hosts in every other run (default: %(default)s)"
    )
    parser.add_argument("--for", dest="for_", default="2m", metavar="TIME", help="of these runs (default: %(default)s)")
    parser.add_argument("--fixed", type=int, default=40, metavar="N", help="seeds 1 to N first (default: %(default)s)")
    parser.add_argument(
        "--fresh", default="1m", metavar="TIME", help="then fresh ones for so long (default: %(default)s)"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a fresh seed finds something, too")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one for each core)")


def run(options: argparse.Namespace) -> int:
    """1 if one of the same seeds found something, or with ``--strict`` any."""
    try:
        for_s, fresh_s = units.duration_s(options.for_), units.duration_s(options.fresh)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2

    def played(seeds: Sequence[int]) -> bool:
        if not seeds:
            return True
        usual = Changes(options.nodes, max(1, options.nodes // 5), for_s, chance=True)
        trials = [Changes(seed=seed) if seed % 2 else replace(usual, seed=seed) for seed in seeds]
        results = run_all(play, trials, workers=options.workers)
        bad = [result for result in results if not result.is_good]
        print(f"seeds {seeds[0]} to {seeds[-1]}: {len(bad) or 'none'} of {len(seeds)} found something", flush=True)
        for result in bad:
            for finding in result.findings[:5]:
                print(f"  at {finding.at_s:.1f} s, {finding.check}: {finding.said}")
            print(f"  replay: {result.replay}", flush=True)
        return not bad

    is_good = played(range(1, options.fixed + 1))
    began = time.monotonic()
    for seeds in _fresh():
        if time.monotonic() - began >= fresh_s:
            break
        is_good = (played(seeds) or not options.strict) and is_good
    return 0 if is_good else 1


def play(changes: Changes) -> Result:
    """One run: of a plain cluster with faults by chance, or of a bad day, which has its own."""
    assert changes.seed is not None
    given = None if changes.chance else BAD_DAY
    source = PLAIN if given is None else find(given)
    running = Run(changes.apply(source), replay_command(given, changes, changes.seed))
    for _ in running.steps():
        pass
    return running.report()


def _fresh() -> Iterator[range]:
    """Seeds that nobody has tried, for all that can be known."""
    for first in itertools.count(random.SystemRandom().randrange(10**6, 10**9), BATCH):
        yield range(first, first + BATCH)
