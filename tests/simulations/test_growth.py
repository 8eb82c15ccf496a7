"""What growth and churn cost: small sizes of the experiments, and that their verdicts see what is wrong."""

from dataclasses import replace

import pytest

from gossip import SwimConfig
from simulations import churn, growth
from simulations.churn import Churn, Traffic
from simulations.commands import run
from simulations.growth import Growth, Spread

SOON = Spread(2.0, 3.0, 3.5)
SMALL = Growth(100, 260.0, 4.0, SOON, SOON, SOON, 300.0)
LARGE = replace(SMALL, agents=10_000)
LATE = Spread(2.0, 12.0, 12.0)
TRAFFIC = Traffic(500.0, 400, 2000, 80_000)
WELL = Churn(2000, 60, TRAFFIC, TRAFFIC, SOON, SOON, SOON, 0.2, 0.1, 0, 0)


@pytest.mark.long
def test_idle_traffic_does_not_grow_with_the_cluster_and_times_grow_as_its_logarithm() -> None:
    rows = [growth.grow(agents, 1) for agents in (60, 600)]
    assert growth.problems(rows) == []
    assert rows[1].idle_bytes == pytest.approx(rows[0].idle_bytes, rel=0.05)


def test_a_small_cluster_that_members_leave_and_join_all_the_time_keeps_up_at_little_expense() -> None:
    result = churn.churn(40, duration_s=20, replaced_per_minute=0.3)
    assert (result.replaced, result.false_deaths, result.astray) == (8, 0, 0)
    assert result.sent.mean < 900
    assert result.newcomer.all_s < 2.0


@pytest.mark.long
def test_without_being_told_what_one_lacks_churn_costs_much_more() -> None:
    costs = [
        churn.churn(150, duration_s=15, replaced_per_minute=0.2, config=SwimConfig(tell_lacking=tells)).sent.mean
        for tells in (True, False)
    ]
    assert costs[1] > 2 * costs[0]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (replace(LARGE, idle_bytes=320.0), "send"),
        (replace(LARGE, killed=LATE), "killed"),
        (replace(LARGE, silent=LATE), "silent"),
        (replace(LARGE, news=LATE), "newcomer"),
        (replace(LARGE, member_bytes=600.0), "takes"),
    ],
)
def test_a_cluster_that_costs_more_as_it_grows_is_found_out(wrong: Growth, word: str) -> None:
    assert growth.problems([SMALL, LARGE]) == []
    (problem,) = growth.problems([SMALL, wrong])
    assert word in problem


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (replace(WELL, sent=replace(TRAFFIC, mean=601.0)), "sent"),
        (replace(WELL, received=replace(TRAFFIC, p99=4001)), "received"),
        (replace(WELL, false_deaths=1), "mistake"),
        (replace(WELL, astray=1), "view"),
    ],
)
def test_a_cluster_that_churn_is_too_much_for_is_found_out(wrong: Churn, word: str) -> None:
    assert churn.problems(WELL) == []
    (problem,) = churn.problems(wrong)
    assert word in problem


def test_the_tables_show_each_size_and_each_direction() -> None:
    assert "| 10,000 | 260 B/s |" in growth.table([SMALL, LARGE])
    assert "| sent | 500 |" in churn.table(WELL)


@pytest.mark.parametrize("arguments", [["growth", "--agents", "5"], ["churn", "--agents", "10"]])
def test_experiments_of_too_few_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err
