"""Key figures of a result, once for all ways to show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from simulations import units
from simulations.result import Result

HEADS: Final = ("run", "findings", "slots lost", "ran again: median", "p99", "lost at most", "bytes/s")
"""Of the columns of ``row``."""
_QUANTILES: Final = {"median": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Figure:
    """``value`` in words, with its unit."""

    name: str
    value: str


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values``, of which there is one at least, that is not exceeded by ``share`` of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def headline(result: Result) -> str:
    """Whether all is well, in a sentence."""
    if not result.is_whole:
        return "It was stopped before its end" + (f", with {_findings(result)}" if result.findings else "")
    return f"All {len(result.checks)} checks hold" if not result.findings else _findings(result)


def figures(result: Result) -> list[Figure]:
    """What one wants to know first."""
    took = times_to_recover([result])
    never = len(result.recoveries) - len(took)
    found = [
        Figure("hosts, deployments, seed", f"{result.nodes}, {result.deployments}, {result.seed}"),
        Figure("simulated", f"{units.in_words(result.simulated_s)}{_speed(result)}"),
        Figure("faults and orders", str(len(result.happenings))),
        Figure("slots that stopped to run", f"{len(result.recoveries)}{f', {never} for ever' if never else ''}"),
    ]
    if took:
        values = ", ".join(units.in_words(quantile(took, share)) for share in (0.5, 0.99, 1.0))
        found.append(Figure("ran again after: median, p99, longest", values))
    lost = [sample.lost / sample.wanted for sample in result.samples if sample.wanted]
    if lost:
        found.append(Figure("slots that ran no more, of all wanted, at most", f"{max(lost):.0%}"))
    if result.samples:
        converged = min(sample.converged for sample in result.samples)
        found.append(
            Figure("agents with a true view: least, at the end", f"{converged:.0%}, {result.samples[-1].converged:.0%}")
        )
        mean = sum(sample.bytes_mean for sample in result.samples) / len(result.samples)
        most = max(sample.bytes_max for sample in result.samples)
        found.append(Figure("bytes sent by an agent in a second: mean, most", f"{mean:.0f}, {most:.0f}"))
        found.append(Figure("largest document", f"{max(s.document_bytes_max for s in result.samples)} bytes"))
    return found


def row(result: Result) -> tuple[str, ...]:
    """One run of many, under ``HEADS``."""
    took = times_to_recover([result])
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


def headline_of_all(results: Sequence[Result]) -> str:
    """Whether all is well in all runs, in a sentence."""
    bad = sum(not result.is_good for result in results)
    return f"{bad} of {len(results)} runs found something" if bad else f"all is well in all {len(results)} runs"


def failures_first(results: Sequence[Result]) -> list[Result]:
    """In the order in which a person wants to read about them."""
    return sorted(results, key=lambda result: (result.is_good, result.seed, result.replay))


def times_to_recover(results: Sequence[Result]) -> list[float]:
    """For how long slots did not run, in seconds; those that never ran again are left out."""
    return [r.took_s for result in results for r in result.recoveries if r.took_s is not None]


def marked_quantiles(values: Sequence[float]) -> dict[str, float]:
    """Where a plot of times, in seconds, has its marks, each under its words."""
    found = {label: quantile(values, share) for label, share in _QUANTILES.items()}
    return {f"{label} {units.in_words(value)}": value for label, value in found.items()}


def _findings(result: Result) -> str:
    count = len(result.findings)
    return f"{count} finding{'s' if count > 1 else ''}"


def _speed(result: Result) -> str:
    if not result.real_s:
        return ""
    whole_s = result.formed_s + result.simulated_s
    return f" in {units.in_words(result.real_s)}, {units.speed(whole_s / result.real_s)}"
