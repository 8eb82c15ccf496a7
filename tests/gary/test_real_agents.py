"""What real agents leave where others might look: two that join, run something, and change the cluster's root.

The story is played once. Each test looks at what was gathered meanwhile.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gary.cli.client import UnixConnection
from gary.routes import ROUTES
from gary.trust import tokens
from gary.trust.standing import RootSecret
from tests.gary import secrets
from tests.gary.real_agents import RealAgent

pytestmark = pytest.mark.long

APPLICATION = """
name: shop
services:
  web:
    x-gary: {runtime: process}
    command: sleep 1000
    stop_grace_period: 0s
    deploy: {replicas: 2}
    healthcheck: {test: "echo fine", interval: 100ms, start_interval: 100ms}
  job:
    x-gary: {runtime: process}
    command: "true"
  writer:
    x-gary: {runtime: process}
    command: sh -c 'seq -f %0100g 60000; exec sleep 1000'
    stop_grace_period: 0s
"""
TRUST = ("certificate", "roots", "expulsions")
LINES = 60_000


@dataclass
class Story:
    """What was gathered. ``places``: everything that anybody but the agents' own user might read."""

    places: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    listening: dict[str, set[str]] = field(default_factory=dict)
    expected: dict[str, set[str]] = field(default_factory=dict)
    logged: list[str] = field(default_factory=list)
    examined: dict[str, dict[str, str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with tempfile.TemporaryDirectory(prefix="g-") as directory:
        yield _played(Path(directory))


def _modes(directory: Path) -> dict[str, int]:
    """Of all that is in the directory of an agent that lives: some of it may go while we look."""
    found: dict[str, int] = {}
    for place, directories, files in os.walk(directory):
        for path in [Path(place), *(Path(place, name) for name in (*directories, *files))]:
            with contextlib.suppress(FileNotFoundError):
                found[str(path)] = path.lstat().st_mode
    return found


def _played(directory: Path) -> Story:
    story = Story()
    one, two = RealAgent(directory / "one", umask=0), RealAgent(directory / "two", umask=0)
    with one, two, secrets.watched(one.pid, two.pid) as processes:
        story.secrets |= _secrets_of(one, "at first") | _secrets_of(two, "at first")
        token = json.loads(_run(story, one, "invite", "--json"))["token"]
        story.secrets |= {"the token": token.encode(), "the guest's number": tokens.read(token).guest_number}
        _run(story, two, "join", "--token-file", "-", "--json", given=token)
        _run(story, one, "deploy", "-", "--detach", "--json", given=APPLICATION)
        one.until(lambda: _has_checked_and_ended(one, two), "the containers did not run")
        story.secrets |= _secrets_of(one, "as members") | _secrets_of(two, "as members")
        keeper = next(agent for agent in (one, two) if _kept(agent, "writer"))
        story.logged = keeper.gary("logs", "shop/writer").stdout.splitlines()
        _run(story, one, "rotate", "--json")
        for agent in (one, two):
            story.examined[agent.directory.name] = _findings(_run(story, agent, "doctor", "--json"))
            story.places |= _answers(agent)
            story.modes |= _modes(agent.state_dir)
            story.listening[agent.directory.name] = agent.listening()
            story.expected[agent.directory.name] = {f"127.0.0.1:{agent.port + lane}" for lane in (0, 1)}
        _run(story, two, "remove", "shop", "--json")
        one.until(lambda: not one.client.call("ps")["deployments"], "it was not removed")
    del story.places["gary invite --json on one"]  # This is what it is for.
    story.places |= processes
    for agent in (one, two):
        story.places |= secrets.files_under(agent.directory, but=agent.state_dir)
        story.secrets |= _secrets_of(agent, "at last")
    key_file = one.directory / "home" / ".config" / "gary" / "operator.key"
    story.secrets["the operator's key"] = bytes.fromhex(story.places.pop(str(key_file)).split()[-1].decode())
    story.modes[str(key_file)] = key_file.stat().st_mode
    return story


def _run(story: Story, agent: RealAgent, *words: str, given: str | None = None) -> str:
    done = agent.gary(*words, given=given)
    assert done.returncode in (0, 1), done.stderr
    story.places[f"gary {' '.join(words)} on {agent.directory.name}"] = (done.stdout + done.stderr).encode()
    return done.stdout


def _has_checked_and_ended(*agents: RealAgent) -> bool:
    found = {path.name for agent in agents for path in agent.state_dir.glob("process/*/*")}
    written = [path.stat().st_size for agent in agents for path in agent.state_dir.glob("process/*/stdout")]
    return {"check", "exit", "health"} <= found and max(written, default=0) == LINES * 101


def _findings(told: str) -> dict[str, str]:
    """What was found by each check, with its verdict."""
    return {row["check"]: f"{row['verdict']}: {row['what']}" for row in json.loads(told)["findings"]}


def _kept(agent: RealAgent, service: str) -> bool:
    """Whether ``agent`` keeps the service's only slot."""
    slots = agent.client.call("status", app="shop")["slots"]
    return any(slot["slot"] == f"{service}/1" and slot["node_name"] == agent.directory.name for slot in slots)


def _answers(agent: RealAgent) -> dict[str, bytes]:
    """All that can be read at its socket."""
    found = {}
    for target in [*(route.path for route in ROUTES if route.method == "GET"), "/metrics"]:
        connection = UnixConnection(agent.client.socket_path, 10.0)
        connection.request("GET", target.replace("{app}", "shop"))
        with connection.getresponse() as response:
            assert response.status == 200, target
            found[f"GET {target} on {agent.directory.name}"] = response.read()
    return found


def _secrets_of(agent: RealAgent, when: str) -> dict[str, bytes]:
    whose, node = f"of {agent.directory.name} {when}", secrets.records(agent.state_dir, "node")
    found = {f"the seed {whose}": node["seed"], f"the cluster's secret {whose}": node["secret"]}
    for key, value in secrets.records(agent.state_dir, "trust").items():
        if key == "tls":
            found |= secrets.of_pem(f"the TLS key {whose}", secrets.unpacked(value)[0])
        elif key.startswith("secret/"):
            root = RootSecret.decode(value)
            found |= {f"the seed of root {key} {whose}": root.seed}
            found |= secrets.of_pem(f"the TLS key of root {key} {whose}", root.tls_key)
    return found


def test_no_secret_is_seen_outside_the_state_directories(story: Story) -> None:
    expected = {"the token", "the guest's number", "the operator's key", "the seed of one at first"}
    assert expected <= story.secrets.keys()
    tls_keys = {secret for name, secret in story.secrets.items() if re.fullmatch(r"the TLS key of one \w+ \w+", name)}
    roots = {secret for name, secret in story.secrets.items() if name.startswith("the seed of root")}
    assert (len(tls_keys), len(roots)) == (2, 3), "the two agents had a root each, and then a new one in common"
    assert {"GET /metrics on one", "GET /v1/events on two"} <= story.places.keys()
    assert any(place.startswith("cmdline of") for place in story.places)
    assert any(b"gary.trust.notary" in content for content in story.places.values()), "children were watched, too"
    secrets.assert_unseen(story.secrets, story.places)


def test_whatever_the_umask_the_state_directory_is_for_the_agent_s_user_alone(story: Story) -> None:
    names = {Path(path).name for path in story.modes}
    assert {
        "operator.key",
        "lock",
        "gary.sqlite",
        "gary.sqlite-wal",
        "exit",
        "check",
        "health",
        "record.json",
        "stdout",
    } <= names
    expected = {stat.S_IFDIR: 0o700, stat.S_IFREG: 0o600, stat.S_IFSOCK: 0o660}
    wrong = {path: oct(mode) for path, mode in story.modes.items() if stat.S_IMODE(mode) != expected[stat.S_IFMT(mode)]}
    assert not wrong


def test_nothing_is_lost_of_what_a_container_has_written(story: Story) -> None:
    assert [int(line.rpartition("|")[2]) for line in story.logged] == list(range(1, LINES + 1))


def test_the_doctor_finds_two_agents_in_order(story: Story) -> None:
    one, two = story.examined["one"], story.examined["two"]
    names = ["agent", "engine process", "disk", "privacy", "clock", "versions", *TRUST, "address", "members", "health"]
    assert (list(one), list(two)) == (names, names)
    sound = set(names) - {"disk", "health"}  # How full the disk is, and how busy the machine, is its own affair.
    assert {one[check].partition(":")[0] for check in sound} == {"ok"}
    assert one["address"] == f"ok: {min(story.expected['one'])} is reached by two"
    assert one["clock"] == "ok: within 0.1 s of two"
    assert two["members"] == "ok: the other one is alive"


def test_an_agent_listens_for_gossip_and_for_nothing_else(story: Story) -> None:
    assert story.listening == story.expected


@pytest.mark.parametrize("secret", [bytes(range(100, 132)), b"\x00\\\"'\n\xff\xfe" * 5, b"plain text of a token"])
def test_a_secret_is_found_in_any_form_and_place(secret: bytes) -> None:
    for around in (b"", b"x", b"xy"):
        for form, pattern in secrets.forms(secret).items():
            with pytest.raises(AssertionError, match="in the log"):
                secrets.assert_unseen({"it": secret}, {"the log": around + pattern + b"z", "elsewhere": b""})
            assert pattern, form
    secrets.assert_unseen({"it": secret}, {"the log": secret[:-1] + secret.hex()[:-2].encode()})


@pytest.mark.parametrize("before", [b"", b"x", b"xy", b"xyz"])
def test_base64_of_more_than_the_secret_is_seen_through(before: bytes) -> None:
    secret = bytes(range(180, 212))
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        with pytest.raises(AssertionError, match="base64"):
            secrets.assert_unseen({"it": secret}, {"the log": encode(before + secret + b"more")})
