"""``gary demo`` as a user runs it, on the process runtime: real agents, a real death, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Where the demo makes its files; short, because the agents' sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="g-") as directory:
        yield Path(directory)


def _demo(scratch: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gary", "demo", "--runtime", "process", "--json"],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _processes_with(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text in words:
            found.append(words)
    return found


def _assert_nothing_is_left_in(scratch: Path) -> None:
    assert list(scratch.iterdir()) == []
    assert _processes_with(str(scratch)) == []


def test_the_demo_shows_a_death_and_leaves_nothing_behind(scratch: Path) -> None:
    with _demo(scratch) as demo:
        output, talk = demo.communicate(timeout=120)
    assert demo.returncode == 0, talk
    answer = json.loads(output)
    assert answer["runtime"] == "process"
    assert list(answer["times_s"]) == [
        "5 agents started",
        "5 nodes know each other",
        "8 replicas healthy",
        "node-1 known to be dead",
        "whole again without it",
        "removed everywhere",
    ]
    assert "8 are healthy again" in talk
    _assert_nothing_is_left_in(scratch)


@pytest.mark.parametrize(("chapter", "number"), [("Starting", signal.SIGTERM), ("Killing", signal.SIGINT)])
def test_an_interrupted_demo_leaves_nothing_behind(scratch: Path, chapter: str, number: signal.Signals) -> None:
    with _demo(scratch) as demo:
        assert demo.stderr is not None
        while not demo.stderr.readline().startswith(chapter):
            assert demo.poll() is None
        demo.send_signal(number)
        _, talk = demo.communicate(timeout=60)
    assert demo.returncode == 130, talk
    _assert_nothing_is_left_in(scratch)
