"""What is particular to the transport on nng: two ports, real sockets, and whoever else is found behind an address."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pynng as untyped_pynng
import pytest

from gossip import connections, dialling, framing
from gossip.dialling import join_address, split_address
from gossip.errors import TransportError
from gossip.framing import Batch, Hello
from gossip.nng import NngTransport
from gossip.testing import Node, Received, Recorder, TransportContract, node_id
from gossip.transport import Lane, Peer, Transport, TransportConfig
from tests.gossip.sockets import TIMEOUT_S, ClockAhead, eventually, run_with_clock

pynng: Any = untyped_pynng
BIND = "127.0.0.1:0"


class Nng(TransportContract):
    """Only for its way of starting nodes."""

    __test__ = False

    def create(self, config: TransportConfig) -> Transport:
        return NngTransport(config)


nodes = Nng().nodes


def bulk_port(node: Node) -> int:
    return split_address(node.transport.address)[1] + 1


@contextlib.asynccontextmanager
async def raw_peer(node: Node, lane: Lane = Lane.PROBE) -> AsyncIterator[Any]:
    """A bare nng socket connected to ``node``, to say to it what a transport would not."""
    host, port = split_address(node.transport.address)
    with pynng.Pair1(polyamorous=True, recv_timeout=2000) as raw:
        await asyncio.to_thread(raw.dial, f"tcp://{host}:{port + lane}", block=True)
        yield raw


# -- addresses


@pytest.mark.parametrize("address", ["127.0.0.1:7946", "some.host:1", "[::1]:7946", "[fe80::1]:65534"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    assert join_address(*split_address(address)) == address


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":7946", "::1:7946", "host:x", "host:-1", "host:65535", "h:٣"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|brackets|65534"):
        split_address(address)


async def test_the_bulk_lane_listens_at_the_next_port() -> None:
    async with nodes() as (alice, _):
        with pytest.raises(TransportError, match=f"127.0.0.1:{bulk_port(alice)}: address in use"):
            await NngTransport(TransportConfig(node_id(3), f"127.0.0.1:{bulk_port(alice)}")).start(Recorder(1))


async def test_a_bulk_port_that_is_taken_is_an_error_and_frees_the_probe_port() -> None:
    async with nodes() as (alice, _):
        bind = alice.transport.address
    taken = f"cannot listen at 127.0.0.1:{bulk_port(alice)}"
    with socket.create_server(("127.0.0.1", bulk_port(alice))), pytest.raises(TransportError, match=taken):
        await NngTransport(TransportConfig(node_id(3), bind)).start(Recorder(1))
    async with nodes(TransportConfig(node_id(3), bind)) as (carol,):
        assert carol.transport.address == bind


@pytest.mark.parametrize("bind", ["nonsense", "127.0.0.1", "127.0.0.1:65535", "no-such-host.invalid:7946"])
async def test_an_address_that_cannot_be_listened_at_is_an_error(bind: str) -> None:
    with pytest.raises(TransportError):
        await NngTransport(TransportConfig(node_id(3), bind)).start(Recorder(1))


async def test_the_advertised_address_is_the_one_that_others_hear_of_and_gets_its_port_from_the_bound_one() -> None:
    config = TransportConfig(node_id(1), BIND, advertise="localhost:0")
    async with nodes(config, TransportConfig(node_id(2), BIND)) as (alice, bob):
        assert alice.transport.address.startswith("localhost:")
        assert not alice.transport.address.endswith(":0")
        bob.tell(alice, b"by name")
        assert await alice.heard.frame(b"by name") == Received(bob.id, Lane.PROBE, b"by name")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_ipv6_addresses_stand_in_brackets() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    async with nodes(*(TransportConfig(node_id(n), "[::1]:0") for n in (1, 2))) as (alice, bob):
        for lane in Lane:
            alice.tell(bob, b"six", lane)
            await bob.heard.all_of([Received(alice.id, lane, b"six")])


# -- why a peer is unreachable


async def reason(node: Node, address: str) -> str:
    node.transport.send(Peer("", address), Lane.PROBE, b"anybody?")
    return (await node.heard.failure(Peer("", address))).reason


async def test_a_refused_connection_is_told_at_once() -> None:
    vacant = await Nng().vacant_address()
    async with nodes() as (alice, _):
        started = asyncio.get_running_loop().time()
        assert await reason(alice, vacant) == "connection refused"
        assert asyncio.get_running_loop().time() - started < dialling.DIAL_TIMEOUT_S / 4


async def test_a_host_without_an_address_is_told_apart() -> None:
    async with nodes() as (alice, _):
        assert await reason(alice, "no-such-host.invalid:7946") == "no such host"


async def test_reaching_oneself_is_told_apart() -> None:
    async with nodes() as (alice, _):
        assert await reason(alice, alice.transport.address) == "that is this node itself"
        await eventually(lambda: alice.transport.counters()["connections"] == 0)


async def test_a_copy_of_this_node_elsewhere_is_not_taken_for_this_node() -> None:
    async with nodes(*[TransportConfig(node_id(1), BIND)] * 2) as (original, copy):
        original.transport.send(Peer("", copy.transport.address), Lane.PROBE, b"who are you?")
        assert (await copy.heard.frame(b"who are you?")).sender == original.id


async def test_the_bulk_port_in_place_of_the_probe_port_is_told_apart() -> None:
    async with nodes() as (alice, bob):
        said = await reason(alice, f"127.0.0.1:{bulk_port(bob)}")
        assert said == f"that is the bulk port of the node at {bob.transport.address}"


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.2p1\r\n", b""])
async def test_another_program_that_speaks_or_hangs_up_is_no_gary_node(banner: bytes) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(banner)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with nodes() as (alice, _), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        said = await reason(alice, join_address(*server.sockets[0].getsockname()))
        assert said.startswith("not a Gary node: ")


async def test_a_gary_node_of_another_version_is_told_apart() -> None:
    with pynng.Pair1(polyamorous=True, listen="tcp://127.0.0.1:0") as raw:
        raw.add_post_pipe_connect_cb(lambda pipe: pipe.send(b"gary\x09 and news from the future"))
        async with nodes() as (alice, _):
            assert "version 9" in await reason(alice, str(raw.listeners[0].local_address))


async def test_those_who_do_not_shake_hands_are_told_apart_and_hold_up_nobody() -> None:
    """The one test that waits for the real time limit; all three cases wait at once."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        socket.create_connection(full.getsockname()),
        pynng.Rep0(listen="tcp://127.0.0.1:0") as other_nng,
    ):
        async with nodes() as (alice, bob):
            reasons = asyncio.gather(
                reason(alice, join_address(*silent.getsockname())),
                reason(alice, join_address(*full.getsockname())),
                reason(alice, str(other_nng.listeners[0].local_address)),
            )
            while not reasons.done():
                alice.tell(bob, b"meanwhile")
                bob.heard.frames.clear()
                await bob.heard.frame(b"meanwhile")
                await asyncio.wait([reasons], timeout=0.05)
            hanging, black_hole, mute = reasons.result()
            assert hanging.startswith("not a Gary node, or one that hangs")
            assert black_hole == "timed out"
            assert mute == "not a Gary node: it hung up before its hello"
            await eventually(lambda: alice.transport.counters()["connections"] == 1)


# -- strangers


async def test_frames_before_the_hello_are_dropped_and_counted() -> None:
    async with nodes() as (alice, _), raw_peer(alice) as raw:
        raw.send(framing.encode_batch(Batch((b"no introduction",), 0, asks=False)))
        await eventually(lambda: alice.transport.counters()["dropped_before_hello"] == 1)
        assert alice.heard.frames == []


async def test_a_peer_that_talks_nonsense_is_cut_off_and_counted() -> None:
    async with nodes() as (alice, bob), raw_peer(alice) as raw:
        raw.send(framing.encode_hello(Hello(node_id(5), bytes(8), "127.0.0.1:5", Lane.PROBE)))
        raw.send(framing.encode_batch(Batch((b"one",), 1, asks=False)))
        assert (await alice.heard.frame(b"one")).sender == node_id(5)
        raw.send(b"\x01nonsense")
        await eventually(lambda: alice.transport.counters()["connections"] == 0)
        assert alice.transport.counters()["dropped_malformed"] == 1
        bob.tell(alice, b"unharmed")
        await alice.heard.frame(b"unharmed")


def test_a_connection_without_a_hello_is_told_nothing_and_closed() -> None:
    async def test(loop: ClockAhead) -> None:
        async with nodes() as (alice, _), raw_peer(alice) as raw:
            await eventually(lambda: alice.transport.counters()["connections_accepted"] == 1)
            loop.ahead_s += dialling.DIAL_TIMEOUT_S
            await eventually(lambda: raw.pipes == ())
            with pytest.raises(pynng.TryAgain):
                raw.recv(block=False)

    run_with_clock(test)


# -- many and much


async def test_a_long_burst_arrives_whole_and_in_order_through_the_window() -> None:
    configs = (TransportConfig(node_id(1), BIND, queue_frames_max=3000), TransportConfig(node_id(2), BIND))
    async with nodes(*configs) as (alice, bob):
        sent = [b"%d" % number * 100 for number in range(3000)]
        for frame in sent:
            alice.tell(bob, frame, Lane.BULK)
        await bob.heard.until(lambda: len(bob.heard.frames) >= 3000)
        assert [received.frame for received in bob.heard.frames] == sent


async def test_the_least_recently_used_connection_makes_room_and_is_made_again() -> None:
    configs = [TransportConfig(node_id(1), BIND, connections_max=2)]
    configs += [TransportConfig(node_id(number), BIND) for number in (2, 3, 4)]
    async with nodes(*configs) as (alice, *others):
        for word in (b"first", b"second"):
            for other in others:
                alice.tell(other, word)
                await other.heard.frame(word)
                assert alice.transport.counters()["connections"] <= 2
        assert alice.transport.counters()["connections_evicted"] == 4
        assert alice.transport.counters()["dials"] == 6


def test_connections_that_both_sides_made_at_once_become_one() -> None:
    async def test(loop: ClockAhead) -> None:
        async with nodes() as (alice, bob):
            alice.tell(bob, b"hello")
            bob.tell(alice, b"hello")
            await bob.heard.frame(b"hello")
            await alice.heard.frame(b"hello")
            await eventually(lambda: all(node.transport.counters()["connections"] == 2 for node in (alice, bob)))
            loop.ahead_s += connections.RETIRE_DELAY_S
            await eventually(lambda: all(node.transport.counters()["connections"] == 1 for node in (alice, bob)))
            dials = [node.transport.counters()["dials"] for node in (alice, bob)]
            for number in range(10):
                alice.tell(bob, b"%d" % number)
                bob.tell(alice, b"%d" % number)
                await bob.heard.frame(b"%d" % number)
                await alice.heard.frame(b"%d" % number)
            assert [node.transport.counters()["dials"] for node in (alice, bob)] == dials

    run_with_clock(test)


async def test_dials_keep_to_their_limit_and_all_take_place() -> None:
    loop = asyncio.get_running_loop()
    dialler = dialling.Dialler(loop, dials_max=2)
    running: list[int] = []
    peak: list[int] = []
    go = threading.Semaphore(0)
    ended: asyncio.Queue[str | None] = asyncio.Queue()

    def dial() -> str | None:
        running.append(1)
        peak.append(len(running))
        go.acquire(timeout=TIMEOUT_S)
        running.pop()
        return "done"

    for _ in range(6):
        dialler.submit(lambda: True, dial, ended.put_nowait)
    dialler.submit(lambda: False, dial, ended.put_nowait)
    async with asyncio.timeout(TIMEOUT_S):
        for _ in range(5):
            await eventually(lambda: len(running) == 2)
            go.release()
            assert await ended.get() == "done"
        go.release()
        assert await ended.get() == "done"
    assert max(peak) == 2
    assert len(peak) == 6
    await asyncio.to_thread(dialler.close)


async def test_close_ends_the_threads_that_dial() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with nodes() as (alice, _):
            alice.transport.send(Peer("", join_address(*silent.getsockname())), Lane.PROBE, b"anybody?")
            await eventually(lambda: alice.transport.counters()["dials"] == 1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gary-dial")]


# -- other processes

ECHO = """
import asyncio, sys
from gossip.nng import NngTransport
from gossip.transport import Peer, TransportConfig

class Echo:
    def received(self, sender, lane, frame):
        transport.send(Peer(sender, sys.argv[2]), lane, frame)
    def unreachable(self, peer, reason):
        print(peer, reason, file=sys.stderr)

async def main():
    global transport
    transport = NngTransport(TransportConfig(sys.argv[1], "127.0.0.1:0"))
    await transport.start(Echo())
    print(transport.address, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def echo_process(number: int, asker: Node) -> AsyncIterator[tuple[asyncio.subprocess.Process, Peer]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        ECHO,
        node_id(number),
        asker.transport.address,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout is not None
        yield process, Peer(node_id(number), (await process.stdout.readline()).decode().strip())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_peer_that_was_killed_is_refused_at_the_next_send() -> None:
    async with nodes(TransportConfig(node_id(1), BIND)) as (alice,), echo_process(2, alice) as (process, peer):
        for lane in Lane:
            alice.transport.send(peer, lane, b"alive?")
            await alice.heard.all_of([Received(peer.node, lane, b"alive?")])
        process.kill()
        await process.wait()
        await alice.heard.until(lambda: [one.peer for one in alice.heard.hang_ups] == [peer])
        alice.transport.send(peer, Lane.PROBE, b"and now?")
        assert (await alice.heard.failure(peer)).reason == "connection refused"


def test_a_stopped_peer_stalls_nobody_else_and_loses_its_connection_only_when_it_stays_so() -> None:
    async def test(loop: ClockAhead) -> None:
        configs = (TransportConfig(node_id(1), BIND, queue_frames_max=20), TransportConfig(node_id(3), BIND))
        async with nodes(*configs) as (alice, carol), echo_process(2, alice) as (process, peer):
            alice.transport.send(peer, Lane.BULK, b"alive?")
            await alice.heard.frame(b"alive?")
            process.send_signal(signal.SIGSTOP)
            for number in range(50):
                alice.transport.send(peer, Lane.BULK, b"x" * 100_000)
                alice.tell(carol, b"%d" % number, Lane.BULK)
                await carol.heard.frame(b"%d" % number)
            assert alice.transport.counters()["dropped_overflow"] > 0
            process.send_signal(signal.SIGCONT)
            alice.transport.send(peer, Lane.BULK, b"again?")
            await alice.heard.frame(b"again?")
            assert alice.transport.counters()["connections_stalled"] == 0

            process.send_signal(signal.SIGSTOP)
            for _ in range(10):
                alice.transport.send(peer, Lane.BULK, b"x" * 100_000)
                await asyncio.sleep(0)
            loop.ahead_s += connections.STALL_LIMIT_S[Lane.BULK] + 1
            alice.transport.send(peer, Lane.BULK, b"still?")
            await eventually(lambda: alice.transport.counters()["connections_stalled"] == 1)
            process.send_signal(signal.SIGCONT)
            await alice.heard.frame(b"still?")

    run_with_clock(test)
