"""What has to be true, told by observers that share no code with what they judge.

``Safety`` watches everything that agents ask for and write, at all times. ``liveness`` judges a cluster that was healed
and left alone for a while. Both speak in sentences; no sentence means that all is well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from crdt import CorruptReplica, MessageLimits, Replica
from crdt.messages import Push, decode_message
from gary.assignment import wanted_slots
from gary.document import Document
from gary.effects import Effect, Notify, Reply, StartContainer, StopContainer
from gary.facts import MAPS
from gary.identity import DeploymentId, NodeId, Slot, index_of
from gary.messages import Invitation, LedgerStatements, MalformedMessage, Message, Snapshot, Sync, decode
from gary.permission import permit
from gary.runtime.base import ContainerState
from gary.spec import Mode
from gary.state import PromiseState, Role, State
from gary.storage import AppendChanges, PutSnapshot, StoredDocument, Table, Write
from gossip import Lane, Send
from gossip.messages import Payload
from gossip.messages import decode as decode_frame
from gossip.transport import GUEST
from simulations.cluster import Cluster
from simulations.host import Host

FRAME_SIZE_BYTES_MAX = 4 * 1024 * 1024
_READER = b"\xff" * 24


class Safety:
    """DESIGN's rules 2, 3 and 5 as far as they can be seen from outside. ``canaries``: bytes of documents.

    *Scope*: a document goes to, and lies at, nodes only that its members have named; nothing of it is shown to others,
    nor by them, whoever asks what through which node. *Durable before told*: no change
    and no invitation leaves a host whose disk does not have it, no container starts for a promise that is not on the
    disk. *Absence is never permission*: no container of a wanted slot is stopped while nobody else has promised it.
    """

    def __init__(self, *canaries: bytes) -> None:
        self.violations: list[str] = []
        self._canaries = canaries
        self._disks: dict[tuple[str, DeploymentId], _Read] = {}
        self._named: dict[DeploymentId, set[NodeId]] = {}
        self._durable: dict[tuple[str, DeploymentId], set[bytes]] = {}  # empty: there is no document yet

    # What a watcher sees

    def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
        match effect:
            case Send(peer, _, frame) if peer.node.startswith(GUEST):
                if any(canary in frame for canary in self._canaries):
                    self._says(cluster, f"{host.name} tells a guest of a deployment")
            case Send(peer, Lane.BULK, frame):
                for message in _messages(frame) if self._durable else ():
                    self._sends(cluster, host, peer.node, message)
                self._leaks(cluster, f"a frame from {host.name} to {peer.node[:6]}", host, peer.node, frame)
            case Send(peer, _, frame):
                self._leaks(cluster, f"a probe from {host.name}", host, "", frame)
            case Reply(item=item, error=error) if not _holds_anything(host):
                said = f"{item} {error}".encode()
                self._leaks(cluster, f"what {host.name} answers at its socket", host, host.node, said)
            case Notify(event) if not _holds_anything(host):
                self._leaks(cluster, f"an event on {host.name}", host, host.node, repr(event).encode())
            case StartContainer(request=request):
                self._starts(cluster, host, request.labels.deployment, request.labels.slot)
            case StopContainer(container_id=container):
                self._stops(cluster, host, container)
            case _:
                pass

    def wrote(self, cluster: Cluster, host: Host, writes: Sequence[Write]) -> None:
        for write in writes:
            match write:
                case AppendChanges(id, changes):
                    self._durable.setdefault((host.name, id), set()).update(changes)
                    self._holds(cluster, host, id)
                case PutSnapshot(id, snapshot):
                    self._durable.setdefault((host.name, id), set()).update(_changes_in(snapshot))
                    self._holds(cluster, host, id)
                case _:
                    for canary in self._canaries:
                        if canary in repr(write).encode():
                            self._says(cluster, f"{host.name} keeps {canary!r} outside of any document")

    # Judging

    def _says(self, cluster: Cluster, sentence: str) -> None:
        self.violations.append(f"at {cluster.clock.now:.3f} s: {sentence}")

    def _sends(self, cluster: Cluster, host: Host, to: NodeId, message: Message) -> None:
        match message:
            case Invitation(_, id, _, snapshot) | Snapshot(id, _, snapshot) if snapshot:
                self._name(cluster, host, id)
                told = _changes_in(snapshot)
            case Sync(id, _, body):
                self._name(cluster, host, id)
                pushed = decode_message(body, MessageLimits())
                told = pushed.changes if isinstance(pushed, Push) else ()
                if not told:
                    return
            case LedgerStatements(statements):
                untold = set(statements) - set(host.storage.load().records[Table.TRUST].values())
                if untold:
                    self._says(cluster, f"{host.name} tells {len(untold)} statements that are not on its disk")
                return
            case _:
                return
        if to not in self._named.get(id, ()):
            self._says(cluster, f"{host.name} sends document {id[:6]} to {to[:6]}, whom no member has named")
        unwritten = [change for change in told if change not in self._durable.get((host.name, id), ())]
        if unwritten:
            self._says(cluster, f"{host.name} tells {len(unwritten)} changes that are not on its disk")

    def _leaks(self, cluster: Cluster, what: str, host: Host, to: NodeId, frame: bytes) -> None:
        for canary in self._canaries:
            if canary in frame and not any(to in nodes for nodes in self._named.values()):
                self._says(cluster, f"{what} shows {canary!r} to a node that is no member")

    def _name(self, cluster: Cluster, host: Host, id: DeploymentId) -> None:
        assert host.agent is not None
        deployment = host.agent.deployments.get(id)
        if deployment is not None:
            self._named.setdefault(id, set()).update(deployment.state.members)

    def _holds(self, cluster: Cluster, host: Host, id: DeploymentId) -> None:
        if host.agent is None or id not in host.agent.deployments:
            return
        founder = id not in self._named
        self._name(cluster, host, id)
        if not founder and host.node not in self._named[id]:
            self._says(cluster, f"{host.name} holds document {id[:6]} and no member has named it")

    def _starts(self, cluster: Cluster, host: Host, id: DeploymentId, slot: Slot) -> None:
        state = self._on_disk(host, id)
        mine = None if state is None else state.promise(host.node, slot)
        if mine is None or mine.state is PromiseState.WITHDRAWN:
            self._says(cluster, f"{host.name} starts {slot} without a promise on its disk")

    def _stops(self, cluster: Cluster, host: Host, container: str) -> None:
        found = next((c for c in host.engine.present(cluster.clock.now) if c.id == container), None)
        if found is None or found.state is not ContainerState.RUNNING:
            return
        slot, id = found.labels.slot, found.labels.deployment
        on_disks = [state for other in cluster.hosts if (state := self._on_disk(other, id)) is not None]
        own = None if host.agent is None else host.agent.deployments.get(id)
        known = on_disks if own is None else [*on_disks, own.state]
        if not known or not all(_wants(state, slot) for state in known):
            return
        if all(p.state is PromiseState.WITHDRAWN for state in on_disks for p in state.by_slot.get(slot, ())):
            self._says(cluster, f"{host.name} stops {slot}, and nobody has promised it")

    def _on_disk(self, host: Host, id: DeploymentId) -> State | None:
        """What the document on the host's disk says. What has been appended since the last look is all that is read."""
        stored = host.storage.load().documents.get(id)
        if stored is None:
            return None
        read = self._disks.get((host.name, id))
        if read is None or not read.is_continued_by(stored):
            try:
                replica = Replica.load(_READER, MAPS, stored.snapshot, stored.changes)
            except CorruptReplica:
                return None
            read = _Read(stored, Document(replica, ""))
        else:
            read.document.replica.apply(stored.changes[len(read.stored.changes) :], permit)
            read.stored = stored
        self._disks[host.name, id] = read
        return read.document.state


@dataclass(slots=True)
class _Read:
    """A document as it was on a disk."""

    stored: StoredDocument
    document: Document

    def is_continued_by(self, later: StoredDocument) -> bool:
        known = self.stored.changes
        return later.snapshot == self.stored.snapshot and later.changes[: len(known)] == known


def liveness(cluster: Cluster) -> list[str]:
    """What is wrong with a cluster that has had time to recover: everybody sees everybody, and all is whole.

    Who was expelled is out for ever: nobody else sees it, and what it still holds and runs is nobody's business.
    """
    return [*_membership(cluster), *_trust(cluster), *_deployments(cluster)]


def expelled(cluster: Cluster) -> set[NodeId]:
    """Whom anybody knows to be out."""
    return {node for host in cluster.live() if host.agent for node in host.agent.standing.ledger.expulsions}


def _staying(cluster: Cluster) -> list[Host]:
    """The live hosts whose nodes are not expelled."""
    out = expelled(cluster)
    return [host for host in cluster.live() if host.node not in out]


def growth(cluster: Cluster, seconds: float) -> list[str]:
    """Let time pass in which nothing happens: no document may grow, and nothing but small talk is sent."""
    before = _sizes(cluster)
    cluster.run(seconds)
    return [
        f"the document {id[:6]} of {name} grew from {before.get((name, id), 0)} to {size} changes at rest"
        for (name, id), size in _sizes(cluster).items()
        if size != before.get((name, id), 0)
    ]


def _sizes(cluster: Cluster) -> dict[tuple[str, DeploymentId], int]:
    return {
        (host.name, id): deployment.document.replica.change_count
        for host in _staying(cluster)
        if host.agent is not None
        for id, deployment in host.agent.deployments.items()
    }


def _membership(cluster: Cluster) -> Iterator[str]:
    staying = _staying(cluster)
    truth = sorted(host.node for host in staying)
    for host in staying:
        assert host.agent is not None
        seen = list(host.agent.alive)
        if seen != truth:
            missed, extra = len(set(truth) - set(seen)), len(set(seen) - set(truth))
            yield f"{host.name} misses {missed} live nodes and sees {extra} that are none"


def _trust(cluster: Cluster) -> Iterator[str]:
    """All have heard the same, and each has a certificate and the secret of the one present root."""
    digests: set[bytes] = set()
    for host in _staying(cluster):
        assert host.agent is not None
        standing = host.agent.standing
        digests.add(standing.ledger.digest)
        if f" by {standing.ledger.present.certificate}>" not in host.credentials.certificate:
            yield f"{host.name} shows a certificate of another root than the present one"
        if host.vouches and not standing.vouches:
            yield f"{host.name} does not vouch for the present root"
    if len(digests) > 1:
        yield f"the nodes hold {len(digests)} different ledgers"


def _deployments(cluster: Cluster) -> Iterator[str]:
    held: dict[DeploymentId, dict[str, State]] = {}
    heads: dict[DeploymentId, set[tuple[bytes, ...]]] = {}
    staying = _staying(cluster)
    for host in staying:
        assert host.agent is not None
        for id, deployment in host.agent.deployments.items():
            held.setdefault(id, {})[host.name] = deployment.state
            heads.setdefault(id, set()).add(deployment.document.replica.heads())
        on_disk = set(host.storage.load().documents)
        if on_disk != set(host.agent.deployments):
            yield f"{host.name} keeps {len(on_disk)} documents on disk and {len(host.agent.deployments)} in mind"
    for id, states in sorted(held.items()):
        if len(heads[id]) > 1:
            yield f"the members of {id[:6]} hold {len(heads[id])} different documents"
        name, state = next(iter(states.items()))
        agent = next(host.agent for host in cluster.hosts if host.name == name)
        assert agent is not None
        if state.spec is None:
            yield f"the removed deployment {id[:6]} is still held by {', '.join(states)}"
            continue
        wanted = wanted_slots(state, agent.view(state))
        yield from _containers(cluster, id, wanted)
        yield from _promises(staying, state, wanted)
        yield from _members(staying, state, states)
    known = {c.labels.deployment for host in staying for c in host.engine.present(cluster.clock.now)}
    for id in sorted(known - set(held)):
        yield f"containers of {id[:6]} run, and nobody holds its document"


def _containers(cluster: Cluster, id: DeploymentId, wanted: Sequence[Slot]) -> Iterator[str]:
    found: dict[Slot, list[str]] = {slot: [] for slot in wanted}
    out = expelled(cluster)
    for host in (host for host in cluster.hosts if host.agent is None or host.node not in out):
        for container in host.engine.present(cluster.clock.now):
            if container.labels.deployment == id and container.state is ContainerState.RUNNING:
                found.setdefault(container.labels.slot, []).append(host.name)
    for slot, where in found.items():
        if slot not in wanted:
            yield f"{slot} runs on {', '.join(where)} and is not wanted"
        elif len(where) != 1:
            yield f"{slot} runs {len(where)} times ({', '.join(where)})"


def _promises(staying: Sequence[Host], state: State, wanted: Sequence[Slot]) -> Iterator[str]:
    """Each slot is kept by one live node, which has said so: nothing is about to be written."""
    live = {host.node for host in staying}
    for slot in wanted:
        said = [promise.state.value for promise in state.standing.get(slot, ()) if promise.node in live]
        if said != [PromiseState.HEALTHY]:
            yield f"of {slot} the document says: {', '.join(said) or 'nothing'}"


def _members(staying: Sequence[Host], state: State, states: dict[str, State]) -> Iterator[str]:
    assert state.spec is not None
    runners = {p.node for p in state.promises if p.state is not PromiseState.WITHDRAWN}
    live = {host.node: host.name for host in staying}
    guards = max(len(runners & set(live)), min(state.spec.resilience, len(live)))
    if len(states) != guards:
        yield f"{state.name} has {len(states)} members ({', '.join(states)}), and {guards} are enough"
    stated = {node for node, member in state.members.items() if member.role is Role.MEMBER and node in live}
    if {live[node] for node in stated} != set(states):
        yield f"{state.name} names other members than those that hold it"


@lru_cache(64)
def _changes_in(snapshot: bytes) -> tuple[bytes, ...]:
    return tuple(Replica.load(_READER, MAPS, snapshot).changes_since(()))


def _messages(frame: bytes) -> Iterator[Message]:
    for message in decode_frame(frame, FRAME_SIZE_BYTES_MAX).messages:
        if isinstance(message, Payload):
            try:
                decoded = decode(message.body)
            except MalformedMessage:
                continue
            if decoded is not None:
                yield decoded


def _holds_anything(host: Host) -> bool:
    return host.agent is not None and bool(host.agent.deployments)


def _wants(state: State, slot: Slot) -> bool:
    service = state.service(slot)
    if service is None or service.mode is Mode.GLOBAL:
        return service is not None
    return int(index_of(slot)) <= service.replicas
