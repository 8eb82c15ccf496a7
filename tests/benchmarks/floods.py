"""What a flood of connections that shake no hands does to a node, to who is connected to it, and to who wants to be.

    python -m tests.benchmarks.floods [--connections 10000] [--seconds 10] [--json figures.json]

The flood says nothing, half of what a TLS client says first, all of that, or noise; what the node closes comes again at
once. It comes from 127.0.0.66, and everybody else from 127.0.0.1. The node runs in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import astuple
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from gossip.dialling import split_address
from gossip.nng import NngTransport
from gossip.testing import Node, Recorder, node_id
from gossip.transport import SERVER_NAME, Credentials, Lane, Peer, TransportConfig
from tests.benchmarks.gossip_children import Authority
from tests.benchmarks.measuring import resident_mb

TIMEOUT_S: Final = 30.0
ECHO_PATIENCE_S: Final = 1.0
NEWCOMER_EVERY_S: Final = 1.0
TABLE_WIDTH: Final = 110
_IP_BIND_ADDRESS_NO_PORT: Final = 24

Figures = dict[str, float]


def open_files() -> None:
    """As many as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# -- in processes of their own


async def be_attacked() -> None:
    """A node that sends back what it gets, to the address with which that begins, until a line comes in."""
    open_files()
    node, *shown = json.loads(sys.stdin.readline())
    credentials = Credentials(shown[0], shown[1], tuple(shown[2]))
    transport = NngTransport(TransportConfig(node, "127.0.0.1:0", credentials=credentials))

    class Echo:
        def received(self, sender: str, lane: Lane, frame: bytes) -> None:
            transport.send(Peer(sender, frame.split()[0].decode()), lane, frame)

        def unreachable(self, peer: Peer, reason: str) -> None:
            """A newcomer that has gone again."""

    await transport.start(Echo())
    print(transport.address, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(json.dumps(dict(transport.counters())), flush=True)
    await transport.close()


async def attack(host: str, port: int, connections: int, seconds: float, said: bytes) -> None:
    """Keep ``connections`` open, and at the end print how many were tried."""
    open_files()
    tried = 0

    async def come_again() -> None:
        nonlocal tried
        loop = asyncio.get_running_loop()
        while True:
            with socket.socket() as sock, contextlib.suppress(OSError):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind(("127.0.0.66", 0))
                tried += 1
                await loop.sock_connect(sock, (host, port))
                await loop.sock_sendall(sock, said)
                while await loop.sock_recv(sock, 65_536):
                    pass

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(come_again() for _ in range(connections)))
    print(tried, flush=True)


# -- the measurement


class Target:
    """The node under attack, from outside."""

    def __init__(self, authority: Authority) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "--be-attacked"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say(json.dumps([node_id(1), *astuple(authority.credentials(node_id(1)))]))
        self.peer = Peer(node_id(1), self._hear())

    def resident_mb(self) -> float:
        return resident_mb(self._process.pid)

    def end(self) -> dict[str, int]:
        """Its counters."""
        self._say("")
        counters: dict[str, int] = json.loads(self._hear())
        self._process.wait()
        return counters

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.asynccontextmanager
async def honest(authority: Authority, number: int) -> AsyncIterator[Node]:
    # It dials only, and needs an address to which the echo is sent.
    transport = NngTransport(
        TransportConfig(node_id(number), "127.0.0.1:0", credentials=authority.credentials(node_id(number)))
    )
    heard = Recorder(TIMEOUT_S)
    await transport.start(heard)
    try:
        yield Node(node_id(number), transport, heard)
    finally:
        await transport.close()


async def echo_s(node: Node, peer: Peer, patience_s: float = ECHO_PATIENCE_S) -> float | None:
    """Seconds until a frame has come back; None if it does not in time."""
    began = time.perf_counter()
    frame = f"{node.transport.address} {began}".encode()
    node.transport.send(peer, Lane.PROBE, frame)
    try:
        async with asyncio.timeout(patience_s):
            await node.heard.frame(frame)
    except TimeoutError:
        return None
    finally:
        node.heard.frames.clear()
    return time.perf_counter() - began


async def entry_s(authority: Authority, number: int, peer: Peer) -> float:
    """Seconds until a new peer has got through, which tries again as protocols do."""
    async with honest(authority, number) as newcomer:
        began = time.perf_counter()
        while await echo_s(newcomer, peer, patience_s=0.5) is None and time.perf_counter() - began < TIMEOUT_S:
            pass
        return time.perf_counter() - began


async def flood(what: str, said: bytes, connections: int, seconds: float) -> Figures:
    authority = Authority()
    target = Target(authority)
    host, port = split_address(target.peer.address)
    echoes: list[float | None] = []
    entries: list[float] = []
    async with honest(authority, 2) as connected:
        assert await echo_s(connected, target.peer) is not None
        before = peak = target.resident_mb()
        flooding = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __spec__.name, "--attack", host, str(port), said.hex() or "-"),
            *("--connections", str(connections), "--seconds", str(seconds)),
            stdout=subprocess.PIPE,
        )
        assert flooding.stdout is not None
        tried = asyncio.ensure_future(flooding.stdout.readline())
        next_entry = time.monotonic() + NEWCOMER_EVERY_S
        while not tried.done():
            echoes.append(await echo_s(connected, target.peer))
            peak = max(peak, target.resident_mb())
            if time.monotonic() > next_entry:
                entries.append(await entry_s(authority, 3 + len(entries), target.peer))
                next_entry = time.monotonic() + NEWCOMER_EVERY_S
            await asyncio.sleep(0.01)  # asks a hundred times a second, and is no flood itself
        await flooding.wait()
    counters = target.end()
    came_back = sorted(echo for echo in echoes if echo is not None)
    return {
        f"{what}: connections tried": float(tried.result()),
        f"{what}: connections shed": counters["handshakes_shed"],
        f"{what}: memory before, MB": before,
        f"{what}: memory at most, MB": peak,
        f"{what}: echo of a peer, p50 ms": 1000 * statistics.median(came_back),
        f"{what}: echo of a peer, p99 ms": 1000 * came_back[int(0.99 * len(came_back))],
        f"{what}: echoes lost": len(echoes) - len(came_back),
        f"{what}: a new peer gets in after, median s": statistics.median(entries),
        f"{what}: a new peer gets in after, at most s": max(entries),
    }


def client_hello() -> bytes:
    """The first that a TLS client says."""
    context = ssl.create_default_context()
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(coming, going, server_hostname=SERVER_NAME).do_handshake()
    return going.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--be-attacked", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--attack", nargs=3, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be_attacked:
        return asyncio.run(be_attacked())
    if options.attack is not None:
        host, port, said = options.attack
        data = b"" if said == "-" else bytes.fromhex(said)
        return asyncio.run(attack(host, int(port), options.connections, options.seconds, data))
    hello = client_hello()
    figures: Figures = {}
    for what, said in (
        ("silence", b""),
        ("half a hello", hello[: len(hello) // 2]),
        ("hello", hello),
        ("noise", b"\r\n"),
    ):
        figures |= asyncio.run(flood(what, said, options.connections, options.seconds))
    table = Table("what", "figure")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3g}")
    Console(width=TABLE_WIDTH).print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2))
    return None


if __name__ == "__main__":
    main()
