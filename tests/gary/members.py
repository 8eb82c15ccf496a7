"""Members of one deployment whose words, disks and engines are the test's: no network, no clock, no runtime."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from crdt import Replica
from gary.assignment import View
from gary.deployment import Deployment
from gary.document import Document, Draft
from gary.effects import Effect, Persist
from gary.facts import MAPS
from gary.identity import DeploymentId, NodeId, Slot
from gary.messages import (
    Acceptance,
    Acquaintance,
    Behind,
    Dismissed,
    Gone,
    Invitation,
    Message,
    Orphans,
    Snapshot,
    Sync,
    Without,
    decode,
    encode,
)
from gary.permission import permit, permit_in
from gary.runtime.base import Container, StartRequest
from gary.spec import Mode, Service
from gary.state import Promise, State
from gary.storage import AppendChanges, PutSnapshot
from gary.volunteering import Room
from tests.gary.facts import G1, NODES, promise, room, service, spec

ID: DeploymentId = "d" * 32
EPOCH_CHANGES = 100

_actors = itertools.count(1)


@dataclass
class Member:
    """A node with one deployment; implements ``gary.host.Host``. What it sends waits in ``sent``.

    ``has_disk``: ``talk`` lets it write. ``has_engine``: its runtime answers; it has ``here``, and never does anything.
    """

    node: NodeId
    present: list[NodeId]
    has_disk: bool = True
    has_engine: bool = False
    changes_per_epoch: int = EPOCH_CHANGES
    epoch: int = 1
    pace: float = 1.0
    is_draining: bool = False
    is_isolated: bool = False
    is_expelled: bool = False
    expelled: tuple[NodeId, ...] = ()
    former: tuple[NodeId, ...] = ()
    parted: list[DeploymentId] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    missing_since: float = 0.0
    observed_by: frozenset[NodeId] = frozenset()
    is_well: bool = True
    now: float = 100.0
    counted: Counter[str] = field(default_factory=Counter)
    sent: list[tuple[NodeId, Message]] = field(default_factory=list)
    disk: list[AppendChanges | PutSnapshot] = field(default_factory=list)
    unwritten: list[Persist] = field(default_factory=list)
    here: list[Container] = field(default_factory=list)
    started: list[StartRequest] = field(default_factory=list)
    stopped: list[Container] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.node)
        self._numbers = itertools.count(1)
        self.deployment = Deployment(ID, self.blank_document(), self, self.now, is_restored=False)

    # What it does in the tests

    @property
    def document(self) -> Document:
        return self.deployment.document

    def write(self, say: Callable[[Draft], object]) -> bytes:
        draft = self.document.draft()
        say(draft)
        return self.deployment.write(draft, self.now)

    def fill(self) -> None:
        """Write changes that mean nothing until it is time for the next epoch."""
        while self.document.replica.change_count < self.changes_per_epoch + len(self.present):
            given = replace(self.keeps, reason=f"change {next(self._numbers)}")
            self.write(lambda draft, given=given: draft.promise(given))  # type: ignore[misc]

    @property
    def keeps(self) -> Promise:
        """What it promises: every member keeps one slot."""
        index = NODES.index(self.node) + 1
        return promise(self.node, f"web/{index}", lamport=index)

    def hold(self, snapshot: bytes) -> None:
        """Begin with a document that came with an invitation."""
        self.deployment = Deployment(ID, self.open_document(snapshot), self, self.now, is_restored=False)

    def hear(self, sender: NodeId, message: Message) -> None:
        again = decode(encode(message))
        assert again == message
        match message:
            case Invitation():
                self.deployment.invited(sender, message, self.now)
            case Acceptance():
                self.deployment.accepted(sender, message, self.now)
            case Without():
                self.deployment.without(sender, message, self.now)
            case Orphans():
                self.deployment.orphans(sender, message, self.now)
            case Gone():
                self.deployment.told_gone(sender, message, self.now)
            case Sync():
                self.deployment.received(sender, message, self.now)
            case Behind():
                self.deployment.behind(sender, message, self.now)
            case Snapshot():
                self.deployment.overtaken(sender, message, self.now)
            case Acquaintance():
                self.deployment.acquainted(sender, message, self.now)
            case Dismissed():
                self.deployment.dismissed(sender, message, self.now)

    def flush(self) -> None:
        """The disk takes what it was given."""
        while self.unwritten:
            effect = self.unwritten.pop(0)
            self.disk.extend(write for write in effect.writes if isinstance(write, AppendChanges | PutSnapshot))
            self.deployment.persisted(effect.token, self.now)

    def fail(self) -> None:
        """The disk takes nothing."""
        while self.unwritten:
            self.deployment.persist_failed(self.unwritten.pop(0).token, "no space left")

    # What its deployment asks of it

    def emit(self, effects: Sequence[Effect]) -> None:
        self.unwritten.extend(effect for effect in effects if isinstance(effect, Persist))

    def send(self, node: NodeId, message: Message) -> None:
        self.sent.append((node, message))

    def count(self, what: str) -> None:
        self.counted[what] += 1

    def blank_document(self) -> Document:
        return Document(Replica(self._actor(), MAPS), self.node)

    def open_document(self, snapshot: bytes, epoch: int | None = None) -> Document:
        judge = permit if epoch is None else permit_in(epoch)
        return Document(Replica.load(self._actor(), MAPS, snapshot, permit=judge), self.node)

    def _actor(self) -> bytes:
        return bytes.fromhex(self.node) + b"talk" + next(_actors).to_bytes(4, "big")

    @property
    def alive(self) -> Mapping[NodeId, int]:
        return dict.fromkeys(sorted(self.present), 1)

    def view(self, state: State) -> View:
        assert all(one.mode is not Mode.GLOBAL for one in state.services.values())
        return View(self.node, self.alive)

    def responsible(self, deployment: DeploymentId) -> tuple[NodeId, ...]:
        return tuple(self.alive)

    def missing_since_s(self, node: NodeId) -> float:
        return self.missing_since

    def vanished_with(self, node: NodeId) -> frozenset[NodeId]:
        return frozenset({node})

    def observers(self, node: NodeId) -> frozenset[NodeId]:
        return self.observed_by

    def room(self) -> Room:
        return room(self.node, accepting=not self.is_draining)

    def advertised(self, node: NodeId) -> Room | None:
        return None

    def display_name(self, node: NodeId) -> str:
        return node[-2:]

    def containers(self, deployment: DeploymentId) -> Sequence[Container]:
        return self.here if self.has_engine else ()

    def runtime_for(self, service: Service) -> str | None:
        return "memory" if self.has_engine else None

    def away_since_s(self, runtime: str | None) -> float | None:
        return None if self.has_engine else self.now

    def start_container(self, runtime: str, request: StartRequest) -> None:
        assert self.has_engine
        self.started.append(request)

    def stop_container(self, deployment: DeploymentId, slot: Slot, container: Container, grace_s: float) -> None:
        assert self.has_engine
        self.stopped.append(container)

    def next_number(self) -> int:
        return next(self._numbers)

    def wall_s(self) -> float:
        return self.now

    def tell(self, kind: str, message: str, *, deployment: str = "", slot: Slot = "") -> None:
        self.told.append(f"{kind}: {message}")

    def bury(self, deployment: DeploymentId, instances: Sequence[str]) -> None:
        raise AssertionError("nothing was removed")

    def part_with(self, deployment: DeploymentId) -> None:
        self.parted.append(deployment)

    def changed(self, deployment: DeploymentId) -> None:
        pass


def group(*nodes: NodeId) -> dict[NodeId, Member]:
    """Members that hold one document; each keeps the slot."""
    members = {node: Member(node, list(nodes)) for node in nodes}
    founder = members[nodes[0]]
    founder.write(lambda draft: draft.deploy(G1, spec(service(replicas=len(nodes)), resilience=1)))
    for member in members.values():
        founder.write(lambda draft, node=member.node: draft.invite(node))  # type: ignore[misc]
    founder.flush()
    founder.sent.clear()
    for member in list(members.values())[1:]:
        member.hold(founder.document.replica.save())
    for member in members.values():
        member.write(lambda draft, it=member: (draft.stay(it.node), draft.promise(it.keeps)))  # type: ignore[misc]
        talk(members)
    assert len({member.document.replica.heads() for member in members.values()}) == 1
    return members


def talk(members: Mapping[NodeId, Member], lose: Callable[[Message], bool] = lambda message: False) -> list[Message]:
    """Let all disks write and all messages arrive that ``lose`` lets through, until there is silence."""
    heard: list[Message] = []
    while True:
        for member in members.values():
            if member.has_disk:
                member.flush()
        waiting = [(member, to, message) for member in members.values() for to, message in member.sent]
        if not waiting:
            return heard
        assert len(heard) < 10_000
        for member in members.values():
            member.sent.clear()
        for member, to, message in waiting:
            if to in members and not lose(message):
                heard.append(message)
                members[to].hear(member.node, message)


def later(members: Mapping[NodeId, Member], seconds: float) -> None:
    for member in members.values():
        member.now += seconds
        member.deployment.evaluate(member.now)


def epochs(members: Mapping[NodeId, Member]) -> set[int]:
    return {member.document.epoch for member in members.values()}


def is_level(members: Mapping[NodeId, Member]) -> bool:
    return len({member.document.replica.heads() for member in members.values()}) == 1
