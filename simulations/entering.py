"""Letting hosts into the cluster while everything else goes on: somebody gives a token, and the host joins with it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from gary.effects import Reply
from gary.errors import StorageFailed
from gary.storage import Table
from simulations.checkers.membership import expelled
from simulations.cluster import Cluster
from simulations.host import Host

AGAIN_S: Final = 5.0
EXPIRES_S: Final = 24 * 3600
"""Longer than clocks jump and faults last."""


@dataclass(slots=True)
class _Attempt:
    """``host`` wants in. ``asked``: on whom, and with which command, what goes on now waits. ``again_s``: when to try
    something else.
    """

    host: Host
    again_s: float
    asked: Host | None = None
    number: int = 0
    has_token: bool = False


class Entering:
    """Hosts that belong to the cluster and whose disks know nobody of it."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._attempts: dict[str, _Attempt] = {}

    def start(self, host: Host) -> None:
        """Let its agent start, and join if need be. On a disk that takes nothing it is tried again, as services are."""
        if host.agent is not None:
            return
        try:
            self._cluster.start(host)
        except StorageFailed:
            self._cluster.counters["starts_failed"] += 1
            self._cluster.clock.after(AGAIN_S, self.start, host)
        else:
            self.see_to(host)

    def see_to(self, host: Host) -> None:
        """Let it join, if it has to: it is in no other's cluster, its disk knows nobody, or lost the root's secret."""
        if host.agent is None:
            return
        if self._is_astray(host) or not host.storage.load().records[Table.PEER] or _lacks_secret(host):
            self._attempts.setdefault(host.name, _Attempt(host, self._cluster.clock.now))

    def look(self) -> None:
        """Go on with whoever wants in."""
        for name, attempt in list(self._attempts.items()):
            agent = attempt.host.agent
            if agent is None:
                continue  # Once it is back it has to join still, and its disk may take itself for a cluster by then.
            if len(agent.alive) > 1 and not _lacks_secret(attempt.host):
                del self._attempts[name]
            elif attempt.asked is not None:
                self._go_on(attempt)
            if name in self._attempts and self._cluster.clock.now >= attempt.again_s:
                self._begin(attempt)

    def _is_astray(self, host: Host) -> bool:
        clusters = [(other, other.agent.swim.cluster) for other in self._cluster.live() if other.agent is not None]
        mine = next(cluster for other, cluster in clusters if other is host)
        return all(other is host or cluster != mine for other, cluster in clusters)

    def _begin(self, attempt: _Attempt) -> None:
        others = [h for h in self._cluster.live() if h is not attempt.host and _invites(h)]
        attempt.again_s = self._cluster.clock.now + AGAIN_S
        attempt.has_token, attempt.asked = False, None
        if others and attempt.host.node not in expelled(self._cluster):  # Whom a cluster has expelled nobody invites.
            attempt.asked = self._rng.choice(others)
            arguments = {"uses": 1, "expires_s": EXPIRES_S}
            attempt.number = self._cluster.post(attempt.asked, "invite", arguments)

    def _go_on(self, attempt: _Attempt) -> None:
        assert attempt.asked is not None
        replies = attempt.asked.replies.get(attempt.number, [])
        last: Reply | None = next((reply for reply in replies if reply.last), None)
        if last is None:
            return
        del attempt.asked.replies[attempt.number]
        token = last.item.get("token")
        if last.error is None and not attempt.has_token and isinstance(token, str):
            attempt.has_token, attempt.asked = True, attempt.host
            attempt.number = self._cluster.post(attempt.host, "join", {"token": token})
        else:
            attempt.asked = None


def _lacks_secret(host: Host) -> bool:
    """Whether it ought to vouch for the cluster, and nobody gives it what that takes but who lets it in again."""
    return host.vouches and host.agent is not None and host.agent.standing.lacks_secret


def _invites(host: Host) -> bool:
    """Whether it belongs to a cluster, vouches for it and can do something."""
    agent = host.agent
    return agent is not None and agent.standing.vouches and not host.stands_still and len(agent.alive) > 1
