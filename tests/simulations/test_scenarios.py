"""Scenario files: what they mean, and what is wrong with them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations import units
from simulations.faults.catalogue import KINDS
from simulations.faults.hosts import PowerLoss
from simulations.faults.network import Loss
from simulations.scenarios import places
from simulations.scenarios.library import Changes, Source, find, names
from simulations.scenarios.model import Scenario
from simulations.scenarios.reader import Problem, ScenarioError, read

WHOLE = """\
name = "mine"
for = "90s"

[topology]
zones = ["a", "b"]
far = { delay = ["5ms", "20ms"], loss = "1%" }

[[topology.between]]
zones = ["a", "b"]
way = { delay = "40ms" }

[[hosts]]
count = 3
zone = "a"
memory = "16GB"
labels = { disk = "ssd" }

[[hosts]]
count = 2
joins = "10s"

[[faults]]
kind = "loss"
chance = "20%"
at = "1m10s"
lasts = "5s"
where = { zone = "a", share = "50%" }
"""


def problems(text: str) -> list[Problem]:
    with pytest.raises(ScenarioError) as raised:
        read(text, "mine.toml", lambda name: "")
    return raised.value.problems


def test_every_key_means_what_it_says() -> None:
    scenario = read(WHOLE, "mine.toml", lambda name: "")
    assert (scenario.name, scenario.for_s, scenario.nodes) == ("mine", 90.0, 5)
    assert scenario.topology.far.delay_s == (0.005, 0.02)
    assert scenario.topology.far.loss == 0.01
    assert scenario.topology.between[0].way.delay_s == (0.04, 0.04)
    assert scenario.hosts[0].memory_bytes == 16_000_000_000
    assert scenario.hosts[0].labels == {"disk": "ssd"}
    assert scenario.hosts[1].joins_s == 10.0
    (planned,) = scenario.faults
    assert planned.fault == Loss(chance=0.2)
    assert (planned.at_s, planned.lasts_s, planned.where.zone, planned.where.share) == (70.0, 5.0, "a", 0.5)


def test_all_that_is_wrong_is_told_at_once_with_line_and_key() -> None:
    found = problems(
        'for = "5x"\n'
        "[[hosts]]\n"
        "count = -1\n"
        'zones = "a"\n'
        "[[faults]]\n"
        'kind = "fire"\n'
        "[[faults]]\n"
        'kind = "loss"\n'
        "chance = 3\n"
        'where = { zone = "nowhere" }\n'
    )
    assert [(problem.line, problem.key) for problem in found] == [
        (1, "for"),
        (3, "hosts[0].count"),
        (4, "hosts[0].zones"),
        (6, "faults[0].kind"),
        (9, "faults[1].chance"),
        (10, "faults[1].where.zone"),
    ]
    assert "units" in found[0].said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[hosts]\n", "not TOML"),
        ("hosts = []\n", "at least one host"),
        ('forming = "by magic"\n', "at once"),
        ('profile = "moon"\n', "lan"),
        ('[[hosts]]\njoins = "1s"\n', "from the beginning"),
        ("[topology]\nzones = []\n", "at least one zone"),
        ('[[topology.between]]\nzones = ["z0"]\n', "two zones"),
        ('for = "1m"\n[[faults]]\nkind = "rotate"\nat = "2m"\n', "after the end"),
        ('[[faults]]\nkind = "rotate"\ntimes = 2\n', "needs every"),
        ('[[faults]]\nkind = "loss"\nwhere = { holding = "nothing" }\n', "no deployment"),
        ("[chance.kinds]\nfire = 1\n", "no such fault"),
        ("[[hosts]]\nlabels = 3\n", "not a table"),
        ("faults = 3\n", "not a list"),
        ('[expect]\nkept = "120%"\n', "between 0 and 100%"),
        ('[engines]\npull = ["3s", "1s"]\n', "shorter duration comes first"),
        ('[[deployments]]\ncompose = "app.yaml"\n', "app.yaml"),
        ("x" * 1_000_001, "longer than"),
    ],
)
def test_what_cannot_be_is_refused_by_name(text: str, words: str) -> None:
    assert any(words in problem.said for problem in problems(text)), problems(text)


@given(st.text(max_size=300))
def test_any_text_is_a_scenario_or_an_error_with_a_line(text: str) -> None:
    found: list[Problem] = []
    try:
        read(text, "any.toml", lambda name: "")
    except ScenarioError as error:
        found = error.problems
    assert all(1 <= problem.line <= text.count("\n") + 2 for problem in found)


def test_the_line_of_a_key_is_found_in_tables_arrays_and_values_of_many_lines() -> None:
    text = 'a = [\n 1,\n]\n[b.c]\nd = """\nx\n"""\n[[e]]\n[[e]]\nf.g = 1\n[e.h]\ni = 2\n'
    found = places.lines(text)
    assert (found["a",], found["b", "c", "d"], found["e", 1, "f", "g"], found["e", 1, "h", "i"]) == (1, 5, 10, 12)
    assert places.line_of(("e", 1, "f", "other"), found) == 10


@pytest.mark.parametrize("name", names())
def test_scenarios_that_ship_can_be_read_and_say_what_they_are(name: str) -> None:
    scenario = find(name).read()
    assert scenario.name == name
    assert scenario.about.endswith(".")


def test_the_scenarios_that_were_promised_are_there() -> None:
    assert names() == [
        *("bad-day", "clock-chaos", "flapping-links", "majority-loss", "mixed-versions", "one-left-standing"),
        *(
            "poison-document",
            "restored-disks",
            "rolling-restart",
            "scale-x10-and-back",
            "slow-disks",
            "split-brain",
            "steady",
        ),
        *("thundering-herd-join", "zone-loss"),
    ]


def test_a_scenario_can_deploy_a_compose_file(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text("services:\n  web:\n    image: shop:1\n    deploy:\n      replicas: 2\n")
    file = tmp_path / "mine.toml"
    file.write_text('[[deployments]]\ncompose = "shop.yaml"\n')
    source = find(str(file))
    (deployments,) = source.read().deployments
    assert deployments.compose is not None
    assert deployments.compose.services[0].image == "shop:1"
    assert list(source.files) == ["shop.yaml"]


@pytest.mark.parametrize("given_", ["nothing", "nothing.toml"])
def test_a_scenario_that_is_not_there_is_told(given_: str) -> None:
    with pytest.raises(ScenarioError, match=r"no such scenario|cannot be read"):
        find(given_)


def test_the_command_line_changes_a_scenario() -> None:
    source = Source("mine.toml", WHOLE)
    changed = Changes(nodes=50, deployments=7, for_s=10.0, seed=3, chance=True).apply(Source("x.toml", "seed = 1\n"))
    assert (changed.nodes, changed.deployments[0].count, changed.for_s, changed.seed) == (50, 7, 10.0, 3)
    assert changed.chance.for_s > 0
    assert [group.count for group in Changes(nodes=50).apply(source).hosts] == [30, 20]
    assert Changes(sets=(("hosts.0.count", "9"), ("for", "2m"))).apply(source).hosts[0].count == 9
    with pytest.raises(ScenarioError, match="no such place"):
        Changes(sets=(("hosts.7.count", "9"),)).apply(source)


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("1m30s", 90.0), ("2h", 7200.0), ("1.5s", 1.5), ("10us", 1e-5)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert units.duration_s(text) == pytest.approx(seconds)


@given(st.integers(1, 86_400))
def test_a_duration_in_words_is_read_again(seconds: int) -> None:
    assert units.duration_s(units.in_words(float(seconds))) == seconds


@given(st.floats(0.0, 1e9))
def test_a_duration_on_a_command_line_is_read_again_as_it_was(seconds: float) -> None:
    assert units.duration_s(units.exactly(seconds)) == seconds


def test_each_kind_of_fault_has_a_name_and_says_what_it_is() -> None:
    assert KINDS["power-loss"].make is PowerLoss
    assert all(kind.make.about for kind in KINDS.values())
    assert Scenario().nodes == 20
