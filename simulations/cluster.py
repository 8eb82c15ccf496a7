"""A cluster of whole agents in virtual time: the simulation's driver, the other one beside ``gary.daemon``.

One seed decides everything: the same seed gives the same trace, in any process, whatever its hash seed.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol, get_args

import msgpack

from gary.advertisements import decode_profile
from gary.agent import Agent, Settings
from gary.boot import CLUSTER_ID_SIZE_BYTES, SECRET_SIZE_BYTES, boot, cluster_writes
from gary.doctor import FREE_BYTES_LOW, DiskFacts
from gary.effects import (
    Alarm,
    Consult,
    Dial,
    Effect,
    Exit,
    Expel,
    Inspect,
    Knock,
    Notify,
    Observe,
    Persist,
    ReadLogs,
    Renew,
    Reply,
    SetAlarm,
    StartContainer,
    StopContainer,
    StopLogs,
)
from gary.epochs import CHANGES_PER_EPOCH
from gary.errors import CommandError, StorageFailed, error_in
from gary.identity import NodeId
from gary.runtime.base import Capacity, Container, ContainerState
from gary.runtime.errors import RuntimeFailure
from gary.runtime.memory import DEFAULT_CAPACITY, MemoryEngine
from gary.spec import Spec, to_json
from gary.storage import MemoryStorage, PutRecord, Table, Write
from gary.trust.keys import SEED_SIZE_BYTES, KeyPair, node_id_of
from gary.trust.notary import Founded
from gary.trust.operator import Operator
from gary.trust.standing import found, founding_writes
from gossip import CancelTimer, Lane, Peer, Roll, Send, SetTimer, SwimConfig, Timer
from simulations import notary
from simulations.clock import Clock
from simulations.host import WALL_S, Host
from simulations.network import Endpoint, Link, Network
from simulations.timing import Timing

INSPECT_S = 0.002
LOOK_S = 0.005
FORMING_S = 2.0
"""Within so long an agent has looked at its engine and says what it has to offer."""
DIAL_S = 0.01
LOOK_PAUSE_S = 0.05
ENGINE_RETRY_S = 1.0
KEPT = 0.5
"""The chance that a write is on the disk though its agent ended before it heard so."""
CONSULT_S = 0.1
RENEW_S = 0.02
KNOCK_AGAIN_S = 0.5
KNOCK_WAIT_S = 10.0


Input = Callable[[Agent, float], list[Effect]]
"""What an agent is given, at its own ``now``."""


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
        self.counters: Counter[str] = Counter()
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
        self._trace = hashlib.sha256()
        self._commands = 0
        # Its own, so that what operators ask changes nothing about what else happens by chance.
        self._operators_rng = random.Random(f"operators {seed}")
        self.operator_key = KeyPair(self._operators_rng.randbytes(SEED_SIZE_BYTES))
        self.ended: Callable[[Host, Exception], None] | None = None
        """Told of an agent that an exception has ended, as its process would have; None: the exception goes on."""
        self._watchers: list[Watcher] = []
        self._watching: dict[type, list[Watcher]] = {}
        self._performers = self._performing()
        self.hosts: list[Host] = []
        for _ in range(count):
            self.add(capacity)

    def watch(self, *watchers: Watcher) -> None:
        """Let them see everything from now on, in this order."""
        for watcher in watchers:
            self._watchers.append(watcher)
            for kind in watcher.watches:
                self._watching.setdefault(kind, []).append(watcher)

    @property
    def trace(self) -> str:
        """A digest of everything that happened, in order."""
        return self._trace.hexdigest()

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
        host.engine.listen(partial(self._engine_changed, host))
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
                partial(self._input, host, life, Agent.received),
                lambda peer, reason: self._input(host, life, lambda a, now: a.unreachable(peer, reason, now)),
            ),
        )
        self._input(host, life, lambda a, now: a.start(now))
        self._engine_changed(host)

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
        self._lose_unwritten(host)
        host.stands_still = False
        host.timers.clear()
        host.overdue.clear()
        host.waiting.clear()
        host.hanging.clear()
        host.storage.crash()
        self.network.detach(host.address, host_is_up=not with_host)
        if with_host:
            host.engine.lose_power(self.clock.now)

    def _lose_unwritten(self, host: Host) -> None:
        """Of what the disk was given in order it has the beginning, by chance; each write as a whole or not at all."""
        while host.unwritten and host.storage.failing is None and self.rng.random() < KEPT:
            self._commit(host)
            self.counters["writes_kept"] += 1
        self.counters["writes_lost"] += len(host.unwritten)
        host.unwritten.clear()

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
        self._input(host, host.life, call)

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
        for reply in host.replies.pop(number):
            error = None if reply.error is None else error_in(reply.error)
            if error is not None:
                raise error
            if reply.item or not reply.last:
                yield reply.item

    def post(self, host: Host, operation: str, arguments: Mapping[str, Any]) -> int:
        """Run a command without waiting; its replies gather in ``host.replies``."""
        self._commands += 1
        self.counters["commands"] += 1
        number = self._commands
        host.replies[number] = []
        self._input(host, host.life, lambda a, now: a.command(number, operation, arguments, now))
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
        expected = sorted(host.node for host in self.live())
        return all(sorted(host.agent.alive) == expected for host in self.live() if host.agent is not None)

    # The driver

    def _input(self, host: Host, life: int, call: Callable[..., list[Effect]], *given: Any) -> None:
        """What comes from outside waits for a process that stands still; one that is starved gets to it late."""
        if host.stands_still:
            self.counters["inputs_waited"] += 1
            host.waiting.append(partial(self._input, host, life, call, *given))
        elif host.late_s or host.late_at > self.clock.now:
            self.counters["inputs_late"] += 1
            # In the order in which it came: what is late holds up what comes after it.
            host.late_at = max(host.late_at, self.clock.now + self.rng.uniform(0.0, host.late_s))
            self.clock.after(host.late_at - self.clock.now, self._handle, host, life, call, *given)
        else:
            self._handle(host, life, call, *given)

    def _handle(self, host: Host, life: int, call: Callable[..., list[Effect]], *given: Any) -> None:
        """``call(agent, *given, now)``, if the agent still lives."""
        agent = host.agent
        if agent is None or host.life != life:
            return
        agent.clock(WALL_S + host.wall_skew_s)
        try:
            effects = call(agent, *given, self.clock.now * host.clock_rate + host.clock_ahead_s)
        except Exception as error:
            if self.ended is None:
                raise
            self.kill(host, with_host=False)
            self.ended(host, error)
        else:
            self._perform(host, life, effects)

    def _later(self, host: Host, life: int, delay_s: float, call: Input) -> None:
        self.clock.after(delay_s, self._input, host, life, call)

    def _perform(self, host: Host, life: int, effects: Sequence[Effect]) -> None:
        if not effects:
            return
        trace = self._trace.update
        trace(b"%.6f %s" % (self.clock.now, host.name.encode()))
        for effect in effects:
            kind = type(effect)
            trace(_NAMES[kind])
            for watcher in self._watching.get(kind, ()):
                watcher.performs(self, host, effect)
            self._performers[kind](host, life, effect)

    def _performing(self) -> Mapping[type, Callable[[Host, int, Any], None]]:
        """Who performs which effect."""
        return {
            Send: self._send,
            SetTimer: self._set_timer,
            CancelTimer: lambda host, life, effect: host.timers.discard(effect.timer.token),
            SetAlarm: self._set_alarm,
            Persist: self._persist,
            StartContainer: self._start_container,
            StopContainer: self._stop_container,
            Observe: lambda host, life, effect: self._look_soon(host, life, 0.0),
            Reply: lambda host, life, effect: host.replies.setdefault(effect.command, []).append(effect),
            Notify: lambda host, life, effect: self._trace.update(repr(effect.event).encode()),
            ReadLogs: self._read_logs,
            StopLogs: lambda host, life, effect: None,
            Consult: self._consult,
            Knock: self._knock,
            Renew: self._renew,
            Expel: lambda host, life, effect: self.network.expel(host.address, effect.node),
            Dial: self._dial,
            Inspect: self._inspect,
            Exit: lambda host, life, effect: self.clock.after(0.0, self.kill, host, False),
        }

    def _send(self, host: Host, life: int, effect: Send) -> None:
        self._trace.update(effect.frame)
        assert host.agent is not None
        self.network.send(host.address, host.agent.node, effect.peer, effect.lane, effect.frame)

    def _set_timer(self, host: Host, life: int, effect: SetTimer) -> None:
        host.timers.add(effect.timer.token)
        self.clock.after(effect.delay_s / host.clock_rate, self._time_out, host, life, effect.timer)

    def _time_out(self, host: Host, life: int, timer: Timer) -> None:
        """A timer, if it was not cancelled. Of a process that stood still they go off before it reads anything."""
        if host.life != life or timer.token not in host.timers:
            return
        if host.stands_still:
            self.counters["inputs_waited"] += 1
            host.overdue.append(partial(self._time_out, host, life, timer))
        else:
            host.timers.remove(timer.token)
            self._input(host, life, Agent.timer, timer)

    def _set_alarm(self, host: Host, life: int, effect: SetAlarm) -> None:
        self.clock.after(effect.delay_s / host.clock_rate, self._go_off, host, life, effect.alarm)

    def _go_off(self, host: Host, life: int, alarm: Alarm) -> None:
        if host.stands_still:
            self.counters["inputs_waited"] += 1
            host.overdue.append(partial(self._input, host, life, Agent.alarm, alarm))
        else:
            self._input(host, life, Agent.alarm, alarm)

    def _persist(self, host: Host, life: int, effect: Persist) -> None:
        if host.timing.write_factor > 1.0:
            self.counters["writes_slow"] += 1
        # One after the other: what is written first is durable first.
        host.written_at = max(self.clock.now, host.written_at) + host.timing.write()
        host.unwritten.append(effect.writes)
        self.clock.after(host.written_at - self.clock.now, self._write, host, life, effect.token)

    def _write(self, host: Host, life: int, token: int) -> None:
        if host.life != life:
            return
        try:
            self._commit(host)
        except StorageFailed as error:
            reason = str(error)
            self.counters["writes_refused"] += 1
            self._input(host, life, lambda a, now: a.persist_failed(token, reason, now))
        else:
            self._input(host, life, lambda a, now: a.persisted(token, now))

    def _commit(self, host: Host) -> None:
        """The disk takes the first of what it was given; raises ``StorageFailed`` if it refuses."""
        writes = host.unwritten.pop(0)
        host.storage.write(writes)
        for watcher in self._watchers:
            watcher.wrote(self, host, writes)

    def _start_container(self, host: Host, life: int, effect: StartContainer) -> None:
        self.clock.after(
            host.timing.start(effect.request.service.image),
            self._operate,
            host,
            life,
            effect.operation,
            lambda: host.engine.start(effect.request, self.clock.now),
        )

    def _stop_container(self, host: Host, life: int, effect: StopContainer) -> None:
        self.clock.after(
            host.timing.stop(),
            self._operate,
            host,
            life,
            effect.operation,
            lambda: host.engine.stop(effect.container_id, effect.grace_s, self.clock.now),
        )

    def _operate(self, host: Host, life: int, operation: int, act: Callable[[], Container | None]) -> None:
        if host.life != life:
            return
        if host.engine_hangs:
            self.counters["engine_hung"] += 1
            host.hanging.append(partial(self._operate, host, life, operation, act))
            return
        try:
            container = act()
        except RuntimeFailure as error:
            reason = str(error)
            self._input(host, life, lambda a, now: a.operated(operation, None, reason, now))
            return
        if container is not None and self._lies(host):
            if self.rng.random() < 0.5:  # It says that it runs, and it does not.
                host.engine.vanish(container.id)
            else:  # It says that it does not run, and it does.
                self._input(host, life, lambda a, now: a.operated(operation, None, "the engine lies", now))
                return
        self._input(host, life, lambda a, now: a.operated(operation, container, "", now))

    def _lies(self, host: Host) -> bool:
        """Whether the engine's next answer is not true."""
        lies = bool(host.engine_lies) and self.rng.random() < host.engine_lies
        self.counters["engine_lied"] += lies
        return lies

    def set_engine_hanging(self, host: Host, *, hangs: bool) -> None:
        """Let the engine answer nothing; or answer all that it was asked meanwhile."""
        host.engine_hangs = hangs
        if not hangs:
            hanging, host.hanging = host.hanging, []
            for go_on in hanging:
                go_on()

    def _read_logs(self, host: Host, life: int, effect: ReadLogs) -> None:
        try:
            chunks = host.engine.logs(effect.container_id)
        except RuntimeFailure:
            chunks = ()
        for chunk in [*((chunk.stream, chunk.data) for chunk in chunks), None]:
            self._later(host, life, LOOK_S, partial(_feed, effect.stream, chunk))

    def _consult(self, host: Host, life: int, effect: Consult) -> None:
        answer = notary.answer(effect.request, self.rng)
        self._later(host, life, CONSULT_S, lambda a, now: a.consulted(effect.number, answer, "", now))

    def _renew(self, host: Host, life: int, effect: Renew) -> None:
        host.credentials = effect.credentials
        self.network.changed()
        self._later(host, life, RENEW_S, lambda a, now: a.renewed(effect.number, "", now))

    def _dial(self, host: Host, life: int, effect: Dial) -> None:
        reason = self.network.reaches(host.address, effect.address)
        failures = [f"{effect.address}: {reason}"] if reason else []
        self._later(host, life, DIAL_S, lambda a, now: a.dialled(effect.number, failures, now))

    def _inspect(self, host: Host, life: int, effect: Inspect) -> None:
        disk = DiskFacts("the disk", FREE_BYTES_LOW)
        self._later(host, life, INSPECT_S, lambda a, now: a.inspected(effect.number, disk, now))

    def _knock(self, host: Host, life: int, effect: Knock) -> None:
        """A guest's connection: it says one thing, and hears one answer or why there is none."""
        # Several may come with one token; as on a real transport their connections tell them apart.
        guest = f"{effect.guest}:{effect.number}.{host.name}"
        answered = False

        def hear(answer: bytes | None, reason: str) -> None:
            nonlocal answered
            if not answered:
                answered = True
                self.network.dismiss(guest)
                self._input(host, life, lambda a, now: a.knocked(effect.number, answer, reason, now))

        self.network.welcome(
            guest,
            host.address,
            Endpoint(
                guest,
                lambda: effect.credentials,
                lambda sender, lane, frame: hear(frame, "") if frame.startswith(effect.addressee) else None,
                lambda peer, reason: hear(None, reason),
            ),
        )

        def say() -> None:
            """Again and again: what TCP does when something is lost."""
            if not answered:
                self.network.send(host.address, guest, Peer("", effect.address), Lane.BULK, effect.frame)
                self.clock.after(KNOCK_AGAIN_S, say)

        say()
        self.clock.after(KNOCK_WAIT_S, hear, None, "no answer")

    def _engine_changed(self, host: Host) -> None:
        self._look_soon(host, host.life, LOOK_S)

    def _look_soon(self, host: Host, life: int, delay_s: float) -> None:
        """Look at the engine's containers: once for all changes that come close together, as the daemon does."""
        at = self.clock.now + delay_s
        if host.agent is None or (host.look_at is not None and host.look_at <= at):
            return
        host.look_at = at
        self.clock.after(delay_s, self._look, host, life, at)

    def _look(self, host: Host, life: int, at: float) -> None:
        if host.life != life or host.agent is None or host.look_at != at:
            return
        if host.engine_hangs:
            self.counters["engine_hung"] += 1
            host.hanging.append(partial(self._look, host, life, at))
            return
        host.look_at = None
        now = self.clock.now
        try:
            capacity = host.engine.capacity(now)
            found = [c for node in host.agent.observed_nodes for c in host.engine.containers(node, now)]
        except RuntimeFailure as error:
            reason = str(error)
            self.counters["engine_refused"] += 1
            self._later(host, life, LOOK_S, lambda a, at: a.observed("docker", None, None, at, reason))
            self._look_soon(host, life, ENGINE_RETRY_S)
            return
        if found and self._lies(host):
            found.pop(self.rng.randrange(len(found)))
        self._later(host, life, LOOK_S, lambda a, at: a.observed("docker", found, capacity, at))
        due = host.engine.next_change_s(now)
        if due is not None:
            self._look_soon(host, life, max(LOOK_PAUSE_S, due - now))


_NAMES: Final[Mapping[type, bytes]] = {kind: kind.__name__.encode() for kind in get_args(Effect)}


def _feed(stream: int, chunk: tuple[str, bytes] | None, agent: Agent, now: float) -> list[Effect]:
    return agent.logged(stream, chunk, now)
