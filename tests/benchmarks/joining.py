"""What it costs to let nodes in: joins a second into one agent, and how long a whole ``gary join`` takes.

    python -m tests.benchmarks.joining [--guests 200] [--at-once 16] [--agents 5] [--json figures.json]

Everything runs on this machine, over loopback, with real certificates. The guests of the first figure are made of this
process: each dials with its invitation, asks for a certificate, and hears the answer; their own keys are made before
the clock starts. The second figure is what a user waits for: the command, the agent behind it, and that at the door.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gary.cli.demo.cluster import DemoAgent, DemoCluster
from gary.cli.demo.engines import ProcessEngine
from gary.effects import Knock
from gary.trust.entry import Admittance, addressee, apply, decode_answer, encode
from gary.trust.keys import KeyPair, node_id_of
from gary.trust.knocking import knock
from gary.trust.notary import Keys, MakeKeys, answer
from gary.trust.tokens import read
from gossip import load_transport

TABLE_WIDTH = 100


def joins(issuer: DemoAgent, guests: int, at_once: int) -> tuple[float, list[float]]:
    """Seconds for all, and for each."""
    text = issuer.client.call("invite", uses=guests)["token"]
    token = read(str(text))
    make = load_transport("nng")
    made = answer(MakeKeys(token.guest_number))
    assert isinstance(made, Keys)
    visits = []
    for number in range(guests):
        key = KeyPair(os.urandom(32))
        frame = encode(apply(key, made.tls_public, f"guest-{number}", vouches=True))
        credentials = token.credentials(made.guest_key)
        visit = Knock(number, issuer.address, token.guest, credentials, frame, addressee(node_id_of(key.public)))
        visits.append((key, visit))

    async def one(key: KeyPair, visit: Knock, room: asyncio.Semaphore) -> float:
        async with room:
            began = time.perf_counter()
            entry = decode_answer(await knock(make, visit), key)
            assert isinstance(entry, Admittance), entry
            return time.perf_counter() - began

    async def all_of_them() -> list[float]:
        room = asyncio.Semaphore(at_once)
        return await asyncio.gather(*(one(key, visit, room) for key, visit in visits))

    began = time.perf_counter()
    each = asyncio.run(all_of_them())
    return time.perf_counter() - began, each


def whole_joins(issuer: DemoAgent, others: Sequence[DemoAgent]) -> list[float]:
    """Seconds of ``gary join``, one after the other."""
    token = str(issuer.client.call("invite", uses=len(others))["token"])
    taken = []
    for agent in others:
        socket = str(agent.state_dir / "agent.sock")
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "gary", "--socket", socket, "join", "--token-file", "-"],
            input=token,
            text=True,
            check=True,
            capture_output=True,
        )
        taken.append(time.perf_counter() - began)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guests", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--agents", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    cluster = DemoCluster(ProcessEngine(), options.agents)
    try:
        cluster.wait_until_up()
        issuer, *others = cluster.agents
        whole = whole_joins(issuer, others)
        total, each = joins(issuer, options.guests, options.at_once)
    finally:
        cluster.close()
    each.sort()
    figures = {
        "joins_per_second": options.guests / total,
        "at_the_door_p50_s": statistics.median(each),
        "at_the_door_p99_s": each[int(len(each) * 0.99)],
        "gary_join_median_s": statistics.median(whole),
        "gary_join_max_s": max(whole),
    }
    table = Table("what", "figure")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:.3g}")
    Console(width=TABLE_WIDTH).print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
