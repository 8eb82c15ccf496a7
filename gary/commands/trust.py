"""Who may be in the cluster: invitations, expulsions, its root and its operators."""

from __future__ import annotations

from typing import Protocol

from gary.clock import Clock
from gary.commands.command import Command, Json
from gary.commands.finding import Addressing, addressees
from gary.errors import CommandError, ErrorCode
from gary.identity import NodeId
from gary.trust import tokens
from gary.trust.credentials import BadCredential, read_key
from gary.trust.invitations import USES_MAX, Invitation, Invitations, TooManyInvitations
from gary.trust.membership import Membership
from gary.trust.standing import Standing
from gary.trust.tokens import Token
from gossip import Swim

EXPIRES_S_MAX = 365 * 24 * 3600
OVERLAP_S = 7 * 24 * 3600.0
OVERLAP_S_MIN = 60.0
NAMED_MAX = 5
ID_LENGTH_MIN = 4


class Host(Addressing, Protocol):
    """The node whose cluster it is."""

    node: NodeId
    clock: Clock
    swim: Swim
    standing: Standing
    invitations: Invitations
    membership: Membership

    def tell(self, kind: str, message: str) -> None: ...


class TrustCommands:
    """All but the lists need a node that vouches: it speaks in the name of the cluster's root."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def trust(self, command: Command) -> None:
        """How this node stands in its cluster: nothing of it is secret."""
        host, standing = self._host, self._host.standing
        wall_s, ledger = host.clock.wall_s(), standing.ledger
        issuer = next((root for root in ledger.trusted(0.0) if root.public == standing.tls.issuer), None)
        command.responder.end(
            {
                "cluster": ledger.cluster.hex(),
                "vouches": standing.vouches,
                "certificate": {"root": "" if issuer is None else issuer.name, "present": standing.is_certified},
                "roots": [root.name for root in ledger.trusted(wall_s)],
                "trusted_until": [int(until_s) for until_s in ledger.until_s() if until_s > wall_s],
                "expelled": [self._describe_expulsion(node) for node in ledger.expulsions],
                "operators": sorted(key.hex() for key in ledger.operators),
            }
        )

    def _describe_expulsion(self, node: NodeId) -> Json:
        ledger, names = self._host.standing.ledger, self._host.cluster.display_name
        said = ledger.expulsions[node]
        return {
            "node": node,
            "name": said[0].name,
            "by": sorted({names(statement.by) for statement in said}),
            "at": min(statement.at_s for statement in said),
            "opponents": [ledger.expulsions[other][0].name for other in ledger.opponents(node)],
        }

    # Invitations

    def invite(self, command: Command) -> None:
        self._has_to_vouch()
        host, responder = self._host, command.responder
        uses = _whole(command, "uses", 1, USES_MAX, 1)
        lasts_s = _whole(command, "expires_s", 1, EXPIRES_S_MAX, 3600)
        vouches = command.arguments.get("vouch") is not False

        def done(token: Token) -> None:
            host.tell("invitation", f"{token.invitation[:8]} was issued for {uses}, valid for {lasts_s} s")
            responder.end(
                {
                    "token": tokens.write(token),
                    "id": token.invitation,
                    "uses": uses,
                    "expires_at": token.expires_s,
                    "address": token.addresses[0],
                }
            )

        def failed(reason: str) -> None:
            responder.fail(CommandError(ErrorCode.INTERNAL, reason, "see the agent's log"))

        try:
            host.membership.invite(uses, int(host.clock.wall_s()) + lasts_s, done, failed, vouches=vouches)
        except TooManyInvitations as error:
            hint = "'gary invite --list' shows them, and --revoke ends one"
            raise CommandError(ErrorCode.CONFLICT, str(error), hint) from error

    def invitations(self, command: Command) -> None:
        host = self._host
        command.responder.end({"invitations": [self._describe(one) for one in host.invitations]})

    def _describe(self, invitation: Invitation) -> Json:
        state = "open" if invitation.is_open(self._host.clock.wall_s()) else "ended"
        return {
            "id": invitation.id,
            "state": "revoked" if invitation.is_revoked else state,
            "uses": invitation.uses_max,
            "admitted": [self._host.cluster.display_name(node) for node in invitation.admitted],
            "expires_at": invitation.expires_s,
        }

    def revoke(self, command: Command) -> None:
        host, wanted = self._host, command.text("invitation")
        found = [one for one in host.invitations if one.id.startswith(wanted)]
        if len(found) != 1:
            what = "no invitation" if not found else f"more than one invitation ({len(found)})"
            hint = "'gary invite --list' shows those of this node; only the node that issued one knows it"
            raise CommandError(ErrorCode.NOT_FOUND, f"{what} here begins with {wanted!r}", hint)
        [invitation] = found
        self._host.membership.revoke(invitation.id, lambda: command.responder.end({"revoked": invitation.id}))

    # Expulsion

    def expel(self, command: Command) -> None:
        node = self._member(command.text("node"))
        if node == self._host.node:
            message = "a node does not expel itself"
            raise CommandError(ErrorCode.REFUSED, message, "'gary leave' takes it out; or expel it from another node")
        self._has_to_vouch(but_not=node)
        known = self._host.standing.ledger.expulsions.get(node)
        if known:
            command.responder.end({"expelled": node, "name": known[0].name})
            return
        done = {"expelled": node, "name": self._host.cluster.display_name(node)}
        self._host.membership.expel(node, command.operator, lambda: command.responder.end(done))

    def _member(self, wanted: str) -> NodeId:
        """The one member, alive or not, whose name or id that is, or how its id begins."""
        host = self._host
        names = {member.node: host.cluster.display_name(member.node) for member in host.swim.members()}
        names |= {node: said[0].name for node, said in host.standing.ledger.expulsions.items()}
        prefix = wanted if len(wanted) >= ID_LENGTH_MIN else None
        found = sorted(
            node for node, name in names.items() if name == wanted or (prefix is not None and node.startswith(prefix))
        )
        if len(found) == 1:
            return found[0]
        if not found:
            raise CommandError(ErrorCode.NOT_FOUND, f"there is no node {wanted!r}", "'gary nodes' lists what there is")
        ids = ", ".join(found[:NAMED_MAX])
        raise CommandError(ErrorCode.CONFLICT, f"{len(found)} nodes are called {wanted!r}", f"say which id: {ids}")

    # The root

    def rotate(self, command: Command) -> None:
        self._has_to_vouch()
        host, responder, is_urgent = self._host, command.responder, command.says("urgent")
        given = command.arguments.get("overlap_s", OVERLAP_S)
        overlap_s = float(given) if isinstance(given, int | float) else OVERLAP_S
        if overlap_s < OVERLAP_S_MIN and not is_urgent:
            message = f"an overlap of {overlap_s:g} s leaves no time for all nodes to get new certificates"
            raise CommandError(ErrorCode.BAD_REQUEST, message, "say --overlap 1h, or --no-overlap for a stolen key")
        away = [m.node for m in host.swim.members() if not m.status.live and m.node not in host.cluster.left]

        def done() -> None:
            names = [host.cluster.display_name(node) for node in away]
            until_s = max(host.standing.ledger.until_s(), default=0.0)
            responder.end({"root": host.standing.ledger.present.name, "until": int(until_s), "away": names})

        def failed(reason: str) -> None:
            responder.fail(CommandError(ErrorCode.INTERNAL, reason, "see the agent's log"))

        def unkept(reason: str) -> None:
            hint = "nothing has changed: try again when one of them is back, or 'gary expel' those that never will be"
            responder.fail(CommandError(ErrorCode.UNAVAILABLE, reason, hint))

        host.membership.succession.rotate(overlap_s, done, failed, unkept, is_urgent=is_urgent)

    # Operators

    def admit(self, command: Command) -> None:
        self._has_to_vouch()
        key = _key(command)
        self._host.membership.admit(key, lambda: command.responder.end({"admitted": key.hex()}))

    def _has_to_vouch(self, but_not: NodeId = "") -> None:
        """Raises ``CommandError``, ``elsewhere`` if another node can do it; ``but_not`` cannot."""
        host = self._host
        if host.standing.vouches:
            return
        vouchers = [node for node in host.cluster.vouchers() if node != but_not]
        if not vouchers:
            hint = "bring a node back that does: 'gary nodes'"
            raise CommandError(ErrorCode.UNAVAILABLE, "neither this node nor any other vouches for the cluster", hint)
        names = ", ".join([host.cluster.display_name(node) for node in vouchers[:NAMED_MAX]])
        message, hint = "this node does not vouch for the cluster", f"give the command on one that does: {names}"
        if not host.standing.lacks_secret:
            message, hint = (
                f"{message}'s new root yet",
                f"wait some seconds, or give the command on another one: {names}",
            )
        raise CommandError(ErrorCode.ELSEWHERE, message, hint, {"holders": addressees(host, vouchers)})


def _whole(command: Command, key: str, least: int, most: int, default: int) -> int:
    value = command.arguments.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise CommandError(ErrorCode.BAD_REQUEST, f"{key!r} must be a whole number from {least} to {most}")
    return value


def _key(command: Command) -> bytes:
    """The operator's public key that the command gives. Raises ``CommandError``."""
    try:
        return read_key(command.text("key"))
    except BadCredential as error:
        raise CommandError(ErrorCode.BAD_REQUEST, str(error), "'gary key' prints its owner's") from error
