"""The structure that the design promises: who may import what, and what may lie at the top of the repository."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gary

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("gossip", "crdt", "gary", "simulations")

MAY_IMPORT = {
    "gossip": {"gossip"},
    "crdt": {"crdt"},
    "gary": {"gary", "gossip", "crdt"},
    "simulations": {"simulations", "gary", "gossip", "crdt"},
}
ONLY_IN = {
    "pynng": ("gossip/nng.py",),
    "automerge": ("crdt/",),
    "aiodocker": ("gary/runtime/docker.py",),
    "typer": ("gary/cli/",),
    "rich": ("gary/cli/", "simulations/"),
    "yaml": ("gary/compose/",),
    "prometheus_client": ("gary/exposition.py",),
    "sqlite3": ("gary/storage.py",),
    "nacl": ("gary/trust/keys.py",),
    "matplotlib": ("simulations/plots.py",),
    "joblib": ("simulations/trials.py",),
    "dask": ("simulations/trials.py",),
}
"""Third parties and the places that know them. A place that ends with a slash is everything under it."""

CORES = {
    "gossip": ("swim", "member", "probe", "suspicion", "dissemination", "antientropy", "messages", "view"),
    "crdt": ("replica", "exchange"),
    "gary": (
        *("agent", "node", "inbox", "clock", "events", "requests", "commands"),
        *("cluster", "engines", "advertising", "orphans", "tombstones", "enrolment"),
        *("deployment", "replication", "keeper", "calling", "document", "state", "permission", "facts", "epochs"),
        *("assignment", "volunteering", "rollout", "reconciler", "acquaintance"),
        *("trust/credentials", "trust/envelope", "trust/operator", "trust/orders"),
    ),
}
NOT_IN_CORES = {"asyncio", "socket", "time", "threading", "secrets", "subprocess", "sqlite3", "datetime"}
"""Clocks, randomness and IO are arguments of a core."""

TOP_LEVEL = {
    *("pyproject.toml", "gary", "crdt", "gossip", "tests", "simulations", "docs"),
    *("README.md", "LICENSE", "CHANGELOG.md", "Makefile", "requirements.lock"),
}


@functools.cache
def _imports(file: Path) -> frozenset[str]:
    """Every module that ``file`` names in an import, wherever in it; relative ones made absolute."""
    package = file.relative_to(REPOSITORY).parent.parts
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            found.add(".".join((*base, *((node.module,) if node.module else ()))))
    return frozenset(found)


def _sources(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is not a checkout with its history")
    return [Path(name) for name in listed.stdout.decode().split("\0") if name]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_downwards(package: str) -> None:
    for file in _sources(package):
        ours = {name.partition(".")[0] for name in _imports(file)} & {*PACKAGES, "tests"}
        assert ours <= MAY_IMPORT[package], file


@pytest.mark.parametrize("module", list(ONLY_IN))
def test_a_third_party_is_known_in_one_place_only(module: str) -> None:
    users = {
        file.relative_to(REPOSITORY).as_posix()
        for package in PACKAGES
        for file in _sources(package)
        if any(name == module or name.startswith(f"{module}.") for name in _imports(file))
    }
    assert users
    strangers = {
        user
        for user in users
        if not any(user == place or (place[-1] == "/" and user.startswith(place)) for place in ONLY_IN[module])
    }
    assert not strangers


def test_cores_have_no_clock_no_randomness_of_their_own_and_no_io() -> None:
    for package, names in CORES.items():
        for core in (REPOSITORY / package / name for name in names):
            files = [core.with_suffix(".py")] if core.with_suffix(".py").exists() else sorted(core.glob("*.py"))
            assert files, core
            for file in files:
                assert not {name.partition(".")[0] for name in _imports(file)} & NOT_IN_CORES, file


def test_the_agent_s_process_does_not_load_what_an_agent_has_no_use_for() -> None:
    useless = {
        *("typer", "rich", "pydantic", "yaml", "argparse", "gary.cli", "gary.compose"),
        *("prometheus_client", "tomllib", "ctypes", "_ssl", "frozenlist._frozenlist"),
    }
    code = (
        "import importlib, pathlib, sys; from gary import config, launch; "
        "launch.load(config.AgentConfig(pathlib.Path('/var/lib/gary'))); "
        "[importlib.import_module(name) for name in ('gossip.nng', 'gary.runtime.docker', 'gary.runtime.process')]; "
        f"print(sorted({useless!r} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "[]\n"


def test_nothing_else_lies_at_the_top() -> None:
    entries = {path.parts[0] for path in _tracked()}
    assert {entry for entry in entries if not entry.startswith(".")} <= TOP_LEVEL


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["version"] == gary.__version__


def test_the_lock_file_names_versions_and_hashes_and_no_hosts() -> None:
    text = (REPOSITORY / "requirements.lock").read_text()
    assert not re.search(r"://|@ |^-|^\s+-(?!-hash)|/(home|root|tmp|opt|usr|var)/", text, re.MULTILINE)
    pinned = re.findall(r"^([a-z0-9][a-z0-9._-]*)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert set(pinned) == set(re.findall(r"^([a-z0-9][a-z0-9._-]*)", text, re.MULTILINE))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    asked = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"]
    asked += project["build-system"]["requires"]
    names = {re.split(r"[^A-Za-z0-9._-]", requirement)[0] for requirement in asked}
    assert names <= set(pinned)


def test_no_file_has_a_path_of_the_machine_it_was_written_on() -> None:
    for path in _tracked():
        file = REPOSITORY / path
        if file.is_file() and file != Path(__file__):
            found = re.search(rb"/(?:work|root|home/[a-z]+)/[a-z]|/tmp/(?:venv|team)", file.read_bytes())
            assert not found, f"{path}: {found}"
