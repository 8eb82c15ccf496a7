"""The Lifeguard experiment at a size that takes seconds, and what is made of its results."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from simulations.lifeguard import GRIDS, VARIANTS, Outcome, Trial, run
from simulations.lifeguard_report import from_json, percentile, plots, rows, to_json, verdicts
from simulations.plots import lines

INTERNALS = Path(__file__).parents[2] / "docs" / "internals"
NOTHING = Outcome(0, 0, (), (), 1000, 100_000, 120.0)
FALSE_POSITIVES = {"SWIM": 1000, "LHA-Probe": 677, "LHA-Suspicion": 30, "Buddy System": 941, "Lifeguard": 15}


def results_like_the_paper_s() -> list[tuple[Trial, Outcome]]:
    repeated = [
        (Trial(variant, 8, 16.0, 1.0, 1), replace(NOTHING, false_positives=count))
        for variant, count in FALSE_POSITIVES.items()
    ]
    once = [
        (Trial(variant, 4, 32.0, 0.0, 1), replace(NOTHING, detection_s=(after_s,), dissemination_s=(after_s + 0.5,)))
        for variant, after_s in (("SWIM", 10.0), ("Lifeguard", 10.2))
    ]
    return repeated + once


@pytest.mark.long
def test_the_smoke_size_shows_what_each_part_is_worth_the_same_whatever_the_hash_seed() -> None:
    written = [
        subprocess.run(
            [sys.executable, "-m", "simulations", "lifeguard", "--smoke", "--json"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        ).stdout
        for hash_seed in ("1", "4711")
    ]
    assert written[0] == written[1]
    found = {row.variant: row for row in rows(from_json(written[0]))}
    plain, probe, suspicion, buddy, whole = (found[name].false_positives for name in FALSE_POSITIVES)
    # Which of LHA-Probe and the Buddy System prevents more is chance, in one run of each.
    assert suspicion * 3 < min(probe, buddy) <= max(probe, buddy) < plain
    assert whole <= 0.05 * plain
    medians = [found[name].dissemination for name in ("SWIM", "Lifeguard", "Lifeguard, alpha 4")]
    swim_s, lifeguard_s, faster_s = (latency.p50_s for latency in medians if latency is not None)
    assert lifeguard_s <= 1.05 * swim_s
    assert faster_s <= 0.86 * swim_s


def test_another_seed_is_another_run() -> None:
    trial = Trial("SWIM", 4, 4.0, 0.0, 1, agents=8)
    assert run(trial) == run(trial)
    assert run(trial) != run(replace(trial, seed=2))


def test_the_variants_differ_from_each_other_in_lifeguard_s_parts_only() -> None:
    plain, whole = VARIANTS["SWIM"], VARIANTS["Lifeguard"]
    probe, suspicion = VARIANTS["LHA-Probe"], VARIANTS["LHA-Suspicion"]
    assert replace(probe, awareness_max=0) == replace(VARIANTS["Buddy System"], buddy=False) == plain
    assert replace(suspicion, suspicion_confirmations=0, suspicion_max_factor=1.0) == plain
    assert replace(whole, awareness_max=0, buddy=False) == suspicion


def test_every_trial_of_every_grid_is_of_a_known_variant_and_none_is_there_twice() -> None:
    for grid in GRIDS.values():
        trials = grid.trials()
        assert len(set(trials)) == len(trials)
        assert {trial.variant for trial in trials} <= set(VARIANTS)


def test_results_survive_being_written_down() -> None:
    results = results_like_the_paper_s()
    assert from_json(to_json(results)) == results


def test_what_the_paper_found_is_a_reproduction_of_itself() -> None:
    assert [verdict for verdict in verdicts(results_like_the_paper_s()) if not verdict.holds] == []


@pytest.mark.parametrize(
    ("variant", "change"),
    [
        ("Lifeguard", {"false_positives": 51}),
        ("Lifeguard", {"false_positives_at_healthy": 1}),
        ("Lifeguard", {"messages": 1121}),
        ("Buddy System", {"false_positives": 1001}),
        ("LHA-Suspicion", {"false_positives": 300}),
    ],
)
def test_each_figure_can_make_it_fail(variant: str, change: dict[str, int]) -> None:
    results = [
        (trial, replace(outcome, **change) if trial.variant == variant and trial.interval_s else outcome)  # type: ignore[arg-type]
        for trial, outcome in results_like_the_paper_s()
    ]
    assert len([verdict for verdict in verdicts(results) if not verdict.holds]) == 1


def test_a_slower_detection_makes_it_fail() -> None:
    results = [
        (
            trial,
            replace(outcome, detection_s=(10.6,)) if trial.variant == "Lifeguard" and outcome.detection_s else outcome,
        )
        for trial, outcome in results_like_the_paper_s()
    ]
    assert [verdict.found for verdict in verdicts(results) if not verdict.holds] == ["106.0%"]


def test_latencies_are_those_of_single_anomalies_and_counts_those_of_repeated_ones() -> None:
    whole = next(row for row in rows(results_like_the_paper_s()) if row.variant == "Lifeguard")
    assert whole.detection is not None
    assert (whole.detection.p50_s, whole.detection.samples) == (10.2, 1)
    assert whole.messages == 1000


def test_a_percentile_is_one_of_the_samples() -> None:
    assert percentile([1.0], 50) == percentile([1.0], 99) == 1.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0
    assert percentile([float(sample) for sample in range(1, 101)], 99) == 99.0


def test_a_plot_of_the_same_data_is_the_same_text_and_tells_no_date() -> None:
    series = {"SWIM": [(1.0, 0.0), (8.0, 40.0)], "Lifeguard": [(1.0, 0.0), (8.0, 1.0)]}
    plotted = [lines(series, title="t", x="x", y="y", logarithmic=True) for _ in range(2)]
    assert plotted[0] == plotted[1]
    assert "SWIM" in plotted[0]
    assert "<dc:date>" not in plotted[0]


def test_the_plots_in_the_documents_are_of_the_results_beside_them() -> None:
    results = from_json((INTERNALS / "lifeguard.json").read_text(encoding="utf-8"))
    for name, svg in plots(results).items():
        assert (INTERNALS / name).read_text(encoding="utf-8") == svg, "make docs"
