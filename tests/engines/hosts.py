"""Hosts and a cluster of them: machine, engine and agent together, what can be done to them, and what is the case."""

from __future__ import annotations

import contextlib
import json
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.engines.agents import Agent, AgentError
from tests.engines.engines import MACHINE_SETUP, Engine, EngineError, RunningContainer, busybox_archive
from tests.engines.namespaces import Machine, Switch, address, workspace

POLL_INTERVAL_S = 0.05
JOIN_TIMEOUT_S = 20.0

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Placed:
    """A running container of Gary's, the host it runs on, and since when, in the engine's words."""

    host: str
    slot: str
    id: str
    started_at: str


class Host:
    """One host of the cluster: ``h1``, ``h2``, ..."""

    def __init__(self, switch: Switch, directory: Path, cgroup: str, number: int) -> None:
        self._switch = switch
        self.number = number
        self.name = f"h{number}"
        self.machine = Machine(MACHINE_SETUP)
        self.engine = Engine(self.machine, directory / self.name / "engine", cgroup)
        self.agent = Agent(self.machine, self.engine, directory / self.name / "gary", number, self.name)
        self._link_is_up = True

    def __repr__(self) -> str:
        return self.name

    @property
    def is_on(self) -> bool:
        return self.machine.is_on

    def power_on(self) -> None:
        """Boot it: network and engine. The engine's disk and the agent's are as they were."""
        self.machine.power_on()
        self._switch.plug_in(self.machine, self.number)
        self._link_is_up = True
        self.engine.start()

    def power_off(self) -> None:
        """Kill every process on it at once: agent, engine, containers."""
        power_off([self])

    def cut(self) -> None:
        """Take its link down."""
        self._switch.cut(self.number)
        self._link_is_up = False

    def restore(self) -> None:
        if not self._link_is_up:
            self._switch.restore(self.number)
            self._link_is_up = True

    def lose_all_from(self, other: Host) -> None:
        """Drop whatever the other host sends to this one; the way back stays open."""
        loss = ["-m", "statistic", "--mode", "random", "--probability", "1.0"]
        self.machine.run(["iptables", "-I", "INPUT", "-s", address(other.number), *loss, "-j", "DROP"])

    def lose_nothing(self) -> None:
        """Take back ``lose_all_from``."""
        self.machine.run(["iptables", "-F", "INPUT"])

    def running(self, deployment: str = "") -> list[RunningContainer]:
        """Its running containers that Gary started; none when its engine is away. ``deployment``: the opaque id."""
        if not self.is_on or not self.engine.answers():
            return []
        return self.engine.containers(f"gary.deployment={deployment}" if deployment else "gary.deployment")


def power_off(hosts: Sequence[Host]) -> None:
    """Kill every process of all these hosts in one instant."""
    for host in hosts:
        host.machine.pull_plug()
    for host in hosts:
        host.machine.wait_off()
        host.agent.gone()
        host.engine.gone()


def in_parallel(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Do it for all at once; the results in order. The first exception is raised when all have ended."""
    with ThreadPoolExecutor(max_workers=32) as pool:
        return list(pool.map(work, items))


class Cluster:
    """Hosts on one switch. ``hosts`` are all there are; those that have an agent are up to the test."""

    def __init__(self, directory: Path, size: int) -> None:
        self._directory = directory
        self._switch = Switch()
        self.hosts = [Host(self._switch, directory, directory.name, number) for number in range(1, size + 1)]
        self.replay = ""

    def power_on(self) -> None:
        """Boot all hosts, with the image on each; no agent yet."""
        self._switch.start()
        archive = busybox_archive()

        def boot(host: Host) -> None:
            host.power_on()
            host.engine.import_image(archive)

        in_parallel(boot, self.hosts)

    def power_off(self) -> None:
        power_off(self.hosts)
        self._switch.stop()

    def reset(self) -> None:
        """Whatever a test has done: all hosts on and linked, no agent, no container, no state."""
        self.unite()

        def restore(host: Host) -> None:
            if not host.is_on:
                host.power_on()
            host.restore()
            host.agent.kill()
            if not host.engine.answers():
                host.engine.stop()
                host.engine.start()
            host.lose_nothing()
            host.agent.wipe()
            host.agent.log.unlink(missing_ok=True)
            host.engine.remove_everything()

        in_parallel(restore, self.hosts)

    def start_agents(
        self,
        count: int,
        *,
        labels: Callable[[Host], Sequence[str]] = lambda host: (),
        clocks_ahead_s: Mapping[int, float] = types.MappingProxyType({}),
    ) -> list[Host]:
        """Start agents on the first ``count`` hosts and join them into one cluster. Returns these hosts.

        ``clocks_ahead_s``: by number of the host, how far the agent's clock is ahead of the others'.
        """
        hosts = self.hosts[:count]

        def start(host: Host) -> None:
            arguments = [word for label in labels(host) for word in ("--label", label)]
            host.agent.start(arguments=arguments, clock_ahead_s=clocks_ahead_s.get(host.number, 0.0))

        in_parallel(start, hosts)
        first, *others = hosts
        token = first.agent.invite(len(others))
        in_parallel(lambda host: host.agent.gary("join", "--token", token), others)
        self.eventually(lambda: all(self.sees(host, hosts) for host in hosts), JOIN_TIMEOUT_S, "all see all alive")
        return hosts

    def sees(self, host: Host, alive: Sequence[Host]) -> bool:
        """Whether ``host`` holds exactly these hosts for alive."""
        try:
            nodes = host.agent.ask("/v1/nodes")["nodes"]
        except AgentError:
            return False
        return sorted(node["name"] for node in nodes if node["status"] == "alive") == sorted(h.name for h in alive)

    def divide(self, *sides: Sequence[Host]) -> None:
        """Partition these hosts; all others stay together on a side of their own."""
        self._switch.separate([[host.number for host in side] for side in sides])

    def unite(self) -> None:
        """Undo ``divide``."""
        self._switch.unite([host.number for host in self.hosts if host.is_on])

    def deploy(self, host: Host, file: Mapping[str, Any], *flags: str) -> Any:
        """``gary deploy`` on a host; the answer. Raises ``GaryCommandError``."""
        return host.agent.gary("deploy", str(self.write(file)), *flags)

    def write(self, file: Mapping[str, Any]) -> Path:
        """A Compose file of its own name, where every host can read it."""
        path = self._directory / f"{file['name']}.yaml"
        path.write_text(json.dumps(file, indent=2))
        return path

    def placed(self, hosts: Sequence[Host] | None = None) -> list[Placed]:
        """Gary's running containers with their starting times, by host and slot."""

        def of(host: Host) -> list[Placed]:
            found = []
            for container in host.running():
                with contextlib.suppress(EngineError):  # removed between the two questions
                    found.append(Placed(host.name, container.slot, container.id, host.engine.started_at(container.id)))
            return found

        each = in_parallel(of, self.hosts if hosts is None else hosts)
        return sorted((one for host in each for one in host), key=lambda one: (one.host, one.slot))

    def running(self, hosts: Sequence[Host] | None = None) -> dict[str, list[str]]:
        """The slots that really run, by host: what the engines say."""
        chosen = self.hosts if hosts is None else hosts
        each = in_parallel(lambda host: host.running(), chosen)
        return {h.name: sorted(c.slot for c in containers) for h, containers in zip(chosen, each, strict=True)}

    def count(self, hosts: Sequence[Host] | None = None) -> int:
        """How many containers of Gary's really run."""
        return sum(len(slots) for slots in self.running(hosts).values())

    def each_once(self, slots: Iterable[str], hosts: Sequence[Host] | None = None) -> bool:
        """Whether exactly these slots run on these hosts, each of them once."""
        running = self.running(hosts)
        return sorted(slot for each in running.values() for slot in each) == sorted(slots)

    def eventually(self, condition: Callable[[], T], timeout_s: float, why: str) -> T:
        """Look until the condition is true and return what it returned. Fails with the state of everything.

        An ``AgentError`` or ``EngineError`` of the condition means: not yet.
        """
        deadline = time.monotonic() + timeout_s
        last_error = ""
        while True:
            try:
                if result := condition():
                    return result
            except (AgentError, EngineError, OSError) as error:
                last_error = f"{type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s:g} s: {why}\n{last_error}\n{self.report()}")
            time.sleep(POLL_INTERVAL_S)  # the interval between two looks

    def always(self, condition: Callable[[], bool], duration_s: float, why: str) -> None:
        """Look again and again for ``duration_s``; the condition must hold at each look."""
        deadline = time.monotonic() + duration_s
        while time.monotonic() < deadline:
            if not condition():
                raise AssertionError(f"no longer: {why}\n{self.report()}")
            time.sleep(POLL_INTERVAL_S)  # the interval between two looks

    def eventually_each_once(
        self, slots: Sequence[str], timeout_s: float, why: str, *, on: Sequence[Host] | None = None
    ) -> None:
        """Look until exactly these slots run on these hosts (all, unless said), each of them once."""
        self.eventually(lambda: self.each_once(slots, on), timeout_s, why)

    def stays_each_once(self, slots: Sequence[str], duration_s: float) -> None:
        """Exactly these slots run, each of them once, now and for ``duration_s``."""
        self.always(lambda: self.each_once(slots), duration_s, f"{len(slots)} slots run, each once")

    def eventually_constant(self, value: Callable[[], object], duration_s: float, timeout_s: float, why: str) -> None:
        """Look until the value has not changed for ``duration_s``."""
        last, since = value(), time.monotonic()

        def constant() -> bool:
            nonlocal last, since
            if (now := value()) != last:
                last, since = now, time.monotonic()
            return time.monotonic() - since >= duration_s

        self.eventually(constant, timeout_s, why)

    def report(self) -> str:
        """The state of all hosts, and how to run this test again."""
        parts = [_state(host) for host in self.hosts if host.agent.log.exists()]
        if self.replay:
            parts.append(f"again: {self.replay}")
        return "\n".join(parts)

    def keep_logs(self, directory: Path) -> None:
        """Copy the logs of all agents and engines to ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        for host in self.hosts:
            for log, name in ((host.agent.log, "gary"), (host.engine.log, "dockerd")):
                if log.exists():
                    (directory / f"{host.name}.{name}.log").write_bytes(log.read_bytes())


def _state(host: Host) -> str:
    if not host.is_on:
        return f"--- {host.name}: off"
    try:
        containers = ", ".join(f"{c.slot or c.name} {c.state}" for c in host.engine.containers(running=False))
    except (EngineError, OSError) as error:
        containers = f"the engine does not answer: {error}"
    lines = [f"--- {host.name}: agent {'runs' if host.agent.runs else 'does not run'}", f"    containers: {containers}"]
    try:
        nodes = host.agent.ask("/v1/nodes")["nodes"]
        lines.append("    sees: " + ", ".join(f"{node['name']} {node['status']}" for node in nodes))
        names = [deployment["name"] for deployment in host.agent.ask("/v1/deployments")["deployments"]]
        lines.extend(f"    {json.dumps(host.agent.ask('/v1/deployments/' + name))}" for name in names)
    except AgentError as error:
        lines.append(f"    {error}")
    lines.append("\n".join("    | " + line for line in host.agent.log_tail(25).splitlines()))
    return "\n".join(lines)


@contextlib.contextmanager
def cluster(size: int) -> Iterator[Cluster]:
    """``size`` hosts with engines; everything is gone afterwards, whatever happens."""
    with workspace() as directory:
        hosts = Cluster(directory, size)
        try:
            hosts.power_on()
            yield hosts
        finally:
            hosts.power_off()
