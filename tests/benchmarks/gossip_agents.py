"""A process of gossip alone, for benchmarks: agents of ``gossip.Swim`` on ``NngTransport``, and nothing of Gary above.

python -m tests.benchmarks.gossip_agents    reads what to run as JSON on standard input, writes ``ready``, and then
                                            answers each line with a line, until input ends: ``report`` with JSON,
                                                ``restart`` with ``restarted`` once all live their next life
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gary.trust.notary import Certified, Certify, Found, Founded, Keys, MakeKeys, answer
from gossip import Effect, Lane, Peer, Send, SetTimer, Swim, SwimConfig, Timer, TransportConfig
from gossip.nng import NngTransport
from gossip.transport import Credentials

CLUSTER = b"b" * 16
CALM = SwimConfig(probe_interval_s=20.0, gossip_fanout=1, gossip_interval_s=0.5)


@dataclass(frozen=True, slots=True)
class Plan:
    """One agent. ``credentials``: certificate, key and roots; none for the plain form. ``seeds``: node and address.

    ``is_calm``: it seldom probes and gossips, so that one machine can stand for many.
    """

    node: str
    address: str
    epoch: int = 1
    seeds: tuple[tuple[str, str], ...] = ()
    credentials: tuple[str, str, tuple[str, ...]] | None = field(default=None, repr=False)
    is_calm: bool = False


class Authority:
    """Makes credentials of one root, as the notary does."""

    def __init__(self) -> None:
        made = answer(Found("gary root benchmark", "0" * 32))
        assert isinstance(made, Founded)
        self._root = made

    def credentials(self, node: str) -> Credentials:
        keys = answer(MakeKeys((1).to_bytes(32, "big")))
        assert isinstance(keys, Keys)
        leaf = answer(Certify(self._root.root_certificate, self._root.root_key, keys.tls_public, node))
        assert isinstance(leaf, Certified)
        return Credentials(leaf.certificate, keys.tls_key, (self._root.root_certificate,))

    def shown(self, node: str) -> tuple[str, str, tuple[str, ...]]:
        """The same in a form for ``Plan``."""
        made = self.credentials(node)
        return made.certificate, made.key, made.roots


class GossipAgent:
    """One member of the cluster: executes what ``Swim`` asks for."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        credentials = None if plan.credentials is None else Credentials(*plan.credentials)
        self._transport = NngTransport(TransportConfig(plan.node, plan.address, credentials=credentials))
        self.swim = Swim(
            node=plan.node,
            address=plan.address,
            cluster=CLUSTER,
            epoch=plan.epoch,
            config=CALM if plan.is_calm else SwimConfig(),
            rng=random.Random(plan.node),
            welcome=bytes,
        )

    async def start(self) -> None:
        await self._transport.start(self)
        seeds = [Peer(node, address) for node, address in self._plan.seeds]
        self._perform(self.swim.start(self._loop.time(), seeds))

    async def close(self) -> None:
        await self._transport.close()

    def received(self, sender: str, lane: Lane, frame: bytes) -> None:
        self._perform(self.swim.receive(sender, lane, frame, self._loop.time()))

    def unreachable(self, peer: Peer, reason: str) -> None:
        self._perform(self.swim.unreachable(peer, reason, self._loop.time()))

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(peer, lane, frame):
                    self._transport.send(peer, lane, frame)
                case SetTimer(timer, delay_s):
                    self._loop.call_later(delay_s, self._timer, timer)

    def _timer(self, timer: Timer) -> None:
        self._perform(self.swim.timer(timer, self._loop.time()))

    def report(self) -> dict[str, Any]:
        swim = self.swim
        others = (member.node for member in swim.members() if member.node != self._plan.node)
        return {
            "node": self._plan.node,
            "alive": len(swim.alive()),
            "heard": [node for node in others if swim.last_heard(node) is not None],
            "second_lives": sum(member.incarnation.epoch > 1 for member in swim.members()),
            "suspicions": swim.counters().get("suspicions", 0),
            "deaths": swim.counters().get("deaths_declared", 0),
        }


class Child:
    """A process with some agents in it."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.gossip_agents"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say(json.dumps([asdict(plan) for plan in plans]))

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        assert self._hear() == "ready"

    def report(self) -> list[dict[str, Any]]:
        self._say("report")
        found: list[dict[str, Any]] = json.loads(self._hear())
        return found

    def restart(self) -> None:
        """End all agents in it and start them anew, each with its next epoch; does not wait."""
        self._say("restart")

    def wait_until_restarted(self) -> None:
        assert self._hear() == "restarted"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    plans = [_plan(one) for one in json.loads(await lines.readline())]
    agents = [GossipAgent(plan) for plan in plans]
    await asyncio.gather(*(agent.start() for agent in agents))
    print("ready", flush=True)
    while line := await lines.readline():
        if line.strip() == b"restart":
            await asyncio.gather(*(agent.close() for agent in agents))
            agents = [GossipAgent(replace(plan, epoch=plan.epoch + 1)) for plan in plans]
            await asyncio.gather(*(agent.start() for agent in agents))
            print("restarted", flush=True)
        else:
            print(json.dumps([agent.report() for agent in agents]), flush=True)
    for agent in agents:
        await agent.close()


def _plan(given: dict[str, Any]) -> Plan:
    shown = given["credentials"]
    credentials = None if shown is None else (shown[0], shown[1], tuple(shown[2]))
    seeds = tuple((node, address) for node, address in given["seeds"])
    return Plan(given["node"], given["address"], given["epoch"], seeds, credentials, given["is_calm"])


if __name__ == "__main__":
    asyncio.run(_serve())
