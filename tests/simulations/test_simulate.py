"""``gary simulate``: runs, reports, traces and sweeps, as a user has them."""

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from simulations import outputs
from simulations.commands import COMMANDS, run
from simulations.commands.run import refusal
from simulations.estimate import memory_bytes
from simulations.faults.disks import DiskFull
from simulations.faults.hosts import PowerLoss
from simulations.faults.operators import Expel
from simulations.report.merged import merged_page
from simulations.report.page import LINES_MAX, page
from simulations.report.text import merged_summary, summary
from simulations.result import Finding, Happening, Promise, Recovery, Result, Sample, from_json
from simulations.run import Run
from simulations.scenarios.library import Changes, find
from simulations.scenarios.model import Deployments, Expect, Hosts, Planned, Scenario, Where
from simulations.trace import TraceError, decode

DRAWING = (("run", "--report"), ("growth", "--plots"), ("tradeoff", "--plots"), ("lifeguard", "--plots"))
SMALL = ("--nodes", "6", "--deployments", "1", "--for", "20s")
TOML = """\
for = "30s"
[[hosts]]
count = 6
[[faults]]
kind = "power-loss"
at = "10s"
lasts = "10s"
where = { count = 1, holding = "app" }
"""


class Balance(HTMLParser):
    """Whether each tag that is opened is closed."""

    VOID = frozenset({"meta", "br", "img", "path", "use", "rect", "line"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def played(scenario: Scenario, until_s: float = float("inf")) -> Run:
    playing = Run(scenario, "gary simulate x", until_s)
    for _ in playing.steps():
        pass
    return playing


def shown(renderable: object, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_a_run_tells_what_happened_and_that_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = tmp_path / "mine.toml"
    scenario.write_text(TOML)
    report = tmp_path / "report.html"
    assert run([str(scenario), "--json", "--report", str(report)]) == 0
    result = from_json(capsys.readouterr().out)
    assert (result.scenario, result.nodes, result.deployments) == ("mine", 6, 1)
    assert result.is_good
    assert [happening.kind for happening in result.happenings] == ["power-loss"]
    assert result.recoveries
    assert all(recovery.took_s is not None for recovery in result.recoveries)
    assert result.samples[-1].converged == 1.0
    assert {promise.slot for promise in result.promises} == {"web/1", "web/2", "web/3"}
    assert f"gary simulate {scenario} --seed 1" in report.read_text()


def test_who_is_expelled_is_no_part_of_the_truth_that_others_see() -> None:
    expel = Planned(Expel(), Where(count=1), at_s=2.0)
    result = played(Scenario(for_s=10.0, hosts=(Hosts(count=6),), faults=(expel,))).report()
    assert [happening.kind for happening in result.happenings] == ["expel"]
    assert result.samples[-1].converged == 1.0


WITHOUT_PLOTS = """
import contextlib, io, json, sys
sys.modules["matplotlib"] = None
from simulations.commands import run
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run(arguments)
        except SystemExit as exit:
            code = exit.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def without_plots(*commands: list[str]) -> list[tuple[int, str, str]]:
    """What commands print, and their exit codes, where the library that draws is not installed."""
    ran = [sys.executable, "-c", WITHOUT_PLOTS, json.dumps(commands)]
    lines = subprocess.run(ran, capture_output=True, text=True, check=True).stdout.splitlines()
    return [(code or 0, out, err) for code, out, err in map(json.loads, lines)]


def test_without_plots_all_commands_are_there_and_what_draws_is_refused_before_the_run(tmp_path: Path) -> None:
    helps = [[command, "--help"] for command in COMMANDS]
    drawing = [[*words, str(tmp_path)] for words in DRAWING]
    sweep = ["sweep", *SMALL, "--into", str(tmp_path / "sweep"), "--workers", "1"]
    *ran, swept = without_plots(*helps, *drawing, sweep)
    assert {code for code, _, _ in ran[: len(helps)]} == {0}
    for code, out, err in ran[len(helps) :]:
        assert (code, out) == (2, "")
        assert "pip install 'gary[plots]'" in err
    assert swept[0] == 0
    assert "all is well in all 1 runs" in swept[1]
    assert "no report as a page" in swept[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--record", "."], "is a directory"),
        (["--record", "nowhere/run.trace"], "there is no directory"),
        (["--report", "nowhere/page.html"], "there is no directory"),
        (["sweep", "--into", "file/sweep"], "cannot be made"),
        (["growth", "--plots", "nowhere"], "no directory that can be written"),
    ],
)
def test_where_nothing_can_be_written_is_said_before_the_run(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_place_that_became_unfit_meanwhile_costs_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "reports"
    place.mkdir()
    monkeypatch.setattr(outputs, "page", lambda text: Path(text))
    assert run([*SMALL, "--json", "--report", str(place), "--record", str(tmp_path / "run.trace")]) == 2
    out, err = capsys.readouterr()
    assert from_json(out).is_good
    assert f"report: {place} could not be written: Is a directory" in err
    assert (tmp_path / "run.trace").exists()


def test_equal_seeds_give_equal_results_and_others_do_not() -> None:
    first, again, other = (played(Scenario(seed=seed, for_s=15.0, hosts=(Hosts(5),))) for seed in (3, 3, 4))
    assert first.report().to_json() == again.report().to_json()
    assert first.cluster.trace != other.cluster.trace


def test_a_fault_that_was_planned_and_breaks_nothing_is_a_finding() -> None:
    quiet = Planned(DiskFull(), Where(count=1), at_s=14.0, lasts_s=0.5)
    nobody = Planned(PowerLoss(), Where(hosts=("n99",)), at_s=2.0)
    result = played(Scenario(for_s=15.0, hosts=(Hosts(4),), faults=(quiet, nobody))).report()
    said = [finding.said for finding in result.findings if finding.check == "faults"]
    assert any("changed nothing" in sentence for sentence in said)
    assert any("found nothing to break" in sentence for sentence in said)


def test_what_was_expected_and_did_not_come_is_a_finding() -> None:
    loss = Planned(PowerLoss(), Where(holding="app", count=2), at_s=10.0, lasts_s=15.0)
    expect = Expect(kept=1.0, recovery_s=0.2, sent_bytes_per_s=1.0)
    result = played(Scenario(for_s=30.0, hosts=(Hosts(6),), faults=(loss,), expect=expect)).report()
    assert {finding.check for finding in result.findings} >= {"kept", "recovery", "traffic"}


def test_a_deployment_that_fits_nowhere_is_a_finding() -> None:
    tiny = Hosts(3, memory_bytes=1_000_000)
    result = played(Scenario(for_s=10.0, hosts=(tiny,), expect=Expect(whole_within_s=5.0))).report()
    assert any(finding.check == "kept" for finding in result.findings)


def test_a_result_is_read_as_it_was_written() -> None:
    result = played(Scenario(for_s=10.0, hosts=(Hosts(4),))).report()
    assert from_json(result.to_json()) == result
    for wrong in ("{}", "[]", '{"format": 99}', '{"format": 1}'):
        with pytest.raises(ValueError, match="this is no result"):
            from_json(wrong)


def test_what_scenarios_there_are_is_told_to_people_and_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scenarios"]) == 0
    assert "zone-loss" in capsys.readouterr().out
    assert run(["scenarios", "--json"]) == 0
    listed = {each["scenario"]: each for each in json.loads(capsys.readouterr().out)}
    assert (listed["steady"]["hosts"], listed["steady"]["for_s"]) == (find("steady").read().nodes, 120.0)
    assert run(["scenarios", "steady"]) == 0
    assert capsys.readouterr().out == find("steady").text


# Traces


def test_a_trace_goes_to_any_moment_and_shows_an_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "run.trace"
    assert run([*SMALL, "--record", str(trace)]) == 0
    capsys.readouterr()
    assert run(["replay", str(trace), "--until", "7.5s", "--node", "n2"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert state["host"] == "n2"
    assert state["clock"]["now_s"] == pytest.approx(2.0 + 7.5)
    assert state["agent"]["members"] == {"alive": 6}
    assert run(["replay", str(trace), "--until", "5s"]) == 0
    assert "n5" in capsys.readouterr().out
    assert run(["replay", str(trace), "--until", "5s", "--json"]) == 0
    assert [json.loads(line)["host"] for line in capsys.readouterr().out.splitlines()] == [f"n{n}" for n in range(6)]
    assert run(["replay", str(trace), "--node", "n77"]) == 2
    assert "n0 to n5" in capsys.readouterr().err


def test_a_trace_that_is_not_the_run_any_more_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "run.trace"
    run([*SMALL, "--record", str(trace)])
    lines = trace.read_text().splitlines()
    mark = json.loads(lines[10])
    lines[10] = json.dumps({**mark, "trace": "0" * 64})
    trace.write_text("\n".join(lines))
    assert run(["replay", str(trace)]) == 1
    assert "not the run that was recorded" in capsys.readouterr().err


def test_a_trace_of_another_version_says_so(tmp_path: Path) -> None:
    trace = tmp_path / "run.trace"
    run([*SMALL, "--record", str(trace)])
    with pytest.raises(TraceError, match=r"of version 0\.1\.0, and this is version 9"):
        decode(trace.read_text().splitlines(), "9")


@pytest.mark.parametrize("text", ["", "x", "[]", '{"format": 2}', '{"format": 1, "version": "0.1.0"}'])
def test_what_is_no_trace_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "run.trace"
    trace.write_text(text)
    assert run(["replay", str(trace)]) == 2
    assert "no trace" in capsys.readouterr().err


# Sweeps


def test_a_sweep_goes_on_where_it_was_and_reports_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario, into = tmp_path / "mine.toml", tmp_path / "sweep"
    scenario.write_text(TOML)
    arguments = ["sweep", str(scenario), "--into", str(into), "--workers", "1", "--json"]
    assert run([*arguments, "--seeds", "1-2"]) == 0
    kept = {file: file.stat().st_mtime_ns for file in into.glob("*.json")}
    assert len(kept) == 2
    capsys.readouterr()
    assert run([*arguments, "--seeds", "1-3", "--vary", "hosts.0.count=6,7"]) == 0
    out, err = capsys.readouterr()
    assert "of 6 runs" not in err
    results = [from_json(line) for line in out.splitlines()]
    assert sorted((result.seed, result.nodes) for result in results) == [(s, n) for s in (1, 2, 3) for n in (6, 7)]
    assert run([*arguments, "--seeds", "1-2"]) == 0
    assert "2 of 2 runs are there already" in capsys.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    Balance((into / "report.html").read_text())


@pytest.mark.long
def test_a_sweep_runs_on_a_dask_cluster_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario, into = tmp_path / "mine.toml", tmp_path / "sweep"
    scenario.write_text(TOML)
    arguments = ["sweep", str(scenario), "--seeds", "1-3", "--into", str(into), "--workers", "2", "--json"]
    assert run([*arguments, "--backend", "dask"]) == 0
    traces = [from_json(line).trace for line in capsys.readouterr().out.splitlines()]
    assert traces == [played(Changes(seed=seed).apply(find(str(scenario)))).cluster.trace for seed in (1, 2, 3)]


def test_runs_of_other_scenarios_in_the_same_place_are_not_mixed_up(tmp_path: Path) -> None:
    into = tmp_path / "sweep"
    for name, text in (("a", TOML), ("b", TOML.replace("30s", "31s"))):
        (tmp_path / f"{name}.toml").write_text(text)
        run(["sweep", str(tmp_path / f"{name}.toml"), "--into", str(into), "--workers", "1"])
    assert len(list(into.glob("*.json"))) == 2


@pytest.mark.parametrize("seeds", ["x", "1-", "3-a"])
def test_seeds_that_are_none_are_refused(seeds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["sweep", "--seeds", seeds])
    assert ended.value.code == 2
    assert "range of seeds" in capsys.readouterr().err


# What is shown


def made_up(name: str = "x", findings: int = 0, samples: int = 30) -> Result:
    return Result(
        scenario=name,
        about="about <it>",
        seed=1,
        nodes=5,
        deployments=1,
        version="0",
        replay=f"gary simulate {name} --seed 1",
        samples=[Sample(float(n), 5, 1.0, 3, 3, 0, 0, 100.0, 200.0, 3, 500.0, 600, 0) for n in range(samples)],
        recoveries=[Recovery("app", "web/1", 5.0, 2.5), Recovery("app", "web/2", 6.0, None)],
        happenings=[Happening(float(n), "loss", f"frames <{n}>", n + 1.0) for n in range(LINES_MAX + 5)],
        promises=[
            Promise("n1", "app", "web/1", "healthy", 1.0, 5.0),
            Promise("n2", "app", "web/1", "healthy", 7.0, None),
        ],
        findings=[Finding("scope", 1.0, f"<b>finding {n}</b>") for n in range(findings)],
    )


def test_a_page_is_whole_by_itself_and_equal_for_equal_results() -> None:
    text = page(made_up("<script>alert(1)</script>", findings=2))
    assert "<script" not in text
    assert "&lt;b&gt;finding 1&lt;/b&gt;" in text
    assert "and 5 more lines" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert text == page(made_up("<script>alert(1)</script>", findings=2))
    Balance(text)


def test_all_words_in_plots_have_the_colour_of_the_page_or_are_white_on_a_bar() -> None:
    styles = re.findall(r'<text [^>]*style="([^"]*)"', page(made_up()))
    assert len(styles) > 30
    assert [style for style in styles if "fill: currentColor" not in style and "fill: #ffffff" not in style] == []


def test_a_page_about_next_to_nothing_is_a_page() -> None:
    result = made_up(samples=0)
    result.recoveries, result.happenings, result.promises = [], [], []
    Balance(page(result))
    Balance(merged_page([]))


def test_a_terminal_shows_what_was_found_and_how_to_replay_it() -> None:
    text = shown(summary(made_up(findings=30)))
    assert "x: 30 findings" in text
    assert "<b>finding 0</b>" in text
    assert "and 10 more" in text
    assert "gary simulate x --seed 1" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "1 of 2 runs found something" in shown(merged_summary([made_up(), made_up("y", findings=1)]))


def test_an_impossible_size_is_said_before_the_run_with_an_estimate() -> None:
    huge = Scenario(hosts=(Hosts(1_000_000),), deployments=(Deployments(),))
    assert "nodes would take about" in refusal(huge)
    assert refusal(Scenario()) == ""
    assert memory_bytes(huge) > memory_bytes(Scenario())


def test_a_run_that_is_stopped_reports_so_far() -> None:
    result = played(Scenario(for_s=60.0, hosts=(Hosts(4),)), until_s=5.0).report()
    assert not result.is_good
    assert result.samples
    assert "stopped before its end" in shown(summary(result))
