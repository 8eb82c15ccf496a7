"""What the documentation shows is so: links lead somewhere, commands parse, tables say what the code says."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.main import get_command

from gary.assignment import patience_s
from gary.cli.app import app
from gary.cli.demo.cluster import free_ports
from gary.compose import load
from gary.config import resolve
from gary.routes import ROUTES
from tests.docs_reference import BLOCKS, DOCS, REFERENCE, written
from tests.docs_tour import (
    FILE,
    PROMPT,
    README,
    SAMPLE,
    STEPS,
    TRANSCRIPT,
    Command,
    PowerCut,
    Tour,
    block,
    in_process,
    tour,
)

REPOSITORY = Path(__file__).parents[1]
PROGRAM_TIMEOUT_S = 30.0
TRANSPORT = REPOSITORY / "docs" / "extending" / "transport.md"
EXAMPLE = TRANSPORT.parent / "grpc"
PAGES = (README, *sorted(path for path in (REPOSITORY / "docs").rglob("*.md") if ".pytest_cache" not in path.parts))
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TYPED = re.compile(r"^(?:node-\d)?[$#] (.*)$", re.MULTILINE)
HEADING = re.compile(r"^[A-Z]+(?: {1,}[A-Za-z0-9-]+)*$")
SLOT = re.compile(r"\b(?:web|worker)/\d+\b")

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))


def _prose(text: str) -> str:
    return FENCE.sub("", text)


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _commands(text: str) -> Iterator[str]:
    """Every ``gary`` command line that a page shows, in blocks and in the run of the text."""
    for language, content in FENCE.findall(text):
        if language == "console":
            yield from (line for line in TYPED.findall(content) if line.startswith("gary "))
    for code in re.findall(r"`(gary [^`]+)`", _prose(text)):
        if not re.search(r"[…\[|]|COMMAND", code):
            yield code if code.count(" ") > 1 else f"{code} --help"  # A mere name stands for the command.


@page
def test_every_link_of_a_page_leads_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    broken = []
    for link in LINK.findall(_prose(text)):
        if urlsplit(link).scheme:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in _anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert not broken


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = {README}, [README]
    while todo:
        path = todo.pop()
        for link in LINK.findall(_prose(path.read_text(encoding="utf-8"))):
            target = (path.parent / link.partition("#")[0]).resolve()
            if target in PAGES and target not in reached:
                reached.add(target)
                todo.append(target)
    assert reached == set(PAGES)


@page
def test_every_command_that_a_page_shows_can_be_typed(path: Path) -> None:
    root: Any = get_command(app)
    wrong = []
    for line in dict.fromkeys(_commands(path.read_text(encoding="utf-8"))):
        words = shlex.split(line.partition(" > ")[0], comments=True)[1:]
        try:
            context = root.make_context("gary", list(words), resilient_parsing=False)
            rest = [*context._protected_args, *context.args]
            if rest:
                name, command, arguments = root.resolve_command(context, rest)
                command.make_context(name, arguments, parent=context)
        except Exception as error:  # noqa: BLE001 - the kinds are Typer's own; --help and --version end with Exit
            if type(error).__name__ != "Exit":
                wrong.append(f"{line}: {error!r}")
    assert not wrong


@page
def test_every_test_and_file_that_a_page_names_is_there(path: Path) -> None:
    code = re.findall(r"`([^`\n]+)`", _prose(path.read_text(encoding="utf-8")))
    named = {word for word in code if re.fullmatch(r"test_[a-z0-9_]+", word)}
    assert named <= _all_tests() | {file.stem for file in (REPOSITORY / "tests").rglob("*.py")}
    files = {word for word in code if re.fullmatch(r"(?:gary|gossip|crdt|simulations|tests|docs)/[\w/.]+", word)}
    assert not [name for name in sorted(files) if not (REPOSITORY / name).exists()]


def _all_tests() -> set[str]:
    files = [*(REPOSITORY / "tests").rglob("test_*.py"), *REPOSITORY.glob("g*/**/testing.py")]
    return {name for file in files for name in re.findall(r"def (test_[a-z0-9_]+)", file.read_text(encoding="utf-8"))}


@page
def test_every_example_of_a_page_can_be_read(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for language, content in FENCE.findall(text):
        match language:
            case "python":
                ast.parse(textwrap.dedent(content))
            case "json":
                json.loads(content)
            case "toml":
                tomllib.loads(content)
    for kind, content in re.findall(r"<!-- checked: ([\w.]+) -->\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        example = tmp_path / "example"
        example.write_text(content, encoding="utf-8")
        if kind == "compose":
            load(example, {})
        else:
            resolve({"config": str(example)}, {})


def _blocks(text: str, marker: str) -> list[str]:
    """The contents of the blocks below the comment ``marker``."""
    return re.findall(rf"^<!-- {marker} -->\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _without_blank_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_the_page_on_transports_shows_all_of_the_example_word_for_word() -> None:
    text = TRANSPORT.read_text(encoding="utf-8")
    module = (EXAMPLE / "gary_grpc.py").read_text(encoding="utf-8")
    assert _without_blank_lines("".join(_blocks(text, "of the example"))) == _without_blank_lines(module)
    for name in ("pyproject.toml", "test_gary_grpc.py"):
        assert _blocks(text, f"file: {name}") == [(EXAMPLE / name).read_text(encoding="utf-8")]


@pytest.mark.long
def test_what_the_page_on_transports_has_half_way_keeps_the_contract_without_credentials(tmp_path: Path) -> None:
    text = TRANSPORT.read_text(encoding="utf-8")
    *first, _methods, _functions = _blocks(text, "of the example")
    (tmp_path / "gary_grpc.py").write_text("".join([*first, *_blocks(text, "for now")]), encoding="utf-8")
    for name in ("pyproject.toml", "test_gary_grpc.py"):
        (content,) = _blocks(text, f"file: {name}")
        (tmp_path / name).write_text(content, encoding="utf-8")
    (command,) = re.findall(r"^\$ \.venv/bin/python (-m pytest -k .*)$", text, re.MULTILINE)
    ended = subprocess.run(
        [sys.executable, *shlex.split(command)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"^=* ?3\d passed", ended.stdout, re.MULTILINE), ended.stdout


# What shows a run of a simulation has to play it.
_PLAYED = "operating/simulating.md"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name == _PLAYED else ()) for name in sorted(BLOCKS)]
)
def test_generated_references_are_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == written(name), "python -m tests.docs_reference"


def test_requests_shown_for_curl_have_a_route_and_its_arguments() -> None:
    shown = re.findall(r"^\$ (curl .*)$", (REFERENCE / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert shown
    for line in shown:
        words = shlex.split(line)
        url = urlsplit(words[-1])
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        if url.path == "/metrics":
            continue
        patterns = {route: re.sub(r"\{\w+\}", "[^/]+", route.path) for route in ROUTES if route.method == method}
        (route,) = [route for route, pattern in patterns.items() if re.fullmatch(pattern, url.path)]
        body = json.loads(words[words.index("-d") + 1]) if "-d" in words else {}
        for fields, given in ((route.query, {k: v[0] for k, v in parse_qs(url.query).items()}), (route.body, body)):
            readers = {field.name: field.read for field in fields}
            for name, value in given.items():
                readers[name](value)


def test_patience_is_what_the_page_on_timing_says() -> None:
    text = (REPOSITORY / "docs" / "internals" / "timing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) of (\d) peers \| (\d+) % \| ([\d.]+) s \|$", text, re.MULTILINE)
    assert len(rows) == 4
    for vanished, others, share, patience in rows:
        assert int(share) == 100 * int(vanished) // int(others)
        assert f"{patience_s(int(vanished), int(others)):.1f}" == patience


def _metrics_in_the_reference() -> set[str]:
    text = (REFERENCE / "metrics.md").read_text(encoding="utf-8")
    return set(re.findall(r"`(gary_[a-z0-9_]+)`", text))


def test_metrics_in_the_reference_are_counted_somewhere() -> None:
    sources = {
        "gossip": ("gossip/*.py",),
        "transport": ("gossip/nng.py", "gossip/traffic.py"),
        "agent": ("gary/*.py", "gary/commands/*.py"),
        "node": ("gary/agent.py",),
        "api": ("gary/api.py", "gary/connections.py"),
    }
    missing = []
    for metric in sorted(_metrics_in_the_reference()):
        _, subsystem, name = metric.removesuffix("_total").split("_", 2)
        files = [file for pattern in sources[subsystem] for file in REPOSITORY.glob(pattern)]
        text = "".join(file.read_text(encoding="utf-8") for file in files)
        if f'"{name}"' not in text:
            missing.append(metric)
    assert not missing


def test_the_readme_shows_the_sample_and_the_steps_of_the_tour() -> None:
    text = README.read_text(encoding="utf-8")
    assert block(text, FILE) == f"```yaml\n{SAMPLE.read_text(encoding='utf-8')}```\n", "python -m tests.docs_tour"
    shown = [(match[1], match[2]) for match in map(PROMPT.fullmatch, block(text, TRANSCRIPT).splitlines()) if match]
    assert shown == [(step.node, f"gary {step.arguments}") for step in STEPS if isinstance(step, Command)]


@pytest.mark.long
def test_the_commands_of_the_tour_do_what_the_readme_shows() -> None:
    """All but the death of a host, which takes its time; the demo and the simulation prove that one."""
    recorded = dict(_scenes(block(README.read_text(encoding="utf-8"), TRANSCRIPT)))
    deployed = set(SLOT.findall(recorded["node-1$ gary deploy shop.yaml"]))
    cut = next(index for index, step in enumerate(STEPS) if isinstance(step, PowerCut))
    again = {step for step in STEPS[:cut] if isinstance(step, Command)}
    steps = (*STEPS[:cut], *(step for step in STEPS[cut + 1 :] if step not in again))
    with tour(in_process) as walked:
        for scene in walked.play(steps):
            assert scene.exit_code == 0, scene.text
            ((prompt, output),) = _scenes(scene.text)
            expected = recorded[prompt]
            assert _headings(output) == _headings(expected), scene.text
            shown = set(SLOT.findall(output))
            if "scale" in prompt:
                # A slot that is wanted no more is shown for as long as its promiser has not heard of that.
                assert set(SLOT.findall(expected)) <= shown <= deployed, scene.text
            elif "events" not in prompt:
                assert shown == set(SLOT.findall(expected)), scene.text
        _check_metrics(walked)


def _check_metrics(walked: Tour) -> None:
    known = _metrics_in_the_reference()
    reported = set(re.findall(r"^(gary_\w+) ", walked.metrics("node-1"), re.MULTILINE))
    patterns = (r"gary_api_(requests|errors)_\w+_total", r"gary_gossip_drop_\w+_total")
    assert not [name for name in reported - known if not any(re.fullmatch(pattern, name) for pattern in patterns)]


def _scenes(transcript: str) -> list[tuple[str, str]]:
    """(prompt and command, output), a repeated command once."""
    scenes: dict[str, list[str]] = {}
    output: list[str] = []
    for line in transcript.splitlines():
        if PROMPT.fullmatch(line):
            output = scenes.setdefault(line, [])
        elif not line.startswith(("```", "# ")):
            output.append(line)
    return [(prompt, "\n".join(lines)) for prompt, lines in scenes.items()]


def _headings(output: str) -> set[tuple[str, ...]]:
    """Without the columns of single nodes: one that offers itself late on a busy machine is no member."""
    lines = (re.sub(r" +", " ", re.sub(r"node-\d SAYS", "", line)) for line in output.splitlines())
    return {tuple(line.split()) for line in lines if HEADING.fullmatch(line)}


@pytest.mark.long
def test_the_member_that_the_page_on_gossip_shows_sees_another_come_and_die(tmp_path: Path) -> None:
    page_text = (REPOSITORY / "docs" / "extending" / "gossip.md").read_text(encoding="utf-8")
    [program] = re.findall(r"<!-- file: members.py -->\n```python\n(.*?)^```$", page_text, re.MULTILINE | re.DOTALL)
    (tmp_path / "members.py").write_text(program, encoding="utf-8")
    one, other = (f"127.0.0.1:{port}" for port in free_ports(2))
    command = [sys.executable, str(tmp_path / "members.py")]
    with _running([*command, one]) as (first, _):
        assert first.readline() == f"{one} listens\n"
        with _running([*command, other, one]) as (second, process):
            assert [second.readline() for _ in range(2)] == [f"{other} listens\n", f"{one} alive\n"]
            assert first.readline() == f"{other} alive\n"
            process.kill()
        assert [first.readline() for _ in range(2)] == [f"{other} suspect\n", f"{other} dead\n"]


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[tuple[IO[str], subprocess.Popen[str]]]:
    """Its output, which ends when nothing more is to be waited for."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = threading.Timer(PROGRAM_TIMEOUT_S, process.kill)
        deadline.start()
        try:
            assert process.stdout is not None
            yield process.stdout, process
        finally:
            deadline.cancel()
            process.kill()
