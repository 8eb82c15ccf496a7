"""Compiling the simulations: what becomes of it without a compiler being run."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from simulations.compilation import CompilationFailed, compiled


def compiler(monkeypatch: pytest.MonkeyPatch, *, makes: Path | None = None, code: int = 0) -> None:
    """One that ends with ``code``; another process makes the directory ``makes`` meanwhile."""

    def run(arguments: Sequence[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        if makes is not None:
            makes.mkdir()
            (makes / "theirs").touch()
        return subprocess.CompletedProcess(arguments, code, "line\n" * 9 + "the reason\n", "")

    monkeypatch.setattr(subprocess, "run", run)


def test_what_was_built_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(monkeypatch)
    made = compiled(tmp_path)
    assert (made / "gossip" / "swim.py").is_file()
    monkeypatch.delattr(subprocess, "run")
    assert compiled(tmp_path) == made
    assert list(tmp_path.iterdir()) == [made]


def test_what_two_processes_build_at_once_serves_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(monkeypatch)
    made = compiled(tmp_path / "first")
    cache = tmp_path / "second"
    compiler(monkeypatch, makes=cache / made.name)
    assert [file.name for file in compiled(cache).iterdir()] == ["theirs"]
    assert [file.name for file in cache.iterdir()] == [made.name]


def test_where_it_cannot_be_compiled_the_reason_is_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler(monkeypatch, code=1)
    with pytest.raises(CompilationFailed, match=r"the reason\nIt takes a C compiler"):
        compiled(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(CompilationFailed, match="cannot be compiled in"):
        compiled(tmp_path / "file")
