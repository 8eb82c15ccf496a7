"""Commands through a real agent that is no member, as a user gives them, and what is left of them in its memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.canaries import canary, found, memory
from tests.gary.real_agents import REPOSITORY, RealAgent

pytestmark = pytest.mark.long

WORDS = {where: canary(where) for where in ("name", "command", "value", "label", "line")}
APPLICATION = f"""
name: {WORDS["name"]}
x-gary: {{resilience: 1}}
services:
  web:
    x-gary: {{runtime: process}}
    command: sh -c 'echo {WORDS["line"]} $$0; exec sleep 1000' {WORDS["command"]}
    environment: {{SECRET: {WORDS["value"]}}}
    labels: {{secret: {WORDS["label"]}}}
    stop_grace_period: 0s
    deploy:
      replicas: 1
      placement: {{constraints: [node.labels.role == worker]}}
"""


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RealAgent, RealAgent]]:
    """A member that runs the application, and an agent of the same cluster that has nothing to do with it."""
    directory = tmp_path_factory.mktemp("relaying")
    member, outside = RealAgent(directory / "member", "--label", "role=worker"), RealAgent(directory / "outside")
    with member, outside:
        token = gary(member, "invite").strip()
        gary(outside, "join", "--token-file", "-", given=token)
        gary(member, "deploy", "-", "--detach", given=APPLICATION)
        member.until(lambda: WORDS["line"] in gary(member, "logs", WORDS["name"]), "nothing was written")
        yield member, outside


def gary(agent: RealAgent, *words: str, given: str | None = None) -> str:
    done = agent.gary(*words, given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_stranger_is_refused_and_told_what_to_do(agents: tuple[RealAgent, RealAgent]) -> None:
    member, outside = agents
    own = gary(outside, "key").strip()
    for words in (["status"], ["scale", "web=2"], ["logs"], ["events"], ["remove"]):
        done = outside.gary(words[0], WORDS["name"], *words[1:])
        assert done.returncode == 5, done.stdout
        assert f"the key {own} may not command" in done.stderr
        assert "gary grant" in done.stderr
    seen = outside.gary("ps")
    assert "1 more deployment is not yours to see" in seen.stderr
    assert WORDS["name"] not in seen.stdout
    assert f"refused: the key {own}" in gary(member, "events", WORDS["name"])
    assert outside.gary("status", "nowhere").returncode == 4


def test_who_was_granted_commands_through_any_agent_which_keeps_nothing_of_it(
    agents: tuple[RealAgent, RealAgent],
) -> None:
    member, outside = agents
    name = WORDS["name"]
    gary(member, "grant", name, gary(outside, "key", name).strip())
    assert json.loads(gary(outside, "status", name, "--json"))["state"] in ("whole", "converging")
    assert WORDS["command"] in gary(outside, "logs", name, "--tail", "5")
    assert name in gary(outside, "ps")
    assert "generation 1 was deployed" in gary(outside, "events", name)
    assert gary(outside, "promises", name)
    gary(outside, "deploy", "-", "--dry-run", given=APPLICATION.replace("replicas: 1", "replicas: 2"))
    gary(outside, "scale", name, "web=2", "--detach")
    assert followed(outside, "logs", name, "-f") in (f"web/{index} | " for index in (1, 2))
    assert outside.gary("release", f"{name}/web/1").returncode == 5
    gary(outside, "grant", name, gary(outside, "key").strip(), "--revoke", "--json")
    assert outside.gary("status", name).returncode == 5
    shown = found(WORDS, memory(member.pid))
    assert {"name", "command", "value", "label"} <= set(shown), "the search finds what is there"
    assert found(WORDS, memory(outside.pid)) == []
    for file in outside.state_dir.rglob("*"):
        assert not file.is_file() or found(WORDS, file.read_bytes()) == []
    assert found(WORDS, outside.log.read_bytes()) == []


def followed(agent: RealAgent, *words: str) -> str:
    """What stands before the first line that a command prints, which then is interrupted."""
    command = [sys.executable, "-m", "gary", "--socket", str(agent.client.socket_path), *words]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=agent.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
    return line[: line.index(WORDS["line"])]


def test_the_operators_key_is_for_nobody_else(agents: tuple[RealAgent, RealAgent], tmp_path: Path) -> None:
    _, outside = agents
    file = outside.directory / "home" / ".config" / "gary" / "operator.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o640)
    try:
        done = outside.gary("key")
    finally:
        file.chmod(0o600)
    assert (done.returncode, done.stdout) == (1, "")
    assert "chmod 600" in done.stderr
