"""Putting a new root in the place of the present one: made here, kept by others as well, and named only then.

A root that is named counts everywhere within a second, whatever becomes of who named it. With its secret half on one
disk alone, the loss of that disk would leave a cluster for which nobody vouches. So other nodes that vouch are given it
first, and it is named when one of them has it on its disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gary.advertising import Settings
from gary.cluster import Cluster
from gary.identity import NodeId
from gary.messages import Entrust, Entrusted, LedgerStatements, Message
from gary.trust import host
from gary.trust.keys import BadSeal, seal
from gary.trust.notary import Answer, Succeed, Succeeded
from gary.trust.standing import RootSecret
from gary.trust.statements import BadStatement, Root, Rotation, Signed, read, root_name, sign

URGENT_OVERLAP_S = 30.0
"""As long as it takes to help over everybody who is there."""
KEEPERS = 3
"""So many are asked to keep it; the first that does is enough."""
KEPT_WITHIN_S = 5.0
NAMED_MAX = 5

Done = Callable[[], None]
Failed = Callable[[str], None]


class Host(host.Host, Protocol):
    """The node that vouches."""

    settings: Settings
    cluster: Cluster

    def send(self, node: NodeId, message: Message) -> None: ...


class Succession:
    """``say(signed, done)``: state it in the name of the cluster."""

    def __init__(self, host: Host, say: Callable[[Signed, Done], None]) -> None:
        self._host = host
        self._say = say
        self._unkept: dict[bytes, tuple[frozenset[NodeId], Done]] = {}

    def rotate(self, overlap_s: float, done: Done, failed: Failed, unkept: Failed, *, is_urgent: bool) -> None:
        """Name a new root; the present one is trusted for ``overlap_s`` more.

        ``unkept`` is called, and nothing has changed, if nobody else keeps its secret; unless this is the only node
        that vouches, or it is urgent.
        """
        host, ledger = self._host, self._host.standing.ledger
        old, secret = ledger.present, host.standing.present_secret
        assert secret is not None
        seed = host.random_bytes(32)
        new = RootSecret(seed, "").key

        def made(answer: Answer) -> None:
            assert isinstance(answer, Succeeded)
            root = Root(new.public, answer.root_certificate)
            until_s = int(host.clock.wall_s() + (URGENT_OVERLAP_S if is_urgent else overlap_s))
            rotation = Rotation(root, answer.cross_certificate, until_s, is_urgent)
            signed = sign(rotation, secret.key, ledger.cluster)
            kept = RootSecret(seed, answer.root_key)
            host.persist(
                host.standing.keep_secret(new.public, kept),
                lambda at: self._entrust(old.public, signed, kept, done, unkept, is_urgent=is_urgent),
            )

        host.consult(Succeed(old.certificate, secret.tls_key, root_name(new.public)), made, failed)

    def _entrust(
        self, old: bytes, signed: Signed, secret: RootSecret, done: Done, unkept: Failed, *, is_urgent: bool
    ) -> None:
        host, public = self._host, secret.key.public
        keepers = host.cluster.vouchers()
        away = [host.cluster.display_name(node) for node in host.cluster.vouchers_away()]
        if not keepers and (is_urgent or not away):
            self._say(signed, done)
            return
        asked = host.rng.sample(keepers, min(KEEPERS, len(keepers)))

        def named() -> None:
            # News is told within a moment. If this node ends before that, those who keep the secret know what it is of.
            for node in asked:
                host.send(node, LedgerStatements((signed.raw,)))
            done()

        def name() -> None:
            if host.standing.ledger.knows(old):
                self._say(signed, named)
            else:
                unkept("this node went into another cluster meanwhile")

        for node in asked:
            profile = host.cluster.profile(node)
            assert profile is not None, "it has said that it vouches"
            host.send(node, Entrust(signed.raw, seal(profile.key, secret.encode(), host.random_bytes)))
        self._unkept[public] = frozenset(asked), name

        def waited(now: float) -> None:
            if self._unkept.pop(public, None) is None:
                return
            if is_urgent:
                name()
                return
            names = sorted([*map(host.cluster.display_name, asked), *away])
            unkept(f"none of {', '.join(names[:NAMED_MAX])} could be reached to keep the new root's secret as well")

        host.clock.after(KEPT_WITHIN_S if asked else 0.0, waited)

    def entrusted(self, sender: NodeId, asked: Entrust) -> None:
        """``sender`` is about to name a root: keep its secret, so that it cannot be lost with one disk."""
        host, standing = self._host, self._host.standing
        try:
            signed = read(asked.rotation, standing.ledger.cluster)
            secret = RootSecret.decode(host.key.open(asked.secret))
        except (BadStatement, BadSeal, ValueError):
            host.counters["entrusted_malformed"] += 1
            return
        public = secret.key.public
        is_fit = isinstance(signed.statement, Rotation) and signed.statement.root.public == public
        may_keep_it = host.settings.vouches and not standing.lacks_secret
        if not (is_fit and may_keep_it and standing.ledger.knows(signed.signer)):
            host.counters["entrusted_refused"] += 1
            return
        host.persist(standing.keep_secret(public, secret), lambda at: host.send(sender, Entrusted(public)))

    def kept(self, sender: NodeId, answer: Entrusted) -> None:
        """``sender`` keeps the secret of that root: if it was asked to, the root can be named."""
        asked, name = self._unkept.get(answer.root, (frozenset(), None))
        if name is not None and sender in asked:
            del self._unkept[answer.root]
            name()
