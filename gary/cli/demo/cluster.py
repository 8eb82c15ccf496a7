"""The demo's agents: real ones, each a process of its own with a state directory and a loopback port of its own."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gary.cli.client import Client
from gary.cli.demo.engines import Engine
from gary.cli.exits import AgentUnreachable
from gary.cli.key_file import FILE_NAME
from gary.errors import GaryError

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
LOOK_INTERVAL_S = 0.05
LOG_LINES_SHOWN = 15
PORTS = range(20_000, 32_000, 2)
"""Below those that outgoing connections take: one of these does not become busy before its agent has started."""


class DemoFailed(GaryError):
    """The demo did not get to its end; the sentence says where it stopped and what was seen there."""


@dataclass(slots=True)
class DemoAgent:
    """``node`` is its NodeId, known once it answers."""

    name: str
    address: str
    state_dir: Path
    process: subprocess.Popen[bytes]
    node: str = ""
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(self.state_dir / "agent.sock", self.key_file)

    @property
    def key_file(self) -> Path:
        """The operator's key of the demo: nobody's own."""
        return self.state_dir.with_name(FILE_NAME)

    @property
    def log(self) -> Path:
        return self.state_dir.with_suffix(".log")

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None


class DemoCluster:
    """Agents under one temporary directory; ``close`` takes everything away, whatever state it is in."""

    def __init__(self, engine: Engine, size: int) -> None:
        self._engine = engine
        self._directory = Path(tempfile.mkdtemp(prefix="gary-demo-"))
        self.agents: list[DemoAgent] = []
        try:
            for number, port in enumerate(free_ports(size), start=1):
                self.agents.append(self._start(f"node-{number}", f"127.0.0.1:{port}"))
        except BaseException:
            self.close()
            raise

    def wait_until_up(self) -> None:
        """Until every agent answers. Raises ``DemoFailed``."""
        deadline = time.monotonic() + START_TIMEOUT_S
        for agent in self.agents:
            while not agent.node:
                if not agent.is_running or time.monotonic() > deadline:
                    raise DemoFailed(f"the agent {agent.name} did not start; the end of its log:\n{_end_of(agent.log)}")
                try:
                    agent.node = str(agent.client.call("version")["node"])
                except AgentUnreachable:
                    time.sleep(LOOK_INTERVAL_S)

    def kill(self, agent: DemoAgent) -> None:
        """What the death of a host does: the agent and its containers are gone, nobody says goodbye."""
        agent.process.kill()
        agent.process.wait()
        self._engine.destroy(agent.node, agent.state_dir)

    def containers_count(self) -> int:
        """Containers of any of the nodes, as the engine counts them."""
        return sum(self._engine.count(agent.node, agent.state_dir) for agent in self.agents if agent.node)

    def close(self) -> int:
        """End agents, remove containers and files. Returns how many containers had to be removed by force."""
        for agent in self.agents:
            agent.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for agent in self.agents:
            try:
                agent.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                agent.process.kill()
                agent.process.wait()
        left_over = self.containers_count()
        for agent in self.agents:
            if agent.node:
                self._engine.destroy(agent.node, agent.state_dir)
        shutil.rmtree(self._directory)
        self._engine.restore()
        return left_over

    def _start(self, name: str, address: str) -> DemoAgent:
        state_dir = self._directory / name
        flags = ["--state-dir", str(state_dir), "--bind", address, "--name", name, *self._engine.arguments()]
        # Settings of a real agent on this machine are not for the demo's.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GARY_")}
        with state_dir.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gary", "agent", "--config", os.devnull, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the demo, which then ends its agents in order.
            )
        return DemoAgent(name, address, state_dir, process)


def free_ports(count: int) -> list[int]:
    """Ports of which the next one is free as well, for the two lanes of an agent."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for port in random.sample(PORTS, len(PORTS)):
            if len(ports) == count:
                return ports
            with contextlib.suppress(OSError):
                held.enter_context(_bound(port))
                held.enter_context(_bound(port + 1))
                ports.append(port)
    raise DemoFailed(f"there are no {count} free pairs of ports from {PORTS.start} to {PORTS.stop}")


@contextlib.contextmanager
def _bound(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", port))
        yield listener


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
