"""The results of a sweep, together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simulations import units
from simulations.report.figures import quantile
from simulations.report.page import PlotsMissing, document, table
from simulations.result import Result

HEADS: Final = ("run", "findings", "slots lost", "ran again: median", "p99", "lost at most", "bytes/s")
SHOWN_MAX: Final = 30


def merged_summary(results: Sequence[Result]) -> RenderableType:
    """Failures first, then how the runs differ, in a terminal."""
    bad = [result for result in results if not result.is_good]
    style = "bold red" if bad else "bold green"
    parts: list[RenderableType] = [Text(_headline(results), style=style)]
    shown = Table(*HEADS, box=None, padding=(0, 2, 0, 0))
    for result in _ordered(results)[:SHOWN_MAX]:
        shown.add_row(*row(result))
    parts.append(shown)
    if len(results) > SHOWN_MAX:
        parts.append(Text(f"and {len(results) - SHOWN_MAX} more"))
    parts += [Text(f"replay: {result.replay}") for result in bad[:SHOWN_MAX]]
    return Group(*parts)


def merged_page(results: Sequence[Result]) -> str:
    """One page about all of them. Raises ``PlotsMissing``."""
    title = f"{results[0].scenario}: {len(results)} runs" if results else "No runs"
    return document(title, "\n".join(_sections(title, results)))


def row(result: Result) -> tuple[str, ...]:
    """One run, in words, under ``HEADS``."""
    took = [recovery.took_s for recovery in result.recoveries if recovery.took_s is not None]
    lost = max((sample.lost / sample.wanted for sample in result.samples if sample.wanted), default=0.0)
    mean = sum(s.bytes_mean for s in result.samples) / max(1, len(result.samples))
    return (
        f"seed {result.seed}",
        str(len(result.findings)) if result.is_whole else "stopped",
        str(len(result.recoveries)),
        units.in_words(quantile(took, 0.5)) if took else "",
        units.in_words(quantile(took, 0.99)) if took else "",
        f"{lost:.0%}",
        f"{mean:.0f}",
    )


def _sections(title: str, results: Sequence[Result]) -> Iterator[str]:
    bad = [result for result in results if not result.is_good]
    mood = "bad" if bad else "good"
    yield f'<h1>{escape(title)}: <span class="{mood}">{escape(_headline(results))}</span></h1>'
    if bad:
        yield "<h2>What was found to be wrong</h2>"
        found = [(f"seed {r.seed}", f"{f.at_s:.1f} s", f.check, f.said, r.replay) for r in bad for f in r.findings[:3]]
        yield table(("run", "at", "check", "found", "the same again"), found)
    took = [r.took_s for result in results for r in result.recoveries if r.took_s is not None]
    if took:
        try:
            from simulations import plots
        except ModuleNotFoundError as error:
            raise PlotsMissing from error
        marks = {f"{label} {units.in_words(quantile(took, q))}": quantile(took, q) for label, q in _QUANTILES.items()}
        yield "<h2>How long slots did not run, in all runs</h2>"
        yield plots.distribution(took, marks, name="recoveries", x="seconds until it ran again")
    yield "<h2>All runs</h2>"
    yield table(("the same again", *HEADS), [(r.replay, *row(r)) for r in _ordered(results)], what="runs")


_QUANTILES: Final = {"median": 0.5, "p90": 0.9, "p99": 0.99}


def _headline(results: Sequence[Result]) -> str:
    bad = sum(not result.is_good for result in results)
    return f"{bad} of {len(results)} runs found something" if bad else f"all is well in all {len(results)} runs"


def _ordered(results: Sequence[Result]) -> list[Result]:
    return sorted(results, key=lambda result: (result.is_good, result.seed, result.replay))
