"""What transports of streams have in common, on streams that are queues in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from gossip import streams
from gossip.errors import PeerUnreachable, TransportError
from gossip.streams import StreamTransport
from gossip.testing import Node, Recorder, TransportContract, node_id
from gossip.transport import GUEST, Credentials, Lane, Peer, Transport, TransportConfig
from tests.gossip.sockets import ClockAhead, eventually, run_with_clock

ROOM = 8


class Pipe:
    """A ``gossip.streams.Wire``. ``clogged``: it takes nothing."""

    def __init__(self, incoming: asyncio.Queue[bytes | None], outgoing: asyncio.Queue[bytes | None]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self.clogged = asyncio.Event()

    async def read(self) -> bytes | None:
        return await self._incoming.get()

    async def write(self, message: bytes) -> None:
        if self.clogged.is_set():
            await asyncio.Event().wait()
        await self._outgoing.put(message)

    async def finish(self) -> None:
        await self._outgoing.put(None)

    async def close(self) -> None:
        if not self._outgoing.full():
            self._outgoing.put_nowait(None)


class Pipes:
    """Who listens where, and who does not answer when dialled (``silent``) until there is a ``refusal``."""

    def __init__(self) -> None:
        self.listening: dict[str, PipeTransport] = {}
        self.silent: set[str] = set()
        self.refusal = asyncio.Event()


class PipeTransport(StreamTransport):
    def __init__(self, pipes: Pipes, config: TransportConfig) -> None:
        super().__init__(config)
        self._pipes = pipes
        self._serving: set[asyncio.Task[None]] = set()
        self.dialled: list[Pipe] = []

    async def check(self, credentials: Credentials) -> None:
        """Pipes prove nothing, so anything will do."""

    async def listen(self, bind: str) -> int:
        host, _, port = bind.rpartition(":")
        number = int(port) or 1000 + len(self._pipes.listening)
        if f"{host}:{number}" in self._pipes.listening:
            raise TransportError(f"{host}:{number} is taken")
        self._pipes.listening[f"{host}:{number}"] = self
        return number

    async def hang_up(self, patience_s: float) -> None:
        del self._pipes.listening[self._bound]
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def ask(self, address: str) -> str:
        return (await self._tenant(address)).config.node

    async def dial(self, address: str, node: str, lane: Lane) -> Pipe:
        tenant = await self._tenant(address)
        if tenant.config.node != node or not tenant.admits(self.config.node):
            raise PeerUnreachable("refused")
        there: asyncio.Queue[bytes | None] = asyncio.Queue(ROOM)
        back: asyncio.Queue[bytes | None] = asyncio.Queue(ROOM)
        serving = asyncio.ensure_future(
            tenant.accept(self.config.node, f"{id(there)}", lane, Pipe(there, back)),
        )
        tenant._serving.add(serving)
        serving.add_done_callback(tenant._serving.discard)
        self.dialled.append(Pipe(back, there))
        return self.dialled[-1]

    async def _tenant(self, address: str) -> PipeTransport:
        if address in self._pipes.silent:
            await self._pipes.refusal.wait()
            raise PeerUnreachable("connection refused")
        if address not in self._pipes.listening:
            raise PeerUnreachable("connection refused")
        return self._pipes.listening[address]


class TestStreams(TransportContract):
    def setup_method(self) -> None:
        self.pipes = Pipes()

    def create(self, config: TransportConfig) -> Transport:
        return PipeTransport(self.pipes, config)


@contextlib.asynccontextmanager
async def started(pipes: Pipes, config: TransportConfig) -> AsyncIterator[Node]:
    transport, heard = PipeTransport(pipes, config), Recorder(timeout_s=5.0)
    await transport.start(heard)
    try:
        yield Node(config.node, transport, heard)
    finally:
        await transport.close()


def config(number: int, connections_max: int = 64, credentials: Credentials | None = None) -> TransportConfig:
    return TransportConfig(node_id(number), "10.0.0.1:0", connections_max=connections_max, credentials=credentials)


async def test_the_stream_that_was_longest_unused_makes_room_and_guests_take_no_nodes_place() -> None:
    pipes = Pipes()
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(started(pipes, config(1, connections_max=2)))
        others = [await stack.enter_async_context(started(pipes, config(number))) for number in (2, 3, 4)]
        for other in others:
            other.tell(one, other.id.encode())
            await one.heard.frame(other.id.encode())
        for number in range(4):
            guest = TransportConfig(GUEST + node_id(number), bind="")
            (await stack.enter_async_context(started(pipes, guest))).tell(one, b"%d" % number)
            await one.heard.frame(b"%d" % number)
        assert one.transport.counters()["streams_evicted"] == 1 + 2
        assert one.transport.counters()["connections"] == 2 + 2
        await eventually(lambda: [node.transport.counters()["connections"] for node in others] == [0, 1, 1])


async def test_what_waits_for_a_dial_leaves_on_the_stream_that_the_peer_opens_meanwhile() -> None:
    pipes = Pipes()
    async with started(pipes, config(1)) as one, started(pipes, config(2)) as other:
        pipes.silent.add(other.transport.address)
        one.tell(other, b"waiting")
        await eventually(lambda: one.transport.counters()["dials"] == 1)
        other.tell(one, b"it is me")
        await other.heard.frame(b"waiting")


async def test_a_dial_with_old_credentials_that_fails_is_made_again_and_not_reported() -> None:
    pipes, old, new = Pipes(), Credentials("old", "", ()), Credentials("new", "", ())
    async with started(pipes, config(1, credentials=old)) as one, started(pipes, config(2)) as other:
        pipes.silent.add(other.transport.address)
        one.tell(other, b"waiting")
        await eventually(lambda: one.transport.counters()["dials"] == 1)
        await one.transport.renew(new)
        pipes.silent.clear()
        pipes.refusal.set()
        await other.heard.frame(b"waiting")
        assert one.heard.failures == []
        assert one.transport.counters()["dials_failed"] == 1


async def test_a_guest_that_answers_at_an_address_is_not_dialled() -> None:
    pipes = Pipes()
    guest = TransportConfig(GUEST + node_id(2), "10.0.0.1:0")
    async with started(pipes, config(1)) as one, started(pipes, guest) as listening:
        one.transport.send(Peer("", listening.transport.address), Lane.PROBE, b"a secret")
        assert "guest" in (await one.heard.failure(Peer("", listening.transport.address))).reason
        assert listening.heard.frames == []


@pytest.mark.parametrize("lane", list(Lane))
def test_a_stream_that_takes_nothing_is_replaced_and_nothing_is_lost(lane: Lane) -> None:
    async def test(loop: ClockAhead) -> None:
        pipes = Pipes()
        async with started(pipes, config(1)) as one, started(pipes, config(2)) as other:
            one.tell(other, b"hello", lane)
            await other.heard.frame(b"hello")
            assert isinstance(one.transport, PipeTransport)
            one.transport.dialled[0].clogged.set()
            one.tell(other, b"stuck", lane)
            for _ in range(10):
                await asyncio.sleep(0)
            loop.ahead_s += streams.STALL_LIMIT_S
            await other.heard.frame(b"stuck")
            assert one.transport.counters()["dials"] == 2

    run_with_clock(test)


async def test_an_address_that_is_none_is_not_dialled() -> None:
    async with started(Pipes(), config(1)) as one:
        one.transport.send(Peer("", "nonsense"), Lane.PROBE, b"?")
        assert "host:port" in (await one.heard.failure(Peer("", "nonsense"))).reason
        assert one.transport.counters()["dials"] == 0
