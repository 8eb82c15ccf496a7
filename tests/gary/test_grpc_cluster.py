"""A cluster on a transport that is no part of Gary: the example under ``docs/extending/grpc``, installed beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.gary.real_agents import RealAgent

pytestmark = pytest.mark.long

REPLICAS = 6
APPLICATION = f"""
name: shop
services:
  web:
    x-gary: {{runtime: process}}
    command: sleep 1000
    stop_grace_period: 0s
    deploy: {{replicas: {REPLICAS}}}
    healthcheck: {{test: "true", interval: 100ms, start_interval: 100ms}}
"""


def test_five_agents_deploy_lose_a_node_and_heal(tmp_path: Path) -> None:
    with ExitStack() as stack:
        agents = [
            stack.enter_context(RealAgent(tmp_path / f"node-{number}", "--transport", "grpc")) for number in range(5)
        ]
        first = agents[0]
        for agent in agents[1:]:
            gary(agent, "join", "--token-file", "-", given=json.loads(gary(first, "invite", "--json"))["token"])
        first.until(lambda: alive(first) == len(agents), "not every node is seen")
        for agent in agents:
            assert agent.listening() == {f"::ffff:{agent.address}"}, "one port is enough, which is not so with nng"

        gary(first, "deploy", "-", "--detach", given=APPLICATION)
        first.until(lambda: len(keepers(first)) == REPLICAS, "not every slot is healthy")
        lost = next(agent for agent in agents[1:] if agent.directory.name in keepers(first).values())
        lost.lose_host()
        first.until(
            lambda: len(keepers(first)) == REPLICAS and lost.directory.name not in keepers(first).values(),
            "not every slot is kept elsewhere",
        )
        others = [agent for agent in agents if agent is not lost]
        first.until(lambda: alive(first) == len(others), "not exactly those are seen that are left")
        first.until(lambda: containers_count(others) == REPLICAS, "there are more containers than slots, or fewer")
        gary(first, "remove", "shop")
        first.until(lambda: containers_count(others) == 0, "containers were left")


def alive(agent: RealAgent) -> int:
    """How many nodes are alive in the eyes of ``agent``."""
    return sum(node["status"] == "alive" for node in agent.client.call("nodes")["nodes"])


def containers_count(agents: Iterable[RealAgent]) -> int:
    return sum(agent.containers_count() for agent in agents)


def keepers(agent: RealAgent) -> dict[str, str]:
    """The names of the nodes that keep the slots, as ``agent`` sees it: those that are healthy."""
    slots = agent.client.call("status", app="shop")["slots"]
    return {slot["slot"]: slot["node_name"] for slot in slots if slot["state"] == "healthy"}


def gary(agent: RealAgent, *words: str, given: str | None = None) -> str:
    done = agent.gary(*words, given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout
