"""Real agents, each a process of its own, with real certificates on real sockets: in, out, and a new root."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gary.cli.demo.cluster import DemoAgent, DemoCluster
from gary.cli.demo.engines import ProcessEngine
from gary.trust.tokens import read

WAIT_S = 20.0
LOOK_S = 0.02


@pytest.fixture
def agents() -> Iterator[list[DemoAgent]]:
    cluster = DemoCluster(ProcessEngine(), 4)
    try:
        cluster.wait_until_up()
        yield cluster.agents
    finally:
        cluster.close()


def gary(agent: DemoAgent, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gary", "--socket", str(agent.state_dir / "agent.sock"), *words],
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
        env={name: value for name, value in os.environ.items() if not name.startswith("GARY_")},
    )


def invite(agent: DemoAgent, *words: str) -> str:
    done = gary(agent, "invite", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def alive(agent: DemoAgent) -> set[str]:
    return {str(node["name"]) for node in agent.client.call("nodes")["nodes"] if node["status"] == "alive"}


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(LOOK_S)  # the interval between two looks


def events(agent: DemoAgent, kind: str) -> list[str]:
    return [str(event["message"]) for event in agent.client.stream("events") if event["kind"] == kind]


def metrics(agent: DemoAgent) -> dict[str, float]:
    from gary.cli.client import UnixConnection

    connection = UnixConnection(agent.client.socket_path, WAIT_S)
    try:
        connection.request("GET", "/metrics", headers={"Host": "gary"})
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    return {name: float(value) for name, _, value in (line.partition(" ") for line in lines) if name[0] != "#"}


def form(agents: list[DemoAgent]) -> None:
    token = invite(agents[0], "--uses", str(len(agents) - 1))
    for agent in agents[1:]:
        done = gary(agent, "join", "--token-file", "-", said=token)
        assert done.returncode == 0, done.stderr
    names = {agent.name for agent in agents}
    until(lambda: all(alive(agent) == names for agent in agents), "not all see all")


def test_who_was_invited_is_in_and_usable_and_nobody_else_gets_a_word(agents: list[DemoAgent]) -> None:
    one, other, stranger, third = agents
    token = invite(one)
    done = gary(other, "join", "--token-file", "-", "--json", said=token)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"joined": True, "nodes": 2}
    until(lambda: alive(other) == {one.name, other.name}, "it does not know whom it joined")

    uninvited = gary(stranger, "join", one.address)
    assert uninvited.returncode != 0
    assert "an invitation is needed: 'gary invite'" in uninvited.stderr
    used_up = gary(stranger, "join", "--token", token.strip())
    assert used_up.returncode == 5
    assert "the invitation is used up" in used_up.stderr
    assert any("was not let in: the invitation is used up" in said for said in events(one, "invitation"))

    foreign = gary(stranger, "join", third.address, "--token", invite(one).strip())
    assert foreign.returncode == 5
    assert "not trusted" in foreign.stderr
    elsewhere = gary(stranger, "join", other.address, "--token", invite(one).strip())
    assert elsewhere.returncode == 5
    assert "only the one that issued it does" in elsewhere.stderr
    assert alive(stranger) == {stranger.name}
    assert metrics(third)["gary_transport_handshakes_refused_total"] >= 1


def test_many_join_at_once_with_one_token(agents: list[DemoAgent]) -> None:
    token = invite(agents[0], "--uses", "3").strip()
    waiting = [
        subprocess.Popen(
            [sys.executable, "-m", "gary", "--socket", str(agent.state_dir / "agent.sock"), "join", "--token", token],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for agent in agents[1:]
    ]
    for process in waiting:
        output, _ = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, output
    names = {agent.name for agent in agents}
    until(lambda: all(alive(agent) == names for agent in agents), "not all see all")


def test_an_expelled_node_is_out_within_moments_and_is_told(agents: list[DemoAgent]) -> None:
    form(agents)
    out = agents[3]
    done = gary(agents[1], "expel", out.name)
    assert done.returncode == 0, done.stderr
    stay = {agent.name for agent in agents[:3]}
    until(lambda: all(alive(agent) == stay for agent in agents[:3]), "somebody still sees it")
    until(lambda: any("expelled this node" in said for said in events(out, "expelled")), "it was not told")
    until(lambda: alive(out) == {out.name}, "it still sees the others")
    again = gary(out, "join", "--token", invite(agents[0]).strip())
    assert again.returncode == 5
    shown = {node["name"]: node["status"] for node in agents[2].client.call("nodes")["nodes"]}
    assert shown[out.name] == "expelled"

    left = gary(out, "leave")
    assert left.returncode == 0, left.stderr


def test_a_new_root_reaches_everybody_and_nobody_is_suspected(agents: list[DemoAgent]) -> None:
    form(agents)
    before = [metrics(agent) for agent in agents]
    done = gary(agents[2], "rotate", "--overlap", "1h", "--json")
    assert done.returncode == 0, done.stderr
    root = json.loads(done.stdout)["root"]

    def is_done() -> bool:
        return all(agent.client.call("trust")["certificate"]["root"] == root for agent in agents)

    until(is_done, "not everybody has a certificate of the new root")
    names = {agent.name for agent in agents}
    assert all(alive(agent) == names for agent in agents)
    for earlier, agent in zip(before, agents, strict=True):
        for counted in ("gary_gossip_suspicions_total", "gary_gossip_deaths_declared_total"):
            assert metrics(agent).get(counted, 0) == earlier.get(counted, 0), agent.name
    newcomer = invite(agents[3])
    assert read(newcomer).issuer == agents[3].node


def test_all_secrets_are_in_files_that_only_the_agent_s_user_reads(agents: list[DemoAgent]) -> None:
    token = invite(agents[0])
    for path in [agents[0].state_dir, *agents[0].state_dir.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if not stat.S_ISSOCK(path.lstat().st_mode):
            assert mode & 0o077 == 0, f"{path}: {mode:o}"
    assert token.strip() not in Path(agents[0].log).read_text()
    shown: Any = agents[0].client.call("invitations")
    assert "token" not in json.dumps(shown)
