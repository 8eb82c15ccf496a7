"""Machines made of namespaces: each has its own processes, network and mounts, and vanishes with its first process.

A machine's first process reads from a pipe that this process holds open. Whatever ends this process, be it a crash or
SIGKILL, ends that one, and the kernel then kills everything else in the machine: daemons, containers, network devices.
So nothing that runs outlives a test run; only directories and empty cgroups do, and the next run sweeps them.

The switch between the machines is a bridge in a namespace of its own. Nothing touches the network of the real machine,
neither its firewall nor its routes, and runs side by side do not see each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

NAME_PREFIX = "gary-engines-"
NETWORK = "10.77.0"
COMMAND_TIMEOUT_S = 30.0

# cat ends when the pipe does. It inherits that SIGCHLD is ignored, so the kernel reaps the orphans that it is given.
_FIRST_PROCESS = "{setup}\necho up\ntrap '' CHLD\nexec cat >/dev/null"


class CommandError(Exception):
    """A command of the harness itself failed; the text has the command and what it said."""


def run(command: Sequence[str], *, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Run a command to its end and return what it printed. Raises ``CommandError``."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise CommandError(
            f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()} {done.stdout.strip()}"
        )
    return done.stdout


class Machine:
    """Process, network and mount namespaces of one machine. It can be switched off and on again; mounts go."""

    def __init__(self, setup: str = "") -> None:
        """``setup``: shell lines that run first, inside, at each start (mounts)."""
        self._setup = f"set -e\nmount --make-rprivate /\n{setup}"
        self._holder: subprocess.Popen[bytes] | None = None
        self._first_pid = 0

    @property
    def is_on(self) -> bool:
        return self._holder is not None

    @property
    def first_pid(self) -> int:
        """The first process's pid, as seen from outside."""
        assert self._holder is not None, "the machine is off"
        return self._first_pid

    def power_on(self) -> None:
        """Make the namespaces. Raises ``CommandError`` with what the set-up said."""
        assert self._holder is None, "the machine is on"
        script = _FIRST_PROCESS.format(setup=self._setup)
        holder = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--net", "--mount", "--mount-proc", "--kill-child", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # an interrupt from the terminal is for the test run, which tears down in order
        )
        assert holder.stdout is not None
        if holder.stdout.readline() != b"up\n":
            _, said = holder.communicate()
            raise CommandError(
                f"the namespaces of a machine could not be set up: {said.decode(errors='replace').strip()}"
            )
        self._first_pid = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()[0])
        self._holder = holder

    def power_off(self) -> None:
        """Kill every process in it in one instant, as a pulled plug does. Returns when all are gone."""
        self.pull_plug()
        self.wait_off()

    def pull_plug(self) -> None:
        """The first half of ``power_off``, for several machines at once: kill, and do not wait."""
        if self._holder is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._first_pid, signal.SIGKILL)

    def wait_off(self) -> None:
        if self._holder is None:
            return
        holder, self._holder = self._holder, None
        holder.communicate(timeout=COMMAND_TIMEOUT_S)

    def entering(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
        """The command line that runs ``command`` inside."""
        assignments = ["env", *(f"{key}={value}" for key, value in environment.items())] if environment else []
        return ["nsenter", f"--target={self.first_pid}", "--net", "--mount", "--pid", "--", *assignments, *command]

    def run(self, command: Sequence[str], *, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a command inside, to its end. Raises ``CommandError``."""
        return run(self.entering(command), stdin=stdin, timeout_s=timeout_s)

    def spawn(self, command: Sequence[str], log: IO[bytes], environment: Mapping[str, str] | None = None) -> Process:
        """Start a daemon inside; all that it prints goes to ``log``."""
        entering = subprocess.Popen(
            self.entering(command, environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return Process(entering)

    def processes(self) -> list[int]:
        """The pids, as seen from outside, of all processes in its network: its daemons, and containers in host mode."""
        network = Path(f"/proc/{self.first_pid}/ns/net").stat().st_ino
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            # it may have ended meanwhile, and some of the real machine's are hidden even from root
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                if (entry / "ns/net").stat().st_ino == network:
                    found.append(int(entry.name))
        return sorted(found)

    def outside(self, path: Path) -> Path:
        """Where the file that is at ``path`` inside is found from outside, even on a mount of the machine's own."""
        return Path(f"/proc/{self.first_pid}/root") / path.relative_to("/")


class Process:
    """A daemon inside a machine, started through ``nsenter``, which waits for it and passes its exit code on."""

    def __init__(self, entering: subprocess.Popen[bytes]) -> None:
        self._entering = entering

    @property
    def pid(self) -> int | None:
        """Its pid, as seen from outside; None when it has ended or not begun."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent = self._entering.pid
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            return int(children[0]) if children else None
        return None

    @property
    def exit_code(self) -> int | None:
        return self._entering.poll()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it is gone."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end. Raises ``subprocess.TimeoutExpired``."""
        return self._entering.wait(timeout_s)


class Switch:
    """The bridge that joins the machines. Each port is one cable."""

    def __init__(self) -> None:
        self._machine = Machine()
        self._sides = 0

    def start(self) -> None:
        self._machine.power_on()
        self._ip("link add br0 type bridge", "link set br0 up")

    def stop(self) -> None:
        self._machine.power_off()

    def plug_in(self, machine: Machine, number: int) -> None:
        """Give the machine an ``eth0`` with the address of ``number``."""
        with contextlib.suppress(
            CommandError
        ):  # the old cable: it goes with the machine's old namespace, but not at once
            self._ip(f"link del p{number}")
        hardware = f"02:00:00:00:00:{number:02x}"  # when the machine comes back, it is the one that the others remember
        self._ip(
            f"link add p{number} type veth peer name eth0 address {hardware} netns {machine.first_pid}",
            f"link set p{number} master br0 up",
        )
        machine.run(
            ["ip", "-batch", "-"],
            stdin=f"link set lo up\naddr add {address(number)}/24 dev eth0\nlink set eth0 up\n"
            # dockerd and many programs want a default route; nothing is there, and nothing but the switch is reachable
            f"route add default via {NETWORK}.254\n",
        )

    def cut(self, number: int) -> None:
        """Pull the cable of a machine: it and the others see the link go down."""
        self._ip(f"link set p{number} down")

    def restore(self, number: int) -> None:
        self._ip(f"link set p{number} up")

    def bytes_carried(self, numbers: Sequence[int]) -> dict[int, int]:
        """What has gone over each machine's cable since it was plugged in, both ways, with all headers."""
        command = ["nsenter", f"--net=/proc/{self._machine.first_pid}/ns/net", "ip", "-json", "-stats", "link", "show"]
        stats = {link["ifname"]: link["stats64"] for link in json.loads(run(command))}
        ports = ((number, stats[f"p{number}"]) for number in numbers)
        return {number: carried["rx"]["bytes"] + carried["tx"]["bytes"] for number, carried in ports}

    def separate(self, sides: Sequence[Sequence[int]]) -> None:
        """Divide the machines into sides that cannot reach each other, though their links are up: each has a bridge."""
        for side, numbers in enumerate(sides, start=1):
            moves = [f"link set p{number} master br{side}" for number in numbers]
            self._ip(f"link add br{side} type bridge", f"link set br{side} up", *moves)
        self._sides = len(sides)

    def unite(self, numbers: Sequence[int]) -> None:
        """Undo ``separate``. ``numbers``: the machines that are on."""
        bridges = [f"link del br{side}" for side in range(1, self._sides + 1)]
        self._ip(*bridges, *(f"link set p{number} master br0" for number in numbers))
        self._sides = 0

    def _ip(self, *lines: str) -> None:
        # only the network is the switch's own, so that pids mean the same to ip as they do here
        command = ["nsenter", f"--net=/proc/{self._machine.first_pid}/ns/net", "ip", "-batch", "-"]
        run(command, stdin="".join(f"{line}\n" for line in lines))


def address(number: int) -> str:
    """The address of machine ``number`` (1 to 253)."""
    return f"{NETWORK}.{number}"


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A directory for one run, removed at its end with the cgroup of the same name; earlier runs' leftovers go, too.

    A run holds a lock on its directory, so a directory that can be locked belongs to nobody any more.
    """
    _sweep()
    directory = Path(tempfile.mkdtemp(prefix=NAME_PREFIX))
    held = os.open(directory, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield directory
    finally:
        os.close(held)
        _remove(directory)


def _sweep() -> None:
    for directory in sorted(Path(tempfile.gettempdir()).glob(f"{NAME_PREFIX}*")):
        held = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        finally:
            os.close(held)
        _remove(directory)


def _remove(directory: Path) -> None:
    shutil.rmtree(directory)
    for cgroup in [*Path("/sys/fs/cgroup").glob(directory.name), *Path("/sys/fs/cgroup").glob(f"*/{directory.name}")]:
        for branch, _, _ in os.walk(cgroup, topdown=False):
            Path(branch).rmdir()
