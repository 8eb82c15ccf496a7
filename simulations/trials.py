"""Many independent runs on all cores, with a bar that says how far they are and how long they will take."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
R = TypeVar("R")

OBJECTS_PER_COLLECTION: Final = 100_000
"""Agents live as long as the run, and looking through all of them again and again would take a fifth of its time."""


def collect_seldom() -> None:
    """Let this process look for garbage seldom."""
    gc.set_threshold(OBJECTS_PER_COLLECTION)


def run_all(run: Callable[[T], R], trials: Sequence[T], *, workers: int = 0, console: Console | None = None) -> list[R]:
    """The results of ``run`` for all ``trials``, in their order, from ``workers`` processes (0: one for each core).

    ``run`` is a function of a module, and trials and results can be pickled. Progress goes to ``console``, by default
    that of the errors' stream.
    """
    results: dict[int, R] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with (
        Progress(*columns, console=console or Console(stderr=True)) as progress,
        ProcessPoolExecutor(workers or os.cpu_count(), initializer=collect_seldom) as pool,
    ):
        bar = progress.add_task("trials", total=len(trials))
        number_of = {pool.submit(run, trial): number for number, trial in enumerate(trials)}
        for future in as_completed(number_of):
            results[number_of[future]] = future.result()
            progress.advance(bar)
    return [results[number] for number in range(len(trials))]
