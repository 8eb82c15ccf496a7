"""What has to be true, told by observers that share no code with what they judge.

Some watch everything that agents ask for and write, at all times; others judge a cluster that was healed and left alone
for a while. They speak in sentences; no sentence means that all is well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from simulations.checkers.absence import Absence
from simulations.checkers.acknowledged import Acknowledged
from simulations.checkers.answering import Answering
from simulations.checkers.base import Checker
from simulations.checkers.books import Books
from simulations.checkers.bounds import Bounds
from simulations.checkers.decisions import Decisions
from simulations.checkers.durability import Durability
from simulations.checkers.membership import Membership, Trust
from simulations.checkers.rollout import Rollout
from simulations.checkers.scope import Scope
from simulations.checkers.steadiness import Quiet, Steadiness
from simulations.checkers.wholeness import Agreement, Members, Promises, Wholeness
from simulations.checkers.writers import Writers
from simulations.cluster import Cluster
from simulations.orders import Orders
from simulations.result import Check, Finding


@dataclass(frozen=True, slots=True)
class Checkers:
    """All of them for one run."""

    safety: tuple[Checker, ...]
    healed: tuple[Checker, ...]
    steadiness: Steadiness
    answering: Answering

    @property
    def all(self) -> tuple[Checker, ...]:
        return (*self.safety, *self.healed, self.steadiness, self.answering)

    @property
    def findings(self) -> list[Finding]:
        """What they have found, in the order of time."""
        return sorted((f for checker in self.all for f in checker.findings), key=lambda f: (f.at_s, f.check, f.said))

    def checks(self) -> list[Check]:
        return [Check(checker.name, checker.about, checker.count) for checker in self.all]


def safety(books: Books, canaries: Iterable[bytes]) -> tuple[Checker, ...]:
    """Those that watch at all times, after ``books``. ``canaries``: bytes of documents."""
    return (
        Writers(),
        Scope(books, canaries),
        Durability(books),
        Absence(books),
        Decisions(),
        Rollout(books),
        Bounds(),
    )


def healed(acknowledged: Acknowledged, books: Books | None = None) -> tuple[Checker, ...]:
    """Those that judge a cluster that was left alone for a while. Without ``books`` nothing is excused."""
    return (Membership(), Trust(), Agreement(), Wholeness(books), Promises(), Members(), acknowledged, Quiet())


def liveness(cluster: Cluster) -> list[str]:
    """What is wrong with a cluster that has had time to recover, whatever was ordered."""
    return [said for checker in healed(Acknowledged(Orders(cluster))) for said in checker.judge(cluster)]
