"""What TLS between nodes costs: messages, memory, a storm of restarts, and a cluster at rest, with and without it.

    python -m tests.benchmarks.connections [--only messages,memory,storm,idle] [--json figures.json]

Everything runs on this machine over loopback. The plain form is the same transport without credentials, which no agent
of Gary runs with; both are measured in turn in one go, because absolute times drift.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gary.cli.demo.cluster import free_ports
from gossip import Lane, Peer, TransportConfig
from gossip.nng import NngTransport
from gossip.testing import Node, Recorder, node_id
from tests.benchmarks.gossip_agents import Plan
from tests.benchmarks.gossip_children import Authority, Child
from tests.benchmarks.measuring import cpu_s, resident_mb, wait_until

TIMEOUT_S = 20.0
NEW_PEERS = 100
WARM_MESSAGES = 2000
CONNECTED = (64, 256)
STORM_PEERS = 64
STORM_MEMBERS = 16
STORM_PROCESSES = 4
SETTLED_S = 60.0
STORM_REST_S = 10.0
IDLE_AGENTS = 30
IDLE_REST_S = 15.0
IDLE_MEASURED_S = 30.0
TIMEOUT_S = 60.0
TABLE_WIDTH = 110
FORMS = ("plain", "tls")

Figures = dict[str, float]


@contextlib.asynccontextmanager
async def node(number: int, authority: Authority | None, **options: Any) -> AsyncIterator[Node]:
    id = node_id(number)
    credentials = None if authority is None else authority.credentials(id)
    transport = NngTransport(TransportConfig(id, "127.0.0.1:0", credentials=credentials, **options))
    heard = Recorder(TIMEOUT_S)
    await transport.start(heard)
    try:
        yield Node(id, transport, heard)
    finally:
        await transport.close()


async def _one_way_s(sender: Node, receiver: Node, frame: bytes) -> float:
    began = time.perf_counter()
    sender.tell(receiver, frame)
    await receiver.heard.frame(frame)
    receiver.heard.frames.clear()
    return time.perf_counter() - began


async def messages(authorities: dict[str, Authority | None]) -> Figures:
    """A first message to a peer that is not connected, and one on a warm connection; one way, in milliseconds."""
    first: dict[str, list[float]] = {form: [] for form in FORMS}
    warm: dict[str, list[float]] = {form: [] for form in FORMS}
    for number in range(NEW_PEERS):
        for form, authority in authorities.items():
            async with node(1, authority) as one, node(2 + number, authority) as other:
                first[form].append(await _one_way_s(other, one, b"hello"))
    for form, authority in authorities.items():
        async with node(1, authority) as one, node(2, authority) as other:
            await _one_way_s(one, other, b"hello")
            warm[form] = [await _one_way_s(one, other, b"%d" % number) for number in range(WARM_MESSAGES)]
    figures = {}
    for what, found in (("first message", first), ("warm message", warm)):
        for form, taken in found.items():
            ordered = sorted(taken)
            figures[f"{what}, {form}, p50 ms"] = 1000 * statistics.median(ordered)
            figures[f"{what}, {form}, p99 ms"] = 1000 * ordered[int(0.99 * len(ordered))]
    return figures


async def memory(authorities: dict[str, Authority | None]) -> Figures:
    """What the memory of a node grows by for each peer that is connected to it on both lanes, in KB."""
    figures = {}
    for form, authority in authorities.items():
        for count in CONNECTED:
            [port] = free_ports(1)
            address = f"127.0.0.1:{port}"
            shown = None if authority is None else authority.shown(node_id(1))
            child = Child([Plan(node_id(1), address, credentials=shown)])
            child.wait_until_ready()
            before = resident_mb(child.pid)
            try:
                async with contextlib.AsyncExitStack() as peers:
                    # Each says a word on both lanes; nobody answers a stranger.
                    for number in range(count):
                        peer = await peers.enter_async_context(node(10 + number, authority))
                        for lane in Lane:
                            peer.transport.send(Peer(node_id(1), address), lane, b"?")
                    await _settled(partial(resident_mb, child.pid))
                    figures[f"memory per peer of {count}, {form}, KB"] = (
                        1000 * (resident_mb(child.pid) - before) / count
                    )
            finally:
                child.kill()
    return figures


async def _settled(measure: Callable[[], float]) -> None:
    """Until it does not change for a second any more. Raises ``TimeoutError`` if that takes too long."""
    last, since = measure(), time.monotonic()
    async with asyncio.timeout(SETTLED_S):
        while time.monotonic() - since < 1.0:
            await asyncio.sleep(0.1)  # between two looks
            if measure() != last:
                last, since = measure(), time.monotonic()


def storm(authority: Authority) -> Figures:
    """All peers of one node restart at once: until it has heard of every new life, and what it suspects meanwhile.

    The peers are calm: on hosts of their own each would have a core for what it tells the others. Then the same with
    members of which none is calm, as many as the cores of one machine can carry.
    """
    return _storm_around_one(authority) | _storm_of_all(authority)


def _storm_around_one(authority: Authority) -> Figures:
    ports = free_ports(STORM_PEERS + 1)
    observer, *peers = [(node_id(number), f"127.0.0.1:{port}") for number, port in enumerate(ports, start=1)]
    plans = [Plan(*peer, 1, (observer,), authority.shown(peer[0]), is_calm=True) for peer in peers]
    watching = Child([Plan(*observer, 1, (), authority.shown(observer[0]))])
    children = [Child(plans[number::STORM_PROCESSES]) for number in range(STORM_PROCESSES)]
    try:
        for child in (watching, *children):
            child.wait_until_ready()
        wait_until(partial(_see_all, [watching], STORM_PEERS + 1), TIMEOUT_S, "all have joined")
        time.sleep(STORM_REST_S)  # what a join leaves behind is over
        [before] = watching.report()
        began = time.monotonic()
        for child in children:
            child.restart()
        wait_until(lambda: watching.report()[0]["second_lives"] == STORM_PEERS, TIMEOUT_S, "all are back")
        took = time.monotonic() - began
        time.sleep(STORM_REST_S)  # a suspicion would have come by now
        [after] = watching.report()
    finally:
        for child in (watching, *children):
            child.kill()
    return {
        f"storm of {STORM_PEERS} around one, all heard again after s": took,
        f"storm of {STORM_PEERS} around one, suspicions": after["suspicions"] - before["suspicions"],
        f"storm of {STORM_PEERS} around one, deaths declared": after["deaths"] - before["deaths"],
    }


def _storm_of_all(authority: Authority) -> Figures:
    ports = free_ports(STORM_MEMBERS)
    members = [(node_id(number), f"127.0.0.1:{port}") for number, port in enumerate(ports, start=1)]
    seeds = [tuple(members[(number + step) % STORM_MEMBERS] for step in (1, 7, 11)) for number in range(STORM_MEMBERS)]
    plans = [Plan(*one, 1, near, authority.shown(one[0])) for one, near in zip(members, seeds, strict=True)]
    children = [Child(plans[number::STORM_PROCESSES]) for number in range(STORM_PROCESSES)]
    try:
        for child in children:
            child.wait_until_ready()
        wait_until(partial(_see_all, children, STORM_MEMBERS), TIMEOUT_S, "all have joined")
        time.sleep(STORM_REST_S)  # what a join leaves behind is over
        for child in children:
            child.restart()
        for child in children:
            child.wait_until_restarted()
        began = time.monotonic()
        wait_until(partial(_all_heard, children), TIMEOUT_S, "each was heard by another")
        took = time.monotonic() - began
        time.sleep(STORM_REST_S)  # a suspicion would have come by now
        said = [one for child in children for one in child.report()]
    finally:
        for child in children:
            child.kill()
    return {
        f"storm of all {STORM_MEMBERS}, each heard again after s": took,
        f"storm of all {STORM_MEMBERS}, nodes with a suspicion": sum(one["suspicions"] > 0 for one in said),
        f"storm of all {STORM_MEMBERS}, deaths declared": sum(one["deaths"] for one in said),
    }


def _all_heard(children: Sequence[Child]) -> bool:
    said = [one for child in children for one in child.report()]
    return {node for one in said for node in one["heard"]} >= {one["node"] for one in said}


def idle(authorities: dict[str, Authority | None]) -> Figures:
    """CPU that each agent of a cluster at rest takes, in percent of a core: mean over the agents."""
    figures = {}
    for form, authority in authorities.items():
        ports = free_ports(IDLE_AGENTS)
        addresses = {node_id(number): f"127.0.0.1:{port}" for number, port in enumerate(ports, start=1)}
        first = next(iter(addresses))
        children = []
        try:
            for one, address in addresses.items():
                seeds = () if one == first else ((first, addresses[first]),)
                shown = None if authority is None else authority.shown(one)
                children.append(Child([Plan(one, address, 1, seeds, shown)]))
            for child in children:
                child.wait_until_ready()
            wait_until(partial(_see_all, children, IDLE_AGENTS), TIMEOUT_S, "all see all")
            time.sleep(IDLE_REST_S)  # what a join leaves behind is over
            before = [cpu_s(child.pid) for child in children]
            time.sleep(IDLE_MEASURED_S)  # the measurement itself
            used = [cpu_s(child.pid) - then for child, then in zip(children, before, strict=True)]
            figures[f"idle cluster of {IDLE_AGENTS}, {form}, CPU %"] = 100 * statistics.mean(used) / IDLE_MEASURED_S
            resident = statistics.median(resident_mb(child.pid) for child in children)
            figures[f"idle cluster of {IDLE_AGENTS}, {form}, RSS MB"] = resident
        finally:
            for child in children:
                child.kill()
    return figures


def _see_all(children: Sequence[Child], count: int) -> bool:
    return all(one["alive"] == count for child in children for one in child.report())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="messages,memory,storm,idle")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    authority = Authority()
    authorities: dict[str, Authority | None] = {"plain": None, "tls": authority}
    works: dict[str, Callable[[], Figures]] = {
        "messages": lambda: asyncio.run(messages(authorities)),
        "memory": lambda: asyncio.run(memory(authorities)),
        "storm": lambda: storm(authority),
        "idle": lambda: idle(authorities),
    }
    figures: Figures = {}
    for name in options.only.split(","):
        figures |= works[name]()
    table = Table("what", "figure")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3g}")
    Console(width=TABLE_WIDTH).print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
