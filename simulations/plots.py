"""Plots of experiments as SVG, equal for equal data.

Only this module knows matplotlib, which the extra ``plots`` brings.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
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
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    # Paths end with blanks, which no other file here does.
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"
