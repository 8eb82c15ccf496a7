"""How what the cluster has said comes to everybody: as news of membership, and by comparing when somebody was away.

A statement spreads by the same piggyback as membership does, passed on once by each to whom it is new. Every ping and
ack shows the digest of its sender's ledger; who sees another digest than its own compares with that node, which brings
home whatever either side of a partition has said. Nothing more is sent while all digests are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gary.identity import NodeId
from gary.messages import CompareLedger, LedgerStatements, Message
from gary.trust import host
from gary.trust.pacing import Pacing
from gary.trust.statements import BadStatement, Signed, Statement

SETTLED_S = 2.0
"""So long after the latest statement came, it may still be on its way to others: that they lack it says nothing."""
COMPARE_AGAIN_S = 2.0
ANSWER_AGAIN_S = 1.0
"""A question is small, and its answer may be large."""
STATEMENTS_PER_MESSAGE = 256


class Host(host.Host, Protocol):
    """The node that hears and says it."""

    def send(self, node: NodeId, message: Message) -> None: ...

    def broadcast(self, key: str, body: bytes) -> None:
        """Let everybody in the cluster hear it."""

    def standing_changed(self) -> None:
        """Others see whether this node vouches."""


class Spreading:
    """``took(signed)`` is called with every statement that is new here, once it is durable."""

    def __init__(self, host: Host, took: Callable[[Signed], None]) -> None:
        self._host = host
        self._took = took
        self._compare_at = 0.0
        self._answered = Pacing(ANSWER_AGAIN_S)

    def state(self, statement: Statement, done: Callable[[], None]) -> None:
        """Say it in the name of the cluster's root."""
        self.say(self._host.standing.sign(statement), done)

    def heard(self, raw: bytes) -> None:
        """A statement came from somebody. One that is known already, or is none, goes no further."""
        try:
            signed = self._host.standing.news(raw)
        except BadStatement:
            self._host.counters["statements_refused"] += 1
            return
        if signed is not None:
            self.say(signed, lambda: None)

    def say(self, signed: Signed, done: Callable[[], None]) -> None:
        """Pass on what a root has signed; ``done`` once it is durable here and on its way.

        Nothing follows from it, and it is in no answer and no digest, before it is on the disk (rule 3).
        """
        host, standing = self._host, self._host.standing
        cluster = standing.ledger.cluster

        def durable(at: float) -> None:
            if standing.take(signed, cluster):
                self._compare_at = max(self._compare_at, host.clock.now + SETTLED_S)
                host.broadcast(signed.id.hex(), signed.raw)
                self._took(signed)
                host.standing_changed()
            done()
            for raw in standing.ledger.ready():
                self.heard(raw)

        host.persist([standing.write_down(signed)], durable)

    # Comparing

    def differs(self, node: NodeId) -> None:
        """The ledger of ``node`` is another one, as it shows with each ping and ack: compare, but now and then."""
        host = self._host
        if host.clock.now >= self._compare_at and not host.standing.is_moving:
            self._compare_at = host.clock.now + COMPARE_AGAIN_S * host.rng.uniform(0.75, 1.25)
            host.send(node, CompareLedger(host.standing.ledger.ids, is_answer=False))

    def compared(self, sender: NodeId, asked: CompareLedger) -> None:
        """``sender`` says which statements it has: it gets the others, and is asked for those that are missing here."""
        host, ledger = self._host, self._host.standing.ledger
        if host.standing.is_moving:
            return
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
