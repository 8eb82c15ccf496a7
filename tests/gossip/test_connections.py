"""One lane fed with whatever a link may bring: bytes of any kind, on connections that come and go in any order."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from gossip import connections, framing
from gossip.connections import LaneEnd
from gossip.dialling import Dial, Dialler
from gossip.errors import BadFrame
from gossip.framing import Batch, Hello
from gossip.testing import Recorder, node_id
from gossip.traffic import Traffic
from gossip.transport import GUEST, Lane, Peer, TransportConfig

SELF = node_id(1)
CONFIG = TransportConfig(SELF, "127.0.0.1:0", frame_size_bytes_max=200, queue_frames_max=8, connections_max=6)
NAMES = [node_id(number) for number in (1, 2, 3, 4)] + [GUEST + node_id(5)]
PIPES = range(1, 13)
DROPS = ("dropped_before_hello", "dropped_impostor", "dropped_expelled", "dropped_malformed", "dropped_version")


@dataclass
class ScriptedLink:
    """A ``Link`` on which the test puts what comes in. Dials come to nothing."""

    proves: bool
    names: dict[int, str] = field(default_factory=dict)
    incoming: deque[tuple[int, bytes]] = field(default_factory=deque)
    open: set[int] = field(default_factory=set)
    has_room: bool = True

    def receive(self) -> tuple[int, bytes] | None:
        return self.incoming.popleft() if self.incoming else None

    def transmit(self, pipe: int, data: bytes) -> bool:
        return self.has_room

    def close_pipe(self, pipe: int) -> None:
        self.open.discard(pipe)

    def dialer_of(self, pipe: int) -> int:
        return -1

    def peer_name(self, pipe: int) -> str | None:
        return self.names.get(pipe, "") if self.proves else None

    def create_dialer(self, host: str, port: int) -> int:
        return 1

    def dial(self, dial: Dial) -> str | None:
        return "nobody there"

    def close_dialer(self, dialer: int) -> None:
        pass


@dataclass(frozen=True)
class Comes:
    pipe: int
    name: str


@dataclass(frozen=True)
class Goes:
    pipe: int


@dataclass(frozen=True)
class Says:
    pipe: int
    message: bytes


@dataclass(frozen=True)
class Sends:
    peer: Peer
    frame: bytes


@dataclass(frozen=True)
class Expels:
    name: str


@dataclass(frozen=True)
class Room:
    is_there: bool


hellos = st.builds(
    Hello,
    node=st.sampled_from(NAMES),
    instance=st.binary(min_size=8, max_size=8) | st.just(bytes(8)),
    address=st.sampled_from(["", "10.0.0.1:1", "nonsense", "\x00"]),
    lane=st.sampled_from(Lane),
)
batches = st.builds(
    Batch, st.lists(st.binary(max_size=300), min_size=1, max_size=4).map(tuple), st.integers(0, 6), st.booleans()
) | st.builds(Batch, st.just(()), st.integers(0, 2**32 - 1), st.just(False))
proper = hellos.map(framing.encode_hello) | batches.map(framing.encode_batch)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    message = bytearray(draw(proper))
    for _ in range(draw(st.integers(1, 3))):
        message[draw(st.integers(0, len(message) - 1))] = draw(st.integers(0, 255))
    return bytes(message[: draw(st.integers(0, len(message)))] + draw(st.binary(max_size=8)))


messages = proper | damaged() | st.binary(max_size=80) | st.binary(max_size=80).map(lambda noise: b"gary" + noise)
pipes = st.sampled_from(PIPES)
events = st.one_of(
    st.builds(Comes, pipes, st.sampled_from(NAMES)),
    st.builds(Goes, pipes),
    st.builds(Says, pipes, messages),
    st.builds(Says, pipes, proper),
    st.builds(
        Sends, st.builds(Peer, st.sampled_from(NAMES), st.sampled_from(["", "10.0.0.1:1"])), st.binary(max_size=9)
    ),
    st.builds(Expels, st.sampled_from(NAMES[2:])),
    st.builds(Room, st.booleans()),
)


class Lab:
    """A lane, what it was told, and what must hold after whatever happens."""

    def __init__(self, proves: bool) -> None:
        self.link = ScriptedLink(proves)
        self.heard = Recorder(timeout_s=1.0)
        traffic = Traffic(CONFIG)
        self.count, self.expelled = traffic.count, traffic.expelled
        self.dialler = Dialler(asyncio.get_running_loop(), dials_max=1)
        self.end = LaneEnd(Lane.PROBE, CONFIG, self.link, self.dialler, self.heard, traffic)
        self.end.open(Hello(SELF, b"\x01" * 8, "10.0.0.9:9", Lane.PROBE))

    def take(self, event: object) -> None:
        match event:
            case Comes(pipe, name) if pipe not in self.link.open:
                self.link.open.add(pipe)
                self.link.names.setdefault(pipe, name)
                self.end.added(pipe, -1)
            case Goes(pipe):
                self.link.open.discard(pipe)
                self.end.removed(pipe, -1)
            case Says(pipe, message):
                self.hear(pipe, message)
            case Sends(peer, frame):
                self.end.send(peer, frame)
            case Expels(name):
                self.expelled.add(name)
                self.end.expel(name)
            case Room(is_there):
                self.link.has_room = is_there

    def hear(self, pipe: int, message: bytes) -> None:
        before, frames = self.accounted(), len(self.heard.frames)
        is_plain_talk = self.is_hello(message) or self.is_credit(message)
        if pipe not in self.end._gone:
            self.link.open.add(pipe)  # What is said may overtake the news of who came.
        self.link.incoming.append((pipe, message))
        self.end.readable()
        assert is_plain_talk or self.accounted() > before, "a message went by and left no trace"
        for received in self.heard.frames[frames:]:
            assert received.sender not in self.expelled
            assert len(received.frame) <= CONFIG.frame_size_bytes_max
            assert not self.link.proves or received.sender == self.link.names[pipe]

    def accounted(self) -> int:
        return sum(self.count[name] for name in (*DROPS, "frames_received", "dropped_oversized"))

    @staticmethod
    def is_hello(message: bytes) -> bool:
        try:
            framing.decode_hello(message)
        except BadFrame:
            return False
        return True

    @staticmethod
    def is_credit(message: bytes) -> bool:
        try:
            return framing.decode_batch(message).frames == ()
        except BadFrame:
            return False

    def check_bounds(self) -> None:
        assert len(self.end._pipes) <= CONFIG.connections_max + connections.STRANGERS_MAX + connections.GUESTS_MAX
        assert set(self.end._pipes) <= self.link.open
        assert all(pipe.id in self.end._pipes for route in self.end._routes.values() for pipe in route)
        assert all(self.end._routes.values())
        assert all(0 < len(queue) <= CONFIG.queue_frames_max for queue in self.end._queues.values())
        assert not {pipe.name for pipe in self.end._pipes.values()} & self.expelled

    async def close(self) -> None:
        self.end.close()
        await asyncio.to_thread(self.dialler.close)


@given(st.booleans(), st.lists(events, max_size=60))
def test_whatever_comes_in_raises_nothing_is_accounted_for_and_takes_bounded_room(
    proves: bool, happenings: list[object]
) -> None:
    async def run() -> None:
        lab = Lab(proves)
        for event in happenings:
            lab.take(event)
            lab.check_bounds()
            await asyncio.sleep(0)
            lab.check_bounds()
        await lab.close()

    asyncio.run(run())


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(NAMES[1:]), st.booleans()), min_size=40, max_size=200))
def test_any_number_of_connections_leaves_room_for_few(arrivals: list[tuple[str, bool]]) -> None:
    async def run() -> None:
        lab = Lab(proves=True)
        for pipe, (name, greets) in enumerate(arrivals, start=1):
            lab.take(Comes(pipe, name))
            if greets:
                lab.take(Says(pipe, framing.encode_hello(Hello(name, bytes(8), "", Lane.PROBE))))
            lab.check_bounds()
            nodes = Counter(pipe.name for pipe in lab.end._pipes.values())
            assert all(nodes[node] <= connections.ACCEPTED_OF_NODE_MAX for node in NAMES[1:-1])
            assert nodes[NAMES[-1]] <= connections.GUESTS_OF_NAME_MAX
        await lab.close()

    asyncio.run(run())
