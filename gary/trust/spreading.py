"""How what the cluster has said comes to everybody: as news of membership, and by comparing when somebody was away.

A statement spreads by the same piggyback as membership does, passed on once by each to whom it is new. Each node
advertises the digest of its ledger; who sees another digest than its own compares with one such node, which brings home
whatever either side of a partition has said. Nothing is sent while all digests are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gary.assignment import Epochs
from gary.cluster import Cluster
from gary.identity import NodeId
from gary.messages import CompareLedger, LedgerStatements, Message
from gary.trust import host
from gary.trust.pacing import Pacing
from gary.trust.statements import BadStatement, Signed, Statement

COMPARE_AFTER_S = 0.2
COMPARE_AGAIN_S = 2.0
ANSWER_AGAIN_S = 1.0
"""A question is small, and its answer may be large."""
STATEMENTS_PER_MESSAGE = 256


class Host(host.Host, Protocol):
    """The node that hears and says it."""

    cluster: Cluster

    @property
    def alive(self) -> Epochs: ...

    def send(self, node: NodeId, message: Message) -> None: ...

    def broadcast(self, key: str, body: bytes) -> None:
        """Let everybody in the cluster hear it."""

    def standing_changed(self) -> None:
        """Others see the digest of the ledger."""


class Spreading:
    """``took(signed)`` is called with every statement that is new here, once it is durable."""

    def __init__(self, host: Host, took: Callable[[Signed], None]) -> None:
        self._host = host
        self._took = took
        self._deadline = 0
        self._answered = Pacing(ANSWER_AGAIN_S)

    def state(self, statement: Statement, done: Callable[[], None]) -> None:
        """Say it in the name of the cluster's root; ``done`` once it is durable here and on its way."""
        self._keep(self._host.standing.sign(statement), done)

    def heard(self, raw: bytes) -> None:
        """A statement came from somebody. One that is known already, or is none, goes no further."""
        try:
            signed = self._host.standing.news(raw)
        except BadStatement:
            self._host.counters["statements_refused"] += 1
            return
        if signed is not None:
            self._keep(signed, lambda: None)

    def _keep(self, signed: Signed, done: Callable[[], None]) -> None:
        """Nothing follows from it, and it is in no answer and no digest, before it is on the disk (rule 3)."""
        host, standing = self._host, self._host.standing
        cluster = standing.ledger.cluster

        def durable(at: float) -> None:
            if standing.take(signed, cluster):
                host.broadcast(signed.id.hex(), signed.raw)
                self._took(signed)
                host.standing_changed()
            done()
            for raw in standing.ledger.ready():
                self.heard(raw)

        host.persist([standing.write_down(signed)], durable)

    # Comparing

    def differs(self, node: NodeId) -> None:
        """``node`` is back, or advertises something: if its ledger is another one, compare soon with it or its like."""
        if not self._deadline and self._other_digest(node):
            delay_s = COMPARE_AFTER_S * self._host.rng.uniform(0.5, 1.5)
            self._deadline = self._host.clock.after(delay_s, lambda now: self._compare())

    def _other_digest(self, node: NodeId) -> bool:
        profile = self._host.cluster.profile(node)
        return profile is not None and profile.ledger != self._host.standing.ledger.digest

    def _compare(self) -> None:
        host = self._host
        self._deadline = 0
        others = [node for node in sorted(host.alive) if node != host.node and self._other_digest(node)]
        if others:
            host.send(host.rng.choice(others), CompareLedger(host.standing.ledger.ids, is_answer=False))
            self._deadline = host.clock.after(
                COMPARE_AGAIN_S * host.rng.uniform(0.75, 1.25), lambda now: self._compare()
            )

    def compared(self, sender: NodeId, asked: CompareLedger) -> None:
        """``sender`` says which statements it has: it gets the others, and is asked for those that are missing here."""
        host, ledger = self._host, self._host.standing.ledger
        if not self._answered.allows(sender, host.clock.now):
            host.counters["ledgers_compared_too_often"] += 1
            return
        lacking = ledger.without(asked.ids)
        for start in range(0, len(lacking), STATEMENTS_PER_MESSAGE):
            host.send(sender, LedgerStatements(tuple(lacking[start : start + STATEMENTS_PER_MESSAGE])))
        if not asked.is_answer and set(asked.ids) - set(ledger.ids):
            host.send(sender, CompareLedger(ledger.ids, is_answer=True))

    def told(self, statements: LedgerStatements) -> None:
        for raw in statements.statements:
            self.heard(raw)
