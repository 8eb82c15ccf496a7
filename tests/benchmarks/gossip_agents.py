"""A process of gossip alone, for benchmarks: agents of ``gossip.Swim`` on ``NngTransport``, and nothing of Gary above.

python -m tests.benchmarks.gossip_agents    reads what to run as JSON on standard input, writes ``ready``, and then
                                            obeys each line, until input ends: ``report`` is answered with JSON,
                                                ``restart`` with ``restarted`` once all live their next life, and
                                                ``join ADDRESS`` with nothing; agents that tell write a line
                                                ``NODE STATUS`` for each change of a member

``tests.benchmarks.gossip_children`` is the other side.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gossip import (
    CancelTimer,
    Effect,
    Lane,
    MemberChanged,
    Peer,
    Send,
    SetTimer,
    Swim,
    SwimConfig,
    Timer,
    TransportConfig,
)
from gossip.nng import NngTransport
from gossip.transport import Credentials

CLUSTER = b"b" * 16
CALM = SwimConfig(probe_interval_s=20.0, gossip_fanout=1, gossip_interval_s=0.5)


@dataclass(frozen=True, slots=True)
class Plan:
    """One agent. ``credentials``: certificate, key and roots; none for the plain form. ``seeds``: node and address.

    ``is_calm``: it seldom probes and gossips, so that one machine can stand for many. ``tells``: it writes down what it
    learns of members.
    """

    node: str
    address: str
    epoch: int = 1
    seeds: tuple[tuple[str, str], ...] = ()
    credentials: tuple[str, str, tuple[str, ...]] | None = field(default=None, repr=False)
    is_calm: bool = False
    tells: bool = False


class GossipAgent:
    """One member of the cluster: executes what ``Swim`` asks for."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._timers: dict[int, asyncio.TimerHandle] = {}
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

    def join(self, address: str) -> None:
        self._perform(self.swim.join(address, self._loop.time()))

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
                    self._timers[timer.token] = self._loop.call_later(delay_s, self._timer, timer)
                case CancelTimer(timer):
                    self._timers.pop(timer.token).cancel()
                case MemberChanged(member) if self._plan.tells:
                    print(member.node, member.status, flush=True)

    def _timer(self, timer: Timer) -> None:
        del self._timers[timer.token]
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


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    plans = [_plan(one) for one in json.loads(await lines.readline())]
    agents = [GossipAgent(plan) for plan in plans]
    await asyncio.gather(*(agent.start() for agent in agents))
    print("ready", flush=True)
    while line := await lines.readline():
        command, _, argument = line.decode().strip().partition(" ")
        if command == "join":
            for agent in agents:
                agent.join(argument)
        elif command == "restart":
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
    return Plan(given["node"], given["address"], given["epoch"], seeds, credentials, given["is_calm"], given["tells"])


if __name__ == "__main__":
    asyncio.run(_serve())
