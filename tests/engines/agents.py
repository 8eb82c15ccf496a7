"""A real agent in a machine, and the real command line to talk to it."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.engines.engines import Engine, request
from tests.engines.namespaces import Machine, Process, address

PORT = 7700
START_TIMEOUT_S = 20.0
CLI_TIMEOUT_S = 120.0
REPOSITORY = Path(__file__).parents[2]


class AgentError(Exception):
    """The agent did not start, or its API does not answer."""


class GaryCommandError(Exception):
    """A ``gary`` command ended with another exit code than 0."""

    def __init__(self, command: Sequence[str], exit_code: int, output: str, talk: str) -> None:
        super().__init__(f"gary {' '.join(command)}: exit code {exit_code}\n{output}\n{talk}")
        self.exit_code = exit_code
        self.output = output
        self.talk = talk


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a ``gary`` command printed (``output``), told the user on stderr (``talk``) and ended with."""

    exit_code: int
    output: str
    talk: str

    def json(self) -> Any:
        return json.loads(self.output)

    def lines(self) -> list[Any]:
        """The lines of a command that prints one JSON value to a line."""
        return [json.loads(line) for line in self.output.splitlines() if line.strip()]


class Agent:
    """One ``gary agent``. ``directory`` is the state directory: kept over restarts until ``wipe``."""

    def __init__(self, machine: Machine, engine: Engine, directory: Path, number: int, name: str) -> None:
        self._machine = machine
        self._engine = engine
        self._number = number
        self._name = name
        self._process: Process | None = None
        self.directory = directory
        self.log = directory.with_name(f"{directory.name}.log")

    @property
    def address(self) -> str:
        return f"{address(self._number)}:{PORT}"

    @property
    def socket(self) -> Path:
        """The socket of its API, as seen from outside of the machine."""
        return self._machine.outside(self.directory / "agent.sock")

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.exit_code is None and self._process.pid is not None

    @property
    def pid(self) -> int:
        pid = self._process.pid if self._process is not None else None
        assert pid is not None, "the agent does not run"
        return pid

    def start(self, *, arguments: Sequence[str] = (), clock_ahead_s: float = 0.0) -> None:
        """Start it and wait until its API answers. Raises ``AgentError`` with the end of its log."""
        assert not self.runs, "the agent runs"
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = {
            "--state-dir": str(self.directory),
            "--bind": self.address,
            "--advertise": self.address,
            "--name": self._name,
            "--runtime": "docker",
            "--docker-host": self._engine.url,
            "--log-format": "json",
        }
        command = ["agent", *(word for option in options.items() for word in option), *arguments]
        with self.log.open("ab") as log:
            self._process = self._machine.spawn(self._gary(command), log, _other_clock(clock_ahead_s))
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            if self._process.exit_code is not None or time.monotonic() > deadline:
                raise AgentError(f"the agent of {self._name} did not start; the end of its log:\n{self.log_tail(40)}")
            time.sleep(0.02)  # the interval between two looks

    def _gary(self, command: Sequence[str]) -> list[str]:
        return ["env", f"--chdir={REPOSITORY}", sys.executable, "-m", "gary", *command]

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out. Its containers run on."""
        if self._process is not None:
            self._process.send(signal.SIGKILL)
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def gone(self) -> None:
        """The machine was switched off, and the agent with it."""
        if self._process is not None:
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def wipe(self) -> None:
        """Lose the state directory's contents; the directory itself may be a mount point."""
        assert not self.runs, "the agent runs"
        if self.directory.exists():
            for entry in self.directory.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    def answers(self) -> bool:
        try:
            self.ask("/v1/version")
        except AgentError:
            return False
        return True

    def ask(self, target: str) -> Any:
        """``GET target`` of its API, decoded. Raises ``AgentError`` for an error status or when it does not answer."""
        return json.loads(self.read(target))

    def read(self, target: str) -> bytes:
        """``GET target`` of its API, as bytes. Raises ``AgentError``."""
        try:
            status, answer = request(self.socket, "GET", target)
        except (OSError, http.client.HTTPException) as error:
            raise AgentError(f"the agent of {self._name} does not answer: {error}") from error
        if status >= 400:
            raise AgentError(f"{target} at {self._name}: {status} {answer.decode(errors='replace')}")
        return answer

    def run(self, *command: str, timeout_s: float = CLI_TIMEOUT_S) -> CommandResult:
        """Run ``gary command`` on the agent's machine, whatever its exit code."""
        environment = {"GARY_SOCKET": str(self.directory / "agent.sock"), "NO_COLOR": "1"}
        entering = self._machine.entering(self._gary(command), environment)
        done = subprocess.run(
            entering, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        return CommandResult(done.returncode, done.stdout, done.stderr)

    def gary(self, *command: str, timeout_s: float = CLI_TIMEOUT_S) -> Any:
        """Run ``gary command --json`` and return what it answered. Raises ``GaryCommandError``."""
        done = self.run(*command, "--json", timeout_s=timeout_s)
        if done.exit_code:
            raise GaryCommandError(command, done.exit_code, done.output, done.talk)
        return done.json() if done.output.strip() else None

    def gary_lines(self, *command: str, timeout_s: float = CLI_TIMEOUT_S) -> list[Any]:
        """Like ``gary``, for a command that answers one JSON value to a line."""
        done = self.run(*command, "--json", timeout_s=timeout_s)
        if done.exit_code:
            raise GaryCommandError(command, done.exit_code, done.output, done.talk)
        return done.lines()

    def invite(self, uses: int = 1) -> str:
        """A token with which so many others can join its cluster."""
        return str(self.gary("invite", "--uses", str(max(1, uses)))["token"])

    def events(self) -> list[Any]:
        """The events that it remembers, oldest first."""
        return [json.loads(line) for line in self.read("/v1/events").splitlines() if line.strip()]

    def log_tail(self, lines: int) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def fake_time_library() -> Path | None:
    """The library that gives a process another wall clock; the kernel gives a namespace only other monotonic ones."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def _other_clock(ahead_s: float) -> dict[str, str]:
    """The environment of a process whose wall clock is ahead; how fast time passes stays the same."""
    if not ahead_s:
        return {}
    library = fake_time_library()
    assert library is not None, "libfaketime is not installed"
    return {"LD_PRELOAD": str(library), "FAKETIME": f"+{ahead_s:g}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
