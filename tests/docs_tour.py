"""The tour of the README, walked for real: ``python -m tests.docs_tour`` writes its transcript anew.

Agents on loopback ports stand for hosts; each is a process of its own, with the ``process`` runtime. Commands are those
of the command line, given to each agent's own socket. In the transcript the loopback addresses are replaced by
addresses as hosts have them; nothing else is touched.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from typer.testing import CliRunner

from gary.cli.app import app
from gary.cli.client import UnixConnection
from gary.cli.demo.cluster import DemoAgent, DemoCluster, free_ports
from gary.cli.demo.engines import ProcessEngine
from gary.cli.key_file import VARIABLE

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"
SAMPLE = REPOSITORY / "docs" / "shop.yaml"
NODES = 4
STEP_TIMEOUT_S = 30.0
LOOK_INTERVAL_S = 0.05
PROMPT = re.compile(r"(node-\d)\$ (gary .*)")
TRANSCRIPT = "tour"
FILE = "shop.yaml"
TOKEN = "token"


class TourFailed(Exception):
    """A step did not do what the README says."""


@dataclass(frozen=True, slots=True)
class Command:
    """``gary`` with ``arguments``, typed on ``node``."""

    node: str
    arguments: str


@dataclass(frozen=True, slots=True)
class PowerCut:
    """A host dies: its agent and its containers at one instant. Then wait until others have taken over."""

    node: str


Step = Command | PowerCut

STEPS: tuple[Step, ...] = (
    Command("node-1", f"invite --uses {NODES - 1} > token"),
    *(Command(f"node-{number}", "join --token-file token") for number in range(2, NODES + 1)),
    Command("node-1", "nodes"),
    Command("node-1", "deploy shop.yaml"),
    Command("node-2", "ps"),
    Command("node-2", "status shop"),
    Command("node-2", "promises shop"),
    Command("node-2", "endpoints shop"),
    PowerCut("node-1"),
    Command("node-2", "status shop"),
    Command("node-2", "endpoints shop"),
    Command("node-3", "scale shop worker=3"),
    Command("node-3", "logs shop/worker/1 --tail 2"),
    Command("node-4", "leave"),
    Command("node-3", "events shop"),
    Command("node-3", "remove shop"),
    Command("node-3", "ps"),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """One step and what was seen of it. ``text`` is what the README shows."""

    text: str
    exit_code: int = 0


class Shell(Protocol):
    """How the commands of a tour are carried out. Returns what is seen of the output, and the exit code.

    ``into``: where standard output goes, if not to the screen.
    """

    def __call__(self, words: list[str], environment: dict[str, str], into: Path | None) -> tuple[str, int]: ...


def as_child(words: list[str], environment: dict[str, str], into: Path | None) -> tuple[str, int]:
    """A process of its own, as for a user; what it says and what it prints stay in the order in which it did."""
    done = subprocess.run(
        [sys.executable, "-u", "-m", "gary", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if into is None else subprocess.PIPE,
        env=_foreign_environment() | environment,
        text=True,
        check=False,
        timeout=STEP_TIMEOUT_S,
    )
    if into is not None:
        into.write_text(done.stdout)
    return (done.stdout if into is None else done.stderr), done.returncode


def in_process(words: list[str], environment: dict[str, str], into: Path | None) -> tuple[str, int]:
    """In this process: faster, but what goes to stderr comes first."""
    cleared = dict.fromkeys(os.environ.keys() - _foreign_environment().keys())
    result = CliRunner().invoke(app, words, env={**cleared, **environment})
    if into is not None:
        into.write_text(result.stdout)
    return (result.output if into is None else result.stderr), result.exit_code


def _foreign_environment() -> dict[str, str]:
    """Settings of a real agent on this machine are not for the tour's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GARY_")}


class Tour:
    """The hosts of the tour and what is done on them. ``web_port``: where the sample's web server listens."""

    def __init__(self, cluster: DemoCluster, shell: Shell, web_port: int) -> None:
        self._cluster = cluster
        self._shell = shell
        self._web_port = web_port
        self._agents = {agent.name: agent for agent in cluster.agents}
        self._directory = cluster.agents[0].state_dir.parent
        self._hosts = {agent.address: _host_address(agent.name) for agent in cluster.agents}

    def play(self, steps: tuple[Step, ...] = STEPS) -> Iterator[Scene]:
        for step in steps:
            match step:
                case Command(node, arguments):
                    yield self._run(node, arguments)
                case PowerCut(node):
                    yield self._cut(self._agents[node])

    def metrics(self, node: str) -> str:
        """What Prometheus would be told by ``node``."""
        connection = UnixConnection(Path(self._socket(node)), STEP_TIMEOUT_S)
        try:
            connection.request("GET", "/metrics", headers={"Host": "gary"})
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def _run(self, node: str, arguments: str) -> Scene:
        if arguments.startswith("deploy"):
            self._until(lambda: self._sees(node) == NODES, f"{node} did not see all others")
        typed, _, target = arguments.partition(" > ")
        words = [self._real(word) for word in shlex.split(typed)]
        output, exit_code = self._shell(
            ["--socket", self._socket(node), *words],
            {"PORT": str(self._web_port), "NO_COLOR": "1", VARIABLE: str(self._agents[node].key_file)},
            self._directory / target if target else None,
        )
        if arguments.startswith("join"):
            self._until(lambda: self._sees("node-1") == self._sees(node), f"{node} was not seen by node-1")
        return Scene(f"{node}$ gary {arguments}\n{self._as_on_hosts(output)}".rstrip(), exit_code)

    def _socket(self, node: str) -> str:
        return str(self._agents[node].state_dir / "agent.sock")

    def _cut(self, agent: DemoAgent) -> Scene:
        started = time.monotonic()
        self._cluster.kill(agent)
        observer = self._agents["node-2"]

        def is_whole_without_it() -> bool:
            status = observer.client.call("status", app="shop")
            return status["state"] == "whole" and all(
                slot["state"] == "healthy" and slot["node"] != agent.node for slot in status["slots"]
            )

        self._until(is_whole_without_it, f"nobody took over from {agent.name}")
        return Scene(f"# {agent.name} loses its power; {time.monotonic() - started:.1f} s later:")

    def _sees(self, node: str) -> int:
        nodes = self._agents[node].client.call("nodes")["nodes"]
        return sum(other["status"] == "alive" for other in nodes)

    def _until(self, condition: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise TourFailed(complaint)
            time.sleep(LOOK_INTERVAL_S)

    def _real(self, word: str) -> str:
        """What stands for a word of the README here."""
        files = {FILE: SAMPLE, TOKEN: self._directory / TOKEN}
        return str(files.get(word, next((real for real, shown in self._hosts.items() if shown == word), word)))

    def _as_on_hosts(self, output: str) -> str:
        """``output`` with the addresses that hosts would have; columns stay where they are."""
        lines = []
        for line in output.splitlines():
            for real, shown in self._hosts.items():
                line = line.replace(real, shown.ljust(len(real)))
            on = re.search(r"\bnode-(\d) ", line)
            if on:
                real = f"127.0.0.1:{self._web_port}"
                line = line.replace(real, f"10.0.0.1{on[1]}:{self._web_port}".ljust(len(real)))
            lines.append(line.rstrip())
        return "\n".join(lines)


def _host_address(name: str) -> str:
    return f"10.0.0.1{name.removeprefix('node-')}:7946"


@contextmanager
def tour(shell: Shell, web_port: int | None = None) -> Iterator[Tour]:
    """Fresh agents; afterwards nothing of them is left. ``web_port`` None: any that is free."""
    cluster = DemoCluster(ProcessEngine(), NODES)
    try:
        cluster.wait_until_up()
        yield Tour(cluster, shell, web_port or free_ports(1)[0])
    finally:
        cluster.close()


def block(text: str, name: str) -> str:
    """What stands in ``text`` between the markers of ``name``."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    return text.partition(begin)[2].partition(end)[0]


def with_block(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` between the markers of ``name``."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise TourFailed(f"the markers of {name!r} are not there")
    return before + begin + content + end + after


def main() -> None:
    with tour(as_child, 8080) as walked:
        scenes = list(walked.play())
    failed = [scene.text for scene in scenes if scene.exit_code]
    if failed:
        raise TourFailed("\n".join(failed))
    text = README.read_text(encoding="utf-8")
    transcript = "\n\n".join(scene.text for scene in scenes)
    text = with_block(text, TRANSCRIPT, f"```console\n{transcript}\n```\n")
    text = with_block(text, FILE, f"```yaml\n{SAMPLE.read_text(encoding='utf-8')}```\n")
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
