"""Real agents without an engine: each a process with a directory and a pair of ports of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from gary.cli.client import Client
from gary.cli.demo.cluster import free_ports
from gary.cli.demo.engines import ProcessEngine
from gary.cli.exits import AgentUnreachable

REPOSITORY = Path(__file__).parents[2]
WAIT_S = 30.0


class RealAgent:
    """A context manager. All that it writes by itself is under ``directory``, its state in ``state_dir`` there.

    ``port``: of the probe lane; the bulk lane has the next one.
    """

    def __init__(self, directory: Path, *flags: str, umask: int = 0o022) -> None:
        self.directory = directory
        self.state_dir = directory / "state"
        self.log = directory / "log"
        [self.port] = free_ports(1)
        self.address = f"127.0.0.1:{self.port}"
        self.client = Client(self.state_dir / "agent.sock", directory / "home" / ".config" / "gary" / "operator.key")
        self._flags = flags
        self._umask = umask
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> RealAgent:
        for name in ("home", "tmp"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command("agent", "--config", os.devnull, *self._settings(), *self._flags),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                cwd=REPOSITORY,
                umask=self._umask,
                start_new_session=True,
            )
        try:
            self.until(self._answers, "it does not answer")
        except BaseException:
            self._end(signal.SIGKILL)
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end(signal.SIGTERM)

    def lose_host(self) -> None:
        """What the death of a host does: the agent and its containers are gone, nobody says goodbye."""
        self._end(signal.SIGKILL)
        ProcessEngine().destroy("", self.state_dir)

    def containers_count(self) -> int:
        """How many containers there are, whatever the agent says."""
        return ProcessEngine().count("", self.state_dir)

    def listening(self) -> set[str]:
        """``host:port`` of every TCP socket on which the agent listens."""
        own, found = set(), set()
        for path in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # It was closed meanwhile.
                own.add(path.readlink().name)
        for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
            file = Path(f"/proc/{self.pid}/net/{table}")
            for line in file.read_text().splitlines()[1:] if file.exists() else ():
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                    address, port = fields[1].split(":")
                    words = [int(address[i : i + 8], 16).to_bytes(4, "little") for i in range(0, len(address), 8)]
                    found.add(f"{socket.inet_ntop(family, b''.join(words))}:{int(port, 16)}")
        return found

    def gary(self, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``gary words`` for this agent; ``given``: its standard input."""
        command = self._command("--socket", str(self.client.socket_path), *words)
        return subprocess.run(
            command,
            input=given or "",
            capture_output=True,
            text=True,
            env=self.environment(),
            cwd=REPOSITORY,
            timeout=WAIT_S,
            check=False,
        )

    def until(self, condition: Callable[[], bool], complaint: str) -> None:
        """Wait until ``condition()`` holds."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert self._process is not None
            is_hopeless = self._process.poll() is not None or time.monotonic() > deadline
            assert not is_hopeless, f"{complaint}\n{self.log.read_text()}"
            time.sleep(0.02)  # The interval between two looks.

    def _answers(self) -> bool:
        try:
            self.client.call("version")
        except AgentUnreachable:
            return False
        return True

    def _settings(self) -> Sequence[str]:
        return (
            *("--state-dir", str(self.state_dir), "--bind", self.address, "--name", self.directory.name),
            *("--runtime", "process", "--log-level", "debug"),
        )

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "gary", *words]

    def environment(self) -> dict[str, str]:
        """Of its own process, and of the commands that are given to it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GARY_")}
        return kept | {"HOME": str(self.directory / "home"), "TMPDIR": str(self.directory / "tmp"), "NO_COLOR": "1"}

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        try:
            self._process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
