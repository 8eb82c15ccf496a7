"""A transport over anything that opens streams of messages: HTTP/2, WebSockets, QUIC, TLS over TCP.

``StreamTransport`` does what every such transport has to do and none has a reason to do differently: a bounded queue
for each peer and lane, one dial at a time for each, replies on the stream that is there, guests, the expelled, the
least recently used stream that makes room, new credentials. What differs is left to the author: how to listen, how to
dial, and how each side knows whom it talks with. A stream is one lane to one peer, used in both directions.

(``gossip.nng`` does not build on it: nng has no streams to wait for, but one socket for all connections of a lane.)
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from gossip.dialling import advertised_address, join_address, split_address
from gossip.errors import PeerUnreachable, TransportError
from gossip.traffic import Traffic
from gossip.transport import GUEST, GUEST_GONE, Credentials, Lane, Peer, Receiver, TransportConfig

STALL_LIMIT_S = 10.0
"""A stream that takes nothing for so long is given up, and so is one that does not end when it is asked to."""


class Wire(Protocol):
    """One open stream of messages. Everything that breaks it is an ``OSError``."""

    async def read(self) -> bytes | None:
        """The next message; None after the last one."""

    async def write(self, message: bytes) -> None:
        """Return when there is room for another one. Never called twice at a time."""

    async def finish(self) -> None:
        """Write no more. What was written still arrives, and then the other side reads None and finishes as well."""

    async def close(self) -> None:
        """Let go of it, whatever is on its way; also of one that is finished or broken."""


@dataclass(slots=True, eq=False)
class Stream:
    """``wire`` leads to ``peer``, whose address is the one that was dialled, or where the connection of a peer that
    dialled comes from. ``turn`` is held by whoever writes.
    """

    peer: Peer
    lane: Lane
    wire: Wire
    is_dialled: bool
    used: float
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_guest(self) -> bool:
        return self.peer.node.startswith(GUEST)

    def leads_to(self, peer: Peer) -> bool:
        """Several guests have one name, and of a peer without a name there is only the address."""
        if not peer.node:
            return self.is_dialled and self.peer.address == peer.address
        return self.peer.node == peer.node and (not self.is_guest or self.peer.address == peer.address)


class StreamTransport(ABC):
    """A ``gossip.transport.Transport``. An author's class has the five methods that are abstract here."""

    def __init__(self, config: TransportConfig, counters: tuple[str, ...] = ()) -> None:
        self.config = config
        self._traffic = Traffic(config, ("dials", "dials_failed", "streams_evicted", "dropped_forgotten", *counters))
        self._address = self._bound = ""
        self._receiver: Receiver | None = None
        self._queues: dict[tuple[Peer, Lane], deque[bytes]] = {}
        self._dialling: dict[tuple[Peer, Lane], asyncio.Event] = {}
        self._streams: list[Stream] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._dials = asyncio.Semaphore(config.dials_max)
        self._renewing = asyncio.Lock()

    # What differs

    @abstractmethod
    async def check(self, credentials: Credentials) -> None:
        """Raise ``TransportError`` for credentials that cannot be used."""

    @abstractmethod
    async def listen(self, bind: str) -> int:
        """Listen at ``bind``, showing ``config.credentials``, and return the port. Raises ``TransportError``.

        For each stream that somebody opens ask ``admits``, and if it does, ``await accept(...)``.
        """

    @abstractmethod
    async def hang_up(self, patience_s: float) -> None:
        """Listen no more, wait at most so long for the streams that were accepted to end, and close what is left."""

    @abstractmethod
    async def ask(self, address: str) -> str:
        """The name that whoever lives at ``address`` gives itself. Raises ``PeerUnreachable``."""

    @abstractmethod
    async def dial(self, address: str, node: str, lane: Lane) -> Wire:
        """A new stream to ``node`` and to nobody else, who has admitted this node. Raises ``PeerUnreachable``."""

    # What is the same

    @property
    def address(self) -> str:
        """``host:port`` at which peers reach this node; empty if it does not listen."""
        return self._address

    @property
    def ports(self) -> int:
        """One, unless an author's class says otherwise."""
        return 1

    async def start(self, receiver: Receiver) -> None:
        """Listen, if there is an address to bind. Raises ``TransportError``."""
        if self.config.credentials is not None:
            await self.check(self.config.credentials)
        self._receiver = receiver
        if self.config.bind:
            try:
                host, _ = split_address(self.config.bind)
                port = await self.listen(self.config.bind)
                self._address = advertised_address(self.config, port)
            except ValueError as error:
                raise TransportError(str(error)) from error
            self._bound = join_address(host, port)

    async def renew(self, credentials: Credentials) -> None:
        """End every stream and listen anew; what waits leaves on new streams."""
        async with self._renewing:
            if self._receiver is None or self.config.credentials is None:
                raise TransportError("only a transport that was started with credentials can be given new ones")
            await self.check(credentials)
            self.config = replace(self.config, credentials=credentials)
            for stream in tuple(self._streams):
                self._end(stream)
            if self._bound:
                await self.hang_up(STALL_LIMIT_S)
                if not self._is_closed():
                    await self.listen(self._bound)

    async def close(self) -> None:
        """Close every stream. Nothing is delivered from here on."""
        was_open, self._receiver = not self._is_closed(), None
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if was_open and self._bound:
            await self.hang_up(0.0)

    def send(self, peer: Peer, lane: Lane, frame: bytes) -> None:
        """Queue ``frame``; before ``start`` and after ``close`` it is dropped."""
        if self._is_closed() or not self._traffic.admits(peer, frame):
            return
        peers = [peer]
        if peer.node.startswith(GUEST):
            guests = [stream.peer for stream in self._streams if (stream.peer.node, stream.lane) == (peer.node, lane)]
            peers = guests or [Peer(peer.node, "")]
        for one in peers:
            if (one, lane) not in self._queues:
                self._queues[one, lane] = deque()
                self._spawn(self._pump(one, lane, self._queues[one, lane]))
            self._traffic.enqueue(self._queues[one, lane], frame)

    def forget(self, peer: Peer) -> None:
        """Drop what waits for the node, and end its streams."""
        self._discard(peer.node, "dropped_forgotten")

    def expel(self, node: str) -> None:
        """The same, and neither take in nor make another one."""
        self._traffic.expelled.add(node)
        self._discard(node, "dropped_expelled")

    def counters(self) -> Mapping[str, int]:
        """Those of ``Traffic``; ``connections`` is how many streams there are now."""
        return {**self._traffic.count, "connections": len(self._streams)}

    def count(self, counter: str) -> None:
        """Count one more of what an author's class told the constructor that it counts."""
        self._traffic.count[counter] += 1

    # Streams that others open

    def admits(self, node: str) -> bool:
        """Whether ``node`` may have a stream; to be asked before it hears or is heard. A refusal is counted."""
        if node in self._traffic.expelled:
            self.count("dropped_expelled")
            return False
        return not self._is_closed()

    async def accept(self, node: str, origin: str, lane: Lane, wire: Wire) -> None:
        """Use a stream that was opened by ``node``, from ``origin`` (any name of its connection), until it ends."""
        await self._converse(self._begin(Stream(Peer(node, origin), lane, wire, False, self._now())))

    # Sending

    async def _pump(self, peer: Peer, lane: Lane, queue: deque[bytes]) -> None:
        """Write what waits for ``peer``, and look for a way as long as there is none."""
        while queue:
            stream = self._stream_to(peer, lane)
            if stream is None:
                await self._way_to(peer, lane)
            else:
                await self._write(stream, queue)
        del self._queues[peer, lane]

    async def _write(self, stream: Stream, queue: deque[bytes]) -> None:
        async with stream.turn:
            if not queue or stream.ended.is_set():
                return
            frame = queue.popleft()
            try:
                async with asyncio.timeout(STALL_LIMIT_S):
                    await stream.wire.write(frame)
            except OSError:
                queue.appendleft(frame)
                self._end(stream)
            else:
                self._traffic.sent(frame)
                stream.used = self._now()

    def _stream_to(self, peer: Peer, lane: Lane) -> Stream | None:
        """The newest, which is the last to break."""
        return next((one for one in reversed(self._streams) if one.lane is lane and one.leads_to(peer)), None)

    async def _way_to(self, peer: Peer, lane: Lane) -> None:
        """Dial, if nobody does, and wait until that has ended or the peer has opened a stream itself."""
        if (peer, lane) not in self._dialling:
            self._dialling[peer, lane] = asyncio.Event()
            self._spawn(self._reach(peer, lane))
        change = self._dialling[peer, lane]
        change.clear()
        await change.wait()

    async def _reach(self, peer: Peer, lane: Lane) -> None:
        """Dial; what waits is unreachable if that fails, unless there is a way by now or new credentials."""
        credentials, reason = self.config.credentials, ""
        try:
            async with self._dials:
                stream = await self._connect(peer, lane)
            if credentials is not self.config.credentials:
                self._end(stream)
        except PeerUnreachable as error:
            self.count("dials_failed")
            reason = str(error)
        finally:
            self._dialling.pop((peer, lane)).set()
        queue = self._queues.get((peer, lane))
        if reason and queue and credentials is self.config.credentials and self._stream_to(peer, lane) is None:
            self._traffic.drop("dropped_unreachable", queue)
            if self._receiver is not None:
                self._receiver.unreachable(Peer(peer.node, "") if peer.node.startswith(GUEST) else peer, reason)

    async def _connect(self, peer: Peer, lane: Lane) -> Stream:
        if peer.node.startswith(GUEST):
            raise PeerUnreachable(GUEST_GONE)
        try:
            split_address(peer.address)
        except ValueError as error:
            raise PeerUnreachable(str(error)) from error
        self.count("dials")
        node = peer.node or await self.ask(peer.address)
        if node in self._traffic.expelled:
            raise PeerUnreachable(f"the node {node} was expelled")
        if node.startswith(GUEST):
            raise PeerUnreachable("a guest answers there, which is nobody to be dialled")
        wire = await self.dial(peer.address, node, lane)
        stream = self._begin(Stream(Peer(node, peer.address), lane, wire, True, self._now()))
        self._spawn(self._converse(stream))
        return stream

    # Streams

    def _begin(self, stream: Stream) -> Stream:
        """Take ``stream`` into use. The least recently used makes room, and no guest takes a node's place."""
        self._streams.append(stream)
        kin = [one for one in self._streams if (one.lane, one.is_guest) == (stream.lane, stream.is_guest)]
        if len(kin) > self.config.connections_max:
            self.count("streams_evicted")
            self._end(min(kin, key=lambda one: one.used))
        if stream.peer.node in self._traffic.expelled:
            self._end(stream)
        for (peer, lane), change in self._dialling.items():
            if lane is stream.lane and stream.leads_to(peer):
                change.set()
        return stream

    def _end(self, stream: Stream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)
        stream.ended.set()

    async def _converse(self, stream: Stream) -> None:
        """Take in what comes until one side ends it. Who dialled then waits for what is still on its way."""
        reading = self._spawn(self._read(stream))
        try:
            await stream.ended.wait()
            async with stream.turn:
                await stream.wire.finish()
            if stream.is_dialled:
                await asyncio.wait({reading}, timeout=STALL_LIMIT_S)
        finally:
            reading.cancel()
            await stream.wire.close()

    async def _read(self, stream: Stream) -> None:
        try:
            while (frame := await stream.wire.read()) is not None:
                stream.used = self._now()
                if self._receiver is None or stream.peer.node in self._traffic.expelled:
                    return
                if self._traffic.accepts(frame):
                    self._receiver.received(stream.peer.node, stream.lane, frame)
        except OSError:
            return  # The other side is gone.
        finally:
            self._end(stream)

    def _discard(self, node: str, cause: str) -> None:
        for (peer, _), queue in self._queues.items():
            if peer.node == node:
                self._traffic.drop(cause, queue)
        for stream in tuple(self._streams):
            if stream.peer.node == node:
                self._end(stream)

    def _is_closed(self) -> bool:
        return self._receiver is None

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
