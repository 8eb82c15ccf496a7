"""The node and its cluster: who is in it, and how this node joins and leaves."""

from __future__ import annotations

from typing import Protocol

from gary.advertisements import PROTOCOL
from gary.advertising import Settings
from gary.clock import Clock
from gary.cluster import Cluster
from gary.commands.command import Command, Json
from gary.deployment import Deployment
from gary.engines import Engines
from gary.enrolment import Enrolment
from gary.errors import CommandError, ErrorCode
from gary.identity import DeploymentId, NodeId
from gary.requests import Responder
from gary.trust import tokens
from gary.trust.membership import Membership
from gary.trust.standing import Standing
from gary.trust.tokens import BadToken, Token
from gossip import JoinFailure, Member, Status, Swim

JOIN_WAIT_S = 15.0
LEAVE_WAIT_S = 120.0
LOOK_S = 0.25
SLOTS_NAMED_MAX = 5
_ASK_AGAIN = "'gary invite' on a node of the cluster makes another invitation"


class Host(Protocol):
    """The node that joins and leaves."""

    node: NodeId
    settings: Settings
    clock: Clock
    swim: Swim
    cluster: Cluster
    standing: Standing
    membership: Membership
    deployments: dict[DeploymentId, Deployment]
    enrolment: Enrolment
    engines: Engines

    @property
    def is_isolated(self) -> bool: ...

    @property
    def is_expelled(self) -> bool: ...

    def abandon(self) -> None:
        """Drop every deployment, and stop what runs of it."""

    def tie(self) -> CommandError | None:
        """Why this node cannot go into another cluster; None if it can."""

    def join(self, address: str) -> None:
        """It ends in ``ClusterCommands.joined`` or ``join_failed``."""

    def drain(self, *, is_draining: bool) -> None:
        """Hand over everything that this node keeps, or stop doing so."""

    def leave_cluster(self) -> None:
        """Say goodbye and forget the cluster."""

    def tell(self, kind: str, message: str) -> None: ...


class ClusterCommands:
    """The node's own operator alone makes it join or leave."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._joining: tuple[Responder, int] | None = None
        self._leaving: Responder | None = None

    # Who is there

    def version(self, command: Command) -> None:
        settings = self._host.settings
        node = {"node": self._host.node, "name": settings.name, "cluster": self._host.swim.cluster.hex()}
        command.responder.end({"version": settings.version, "protocol": PROTOCOL, **node})

    def nodes(self, command: Command) -> None:
        names = self._host.cluster.display_name
        members = sorted(self._host.swim.members(), key=lambda member: (names(member.node), member.node))
        expelled = [
            {"node": node, "name": said[0].name, "status": "expelled"}
            for node, said in self._host.standing.ledger.expulsions.items()
        ]
        command.responder.end({"nodes": [*(self._describe(member) for member in members), *expelled]})

    def _describe(self, member: Member) -> Json:
        host = self._host
        profile = host.cluster.profile(member.node)
        room = None if profile is None else profile.room
        advertisement = host.swim.advertisement(member.node)
        evidence = host.swim.evidence(member.node)
        missed_by = () if evidence is None else evidence.observers
        return {
            "node": member.node,
            "name": host.cluster.display_name(member.node),
            "address": member.address,
            "status": member.status.value,
            "missed_by": [host.cluster.display_name(node) for node in missed_by],
            "self": member.node == host.node,
            "accepting": room is not None and room.accepting,
            "labels": {} if room is None else dict(room.labels),
            "runtimes": [] if room is None else list(room.runtimes),
            "cpus": 0.0 if profile is None else profile.cpus,
            "memory_bytes": 0 if profile is None else profile.memory_bytes,
            "containers": 0 if profile is None else profile.containers,
            "containers_max": 0 if profile is None else profile.containers_max,
            "deployments": 0 if advertisement is None else len(advertisement.names),
        }

    # Joining

    def join(self, command: Command) -> None:
        """Go into another cluster: with a token as a stranger, without one if this node has a certificate for it."""
        host, token = self._host, self._token(command)
        peer = command.text("peer") if command.arguments.get("peer") else ""
        if self._joining is not None:
            raise CommandError(ErrorCode.CONFLICT, "this agent is joining already", "wait for that to end")
        if not peer and token is None:
            raise CommandError(ErrorCode.BAD_REQUEST, "neither a node nor an invitation", "'gary join --help'")
        self._may_join(peer, token)
        addresses = (peer,) if peer else token.addresses if token is not None else ()
        deadline = host.clock.after(
            JOIN_WAIT_S, lambda now: self.join_failed(addresses[0], JoinFailure.TIMEOUT, "nobody answered")
        )
        self._joining = (command.responder, deadline)
        if token is None:
            host.join(peer)
        else:
            host.membership.entering.enter(token, addresses, self._entered, self._not_entered)

    def _token(self, command: Command) -> Token | None:
        given = command.arguments.get("token")
        if not given:
            return None
        try:
            token = tokens.read(str(given))
        except BadToken as error:
            raise CommandError(ErrorCode.BAD_REQUEST, str(error), "'gary invite' on a node of the cluster") from error
        if token.issuer == self._host.node:
            raise CommandError(ErrorCode.REFUSED, "this node has issued that invitation itself", "join with another")
        return token

    def _may_join(self, peer: str, token: Token | None) -> None:
        host = self._host
        if token is not None and token.cluster == host.standing.ledger.cluster:
            return  # It comes back to its own cluster, whose root was changed while it was away.
        if peer == host.swim.address:
            message, hint = _why_not_joined(peer, JoinFailure.SELF, "")
            raise CommandError(ErrorCode.REFUSED, message, hint)
        is_fellow = token is None and any(
            m.address == peer and m.status is not Status.LEFT for m in host.swim.members()
        )
        tie = None if is_fellow else host.tie()
        if tie is not None:
            raise tie

    def _entered(self, address: str) -> None:
        """This node has a certificate of the cluster; now it becomes a member."""
        self._host.join(address)

    def _not_entered(self, reason: str) -> None:
        responder = self._joining_ended()
        if responder is not None:
            self._host.tell("invitation", f"not let in: {reason}")
            responder.fail(CommandError(ErrorCode.REFUSED, f"not let in: {reason}", _ASK_AGAIN))

    def joined(self) -> None:
        responder = self._joining_ended()
        if responder is not None:
            count = len(self._host.cluster.alive)
            self._host.tell("member", f"joined a cluster of {count}")
            responder.end({"joined": True, "nodes": count})

    def join_failed(self, address: str, reason: JoinFailure, detail: str) -> None:
        responder = self._joining_ended()
        if responder is not None:
            message, hint = _why_not_joined(address, reason, detail)
            code = ErrorCode.REFUSED if reason is JoinFailure.SELF else ErrorCode.UNAVAILABLE
            responder.fail(CommandError(code, message, hint))

    def _joining_ended(self) -> Responder | None:
        """Whoever waits for it."""
        if self._joining is None:
            return None
        (responder, deadline), self._joining = self._joining, None
        self._host.clock.forget(deadline)
        return responder

    # Leaving

    def leave(self, command: Command) -> None:
        host = self._host
        if self._leaving is not None:
            raise CommandError(ErrorCode.CONFLICT, "this node is leaving already", "wait for that to end")
        if host.is_isolated and not host.is_expelled:
            known = len(host.swim.members()) > 1
            message = "no other node is reachable, so nobody could take over" if known else "this node is in no cluster"
            hint = "bring a peer back first, or just stop the agent: its containers run on"
            raise CommandError(ErrorCode.REFUSED, message, hint)
        timeout = command.arguments.get("timeout_s")
        until = host.clock.now + (float(timeout) if isinstance(timeout, int | float) else LEAVE_WAIT_S)
        self._leaving = command.responder
        host.drain(is_draining=True)
        if host.is_expelled:
            # Nobody takes anything from it, or waits for it: the others have replaced what it kept.
            host.tell("leave", "stopping what this node keeps")
            host.abandon()
        else:
            host.tell("leave", "handing over what this node keeps")
        self._watch_leaving(command.responder, until, "")

    def cancel(self, responder: Responder) -> None:
        """Whoever asked to leave waits no longer: the node stays."""
        if self._leaving is responder:
            self._leaving = None
            self._host.drain(is_draining=False)

    def _watch_leaving(self, responder: Responder, until: float, said: str) -> None:
        host = self._host
        if responder.is_cancelled or self._leaving is not responder:
            return
        kept = [p for d in host.deployments.values() for p in d.state.promises_of(host.node)]
        words = f"{_count(len(kept), 'slot')} and {_count(len(host.deployments), 'document')} to hand over"
        # Containers may be left of what this node was told to be no member of: others say whether they are to end.
        left = [] if host.deployments else host.engines.containers()
        if left:
            words = f"{_count(len(left), 'container')} to stop"
        elif not host.deployments:
            host.leave_cluster()
            responder.end({"left": True, "message": "left the cluster"})
            return
        if host.clock.now >= until:
            self._leaving = None
            host.drain(is_draining=False)
            slots = [promise.slot for promise in kept] or [container.labels.slot for container in left]
            named = ", ".join(slots[:SLOTS_NAMED_MAX])
            message = f"not everything was taken over in time ({words}{': ' + named if named else ''}); this node stays"
            hint = "remove these containers yourself" if left else "'gary status' says why"
            responder.fail(CommandError(ErrorCode.TIMEOUT, message, f"{hint}; or allow more --timeout"))
            return
        if words != said:
            responder.item({"message": words})
        host.clock.after(LOOK_S, lambda now: self._watch_leaving(responder, until, words))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _why_not_joined(address: str, reason: JoinFailure, detail: str) -> tuple[str, str]:
    """What happened, and what to do about it."""
    because = f" ({detail})" if detail else ""
    match reason:
        case JoinFailure.SELF:
            return f"{address} is this very node", "give the address of another one"
        case JoinFailure.UNREACHABLE:
            return (
                f"{address} cannot be reached{because}",
                "check the address, and that an agent runs there: 'gary version'",
            )
        case JoinFailure.TIMEOUT:
            return f"{address} did not answer in time{because}", "check the address, its firewall and its agent's log"
    if reason is JoinFailure.NOT_TRUSTED:
        return (
            f"{address} and this node do not trust each other{because}",
            "an invitation is needed: 'gary invite' on a node of the cluster, then 'gary join --token' here",
        )
    return f"{address} did not let this node in{because}", "see the log of the agent there"
