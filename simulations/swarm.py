"""Many membership cores in virtual time, and nothing of Gary above: for experiments with thousands of members.

The same seed gives the same run. Frames are the bytes that a transport would carry; a link delays, loses or cuts them.
A process can be killed (whoever dials it is refused), fall silent, or be anomalous for a while, in one of two ways:

- ``BLOCKED``: it blocks before each send and after each receive, as in the Lifeguard paper (section V-A). Frames to it
  wait in its queue. Its loops hang in their first send; time goes on, so suspicions run out. At the end what it wanted
  to send goes out, then timers that ran out meanwhile go off, in order, and only then the queue is read, in order.
- ``FROZEN``: timers stand still, too, and go off late, before the queue is read.

Reading what waited takes time, and what arrives meanwhile waits behind it. Otherwise processes are infinitely fast.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gossip import (
    CancelTimer,
    Effect,
    Lane,
    Member,
    MemberChanged,
    Peer,
    Roll,
    Send,
    SetTimer,
    Status,
    Swim,
    SwimConfig,
    Timer,
    TimerKind,
)

CLUSTER: Final = bytes(range(16))
_TIMER, _FRAME, _REFUSAL, _READ, _CALL = range(5)
# A blocked process hangs in the first send of each of its loops. What is left of a probe comes after that send.
_LOOPS: Final = frozenset({TimerKind.PROBE, TimerKind.GOSSIP, TimerKind.REDIAL, TimerKind.REJOIN})
_AFTER_A_SEND: Final = frozenset({TimerKind.PROBE_EARLY, TimerKind.PROBE_DIRECT, TimerKind.PROBE_END})


class Anomaly(StrEnum):
    """In which way a process does not keep up."""

    BLOCKED = "blocked"
    FROZEN = "frozen"


@dataclass(slots=True)
class Agent:
    """One process. ``was_anomalous``: ever. ``skew_s``: how far its clock is ahead of the others'. ``hears``: what its
    core gets of a frame that arrives; None: all of it. ``events``: what its application was told, and when, if the
    swarm keeps that. ``timers``: the tokens of those that are set."""

    index: int
    swim: Swim
    skew_s: float = 0.0
    hears: Callable[[bytes], bytes] | None = None
    events: list[tuple[float, Effect]] = field(default_factory=list)
    is_up: bool = True
    is_silent: bool = False
    anomaly: Anomaly | None = None
    was_anomalous: bool = False
    frames_sent: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    is_reading: bool = False
    timers: set[int] = field(default_factory=set)
    hanging: set[TimerKind] = field(default_factory=set)
    held_sends: list[Send] = field(default_factory=list)
    held_timers: list[Timer] = field(default_factory=list)
    held_frames: deque[tuple[str, Lane, bytes]] = field(default_factory=deque)

    @property
    def node(self) -> str:
        return self.swim.node

    @property
    def address(self) -> str:
        return self.swim.address


def node_id(index: int) -> str:
    """The id of an agent: looks like a hash, spreads over all buckets, and needs no randomness."""
    return f"{(index * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128:032x}"


def address_of(index: int) -> str:
    return f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}:7946"


class Swarm:
    """``delay_s``: one-way delays are drawn uniformly from it. ``loss`` and ``duplication``: the chance that a frame
    vanishes, or comes twice. ``read_s``: how long a process that was anomalous needs for each frame that waited for it.

    ``cut(sender, receiver)`` says which agents, by index, cannot hear which; those of ``refusing`` cannot be dialled.
    ``overheard(agent, send)`` hears of every frame that is sent, ``told(agent, change, now)`` of all changes of members
    that an agent's application would hear of. ``agents`` are all processes that there ever were.
    """

    def __init__(
        self,
        config: SwimConfig,
        seed: int,
        *,
        delay_s: tuple[float, float] = (0.00005, 0.0005),
        loss: float = 0.0,
        duplication: float = 0.0,
        read_s: float = 0.0001,
        told: Callable[[Agent, MemberChanged, float], None] = lambda agent, change, now: None,
    ) -> None:
        self.config = config
        self.now = 0.0
        self.loss = loss
        self.duplication = duplication
        self.cut: Callable[[int, int], bool] | None = None
        self.refusing: tuple[int, ...] = ()
        self.overheard: Callable[[Agent, Send], None] | None = None
        self.agents: list[Agent] = []
        self.rng = random.Random(f"{seed}/network")
        self.seed = seed
        self._delay_s = delay_s
        self._read_s = read_s
        self._told = told
        self._heap: list[tuple[float, int, int, Agent | None, object]] = []
        self._order = 0
        self._by_address: dict[str, Agent] = {}

    # Who is there

    def add(self, *, seeds: Sequence[Agent] = ()) -> Agent:
        """A new agent starts; it joins through ``seeds``, which it takes for the peers that it remembers."""
        agent = self.admit(len(self.agents), self._swim(len(self.agents), epoch=1))
        self.start(agent, [Peer(seed.node, seed.address) for seed in seeds])
        return agent

    def admit(self, index: int, swim: Swim) -> Agent:
        """A process for ``swim``, which has not started; whoever dials its address gets it."""
        agent = Agent(index, swim)
        self.agents.append(agent)
        self._by_address[agent.address] = agent
        return agent

    def start(self, agent: Agent, seeds: Sequence[Peer] = ()) -> None:
        """The process starts, with the peers that it remembers."""
        self.perform(agent, agent.swim.start(self.now, seeds))

    def form(self, count: int) -> None:
        """``count`` agents that have known each other for long."""
        indices = range(len(self.agents), len(self.agents) + count)
        self.acquaint([self.admit(index, self._swim(index, epoch=1)) for index in indices])

    def acquaint(self, agents: Sequence[Agent]) -> None:
        """Start ``agents``, which have known each other for long."""
        roll = Roll([Member(agent.node, agent.address, agent.swim.incarnation, Status.ALIVE) for agent in agents])
        for agent in agents:
            agent.swim.adopt(roll, self.now)
            self.start(agent)

    def restart(self, agent: Agent) -> Agent:
        """The process of a dead agent's successor starts, in its next epoch, with the peers that it remembers."""
        agent.is_up = False
        successor = self.admit(agent.index, self._swim(agent.index, agent.swim.incarnation.epoch + 1))
        self.start(successor, agent.swim.peers())
        return successor

    def join_all(self, count: int, timeout_s: float = 60.0) -> None:
        """``count`` agents start at once, and all but the first join through it. Ends when all see all."""
        first = self.add()
        for _ in range(count - 1):
            self.add(seeds=(first,))
        deadline = self.now + timeout_s
        while not self.all_see_all():
            assert self.now < deadline, f"not all see all after {timeout_s:g} s (seed {self.seed})"
            self.run(0.5)

    def all_see_all(self) -> bool:
        """Whether each agent that is up holds alive exactly those that are up."""
        up = [agent for agent in self.agents if agent.is_up and not agent.is_silent]
        nodes = tuple(sorted(agent.swim.node for agent in up))
        return all(agent.swim.alive() == nodes for agent in up)

    # What happens to them

    def kill(self, agent: Agent) -> None:
        """The process ends, its host is there: whoever dials it is refused."""
        agent.is_up = False

    def silence(self, agent: Agent) -> None:
        """The host is gone without a word."""
        agent.is_up = False
        agent.is_silent = True

    def begin_anomaly(self, agent: Agent, kind: Anomaly) -> None:
        agent.anomaly = kind
        agent.was_anomalous = True

    def end_anomaly(self, agent: Agent) -> None:
        """What was held back happens: sends, then timers in the order in which they ran out, then frames are read."""
        agent.anomaly = None
        agent.hanging.clear()
        sends, agent.held_sends = agent.held_sends, []
        timers, agent.held_timers = agent.held_timers, []
        for send in sends:
            self._send(agent, send)
        for timer in timers:
            self._fire(agent, timer)
        if agent.held_frames and not agent.is_reading:
            self._read_next(agent)

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Let ``action`` happen at ``when``."""
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, _CALL, None, action))

    # Time

    def run(self, duration_s: float) -> None:
        """Let so much time pass."""
        end = self.now + duration_s
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.step()
        self.now = end

    def step(self) -> None:
        """Let the next thing happen."""
        self.now, _, kind, agent, what = heapq.heappop(self._heap)
        if agent is None:
            what()  # type: ignore[operator]
        elif kind == _TIMER:
            self._fire(agent, what)  # type: ignore[arg-type]
        elif kind == _FRAME:
            self._arrive(agent, *what)  # type: ignore[misc]
        elif kind == _READ:
            self._read(agent)
        elif agent.is_up:
            refused: Peer = what  # type: ignore[assignment]
            self.perform(agent, agent.swim.unreachable(refused, "connection refused", self.now + agent.skew_s))

    def run_until(self, condition: Callable[[], bool], timeout_s: float, step_s: float = 0.05) -> float | None:
        """Let time pass until ``condition``, looked at each ``step_s``; how long it took, None if longer."""
        began = self.now
        while not condition():
            if self.now - began >= timeout_s:
                return None
            self.run(step_s)
        return self.now - began

    # How effects are performed

    def _swim(self, index: int, epoch: int) -> Swim:
        return Swim(
            node=node_id(index),
            address=address_of(index),
            cluster=CLUSTER,
            epoch=epoch,
            config=self.config,
            rng=random.Random(f"{self.seed}/{index}/{epoch}"),
            welcome=bytes,
        )

    def perform(self, agent: Agent, effects: Sequence[Effect]) -> None:
        """What an input of ``agent`` comes to."""
        for effect in effects:
            if type(effect) is Send:
                if agent.anomaly is Anomaly.BLOCKED:
                    agent.held_sends.append(effect)
                else:
                    self._send(agent, effect)
            elif type(effect) is CancelTimer:
                agent.timers.discard(effect.timer.token)
            elif type(effect) is SetTimer:
                agent.timers.add(effect.timer.token)
                self._order += 1
                heapq.heappush(self._heap, (self.now + effect.delay_s, self._order, _TIMER, agent, effect.timer))
            else:
                self.tell(agent, effect)

    def tell(self, agent: Agent, effect: Effect) -> None:
        """What the application of ``agent`` is told."""
        if type(effect) is MemberChanged:
            self._told(agent, effect, self.now)

    def _fire(self, agent: Agent, timer: Timer) -> None:
        if not agent.is_up or timer.token not in agent.timers:
            return
        if agent.anomaly is not None and self._waits(agent, timer.kind):
            agent.held_timers.append(timer)
        else:
            agent.timers.remove(timer.token)
            self.perform(agent, agent.swim.timer(timer, self.now + agent.skew_s))

    def _waits(self, agent: Agent, kind: TimerKind) -> bool:
        """Whether a timer of an anomalous process goes off at the end only."""
        if agent.anomaly is Anomaly.FROZEN or kind in _AFTER_A_SEND or kind in agent.hanging:
            return True
        if kind in _LOOPS:
            agent.hanging.add(kind)
        return False

    def _send(self, agent: Agent, send: Send) -> None:
        agent.frames_sent += 1
        agent.bytes_sent += len(send.frame)
        if self.overheard is not None:
            self.overheard(agent, send)
        target = self._by_address.get(send.peer.address) if send.peer.address else self._connected(send.peer.node)
        random_ = self.rng.random
        low, high = self._delay_s
        when = self.now + low + (high - low) * random_()
        if agent.is_silent or (target is not None and self._is_cut(agent, target)):
            return
        if target is None or not target.is_up or target.index in self.refusing:
            self._order += 1
            heapq.heappush(self._heap, (when + high, self._order, _REFUSAL, agent, send.peer))
            return
        item = (agent.swim.node, send.lane, send.frame)
        if not self.loss or random_() >= self.loss:
            self._order += 1
            heapq.heappush(self._heap, (when, self._order, _FRAME, target, item))
        if self.duplication and random_() < self.duplication:
            self._order += 1
            heapq.heappush(self._heap, (when + high * random_(), self._order, _FRAME, target, item))

    def _connected(self, node: str) -> Agent | None:
        """Whoever speaks as ``node`` has a connection to those that it speaks to."""
        return next((agent for agent in self.agents if agent.is_up and agent.node == node), None)

    def _is_cut(self, agent: Agent, target: Agent) -> bool:
        return target.is_silent or (self.cut is not None and self.cut(agent.index, target.index))

    def _arrive(self, agent: Agent, sender: str, lane: Lane, data: bytes) -> None:
        if not agent.is_up or agent.is_silent:
            return
        agent.bytes_received += len(data)
        if agent.anomaly is not None or agent.held_frames:
            agent.held_frames.append((sender, lane, data))
        else:
            self._hear(agent, sender, lane, data)

    def _hear(self, agent: Agent, sender: str, lane: Lane, data: bytes) -> None:
        heard = data if agent.hears is None else agent.hears(data)
        self.perform(agent, agent.swim.receive(sender, lane, heard, self.now + agent.skew_s))

    def _read_next(self, agent: Agent) -> None:
        agent.is_reading = True
        self._order += 1
        heapq.heappush(self._heap, (self.now + self._read_s, self._order, _READ, agent, None))

    def _read(self, agent: Agent) -> None:
        """A frame that waited has been read, unless the process is anomalous once more."""
        agent.is_reading = False
        if agent.anomaly is None and agent.is_up and agent.held_frames:
            self._hear(agent, *agent.held_frames.popleft())
            if agent.held_frames:
                self._read_next(agent)
