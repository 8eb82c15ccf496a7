"""The words in which the tests speak of membership: nodes by number, claims, one core by itself, and a small swarm.

Frames cross encode and decode. The same seed gives the same run.
"""

from __future__ import annotations

import gc
import heapq
import random
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from gossip import (
    VERSIONS,
    CancelTimer,
    Claim,
    Effect,
    IdentityConflict,
    Incarnation,
    Joined,
    JoinFailed,
    Lane,
    Member,
    MemberChanged,
    Peer,
    Send,
    SetTimer,
    Status,
    Swim,
    SwimConfig,
    Timer,
    TimerKind,
    VersionRange,
)
from gossip.directory import Publication
from gossip.messages import (
    Ack,
    Buckets,
    Message,
    News,
    Ping,
    Records,
    Versions,
    Wanted,
    decode,
    encode,
    frame,
    frame_head,
)
from simulations.swarm import Agent, Anomaly, Swarm

CLUSTER = bytes(range(16))
CONFIG = SwimConfig()
# Long enough for one round over three peers, with the end of the last probe.
ROUND_S = 2.5
GOSSIP = (Claim, Publication, News, Buckets, Versions, Wanted, Records)


def node_id(number: int) -> str:
    """The id of the node with this number; spread over all buckets."""
    return f"{(number * 37) % 256:02x}{number:030x}"


def address_of(number: int) -> str:
    return f"10.0.{number // 256}.{number % 256}:7946"


def make_swim(
    number: int = 1,
    *,
    config: SwimConfig = CONFIG,
    cluster: bytes = CLUSTER,
    epoch: int = 1,
    node: str = "",
    address: str = "",
    seed: int = 0,
    expelled: Collection[str] = (),
    versions: VersionRange = VERSIONS,
    mark: Callable[[], int] = lambda: 0,
) -> Swim:
    """One core on its own."""
    return Swim(
        node=node or node_id(number),
        address=address or address_of(number),
        cluster=cluster,
        epoch=epoch,
        config=config,
        rng=random.Random(f"{seed}/{number}/{epoch}"),
        welcome=lambda: b"secret",
        mark=mark,
        expelled=expelled,
        versions=versions,
    )


T = TypeVar("T")


def of_type(effects: Sequence[Effect], kind: type[T]) -> list[T]:
    """The effects of one kind, in order."""
    return [effect for effect in effects if isinstance(effect, kind)]


class Network(Swarm):
    """A swarm of few, by number, that keeps what each application was told; it begins at 100 s."""

    def __init__(
        self,
        seed: int = 0,
        config: SwimConfig = CONFIG,
        *,
        delay_s: tuple[float, float] = (0.0002, 0.001),
        loss: float = 0.0,
        duplication: float = 0.0,
    ) -> None:
        super().__init__(config, seed, delay_s=delay_s, loss=loss, duplication=duplication, read_s=0.0)
        self.now = 100.0
        self.hosts: dict[int, Agent] = {}

    @property
    def frames(self) -> int:
        return sum(agent.frames_sent for agent in self.agents)

    @property
    def bytes_sent(self) -> int:
        return sum(agent.bytes_sent for agent in self.agents)

    def host(
        self,
        number: int,
        *,
        epoch: int = 1,
        address: str = "",
        cluster: bytes = CLUSTER,
        versions: VersionRange = VERSIONS,
    ) -> Agent:
        """A new core, or one that starts again with a later epoch; it does not run yet."""
        swim = make_swim(
            number,
            config=self.config,
            cluster=cluster,
            epoch=epoch,
            address=address,
            seed=self.seed,
            versions=versions,
        )
        if number in self.hosts:
            self.kill(self.hosts[number])
        self.hosts[number] = self.admit(number, swim)
        return self.hosts[number]

    def cluster_of(self, count: int) -> list[Agent]:
        """``count`` hosts that have joined the first and see each other."""
        hosts = [self.host(number) for number in range(1, count + 1)]
        for host in hosts:
            self.start(host)
        for host in hosts[1:]:
            self.perform(host, host.swim.join(hosts[0].address, self.now))
        self.wait(lambda: self.see_each_other(hosts), 30)
        return hosts

    def formed(self, count: int) -> list[Agent]:
        """``count`` hosts that have known each other for long."""
        hosts = [self.host(number) for number in range(1, count + 1)]
        self.acquaint(hosts)
        return hosts

    def see_each_other(self, hosts: Sequence[Agent]) -> bool:
        nodes = tuple(sorted(host.node for host in hosts))
        return all(host.swim.alive() == nodes for host in hosts)

    def stand_still(self, host: Agent, duration_s: float) -> None:
        """The process stops for a while: its timers go off late, and then it reads what has arrived."""
        self.begin_anomaly(host, Anomaly.FROZEN)
        self.at(self.now + duration_s, lambda: self.end_anomaly(host))

    def isolate(self, *hosts: Agent) -> None:
        """Frames from and to these hosts vanish, also among themselves."""
        gone = [host.index for host in hosts]
        self.cut = lambda sender, receiver: sender in gone or receiver in gone

    def partition(self, side: Sequence[Agent]) -> None:
        """Frames between ``side`` and the others vanish."""
        inside = [host.index for host in side]
        self.cut = lambda sender, receiver: (sender in inside) != (receiver in inside)

    def heal(self) -> None:
        self.cut = None

    def tell(self, agent: Agent, effect: Effect) -> None:
        agent.events.append((self.now, effect))

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> float:
        """Let time pass until ``condition``; returns how long it took. Fails when it takes too long."""
        start = self.now
        while not condition():
            self.step()
            assert self.now <= start + timeout_s, f"not so within {timeout_s} s (seed {self.seed})"
        return self.now - start

    def died_at(self, observer: Agent, victim: Agent) -> float | None:
        """When ``observer`` last learned that ``victim`` is dead."""
        times = [
            at
            for at, event in observer.events
            if isinstance(event, MemberChanged)
            and event.member.node == victim.node
            and event.member.status is Status.DEAD
        ]
        return times[-1] if times else None

    def joins(self, host: Agent) -> list[Joined | JoinFailed]:
        return [event for _, event in host.events if isinstance(event, Joined | JoinFailed)]

    def conflicts(self, host: Agent) -> list[IdentityConflict]:
        return [event for _, event in host.events if isinstance(event, IdentityConflict)]


def without_gossip(data: bytes) -> bytes:
    """A frame without the news in it, and without comparisons of views."""
    read = decode(data, CONFIG.frame_size_bytes_max)
    kept = [encode(message) for message in read.messages if not isinstance(message, GOSSIP)]
    return frame(frame_head(read.cluster, read.sender), kept)


class Solo:
    """One core whose peers are played by the test: hears messages, lets time pass, collects what it sends and tells.

    Messages cross encode and decode both ways.
    """

    def __init__(
        self,
        *,
        config: SwimConfig = CONFIG,
        seed: int = 0,
        knows: Sequence[int] = (),
        expelled: Collection[str] = (),
        versions: VersionRange = VERSIONS,
        mark: Callable[[], int] = lambda: 0,
    ) -> None:
        self.swim = make_swim(1, config=config, seed=seed, expelled=expelled, versions=versions, mark=mark)
        self._versions = versions
        self.overheard: Callable[[bytes], None] = lambda data: None
        self.config = config
        self.now = 100.0
        self.sent: list[tuple[Peer, Message]] = []
        self.lanes: list[Lane] = []
        self.events: list[Effect] = []
        self.answering: tuple[int, ...] = ()
        """The nodes that ack every ping at once."""
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = 0
        self.perform(self.swim.start(self.now))
        for number in knows:
            self.hears(number, alive(number))
        self.forget()

    def forget(self) -> None:
        """Start the record of what was sent and told anew."""
        self.sent, self.lanes, self.events = [], [], []

    def perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.overheard(effect.frame)
                messages = decode(effect.frame, self.config.frame_size_bytes_max, self._versions).messages
                self.sent += [(effect.peer, message) for message in messages]
                self.lanes.append(effect.lane)
                self._ack(effect.peer, messages)
            elif isinstance(effect, SetTimer):
                self._order += 1
                heapq.heappush(self._timers, (self.now + effect.delay_s, self._order, effect.timer))
            elif not isinstance(effect, CancelTimer):  # It lets them go off all the same, which must do nothing.
                self.events.append(effect)

    def hears(self, number: int, *messages: Message, cluster: bytes = CLUSTER) -> None:
        """A frame arrives from the node with this number."""
        self.receives(frame(frame_head(cluster, node_id(number)), [encode(message) for message in messages]), number)

    def receives(self, data: bytes, number: int = 2) -> None:
        """Any bytes arrive."""
        self.perform(self.swim.receive(node_id(number), Lane.PROBE, data, self.now))

    def passes(self, duration_s: float) -> None:
        """Time passes; timers go off."""
        end = self.now + duration_s
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            self.perform(self.swim.timer(timer, self.now))
        self.now = end

    def stands_still(self, duration_s: float) -> None:
        """Time passes, and the process does nothing: timers will go off late."""
        self.now += duration_s

    def _ack(self, peer: Peer, messages: Sequence[Message]) -> None:
        for number in self.answering:
            if peer.node == node_id(number):
                for message in messages:
                    if isinstance(message, Ping):
                        self.hears(number, Ack(message.sequence, 0))

    def armed(self, kind: TimerKind) -> list[float]:
        """When timers of a kind go off, stale ones included."""
        return sorted(when for when, _, timer in self._timers if timer.kind is kind)

    def status(self, number: int) -> Status | None:
        member = self.swim.member(node_id(number))
        return member.status if member else None

    def sent_to(self, number: int, kind: type[T]) -> list[T]:
        """Messages of one kind sent to one node, in order."""
        return [message for peer, message in self.sent if peer.node == node_id(number) and isinstance(message, kind)]

    def said_about(self, number: int) -> list[Claim]:
        """Claims that were sent to anybody about one node."""
        return [m for _, m in self.sent if isinstance(m, Claim) and m.member.node == node_id(number)]

    def changes(self, number: int) -> list[tuple[Status | None, Status]]:
        """What the application was told about one member: (before, after)."""
        told = of_type(self.events, MemberChanged)
        return [(event.before, event.member.status) for event in told if event.member.node == node_id(number)]


def member(number: int, status: Status, epoch: int = 1, counter: int = 0, address: str = "") -> Member:
    return Member(node_id(number), address or address_of(number), Incarnation(epoch, counter), status)


def alive(number: int, epoch: int = 1, counter: int = 0, address: str = "") -> Claim:
    return Claim(member(number, Status.ALIVE, epoch, counter, address))


def suspect(number: int, *by: int, epoch: int = 1, counter: int = 0) -> Claim:
    return Claim(member(number, Status.SUSPECT, epoch, counter), tuple(node_id(accuser) for accuser in by))


def dead(number: int, epoch: int = 1, counter: int = 0) -> Claim:
    return Claim(member(number, Status.DEAD, epoch, counter))


def left(number: int, epoch: int = 1, counter: int = 0) -> Claim:
    return Claim(member(number, Status.LEFT, epoch, counter))


def ping(number: int, sequence: int = 7, *, digest: int = 0, epoch: int = 1, counter: int = 0) -> Ping:
    return Ping(sequence, digest, address_of(number), Incarnation(epoch, counter))


def settled_cluster(seed: int, count: int = 5) -> tuple[Network, list[Agent]]:
    network = Network(seed=seed)
    hosts = network.cluster_of(count)
    network.run(10 + 2 * network.rng.random())
    return network, hosts


def hold_dead(observers: list[Agent], victims: list[Agent]) -> bool:
    statuses = [observer.swim.member(victim.node) for observer in observers for victim in victims]
    return all(member is not None and member.status is Status.DEAD for member in statuses)


def pinged(solo: Solo, number: int, within_s: float = ROUND_S) -> Ping:
    """Let time pass until the node is pinged."""
    end = solo.now + within_s
    while not solo.sent_to(number, Ping):
        assert solo.now < end, f"{number} was not pinged"
        solo.passes(0.01)
    return solo.sent_to(number, Ping)[-1]


def reachable(root: object) -> int:
    """How many objects hang on ``root``, code aside."""
    seen: dict[int, object] = {}
    todo = [root]
    while todo:
        item = todo.pop()
        if id(item) not in seen and not isinstance(item, type) and not callable(item):
            seen[id(item)] = item
            todo += gc.get_referents(item)
    return len(seen)
