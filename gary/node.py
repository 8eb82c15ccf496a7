"""This node: what it is, what it holds, and how its parts act. The one implementation of ``gary.host.Host``.

Deployments, commands and the messages of other agents act through it; what it does comes out as effects.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from crdt import CorruptReplica, Replica
from gary.acquaintance import digest, proof_of_instance
from gary.advertising import Advertising, Settings
from gary.assignment import View
from gary.boot import EPOCH_RAISED_MAX, Boot, epoch_write
from gary.clock import Clock
from gary.cluster import Cluster
from gary.deployment import Deployment
from gary.doctor import DiskFacts
from gary.document import Document
from gary.effects import Consult, Dial, Effect, Exit, Expel, Inspect, Knock, Observe, Renew
from gary.engines import Engines
from gary.enrolment import Enrolment
from gary.errors import CommandError, ErrorCode
from gary.events import EventLog
from gary.facts import MAPS
from gary.host import Change
from gary.identity import DeploymentId, NodeId, Slot
from gary.messages import Gone, Message, encode
from gary.orphans import Orphans
from gary.outbox import After, Outbox
from gary.permission import permit, permit_in
from gary.requests import Requests
from gary.runtime.base import Container, StartRequest
from gary.spec import Service
from gary.state import State
from gary.storage import DropDocument, Stored, StoredDocument, Table, Write
from gary.tombstones import Tombstones
from gary.trust.entering import Heard
from gary.trust.entry import Admittance, addressee
from gary.trust.host import Answered, Failed
from gary.trust.invitations import Invitations
from gary.trust.membership import Membership
from gary.trust.notary import Answer, Request
from gary.trust.standing import Standing
from gary.volunteering import Room
from gossip import PROFILES, Advertisement, Lane, Layered, Peer, Status, Swim, SwimConfig
from gossip import Effect as GossipEffect
from gossip.transport import Credentials

ABANDONED_GRACE_S = 10.0
PARTED_MAX = 1024
"""So many deployments that this node has left are remembered."""
GOODBYE_S = 0.5
"""How long a node that has left its cluster goes on, so that the others hear of it."""


class Node:
    """``perform(effects)`` does what ``gossip`` asks for; ``deployments``: those whose documents are held here,
    ``parted``: those that were, until this node left them.
    """

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
        perform: Callable[[Sequence[GossipEffect]], None],
    ) -> None:
        self.node = boot.node
        self.key = boot.key
        self.epoch = boot.epoch
        self.rng = rng
        self.settings = settings
        self.changes_per_epoch = settings.changes_per_epoch
        self.pace = swim_config.probe_interval_s / PROFILES["lan"].probe_interval_s
        self.deployments: dict[DeploymentId, Deployment] = {}
        self.counters: Counter[str] = Counter()
        self.parted: dict[DeploymentId, None] = {}
        self._entropy = entropy
        self._perform = perform
        self._effects: list[Effect] = []
        self._number = 0
        self._touched: dict[DeploymentId, None] = {}
        self.clock = Clock(self.emit, self.next_number)
        self.events = EventLog(self.clock, self.emit)
        self.outbox = Outbox(self.next_number)
        self.requests = Requests(self.send, self.next_number)
        self.enrolment = Enrolment(boot)
        self.standing = Standing(boot.key, boot.cluster, stored.records[Table.TRUST])
        self.invitations = Invitations(stored.records[Table.TRUST])
        self.tombstones = Tombstones(stored.records[Table.TOMBSTONE])
        self.engines = Engines(runtimes, self.next_number, self.tell)
        self.advertising = Advertising(
            self.node,
            self.key.public,
            self.standing,
            settings,
            self.engines,
            self.deployments,
            self._advertise,
            self.emit,
        )
        self.cluster = Cluster(self.node, self.epoch, self.engines, self.advertising, self.tell)
        self.swim = Swim(
            node=boot.node,
            address=address,
            cluster=boot.cluster,
            epoch=boot.epoch,
            config=swim_config,
            rng=rng,
            welcome=bytes,
            mark=lambda: self.standing.ledger.digest,
            expelled=self.standing.ledger.expulsions,
            versions=settings.speaks,
        )
        self.membership = Membership(self)
        self.orphans = Orphans(self, self.engines, self.cluster, self.tombstones, self.deployments)
        self._consulted: dict[int, tuple[Answered, Failed]] = {}
        self._knocked: dict[int, Heard] = {}
        self._shown: dict[int, Callable[[str], None]] = {}
        self._dialled: dict[int, Callable[[Sequence[str]], None]] = {}
        self._inspected: dict[int, Callable[[DiskFacts], None]] = {}

    # Effects

    def emit(self, effects: Sequence[Effect]) -> None:
        self._effects.extend(effects)

    def emit_one(self, effect: Effect) -> None:
        self._effects.append(effect)

    def take_effects(self) -> list[Effect]:
        """All that was emitted since the last time, in order."""
        effects, self._effects = self._effects, []
        return effects

    def count(self, what: str) -> None:
        self.counters[what] += 1

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def random_bytes(self, size_bytes: int) -> bytes:
        return self._entropy(size_bytes)

    def random_hex(self, size_bytes: int) -> str:
        return self._entropy(size_bytes).hex()

    def send(self, node: NodeId, message: Message) -> None:
        self._perform(self.swim.send(node, encode(message), Lane.BULK))

    def persist(self, writes: Sequence[Write], after: After = lambda at: None) -> None:
        """Write what belongs to the node rather than to one deployment."""
        self.emit(self.outbox.add(writes, after))

    def tell(self, kind: str, message: str, *, deployment: str = "", slot: Slot = "") -> None:
        self.events.tell(kind, message, deployment=deployment, slot=slot)

    def wall_s(self) -> float:
        return self.clock.wall_s()

    # Who belongs to the cluster

    def raise_epoch(self, epoch: int) -> None:
        """Others have seen this node in a later life than its disk remembers. What it promised it states anew."""
        if epoch > EPOCH_RAISED_MAX:
            self.counters["epochs_refused"] += 1
            return
        self.epoch = epoch
        self.cluster.live_in(epoch)
        self.persist([epoch_write(epoch)])
        self.tell("storage", f"the disk is an older copy: others knew this node in a later life, it goes on as {epoch}")
        self.evaluate_all()

    def consult(self, request: Request, answered: Answered, failed: Failed) -> None:
        number = self.next_number()
        self._consulted[number] = (answered, failed)
        self.emit([Consult(number, request)])

    def consulted(self, number: int, answer: Answer | None, reason: str) -> None:
        answered, failed = self._consulted.pop(number)
        if answer is None:
            failed(reason)
        else:
            answered(answer)

    def knock(self, address: str, guest: str, credentials: Credentials, frame: bytes, heard: Heard) -> None:
        number = self.next_number()
        self._knocked[number] = heard
        self.emit([Knock(number, address, guest, credentials, frame, addressee(self.node))])

    def knocked(self, number: int, answer: bytes | None, reason: str) -> None:
        self._knocked.pop(number)(answer, reason)

    def renew(self, credentials: Credentials) -> None:
        self.show(credentials, lambda reason: self.tell("trust", reason) if reason else None)

    def show(self, credentials: Credentials, shown: Callable[[str], None]) -> None:
        number = self.next_number()
        self._shown[number] = shown
        self.emit([Renew(number, credentials)])

    def renewed(self, number: int, reason: str) -> None:
        self._shown.pop(number)(reason)

    def take_over(
        self, issuer: Peer, tls_key: str, admittance: Admittance, entered: Callable[[], None], refused: Failed
    ) -> None:
        tie = None if admittance.cluster == self.standing.ledger.cluster else self.tie()
        if tie is not None:  # Since it asked to be let in, it was given something to run, or company.
            refused(str(tie))
            return
        self.membership.take_over(issuer, tls_key, admittance, entered, refused)

    def tie(self) -> CommandError | None:
        """Why this node cannot go into another cluster; None if it can."""
        others = sum(m.node != self.node and m.status is not Status.LEFT for m in self.swim.members())
        if others:
            message = f"this node is in a cluster already, with {others} other {'node' if others == 1 else 'nodes'}"
            return CommandError(ErrorCode.REFUSED, message, "'gary leave' first, to move it to another cluster")
        # What is of a cluster that this host's disk has forgotten is no tie: whoever joins that again keeps it.
        own = sorted(d.name for id, d in self.deployments.items() if self.enrolment.id_of(d.name) == id)
        if not own:
            return None
        message = f"this node is a cluster of its own and runs deployments ({', '.join(own)})"
        return CommandError(ErrorCode.REFUSED, message, "remove them first, or let the other node join this one")

    def broadcast(self, key: str, body: bytes) -> None:
        self._perform(self.swim.broadcast(key, body, self.clock.now))

    def cast_out(self, node: NodeId) -> None:
        self.cluster.expel(node)
        self._perform(self.swim.expel(node, self.clock.now))
        self.requests.gone(node)
        self.members_changed(node, Change.WENT)

    def cut(self, node: NodeId) -> None:
        self.emit([Expel(node)])

    def known_members(self) -> Collection[NodeId]:
        return [member.node for member in self.swim.members()]

    def standing_changed(self) -> None:
        self.advertising.publish()

    @property
    def former(self) -> tuple[NodeId, ...]:
        return self.enrolment.former

    @property
    def expelled(self) -> Collection[NodeId]:
        return self.cluster.expelled

    @property
    def is_expelled(self) -> bool:
        return self.node in self.standing.ledger.expulsions

    @property
    def address(self) -> str:
        return self.swim.address

    # Looking for what is wrong

    def dial(self, address: str, dialled: Callable[[Sequence[str]], None]) -> None:
        number = self.next_number()
        self._dialled[number] = dialled
        self.emit([Dial(number, address)])

    def dialled(self, number: int, failures: Sequence[str]) -> None:
        self._dialled.pop(number)(failures)

    def inspect(self, seen: Callable[[DiskFacts], None]) -> None:
        number = self.next_number()
        self._inspected[number] = seen
        self.emit([Inspect(number)])

    def inspected(self, number: int, disk: DiskFacts) -> None:
        self._inspected.pop(number)(disk)

    # Containers

    def observe(self) -> None:
        self.emit([Observe(self.enrolment.nodes)])

    def start_container(self, runtime: str, request: StartRequest) -> None:
        self.emit([self.engines.start_container(runtime, request)])

    def stop_container(self, deployment: DeploymentId, slot: Slot, container: Container, grace_s: float) -> None:
        stop = self.engines.stop_container(deployment, slot, container, grace_s)
        self.emit([] if stop is None else [stop])

    def containers(self, deployment: DeploymentId) -> Sequence[Container]:
        return [container for container in self.engines.containers() if container.labels.deployment == deployment]

    def runtime_for(self, service: Service) -> str | None:
        return self.engines.runtime_for(service)

    def away_since_s(self, runtime: str | None) -> float | None:
        return self.engines.away_since_s(runtime)

    # The cluster

    @property
    def is_draining(self) -> bool:
        return self.advertising.is_draining

    @property
    def is_isolated(self) -> bool:
        return self.cluster.is_isolated

    @property
    def alive(self) -> Layered[NodeId, int]:
        return self.cluster.alive

    def view(self, state: State) -> View:
        return self.cluster.view(state)

    def responsible(self, deployment: DeploymentId) -> tuple[NodeId, ...]:
        return self.swim.directory.responsible(deployment)

    def missing_since_s(self, node: NodeId) -> float:
        return self.cluster.missing_since_s(node)

    def vanished_with(self, node: NodeId) -> frozenset[NodeId]:
        return self.cluster.vanished_with(node)

    def observers(self, node: NodeId) -> frozenset[NodeId]:
        evidence = self.swim.evidence(node)
        return frozenset() if evidence is None else frozenset(evidence.observers)

    @property
    def is_well(self) -> bool:
        return self.swim.local_health == 0

    def room(self) -> Room:
        return self.advertising.room()

    def advertised(self, node: NodeId) -> Room | None:
        return self.cluster.advertised(node)

    def display_name(self, node: NodeId) -> str:
        return self.cluster.display_name(node)

    def changed(self, deployment: DeploymentId) -> None:
        self.advertising.publish_soon()

    def _advertise(self, advertisement: Advertisement) -> None:
        self._perform(self.swim.advertise(advertisement, self.clock.now))

    def join(self, address: str) -> None:
        self._perform(self.swim.join(address, self.clock.now))

    def drain(self, *, is_draining: bool) -> None:
        """Hand over everything that this node keeps, or stop doing so."""
        self.advertising.is_draining = is_draining
        self.advertising.publish()
        self.evaluate_all()

    def abandon(self) -> None:
        """Drop every deployment, and stop what runs of it."""
        for id in list(self.deployments):
            for container in self.containers(id):
                self.stop_container(id, container.labels.slot, container, ABANDONED_GRACE_S)
            self.part_with(id)

    def leave_cluster(self) -> None:
        """Say goodbye and forget the cluster: the next start is a cluster of one."""

        def goodbye(at: float) -> None:
            self.clock.after(GOODBYE_S, lambda at: self.emit([Exit()]))

        self._perform(self.swim.leave(self.clock.now))
        writes = self.enrolment.left(is_expelled=self.is_expelled)
        self.persist([*writes, *self.standing.left(), *self.invitations.forget_all()], goodbye)

    def remember_peers(self) -> None:
        writes = self.enrolment.remember(self.swim.peers())
        if writes:
            self.persist(writes)

    # The deployments that are held here

    def id_of(self, app: str) -> DeploymentId:
        """The deployment id of ``app``, a name or a pseudonym, in this cluster."""
        return self.enrolment.id_of(app)

    def blank_document(self) -> Document:
        return Document(Replica(self._actor(), MAPS), self.node)

    def open_document(self, snapshot: bytes, epoch: int | None = None) -> Document:
        judge = permit if epoch is None else permit_in(epoch)
        return Document(Replica.load(self._actor(), MAPS, snapshot, permit=judge), self.node)

    def _actor(self) -> bytes:
        return bytes.fromhex(self.node) + self._entropy(8)

    def restore(self, id: DeploymentId, stored: StoredDocument) -> None:
        """Take up a document that was on the disk."""
        try:
            replica = Replica.load(self._actor(), MAPS, stored.snapshot, stored.changes)
        except CorruptReplica as error:
            # One poisonous document stops one deployment, never an agent (rule 8); its containers run on (rule 5).
            words = f"the document of deployment {id[:8]} cannot be read ({error}); asking its other members"
            self.tell("storage", words)
            self.persist([DropDocument(id)])
            return
        document = Document(replica, self.node)
        self.deployments[id] = Deployment(id, document, self, self.clock.now, is_restored=True)
        self.evaluate(id)

    def adopt(self, id: DeploymentId, document: Document) -> Deployment:
        """Take up a deployment whose document is in memory; the caller makes it durable."""
        self.parted.pop(id, None)
        deployment = self.deployments[id] = Deployment(id, document, self, self.clock.now, is_restored=False)
        self.advertising.publish()
        return deployment

    def bury(self, deployment: DeploymentId, instances: Sequence[str]) -> None:
        name = self.deployments[deployment].name
        self._drop(deployment, self.tombstones.add(deployment, instances))
        self.tell("removed", "the deployment was removed, and nothing of it runs here any more", deployment=name)

    def tell_removed(self, node: NodeId, deployment: DeploymentId) -> None:
        """Which instances of ``deployment`` are dead for ever."""
        instances = self.tombstones.instances(deployment)
        proofs = tuple(proof_of_instance(instance, self.node, node) for instance in instances)
        self.send(node, Gone(deployment, tuple(map(digest, instances)), proofs))

    def part_with(self, deployment: DeploymentId) -> None:
        name = self.deployments[deployment].name
        self._drop(deployment)
        self.parted[deployment] = None
        if len(self.parted) > PARTED_MAX:
            del self.parted[next(iter(self.parted))]
        self.tell("left", "this node is no member of the deployment any more", deployment=name)

    def _drop(self, deployment: DeploymentId, *writes: Write) -> None:
        del self.deployments[deployment]
        self.persist([DropDocument(deployment), *writes])
        self.advertising.publish()
        self.orphans.look_soon()

    def evaluate(self, deployment: DeploymentId) -> None:
        """Let that deployment look at its state anew before the present input ends."""
        self._touched[deployment] = None

    def evaluate_all(self) -> None:
        self._touched.update(dict.fromkeys(self.deployments))

    def evaluate_touched(self) -> None:
        while self._touched:
            id = next(iter(self._touched))
            deployment = self.deployments.get(id)
            del self._touched[id]
            if deployment is not None:
                deployment.evaluate(self.clock.now)

    def members_changed(self, node: NodeId, change: Change) -> None:
        """What that means is for each deployment to say: in a large cluster most is nothing to most."""
        for id, deployment in list(self.deployments.items()):
            if deployment.members_changed(node, change, self.clock.now):
                self.evaluate(id)
