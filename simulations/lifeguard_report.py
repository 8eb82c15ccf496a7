"""What the Lifeguard experiment says: one row for each variant, what ought to hold among them, and how it is shown.

Figures without a unit are counts. Latencies are seconds from the beginning of an anomaly. Relative figures are shares
of what plain SWIM has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from rich.table import Table

from simulations.lifeguard import VARIANTS, Outcome, Trial
from simulations.swarm import Anomaly

BASE: Final = "SWIM"
ALL_OF_IT: Final = "Lifeguard"
PAPER: Final[dict[str, tuple[float, float]]] = {
    "SWIM": (1.0, 1.0),
    "LHA-Probe": (0.677, 0.329),
    "LHA-Suspicion": (0.030, 0.067),
    "Buddy System": (0.941, 0.446),
    "Lifeguard": (0.0153, 0.0189),
}
"""False positives, and those at healthy members, as shares of SWIM's (section V-F)."""

Result = tuple[Trial, Outcome]


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds; half of all, and 99 of 100, are at most so long. ``samples``: how many there are."""

    p50_s: float
    p99_s: float
    samples: int


@dataclass(frozen=True, slots=True)
class Row:
    """A variant. Latencies are None where the threshold experiment was not run or found nobody."""

    variant: str
    false_positives: int
    false_positives_at_healthy: int
    messages: int
    size_bytes: int
    detection: Latency | None
    dissemination: Latency | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Something that ought to hold, what was found, and whether it does."""

    claim: str
    found: str
    holds: bool


def rows(results: Sequence[Result]) -> list[Row]:
    """A row for each variant, in the order of ``VARIANTS``."""
    return [
        _row(variant, [result for result in results if result[0].variant == variant]) for variant in _names(results)
    ]


def verdicts(results: Sequence[Result]) -> list[Verdict]:
    """What makes the experiment a reproduction of the paper's, as far as the trials that were run can tell."""
    of = {row.variant: row for row in rows(results)}
    base, whole = of[BASE], of[ALL_OF_IT]
    found = [
        _at_most("false positives with all of Lifeguard", whole, base, lambda row: row.false_positives, 0.05),
        _at_most("and at healthy members", whole, base, lambda row: row.false_positives_at_healthy, 0.05),
        _ordering(of),
        _at_most("messages", whole, base, lambda row: row.messages, 1.12),
    ]
    if base.detection and whole.detection:
        found.append(_at_most("median time to the first detection", whole, base, _median_detection, 1.05))
        found.append(_at_most("median time until all know", whole, base, _median_dissemination, 1.05))
    faster = of.get("Lifeguard, alpha 4")
    if faster and faster.dissemination:
        found.append(_at_most("median time until all know, alpha 4", faster, base, _median_dissemination, 0.85))
        if faster.messages:
            found.append(_at_most("false positives, alpha 4", faster, base, lambda row: row.false_positives, 0.05))
    return found


# Written down


def to_json(results: Sequence[Result]) -> str:
    """All trials with what was counted, one to a line."""
    lines = [json.dumps({**asdict(trial), "outcome": asdict(outcome)}) for trial, outcome in results]
    return '{"trials": [\n' + ",\n".join(lines) + "\n]}\n"


def from_json(text: str) -> list[Result]:
    """What ``to_json`` wrote."""
    results: list[Result] = []
    for item in json.loads(text)["trials"]:
        outcome = item.pop("outcome")
        for name in ("detection_s", "dissemination_s"):
            outcome[name] = tuple(outcome[name])
        results.append((Trial(**{**item, "kind": Anomaly(item["kind"])}), Outcome(**outcome)))
    return results


# Shown

ACCURACY: Final = ("variant", "FP", "of SWIM", "in the paper", "FP-", "of SWIM", "in the paper")
COST: Final = ("variant", "first knows: p50", "p99", "all know: p50", "p99", "messages", "bytes")


def tables(results: Sequence[Result]) -> list[Table]:
    """Accuracy, and what it costs, for a terminal."""
    shown = []
    for headings, lines in ((ACCURACY, accuracy(results)), (COST, cost(results))):
        table = Table(*headings)
        for column in table.columns[1:]:
            column.justify = "right"
        for line in lines:
            table.add_row(*line)
        shown.append(table)
    return shown


def accuracy_markdown(results: Sequence[Result]) -> str:
    """False positives of each variant, for a document."""
    return _markdown(ACCURACY, accuracy(results))


def cost_markdown(results: Sequence[Result]) -> str:
    """Latency and traffic of each variant, for a document."""
    return _markdown(COST, cost(results))


def accuracy(results: Sequence[Result]) -> list[list[str]]:
    """The cells under ``ACCURACY``, of those variants that had repeated anomalies."""
    table = [row for row in rows(results) if row.messages]
    base = next(row for row in table if row.variant == BASE)
    lines = []
    for row in table:
        paper = [f"{share:.1%}" for share in PAPER.get(row.variant, ())] or ["", ""]
        healthy = _percent(row.false_positives_at_healthy, base.false_positives_at_healthy)
        everywhere = [str(row.false_positives), _percent(row.false_positives, base.false_positives), paper[0]]
        lines.append([row.variant, *everywhere, str(row.false_positives_at_healthy), healthy, paper[1]])
    return lines


def cost(results: Sequence[Result]) -> list[list[str]]:
    """The cells under ``COST``."""
    table = rows(results)
    base = next(row for row in table if row.variant == BASE)
    lines = []
    for row in table:
        cells = [row.variant]
        for latency in (row.detection, row.dissemination):
            cells += [f"{latency.p50_s:.1f} s", f"{latency.p99_s:.1f} s"] if latency else ["", ""]
        if row.messages:
            cells += [_percent(row.messages, base.messages), _percent(row.size_bytes, base.size_bytes)]
        else:
            cells += ["", ""]
        lines.append(cells)
    return lines


def verdicts_markdown(results: Sequence[Result]) -> str:
    """The verdicts, for a document."""
    lines = [[verdict.claim, verdict.found, "yes" if verdict.holds else "**no**"] for verdict in verdicts(results)]
    return _markdown(("ought to be", "is", "holds"), lines)


def origins_markdown(results: Sequence[Result]) -> str:
    """Where the false positives come from: by how long anomalies are, and how far apart."""
    trials = [result for result in results if result[0].interval_s]
    places = sorted({(trial.duration_s, trial.interval_s) for trial, _ in trials})
    lines = [
        [
            f"{duration_s:g} s",
            f"{interval_s * 1000:g} ms",
            *(
                str(
                    sum(
                        outcome.false_positives
                        for trial, outcome in trials
                        if (trial.variant, trial.duration_s, trial.interval_s) == (variant, duration_s, interval_s)
                    )
                )
                for variant in _names(trials)
            ),
        ]
        for duration_s, interval_s in places
    ]
    return _markdown(("anomalous for", "well for", *_names(trials)), lines)


def plots(results: Sequence[Result]) -> dict[str, str]:
    """SVG by file name: false positives, and messages, by how many agents are anomalous."""
    from simulations.plots import lines  # An extra brings what this needs.

    def by_count(figure: Callable[[Outcome], float]) -> dict[str, list[tuple[float, float]]]:
        trials = [result for result in results if result[0].interval_s]
        counts = sorted({trial.anomalous for trial, _ in trials})
        return {
            variant: [
                (count, sum(figure(o) for t, o in trials if (t.variant, t.anomalous) == (variant, count)))
                for count in counts
            ]
            for variant in _names(trials)
        }

    anomalous = "anomalous agents"
    return {
        "lifeguard-false-positives.svg": lines(
            by_count(lambda outcome: outcome.false_positives),
            title="Members that are well, held dead",
            x=anomalous,
            y="false positives",
            logarithmic=True,
        ),
        "lifeguard-messages.svg": lines(
            by_count(lambda outcome: outcome.messages / outcome.simulated_s),
            title="Messages of all agents, summed over all trials",
            x=anomalous,
            y="messages per second",
        ),
    }


def _names(results: Iterable[Result]) -> list[str]:
    present = {trial.variant for trial, _ in results}
    return [variant for variant in VARIANTS if variant in present]


def _row(variant: str, results: Sequence[Result]) -> Row:
    repeated = [outcome for trial, outcome in results if trial.interval_s]
    once = [outcome for trial, outcome in results if not trial.interval_s]
    return Row(
        variant,
        sum(outcome.false_positives for outcome in repeated),
        sum(outcome.false_positives_at_healthy for outcome in repeated),
        sum(outcome.messages for outcome in repeated),
        sum(outcome.size_bytes for outcome in repeated),
        _latency([after_s for outcome in once for after_s in outcome.detection_s]),
        _latency([after_s for outcome in once for after_s in outcome.dissemination_s]),
    )


def _latency(samples_s: list[float]) -> Latency | None:
    samples_s.sort()
    return Latency(percentile(samples_s, 50), percentile(samples_s, 99), len(samples_s)) if samples_s else None


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest of ``ordered``, ascending and not empty, that so many percent of them are not above."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _median_detection(row: Row) -> float:
    assert row.detection is not None
    return row.detection.p50_s


def _median_dissemination(row: Row) -> float:
    assert row.dissemination is not None
    return row.dissemination.p50_s


def _at_most(what: str, row: Row, base: Row, figure: Callable[[Row], float], share: float) -> Verdict:
    ours, theirs = figure(row), figure(base)
    return Verdict(f"{what}: at most {share:.0%} of SWIM's", _percent(ours, theirs), ours <= share * theirs)


def _ordering(of: dict[str, Row]) -> Verdict:
    names = ("LHA-Suspicion", "LHA-Probe", "Buddy System", "SWIM")
    suspicion, probe, buddy, plain = (of[name].false_positives for name in names)
    return Verdict(
        "false positives: LHA-Suspicion far below LHA-Probe, below Buddy System, below SWIM",
        f"{suspicion}, {probe}, {buddy}, {plain}",
        suspicion * 3 < probe < buddy < plain,
    )


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else f"{part:g} of 0"


def _markdown(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    ruled = [list(headings), ["---"] + ["---:"] * (len(headings) - 1), *(list(line) for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled) + "\n"
