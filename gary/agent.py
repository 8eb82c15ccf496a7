"""The agent: one node's whole behaviour, without a clock, a socket or a file (rule 9).

Every input returns effects in the order in which they must happen. The daemon drives one agent in the real world, the
simulation drives thousands in virtual time; both drive this class (rule 10). Each input goes to who handles it:

| input | who handles it |
| --- | --- |
| ``received``, ``unreachable``, ``timer`` | ``gossip.Swim``; of what it makes of them, ``Cluster`` and ``Inbox`` |
| ``alarm`` | whoever set it: a ``Deployment``, the ``Clock``, ``Advertising``, ``Orphans``, or the agent itself |
| ``persisted``, ``persist_failed`` | the node's ``Outbox``, or that of the ``Deployment`` whose write it was |
| ``observed``, ``operated`` | ``Engines``, then the ``Deployment`` |
| ``command``, ``cancel``, ``logged`` | ``Commands`` |
| ``consulted``, ``knocked``, ``renewed`` | ``trust.Membership``, whose effects have ended; also what guests say |
| ``dialled``, ``inspected`` | the command ``doctor``, of this node or of another |

Thereafter every deployment that was touched is evaluated.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gary.advertisements import Profile, decode_profile
from gary.advertising import Settings
from gary.assignment import View
from gary.boot import Boot
from gary.commands import Commands
from gary.deployment import Deployment
from gary.doctor import DiskFacts
from gary.effects import Alarm, Effect, Event, SetAlarm
from gary.host import Change
from gary.identity import DeploymentId, NodeId
from gary.inbox import Inbox
from gary.node import Node
from gary.runtime.base import Capacity, Container
from gary.state import PromiseState, State
from gary.storage import Stored
from gary.trust.keys import node_id_of
from gary.trust.notary import Answer
from gary.trust.pacing import Pacing
from gary.trust.standing import Standing
from gossip import (
    AdvertisementChanged,
    CancelTimer,
    Deliver,
    EpochRaised,
    Forgotten,
    Heard,
    IdentityConflict,
    Joined,
    JoinFailed,
    Lane,
    Layered,
    MarkDiffers,
    Member,
    MemberChanged,
    Peer,
    Roll,
    Send,
    SetTimer,
    Status,
    Swim,
    SwimConfig,
    Timer,
)
from gossip import Effect as GossipEffect
from gossip.transport import GUEST

OBSERVE_S = 30.0
PEERS_S = 10.0
"""Changes of peers that come within this time of each other are written down once."""
RETRY_WRITE_S = 2.0
REMIND_AGAIN_S = 60.0

__all__ = ["Agent", "Settings"]


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
        self._here = here = Node(
            settings=settings,
            boot=boot,
            stored=stored,
            runtimes=runtimes,
            address=address,
            swim_config=swim_config,
            rng=rng,
            entropy=entropy,
            perform=self._gossip,
        )
        self._commands = Commands(here)
        self._inbox = Inbox(here, self._commands)
        self._stored = stored
        self._seeds = boot.peers
        self._requests_at = 0.0
        self._have_peers_changed = True
        self._are_peers_due = False
        self._reminded = Pacing(REMIND_AGAIN_S)

    # Inputs

    def start(self, now: float) -> list[Effect]:
        """The first input. What the disk held is taken up; the node looks for the peers it knew."""
        here = self._here
        here.clock.now = now
        here.cluster.start((peer.node for peer in self._seeds), here.standing.ledger.expulsions, now)
        here.engines.start(now)
        for id, stored in self._stored.documents.items():
            here.restore(id, stored)
        for what in self._stored.set_aside:
            here.tell("storage", f"{what} could not be read, and was set aside")
        here.membership.start()
        self._gossip(here.swim.start(now, self._seeds))
        self._stored = Stored()
        here.observe()
        here.emit([SetAlarm(Alarm("observe", "", 0), OBSERVE_S)])
        return self._finish()

    def adopt(self, roll: Roll, epochs: dict[NodeId, int], profiles: dict[NodeId, Profile], now: float) -> None:
        """Have known everybody for long, as if nobody had to be told: for simulations that begin with a formed cluster.

        The three are made once and shared by all agents: they must not change any more.
        """
        self._here.clock.now = now
        self.swim.adopt(roll, now)
        self._have_peers_changed = True
        self._here.cluster.adopt(epochs, profiles)

    def clock(self, wall_offset_s: float) -> None:
        """What to add to ``now`` to get seconds since 1970; only people and generations see it."""
        self._here.clock.wall_offset_s = wall_offset_s

    def received(self, sender: NodeId, lane: Lane, frame: bytes, now: float) -> list[Effect]:
        """``sender`` is a node, or a guest that wants to become one."""
        self._here.clock.now = now
        if sender.startswith(GUEST):
            self._here.membership.guest(sender, frame, lambda answer: self._answer_guest(sender, answer))
        else:
            self._gossip(self.swim.receive(sender, lane, frame, now))
        return self._finish()

    def _answer_guest(self, guest: str, answer: bytes) -> None:
        self._here.emit([Send(Peer(guest, ""), Lane.BULK, answer)])

    def unreachable(self, peer: Peer, reason: str, now: float) -> list[Effect]:
        self._here.clock.now = now
        self._here.membership.refused(peer.address, reason)
        self._gossip(self.swim.unreachable(peer, reason, now))
        return self._finish()

    def timer(self, timer: Timer, now: float) -> list[Effect]:
        self._here.clock.now = now
        self._gossip(self.swim.timer(timer, now))
        return self._finish()

    def alarm(self, alarm: Alarm, now: float) -> list[Effect]:
        here = self._here
        here.clock.now = now
        deployment = here.deployments.get(alarm.key)
        match alarm.kind:
            case "deployment" if deployment is not None:
                deployment.alarm(alarm.token, now)
            case "rewrite" if deployment is not None:
                deployment.rewrite()
            case "rewrite":
                here.emit(here.outbox.retry())
            case "deadline":
                here.clock.passed(alarm.token)
            case "requests":
                self._requests_at = 0.0
            case "advertise":
                here.advertising.due()
            case "observe":
                here.observe()
                here.emit([SetAlarm(alarm, OBSERVE_S)])
            case "orphans":
                here.orphans.due()
            case "peers":
                self._are_peers_due = self._have_peers_changed = False
                here.remember_peers()
        return self._finish()

    def persisted(self, token: int, now: float) -> list[Effect]:
        here = self._here
        here.clock.now = now
        if not here.outbox.persisted(token, now):
            for deployment in list(here.deployments.values()):
                if deployment.persisted(token, now):
                    here.evaluate(deployment.id)
                    break
        return self._finish()

    def persist_failed(self, token: int, reason: str, now: float) -> list[Effect]:
        """The disk did not take it: nothing that depends on it is told to anybody until it does."""
        here = self._here
        here.clock.now = now
        here.counters["writes_failed"] += 1
        if here.outbox.holds(token):
            has_to_retry, is_news = here.outbox.persist_failed(reason)
            if is_news:
                here.tell("storage", f"nothing can be written: {reason}; it will be tried again")
            if has_to_retry:
                here.emit([SetAlarm(Alarm("rewrite", "", 0), RETRY_WRITE_S)])
        for deployment in list(here.deployments.values()):
            if deployment.persist_failed(token, reason):
                break
        return self._finish()

    def observed(
        self,
        runtime: str,
        containers: Sequence[Container] | None,
        capacity: Capacity | None,
        now: float,
        reason: str = "",
    ) -> list[Effect]:
        """What ``runtime`` runs now; None: it does not answer. ``capacity`` None: as before."""
        here = self._here
        here.clock.now = now
        if here.engines.observed(runtime, containers, capacity, now, reason):
            here.evaluate_all()
            here.advertising.publish_soon()
            here.orphans.look_soon()
        return self._finish()

    def operated(self, operation: int, container: Container | None, error: str, now: float) -> list[Effect]:
        """A container was started (``container``) or stopped (None), or that failed (``error``)."""
        here = self._here
        here.clock.now = now
        ended = here.engines.operated(operation, container, error)
        deployment = None if ended is None else here.deployments.get(ended.deployment)
        if ended is not None and deployment is not None:
            deployment.operated(ended.slot, container, error, now)
        here.orphans.look_soon()
        return self._finish()

    def command(self, command: int, operation: str, arguments: Mapping[str, Any], now: float) -> list[Effect]:
        """What a local operator asks. The answer comes as ``Reply`` effects that carry ``command``."""
        self._here.clock.now = now
        self._commands.local(command, operation, arguments)
        return self._finish()

    def cancel(self, command: int, now: float) -> list[Effect]:
        """Nobody waits for the answer to ``command`` any more."""
        self._here.clock.now = now
        self._commands.cancel(command)
        return self._finish()

    def consulted(self, number: int, answer: Answer | None, reason: str, now: float) -> list[Effect]:
        """The notary's answer; None: there is none, for that ``reason``."""
        self._here.clock.now = now
        self._here.consulted(number, answer, reason)
        return self._finish()

    def knocked(self, number: int, answer: bytes | None, reason: str, now: float) -> list[Effect]:
        """What was said at a door where this node knocked; None: nothing, for that ``reason``."""
        self._here.clock.now = now
        self._here.knocked(number, answer, reason)
        return self._finish()

    def renewed(self, number: int, reason: str, now: float) -> list[Effect]:
        """The transport shows what it was given; or not, for that ``reason``."""
        self._here.clock.now = now
        self._here.renewed(number, reason)
        return self._finish()

    def dialled(self, number: int, failures: Sequence[str], now: float) -> list[Effect]:
        """An address was dialled; why that failed, for each port where it did."""
        self._here.clock.now = now
        self._here.dialled(number, failures)
        return self._finish()

    def inspected(self, number: int, disk: DiskFacts, now: float) -> list[Effect]:
        """What the disk looks like that has this node's state."""
        self._here.clock.now = now
        self._here.inspected(number, disk)
        return self._finish()

    def logged(self, stream: int, chunk: tuple[str, bytes] | None, now: float) -> list[Effect]:
        """A piece (stream name, bytes) of a container's output; None: that was all."""
        self._here.clock.now = now
        self._commands.logged(stream, chunk)
        return self._finish()

    def _finish(self) -> list[Effect]:
        """Evaluate what was touched, and hand over the effects."""
        here, now = self._here, self._here.clock.now
        here.evaluate_touched()
        if self._have_peers_changed and not self._are_peers_due:
            self._are_peers_due = True
            here.emit([SetAlarm(Alarm("peers", "", 0), PEERS_S)])
        at = here.requests.tick(now)
        if at is not None and (not self._requests_at or at < self._requests_at):
            self._requests_at = at
            here.emit([SetAlarm(Alarm("requests", "", 0), max(0.01, at - now))])
        return here.take_effects()

    # What a driver sees

    @property
    def node(self) -> NodeId:
        return self._here.node

    @property
    def standing(self) -> Standing:
        return self._here.standing

    @property
    def swim(self) -> Swim:
        return self._here.swim

    @property
    def deployments(self) -> Mapping[DeploymentId, Deployment]:
        return self._here.deployments

    @property
    def alive(self) -> Layered[NodeId, int]:
        return self._here.alive

    @property
    def events(self) -> Sequence[Event]:
        return self._here.events.past

    @property
    def counters(self) -> Counter[str]:
        return self._here.counters

    @property
    def observed_nodes(self) -> tuple[NodeId, ...]:
        """Whose containers are this host's to look after: this node's, and those of the ids that it had before."""
        return self._here.enrolment.nodes

    def view(self, state: State) -> View:
        return self._here.view(state)

    def gauges(self) -> dict[str, float]:
        """How much there is of what is bounded or interesting, for the metrics."""
        here, deployments = self._here, self.deployments.values()
        kept = [promise for d in deployments for promise in d.state.promises_of(here.node)]
        return {
            "alive_members": len(here.alive),
            "known_members": here.swim.known,
            "local_health": here.swim.local_health,
            "deployments": len(deployments),
            "promises": len(kept),
            "promises_healthy": sum(promise.state is PromiseState.HEALTHY for promise in kept),
            "documents_changes": sum(d.document.replica.change_count for d in deployments),
            "documents_bytes": sum(d.document.replica.size_bytes for d in deployments),
            "malformed_facts": sum(d.state.malformed for d in deployments),
            "unwritten": len(here.outbox) + sum(d.unwritten for d in deployments),
            "engines_away": len(here.engines.away()),
            "events": len(here.events.past),
        }

    # What gossip makes of its inputs

    def _gossip(self, effects: Sequence[GossipEffect]) -> None:
        here = self._here
        for effect in effects:
            if isinstance(effect, (Send, SetTimer, CancelTimer)):  # which nearly all are
                here.emit_one(effect)
                continue
            match effect:
                case Deliver(sender, payload):
                    self._inbox.deliver(sender, payload)
                case MemberChanged(member, before):
                    self._member_changed(member, before)
                case AdvertisementChanged(node):
                    self._advertisement_changed(node)
                case Joined():
                    self._joined()
                case JoinFailed(address, reason, detail):
                    self._commands.join_failed(address, reason, detail)
                case IdentityConflict(node, address):
                    words = f"node id {node} lives twice, here and at {address}: was a state directory copied?"
                    here.tell("conflict", words)
                case EpochRaised(epoch):
                    here.raise_epoch(epoch)
                case Heard(_, body):
                    here.membership.spreading.heard(body)
                case MarkDiffers(node):
                    here.membership.spreading.differs(node)
                case Forgotten(node):
                    self._have_peers_changed = True
                    here.cluster.forget(node)

    def _member_changed(self, member: Member, before: Status | None) -> None:
        here, node = self._here, member.node
        if node == here.node:
            return
        self._have_peers_changed = True
        self._recognise_former_self(node)
        # That this host itself was another node before, and is no more, nobody knows better.
        status = Status.DEAD if node in here.former and member.status.live else member.status
        change = here.cluster.update(node, status, member.incarnation.epoch, here.clock.now)
        if node not in here.cluster.alive:
            here.requests.gone(node)
        here.cluster.tell_of(node, member.status, before)
        if change is Change.CAME:
            self._remind(node)
        if change is not Change.NONE:
            here.members_changed(node, change)

    def _recognise_former_self(self, node: NodeId) -> None:
        """A node at this node's own address was this host before its disk was lost: its containers are here."""
        here, member = self._here, self.swim.member(node)
        writes = here.enrolment.recognise(node) if member is not None and member.address == here.swim.address else []
        if writes:
            here.persist(writes)
            here.tell("member", f"this host was node {node[:8]} before; its containers are looked after")
            here.observe()

    def _advertisement_changed(self, node: NodeId) -> None:
        here = self._here
        if node == here.node:
            return
        advertisement = here.swim.advertisement(node)
        profile = None if advertisement is None else decode_profile(advertisement.body)
        if profile is None or profile.room.node != node or node_id_of(profile.key) != node:
            here.counters["advertisements_malformed"] += 1
        else:
            if here.cluster.introduced(node, profile):
                here.members_changed(node, Change.OFFERS)
            self._remind(node)

    def _remind(self, node: NodeId) -> None:
        """Tell ``node`` if it says that it holds what was removed, as far as is known here: its disk may be an older
        copy, and all that it knows of may have forgotten. If it was deployed anew nothing comes of it.
        """
        here = self._here
        advertisement, epoch = here.swim.advertisement(node), here.cluster.alive.get(node)
        if advertisement is None or epoch is None:
            return
        for id in advertisement.names:
            is_removed = id in here.tombstones and id not in here.deployments
            if is_removed and self._reminded.allows((node, epoch, id), here.clock.now):
                here.tell_removed(node, id)

    def _joined(self) -> None:
        here = self._here
        here.advertising.publish_anew()
        here.remember_peers()
        here.persist([], lambda at: self._commands.joined())
