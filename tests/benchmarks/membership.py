"""Gary's membership library beside Serf: 30 agents each, in the same network namespaces, in one go.

    python -m tests.benchmarks.membership [--only serf,gary] [--works join,idle,kill,freeze,cut,starve] [--json F.json]

Needs root and Debian's package ``serf``. Each agent is a process in a namespace of its own, with a cable to one switch.
Serf runs with its LAN profile and an encryption key, Gary's agents are ``gossip`` alone with TLS. The clock starts when
the harm is done, and stops when the agents themselves write down what they learn; everything is read by one thread.

Bytes are what went over an agent's cable, with all headers down to Ethernet's, sent and received together halved.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import selectors
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol

from rich.console import Console
from rich.table import Table

from gossip.testing import node_id
from tests.benchmarks.gossip_agents import Plan
from tests.benchmarks.gossip_children import Authority
from tests.benchmarks.measuring import cpu_s, resident_mb, wait_until
from tests.engines.namespaces import Machine, Switch, address

AGENTS = 30
STARVED = 10
PORT = 7946
JOIN_TIMEOUT_S = 60.0
DETECTION_TIMEOUT_S = 60.0
RETURN_TIMEOUT_S = 120.0
QUIET_S = 5.0
IDLE_REST_S = 60.0
"""More than two rounds of probes: connections are made in the first."""
IDLE_S = 30.0
STARVED_S = 60.0
STARVED_CPU_S = 0.01
"""Seconds of CPU that all starved agents together get in each second: less than they need at rest."""
VICTIMS = (AGENTS, AGENTS // 2, 7)
TABLE_WIDTH = 120
REPOSITORY = Path(__file__).parents[2]
CGROUPS = Path("/sys/fs/cgroup/cpu")

Figures = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Learned:
    """``observer`` wrote at ``at`` that it holds ``about`` alive, or no longer."""

    at: float
    observer: int
    about: int
    is_alive: bool


class Contestant(Protocol):
    """How one kind of agent is run. Agents are known by their numbers, from 1."""

    name: str

    def start(self, machine: Machine, number: int, epoch: int) -> subprocess.Popen[str]:
        """Start an agent that writes what it learns to its output. After its first epoch it finds the others itself."""

    def join(self, process: subprocess.Popen[str]) -> None:
        """Have an agent of the first epoch join through the first agent, if it does not by itself."""

    def is_up(self, line: str) -> bool:
        """Whether this is the line by which an agent says that it has started."""

    def read(self, line: str) -> tuple[int, bool] | None:
        """Whom a line is about, and whether it is held alive; None for lines about nothing of the kind."""


class Serf:
    """Hashicorp's Serf, with its defaults for a LAN."""

    name = "Serf"

    def __init__(self) -> None:
        self._key = base64.b64encode(os.urandom(32)).decode()

    def start(self, machine: Machine, number: int, epoch: int) -> subprocess.Popen[str]:
        command = ["serf", "agent", f"-node=n{number}", f"-bind={address(number)}:{PORT}", "-profile=lan"]
        command += [f"-encrypt={self._key}", "-log-level=info"]
        if number > 1 or epoch > 1:
            command += [f"-retry-join={address(1 if number > 1 else 2)}:{PORT}", "-retry-interval=1s"]
        return _spawn(machine, command)

    def join(self, process: subprocess.Popen[str]) -> None:
        """It has been told on its command line."""

    def is_up(self, line: str) -> bool:
        return "Serf agent running!" in line

    def read(self, line: str) -> tuple[int, bool] | None:
        found = re.search(r"EventMember(Join|Failed|Leave): n(\d+) ", line)
        return (int(found[2]), found[1] == "Join") if found else None


class Gossip:
    """Gary's ``gossip`` alone, with TLS."""

    name = "Gary"

    def __init__(self) -> None:
        authority = Authority()
        self._credentials = {number: authority.shown(node_id(number)) for number in range(1, AGENTS + 1)}
        self._numbers = {node_id(number): number for number in self._credentials}

    def start(self, machine: Machine, number: int, epoch: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.benchmarks.gossip_agents"]
        process = _spawn(machine, command, {"PYTHONPATH": str(REPOSITORY)})
        other = 1 if number > 1 else 2
        seeds = ((node_id(other), f"{address(other)}:{PORT}"),) if epoch > 1 else ()
        where = f"{address(number)}:{PORT}"
        plan = Plan(node_id(number), where, epoch, seeds, self._credentials[number], tells=True)
        _say(process, json.dumps([asdict(plan)]))
        return process

    def join(self, process: subprocess.Popen[str]) -> None:
        _say(process, f"join {address(1)}:{PORT}")

    def is_up(self, line: str) -> bool:
        return line == "ready"

    def read(self, line: str) -> tuple[int, bool] | None:
        node, _, status = line.partition(" ")
        if node not in self._numbers or status == "suspect":
            return None
        return self._numbers[node], status == "alive"


def _spawn(
    machine: Machine, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    entering = machine.entering(command, environment)
    pipe = subprocess.PIPE
    return subprocess.Popen(entering, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


class Observer:
    """Reads what all agents write, and when; in a thread of its own, so that no look of ours delays a reading."""

    def __init__(self, contestant: Contestant) -> None:
        self._contestant = contestant
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._learned: list[Learned] = []
        self._views: dict[int, set[int]] = {}
        self._up: dict[int, float] = {}
        self._is_over = False
        self._wake, self._woken = os.pipe()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def watch(self, number: int, output: IO[str]) -> None:
        """Read ``output`` of agent ``number``, which has just been started."""
        with self._lock:
            self._views[number] = {number}
            self._up.pop(number, None)
            self._selector.register(output.fileno(), selectors.EVENT_READ, (number, bytearray()))

    def stop(self) -> None:
        self._is_over = True
        os.write(self._woken, b"!")
        self._thread.join()
        for descriptor in (self._wake, self._woken):
            os.close(descriptor)

    def up(self) -> dict[int, float]:
        """When each agent said that it is up."""
        with self._lock:
            return dict(self._up)

    def all_see(self, numbers: set[int]) -> bool:
        """Whether each of these agents holds alive exactly these."""
        with self._lock:
            return all(self._views.get(number) == numbers for number in numbers)

    def learned(self, since: float) -> list[Learned]:
        with self._lock:
            return [one for one in self._learned if one.at >= since]

    def _read(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select(timeout=1.0):
                if key.data is None:
                    continue
                number, rest = key.data
                data = os.read(key.fd, 65536)
                at = time.monotonic()
                if not data:
                    self._selector.unregister(key.fd)
                    continue
                rest += data
                *lines, left = bytes(rest).split(b"\n")
                rest[:] = left
                with self._lock:
                    for line in lines:
                        self._heard(at, number, line.decode(errors="replace").strip())

    def _heard(self, at: float, number: int, line: str) -> None:
        if self._contestant.is_up(line):
            self._up[number] = at
        change = self._contestant.read(line)
        if change is not None:
            about, is_alive = change
            self._learned.append(Learned(at, number, about, is_alive))
            (self._views[number].add if is_alive else self._views[number].discard)(about)


class Field:
    """Machines on one switch, and the agents of one contestant in them."""

    def __init__(self, contestant: Contestant, machines: dict[int, Machine], switch: Switch) -> None:
        self._contestant = contestant
        self._machines = machines
        self._switch = switch
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._ended: list[subprocess.Popen[str]] = []
        self._epochs: dict[int, int] = defaultdict(int)
        self.observer = Observer(contestant)
        self.numbers = set(machines)

    def start(self, number: int) -> None:
        self._epochs[number] += 1
        process = self._contestant.start(self._machines[number], number, self._epochs[number])
        assert process.stdout is not None
        self.observer.watch(number, process.stdout)
        self._processes[number] = process

    def join(self) -> None:
        for number in sorted(self.numbers - {1}):
            self._contestant.join(self._processes[number])

    def pid(self, number: int) -> int:
        """The agent's own process: ``nsenter`` waits for it."""
        parent = self._processes[number].pid
        return int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])

    def signal(self, number: int, which: signal.Signals) -> None:
        os.kill(self.pid(number), which)

    def go_on(self, number: int) -> None:
        """End a stop. ``nsenter`` stops together with the process that it waits for."""
        self.signal(number, signal.SIGCONT)
        self._processes[number].send_signal(signal.SIGCONT)

    def kill(self, number: int) -> None:
        self.signal(number, signal.SIGKILL)
        self._forget(number)

    def cut(self, number: int) -> None:
        self._switch.cut(number)

    def restore(self, number: int) -> None:
        self._switch.restore(number)

    def end(self) -> None:
        for number in list(self._processes):
            with contextlib.suppress(ProcessLookupError, IndexError):
                self.signal(number, signal.SIGKILL)
            self._processes[number].send_signal(signal.SIGCONT)
            self._forget(number)
        self.observer.stop()
        for process in self._ended:
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()

    def _forget(self, number: int) -> None:
        # Its output stays open until it has been read to the end.
        process = self._processes.pop(number)
        process.wait()
        self._ended.append(process)

    def await_whole(self, timeout_s: float) -> float:
        """Until all see all; when that was."""
        wait_until(lambda: self.observer.all_see(self.numbers), timeout_s, "all see all")
        return time.monotonic()

    def bytes_over_cables(self) -> dict[int, int]:
        return self._switch.bytes_carried(sorted(self.numbers))


# The pieces of work. Each leaves the cluster whole.


def join(field: Field) -> Figures:
    """Start all agents at once, and have all but the first join through it."""
    began = time.monotonic()
    for number in sorted(field.numbers):
        field.start(number)
    wait_until(lambda: len(field.observer.up()) == len(field.numbers), JOIN_TIMEOUT_S, "all are up")
    up = max(field.observer.up().values())
    field.join()
    asked = time.monotonic()
    whole = field.await_whole(JOIN_TIMEOUT_S)
    return {
        "all processes up, s": [up - began],
        "all see all since the first process was started, s": [whole - began],
        "all see all since all are up, s": [whole - max(up, asked)],
    }


def idle(field: Field) -> Figures:
    """A cluster in which nothing happens, after all have gone round once: connections are there by then."""
    time.sleep(IDLE_REST_S)  # the round
    pids = [field.pid(number) for number in sorted(field.numbers)]
    began, cpu_before, bytes_before = time.monotonic(), [cpu_s(pid) for pid in pids], field.bytes_over_cables()
    time.sleep(IDLE_S)  # the measurement itself
    cpu_after, bytes_after = [cpu_s(pid) for pid in pids], field.bytes_over_cables()
    took = time.monotonic() - began
    used = [after - before for before, after in zip(cpu_before, cpu_after, strict=True)]
    carried = [(bytes_after[number] - bytes_before[number]) / 2 for number in bytes_after]
    return {
        "idle, CPU of an agent, %": [100 * statistics.mean(used) / took],
        "idle, RSS of an agent, MB": [statistics.median(resident_mb(pid) for pid in pids)],
        "idle, bytes per second of an agent, each way": [statistics.mean(carried) / took],
    }


def kill(field: Field) -> Figures:
    """A process is killed: its host refuses connections. Then it is started again."""
    return _losses(field, "killed", VICTIMS, field.kill, field.start)


def freeze(field: Field) -> Figures:
    """A process is stopped: its host takes connections, and nobody answers."""
    return _losses(
        field,
        "frozen",
        VICTIMS[:2],
        lambda number: field.signal(number, signal.SIGSTOP),
        field.go_on,
    )


def cut(field: Field) -> Figures:
    """A host's cable is pulled."""
    return _losses(field, "cut off", VICTIMS[:2], field.cut, field.restore)


def _losses(
    field: Field, how: str, victims: Sequence[int], lose: Callable[[int], None], give_back: Callable[[int], None]
) -> Figures:
    first, last, back = [], [], []
    for victim in victims:
        others = field.numbers - {victim}
        time.sleep(QUIET_S)  # the news of what was before has been told
        began = time.monotonic()
        lose(victim)

        def deaths(since: float = began, lost: int = victim) -> dict[int, float]:
            said = [one for one in field.observer.learned(since) if one.about == lost and not one.is_alive]
            return {one.observer: one.at - since for one in reversed(said) if one.observer != lost}

        def all_know(wanted: Set[int] = others, known: Callable[[], dict[int, float]] = deaths) -> bool:
            return wanted <= known().keys()

        wait_until(all_know, DETECTION_TIMEOUT_S, f"{victim} is missed")
        first.append(min(deaths().values()))
        last.append(max(deaths().values()))
        restored = time.monotonic()
        give_back(victim)
        back.append(field.await_whole(RETURN_TIMEOUT_S) - restored)
    return {
        f"{how}, first knows, s": first,
        f"{how}, all know, s": last,
        f"{how}, whole again after its return, s": back,
    }


def starve(field: Field) -> Figures:
    """A third of the agents get less CPU than they need at rest, together, for a minute."""
    starved = set(sorted(field.numbers)[-STARVED:])
    time.sleep(QUIET_S)  # the news of what was before has been told
    began = time.monotonic()
    with _starving([field.pid(number) for number in sorted(starved)]):
        time.sleep(STARVED_S)  # the measurement itself
    field.await_whole(RETURN_TIMEOUT_S)
    deaths = [one for one in field.observer.learned(began) if not one.is_alive]
    about_well = [one for one in deaths if one.about not in starved]
    return {
        "starved, deaths told of agents that are well": [len(about_well)],
        "starved, of these at agents that are well": [sum(one.observer not in starved for one in about_well)],
        "starved, deaths told of starved agents": [len(deaths) - len(about_well)],
    }


WORKS: dict[str, Callable[[Field], Figures]] = {
    "join": join,
    "idle": idle,
    "kill": kill,
    "freeze": freeze,
    "cut": cut,
    "starve": starve,
}
CONTESTANTS: dict[str, Callable[[], Contestant]] = {"serf": Serf, "gary": Gossip}


@contextlib.contextmanager
def _starving(pids: Sequence[int]) -> Iterator[None]:
    """The processes share ``STARVED_CPU_S`` seconds of CPU in each second."""
    group = CGROUPS / f"gary-membership-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text("1000000")
        (group / "cpu.cfs_quota_us").write_text(str(int(STARVED_CPU_S * 1_000_000)))
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for left in (group / "cgroup.procs").read_text().split():
            (CGROUPS / "cgroup.procs").write_text(left)
        group.rmdir()


@contextlib.contextmanager
def _machines() -> Iterator[tuple[dict[int, Machine], Switch]]:
    switch = Switch()
    machines: dict[int, Machine] = {}
    switch.start()
    try:
        for number in range(1, AGENTS + 1):
            machines[number] = Machine()
            machines[number].power_on()
            switch.plug_in(machines[number], number)
        yield machines, switch
    finally:
        for machine in machines.values():
            machine.power_off()
        switch.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="contestants (default: %(default)s)")
    parser.add_argument("--works", default=",".join(WORKS), help="pieces of work (default: %(default)s)")
    parser.add_argument(
        "--json", type=Path, default=None, help="write all figures to this file, too, after each piece of work"
    )
    options = parser.parse_args()
    works = options.works.split(",")
    if works[0] != "join":
        parser.error("the first piece of work is always: join")
    # Whoever ends this by a signal is not left with its processes, namespaces and groups.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    told = Console(stderr=True)
    figures: dict[str, Figures] = {}
    with _machines() as (machines, switch):
        for name in options.only.split(","):
            contestant = CONTESTANTS[name]()
            field = Field(contestant, machines, switch)
            found = figures[contestant.name] = {}
            try:
                for work in works:
                    told.print(f"{contestant.name}: {work}", style="dim")
                    found |= WORKS[work](field)
                    if options.json is not None:
                        options.json.write_text(json.dumps(figures, indent=2))
            finally:
                field.end()
    Console(width=TABLE_WIDTH).print(_table(figures))


def _table(figures: dict[str, Figures]) -> Table:
    table = Table("30 agents each", *figures)
    for work in next(iter(figures.values())):
        table.add_row(work, *(_range(found[work]) for found in figures.values()))
    return table


def _range(values: Sequence[float]) -> str:
    """One value, or lowest, median and highest."""
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{min(values):.2f} / {statistics.median(values):.2f} / {max(values):.2f}"


if __name__ == "__main__":
    main()
