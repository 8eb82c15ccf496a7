"""Bytes that no healthy software writes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from crdt.messages import Push, PushPurpose
from gary.messages import Sync, encode
from gossip import Lane, Send
from simulations.faults.base import Mend, World, nothing
from simulations.host import Host


@dataclass(frozen=True, slots=True)
class Poison:
    """Members of a deployment push to their fellows what is no change, or a change with some bytes flipped."""

    about: ClassVar[str] = "members that push broken changes"
    evidence: ClassVar[tuple[str, ...]] = ("poisoned",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        holders = world.holders("")
        if not holders:
            return None
        host = world.rng.choice(holders)
        agent = host.agent
        assert agent is not None
        id = world.rng.choice(sorted(agent.deployments))
        deployment = agent.deployments[id]
        fellows = [node for node in sorted(deployment.state.members) if node != agent.node]
        changes = deployment.document.replica.recent(4)
        for node in fellows:
            member = agent.swim.member(node)
            if member is not None:
                payload = encode(Sync(id, deployment.document.epoch, _broken(world.rng, changes)))
                (send,) = agent.swim.send(node, payload, Lane.BULK)
                assert isinstance(send, Send)
                # Past whoever watches what agents do: no agent does this.
                world.cluster.network.send(host.address, agent.node, send.peer, Lane.BULK, send.frame)
                world.cluster.counters["poisoned"] += 1
        return nothing if fellows else None


def _broken(rng: random.Random, changes: Sequence[bytes]) -> bytes:
    """A message that pushes no change, or one with a byte that is not what it was, or none at all."""
    match rng.randrange(3):
        case 0:
            return rng.randbytes(rng.randrange(200))
        case 1:
            return Push(PushPurpose.PUBLISH, (rng.randbytes(rng.randrange(1, 200)),)).encode()
        case _:
            change = bytearray(rng.choice(changes) if changes else b"\0")
            change[rng.randrange(len(change))] ^= 1 << rng.randrange(8)
            return Push(PushPurpose.PUBLISH, (bytes(change),)).encode()
