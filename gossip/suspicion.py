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
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final

from gossip.config import SwimConfig
from gossip.member import Status

_STALE: Final = 4
"""So many times as many entries as suspicions are kept of when these end."""


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
    """One running suspicion: since when, until when, how it ends, whether others hold it ended, and who accuses."""

    started: float
    ends: float = math.inf
    outcome: Status = Status.DEAD
    is_over_elsewhere: bool = False
    accusers: tuple[str, ...] = ()


class Suspicions:
    """All suspicions that run at this node."""

    def __init__(self, config: SwimConfig) -> None:
        self._config = config
        self._running: dict[str, Suspicion] = {}
        # A heap of when they end. What has been timed anew since, or is over, is left in it until its time comes.
        self._ends: list[tuple[float, str]] = []
        self._bounds_s = (1, config.suspicion_bounds_s(1))

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
        running = self._running[node]
        known = before = running.accusers
        for accuser in accusers:
            if len(known) > self._config.suspicion_confirmations:
                break
            if accuser not in known:
                known = (*known, accuser)
        running.accusers = known
        return len(known) > len(before)

    def postpone(self, by_s: float) -> None:
        """This node stood still for so long: that was no time in which a suspect could have been heard."""
        for running in self._running.values():
            running.started += by_s

    def evidence(self, node: str) -> Evidence | None:
        """On what ``node`` is suspected; None if it is not."""
        running = self._running.get(node)
        return Evidence(running.accusers, running.started) if running else None

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
            running = self._running[node]
            running.accusers = tuple(known for known in running.accusers if known != accuser)
        return accused

    def accusers(self, node: str) -> tuple[str, ...]:
        """Who accuses ``node``, first accuser first; empty when nobody does."""
        running = self._running.get(node)
        return running.accusers if running else ()

    def wanted(self, able: int) -> int:
        """K: confirmations to wait for when ``able`` members could give one."""
        return max(0, min(self._config.suspicion_confirmations, able))

    def deadline(self, node: str, able: int, members: int) -> float:
        """When ``node`` is given up, with ``able`` possible confirmers in a cluster of ``members``."""
        running = self._running[node]
        if members != self._bounds_s[0]:
            self._bounds_s = (members, self._config.suspicion_bounds_s(members))
        min_s, max_s = self._bounds_s[1]
        confirmations = max(0, len(running.accusers) - 1)
        if running.is_over_elsewhere:
            return running.started + min_s
        return running.started + suspicion_timeout_s(confirmations, self.wanted(able), min_s, max_s)

    def time(self, node: str, ends: float) -> None:
        """The suspicion of ``node`` ends at that time, unless something comes between."""
        running = self._running[node]
        if running.ends != ends:
            running.ends = ends
            heappush(self._ends, (ends, node))
            if len(self._ends) > _STALE * len(self._running) + _STALE:
                self._ends = [(running.ends, node) for node, running in self._running.items()]
                heapify(self._ends)

    @property
    def next_end(self) -> float:
        """When the next suspicion ends; infinite if none does."""
        while self._ends and not self._is_valid(*self._ends[0]):
            heappop(self._ends)
        return self._ends[0][0] if self._ends else math.inf

    def take_due(self, at: float) -> list[str]:
        """The suspects whose time is over by ``at``, each once: who is not given up has to be timed anew."""
        due = []
        while self.next_end <= at:
            _, node = heappop(self._ends)
            self._running[node].ends = math.inf
            due.append(node)
        return due

    def end(self, node: str) -> None:
        """The suspect refuted, died or left."""
        self._running.pop(node, None)

    def _is_valid(self, ends: float, node: str) -> bool:
        running = self._running.get(node)
        return running is not None and running.ends == ends
