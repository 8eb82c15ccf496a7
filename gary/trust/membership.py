"""This node's part in who belongs to the cluster: inviting, letting in, going in, expelling, changing the root.

It holds the parts together and says what follows from a statement. ``gary.node.Node`` is what it acts through.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from gary.identity import NodeId
from gary.messages import CompareLedger, Entrust, Entrusted, LedgerStatements
from gary.messages import Entry as EntryMessage
from gary.storage import PutRecord, Table
from gary.trust import door, entering, renewal, spreading, succession
from gary.trust.door import Door
from gary.trust.entering import Entering
from gary.trust.entry import Admittance, Application, BadEntry, Entry, addressee, decode, decode_answer, encode_answer
from gary.trust.invitations import Invitation
from gary.trust.notary import Answer, CertifyGuest, GuestCertified
from gary.trust.pacing import Pacing
from gary.trust.renewal import Renewal
from gary.trust.spreading import Spreading
from gary.trust.statements import Admission, Expulsion, Rotation, Signed
from gary.trust.succession import Succession
from gary.trust.tokens import Token
from gossip.transport import GUEST, NOT_TRUSTED, Credentials, Peer

FAREWELL_S = 0.5
"""How long an expelled node's connections stay, so that it can hear that it is expelled. Nobody hears it meanwhile."""
INVITATION_ID_SIZE_BYTES = 16
TELL_AGAIN_S = 600.0
REFUSED_S = 60.0
"""For so long a peer's refusal counts: it is tried again more often."""
REINVITE = "An invitation helps: 'gary invite' on one of them, then 'gary join --token' here."

Done = Callable[[], None]
Failed = Callable[[str], None]


class Host(door.Host, entering.Host, renewal.Host, spreading.Host, succession.Host, Protocol):
    """The node that is one of the cluster's."""

    @property
    def address(self) -> str:
        """Where peers reach it."""

    @property
    def is_isolated(self) -> bool: ...

    def show(self, credentials: Credentials, shown: Callable[[str], None]) -> None:
        """Have the transport show them; ``shown`` is called with what went wrong, or with nothing."""

    def cast_out(self, node: NodeId) -> None:
        """Have nothing to do with it any more, in membership and deployments."""

    def cut(self, node: NodeId) -> None:
        """Close its connections for ever."""

    def known_members(self) -> Collection[NodeId]:
        """All that membership knows, in whatever state."""


class Membership:
    def __init__(self, host: Host) -> None:
        self._host = host
        self.door = Door(host)
        self.entering = Entering(host)
        self.renewal = Renewal(host)
        self.spreading = Spreading(host, self._took)
        self.succession = Succession(host, self.spreading.say)
        self._told = Pacing(TELL_AGAIN_S)
        self._refused_at = float("-inf")

    def start(self) -> None:
        for node in self._host.standing.ledger.expulsions:
            self._host.cut(node)
        self.renewal.start()

    # What comes in

    def guest(self, guest: str, frame: bytes, reply: Callable[[bytes], None]) -> None:
        """Somebody who has an invitation, and is no node yet, says something."""
        application = self._application(frame)
        if application is not None:
            invitation = guest.removeprefix(GUEST).partition(":")[0]
            self.door.knocked(invitation, application, self._sealed(application, reply))

    def heard(
        self, sender: NodeId, message: EntryMessage | CompareLedger | LedgerStatements | Entrust | Entrusted
    ) -> None:
        match message:
            case EntryMessage(body):
                self._entry(sender, body)
            case CompareLedger():
                self.spreading.compared(sender, message)
            case LedgerStatements():
                self.spreading.told(message)
            case Entrust():
                self.succession.entrusted(sender, message)
            case Entrusted():
                self.succession.kept(sender, message)

    def _entry(self, sender: NodeId, body: bytes) -> None:
        """A member's application, or its answer to one of this node's."""
        if body.startswith(addressee(self._host.node)):
            self._answered(sender, body)
            return
        application = self._application(body)
        if application is not None:
            reply = self._sealed(application, lambda answer: self._host.send(sender, EntryMessage(answer)))
            self.door.asked(sender, application, reply)

    def _answered(self, sender: NodeId, body: bytes) -> None:
        try:
            answer = decode_answer(body, self._host.key)
        except BadEntry:
            self._host.counters["entries_malformed"] += 1
            return
        if not isinstance(answer, Application):
            self.renewal.answered(sender, answer)

    def _application(self, frame: bytes) -> Application | None:
        try:
            entry = decode(frame)
        except BadEntry:
            entry = None
        if isinstance(entry, Application):
            return entry
        self._host.counters["entries_malformed"] += 1
        return None

    def _sealed(self, application: Application, reply: Callable[[bytes], None]) -> Callable[[Entry], None]:
        """Answers that only the applicant can read, whoever else hears them."""
        return lambda answer: reply(encode_answer(answer, application.public, self._host.random_bytes))

    def refused(self, address: str, reason: str) -> None:
        """Nobody was reached there. If it was a peer, certificates are why, and it is all alone, it was left behind."""
        host = self._host
        if not (reason.startswith(NOT_TRUSTED) and address in host.enrolment.addresses and host.is_isolated):
            return
        self._refused_at = host.clock.now
        if self._told.allows("refused", host.clock.now):
            words = "the peers of this node refuse its certificate: was the cluster's root changed while it was away?"
            host.tell("trust", f"{words} {REINVITE}")

    @property
    def is_left_behind(self) -> bool:
        """All alone, because peers refuse this node's certificate."""
        host = self._host
        return host.is_isolated and host.clock.now < self._refused_at + REFUSED_S

    # What this node's operator wants; it has to vouch

    def invite(
        self, uses_max: int, expires_s: int, done: Callable[[Token], None], failed: Failed, *, vouches: bool
    ) -> None:
        """Issue an invitation. Raises ``TooManyInvitations``."""
        host = self._host
        root, secret = host.standing.ledger.present, host.standing.present_secret
        assert secret is not None
        id = host.random_bytes(INVITATION_ID_SIZE_BYTES).hex()
        writes = host.invitations.issue(Invitation(id, uses_max, expires_s, vouches), host.clock.wall_s())

        def certified(answer: Answer) -> None:
            assert isinstance(answer, GuestCertified)
            certificate = host.standing.chain(root.public, answer.certificate)
            cluster = host.standing.ledger.cluster
            token = Token(
                cluster, host.node, (host.address,), id, expires_s, root.certificate, certificate, answer.number
            )
            host.persist(writes, lambda at: done(token))

        host.consult(CertifyGuest(root.certificate, secret.tls_key, GUEST + id), certified, failed)

    def expel(self, node: NodeId, operator: bytes, done: Done) -> None:
        host = self._host
        name = host.cluster.display_name(node)
        self.spreading.state(Expulsion(node, name, host.node, operator, int(host.clock.wall_s())), done)

    def admit(self, operator: bytes, done: Done) -> None:
        """Let whoever owns that key command the cluster through any node."""
        host = self._host
        self.spreading.state(Admission(operator, host.node, int(host.clock.wall_s())), done)

    def revoke(self, invitation: str, done: Done) -> None:
        self._host.persist(self._host.invitations.revoke(invitation), lambda at: done())

    # Another cluster, or this one anew

    def take_over(self, issuer: Peer, tls_key: str, admittance: Admittance, entered: Done, refused: Failed) -> None:
        """Be a node of the cluster that ``issuer`` let this one into. Raises ``BadStatement``."""
        host = self._host
        is_another = admittance.cluster != host.standing.ledger.cluster
        writes = host.standing.admitted(tls_key, admittance, host.clock.wall_s())
        writes += host.invitations.forget_all() if is_another else []
        writes += host.enrolment.joined(admittance.cluster, admittance.secret)
        writes.append(PutRecord(Table.PEER, issuer.node, issuer.address.encode()))

        def shown(reason: str) -> None:
            if reason:
                refused(reason)
            else:
                host.standing_changed()
                entered()

        def durable(at: float) -> None:
            host.standing.arrived()
            for node in host.standing.ledger.expulsions:
                host.cast_out(node)
                host.cut(node)
            credentials = host.standing.credentials(host.clock.wall_s())
            self.renewal.shown(credentials)
            host.show(credentials, shown)

        host.persist(writes, durable)

    # What follows from a statement

    def _took(self, signed: Signed) -> None:
        match signed.statement:
            case Expulsion() as expulsion:
                self._expelled(signed, expulsion)
            case Rotation(is_urgent=is_urgent):
                if is_urgent:
                    self.door.close_to_strangers(self._host.known_members())
                self._host.tell("trust", "the cluster's root was changed")
                self.renewal.roots_changed(is_urgent=is_urgent)
            case Admission(operator):
                self._host.tell("trust", f"the operator {operator.hex()[:8]} may command the cluster")

    def _expelled(self, signed: Signed, expulsion: Expulsion) -> None:
        host, ledger = self._host, self._host.standing.ledger
        node, by = expulsion.node, host.cluster.display_name(expulsion.by)
        is_first = len(ledger.expulsions[node]) == 1
        if node == host.node:
            words = f"{by} expelled this node: it starts nothing any more; 'gary leave' makes it a cluster of its own"
            host.tell("expelled", words)
            return
        for opponent in ledger.opponents(node):
            names = f"{host.cluster.display_name(opponent)} and {expulsion.name}"
            host.tell("expelled", f"{names} have expelled each other: both are out")
        if not is_first:
            return
        host.tell("expelled", f"{expulsion.name} was expelled by {by}")
        host.send(node, LedgerStatements((signed.raw,)))
        host.cast_out(node)
        host.clock.after(FAREWELL_S, lambda now: host.cut(node))
