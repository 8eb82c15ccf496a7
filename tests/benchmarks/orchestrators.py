"""Gary beside Docker Swarm and the bare engine API, on the same five engines in one go.

    python -m tests.benchmarks.orchestrators [--repeats 3] [--only gary] [--json figures.json]

Needs root and what the tests on engines need. The clock starts when the request reaches the local API, or when the host
is lost, and stops when the engines report the containers running. Nobody is given a head start: the containers are the
same, with the same image and network mode, and the engines are warm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.contestants import Contestant, Gary, RawApi, Swarm, daemons
from tests.benchmarks.measuring import cpu_s, resident_mb
from tests.engines.engines import missing_for_engines
from tests.engines.hosts import Cluster, Host, cluster, power_off
from tests.engines.watch import at_least, watching

HOSTS = 5
CONTAINERS = 20
CONTESTANTS: dict[str, Callable[[], Contestant]] = {"raw": RawApi, "swarm": Swarm, "gary": Gary}
DEPLOY_TIMEOUT_S = 60.0
TABLE_WIDTH = 140


@dataclass(frozen=True, slots=True)
class Loss:
    """A way to lose hosts. ``chosen`` picks them, ``lose`` does it, ``target`` is what Gary is to reach, in seconds."""

    work: str
    chosen: Callable[[Cluster, Contestant], Sequence[Host]]
    lose: Callable[[Sequence[Host]], None]
    target: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What one contestant took for one piece of work; None stands for: not within the patience."""

    work: str
    contestant: str
    unit: str
    values: tuple[float | None, ...]

    @property
    def text(self) -> str:
        """Minimum, median and maximum; or that it never came to be."""
        reached = sorted(value for value in self.values if value is not None)
        if not reached:
            return "never"
        shown = f"{reached[0]:.2f} / {statistics.median(reached):.2f} / {reached[-1]:.2f} {self.unit}"
        missed = len(self.values) - len(reached)
        return f"{shown}, {missed} x never" if missed else shown


def cut(hosts: Sequence[Host]) -> None:
    for host in hosts:
        host.cut()


def _ordinary(hosts: Cluster, contestant: Contestant) -> Sequence[Host]:
    return hosts.hosts[-1:]


def _special(hosts: Cluster, contestant: Contestant) -> Sequence[Host]:
    return [contestant.special(hosts)]


def _most(hosts: Cluster, contestant: Contestant) -> Sequence[Host]:
    """Three of five: the special host and two more, among them a second manager of three."""
    return hosts.hosts[:3]


def _all_but_one(hosts: Cluster, contestant: Contestant) -> Sequence[Host]:
    return hosts.hosts[:-1]


DEPLOY = f"{CONTAINERS} containers over {HOSTS} engines running"
LOSSES = (
    Loss("a host cut off, its share running elsewhere", _ordinary, cut, "6 s"),
    Loss("the special host (leader, sponsor) cut off", _special, cut, "6 s"),
    Loss("3 of 5 hosts killed at once", _most, power_off, "10 s"),
    Loss("all but one killed at once", _all_but_one, power_off, "15 s"),
)
MEMORY = f"at rest with {CONTAINERS} containers: memory per node"
PROCESSOR = f"at rest with {CONTAINERS} containers: CPU per node"
TARGETS = {DEPLOY: "1.25 x raw", **{loss.work: loss.target for loss in LOSSES}, MEMORY: "50 MB", PROCESSOR: "0.5 %"}


class Benchmark:
    """Measures on one cluster; each measurement begins and ends with bare hosts."""

    def __init__(self, hosts: Cluster, network: str, patience_s: float, console: Console) -> None:
        self._hosts = hosts
        self._network = network
        self._patience_s = patience_s
        self._console = console

    def deploy(self, contestant: Contestant) -> float | None:
        """Seconds until all containers run."""
        with Trial(self._hosts, contestant), watching(self._hosts.hosts) as watch:
            begin = contestant.deploy(self._hosts, CONTAINERS, self._network)
            end = watch.wait_until(at_least(CONTAINERS, self._hosts.hosts), DEPLOY_TIMEOUT_S)
            return None if end is None else end - begin

    def loss(self, contestant: Contestant, loss: Loss) -> float | None:
        """Seconds until all containers run on the hosts that are left."""
        with Trial(self._hosts, contestant), watching(self._hosts.hosts) as watch:
            contestant.deploy(self._hosts, CONTAINERS, self._network)
            if watch.wait_until(at_least(CONTAINERS, self._hosts.hosts), DEPLOY_TIMEOUT_S) is None:
                return None
            self._settle()
            lost = loss.chosen(self._hosts, contestant)
            left = [host for host in self._hosts.hosts if host not in lost]
            begin = time.monotonic()
            loss.lose(lost)
            end = watch.wait_until(at_least(CONTAINERS, left), self._patience_s)
            return None if end is None else end - begin

    def rest(self, contestant: Contestant, duration_s: float) -> tuple[float, float]:
        """Resident megabytes, and percent of one core, of its daemons on the median host while nothing happens."""
        with Trial(self._hosts, contestant), watching(self._hosts.hosts) as watch:
            contestant.deploy(self._hosts, CONTAINERS, self._network)
            if watch.wait_until(at_least(CONTAINERS, self._hosts.hosts), DEPLOY_TIMEOUT_S) is None:
                raise RuntimeError(f"{contestant.name} did not get {CONTAINERS} containers to run")
            self._settle()
            pids_by_host = [daemons(host, contestant) for host in self._hosts.hosts]
            before = [sum(map(cpu_s, pids)) for pids in pids_by_host]
            begin = time.monotonic()
            time.sleep(duration_s)  # the measurement itself
            after = [sum(map(cpu_s, pids)) for pids in pids_by_host]
            passed_s = time.monotonic() - begin
            used = statistics.median(late - early for early, late in zip(before, after, strict=True))
            memory = statistics.median(sum(map(resident_mb, pids)) for pids in pids_by_host)
            return memory, 100 * used / passed_s

    def _settle(self) -> None:
        """Let what follows a deployment pass, so that what comes next is measured alone."""
        time.sleep(3)

    def say(self, what: str) -> None:
        self._console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {what}")


class Trial:
    """One measurement's surroundings: hosts reset and the contestant prepared, and all of it undone afterwards."""

    def __init__(self, hosts: Cluster, contestant: Contestant) -> None:
        self._hosts = hosts
        self._contestant = contestant

    def __enter__(self) -> None:
        self._contestant.prepare(self._hosts)

    def __exit__(self, *exception: object) -> None:
        self._hosts.reset()
        self._contestant.clear(self._hosts)
        self._hosts.reset()


def measure(benchmark: Benchmark, contestants: Sequence[Contestant], repeats: int, rest_s: float) -> list[Figures]:
    """All figures of all contestants, round by round, so that a slow minute of the machine meets everybody."""
    values: dict[tuple[str, str], list[float | None]] = {}

    def note(work: str, contestant: Contestant, value: float | None, unit: str = "s") -> None:
        values.setdefault((work, contestant.name), []).append(value)
        benchmark.say(f"{contestant.name}: {work}: {'never' if value is None else f'{value:.2f} {unit}'}")

    for _ in range(repeats):
        for contestant in contestants:
            note(DEPLOY, contestant, benchmark.deploy(contestant))
    for loss in LOSSES:
        for contestant in (each for each in contestants if each.survives):
            for _ in range(repeats):
                value = benchmark.loss(contestant, loss)
                note(loss.work, contestant, value)
                if value is None:
                    break  # it would be the same again, at the price of our patience
    if rest_s:
        for contestant in contestants:
            memory, processor = benchmark.rest(contestant, rest_s)
            note(MEMORY, contestant, memory, "MB")
            note(PROCESSOR, contestant, processor, "%")
    units = {MEMORY: "MB", PROCESSOR: "%"}
    return [
        Figures(work, contestant, units.get(work, "s"), tuple(found)) for (work, contestant), found in values.items()
    ]


def table(figures: Sequence[Figures], contestants: Sequence[Contestant], rest_s: float) -> Table:
    """One row to a piece of work: minimum / median / maximum."""
    about_rest = f"at rest: the median host in {rest_s:g} s; raw API and Swarm are dockerd and containerd"
    shown = Table(title="minimum / median / maximum", caption=about_rest)
    shown.add_column("work")
    for contestant in contestants:
        shown.add_column(contestant.name, justify="right")
    shown.add_column("to reach", justify="right")
    by_place = {(each.work, each.contestant): each.text for each in figures}
    for work, target in TARGETS.items():
        if any(work == each.work for each in figures):
            shown.add_row(work, *(by_place.get((work, each.name), "") for each in contestants), target)
    return shown


def main() -> int:
    """Measure and print; exit code 2 where engines cannot run."""
    parser = argparse.ArgumentParser(
        description="Gary beside Docker Swarm and the bare engine API, on the same engines."
    )
    parser.add_argument("--repeats", type=int, default=3, help="how often each piece of work is measured")
    parser.add_argument(
        "--only", choices=sorted(CONTESTANTS), action="append", help="measure only this one (repeatable)"
    )
    parser.add_argument("--network", choices=("host", "bridge"), default="host", help="network mode of all containers")
    parser.add_argument(
        "--patience", type=float, default=90, help="seconds after which a loss counts as never repaired"
    )
    parser.add_argument("--rest", type=float, default=60, help="seconds to measure at rest; 0: not at all")
    parser.add_argument("--json", type=Path, help="also write all values to this file")
    chosen = parser.parse_args()
    console = Console(stderr=True)
    if reason := missing_for_engines():
        console.print(f"cannot measure here: {reason}")
        return 2
    contestants = [CONTESTANTS[name]() for name in chosen.only or CONTESTANTS]
    with cluster(HOSTS) as hosts:
        benchmark = Benchmark(hosts, chosen.network, chosen.patience, console)
        figures = measure(benchmark, contestants, chosen.repeats, chosen.rest)
    output = Console()
    if not output.is_terminal:
        output = Console(width=TABLE_WIDTH)  # a file has no width of its own
    output.print(table(figures, contestants, chosen.rest))
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(each) for each in figures], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
