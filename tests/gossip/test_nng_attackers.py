"""What hostile ones do to a node on real sockets, and that others go on.

Those without a certificate do not come past the handshake; see ``test_nng_tls`` for most of them. Those with one speak
here through a bare nng socket, to say what no transport of ours would.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pynng as untyped_pynng
import pytest

from gossip import admission, connections, framing
from gossip.certificates import Authority
from gossip.dialling import split_address
from gossip.framing import Batch, Hello
from gossip.nng import _tls
from gossip.testing import Node, Received, node_id
from gossip.transport import GUEST, SERVER_NAME, Lane, TransportConfig
from tests.gossip.sockets import TIMEOUT_S, eventually, run, started

pynng: Any = untyped_pynng
NEVER_AGAIN = {"reconnect_time_min": 60_000, "reconnect_time_max": 60_000}
ALICE, BOB, EVE = node_id(1), node_id(2), node_id(3)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@contextlib.asynccontextmanager
async def alice_and_bob(authority: Authority, frame_max: int = 4_000_000) -> AsyncIterator[tuple[Node, Node]]:
    """Two honest nodes that are connected on both lanes; what happens meanwhile does not part them."""
    configs = [
        TransportConfig(node, "127.0.0.1:0", "", frame_max, credentials=authority.credentials(node))
        for node in (ALICE, BOB)
    ]
    async with run(configs[0]) as alice, run(configs[1]) as bob:
        for lane in Lane:
            bob.tell(alice, b"before", lane)
            await alice.heard.all_of([Received(BOB, lane, b"before")])
        dials = bob.transport.counters()["dials"]
        yield alice, bob
        for lane in Lane:
            bob.tell(alice, b"after", lane)
            await alice.heard.all_of([Received(BOB, lane, b"after")])
        assert bob.transport.counters()["dials"] == dials


def hello(node: str) -> bytes:
    return framing.encode_hello(Hello(node, bytes(8), "127.0.0.1:1", Lane.PROBE))


def frames(*content: bytes, taken: int = 0) -> bytes:
    return framing.encode_batch(Batch(content, taken, asks=False))


class Intruder:
    """A bare nng socket with a node's certificate."""

    def __init__(self, authority: Authority, node: str) -> None:
        self._tls = _tls(authority.credentials(node))
        self._sockets: list[Any] = []

    async def connect(self, target: Node) -> Any:
        host, port = split_address(target.transport.address)
        sock = pynng.Pair1(polyamorous=True, tls_config=self._tls.client, **NEVER_AGAIN)
        self._sockets.append(sock)
        await asyncio.to_thread(sock.dial, f"tls+tcp://{host}:{port}", block=True)
        return sock

    def leave(self) -> None:
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def eve(authority: Authority) -> Iterator[Intruder]:
    intruder = Intruder(authority, EVE)
    yield intruder
    intruder.leave()


# -- without a certificate that would do


async def attempt(node: Node, context: ssl.SSLContext) -> None:
    """A TLS handshake, and then a node's first messages, whether anybody listens or not."""
    host, port = split_address(node.transport.address)
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=SERVER_NAME)
        for message in (hello(EVE), frames(b"let me in")):
            writer.write(len(message).to_bytes(8, "big") + message)
        await asyncio.wait_for(reader.readexactly(1_000), TIMEOUT_S)


@pytest.mark.parametrize("shown", ["nothing", "a certificate of its own making"])
async def test_whoever_shows_no_certificate_of_the_root_is_refused_in_the_handshake(
    authority: Authority, shown: str, tmp_path: Path
) -> None:
    context = ssl.create_default_context(cadata=authority.root)
    if shown != "nothing":
        own = Authority(EVE)
        (tmp_path / "own.pem").write_text(own.root + own.key)
        context.load_cert_chain(tmp_path / "own.pem")
    async with alice_and_bob(authority) as (alice, _):
        await attempt(alice, context)
        await eventually(lambda: alice.transport.counters()["handshakes_refused"] == 1)
        assert {received.sender for received in alice.heard.frames} == {BOB}


async def test_whoever_hangs_up_or_speaks_another_protocol_of_nng_is_counted_apart(authority: Authority) -> None:
    async with alice_and_bob(authority) as (alice, _):
        host, port = split_address(alice.transport.address)
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await eventually(lambda: alice.transport.counters()["handshakes_abandoned"] == 1)
        assert alice.transport.counters()["handshakes_refused"] == 0


# -- with one


async def test_frames_before_the_hello_are_counted_and_go_nowhere(authority: Authority, eve: Intruder) -> None:
    async with alice_and_bob(authority) as (alice, _):
        sock = await eve.connect(alice)
        sock.send(frames(b"no introduction"))
        await eventually(lambda: alice.transport.counters()["dropped_before_hello"] == 1)
        assert {received.sender for received in alice.heard.frames} == {BOB}


@pytest.mark.parametrize("claimed", [BOB, ALICE, GUEST + EVE])
async def test_another_s_name_is_counted_and_ends_the_connection(
    authority: Authority, eve: Intruder, claimed: str
) -> None:
    async with alice_and_bob(authority) as (alice, _):
        sock = await eve.connect(alice)
        for message in (hello(claimed), frames(b"believe me")):
            sock.send(message)
        await eventually(lambda: alice.transport.counters()["dropped_impostor"] == 1)
        await eventually(lambda: sock.pipes == ())
        assert {received.sender for received in alice.heard.frames} == {BOB}


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xff" * 100, b"gary", hello(EVE), frames(b"x" * 99)[:-1], frames(taken=77), bytes(9)],
    ids=[
        "nothing",
        "noise",
        "half a hello",
        "another hello",
        "half a frame",
        "a credit for nothing",
        "an unknown kind",
    ],
)
async def test_garbage_ends_the_connection_and_is_counted(authority: Authority, eve: Intruder, garbage: bytes) -> None:
    async with alice_and_bob(authority) as (alice, _):
        sock = await eve.connect(alice)
        sock.send(hello(EVE))
        sock.send(frames(b"civil"))
        assert (await alice.heard.frame(b"civil")).sender == EVE
        sock.send(garbage)
        await eventually(lambda: alice.transport.counters()["dropped_malformed"] == 1)
        assert alice.transport.counters()["connections"] == len(Lane)


async def test_frames_over_the_limit_are_not_delivered(authority: Authority, eve: Intruder) -> None:
    async with alice_and_bob(authority, frame_max=1_000) as (alice, _):
        sock = await eve.connect(alice)
        sock.send(hello(EVE))
        sock.send(frames(b"x" * 1_001, b"in order"))
        await alice.heard.frame(b"in order")
        assert alice.transport.counters()["dropped_oversized"] == 1
        sock.send(frames(b"y" * (connections.BATCH_BYTES + 1_000)))
        await eventually(lambda: alice.transport.counters()["connections"] == len(Lane))
        assert not [received for received in alice.heard.frames if len(received.frame) > 1_000]


async def test_one_node_holds_few_connections_and_its_newest(authority: Authority, eve: Intruder) -> None:
    async with alice_and_bob(authority) as (alice, _):
        most = connections.ACCEPTED_OF_NODE_MAX
        socks = []
        for number in range(3 * most):
            socks.append(await eve.connect(alice))
            socks[-1].send(hello(EVE))
            socks[-1].send(frames(b"%d" % number))
            await alice.heard.frame(b"%d" % number)
            assert alice.transport.counters()["connections"] <= most + len(Lane)
        assert alice.transport.counters()["connections_surplus"] == 2 * most
        socks[0].send(frames(b"the oldest"))
        for sock in socks[-most:]:
            sock.send(frames(b"the newest"))
        await alice.heard.until(
            lambda: [received.frame for received in alice.heard.frames].count(b"the newest") == most
        )
        assert b"the oldest" not in {received.frame for received in alice.heard.frames}


async def test_connections_that_say_no_hello_are_few_for_each_node(authority: Authority, eve: Intruder) -> None:
    async with alice_and_bob(authority) as (alice, _):
        socks = [await eve.connect(alice) for _ in range(2 * connections.ACCEPTED_OF_NODE_MAX)]
        await eventually(lambda: sum(bool(sock.pipes) for sock in socks) <= connections.ACCEPTED_OF_NODE_MAX)
        surplus = alice.transport.counters()["connections_surplus"]
        assert surplus == len(socks) - connections.ACCEPTED_OF_NODE_MAX


async def test_without_certificates_too_connections_that_say_no_hello_are_few() -> None:
    async with started(ALICE, None) as alice, started(BOB, None) as bob:
        bob.tell(alice, b"before")
        await alice.heard.frame(b"before")
        host, port = split_address(alice.transport.address)
        with contextlib.ExitStack() as stack:
            socks = []
            for _ in range(connections.STRANGERS_MAX + 10):
                socks.append(stack.enter_context(pynng.Pair1(polyamorous=True, **NEVER_AGAIN)))
                await asyncio.to_thread(socks[-1].dial, f"tcp://{host}:{port}", block=True)
            await eventually(lambda: not any(sock.pipes for sock in socks[:10]))
            assert alice.transport.counters()["connections_surplus"] == 10
            bob.tell(alice, b"after")
            await alice.heard.frame(b"after")


# -- raw connections in great number

FLOOD = """
import resource, select, socket, sys, time
host, port, count, data = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
held = []
for _ in range(count):
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind(("127.0.0.66", 0))
    sock.connect_ex((host, port))
    held.append(sock)
    if data and select.select([], [sock], [], 0.01)[1]:
        sock.send(data)
print("there", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(not admission.Doorkeeper.works_here(), reason="who waits is seen on Linux only")
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "half a hello"])
async def test_a_flood_of_connections_that_shake_no_hands_holds_up_nobody_else(
    authority: Authority, said: bytes
) -> None:
    count = 2 * admission.WAITING_MAX
    async with alice_and_bob(authority) as (alice, bob):
        host, port = split_address(alice.transport.address)
        flood = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", FLOOD, host, str(port), str(count), said.hex()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert flood.stdin is not None
        assert flood.stdout is not None
        there = asyncio.ensure_future(flood.stdout.readline())
        number = 0
        while not there.done():
            number += 1
            bob.tell(alice, b"%d" % number)
            await alice.heard.frame(b"%d" % number)
        assert there.result() == b"there\n"
        async with started(EVE, authority.credentials(EVE)) as newcomer:
            newcomer.tell(alice, b"I am new")
            await alice.heard.frame(b"I am new")
        # Some of the flood may have found the kernel's queue full, and try again after a second.
        await eventually(lambda: alice.transport.counters()["handshakes_shed"] >= admission.WAITING_MAX // 2)
        flood.stdin.write(b"\n")
        await flood.wait()
