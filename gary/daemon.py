"""The daemon: the one place where an agent meets the real world (the composition root).

It builds the transport, the runtimes and the storage that the config names, gives their news to the ``Agent`` as
inputs, and executes the effects that come back. It decides nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from gary import __version__
from gary.agent import Agent, Settings
from gary.api import Api
from gary.boot import Boot, boot
from gary.config import AgentConfig, advertised_address
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
from gary.errors import GaryError, StorageFailed, error_in
from gary.identity import NodeId
from gary.inspection import dial, inspect_disk
from gary.logs import configure_logging
from gary.metrics import Metrics
from gary.replies import Replies
from gary.runtime.base import ContainerRuntime, load_runtime
from gary.runtime.errors import EngineUnavailable, RuntimeFailure
from gary.storage import SqliteStorage, Storage, Stored, Table
from gary.trust.consulting import Notary, NotaryFailed
from gary.trust.keys import SEED_SIZE_BYTES
from gary.trust.knocking import DoorClosed, knock
from gary.trust.notary import Founded
from gary.trust.standing import Standing, found, founding_writes
from gossip import (
    PROFILES,
    CancelTimer,
    GossipError,
    Lane,
    Peer,
    Send,
    SetTimer,
    Timer,
    Transport,
    TransportConfig,
    TransportFactory,
    load_transport,
)

ENGINE_RETRY_S = 1.0
OBSERVE_PAUSE_S = 0.1
OBSERVE_PAUSES_MAX = 20
_DEFAULT_RUNTIMES = ("docker", "process")

_log = logging.getLogger("gary")
T = TypeVar("T")


class Daemon:
    """Drives one agent. Everything happens on one event loop; only the disk has a thread of its own."""

    def __init__(self, config: AgentConfig, storage: Storage, transport: TransportFactory) -> None:
        self._config = config
        self._storage = storage
        self._make_transport = transport
        self._loop = asyncio.get_running_loop()
        self._agent: Agent | None = None
        self._runtimes: dict[str, ContainerRuntime] = {}
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._writes: list[Persist] = []
        self._is_writing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: dict[int, Replies] = {}
        self._logs: dict[int, asyncio.Task[None]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._looking: dict[str, asyncio.Event] = {}
        self._under_way: Counter[str] = Counter()
        self._nodes: tuple[NodeId, ...] = ()
        self._command = 0
        self._metrics = Metrics()
        self._notary = Notary()
        self._api = Api(self, config.control, config.metrics_bind)
        self.finished = asyncio.Event()

    async def start(self) -> None:
        """Bring the agent up; when this returns it answers peers and operators."""
        # First of all, because a socket that cannot be made ends it before the node has said a word.
        self._api.open()
        try:
            await self._come_up()
        except BaseException:
            await self._api.close()
            raise

    async def _come_up(self) -> None:
        identity, stored = await self._boot()
        standing = Standing(identity.key, identity.cluster, stored.records[Table.TRUST])
        self._transport: Transport = self._make_transport(
            TransportConfig(
                identity.node,
                self._config.bind,
                advertised_address(self._config),
                credentials=standing.credentials(time.time()),
            )
        )
        for node in standing.ledger.expulsions:
            self._transport.expel(node)
        await self._transport.start(self)
        names = self._config.runtimes or _DEFAULT_RUNTIMES
        for name in names:
            self._runtimes[name] = load_runtime(name)(self._runtime_place(name))
        self._agent = Agent(
            settings=Settings(
                name=self._config.name,
                hostname=socket.gethostname(),
                labels=dict(self._config.labels),
                containers_max=self._config.containers_max,
                version=__version__,
                vouches=self._config.vouch,
            ),
            boot=identity,
            stored=stored,
            runtimes=tuple(names),
            address=self._transport.address,
            swim_config=PROFILES[self._config.profile],
            rng=random.Random(os.urandom(16)),
            entropy=os.urandom,
        )
        self._count()
        _log.info("node %s (%s) listens at %s", self._config.name, identity.node, self._transport.address)
        self._agent.clock(time.time() - self._loop.time())
        self._perform(self._agent.start(self._loop.time()))
        for name, runtime in self._runtimes.items():
            self._looking[name] = asyncio.Event()
            self._spawn(self._watch(name, runtime))
        self._metrics.add_counters("api", self._api.counters)
        await self._api.start()

    async def _boot(self) -> tuple[Boot, Stored]:
        """Who this node is, durably: on a fresh disk a new one, in a cluster of its own."""
        stored = self._storage.load()
        identity, writes = boot(stored, os.urandom)
        if not identity.is_founded:
            seed = os.urandom(SEED_SIZE_BYTES)
            founded = await self._notary.ask(found(seed, identity.node))
            assert isinstance(founded, Founded)
            writes += founding_writes(seed, founded, time.time())
        self._storage.write(writes)
        return identity, replace(self._storage.load(), set_aside=stored.set_aside)

    async def close(self) -> None:
        """Let go of everything. Containers run on, and peers find out by themselves."""
        await self._api.close()
        for task in [*self._tasks, *self._logs.values()]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._logs.values(), return_exceptions=True)
        await self._transport.close()
        await self._notary.close()
        for runtime in self._runtimes.values():
            await runtime.close()
        self._disk.shutdown()
        self._storage.close()

    def _runtime_place(self, name: str) -> str:
        return self._config.docker_host if name == "docker" else str(self._config.state_dir / name)

    # What the transport tells (``gossip.Receiver``)

    def received(self, sender: str, lane: Lane, frame: bytes) -> None:
        if self._agent is not None:
            self._agent.clock(time.time() - self._loop.time())
            self._perform(self._agent.received(sender, lane, frame, self._loop.time()))

    def unreachable(self, peer: Peer, reason: str) -> None:
        if self._agent is not None:
            self._perform(self._agent.unreachable(peer, reason, self._loop.time()))

    # What operators ask (``gary.api.Commands``)

    async def call(self, op: str, args: dict[str, object]) -> Mapping[str, object]:
        async with aclosing(self.stream(op, args)) as items:
            answer: Mapping[str, object] = {}
            async for item in items:
                answer = item
            return answer

    async def stream(self, op: str, args: dict[str, object]) -> AsyncGenerator[Mapping[str, object], None]:
        assert self._agent is not None
        self._command += 1
        number = self._command
        answers = self._answers[number] = Replies(number)
        try:
            self._agent.clock(time.time() - self._loop.time())
            self._perform(self._agent.command(number, op, args, self._loop.time()))
            while True:
                reply = await answers.get()
                error = None if reply.error is None else error_in(reply.error)
                if error is not None:
                    raise error
                if reply.item or not reply.last:
                    yield reply.item
                if reply.last:
                    return
        finally:
            del self._answers[number]
            self._perform(self._agent.cancel(number, self._loop.time()))

    def metrics(self) -> bytes:
        return self._metrics.render()

    def _count(self) -> None:
        agent = self._agent
        assert agent is not None
        self._metrics.add_counters("agent", lambda: agent.counters)
        self._metrics.add_counters("gossip", agent.swim.counters)
        self._metrics.add_counters("transport", self._transport.counters)
        self._metrics.add_gauges("node", agent.gauges)

    # Effects

    def _perform(self, effects: Sequence[Effect]) -> None:
        agent, loop = self._agent, self._loop
        assert agent is not None
        for effect in effects:
            match effect:
                case Send(peer, lane, frame):
                    self._transport.send(peer, lane, frame)
                case SetTimer(timer, delay_s):
                    self._timers[timer.token] = loop.call_later(delay_s, self._timer, timer)
                case CancelTimer(timer):
                    self._timers.pop(timer.token).cancel()
                case SetAlarm(alarm, delay_s):
                    loop.call_later(delay_s, self._alarm, alarm)
                case Persist():
                    self._writes.append(effect)
                    if not self._is_writing:
                        self._is_writing = True
                        self._spawn(self._write())
                case StartContainer():
                    self._spawn(self._start_container(effect))
                case StopContainer():
                    self._spawn(self._stop_container(effect))
                case Observe(nodes):
                    self._nodes = nodes
                    for looking in self._looking.values():
                        looking.set()
                case Reply(command):
                    if command in self._answers:
                        self._answers[command].put(effect)
                case Notify(event):
                    subject = "/".join(part for part in (event.deployment, event.slot) if part)
                    _log.info("%s: %s", f"{event.kind} {subject}".strip(), event.message)
                case ReadLogs(stream):
                    self._logs[stream] = loop.create_task(self._read_logs(effect))
                case StopLogs(stream):
                    if stream in self._logs:
                        self._logs.pop(stream).cancel()
                case Consult():
                    self._spawn(self._consult(effect))
                case Knock():
                    self._spawn(self._knock(effect))
                case Renew():
                    self._spawn(self._renew(effect))
                case Expel(node):
                    self._transport.expel(node)
                case Dial():
                    self._spawn(self._dial(effect))
                case Inspect():
                    self._spawn(self._inspect(effect))
                case Exit():
                    self.finished.set()

    def _timer(self, timer: Timer) -> None:
        del self._timers[timer.token]
        assert self._agent is not None
        self._perform(self._agent.timer(timer, self._loop.time()))

    def _alarm(self, alarm: Alarm) -> None:
        assert self._agent is not None
        self._perform(self._agent.alarm(alarm, self._loop.time()))

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("an internal error; please report it", exc_info=task.exception())

    async def _write(self) -> None:
        """Write what has gathered, in one transaction, until nothing is left: many promises cost one flush."""
        agent = self._agent
        assert agent is not None
        while self._writes:
            batch, self._writes = self._writes, []
            writes = [write for persist in batch for write in persist.writes]
            reason = ""
            if writes:
                try:
                    await self._loop.run_in_executor(self._disk, self._storage.write, writes)
                except StorageFailed as error:
                    reason = str(error)
            for persist in batch:
                now = self._loop.time()
                effects = (
                    agent.persist_failed(persist.token, reason, now) if reason else agent.persisted(persist.token, now)
                )
                self._perform(effects)
        self._is_writing = False

    async def _consult(self, effect: Consult) -> None:
        agent = self._agent
        assert agent is not None
        answer, reason = None, ""
        try:
            answer = await self._notary.ask(effect.request)
        except NotaryFailed as error:
            reason = str(error)
        self._perform(agent.consulted(effect.number, answer, reason, self._loop.time()))

    async def _knock(self, effect: Knock) -> None:
        agent = self._agent
        assert agent is not None
        answer, reason = None, ""
        try:
            answer = await knock(self._make_transport, effect)
        except DoorClosed as error:
            reason = str(error)
        self._perform(agent.knocked(effect.number, answer, reason, self._loop.time()))

    async def _renew(self, effect: Renew) -> None:
        agent = self._agent
        assert agent is not None
        reason = ""
        try:
            await self._transport.renew(effect.credentials)
        except GossipError as error:
            reason = str(error)
        self._perform(agent.renewed(effect.number, reason, self._loop.time()))

    async def _start_container(self, effect: StartContainer) -> None:
        agent = self._agent
        assert agent is not None
        container, reason = None, ""
        self._under_way[effect.runtime] += 1
        try:
            container = await self._runtimes[effect.runtime].start(effect.request)
        except RuntimeFailure as error:
            reason = str(error)
        finally:
            self._under_way[effect.runtime] -= 1
        self._perform(agent.operated(effect.operation, container, reason, self._loop.time()))

    async def _stop_container(self, effect: StopContainer) -> None:
        agent = self._agent
        assert agent is not None
        reason = ""
        self._under_way[effect.runtime] += 1
        try:
            await self._runtimes[effect.runtime].stop(effect.container_id, effect.grace_s)
        except RuntimeFailure as error:
            reason = str(error)
        finally:
            self._under_way[effect.runtime] -= 1
        self._perform(agent.operated(effect.operation, None, reason, self._loop.time()))

    async def _read_logs(self, effect: ReadLogs) -> None:
        agent = self._agent
        assert agent is not None
        runtime = self._runtimes[effect.runtime]
        try:
            async with aclosing(runtime.logs(effect.container_id, follow=effect.follow, tail=effect.tail)) as chunks:
                async for chunk in chunks:
                    effects = agent.logged(effect.stream, (chunk.stream, chunk.data), self._loop.time())
                    self._perform(effects)
                    await self._read(effects)
        except RuntimeFailure as error:
            line = f"gary: {error}\n".encode()
            self._perform(agent.logged(effect.stream, ("stderr", line), self._loop.time()))
        self._logs.pop(effect.stream, None)
        self._perform(agent.logged(effect.stream, None, self._loop.time()))

    async def _read(self, effects: Sequence[Effect]) -> None:
        """Wait until clients have read enough of the replies in ``effects``."""
        for command in {effect.command for effect in effects if isinstance(effect, Reply)} & self._answers.keys():
            await self._answers[command].room()

    # Looking at the host, for the doctor

    async def _dial(self, effect: Dial) -> None:
        failures = await dial(effect.address, self._transport.ports)
        assert self._agent is not None
        self._perform(self._agent.dialled(effect.number, failures, self._loop.time()))

    async def _inspect(self, effect: Inspect) -> None:
        disk = await asyncio.to_thread(inspect_disk, self._config.state_dir)
        assert self._agent is not None
        self._perform(self._agent.inspected(effect.number, disk, self._loop.time()))

    # Looking at the engines

    async def _watch(self, name: str, runtime: ContainerRuntime) -> None:
        """Tell the agent what runs in ``runtime``: when something changed, when it asks, when the engine goes."""
        while True:
            try:
                await self._follow(name, runtime)
            except RuntimeFailure as error:
                self._saw(name, None, None, str(error))
            await asyncio.sleep(ENGINE_RETRY_S)

    async def _follow(self, name: str, runtime: ContainerRuntime) -> None:
        capacity = await runtime.capacity()
        looking = self._looking[name]
        async with aclosing(runtime.changes()) as changes:
            await anext(changes)
            listening = self._loop.create_task(_set_on_each(changes, looking))
            try:
                looking.set()
                while not listening.done():
                    await _first(looking, listening)
                    await self._quiet(name)
                    looking.clear()
                    found = [c for node in self._nodes for c in await runtime.containers(node)]
                    self._saw(name, found, capacity, "")
                await listening
            finally:
                listening.cancel()
                with suppress(asyncio.CancelledError, RuntimeFailure):
                    await listening
        raise EngineUnavailable(name, "its events ended")

    async def _quiet(self, name: str) -> None:
        """Let a swarm of changes pass, so that one look does for all: the agent hears of its own operations anyway."""
        for _ in range(OBSERVE_PAUSES_MAX):
            await asyncio.sleep(OBSERVE_PAUSE_S)
            if not self._under_way[name]:
                return

    def _saw(self, name: str, containers: Any, capacity: Any, reason: str) -> None:
        assert self._agent is not None
        self._perform(self._agent.observed(name, containers, capacity, self._loop.time(), reason))


async def _set_on_each(changes: AsyncGenerator[None, None], event: asyncio.Event) -> None:
    async for _ in changes:
        event.set()


async def _first(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Wait until ``event`` is set or ``task`` has ended."""
    waiting = asyncio.get_running_loop().create_task(event.wait())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def run(config: AgentConfig) -> int:
    """Run an agent until it is told to end (SIGTERM, SIGINT) or has left its cluster. Returns the exit code."""
    configure_logging(config.log_format, config.log_level)
    try:
        lock = _lock(config.state_dir)
    except OSError as error:
        sys.stderr.write(f"error: {config.state_dir} cannot be used: {error}\n")
        sys.stderr.write("hint: each agent needs a state directory of its own that it may write to: --state-dir\n")
        return 1
    try:
        return asyncio.run(_serve(config))
    except (GaryError, GossipError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    finally:
        lock.close()


def _lock(state_dir: Path) -> Any:
    """Hold the state directory for this process alone."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    state_dir.chmod(0o700)
    lock = os.fdopen(os.open(state_dir / "lock", os.O_WRONLY | os.O_CREAT, 0o600), "w")
    os.fchmod(lock.fileno(), 0o600)  # Whatever the umask left of it.
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise OSError("another agent runs on it") from error
    return lock


async def _serve(config: AgentConfig) -> int:
    loop = asyncio.get_running_loop()
    storage = SqliteStorage(config.state_dir)
    daemon = Daemon(config, storage, load_transport(config.transport))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.finished.set)
    await daemon.start()
    # What was loaded stays for the life of the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    await daemon.finished.wait()
    await daemon.close()
    return 0
