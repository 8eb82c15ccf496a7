"""What other agents say: each message is decoded and given to the one who handles it here."""

from __future__ import annotations

from crdt import CorruptReplica
from gary.commands import Commands
from gary.identity import DeploymentId, NodeId
from gary.messages import (
    Acceptance,
    Acquaintance,
    Behind,
    CallForVolunteers,
    Cancel,
    CompareLedger,
    ContactAnswer,
    ContactQuery,
    Dismissed,
    Entrust,
    Entrusted,
    Entry,
    Gone,
    Invitation,
    LedgerStatements,
    MalformedMessage,
    Message,
    Offer,
    Orphans,
    Released,
    Request,
    Response,
    Snapshot,
    Sync,
    Without,
    decode,
)
from gary.node import Node
from gary.requests import Serving, arguments_of


class Inbox:
    """Whatever the bytes are, they lead to a message that is handled or to one that is counted (rule 8)."""

    def __init__(self, here: Node, commands: Commands) -> None:
        self._here = here
        self._commands = commands
        self._serving = Serving()

    def deliver(self, sender: NodeId, payload: bytes) -> None:
        try:
            message = decode(payload)
            if message is None:
                self._here.counters["messages_unknown"] += 1
            else:
                self._heard(sender, message)
        except MalformedMessage:
            self._here.counters["messages_malformed"] += 1

    def _heard(self, sender: NodeId, message: Message) -> None:
        here, now = self._here, self._here.clock.now
        match message:
            case Request():
                self._serve(sender, message)
            case Response():
                here.requests.response(sender, message)
            case Cancel(id):
                known = self._serving.cancel(sender, id)
                if known is not None:
                    self._commands.cancel_responder(known)
            case CallForVolunteers(id, deployment):
                here.send(sender, Offer(id, deployment, here.room()))
            case ContactQuery(id, missing):
                heard = here.swim.last_heard(missing)
                age_s = -1.0 if heard is None else max(0.0, now - heard)
                here.send(sender, ContactAnswer(id, missing, age_s, missing not in here.alive))
            case ContactAnswer():
                for asking in list(here.deployments.values()):
                    asking.calling.contact(sender, message, now)
            case Invitation():
                self._invited(sender, message)
            case Entry() | CompareLedger() | LedgerStatements() | Entrust() | Entrusted():
                here.membership.heard(sender, message)
            case Sync(id) | Behind(id) | Snapshot(id) | Gone(id) | Orphans(id) | Released(id) | Without(id):
                self._about_deployment(sender, id, message)
            case Offer(_, id) | Acceptance(_, id) | Acquaintance(id) | Dismissed(id):
                self._about_deployment(sender, id, message)

    def _about_deployment(self, sender: NodeId, id: DeploymentId, message: Message) -> None:
        if id in self._here.deployments:
            self._about_held(sender, id, message)
        else:
            self._about_another(sender, id, message)

    def _about_held(self, sender: NodeId, id: DeploymentId, message: Message) -> None:
        deployment, now = self._here.deployments[id], self._here.clock.now
        match message:
            case Sync():
                deployment.received(sender, message, now)
            case Behind():
                deployment.behind(sender, message, now)
            case Snapshot():
                deployment.overtaken(sender, message, now)
            case Gone():
                deployment.told_gone(sender, message, now)
            case Acquaintance():
                deployment.acquainted(sender, message, now)
            case Dismissed():
                deployment.dismissed(sender, message, now)
            case Offer():
                deployment.calling.offer(sender, message)
                self._here.evaluate(id)
            case Acceptance():
                deployment.accepted(sender, message, now)
            case Orphans():
                if id in self._here.tombstones:
                    # They may be of an earlier instance, of which the document knows nothing.
                    self._here.tell_removed(sender, id)
                deployment.orphans(sender, message, now)
            case Without():
                deployment.without(sender, message, now)
            case _:
                self._here.counters["messages_unexpected"] += 1

    def _about_another(self, sender: NodeId, id: DeploymentId, message: Message) -> None:
        """About a deployment that is not, or no longer, held here."""
        match message:
            case Sync() | Behind() | Snapshot() | Orphans() if id in self._here.tombstones:
                self._here.tell_removed(sender, id)
            case Sync() | Behind() | Snapshot():
                self._here.send(sender, Without(id, has_left=id in self._here.parted))
            case Gone(_, digests):
                self._here.orphans.gone(id, frozenset(digests))
            case Released():
                self._here.orphans.released(sender, message)

    def _invited(self, sender: NodeId, invitation: Invitation) -> None:
        here, now, id = self._here, self._here.clock.now, invitation.deployment
        held = here.deployments.get(id)
        if held is not None:
            held.invited(sender, invitation, now)
            return
        unable = _why_unable(here)
        if unable:
            here.send(sender, Acceptance(invitation.id, id, (), tuple((slot, unable) for slot in invitation.slots)))
            return
        try:
            document = here.open_document(invitation.snapshot)
        except CorruptReplica:
            here.counters["invitations_malformed"] += 1
            return
        state = document.state
        if here.id_of(state.name) != id or not {sender, here.node} <= set(state.holders):
            here.counters["invitations_malformed"] += 1
            return
        deployment = here.adopt(id, document)
        deployment.save(now)
        deployment.gone(here.tombstones.instances(id), now)
        deployment.invited(sender, invitation, now)

    def _serve(self, sender: NodeId, request: Request) -> None:
        arguments = arguments_of(request)
        responder = self._serving.accept(sender, request, lambda response: self._here.send(sender, response))
        if responder is not None:
            self._here.counters["requests_served"] += 1
            self._commands.remote(sender, request.operation, arguments, responder)


def _why_unable(here: Node) -> str:
    """Why the node takes on nothing at all; empty if it does."""
    if here.is_draining:
        return "the node is draining"
    if here.outbox.failure:
        return "the node cannot write"
    return "the node was expelled" if here.is_expelled else ""
