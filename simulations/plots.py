"""Plots of experiments and of runs as SVG, equal for equal data.

Only this module knows matplotlib, which the extra ``plots`` brings.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator

Points = Sequence[tuple[float, float]]
_INK = "#010203"
"""Becomes the colour of the text around, where plots are shown in a page. Not black, which SVG would not name."""
_COLOURS = ("#3b7dd8", "#e0882f", "#3a9d5d", "#c8443c", "#8a63c9", "#7f7f7f", "#c9a227", "#2fa6a6")
_SPAN = "#c8443c"


@dataclass(frozen=True, slots=True)
class Bar:
    """``row``: from 0, at the top. ``label`` is written into it if there is room; ``colour``: the number of one."""

    row: int
    from_: float
    to: float
    label: str
    colour: int
    is_pale: bool = False


def lines(
    series: Mapping[str, Points],
    *,
    title: str,
    x: str,
    y: str,
    logarithmic: bool = False,
    logarithmic_x: bool = False,
) -> str:
    """A line for each of ``series``, points as (x, y); ``logarithmic`` is about y, and shows 0 as well."""
    with mpl.rc_context({"svg.hashsalt": "gary", "svg.fonttype": "none", "font.size": 9.0}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for number, (name, points) in enumerate(series.items()):
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, marker="osv^Dx+*"[number % 8], markersize=4, linewidth=1.2, label=name)
        if logarithmic:
            axes.set_yscale("symlog", linthresh=1)
        if logarithmic_x:
            axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set(title=title, xlabel=x, ylabel=y)
        axes.legend(frameon=False, fontsize=8)
        return _svg(figure)


def timeline(
    series: Mapping[str, Points],
    spans: Sequence[tuple[float, float]],
    *,
    name: str,
    y: str,
    percent: bool = False,
    in_bytes: bool = False,
    logarithmic: bool = False,
) -> str:
    """Steps over time in seconds, in front of ``spans`` in which something was wrong. ``name``: unique in its page.
    ``in_bytes``: with their units. ``logarithmic``: above 100.
    """
    with _for_a_page(name):
        figure, axes = _figure(2.4)
        for low, high in spans:
            axes.axvspan(low, high, color=_SPAN, alpha=0.07, linewidth=0)
        for number, (label, points) in enumerate(series.items()):
            xs, ys = zip(*points, strict=True) if points else ((), ())
            axes.step(xs, ys, where="post", linewidth=1.4, color=_COLOURS[number], label=label)
        axes.set(xlabel="seconds", ylabel=y)
        if logarithmic:
            axes.set_yscale("symlog", linthresh=100, linscale=0.3)
            axes.yaxis.set_major_locator(FixedLocator([0.0, *(10.0**exponent for exponent in range(3, 13))]))
        if in_bytes:
            axes.yaxis.set_major_formatter(EngFormatter("B"))
        axes.set_ylim(bottom=0, top=1.04 if percent else None)
        if percent:
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.margins(x=0.01)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)
        return _for_page(figure, name)


def distribution(values: Sequence[float], marks: Mapping[str, float], *, name: str, x: str) -> str:
    """How large the share of ``values`` is up to each; with some of them marked."""
    with _for_a_page(name):
        figure, axes = _figure(2.4)
        ordered = sorted(values)
        shares = [(number + 1) / len(ordered) for number in range(len(ordered))]
        axes.step([0.0, *ordered], [0.0, *shares], where="post", linewidth=1.6, color=_COLOURS[0])
        for label, value in marks.items():
            axes.axvline(value, color=_COLOURS[1], linewidth=0.8, linestyle=":")
            axes.annotate(
                label, (value, 0.04), rotation=90, fontsize=8, xytext=(2, 0), textcoords="offset points", color=_INK
            )
        axes.set(xlabel=x, ylabel="share")
        axes.set_ylim(0, 1.04)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        return _for_page(figure, name)


def bars(rows: Sequence[str], found: Sequence[Bar], spans: Sequence[tuple[float, float]], *, name: str) -> str:
    """A row for each of ``rows`` with its bars over time in seconds."""
    with _for_a_page(name):
        figure, axes = _figure(0.7 + 0.2 * len(rows))
        for low, high in spans:
            axes.axvspan(low, high, color=_SPAN, alpha=0.07, linewidth=0)
        end = max((bar.to for bar in found), default=1.0)
        for bar in found:
            axes.barh(
                bar.row,
                bar.to - bar.from_,
                left=bar.from_,
                height=0.78,
                color=_COLOURS[bar.colour % len(_COLOURS)],
                alpha=0.35 if bar.is_pale else 0.8,
                linewidth=0,
            )
            if bar.to - bar.from_ > end * 0.012 * (len(bar.label) + 1):
                axes.text(
                    bar.from_ + end * 0.003,
                    bar.row,
                    bar.label,
                    fontsize=6.5,
                    va="center",
                    color="#ffffff",
                    clip_on=True,
                )
        axes.set_yticks(range(len(rows)), rows, fontsize=7)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, end)
        axes.set_xlabel("seconds")
        axes.grid(visible=False)
        return _for_page(figure, name)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9.0, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, linewidth=0.4, alpha=0.35)
    axes.set_axisbelow(True)
    return figure, axes


@contextmanager
def _for_a_page(name: str) -> Iterator[None]:
    with mpl.rc_context(
        {
            "svg.hashsalt": name,
            "svg.fonttype": "none",
            "font.size": 9.0,
            "font.family": "sans-serif",
            "text.color": _INK,
            "axes.labelcolor": _INK,
            "axes.edgecolor": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
        }
    ):
        yield


def _for_page(figure: Figure, name: str) -> str:
    """Without the head of a file, as wide as there is room, in the colours of the page, and with ids of its own."""
    svg = _svg(figure, transparent=True)
    svg = re.sub(r"<metadata>.*?</metadata>\n?", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?)height="[^"]*"', r'\1role="img"', svg, count=1)
    svg = svg.replace(_INK, "currentColor")
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return f'<div class="wide">{svg}</div>\n'


def _svg(figure: Figure, *, transparent: bool = False) -> str:
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=transparent, metadata={"Date": None, "Creator": None})
    # Paths end with blanks, which no other file here does.
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"
