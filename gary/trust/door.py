"""Who stands at the door: guests with an invitation, and members that need a certificate of the present root.

Whoever is let in gets a certificate for its key, what the cluster has said so far, and, if it is to vouch as well, the
root's secret half, sealed to its key. All that it may do here is ask for that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from gary.enrolment import Enrolment
from gary.identity import NodeId
from gary.trust import host
from gary.trust.entry import Admittance, Application, Entry, Rejection
from gary.trust.invitations import Invitations
from gary.trust.keys import seal
from gary.trust.notary import Answer, Certified, Certify
from gary.trust.pacing import Pacing

TOLD_AGAIN_S = 60.0
"""Somebody who comes again and again with the same bad invitation is an event so often."""
ASKED_AGAIN_S = 1.0
"""A member that asks for certificates more often gets no answer."""
DOES_NOT_VOUCH = "the node there does not vouch for the cluster's present root"

Reply = Callable[[Entry], None]


class Host(host.Host, Protocol):
    """The node behind the door."""

    enrolment: Enrolment
    invitations: Invitations

    def display_name(self, node: NodeId) -> str: ...


class Door:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._told = Pacing(TOLD_AGAIN_S)
        self._asked = Pacing(ASKED_AGAIN_S)
        self._members_before: Collection[NodeId] | None = None

    def close_to_strangers(self, members: Collection[NodeId]) -> None:
        """A root's secret is out: certificates of the next one are for who was a member before that was known."""
        self._members_before = frozenset(members)

    def knocked(self, id: str, application: Application, reply: Reply) -> None:
        """Somebody who holds the invitation ``id`` wants in."""
        host = self._host
        invitation = host.invitations.get(id)
        if invitation is None:
            host.counters["guests_rejected"] += 1
            reply(Rejection("the node there does not know the invitation; only the one that issued it does"))
            return
        reason = invitation.why_not(application.node, host.clock.wall_s()) or self._why_not(application)
        if reason:
            host.counters["guests_rejected"] += 1
            if self._told.allows((id, application.node, reason), host.clock.now):
                host.tell("invitation", f"{application.name or application.node[:8]} was not let in: {reason}")
            reply(Rejection(reason))
            return
        is_first = application.node not in invitation.admitted

        def admit(at: float) -> None:
            reason = self._why_not(application)
            if reason:  # Since it asked there may be another root, or word that it was expelled.
                reply(Rejection(reason))
                return
            self._certify(application, reply, gives_secret=application.vouches and invitation.vouches)
            if is_first:
                left = invitation.uses_max - len(invitation.admitted) - 1
                host.tell("invitation", f"{application.name or application.node[:8]} was let in; {left} more may come")

        host.persist(host.invitations.admit(invitation.id, application.node), admit)

    def asked(self, member: NodeId, application: Application, reply: Reply) -> None:
        """A member asks for a certificate of the present root."""
        if not self._asked.allows(member, self._host.clock.now):
            self._host.counters["members_too_eager"] += 1
            return
        if not self._host.standing.vouches:
            self._host.counters["members_sent_on"] += 1
            reply(Rejection(DOES_NOT_VOUCH, others_may=True))
            return
        is_stranger = self._members_before is not None and member not in self._members_before
        reason = "the applicant is another node" if application.node != member else self._why_not(application)
        if is_stranger:
            reason = "the root's secret was stolen, and this node was not a member before that was known"
        if reason:
            self._host.counters["members_rejected"] += 1
            self._host.tell("trust", f"{self._host.display_name(member)} got no certificate: {reason}")
            reply(Rejection(reason))
            return
        had_vouched = application.has_vouched(self._host.standing.ledger.handing_down())
        self._certify(application, reply, gives_secret=application.vouches and had_vouched)

    def _why_not(self, application: Application) -> str:
        host = self._host
        if not application.is_genuine:
            return "the applicant does not own the key that it names"
        if application.node in host.standing.ledger.expulsions:
            return "the node was expelled"
        if not host.standing.vouches:
            return DOES_NOT_VOUCH
        return ""

    def _certify(self, application: Application, reply: Reply, *, gives_secret: bool) -> None:
        host, root = self._host, self._host.standing.ledger.present
        secret = host.standing.secret(root.public)
        assert secret is not None

        def certified(answer: Answer) -> None:
            assert isinstance(answer, Certified)
            standing = host.standing
            sealed = seal(application.public, secret.encode(), host.random_bytes) if gives_secret else b""
            admittance = Admittance(
                standing.ledger.cluster,
                host.enrolment.secret,
                standing.ledger.founding,
                tuple(standing.ledger.raws),
                root.public,
                standing.chain(root.public, answer.certificate),
                sealed,
            )
            reply(admittance)

        def failed(reason: str) -> None:
            host.tell("trust", reason)
            reply(Rejection("the node there cannot make certificates: see its log"))

        host.consult(
            Certify(root.certificate, secret.tls_key, application.tls_public, application.node), certified, failed
        )
