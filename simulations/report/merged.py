"""The results of a sweep as one page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from simulations.report.figures import HEADS, failures_first, headline_of_all, row
from simulations.report.page import document, recoveries, table
from simulations.result import Result


def merged_page(results: Sequence[Result]) -> str:
    """One page about all of them."""
    title = f"{results[0].scenario}: {len(results)} runs" if results else "No runs"
    return document(title, "\n".join(_sections(title, results)))


def _sections(title: str, results: Sequence[Result]) -> Iterator[str]:
    bad = [result for result in results if not result.is_good]
    mood = "bad" if bad else "good"
    yield f'<h1>{escape(title)}: <span class="{mood}">{escape(headline_of_all(results))}</span></h1>'
    if bad:
        yield "<h2>What was found to be wrong</h2>"
        found = [(f"seed {r.seed}", f"{f.at_s:.1f} s", f.check, f.said, r.replay) for r in bad for f in r.findings[:3]]
        yield table(("run", "at", "check", "found", "the same again"), found)
    yield from recoveries(results, "How long slots did not run, in all runs")
    yield "<h2>All runs</h2>"
    yield table(("the same again", *HEADS), [(r.replay, *row(r)) for r in failures_first(results)], what="runs")
