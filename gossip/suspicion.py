"""How long a suspect has to speak up.

A suspicion starts at the longest time and shortens with every further member that says, from own experience, that it
gets no answer either (Lifeguard, Dadgar, Phillips and Currey 2018, section IV-B):

    timeout = max(Min, Max - (Max - Min) x ln(C + 1) / ln(K + 1))

K is the number of confirmations that bring it down to Min. Nobody waits for confirmations that cannot come: only
members that are themselves alive and unsuspected can confirm, so K shrinks when most of a cluster vanishes at once.

Nor does anybody take a death, or a leave, from others on trust: it only says that the wait may be as short as can be.
So whoever answers has had the time to object, at every node, before that node holds it dead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from gossip.config import SwimConfig
from gossip.member import Status


def suspicion_timeout_s(confirmations: int, wanted: int, min_s: float, max_s: float) -> float:
    """Lifeguard's timeout after ``confirmations`` (C) of the ``wanted`` (K) ones."""
    if wanted <= 0:
        return min_s
    share = math.log(confirmations + 1) / math.log(wanted + 1)
    return max(min_s, max_s - (max_s - min_s) * share)


@dataclass(frozen=True, slots=True)
class Evidence:
    """On what a member is held suspect or dead, for decisions that cost more than a view does (Rapid: Suresh and
    others 2018, section 4: several observers must agree before anything is changed).

    ``observers``: members, perhaps this one among them, that are known to have got no answer from it, or to hold it
    dead; at most as many as can make a difference. ``since``: from when on this node has suspected it.
    """

    observers: tuple[str, ...]
    since: float


@dataclass(slots=True)
class Suspicion:
    """One running suspicion: since when, how it ends, whether others hold it ended, and who accuses."""

    started: float
    outcome: Status = Status.DEAD
    is_over_elsewhere: bool = False
    accusers: dict[str, None] = field(default_factory=dict)


class Suspicions:
    """All suspicions that run at this node."""

    def __init__(self, config: SwimConfig) -> None:
        self._config = config
        self._running: dict[str, Suspicion] = {}

    def nodes(self) -> tuple[str, ...]:
        """The suspects, longest suspected first."""
        return tuple(self._running)

    def is_suspect(self, node: str) -> bool:
        """Whether a suspicion of ``node`` runs."""
        return node in self._running

    def start(self, node: str, accusers: tuple[str, ...], now: float) -> None:
        """Suspect ``node``; an earlier suspicion, of an older incarnation, ends."""
        self._running[node] = Suspicion(now)
        self.accuse(node, accusers)

    def accuse(self, node: str, accusers: tuple[str, ...]) -> bool:
        """Add accusers, as many as can make a difference. True if any was new: that is worth passing on."""
        known = self._running[node].accusers
        before = len(known)
        for accuser in accusers:
            if len(known) > self._config.suspicion_confirmations:
                break
            known[accuser] = None
        return len(known) > before

    def postpone(self, by_s: float) -> None:
        """This node stood still for so long: that was no time in which a suspect could have been heard."""
        for running in self._running.values():
            running.started += by_s

    def evidence(self, node: str) -> Evidence | None:
        """On what ``node`` is suspected; None if it is not."""
        running = self._running.get(node)
        return Evidence(tuple(running.accusers), running.started) if running else None

    def over_elsewhere(self, node: str, outcome: Status) -> None:
        """Others hold ``node`` dead, or say that it left."""
        running = self._running[node]
        running.is_over_elsewhere = True
        if outcome.rank > running.outcome.rank:
            running.outcome = outcome

    def outcome(self, node: str) -> Status:
        """What the suspect is, unless it refutes: dead, or left."""
        return self._running[node].outcome

    def disregard(self, accuser: str) -> tuple[str, ...]:
        """Strike ``accuser`` from all suspicions, as if it had never spoken; returns whom it had accused."""
        accused = tuple(node for node, running in self._running.items() if accuser in running.accusers)
        for node in accused:
            del self._running[node].accusers[accuser]
        return accused

    def accusers(self, node: str) -> tuple[str, ...]:
        """Who accuses ``node``, first accuser first; empty when nobody does."""
        running = self._running.get(node)
        return tuple(running.accusers) if running else ()

    def wanted(self, able: int) -> int:
        """K: confirmations to wait for when ``able`` members could give one."""
        return max(0, min(self._config.suspicion_confirmations, able))

    def deadline(self, node: str, able: int, members: int) -> float:
        """When ``node`` is given up, with ``able`` possible confirmers in a cluster of ``members``."""
        running = self._running[node]
        min_s, max_s = self._config.suspicion_bounds_s(members)
        confirmations = max(0, len(running.accusers) - 1)
        if running.is_over_elsewhere:
            return running.started + min_s
        return running.started + suspicion_timeout_s(confirmations, self.wanted(able), min_s, max_s)

    def end(self, node: str) -> None:
        """The suspect refuted, died or left."""
        self._running.pop(node, None)
