"""A result as one page for a browser, which needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Final

from simulations import plots
from simulations.report.figures import figures, headline, marked_quantiles, times_to_recover
from simulations.result import Promise, Result

ROWS_MAX: Final = 60
"""Slots in the chart of promises."""
LINES_MAX: Final = 200
"""Lines of a table."""

_STYLE: Final = (files("simulations.report") / "page.css").read_text(encoding="utf-8")


def page(result: Result) -> str:
    """The page; equal for equal results."""
    return document(f"{result.scenario}, seed {result.seed}", "\n".join(_sections(result)))


def document(title: str, body: str) -> str:
    """A whole page of HTML around ``body``."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, what: str = "lines") -> str:
    """A table of text, with as many rows as a person may want to see."""
    shown = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows[:LINES_MAX]
    )
    more = len(rows) - LINES_MAX
    rest = f'<p class="pale">and {more} more {what}, which the JSON has</p>' if more > 0 else ""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{shown}</tbody></table></div>{rest}'


def recoveries(results: Sequence[Result], title: str) -> Iterator[str]:
    """How the times in which slots did not run are distributed; nothing if all ran all the time."""
    took = times_to_recover(results)
    if took:
        yield f"<h2>{escape(title)}</h2>"
        yield plots.distribution(took, marked_quantiles(took), name="recoveries", x="seconds until it ran again")


def _sections(result: Result) -> Iterator[str]:
    mood = "good" if result.is_good else "bad"
    yield f'<h1>{escape(result.scenario)}: <span class="{mood}">{escape(headline(result))}</span></h1>'
    yield f'<p class="pale">{escape(result.about)}</p>'
    facts = "".join(f"<div><span>{escape(f.name)}</span><b>{escape(f.value)}</b></div>" for f in figures(result))
    yield f'<div class="facts">{facts}</div>'
    yield f"<p>The same again: <code>{escape(result.replay)}</code></p>"
    if result.findings:
        yield "<h2>What was found to be wrong</h2>"
        yield table(("at", "check", "found"), [(f"{f.at_s:.1f} s", f.check, f.said) for f in result.findings])
    yield from _plots(result)
    if result.happenings:
        yield "<h2>What happened</h2>"
        yield table(
            ("at", "until", "what", "whom"),
            [
                (f"{h.at_s:.1f} s", "" if h.until_s is None else f"{h.until_s:.1f} s", h.kind, h.about)
                for h in result.happenings
            ],
        )
    yield "<h2>What was checked</h2>"
    yield table(
        ("check", "what has to be true", "findings"), [(c.name, c.about, str(c.findings)) for c in result.checks]
    )
    yield "<h2>Counted</h2>"
    yield table(("what", "how often"), [(name, f"{count:,}") for name, count in result.counters.items()])
    yield f'<p class="pale">Gary {escape(result.version)}. Trace {escape(result.trace)}.</p>'


def _plots(result: Result) -> Iterator[str]:
    if not result.samples:
        return
    samples = result.samples
    spans = _merged([(h.at_s, samples[-1].at_s if h.until_s is None else h.until_s) for h in result.happenings])

    def over_time(
        name: str,
        title: str,
        y: str,
        *,
        percent: bool = False,
        in_bytes: bool = False,
        logarithmic: bool = False,
        **values: Iterable[float],
    ) -> str:
        series = {
            label.replace("_", " "): [(s.at_s, v) for s, v in zip(samples, found, strict=True)]
            for label, found in values.items()
        }
        return f"<h2>{escape(title)}</h2>\n" + plots.timeline(
            series, spans, name=name, y=y, percent=percent, in_bytes=in_bytes, logarithmic=logarithmic
        )

    yield over_time(
        "slots",
        "Slots wanted and kept",
        "slots",
        wanted=[s.wanted for s in samples],
        kept=[s.kept for s in samples],
        kept_twice=[s.doubled for s in samples],
    )
    yield '<p class="pale">Shaded: faults at work.</p>'
    yield over_time(
        "views",
        "Agents whose view of who is alive is the truth",
        "share",
        percent=True,
        share=[s.converged for s in samples],
    )
    yield from recoveries([result], "How long slots did not run")
    yield over_time(
        "bytes",
        "Bytes sent by an agent in a second",
        "a second",
        in_bytes=True,
        logarithmic=True,
        mean=[s.bytes_mean for s in samples],
        most=[s.bytes_max for s in samples],
    )
    yield over_time(
        "documents",
        "Sizes of documents",
        "size",
        in_bytes=True,
        mean=[s.document_bytes_mean for s in samples],
        largest=[s.document_bytes_max for s in samples],
    )
    yield from _promises(result, spans)


def _merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The times in which there was any of ``spans``."""
    merged: list[tuple[float, float]] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        elif high > low:
            merged.append((low, high))
    return merged


def _promises(result: Result, spans: Sequence[tuple[float, float]]) -> Iterator[str]:
    of: dict[tuple[str, str], list[Promise]] = {}
    for promise in result.promises:
        of.setdefault((promise.deployment, promise.slot), []).append(promise)
    # Those whose keeper changed most often have most to tell.
    chosen = sorted(of, key=lambda key: -len({promise.host for promise in of[key]}))[:ROWS_MAX]
    if not chosen:
        return
    rows = sorted(chosen)
    hosts = {host: number for number, host in enumerate(sorted({p.host for key in rows for p in of[key]}))}
    end = result.samples[-1].at_s
    found = [
        plots.Bar(
            number,
            promise.from_s,
            end if promise.until_s is None else promise.until_s,
            promise.host,
            hosts[promise.host],
            promise.state != "healthy",
        )
        for number, key in enumerate(rows)
        for promise in of[key]
    ]
    yield "<h2>Who promised what, and when</h2>"
    hidden = f" {len(of) - len(rows)} slots, whose keepers changed least, are not shown." if len(of) > len(rows) else ""
    yield f'<p class="pale">A colour for each host; pale while its promise is not healthy.{hidden}</p>'
    yield plots.bars([f"{deployment} {slot}" for deployment, slot in rows], found, spans, name="promises")
