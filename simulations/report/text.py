"""A result in a terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from simulations.report.figures import figures, headline
from simulations.result import Result

FINDINGS_MAX: Final = 20


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
