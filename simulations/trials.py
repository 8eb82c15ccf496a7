"""Many independent runs on all cores, with a bar that says how far they are and how long they will take."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, TypeVar

from joblib import Parallel, delayed, parallel_config
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
R = TypeVar("R")

BACKENDS: Final = ("loky", "dask")
OBJECTS_PER_COLLECTION: Final = 1_000_000
"""Agents live as long as the run, and looking through all of them again and again would take a fifth of its time."""


def collect_seldom() -> None:
    """Let this process look for garbage seldom, and among what has lived for long hardly ever."""
    gc.set_threshold(OBJECTS_PER_COLLECTION, 10, 1000)


class DaskMissing(Exception):
    """The world: the library is not installed."""

    def __init__(self) -> None:
        super().__init__("the backend dask needs Dask; install it: pip install 'gary[dask]'")


def run_all(
    run: Callable[[T], R],
    trials: Sequence[T],
    *,
    workers: int = 0,
    backend: str = "loky",
    scheduler: str = "",
    done: Callable[[T, R], None] = lambda trial, result: None,
    console: Console | None = None,
) -> list[R]:
    """The results of ``run`` for all ``trials``, in their order, from ``workers`` processes (0: one for each core).

    ``run`` is a function of a module, and trials and results can be pickled. ``done`` hears of each result as soon as
    it is there. ``backend``: one of ``BACKENDS``; "dask" takes the workers of the Dask cluster at the address
    ``scheduler``, or processes of this machine. Progress goes to ``console``, by default that of the errors' stream.
    Raises ``DaskMissing``.
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
        _cluster(workers, scheduler) if backend == "dask" else nullcontext(),
        Progress(*columns, console=console or Console(stderr=True)) as progress,
        parallel_config(backend=backend, n_jobs=workers or -1),
    ):
        bar = progress.add_task("trials", total=len(trials))
        jobs = (delayed(_numbered)(run, number, trial) for number, trial in enumerate(trials))
        for number, result in Parallel(return_as="generator_unordered", pre_dispatch="all")(jobs):
            results[number] = result
            done(trials[number], result)
            progress.advance(bar)
    return [results[number] for number in range(len(trials))]


def _cluster(workers: int, scheduler: str) -> AbstractContextManager[Any]:
    try:
        from dask import distributed
    except ModuleNotFoundError as error:
        raise DaskMissing from error
    connect: Callable[..., AbstractContextManager[Any]] = distributed.Client
    if scheduler:
        return connect(scheduler)
    return connect(n_workers=workers or os.cpu_count(), threads_per_worker=1, host="127.0.0.1", dashboard_address=None)


def _numbered(run: Callable[[T], R], number: int, trial: T) -> tuple[int, R]:
    collect_seldom()
    result = run(trial)
    # Agents refer to each other in circles. Those of the run that is over would stay for the next ones.
    gc.collect()
    return number, result
