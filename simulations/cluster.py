"""A cluster of whole agents in virtual time: its hosts, what happens to them, what operators ask, what is to be seen.

One seed decides everything: the same seed gives the same trace, in any process, whatever its hash seed.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import msgpack

from gary.advertisements import decode_profile
from gary.agent import Agent, Settings
from gary.boot import CLUSTER_ID_SIZE_BYTES, SECRET_SIZE_BYTES, boot, cluster_writes
from gary.effects import (
    Effect,
    Reply,
)
from gary.epochs import CHANGES_PER_EPOCH
from gary.errors import CommandError, error_in
from gary.identity import NodeId
from gary.runtime.base import Capacity, Container, ContainerState
from gary.runtime.memory import DEFAULT_CAPACITY, MemoryEngine
from gary.spec import Spec, to_json
from gary.storage import MemoryStorage, PutRecord, Table, Write
from gary.trust.keys import SEED_SIZE_BYTES, KeyPair, node_id_of
from gary.trust.notary import Founded
from gary.trust.operator import Operator
from gary.trust.standing import found, founding_writes
from gossip import Roll, SwimConfig
from simulations import notary
from simulations.clock import Clock
from simulations.driver import Driver
from simulations.host import Host
from simulations.network import Endpoint, Link, Network
from simulations.sight import Sight
from simulations.timing import Timing

FORMING_S = 2.0
"""Within so long an agent has looked at its engine and says what it has to offer."""


class Watcher(Protocol):
    """Sees everything just before it happens. Checkers are watchers. ``watches``: the kinds of effects that it sees."""

    @property
    def watches(self) -> tuple[type, ...]: ...

    def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
        """``host``'s agent has asked for ``effect``."""

    def wrote(self, cluster: Cluster, host: Host, writes: Sequence[Write]) -> None:
        """``writes`` are on the disk of ``host``, and its agent does not know yet."""


class Cluster:
    """``count`` hosts with agents that have not started. All randomness comes from ``seed``."""

    def __init__(
        self,
        count: int,
        seed: int,
        *,
        link: Link | None = None,
        swim: SwimConfig | None = None,
        capacity: Capacity = DEFAULT_CAPACITY,
        changes_per_epoch: int = CHANGES_PER_EPOCH,
        between: Callable[[str, str], Link] | None = None,
        handshake_s: float = 0.005,
    ) -> None:
        self.seed = seed
        self.clock = Clock()
        self.counters: defaultdict[str, int] = defaultdict(int)
        self.rng = random.Random(seed)
        self.network = Network(
            self.clock,
            random.Random(self.rng.random()),
            link or Link(),
            between=between,
            handshake_s=handshake_s,
            counters=self.counters,
        )
        self._swim = swim or SwimConfig()
        self._changes_per_epoch = changes_per_epoch
        self._commands = 0
        self._sight = Sight()
        # Its own, so that what operators ask changes nothing about what else happens by chance.
        self._operators_rng = random.Random(f"operators {seed}")
        self.operator_key = KeyPair(self._operators_rng.randbytes(SEED_SIZE_BYTES))
        self.driver = Driver(self.clock, self.network, self.rng, self.counters, partial(self.kill, with_host=False))
        self.hosts: list[Host] = []
        for _ in range(count):
            self.add(capacity)

    def watch(self, *watchers: Watcher) -> None:
        """Let them see everything from now on, in this order."""
        for watcher in watchers:
            self.driver.watch_writes(partial(watcher.wrote, self))
            for kind in watcher.watches:
                self.driver.watch(kind, partial(watcher.performs, self))

    @property
    def trace(self) -> str:
        """A digest of everything that happened, in order."""
        return self.driver.trace

    def add(
        self,
        capacity: Capacity = DEFAULT_CAPACITY,
        labels: Mapping[str, str] | None = None,
        *,
        containers_max: int = 100,
        version: str = "simulated",
        vouches: bool = True,
    ) -> Host:
        """One more host, whose agent has not started."""
        index = len(self.hosts)
        name, address = f"n{index}", f"10.{index >> 8}.{index & 255}.1:7946"
        timing = Timing(random.Random(f"timing {self.seed} {index}"))
        host = Host(name, address, MemoryEngine(host=name, capacity=capacity), MemoryStorage(), timing)
        host.labels = {"zone": f"z{index % 3}"} if labels is None else labels
        host.containers_max, host.version, host.vouches = containers_max, version, vouches
        host.engine.listen(partial(self.driver.engine_changed, host))
        self.hosts.append(host)
        return host

    # What happens to hosts

    def start(self, host: Host) -> None:
        """Start the host's agent, on the disk as it is."""
        host.life += 1
        rng = random.Random(self.rng.random())
        entropy = rng.randbytes
        stored = host.storage.load()
        identity, writes = boot(stored, entropy)
        if not identity.is_founded:
            seed = entropy(SEED_SIZE_BYTES)
            founded = notary.answer(found(seed, identity.node), rng)
            assert isinstance(founded, Founded)
            writes += founding_writes(seed, founded, host.wall_offset_s + self.clock.now)
        host.storage.write(writes)
        stored = replace(host.storage.load(), set_aside=stored.set_aside)
        host.agent = Agent(
            settings=Settings(
                host.name,
                host.name,
                host.labels,
                host.containers_max,
                version=host.version,
                changes_per_epoch=self._changes_per_epoch,
                vouches=host.vouches,
                speaks=host.speaks,
            ),
            boot=identity,
            stored=stored,
            runtimes=("docker",),
            address=host.address,
            swim_config=self._swim,
            rng=rng,
            entropy=entropy,
        )
        life = host.life
        host.credentials = host.agent.standing.credentials(host.wall_offset_s + self.clock.now)
        self.network.attach(
            host.address,
            Endpoint(
                host.agent.node,
                lambda: host.credentials,
                lambda sender, lane, frame: self.driver.received(host, life, sender, lane, frame),
                lambda peer, reason: self.driver.input(host, life, lambda a, now: a.unreachable(peer, reason, now)),
            ),
        )
        self.driver.input(host, life, lambda a, now: a.start(now))
        self.driver.engine_changed(host)

    def form(self, hosts: Sequence[Host] | None = None) -> None:
        """Start ``hosts`` (None: all) as members of one cluster, who have known each other for long."""
        self.found(hosts)
        self.acquaint(hosts)

    def found(self, hosts: Sequence[Host] | None = None) -> None:
        """Start ``hosts`` (None: all) as members of one cluster, who have not heard of each other yet."""
        hosts = self.hosts if hosts is None else hosts
        rng = random.Random(self.rng.random())
        seed, cluster, secret = (
            rng.randbytes(size) for size in (SEED_SIZE_BYTES, CLUSTER_ID_SIZE_BYTES, SECRET_SIZE_BYTES)
        )
        for host in hosts:
            key = rng.randbytes(SEED_SIZE_BYTES)
            founded = notary.answer(found(seed, node_id_of(KeyPair(key).public)), rng)
            assert isinstance(founded, Founded)
            node = [PutRecord(Table.NODE, "seed", key), PutRecord(Table.NODE, "epoch", msgpack.packb(1))]
            host.storage.write(
                [*node, *cluster_writes(cluster, secret), *founding_writes(seed, founded, host.wall_offset_s)]
            )
            self.start(host)
        self.run(FORMING_S)

    def acquaint(self, hosts: Sequence[Host] | None = None) -> None:
        """Let ``hosts`` (None: all) know exactly each other, as if it had been so for long."""
        hosts = self.hosts if hosts is None else hosts
        agents = sorted((host.agent for host in hosts if host.agent is not None), key=lambda agent: agent.node)
        published = [publication for agent in agents if (publication := agent.swim.publication(agent.node))]
        members = [member for agent in agents if (member := agent.swim.member(agent.node)) is not None]
        roll = Roll(members, published)
        epochs = {agent.node: agent.swim.incarnation.epoch for agent in agents}
        profiles = {p.node: profile for p in published if (profile := decode_profile(p.advertisement.body)) is not None}
        for agent in agents:
            agent.adopt(roll, epochs, profiles, self.clock.now)

    def restart(self, host: Host) -> None:
        """Kill the agent alone and start it again: its containers run on."""
        self.kill(host, with_host=False)
        self.start(host)

    def kill(self, host: Host, with_host: bool = True) -> None:
        """End the agent at once; with its host everything it runs ends, too."""
        if host.agent is not None:
            self.counters["hosts_lost" if with_host else "agents_lost"] += 1
        host.agent = None
        host.life += 1
        host.look_at = None
        host.written_at = host.late_at = self.clock.now
        self.driver.lose_unwritten(host)
        host.stands_still = False
        host.timers.clear()
        host.overdue.clear()
        host.waiting.clear()
        host.hanging.clear()
        host.storage.crash()
        self.network.detach(host.address, host_is_up=not with_host)
        if with_host:
            host.engine.lose_power(self.clock.now)

    def pause(self, host: Host) -> None:
        """The agent's process stands still, as if stopped by a signal. Its containers run on."""
        host.stands_still = True

    def resume(self, host: Host) -> None:
        """It goes on: first with the timers that went off meanwhile, then with what has arrived, as a real one may."""
        host.stands_still = False
        overdue, waiting, host.overdue, host.waiting = host.overdue, host.waiting, [], []
        for go_on in (*overdue, *waiting):
            go_on()

    def partition(self, *sides: Sequence[Host]) -> None:
        """Only hosts of one side hear each other; without sides: all do."""
        self.network.partition({host.address: number for number, side in enumerate(sides) for host in side})

    def cut(self, host: Host) -> None:
        """Pull the network cable of one host."""
        self.partition([other for other in self.hosts if other is not host], [host])

    def heal(self) -> None:
        """Whoever has power hears everybody again."""
        self.network.heal()

    def run(self, seconds: float) -> None:
        self.clock.run_until(self.clock.now + seconds)

    def run_until(self, condition: Callable[[], bool], timeout_s: float, step_s: float = 0.1) -> bool:
        """Let time pass until ``condition`` holds; False if it does not within ``timeout_s``."""
        end = self.clock.now + timeout_s
        while not condition():
            if self.clock.now >= end:
                return False
            self.run(step_s)
        return True

    def act(self, host: Host, call: Callable[[Agent, float], list[Effect]]) -> None:
        """Let the agent on ``host`` do what none of its own inputs would make it do: an attacker's, for instance."""
        self.driver.input(host, host.life, call)

    # What operators do

    def command(self, host: Host, operation: str, arguments: Mapping[str, Any], wait_s: float = 30.0) -> Reply:
        """Give a command on ``host`` and let time pass until its answer; raises ``TimeoutError`` if none comes."""
        try:
            items = list(self.operator(host, wait_s=wait_s).command(operation, arguments))
        except CommandError as error:
            return Reply(self._commands, error=error.to_json())
        return Reply(self._commands, items[-1] if items else {})

    def operator(self, host: Host, key: KeyPair | None = None, wait_s: float = 30.0) -> Operator:
        """Somebody with the cluster's operator key, or another one, who sits at ``host``."""
        return Operator(
            load=lambda: key or self.operator_key,
            entropy=self._operators_rng.randbytes,
            wall_s=lambda: host.wall_offset_s + self.clock.now,
            ask=lambda operation, arguments: self._ask(host, operation, arguments, wait_s),
        )

    def _ask(
        self, host: Host, operation: str, arguments: Mapping[str, Any], wait_s: float
    ) -> Iterator[Mapping[str, Any]]:
        """What the agent on ``host`` answers, once it has answered all."""
        number = self.post(host, operation, arguments)
        if not self.run_until(lambda: any(reply.last for reply in host.replies[number]), wait_s, 0.01):
            raise TimeoutError(f"{operation} on {host.name} was not answered in {wait_s} s of virtual time")
        yield from said_in(host.replies.pop(number))

    def post(self, host: Host, operation: str, arguments: Mapping[str, Any]) -> int:
        """Run a command without waiting; its replies gather in ``host.replies``."""
        self._commands += 1
        self.counters["commands"] += 1
        number = self._commands
        host.replies[number] = []
        self.driver.input(host, host.life, lambda a, now: a.command(number, operation, arguments, now))
        return number

    def join_all(self, hosts: Sequence[Host] | None = None) -> None:
        """Start ``hosts`` (None: all), and let all join the first of them."""
        first, *others = self.hosts if hosts is None else hosts
        for host in (first, *others):
            self.start(host)
        self.run(0.1)
        token = self.invite(first, uses=max(1, len(others)))
        for host in others:
            self.post(host, "join", {"token": token})

    def invite(self, host: Host, uses: int = 1, expires_s: int = 3600) -> str:
        """A token with which so many hosts can join the cluster of ``host``."""
        return str(self.answer(host, "invite", {"uses": uses, "expires_s": expires_s})["token"])

    def join(self, host: Host, other: Host) -> Reply:
        """Let ``host`` join the cluster of ``other``."""
        return self.command(host, "join", {"token": self.invite(other), "peer": other.address})

    def deploy(self, host: Host, spec: Spec) -> Reply:
        return self.command(host, "deploy", {"spec": to_json(spec)})

    def answer(self, host: Host, operation: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """The answer to a command that has to succeed."""
        reply = self.command(host, operation, arguments or {})
        if reply.error is not None:
            raise AssertionError(f"{operation} on {host.name}: {reply.error}")
        return reply.item

    # What an observer sees

    def live(self) -> list[Host]:
        return [host for host in self.hosts if host.agent is not None]

    def running(self, slot: str | None = None) -> dict[str, list[str]]:
        """The slots that really run on hosts with power, with the hosts' names."""
        found: dict[str, list[str]] = {}
        for host in self.hosts:
            for container in self._containers(host):
                if container.state is ContainerState.RUNNING and slot in (None, container.labels.slot):
                    found.setdefault(container.labels.slot, []).append(host.name)
        return dict(sorted(found.items()))

    def _containers(self, host: Host) -> Sequence[Container]:
        return host.engine.present(self.clock.now)

    def started(self) -> dict[str, float]:
        """Every container that runs, by id, and when it was started: equal before and after, nothing was restarted."""
        running = (c for host in self.hosts for c in self._containers(host) if c.state is ContainerState.RUNNING)
        return {container.id: container.started_at_s for container in running}

    def host_of(self, node: NodeId) -> Host:
        """The host whose agent lives as ``node``."""
        return next(host for host in self.live() if host.node == node)

    def sees_all(self) -> bool:
        """Every live agent holds exactly the live agents alive."""
        return not self._sight.mistaken(self.live())


def said_in(replies: Sequence[Reply]) -> Iterator[Mapping[str, Any]]:
    """The items of an answer. Raises the ``CommandError`` that it ends with."""
    for reply in replies:
        error = None if reply.error is None else error_in(reply.error)
        if error is not None:
            raise error
        if reply.item or not reply.last:
            yield reply.item
