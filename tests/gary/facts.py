"""Makes facts of a deployment for tests: nodes, specs, promises, views, and documents that merge through ``permit``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crdt import Replica
from gary.assignment import View
from gary.document import Document, Draft
from gary.facts import MAPS
from gary.identity import Claim, Generation, NodeId, Slot
from gary.permission import permit
from gary.spec import Service, Spec
from gary.state import Membership, Promise, PromiseState, Role, State
from gary.volunteering import Room

NODES: tuple[NodeId, ...] = tuple(f"{number:032x}" for number in range(1, 9))
A, B, C, D, E = NODES[:5]
INSTANCE = "life1"
G1, G2, G3 = (Generation(INSTANCE, clock << 16, A) for clock in (1, 2, 3))

_actors = itertools.count(1)


def service(name: str = "web", **fields: Any) -> Service:
    return Service(name=name, **{"image": "shop/web:1", **fields})


def spec(*services: Service, resilience: int = 3) -> Spec:
    return Spec(name="shop", services=services or (service(),), resilience=resilience)


def promise(
    node: NodeId, slot: Slot = "web/1", *, lamport: int = 1, generation: Generation = G1, **fields: Any
) -> Promise:
    given = {"epoch": 1, "state": PromiseState.HEALTHY, **fields}
    return Promise(node=node, slot=slot, claim=Claim(lamport, node), generation=generation, **given)


def view(node: NodeId = A, alive: Iterable[NodeId] = NODES[:3], **fields: Any) -> View:
    return View(node, dict.fromkeys(sorted({node, *alive}), 1), **fields)


def members(*nodes: NodeId) -> dict[NodeId, Membership]:
    return {node: Membership(Role.MEMBER, node) for node in nodes}


def state(*promises: Promise, specs: Mapping[Generation, Spec] | None = None, **fields: Any) -> State:
    given = {"members": members(*NODES[:3]), **fields}
    return State(specs={G1: spec()} if specs is None else specs, promises=promises, **given)


def room(node: NodeId = A, **fields: Any) -> Room:
    given = {
        "runtimes": ("docker",),
        "free_cpus": 100.0,
        "free_memory_bytes": 1 << 40,
        "free_containers": 100,
        **fields,
    }
    return Room(node=node, **given)


class Copy:
    """One node's copy of a document. What it writes goes to nobody by itself; ``log`` has every change it made."""

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.document = Document(Replica(bytes.fromhex(node) + next(_actors).to_bytes(8, "big"), MAPS), node)
        self.log: list[bytes] = []

    @property
    def state(self) -> State:
        return self.document.state

    def draft(self) -> Draft:
        return self.document.draft()

    def write(self, draft: Draft) -> bytes:
        change = self.document.commit(draft)
        if change:
            self.log.append(change)
        return change

    def write_raw(self, name: str, key: str, value: bytes) -> bytes:
        """Write what no honest node would."""
        change = self.document.replica.put({(name, key): value})
        self.log.append(change)
        return change

    def hear(self, changes: Sequence[bytes]) -> tuple[str, ...]:
        """Take in changes; why some were refused."""
        return tuple(refusal.reason for refusal in self.document.replica.apply(changes, permit).refused)


def merge_all(copies: Sequence[Copy]) -> None:
    """Everybody hears everything, lost or not before."""
    changes = [change for copy in copies for change in copy.document.replica.changes_since(())]
    for copy in copies:
        copy.hear(changes)
