"""Key figures of a result, once for all ways to show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulations import units
from simulations.result import Result


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
    took = [recovery.took_s for recovery in result.recoveries if recovery.took_s is not None]
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


def _findings(result: Result) -> str:
    count = len(result.findings)
    return f"{count} finding{'s' if count > 1 else ''}"


def _speed(result: Result) -> str:
    if not result.real_s:
        return ""
    whole_s = result.formed_s + result.simulated_s
    return f" in {units.in_words(result.real_s)}, {whole_s / result.real_s:.0f} x real time"
