"""Real agents, each a process of its own, with real certificates on real sockets: in, out, and a new root."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gary.cli.client import UnixConnection
from gary.trust.tokens import read
from tests.gary.real_agents import WAIT_S, RealAgent

pytestmark = pytest.mark.long


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[list[RealAgent]]:
    with ExitStack() as running:
        yield [running.enter_context(RealAgent(tmp_path / f"node-{number}")) for number in range(1, 5)]


def invite(agent: RealAgent, *words: str) -> str:
    done = agent.gary("invite", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def name(agent: RealAgent) -> str:
    return agent.directory.name


def alive(agent: RealAgent) -> set[str]:
    return {str(node["name"]) for node in agent.client.call("nodes")["nodes"] if node["status"] == "alive"}


def events(agent: RealAgent, kind: str) -> list[str]:
    return [str(event["message"]) for event in agent.client.stream("events") if event["kind"] == kind]


def metrics(agent: RealAgent) -> dict[str, float]:
    connection = UnixConnection(agent.client.socket_path, WAIT_S)
    try:
        connection.request("GET", "/metrics", headers={"Host": "gary"})
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    return {key: float(value) for key, _, value in (line.partition(" ") for line in lines) if key[0] != "#"}


def form(agents: list[RealAgent]) -> None:
    token = invite(agents[0], "--uses", str(len(agents) - 1))
    for agent in agents[1:]:
        done = agent.gary("join", "--token-file", "-", given=token)
        assert done.returncode == 0, done.stderr
    names = {name(agent) for agent in agents}
    agents[0].until(lambda: all(alive(agent) == names for agent in agents), "not all see all")


def test_who_was_invited_is_in_and_usable_and_nobody_else_gets_a_word(agents: list[RealAgent]) -> None:
    one, other, stranger, third = agents
    token = invite(one)
    done = other.gary("join", "--token-file", "-", "--json", given=token)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"joined": True, "nodes": 2}
    agents[0].until(lambda: alive(other) == {name(one), name(other)}, "it does not know whom it joined")

    uninvited = stranger.gary("join", one.address)
    assert uninvited.returncode != 0
    assert "an invitation is needed: 'gary invite'" in uninvited.stderr
    used_up = stranger.gary("join", "--token", token)
    assert used_up.returncode == 5
    assert "the invitation is used up" in used_up.stderr
    assert any("was not let in: the invitation is used up" in said for said in events(one, "invitation"))

    foreign = stranger.gary("join", third.address, "--token", invite(one))
    assert foreign.returncode == 5
    assert "not trusted" in foreign.stderr
    elsewhere = stranger.gary("join", other.address, "--token", invite(one))
    assert elsewhere.returncode == 5
    assert "only the one that issued it does" in elsewhere.stderr
    assert alive(stranger) == {name(stranger)}
    assert metrics(third)["gary_transport_handshakes_refused_total"] >= 1


def test_many_join_at_once_with_one_token(agents: list[RealAgent]) -> None:
    token = invite(agents[0], "--uses", "3")
    waiting = [
        subprocess.Popen(
            [sys.executable, "-m", "gary", "--socket", str(agent.client.socket_path), "join", "--token", token],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for agent in agents[1:]
    ]
    for process in waiting:
        output, _ = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, output
    names = {name(agent) for agent in agents}
    agents[0].until(lambda: all(alive(agent) == names for agent in agents), "not all see all")


def test_an_expelled_node_is_out_within_moments_and_is_told(agents: list[RealAgent]) -> None:
    form(agents)
    out = agents[3]
    done = agents[1].gary("expel", name(out))
    assert done.returncode == 0, done.stderr
    stay = {name(agent) for agent in agents[:3]}
    agents[0].until(lambda: all(alive(agent) == stay for agent in agents[:3]), "somebody still sees it")
    agents[0].until(lambda: any("expelled this node" in said for said in events(out, "expelled")), "it was not told")
    agents[0].until(lambda: alive(out) == {name(out)}, "it still sees the others")
    again = out.gary("join", "--token", invite(agents[0]))
    assert again.returncode == 5
    shown = {node["name"]: node["status"] for node in agents[2].client.call("nodes")["nodes"]}
    assert shown[name(out)] == "expelled"

    left = out.gary("leave")
    assert left.returncode == 0, left.stderr


def test_a_new_root_reaches_everybody_and_nobody_is_lost(agents: list[RealAgent]) -> None:
    form(agents)
    before = [metrics(agent) for agent in agents]
    done = agents[2].gary("rotate", "--overlap", "1h", "--json")
    assert done.returncode == 0, done.stderr
    root = json.loads(done.stdout)["root"]

    def is_done() -> bool:
        return all(agent.client.call("trust")["certificate"]["root"] == root for agent in agents)

    agents[0].until(is_done, "not everybody has a certificate of the new root")
    names = {name(agent) for agent in agents}
    # A machine that stands still for a moment makes its agents suspect each other, and then hear of it. That they do
    # not for a new root is tested in virtual time (tests/simulations/test_trust.py).
    agents[0].until(lambda: all(alive(agent) == names for agent in agents), "not all see all")
    for earlier, agent in zip(before, agents, strict=True):
        deaths = "gary_gossip_deaths_declared_total"
        assert metrics(agent).get(deaths, 0) == earlier.get(deaths, 0), events(agent, "member")
    newcomer = invite(agents[3])
    assert read(newcomer).issuer == agents[3].client.call("version")["node"]
