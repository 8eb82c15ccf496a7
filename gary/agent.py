"""The agent: one node's whole behaviour, without a clock, a socket or a file (rule 9).

Every input returns effects in the order in which they must happen. The daemon drives one agent in the real world, the
simulation drives thousands in virtual time; both drive this class (rule 10). Inside it are ``gossip.Swim`` for who is
there, one ``Deployment`` for each document that this node holds, and ``Commands`` for what operators ask.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from crdt import CorruptReplica, Replica
from gary.advertisements import Profile, decode_profile, encode_profile
from gary.assignment import View
from gary.boot import Boot, cluster_writes, former_write, peer_writes
from gary.commands import Commands
from gary.deployment import Deployment
from gary.document import Document, PromiseState, State, permit, permit_in
from gary.effects import (
    Alarm,
    Effect,
    Event,
    Exit,
    Notify,
    Observe,
    Reply,
    SetAlarm,
    StartContainer,
    StopContainer,
)
from gary.epochs import CHANGES_PER_EPOCH
from gary.errors import CommandError
from gary.facts import MAPS
from gary.identity import DeploymentId, NodeId, Slot, deployment_id
from gary.messages import (
    Acceptance,
    Behind,
    CallForVolunteers,
    Cancel,
    ContactAnswer,
    ContactQuery,
    Gone,
    Invitation,
    MalformedMessage,
    Message,
    Offer,
    Orphans,
    Released,
    Request,
    Response,
    Snapshot,
    Sync,
    decode,
    encode,
)
from gary.outbox import After, Outbox
from gary.requests import Requests, Serving, arguments_of
from gary.runtime.base import Capacity, Container, StartRequest
from gary.spec import Mode, RuntimeName, Service
from gary.storage import DeleteRecord, DropDocument, PutRecord, Stored, Table, Write
from gary.volunteering import Room, requirement, supports, unmet_constraint
from gossip import (
    Advertisement,
    AdvertisementChanged,
    Deliver,
    Forgotten,
    IdentityConflict,
    Joined,
    JoinFailed,
    Lane,
    MemberChanged,
    Peer,
    Status,
    Swim,
    SwimConfig,
    Timer,
)
from gossip import Effect as GossipEffect

EVENTS_MAX = 1000
VANISHED_TOGETHER_S = 15.0
ADVERTISE_S = 1.0
OBSERVE_S = 30.0
ORPHANS_S = 5.0
PEERS_S = 10.0
NAMES_CACHED_MAX = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator says about this node."""

    name: str
    hostname: str
    labels: Mapping[str, str]
    containers_max: int = 100
    version: str = ""
    changes_per_epoch: int = CHANGES_PER_EPOCH


@dataclass(slots=True)
class _Engine:
    """What was last seen of one runtime."""

    capacity: Capacity | None = None
    containers: tuple[Container, ...] = ()
    away_since: float | None = 0.0


class Agent:
    """One node. ``entropy(n)`` gives n random bytes; ``address`` is where peers reach this node."""

    def __init__(
        self,
        *,
        settings: Settings,
        boot: Boot,
        stored: Stored,
        runtimes: Sequence[str],
        address: str,
        swim_config: SwimConfig,
        rng: random.Random,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.settings = settings
        self.node = boot.node
        self.epoch = boot.epoch
        self.changes_per_epoch = settings.changes_per_epoch
        self.rng = rng
        self.is_draining = False
        self.deployments: dict[DeploymentId, Deployment] = {}
        self.events: deque[Event] = deque(maxlen=EVENTS_MAX)
        self.counters: Counter[str] = Counter()
        self.swim = Swim(
            node=boot.node,
            address=address,
            cluster=boot.cluster,
            epoch=boot.epoch,
            config=swim_config,
            rng=rng,
            welcome=lambda: self._secret,
        )
        self._address = address
        self._secret = boot.secret
        self._entropy = entropy
        self._stored = stored
        self._seeds = boot.peers
        self._former = boot.former
        self._peers_stored = {peer.node: peer.address for peer in boot.peers}
        self._effects: list[Effect] = []
        self._number = 0
        self._now = 0.0
        self._wall_offset_s = 0.0
        self._started_at = 0.0
        self._alive: dict[NodeId, int] = {self.node: self.epoch}
        self._left: frozenset[NodeId] = frozenset()
        self._missing: dict[NodeId, float] = {}
        self._profiles: dict[NodeId, Profile] = {}
        self._draining: frozenset[NodeId] = frozenset()
        self._unnamed: set[NodeId] = set()
        self._engines = {name: _Engine() for name in runtimes}
        self._operations: dict[int, tuple[DeploymentId, Slot, str, str]] = {}
        self._tombstones: dict[DeploymentId, tuple[str, ...]] = {}
        self._names: dict[str, DeploymentId] = {}
        self._outbox = Outbox(self.next_number)
        self._deadlines: dict[int, Callable[[float], None]] = {}
        self._advertised: tuple[tuple[str, ...], bytes] | None = None
        self._is_advertising = False
        self._dirty: dict[DeploymentId, None] = {}
        self.requests = Requests(self.send, self.next_number)
        self._serving = Serving()
        self.commands = Commands(self)
        self._requests_at = 0.0

    # Inputs

    def start(self, now: float) -> list[Effect]:
        """The first input. What the disk held is taken up; the node looks for the peers it knew."""
        self._now = self._started_at = now
        for peer in self._seeds:
            self._missing[peer.node] = now
        for id, raw in self._stored.records[Table.TOMBSTONE].items():
            self._tombstones[id] = _instances(raw)
        for id, stored in self._stored.documents.items():
            self._restore(id, stored.snapshot, stored.changes, now)
        for what in self._stored.set_aside:
            self.tell("storage", what)
        for engine in self._engines.values():
            engine.away_since = now
        self._gossip(self.swim.start(now, self._seeds))
        self._stored = Stored()
        self._observe()
        for kind, delay_s in (("observe", OBSERVE_S), ("orphans", ORPHANS_S), ("peers", PEERS_S)):
            self.emit([SetAlarm(Alarm(kind, "", 0), delay_s)])
        return self._finish(now)

    def clock(self, wall_offset_s: float) -> None:
        """What to add to ``now`` to get seconds since 1970; only people and generations see it."""
        self._wall_offset_s = wall_offset_s

    def received(self, sender: NodeId, lane: Lane, frame: bytes, now: float) -> list[Effect]:
        self._now = now
        self._gossip(self.swim.receive(sender, lane, frame, now))
        return self._finish(now)

    def unreachable(self, peer: Peer, reason: str, now: float) -> list[Effect]:
        self._now = now
        self._gossip(self.swim.unreachable(peer, reason, now))
        return self._finish(now)

    def timer(self, timer: Timer, now: float) -> list[Effect]:
        self._now = now
        self._gossip(self.swim.timer(timer, now))
        return self._finish(now)

    def alarm(self, alarm: Alarm, now: float) -> list[Effect]:
        self._now = now
        deployment = self.deployments.get(alarm.key)
        match alarm.kind:
            case "deployment" if deployment is not None:
                deployment.alarm(alarm.token, now)
            case "rewrite" if deployment is not None:
                deployment.rewrite()
            case "rewrite":
                self.emit(self._outbox.retry())
            case "deadline":
                due = self._deadlines.pop(alarm.token, None)
                if due is not None:
                    due(now)
            case "requests":
                self._requests_at = 0.0
            case "advertise":
                self._is_advertising = False
                self._advertise(now)
            case "observe":
                self._observe()
                self.emit([SetAlarm(alarm, OBSERVE_S)])
            case "orphans":
                self._ask_about_orphans()
                self.emit([SetAlarm(alarm, ORPHANS_S)])
            case "peers":
                self._remember_peers(now)
                self.emit([SetAlarm(alarm, PEERS_S)])
        return self._finish(now)

    def persisted(self, token: int, now: float) -> list[Effect]:
        self._now = now
        if not self._outbox.persisted(token, now):
            for deployment in list(self.deployments.values()):
                if deployment.persisted(token, now):
                    self._dirty[deployment.id] = None
                    break
        return self._finish(now)

    def persist_failed(self, token: int, reason: str, now: float) -> list[Effect]:
        """The disk did not take it: nothing that depends on it is told to anybody until it does."""
        self._now = now
        self.counters["writes_failed"] += 1
        if self._outbox.holds(token):
            has_to_retry, is_news = self._outbox.persist_failed(reason)
            if is_news:
                self.tell("storage", f"nothing can be written: {reason}; it will be tried again")
            if has_to_retry:
                self.emit([SetAlarm(Alarm("rewrite", "", 0), 2.0)])
        for deployment in list(self.deployments.values()):
            if deployment.persist_failed(token, reason, now):
                break
        return self._finish(now)

    def observed(
        self,
        runtime: str,
        containers: Sequence[Container] | None,
        capacity: Capacity | None,
        now: float,
        reason: str = "",
    ) -> list[Effect]:
        """What ``runtime`` runs now; None: it does not answer. ``capacity`` None: as before."""
        self._now = now
        engine = self._engines[runtime]
        if containers is None:
            if engine.away_since is None:
                engine.away_since = now
                self.tell("engine", f"the {runtime} runtime does not answer: {reason}")
        else:
            if engine.away_since is not None and engine.capacity is not None:
                self.tell("engine", f"the {runtime} runtime answers again")
            engine.away_since = None
            engine.containers = tuple(containers)
            engine.capacity = capacity or engine.capacity
        self._dirty.update(dict.fromkeys(self.deployments))
        self._advertise_soon(now)
        return self._finish(now)

    def operated(self, operation: int, container: Container | None, error: str, now: float) -> list[Effect]:
        """A container was started (``container``) or stopped (None), or that failed (``error``)."""
        self._now = now
        known = self._operations.pop(operation, None)
        if known is None:
            return self._finish(now)
        deployment_id, slot, runtime, container_id = known
        engine = self._engines[runtime]
        if not error:
            removed = container.id if container is not None else container_id
            others = tuple(c for c in engine.containers if c.id != removed)
            engine.containers = others if container is None else (*others, container)
        deployment = self.deployments.get(deployment_id)
        if deployment is not None:
            deployment.operated(slot, container, error, now)
        return self._finish(now)

    def command(self, command: int, operation: str, arguments: Mapping[str, Any], now: float) -> list[Effect]:
        """What a local operator asks. The answer comes as ``Reply`` effects that carry ``command``."""
        self._now = now
        responder = LocalResponder(self.emit, command)
        self.commands.local(command, operation, arguments, responder, now)
        return self._finish(now)

    def cancel(self, command: int, now: float) -> list[Effect]:
        """Nobody waits for the answer to ``command`` any more."""
        self._now = now
        self.commands.cancel(command)
        return self._finish(now)

    def logged(self, stream: int, chunk: tuple[str, bytes] | None, now: float) -> list[Effect]:
        """A piece (stream name, bytes) of a container's output; None: that was all."""
        self._now = now
        self.commands.logged(stream, chunk)
        return self._finish(now)

    def gauges(self) -> dict[str, float]:
        """How much there is of what is bounded or interesting, for the metrics."""
        kept = [promise for d in self.deployments.values() for promise in d.state.promises_of(self.node)]
        return {
            "alive_members": len(self._alive),
            "known_members": len(self.swim.members()),
            "deployments": len(self.deployments),
            "promises": len(kept),
            "promises_healthy": sum(promise.state is PromiseState.HEALTHY for promise in kept),
            "documents_changes": sum(d.document.replica.change_count for d in self.deployments.values()),
            "documents_bytes": sum(d.document.replica.size_bytes for d in self.deployments.values()),
            "malformed_facts": sum(d.state.malformed for d in self.deployments.values()),
            "unwritten": len(self._outbox) + sum(d.unwritten for d in self.deployments.values()),
            "engines_away": len(self.engines_away()),
            "events": len(self.events),
        }

    # What deployments and commands ask of their node (``gary.host.Host``)

    @property
    def is_isolated(self) -> bool:
        return len(self._alive) == 1

    @property
    def alive(self) -> Mapping[NodeId, int]:
        return self._alive

    def view(self, state: State) -> View:
        eligible = {
            service.name: tuple(node for node in self._alive if self._is_eligible(node, service, state))
            for service in state.services.values()
            if service.mode is Mode.GLOBAL
        }
        draining = self._draining | {self.node} if self.is_draining else self._draining
        return View(self.node, self._alive, self._left, eligible, draining)

    def _is_eligible(self, node: NodeId, service: Service, state: State) -> bool:
        """Whether ``node`` ought to run the global service. An engine that is away takes no slot from its keeper."""
        room = self.room() if node == self.node else self.advertised(node)
        if room is None or not room.accepting or unmet_constraint(service.constraints, room):
            return False
        kept = state.promise(node, f"{service.name}/{node}")
        is_kept = kept is not None and kept.state is not PromiseState.WITHDRAWN
        has_engine = node != self.node or self.runtime_for(service) is not None
        return (is_kept and has_engine) or supports(service.runtime, room)

    def responsible(self, deployment: DeploymentId) -> tuple[NodeId, ...]:
        return self.swim.directory.responsible(deployment)

    def missing_since_s(self, node: NodeId) -> float:
        return self._missing.get(node, self._started_at)

    def vanished_lately(self, now: float) -> int:
        times = [since for node, since in self._missing.items() if node not in self._left]
        latest = max(times, default=0.0)
        return sum(since >= latest - VANISHED_TOGETHER_S for since in times)

    def room(self) -> Room:
        answering = {name: engine for name, engine in self._engines.items() if engine.away_since is None}
        capacities = [engine.capacity for engine in answering.values() if engine.capacity is not None]
        cpus = max((capacity.cpus for capacity in capacities), default=0.0)
        memory = max((capacity.memory_bytes for capacity in capacities), default=0)
        ports: set[tuple[int, str]] = set()
        count = 0
        for deployment in self.deployments.values():
            for service in deployment.services_kept():
                needed = requirement(service)
                cpus -= needed.cpus
                memory -= needed.memory_bytes
                ports.update(needed.ports)
                count += 1
        return Room(
            node=self.node,
            hostname=self.settings.hostname,
            labels=self.settings.labels,
            runtimes=tuple(answering),
            free_cpus=cpus,
            free_memory_bytes=memory,
            free_containers=self.settings.containers_max - count,
            ports=frozenset(ports),
            accepting=not self.is_draining,
        )

    def advertised(self, node: NodeId) -> Room | None:
        profile = self._profiles.get(node)
        return None if profile is None else profile.room

    def profile(self, node: NodeId) -> Profile | None:
        return self._own_profile() if node == self.node else self._profiles.get(node)

    def display_name(self, node: NodeId) -> str:
        profile = self.profile(node)
        return node[:8] if profile is None else profile.name

    def containers(self, deployment: DeploymentId) -> Sequence[Container]:
        return [
            container
            for engine in self._engines.values()
            if engine.away_since is None
            for container in engine.containers
            if container.labels.deployment == deployment
        ]

    def runtime_of(self, container: str) -> str | None:
        """The runtime that has that container."""
        return next(
            (name for name, engine in self._engines.items() if any(c.id == container for c in engine.containers)), None
        )

    def runtime_for(self, service: Service) -> str | None:
        if service.runtime is not RuntimeName.ANY:
            return service.runtime.value if service.runtime.value in self._engines else None
        preferred = ["docker", "process"] if service.image else ["process", "docker"]
        present = [name for name in [*preferred, *self._engines] if name in self._engines]
        answering = [name for name in present if self._engines[name].away_since is None]
        return next(iter([*answering, *present]), None)

    def engines_away(self) -> list[str]:
        """The runtimes that do not answer at the moment."""
        return [name for name, engine in self._engines.items() if engine.away_since is not None]

    def away_since_s(self, runtime: str | None) -> float | None:
        return self._started_at if runtime not in self._engines else self._engines[runtime].away_since

    def start_container(self, runtime: str, request: StartRequest) -> None:
        operation = self.next_number()
        self._operations[operation] = (request.labels.deployment, request.labels.slot, runtime, "")
        self.emit([StartContainer(operation, runtime, request)])

    def stop_container(self, deployment: DeploymentId, slot: Slot, container: Container, grace_s: float) -> None:
        runtime = self.runtime_of(container.id)
        if runtime is None:
            return
        operation = self.next_number()
        self._operations[operation] = (deployment, slot, runtime, container.id)
        self.emit([StopContainer(operation, runtime, container.id, grace_s)])

    def send(self, node: NodeId, message: Message) -> None:
        self._gossip(self.swim.send(node, encode(message), Lane.BULK))

    def emit(self, effects: Sequence[Effect]) -> None:
        self._effects.extend(effects)

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def tell(self, kind: str, message: str, *, deployment: str = "", slot: Slot = "") -> None:
        event = Event(self._now + self._wall_offset_s, kind, message, deployment, slot)
        self.events.append(event)
        self.emit([Notify(event)])
        self.commands.told(event)

    def bury(self, deployment: DeploymentId, instances: Sequence[str]) -> None:
        known = sorted({*self._tombstones.get(deployment, ()), *instances})
        self._tombstones[deployment] = tuple(known)
        name = self.deployments[deployment].name
        self._drop(deployment, PutRecord(Table.TOMBSTONE, deployment, msgpack.packb(known)))
        self.tell("removed", "the deployment was removed, and nothing of it runs here any more", deployment=name)

    def part_with(self, deployment: DeploymentId) -> None:
        name = self.deployments[deployment].name
        self._drop(deployment)
        self.tell("left", "this node is no member of the deployment any more", deployment=name)

    def changed(self, deployment: DeploymentId) -> None:
        self._advertise_soon(self._now)

    def now_s(self) -> float:
        return self._now

    def wall_s(self) -> float:
        """Seconds since 1970 by this host's clock."""
        return self._now + self._wall_offset_s

    def after(self, delay_s: float, due: Callable[[float], None]) -> int:
        """Call ``due(now)`` in ``delay_s``, unless ``forget_deadline`` is called first."""
        token = self.next_number()
        self._deadlines[token] = due
        self.emit([SetAlarm(Alarm("deadline", "", token), delay_s)])
        return token

    def forget_deadline(self, token: int) -> None:
        self._deadlines.pop(token, None)

    def id_of(self, name: str) -> DeploymentId:
        """The deployment id of ``name`` in this cluster."""
        if name not in self._names:
            if len(self._names) >= NAMES_CACHED_MAX:
                self._names.clear()
            self._names[name] = deployment_id(name, self._secret)
        return self._names[name]

    def tombstone(self, deployment: DeploymentId) -> tuple[str, ...]:
        """The instances of that deployment that are known to be removed."""
        return self._tombstones.get(deployment, ())

    def count(self, what: str) -> None:
        self.counters[what] += 1

    def blank_document(self) -> Document:
        return Document(Replica(self._actor(), MAPS), self.node)

    def open_document(self, snapshot: bytes, epoch: int) -> Document:
        return Document(Replica.load(self._actor(), MAPS, snapshot, permit=permit_in(epoch)), self.node)

    def adopt_deployment(self, id: DeploymentId, document: Document, *, is_restored: bool = False) -> Deployment:
        """Take up a deployment whose document is in memory; the caller makes it durable."""
        deployment = Deployment(id, document, self, self._now, is_restored=is_restored)
        self.deployments[id] = deployment
        self._advertise(self._now)
        return deployment

    def random_hex(self, size_bytes: int) -> str:
        return self._entropy(size_bytes).hex()

    def persist(self, writes: Sequence[Write], after: After) -> None:
        """Write what belongs to the node rather than to one deployment."""
        self.emit(self._outbox.add(writes, after))

    def join(self, address: str) -> None:
        self._gossip(self.swim.join(address, self._now))

    def drain(self, *, is_draining: bool) -> None:
        """Hand over everything that this node keeps, or stop doing so."""
        self.is_draining = is_draining
        self._advertise(self._now)
        self._dirty.update(dict.fromkeys(self.deployments))

    def leave_cluster(self) -> None:
        """Say goodbye and forget the cluster: the next start is a cluster of one."""
        self._gossip(self.swim.leave(self._now))
        cluster, secret = self._entropy(16), self._entropy(32)
        forget = [DeleteRecord(Table.PEER, node) for node in sorted(self._peers_stored)]
        self.persist(
            [*cluster_writes(cluster, secret), *forget],
            lambda at: self.emit([SetAlarm(Alarm("deadline", "", bye), 0.5)]),
        )
        bye = self.next_number()
        self._deadlines[bye] = lambda at: self.emit([Exit()])

    # Inside

    def _finish(self, now: float) -> list[Effect]:
        """Evaluate what was touched, and hand over the effects."""
        while self._dirty:
            deployment = self.deployments.get(next(iter(self._dirty)))
            del self._dirty[next(iter(self._dirty))]
            if deployment is not None:
                deployment.evaluate(now)
        at = self.requests.tick(now)
        if at is not None and (not self._requests_at or at < self._requests_at):
            self._requests_at = at
            self.emit([SetAlarm(Alarm("requests", "", 0), max(0.01, at - now))])
        effects, self._effects = self._effects, []
        return effects

    def _gossip(self, effects: Sequence[GossipEffect]) -> None:
        for effect in effects:
            match effect:
                case Deliver(sender, payload):
                    self._deliver(sender, payload)
                case MemberChanged(member, before):
                    self._member_changed(member.node, member.status, member.incarnation.epoch, before)
                case AdvertisementChanged(node):
                    self._advertisement_changed(node)
                case Joined(cluster, welcome):
                    self._joined(cluster, welcome)
                case JoinFailed(address, reason, detail):
                    self.commands.join_failed(address, reason, detail)
                case IdentityConflict(node, address):
                    words = f"node id {node} lives twice, here and at {address}: was a state directory copied?"
                    self.tell("conflict", words)
                case Forgotten(node):
                    self._missing.pop(node, None)
                    self._profiles.pop(node, None)
                    self._draining -= {node}
                case _:
                    self._effects.append(effect)

    def _member_changed(self, node: NodeId, status: Status, epoch: int, before: Status | None) -> None:
        if node == self.node:
            return
        is_alive = status in (Status.ALIVE, Status.SUSPECT)
        was_alive = node in self._alive
        if is_alive:
            came = not was_alive or self._alive[node] != epoch
            self._missing.pop(node, None)
            self._alive = dict(sorted({**self._alive, node: epoch}.items()))
        else:
            came = False
            self._alive = {other: at for other, at in self._alive.items() if other != node}
            self._missing[node] = self._missing.get(node, self._now) if not was_alive else self._now
            self.requests.gone(node)
        self._left = self._left | {node} if status is Status.LEFT else self._left - {node}
        self._tell_of_member(node, status, before)
        self._recognise_former_self(node)
        if is_alive == was_alive and not came:
            return
        for deployment in list(self.deployments.values()):
            deployment.members_changed(self._now, node if came else "")
        self._dirty.update(dict.fromkeys(self.deployments))

    def _tell_of_member(self, node: NodeId, status: Status, before: Status | None) -> None:
        """Say who came and who went. A node that has not introduced itself yet is told of when it has."""
        is_news = before is not status and status is not Status.SUSPECT
        if not is_news or (before is Status.SUSPECT and status is Status.ALIVE):
            return
        if status is Status.ALIVE and node not in self._profiles:
            self._unnamed.add(node)
            return
        self._unnamed.discard(node)
        self.tell("member", f"{self.display_name(node)} is {status.value}")

    def _recognise_former_self(self, node: NodeId) -> None:
        """A node at this node's own address was this host before its disk was lost: its containers are here."""
        member = self.swim.member(node)
        if member is not None and member.address == self._address and node not in self._former:
            self._former = (*self._former, node)
            self.persist([former_write(self._former)], lambda at: None)
            self.tell("member", f"this host was node {node[:8]} before; its containers are looked after")
            self._observe()

    def _advertisement_changed(self, node: NodeId) -> None:
        if node == self.node:
            return
        advertisement = self.swim.advertisement(node)
        profile = None if advertisement is None else decode_profile(advertisement.body)
        if profile is None or profile.room.node != node:
            self.counters["advertisements_malformed"] += 1
            return
        before = self._profiles.get(node)
        self._profiles[node] = profile
        if profile.room.accepting is (node in self._draining):
            self._draining ^= {node}
        if node in self._unnamed:
            self._unnamed.discard(node)
            self.tell("member", f"{profile.name} is {Status.ALIVE.value}")
        if before is None or before.room != profile.room:
            for deployment in list(self.deployments.values()):
                deployment.members_changed(self._now)
            self._dirty.update(dict.fromkeys(self.deployments))

    def _joined(self, cluster: bytes, welcome: bytes) -> None:
        is_new = welcome != self._secret
        self._secret = welcome
        self._names.clear()
        self._advertised = None
        self._advertise(self._now)
        if is_new:
            self.persist(cluster_writes(cluster, welcome), lambda at: self.commands.joined(at))
        else:
            self.persist([], lambda at: self.commands.joined(at))
        self._remember_peers(self._now)

    def _deliver(self, sender: NodeId, payload: bytes) -> None:
        try:
            message = decode(payload)
            if message is None:
                self.counters["messages_unknown"] += 1
            else:
                self._heard(sender, message)
        except MalformedMessage:
            self.counters["messages_malformed"] += 1

    def _heard(self, sender: NodeId, message: Message) -> None:
        now = self._now
        match message:
            case Request():
                self._serve(sender, message)
            case Response():
                self.requests.response(sender, message)
            case Cancel(id):
                known = self._serving.cancel(sender, id)
                if known is not None:
                    self.commands.cancel_responder(known)
            case CallForVolunteers(id, deployment):
                self.send(sender, Offer(id, deployment, self.room()))
            case ContactQuery(id, node):
                heard = self.swim.last_heard(node)
                self.send(sender, ContactAnswer(id, node, -1.0 if heard is None else max(0.0, now - heard)))
            case ContactAnswer():
                for asking in list(self.deployments.values()):
                    asking.calling.contact(message, now)
            case Invitation():
                self._invited(sender, message)
            case Sync(id) | Behind(id) | Snapshot(id) | Gone(id) | Orphans(id) | Released(id):
                self._about_deployment(sender, id, message)
            case Offer(_, id) | Acceptance(_, id):
                self._about_deployment(sender, id, message)

    def _about_deployment(self, sender: NodeId, id: DeploymentId, message: Message) -> None:
        now = self._now
        deployment = self.deployments.get(id)
        if deployment is None:
            if isinstance(message, Sync | Behind | Snapshot | Orphans) and id in self._tombstones:
                self.send(sender, Gone(id, self._tombstones[id]))
            elif isinstance(message, Gone | Released):
                self._stop_orphans(id, None if isinstance(message, Gone) else frozenset(message.slots))
            return
        match message:
            case Sync():
                deployment.received(sender, message, now)
            case Behind():
                deployment.behind(sender, message)
            case Snapshot():
                deployment.overtaken(sender, message, now)
            case Gone(_, instances):
                deployment.gone(instances, now)
            case Offer():
                deployment.calling.offer(message)
                self._dirty[id] = None
            case Acceptance():
                deployment.accepted(sender, message, now)
            case Orphans(_, slots):
                deployment.orphans(sender, slots, now)
            case _:
                self.counters["messages_unexpected"] += 1

    def _invited(self, sender: NodeId, invitation: Invitation) -> None:
        deployment = self.deployments.get(invitation.deployment)
        now = self._now
        if deployment is not None:
            deployment.invited(sender, invitation, now)
            return
        unable = "the node is draining" if self.is_draining else "the node cannot write" if self._outbox.failure else ""
        reasons = tuple((slot, unable) for slot in invitation.slots)
        if unable:
            self.send(sender, Acceptance(invitation.id, invitation.deployment, (), reasons))
            return
        try:
            replica = Replica.load(self._actor(), MAPS, invitation.snapshot, permit=permit)
        except CorruptReplica:
            self.counters["invitations_malformed"] += 1
            return
        document = Document(replica, self.node)
        if self.id_of(document.state.name) != invitation.deployment:
            self.counters["invitations_malformed"] += 1
            return
        deployment = self.adopt_deployment(invitation.deployment, document)
        deployment.save(now)
        deployment.gone(self._tombstones.get(invitation.deployment, ()), now)
        deployment.invited(sender, invitation, now)

    def _serve(self, sender: NodeId, request: Request) -> None:
        arguments = arguments_of(request)
        responder = self._serving.accept(sender, request, lambda response: self.send(sender, response))
        if responder is not None:
            self.counters["requests_served"] += 1
            self.commands.remote(request.operation, arguments, responder, self._now)

    def _actor(self) -> bytes:
        return bytes.fromhex(self.node) + self._entropy(8)

    def _restore(self, id: DeploymentId, snapshot: bytes, changes: Sequence[bytes], now: float) -> None:
        try:
            replica = Replica.load(self._actor(), MAPS, snapshot, changes)
        except CorruptReplica as error:
            # One poisonous document stops one deployment, never an agent (rule 8); its containers run on (rule 5).
            self.tell(
                "storage", f"the document of deployment {id[:8]} cannot be read ({error}); asking its other members"
            )
            self.persist([DropDocument(id)], lambda at: None)
            return
        self.deployments[id] = Deployment(id, Document(replica, self.node), self, now, is_restored=True)
        self._dirty[id] = None

    def _drop(self, deployment: DeploymentId, *writes: Write) -> None:
        del self.deployments[deployment]
        self.persist([DropDocument(deployment), *writes], lambda at: None)
        self._advertise(self._now)

    # What the others see of this node

    def _own_profile(self) -> Profile:
        capacities = [engine.capacity for engine in self._engines.values() if engine.capacity is not None]
        room = self.room()
        return Profile(
            name=self.settings.name,
            room=room,
            cpus=max((capacity.cpus for capacity in capacities), default=0.0),
            memory_bytes=max((capacity.memory_bytes for capacity in capacities), default=0),
            containers=self.settings.containers_max - room.free_containers,
            containers_max=self.settings.containers_max,
            version=self.settings.version,
        )

    def _advertise_soon(self, now: float) -> None:
        if not self._is_advertising:
            self._is_advertising = True
            self.emit([SetAlarm(Alarm("advertise", "", 0), ADVERTISE_S)])

    def _advertise(self, now: float) -> None:
        advertised = tuple(sorted(self.deployments)), encode_profile(self._own_profile())
        if advertised != self._advertised:
            self._advertised = advertised
            self._gossip(self.swim.advertise(Advertisement(*advertised), now))

    @property
    def observed_nodes(self) -> tuple[NodeId, ...]:
        """Whose containers are this host's to look after: this node's, and those of the ids that it had before."""
        return (self.node, *self._former)

    def _observe(self) -> None:
        self.emit([Observe(self.observed_nodes)])

    def _remember_peers(self, now: float) -> None:
        peers = {peer.node: peer.address for peer in self.swim.peers()}
        if peers and peers != self._peers_stored:
            writes = peer_writes(self._peers_stored, peers)
            self._peers_stored = peers
            self.persist(writes, lambda at: None)

    # Containers without a document

    def _orphans(self) -> dict[DeploymentId, list[Container]]:
        found: dict[DeploymentId, list[Container]] = {}
        for engine in self._engines.values():
            for container in engine.containers:
                if container.labels.deployment not in self.deployments and engine.away_since is None:
                    found.setdefault(container.labels.deployment, []).append(container)
        return found

    def _ask_about_orphans(self) -> None:
        """Containers run here and no document says why: the responsible nodes know. Until they answer, they run on."""
        for id, containers in sorted(self._orphans().items()):
            if id in self._tombstones:
                dead = self._tombstones[id]
                gone = [c for c in containers if c.labels.generation.partition(".")[0] in dead]
                self._stop_orphans(id, frozenset(c.labels.slot for c in gone))
                continue
            slots = tuple(sorted({container.labels.slot for container in containers}))
            for node in [node for node in self.responsible(id) if node in self._alive and node != self.node][:3]:
                self.send(node, Orphans(id, slots))

    def _stop_orphans(self, id: DeploymentId, slots: frozenset[Slot] | None) -> None:
        under_way = {container for _, _, _, container in self._operations.values()}
        for container in self._orphans().get(id, ()):
            if (slots is None or container.labels.slot in slots) and container.id not in under_way:
                self.tell("container", "stopped: it is kept elsewhere or no longer wanted", slot=container.labels.slot)
                self.stop_container(id, container.labels.slot, container, 10.0)


class LocalResponder:
    """Answers a command of this node's own API."""

    def __init__(self, emit: Callable[[Sequence[Effect]], None], command: int) -> None:
        self._emit = emit
        self._command = command
        self.is_cancelled = False

    def item(self, item: Mapping[str, Any]) -> None:
        self._reply(Reply(self._command, item, last=False))

    def end(self, item: Mapping[str, Any]) -> None:
        self._reply(Reply(self._command, item))

    def fail(self, error: CommandError) -> None:
        self._reply(Reply(self._command, error=error.to_json()))

    def _reply(self, reply: Reply) -> None:
        if not self.is_cancelled:
            self._emit([reply])
            self.is_cancelled = reply.last


def _instances(raw: bytes) -> tuple[str, ...]:
    try:
        value = msgpack.unpackb(raw)
    except (ValueError, msgpack.UnpackException):
        return ()
    return tuple(str(one) for one in value) if isinstance(value, list) else ()
