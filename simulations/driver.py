"""The simulation's driver, as ``gary.daemon`` is the real one: it gives agents inputs, and performs their effects.

Everything takes as long as it would, by virtual time: disks, engines, the network, a process that stands still.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from gary.agent import Agent
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
from gary.errors import StorageFailed
from gary.runtime.base import Container
from gary.runtime.errors import RuntimeFailure
from gary.storage import Write
from gossip import CancelTimer, Lane, Peer, Send, SetTimer, Timer
from simulations import notary
from simulations.clock import Clock
from simulations.host import WALL_S, Host, Request
from simulations.network import Endpoint, Network

_pack_time: Final = struct.Struct("<d").pack
INSPECT_S = 0.002
LOOK_S = 0.005
DIAL_S = 0.01
LOOK_PAUSE_S = 0.05
ENGINE_RETRY_S = 1.0
KEPT = 0.5
"""The chance that a write is on the disk though its agent ended before it heard so."""
CONSULT_S = 0.1
RENEW_S = 0.02
KNOCK_AGAIN_S = 0.5
KNOCK_WAIT_S = 10.0

UNANSWERED = "the docker engine does not answer: no answer within"
OPERATE_S_MAX = 120.0
LOOK_S_MAX = 30.0
"""So long a real client waits for an engine that hangs (``gary.runtime.docker``)."""

Input = Callable[[Agent, float], list[Effect]]
"""What an agent is given, at its own ``now``."""
Take = Callable[[Agent, Any, float], list[Effect]]
"""How an agent takes what is ``given``, at its own ``now``: for inputs of which there are so many that each needs no
function of its own."""

_TOLD_MAX: Final = 100
"""So many pieces of the trace are hashed at once."""


class _Kind:
    """A kind of effects: its ``name`` in a trace, who is ``watching`` them, and who does ``perform`` them."""

    def __init__(self, kind: type, perform: Callable[[Host, int, Any], None]) -> None:
        self.name: Final = kind.__name__.encode()
        self.watching: Final[list[Callable[[Host, Effect], None]]] = []
        self.perform: Final = perform


class Driver:
    """For all hosts of one cluster. ``kill(host)`` ends an agent alone; ``rng`` decides what happens by chance.

    ``ended``: told of an agent that an exception has ended, as its process would have; None: the exception goes on.
    """

    def __init__(
        self,
        clock: Clock,
        network: Network,
        rng: random.Random,
        counters: defaultdict[str, int],
        kill: Callable[[Host], None],
    ) -> None:
        self.ended: Callable[[Host, Exception], None] | None = None
        self._clock = clock
        self._network = network
        self._rng = rng
        self._counters = counters
        self._kill = kill
        self._hashed = hashlib.sha256()
        self._told: list[bytes] = []
        self._watching_writes: list[Callable[[Host, Sequence[Write]], None]] = []
        self._timed_out = self._time_out  # bound once: there are as many of these as there are timers
        self._kinds = {kind: _Kind(kind, perform) for kind, perform in self._performing().items()}

    @property
    def trace(self) -> str:
        """A digest of everything that happened, in order."""
        self._hash()
        return self._hashed.hexdigest()

    def _hash(self) -> None:
        self._hashed.update(b"".join(self._told))
        self._told.clear()

    def watch(self, kind: type, see: Callable[[Host, Effect], None]) -> None:
        """``see`` every effect of ``kind`` just before it is performed."""
        self._kinds[kind].watching.append(see)

    def watch_writes(self, see: Callable[[Host, Sequence[Write]], None]) -> None:
        """``see`` what is on a disk, just before its agent knows."""
        self._watching_writes.append(see)

    def input(self, host: Host, life: int, call: Input) -> None:
        """What comes from outside waits for a process that stands still; one that is starved gets to it late."""
        self._give(host, life, _call, call)

    def received(self, host: Host, life: int, sender: str, lane: Lane, frame: bytes) -> None:
        """Likewise, what comes from the network."""
        self._give(host, life, _receive, (sender, lane, frame))

    def _give(self, host: Host, life: int, take: Take, given: Any) -> None:
        if host.stands_still:
            self._counters["inputs_waited"] += 1
            host.waiting.append(partial(self._give, host, life, take, given))
        elif host.late_s or host.late_at > self._clock.now:
            self._counters["inputs_late"] += 1
            # In the order in which it came: what is late holds up what comes after it.
            host.late_at = max(host.late_at, self._clock.now + self._rng.uniform(0.0, host.late_s))
            self._clock.after(host.late_at - self._clock.now, self._handle, host, life, take, given)
        else:
            self._handle(host, life, take, given)

    def _handle(self, host: Host, life: int, take: Take, given: Any) -> None:
        """Let the agent have it, if it still lives."""
        agent = host.agent
        if agent is None or host.life != life:
            return
        agent.clock(WALL_S + host.wall_skew_s)
        try:
            effects = take(agent, given, self._clock.now * host.clock_rate + host.clock_ahead_s)
        except Exception as error:
            if self.ended is None:
                raise
            self._kill(host)
            self.ended(host, error)
        else:
            self._perform(host, life, effects)

    def _later(self, host: Host, life: int, delay_s: float, call: Input) -> None:
        self._clock.after(delay_s, self.input, host, life, call)

    def _perform(self, host: Host, life: int, effects: list[Effect]) -> None:
        if not effects:
            return
        told = self._told
        told.append(_pack_time(self._clock.now))
        told.append(host.mark)
        for effect in effects:
            kind = self._kinds[type(effect)]
            told.append(kind.name)
            for see in kind.watching:
                see(host, effect)
            if isinstance(effect, Send):  # these three are nearly all, and are not looked up
                self._send(host, life, effect)
            elif isinstance(effect, SetTimer):
                self._set_timer(host, life, effect)
            elif isinstance(effect, CancelTimer):
                self._cancel_timer(host, life, effect)
            else:
                kind.perform(host, life, effect)
        if len(told) > _TOLD_MAX:
            self._hash()

    def _performing(self) -> Mapping[type, Callable[[Host, int, Any], None]]:
        """Who performs which effect."""
        return {
            Send: self._send,
            SetTimer: self._set_timer,
            CancelTimer: self._cancel_timer,
            SetAlarm: self._set_alarm,
            Persist: self._persist,
            StartContainer: self._start_container,
            StopContainer: self._stop_container,
            Observe: lambda host, life, effect: self._look_soon(host, life, 0.0),
            Reply: lambda host, life, effect: host.replies.setdefault(effect.command, []).append(effect),
            Notify: lambda host, life, effect: self._told.append(repr(effect.event).encode()),
            ReadLogs: self._read_logs,
            StopLogs: lambda host, life, effect: None,
            Consult: self._consult,
            Knock: self._knock,
            Renew: self._renew,
            Expel: lambda host, life, effect: self._network.expel(host.address, effect.node),
            Dial: self._dial,
            Inspect: self._inspect,
            Exit: lambda host, life, effect: self._clock.after(0.0, self._kill, host),
        }

    def _send(self, host: Host, life: int, effect: Send) -> None:
        self._told.append(effect.frame)
        assert host.agent is not None
        self._network.send(host.address, host.agent.node, effect.peer, effect.lane, effect.frame)

    def _set_timer(self, host: Host, life: int, effect: SetTimer) -> None:
        host.timers.add(effect.timer.token)
        self._clock.after(effect.delay_s / host.clock_rate, self._timed_out, host, life, effect.timer)

    def _cancel_timer(self, host: Host, life: int, effect: CancelTimer) -> None:
        host.timers.discard(effect.timer.token)

    def _time_out(self, host: Host, life: int, timer: Timer) -> None:
        """A timer, if it was not cancelled. Of a process that stood still they go off before it reads anything."""
        if host.life != life or timer.token not in host.timers:
            return
        if host.stands_still:
            self._counters["inputs_waited"] += 1
            host.overdue.append(partial(self._time_out, host, life, timer))
        else:
            host.timers.remove(timer.token)
            self._give(host, life, Agent.timer, timer)

    def _set_alarm(self, host: Host, life: int, effect: SetAlarm) -> None:
        self._clock.after(effect.delay_s / host.clock_rate, self._go_off, host, life, effect.alarm)

    def _go_off(self, host: Host, life: int, alarm: Alarm) -> None:
        if host.stands_still:
            self._counters["inputs_waited"] += 1
            host.overdue.append(partial(self._give, host, life, Agent.alarm, alarm))
        else:
            self._give(host, life, Agent.alarm, alarm)

    def _persist(self, host: Host, life: int, effect: Persist) -> None:
        if host.timing.write_factor > 1.0:
            self._counters["writes_slow"] += 1
        # One after the other: what is written first is durable first.
        host.written_at = max(self._clock.now, host.written_at) + host.timing.write()
        host.unwritten.append(effect.writes)
        self._clock.after(host.written_at - self._clock.now, self._write, host, life, effect.token)

    def _write(self, host: Host, life: int, token: int) -> None:
        if host.life != life:
            return
        try:
            self._commit(host)
        except StorageFailed as error:
            reason = str(error)
            self._counters["writes_refused"] += 1
            self.input(host, life, lambda a, now: a.persist_failed(token, reason, now))
        else:
            self.input(host, life, lambda a, now: a.persisted(token, now))

    def _commit(self, host: Host) -> None:
        """The disk takes the first of what it was given; raises ``StorageFailed`` if it refuses."""
        writes = host.unwritten.pop(0)
        host.storage.write(writes)
        for see in self._watching_writes:
            see(host, writes)

    def lose_unwritten(self, host: Host) -> None:
        """Of what the disk was given in order it has the beginning, by chance; each write as a whole or not at all."""
        while host.unwritten and host.storage.failing is None and self._rng.random() < KEPT:
            self._commit(host)
            self._counters["writes_kept"] += 1
        self._counters["writes_lost"] += len(host.unwritten)
        host.unwritten.clear()

    def _start_container(self, host: Host, life: int, effect: StartContainer) -> None:
        self._clock.after(
            host.timing.start(effect.request.service.image),
            self._operate,
            host,
            life,
            effect.operation,
            lambda: host.engine.start(effect.request, self._clock.now),
        )

    def _stop_container(self, host: Host, life: int, effect: StopContainer) -> None:
        self._clock.after(
            host.timing.stop(),
            self._operate,
            host,
            life,
            effect.operation,
            lambda: host.engine.stop(effect.container_id, effect.grace_s, self._clock.now),
        )

    def _operate(self, host: Host, life: int, operation: int, act: Callable[[], Container | None]) -> None:
        if host.life != life:
            return
        if host.engine_hangs:
            give_up = partial(self._operated, host, life, operation, None, f"{UNANSWERED} {OPERATE_S_MAX:g} s")
            self._hang(host, OPERATE_S_MAX, partial(self._do, host, life, operation, act), give_up)
        else:
            self._do(host, life, operation, act, is_awaited=True)

    def _do(self, host: Host, life: int, operation: int, act: Callable[[], Container | None], is_awaited: bool) -> None:
        """The engine does what it was asked, and says so to whoever still waits for it."""
        container, reason = None, ""
        try:
            container = act()
        except RuntimeFailure as error:
            reason = str(error)
        if not is_awaited:
            return
        if container is not None and self._lies(host):
            if self._rng.random() < 0.5:  # It says that it runs, and it does not.
                host.engine.vanish(container.id)
            else:  # It says that it does not run, and it does.
                container, reason = None, "the engine lies"
        self._operated(host, life, operation, container, reason)

    def _operated(self, host: Host, life: int, operation: int, container: Container | None, reason: str) -> None:
        self.input(host, life, lambda a, now: a.operated(operation, container, reason, now))

    def _hang(self, host: Host, limit_s: float, go_on: Callable[[bool], None], give_up: Callable[[], None]) -> None:
        """The engine takes a request and does not answer. Its client waits no longer than ``limit_s``."""
        self._counters["engine_hung"] += 1
        request = Request(go_on)
        host.hanging.append(request)
        self._clock.after(limit_s, self._give_up, host, request, give_up)

    def _give_up(self, host: Host, request: Request, tell: Callable[[], None]) -> None:
        if request in host.hanging:
            self._counters["engine_given_up"] += 1
            request.is_awaited = False
            tell()

    def _lies(self, host: Host) -> bool:
        """Whether the engine's next answer is not true."""
        lies = bool(host.engine_lies) and self._rng.random() < host.engine_lies
        self._counters["engine_lied"] += lies
        return lies

    def set_engine_hanging(self, host: Host, *, hangs: bool) -> None:
        """Let the engine answer nothing; or do all that it was asked meanwhile, and answer whoever still waits."""
        host.engine_hangs = hangs
        if not hangs:
            hanging, host.hanging = host.hanging, []
            for request in hanging:
                request.go_on(request.is_awaited)

    def _read_logs(self, host: Host, life: int, effect: ReadLogs) -> None:
        try:
            chunks = host.engine.logs(effect.container_id)
        except RuntimeFailure:
            chunks = ()
        for chunk in [*((chunk.stream, chunk.data) for chunk in chunks), None]:
            self._later(host, life, LOOK_S, partial(_feed, effect.stream, chunk))

    def _consult(self, host: Host, life: int, effect: Consult) -> None:
        answer = notary.answer(effect.request, self._rng)
        self._later(host, life, CONSULT_S, lambda a, now: a.consulted(effect.number, answer, "", now))

    def _renew(self, host: Host, life: int, effect: Renew) -> None:
        host.credentials = effect.credentials
        self._network.changed()
        self._later(host, life, RENEW_S, lambda a, now: a.renewed(effect.number, "", now))

    def _dial(self, host: Host, life: int, effect: Dial) -> None:
        reason = self._network.reaches(host.address, effect.address)
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
                self._network.dismiss(guest)
                self.input(host, life, lambda a, now: a.knocked(effect.number, answer, reason, now))

        self._network.welcome(
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
                self._network.send(host.address, guest, Peer("", effect.address), Lane.BULK, effect.frame)
                self._clock.after(KNOCK_AGAIN_S, say)

        say()
        self._clock.after(KNOCK_WAIT_S, hear, None, "no answer")

    def engine_changed(self, host: Host) -> None:
        self._look_soon(host, host.life, LOOK_S)

    def _look_soon(self, host: Host, life: int, delay_s: float) -> None:
        """Look at the engine's containers: once for all changes that come close together, as the daemon does."""
        at = self._clock.now + delay_s
        if host.agent is None or (host.look_at is not None and host.look_at <= at):
            return
        host.look_at = at
        self._clock.after(delay_s, self._look, host, life, at)

    def _look(self, host: Host, life: int, at: float) -> None:
        if host.life != life or host.agent is None or host.look_at != at:
            return
        if host.engine_hangs:
            give_up = partial(self._unseen, host, life, f"{UNANSWERED} {LOOK_S_MAX:g} s")
            self._hang(host, LOOK_S_MAX, lambda is_awaited: self._look(host, life, at) if is_awaited else None, give_up)
            return
        host.look_at = None
        now = self._clock.now
        try:
            capacity = host.engine.capacity(now)
            found = [c for node in host.agent.observed_nodes for c in host.engine.containers(node, now)]
        except RuntimeFailure as error:
            self._counters["engine_refused"] += 1
            self._unseen(host, life, str(error))
            return
        if found and self._lies(host):
            found.pop(self._rng.randrange(len(found)))
        self._later(host, life, LOOK_S, lambda a, at: a.observed("docker", found, capacity, at))
        due = host.engine.next_change_s(now)
        if due is not None:
            self._look_soon(host, life, max(LOOK_PAUSE_S, due - now))

    def _unseen(self, host: Host, life: int, reason: str) -> None:
        """The engine has not said what it runs; it is asked again."""
        if host.life == life:
            host.look_at = None
            self._later(host, life, LOOK_S, lambda a, at: a.observed("docker", None, None, at, reason))
            self._look_soon(host, life, ENGINE_RETRY_S)


def _call(agent: Agent, call: Input, now: float) -> list[Effect]:
    return call(agent, now)


def _receive(agent: Agent, given: tuple[str, Lane, bytes], now: float) -> list[Effect]:
    sender, lane, frame = given
    return agent.received(sender, lane, frame, now)


def _feed(stream: int, chunk: tuple[str, bytes] | None, agent: Agent, now: float) -> list[Effect]:
    return agent.logged(stream, chunk, now)
