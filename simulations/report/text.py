"""Results in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from simulations.report.figures import HEADS, failures_first, figures, headline, headline_of_all, row
from simulations.result import Result

FINDINGS_MAX: Final = 20
RUNS_MAX: Final = 30


def summary(result: Result) -> RenderableType:
    """What a person wants to know at the end of a run."""
    style = "bold green" if result.is_good else "bold red"
    parts: list[RenderableType] = [Text(f"{result.scenario}: {headline(result)}", style=style)]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for figure in figures(result):
        table.add_row(figure.name, Text(figure.value))
    parts.append(table)
    if result.findings:
        wrong = Table("at", "check", "found", box=None, padding=(0, 2, 0, 0))
        for finding in result.findings[:FINDINGS_MAX]:
            wrong.add_row(f"{finding.at_s:.1f} s", finding.check, escape(finding.said))
        parts.append(wrong)
        if len(result.findings) > FINDINGS_MAX:
            parts.append(Text(f"and {len(result.findings) - FINDINGS_MAX} more (--json has all)"))
        parts.append(Text(f"replay: {result.replay}"))
    return Group(*parts)


def merged_summary(results: Sequence[Result]) -> RenderableType:
    """Of a sweep: failures first, then how the runs differ."""
    bad = [result for result in results if not result.is_good]
    parts: list[RenderableType] = [Text(headline_of_all(results), style="bold red" if bad else "bold green")]
    shown = Table(*HEADS, box=None, padding=(0, 2, 0, 0))
    for result in failures_first(results)[:RUNS_MAX]:
        shown.add_row(*row(result))
    parts.append(shown)
    if len(results) > RUNS_MAX:
        parts.append(Text(f"and {len(results) - RUNS_MAX} more"))
    parts += [Text(f"replay: {result.replay}") for result in bad[:RUNS_MAX]]
    return Group(*parts)
