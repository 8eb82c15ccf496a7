"""Keeping up with the cluster's roots: a certificate of the present one, and what peers are shown at any time.

When a root has been named in place of another, each node that vouched asks for its secret half and certifies itself,
and every other node asks one that vouches. Until it has got one it shows the old certificate, which is trusted for the
time of the overlap. What it showed changes when the certificate does, and when an old root's time is over.

Nobody says who has the new secret already: thousands of nodes would have to say so at once, and hear it of all others.
Who asks one that has not asks another, so the secret spreads by pulling (anti-entropy; Demers and others, 1987, 1.3):
the number of nodes that have it doubles with every round.
"""

from __future__ import annotations

from typing import Protocol

from gary.advertising import Settings
from gary.assignment import Epochs
from gary.cluster import Cluster
from gary.identity import NodeId
from gary.messages import Entry as EntryMessage
from gary.messages import Message
from gary.trust import host
from gary.trust.entry import Admittance, Rejection, apply, encode
from gary.trust.notary import Answer, Certified, Certify, Examine, Keys, MakeKeys
from gary.trust.standing import Tls
from gary.trust.statements import BadStatement
from gossip.transport import Credentials

RETRY_S = 2.0
ASK_NEXT_S = 0.5
ASK_NEXT_GROWTH = 1.1
ASK_NEXT_MAX_S = 30.0
"""After so much time another node is asked; longer each time, for it may be that nobody alive has the secret."""
FAILED_RETRY_S = 60.0
SPREAD_S = 0.05
"""Renewals of a cluster are spread over so much time a node, since every one makes all its connections anew."""
SPREAD_MAX_S = 60.0
SPREAD_URGENT_MAX_S = 2.0
LOOK_S = 3600.0
NO_NUMBER = bytes(31) + b"\1"
"""For keys of which no guest's is needed."""


class Host(host.Host, Protocol):
    """The node whose certificate it is."""

    settings: Settings
    cluster: Cluster

    @property
    def alive(self) -> Epochs: ...

    def send(self, node: NodeId, message: Message) -> None: ...

    def renew(self, credentials: Credentials) -> None:
        """Show these from now on."""

    def standing_changed(self) -> None:
        """Others see of this node whether it vouches."""


class Renewal:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._shown: Credentials | None = None
        self._deadline = 0
        self._keys: Keys | None = None
        self._is_asking = False
        self._asked: NodeId = ""
        self._ask_next_s = ASK_NEXT_S

    def start(self) -> None:
        """The transport was started with what the standing said."""
        self._shown = self._host.standing.credentials(self._host.clock.wall_s())
        self._look_again(0.0)

    def shown(self, credentials: Credentials) -> None:
        """They were shown for another reason. Who gave them may not have heard of the present root yet."""
        self._shown = credentials
        self._look_again(0.0)

    def roots_changed(self, *, is_urgent: bool) -> None:
        """There is another present root."""
        self._ask_next_s = ASK_NEXT_S
        spread_s = min(SPREAD_URGENT_MAX_S if is_urgent else SPREAD_MAX_S, SPREAD_S * len(self._host.alive))
        self._look_again(self._host.rng.uniform(0.0, spread_s))

    def _look_again(self, delay_s: float) -> None:
        self._host.clock.forget(self._deadline)
        self._deadline = self._host.clock.after(delay_s, lambda now: self._look())

    def _look(self) -> None:
        """Show what is to be shown, and get what is missing."""
        host, standing = self._host, self._host.standing
        wall_s = host.clock.wall_s()
        credentials = standing.credentials(wall_s)
        if credentials != self._shown:
            self._shown = credentials
            host.renew(credentials)
        due = [until_s - wall_s for until_s in standing.ledger.until_s() if until_s > wall_s]
        is_missing = not standing.is_certified or self._lacks_secret
        self._look_again(RETRY_S if is_missing else min([LOOK_S, *(delay_s + 0.1 for delay_s in due)]))
        if is_missing:
            self._get()

    @property
    def _lacks_secret(self) -> bool:
        standing = self._host.standing
        return self._host.settings.vouches and not standing.vouches and standing.former_secret is not None

    def _get(self) -> None:
        """A certificate of the present root: from this node itself if it can, else from one that vouches."""
        host = self._host
        if self._keys is None:
            if not self._is_asking:
                self._is_asking = True
                host.consult(MakeKeys(NO_NUMBER), self._made, self._failed)
            return
        root, secret = host.standing.ledger.present, host.standing.present_secret
        if secret is not None:
            certify = Certify(root.certificate, secret.tls_key, self._keys.tls_public, host.node)
            host.consult(certify, lambda answer: self._certified(root.public, answer), self._failed)
            return
        vouchers = host.cluster.vouchers()
        if vouchers:
            former, vouches = host.standing.former_secret, host.settings.vouches
            application = apply(
                host.key,
                self._keys.tls_public,
                host.settings.name,
                vouches=vouches,
                vouched=None if former is None else former.key,
            )
            self._asked = host.rng.choice(vouchers)
            host.send(self._asked, EntryMessage(encode(application)))

    def _made(self, answer: Answer) -> None:
        assert isinstance(answer, Keys)
        self._is_asking, self._keys = False, answer
        self._look_again(0.0)

    def _failed(self, reason: str) -> None:
        self._is_asking = False
        self._host.tell("trust", reason)
        self._look_again(FAILED_RETRY_S)

    def _certified(self, root: bytes, answer: Answer) -> None:
        assert isinstance(answer, Certified)
        host, keys = self._host, self._keys
        if keys is None or root != host.standing.ledger.present.public:
            return
        self._keys = None
        chain, made_s = host.standing.chain(root, answer.certificate), int(host.clock.wall_s())
        tls = Tls(keys.tls_key, chain, root, made_s)
        host.persist([host.standing.certified(tls)], lambda at: self._look_again(0.0))

    def answered(self, sender: NodeId, entry: Admittance | Rejection) -> None:
        """A member answers an application of this node's; what it gives is looked at before it is used."""
        host, keys, ledger = self._host, self._keys, self._host.standing.ledger
        if sender != self._asked or keys is None:
            host.counters["admittances_unexpected"] += 1
            return
        self._asked = ""
        if isinstance(entry, Rejection) and entry.others_may:
            self._look_again(self._ask_next_s * host.rng.uniform(0.75, 1.25))
            self._ask_next_s = min(self._ask_next_s * ASK_NEXT_GROWTH, ASK_NEXT_MAX_S)
            return
        if isinstance(entry, Rejection):
            host.tell("trust", f"{host.cluster.display_name(sender)} gave no certificate: {entry.reason}")
            return
        if (entry.cluster, entry.founding, entry.issuer) != (ledger.cluster, ledger.founding, ledger.present.public):
            host.counters["admittances_unexpected"] += 1
            return
        examine = Examine(ledger.present.certificate, entry.certificate, keys.tls_public, host.node)
        host.consult(examine, lambda answer: self._examined(keys, entry), self._failed)

    def _examined(self, keys: Keys, entry: Admittance) -> None:
        host = self._host
        try:
            writes = host.standing.renewed(keys.tls_key, entry, host.clock.wall_s())
        except BadStatement as error:
            host.tell("trust", f"a certificate cannot be used: {error}")
            return
        self._keys = None

        def durable(at: float) -> None:
            self._look_again(0.0)
            host.standing_changed()

        host.persist(writes, durable)
