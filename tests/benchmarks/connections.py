"""What connections cost, with certificates and without.

    python -m tests.benchmarks.connections [--only latency memory storm idle flood] [--json figures.json]

- latency: a message to a new peer (dial, handshake, hellos), and one on a connection that is there, until it arrives.
- memory: what each connected peer adds to a node's resident memory, both lanes together.
- storm: 64 nodes restart at once, each knowing the others; when each was heard and probed again, and who was accused.
- idle: processor time of agents that only gossip, of two clusters side by side, one with certificates.
- flood: 10,000 connections that say nothing, half a handshake, or all of a client's first message, and come again when
  they are closed: what it does to the node, to who is connected, and to who wants to be.

Everything runs on this machine, over loopback. The flood comes from 127.0.0.66.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from gossip.dialling import split_address
from gossip.nng import NngTransport
from gossip.testing import Node, Received, Recorder, node_id
from gossip.transport import SERVER_NAME, Lane, Peer, TransportConfig
from tests.benchmarks.gossipers import NodeSpec, as_json, open_files, processes
from tests.gossip.certificates import Authority

TABLE_WIDTH: Final = 100
TIMEOUT_S: Final = 30.0
ANYWHERE: Final = "127.0.0.1:0"
FORMS: Final = ("plain", "tls")
FIRST_PORT: Final = 21_000
STORM_NODES: Final = 64
STORM_PROCESSES: Final = 8
STORM_WATCHED_S: Final = 12.0
IDLE_NODES: Final = 30
IDLE_WATCHED_S: Final = 30.0
FLOOD_CONNECTIONS: Final = 10_000
FLOOD_S: Final = 10.0
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")

Figures = dict[str, float]


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def spread(name: str, values: Sequence[float], factor: float = 1.0) -> Figures:
    return {f"{name}_p50": factor * statistics.median(values), f"{name}_p99": factor * quantile(values, 0.99)}


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


class Certificates:
    """Of one root; none for the form without."""

    def __init__(self, form: str) -> None:
        self.authority = Authority() if form == "tls" else None

    def config(self, number: int, bind: str = ANYWHERE, connections_max: int = 1_024) -> TransportConfig:
        credentials = None if self.authority is None else self.authority.credentials(node_id(number))
        return TransportConfig(node_id(number), bind, connections_max=connections_max, credentials=credentials)

    @contextlib.asynccontextmanager
    async def node(self, number: int, bind: str = ANYWHERE) -> AsyncIterator[Node]:
        transport = NngTransport(self.config(number, bind))
        heard = Recorder(TIMEOUT_S)
        await transport.start(heard)
        try:
            yield Node(node_id(number), transport, heard)
        finally:
            await transport.close()


# -- latency


async def latency() -> Figures:
    figures: Figures = {}
    for form in FORMS:
        certificates = Certificates(form)
        async with certificates.node(1) as asking, certificates.node(2) as asked:
            first = []
            for number in range(300):
                first.append(await seconds_until_heard(asking, asked, b"%d" % number))
                asking.transport.forget(asked.peer)
                asked.transport.forget(asking.peer)
                await asyncio.sleep(0.01)
            warm = [await seconds_until_heard(asking, asked, b"warm %d" % number) for number in range(3_000)]
        figures |= spread(f"first_message_{form}_ms", first, 1e3) | spread(f"warm_message_{form}_ms", warm[100:], 1e3)
    return figures


async def seconds_until_heard(asking: Node, asked: Node, frame: bytes) -> float:
    began = time.perf_counter()
    asking.tell(asked, frame)
    await asked.heard.frame(frame)
    asked.heard.frames.clear()
    return time.perf_counter() - began


# -- memory

LISTENER = """
import asyncio, json, sys
from gossip.nng import NngTransport
from gossip.transport import Credentials, Peer, TransportConfig
from tests.benchmarks.gossipers import open_files
told = json.loads(sys.stdin.readline())
shown = told["credentials"]
class Echo:
    def received(self, sender, lane, frame):
        transport.send(Peer(sender, frame.split()[0].decode()), lane, frame)
    def unreachable(self, peer, reason):
        pass
async def main():
    global transport
    credentials = shown and Credentials(shown["certificate"], shown["key"], tuple(shown["roots"]))
    config = TransportConfig(told["node"], "127.0.0.1:0", connections_max=1024, credentials=credentials)
    transport = NngTransport(config)
    await transport.start(Echo())
    print(transport.address, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print(json.dumps(dict(transport.counters())), flush=True)
    await transport.close()
open_files()
asyncio.run(main())
"""


class Listener:
    """A node in a process of its own that sends back what it gets, to the address with which it begins."""

    def __init__(self, certificates: Certificates) -> None:
        shown = certificates.config(1).credentials
        self._process = subprocess.Popen(
            [sys.executable, "-c", LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        fields = shown and {"certificate": shown.certificate, "key": shown.key, "roots": shown.roots}
        self._in.write(json.dumps({"node": node_id(1), "credentials": fields}) + "\n")
        self._in.flush()
        self.peer = Peer(node_id(1), self._out.readline().strip())

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> dict[str, int]:
        """Its counters."""
        self._in.write("\n")
        self._in.flush()
        counters: dict[str, int] = json.loads(self._out.readline())
        self._process.wait()
        return counters


async def memory() -> Figures:
    figures: Figures = {}
    for form in FORMS:
        certificates = Certificates(form)
        for count in (64, 256):
            listener = Listener(certificates)
            async with contextlib.AsyncExitStack() as stack:
                before = resident_mb(listener.pid)
                for number in range(2, count + 2):
                    node = await stack.enter_async_context(certificates.node(number))
                    for lane in Lane:
                        frame = f"{node.transport.address} hello".encode()
                        node.transport.send(listener.peer, lane, frame)
                        await node.heard.all_of([Received(node_id(1), lane, frame)])
                grown = resident_mb(listener.pid) - before
            listener.end()
            figures[f"memory_of_{count}_peers_{form}_kb_each"] = 1024 * grown / count
    return figures


# -- storm and idle


async def whole_cluster(form: str, count: int, per_process: int, first_port: int, watch: Watch) -> Figures:
    certificates = Certificates(form)
    specs = [
        NodeSpec(config.node, config.bind, config.credentials)
        for config in (certificates.config(n + 1, f"127.0.0.1:{first_port + 2 * n}") for n in range(count))
    ]
    seeds = [(spec.node, spec.bind) for spec in specs]
    async with processes(-(-count // per_process)) as started:
        parts = [specs[at : at + per_process] for at in range(0, count, per_process)]
        begun = time.monotonic()
        await asyncio.gather(
            *(
                process.tell("start", nodes=as_json(part), seeds=seeds, begun=begun)
                for process, part in zip(started, parts, strict=True)
            )
        )
        async with asyncio.timeout(4 * TIMEOUT_S):
            while min(report["alive"] for report in await reports(started)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        return await watch(form, started)


async def reports(started: Sequence[Any], command: str = "report", **arguments: object) -> list[dict[str, Any]]:
    return [one for some in await asyncio.gather(*(p.tell(command, **arguments) for p in started)) for one in some]


Watch = Callable[[str, Sequence[Any]], Coroutine[Any, Any, Figures]]


async def watch_storm(form: str, started: Sequence[Any]) -> Figures:
    await reports(started, "restart", begun=time.monotonic())
    await asyncio.sleep(STORM_WATCHED_S)
    seen = await reports(started)
    never = STORM_WATCHED_S
    return {
        f"storm_{form}_all_heard_s": max(report["heard_at"] or never for report in seen),
        f"storm_{form}_all_probed_s": max(report["probed_at"] or never for report in seen),
        f"storm_{form}_all_members_known": min(report["alive"] for report in seen),
        f"storm_{form}_accusations": sum(len(report["accused"]) for report in seen),
    }


async def watch_idle(form: str, started: Sequence[Any]) -> Figures:
    await asyncio.sleep(5.0)
    before = [processor_s(process.pid) for process in started]
    began = time.monotonic()
    await asyncio.sleep(IDLE_WATCHED_S)
    took = time.monotonic() - began
    shares = [(processor_s(process.pid) - was) / took for process, was in zip(started, before, strict=True)]
    return {
        f"idle_{form}_cpu_percent_each": 100 * statistics.mean(shares),
        f"idle_{form}_memory_mb_each": statistics.mean(resident_mb(process.pid) for process in started),
    }


async def storm() -> Figures:
    figures: Figures = {}
    for form in FORMS:
        figures |= await whole_cluster(form, STORM_NODES, STORM_NODES // STORM_PROCESSES, FIRST_PORT, watch_storm)
    return figures


async def idle() -> Figures:
    both = await asyncio.gather(
        *(
            whole_cluster(form, IDLE_NODES, 1, FIRST_PORT + 1_000 * (1 + number), watch_idle)
            for number, form in enumerate(FORMS)
        )
    )
    figures = both[0] | both[1]
    more = figures["idle_tls_cpu_percent_each"] / figures["idle_plain_cpu_percent_each"] - 1
    return figures | {"idle_tls_costs_more_percent": 100 * more}


# -- flood

FLOOD = """
import select, socket, sys, time
from tests.benchmarks.gossipers import open_files
open_files()
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data, seconds = bytes.fromhex(sys.argv[4]), float(sys.argv[5])
poll, held, end, made = select.epoll(), {}, time.time() + seconds, 0
while time.time() < end:
    for _ in range(min(64, count - len(held))):
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        sock.bind(("127.0.0.66", 0))
        if sock.connect_ex((host, port)) not in (0, 115):
            sock.close()
            break
        held[sock.fileno()] = sock
        poll.register(sock, select.EPOLLOUT if data else select.EPOLLIN)
        made += 1
    for fd, event in poll.poll(0.005, 256):
        if event & select.EPOLLOUT and not event & select.EPOLLHUP:
            held[fd].send(data)
            poll.modify(fd, select.EPOLLIN)
        elif event & (select.EPOLLHUP | select.EPOLLERR) or not held[fd].recv(65536):
            poll.unregister(fd)
            held.pop(fd).close()
print(made, flush=True)
"""


def client_hello() -> bytes:
    """The first that a TLS client says."""
    context = ssl.create_default_context()
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(coming, going, server_hostname=SERVER_NAME).do_handshake()
    return going.read()


async def flood() -> Figures:
    figures: Figures = {}
    first = client_hello()
    for what, said in (("silent", b""), ("half", first[: len(first) // 2]), ("hello", first), ("noise", b"\r\n" * 9)):
        figures |= await one_flood(what, said)
    return figures


async def one_flood(what: str, said: bytes) -> Figures:
    certificates = Certificates("tls")
    listener = Listener(certificates)
    host, port = split_address(listener.peer.address)
    warm: list[float] = []
    entered: list[float] = []
    lost = 0
    async with certificates.node(2) as connected:
        assert await seconds_for_echo(connected, listener.peer) is not None
        before = peak = resident_mb(listener.pid)
        flooding = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", FLOOD, host, str(port), str(FLOOD_CONNECTIONS), said.hex(), str(FLOOD_S)),
            stdout=subprocess.PIPE,
        )
        assert flooding.stdout is not None
        made = asyncio.ensure_future(flooding.stdout.readline())
        number = 3
        next_entry = time.monotonic()
        while not made.done():
            took = await seconds_for_echo(connected, listener.peer)
            warm += [took] if took is not None else []
            lost += took is None
            peak = max(peak, resident_mb(listener.pid))
            if time.monotonic() > next_entry:
                next_entry = time.monotonic() + 1.0
                number += 1
                async with certificates.node(number, bind="127.0.0.1:0") as newcomer:
                    entered.append(await seconds_until_let_in(newcomer, listener.peer))
            await asyncio.sleep(0.01)
        await flooding.wait()
    counters = listener.end()
    return {
        f"flood_{what}_connections_tried": float(made.result()),
        f"flood_{what}_connections_shed": counters["handshakes_shed"],
        f"flood_{what}_memory_before_mb": before,
        f"flood_{what}_memory_peak_mb": peak,
        **spread(f"flood_{what}_connected_echo_ms", warm, 1e3),
        f"flood_{what}_echoes_lost": lost,
        f"flood_{what}_newcomer_median_s": statistics.median(entered),
        f"flood_{what}_newcomer_max_s": max(entered),
    }


async def seconds_for_echo(node: Node, peer: Peer, patience_s: float = 1.0) -> float | None:
    frame = f"{node.transport.address} {time.perf_counter()}".encode()
    began = time.perf_counter()
    node.transport.send(peer, Lane.PROBE, frame)
    try:
        async with asyncio.timeout(patience_s):
            await node.heard.frame(frame)
    except TimeoutError:
        return None
    finally:
        node.heard.frames.clear()
    return time.perf_counter() - began


async def seconds_until_let_in(node: Node, peer: Peer) -> float:
    """As protocols do, it tries again and again."""
    began = time.perf_counter()
    while time.perf_counter() - began < TIMEOUT_S:
        if await seconds_for_echo(node, peer, patience_s=0.5) is not None:
            break
    return time.perf_counter() - began


SECTIONS: Final[dict[str, Callable[[], Coroutine[Any, Any, Figures]]]] = {
    "latency": latency,
    "memory": memory,
    "storm": storm,
    "idle": idle,
    "flood": flood,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    open_files()
    figures: Figures = {}
    for section in options.only:
        print(f"{section} …", file=sys.stderr)
        figures |= asyncio.run(SECTIONS[section]())
    table = Table("what", "figure")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:.4g}")
    Console(width=TABLE_WIDTH).print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
