"""Getting into a cluster: asking at an address until somebody answers.

A join is asked for by a person or a config and ends: with ``Joined``, or with ``JoinFailed`` and a reason. A rejoin is
what a node that restarts does with the peers it remembers, and goes on, ever more slowly, until it has company.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gossip.config import SwimConfig
from gossip.effects import JoinFailed, JoinFailure, TimerKind
from gossip.membership import Membership
from gossip.messages import Join
from gossip.outbox import Outbox
from gossip.transport import NOT_TRUSTED, Peer

_REJOIN_PEERS: Final = 3
_REJOIN_GROWTH: Final = 1.5
_REJOIN_INTERVAL_MAX_S: Final = 15.0
# How transports begin the reason when somebody answers who does not speak the transport's protocol.
_SLOW: Final = "timed out"
"""How a transport begins the reason when nobody answered at all."""
_NOT_GARY: Final = ("protocol", "not gary", "not a gary")
_FAILURE_OF_REFUSAL: Final = {"version": JoinFailure.VERSION, "self": JoinFailure.SELF}


@dataclass(frozen=True, slots=True)
class Attempt:
    """A join under way. ``number`` is random, and tells its answers from those to somebody else."""

    address: str
    number: int
    deadline: float


class Joining:
    """The joins and the rejoin of one node."""

    def __init__(self, *, config: SwimConfig, rng: random.Random, membership: Membership, outbox: Outbox) -> None:
        self._config = config
        self._rng = rng
        self._membership = membership
        self._outbox = outbox
        self._attempts: dict[str, Attempt] = {}
        self._seeds: tuple[Peer, ...] = ()
        self._rejoin_number = rng.getrandbits(62)
        self._rejoin_interval_s = config.join_retry_s

    @property
    def active(self) -> bool:
        """Somebody was asked for a welcome to any cluster."""
        return bool(self._attempts)

    def begin(self, address: str, now: float) -> None:
        """Ask at ``address``. A join of the same address that is under way goes on."""
        if address == self._membership.myself.address:
            self._outbox.emit(JoinFailed(address, JoinFailure.SELF, "that is this node's own address"))
            return
        if address in self._attempts:
            return
        self._attempts[address] = Attempt(address, self._rng.getrandbits(62), now + self._config.join_timeout_s)
        self.retry(address, now)

    def retry(self, address: str, now: float) -> None:
        """Ask again, or give up when the time is over."""
        attempt = self._attempts.get(address)
        if attempt is None:
            return
        if now >= attempt.deadline:
            self.fail(attempt, JoinFailure.TIMEOUT, f"no answer within {self._config.join_timeout_s:g} s")
            return
        self._ask(address, attempt.number)
        self._outbox.arm(TimerKind.JOIN, min(self._config.join_retry_s, attempt.deadline - now), address)

    def unreachable(self, address: str, reason: str) -> None:
        """The transport knows for certain that a frame to ``address`` did not arrive.

        A host that is slow to answer gets the join's whole time; a refusal is an answer.
        """
        attempt = self._attempts.get(address)
        if attempt is not None and not reason.startswith(_SLOW):
            self.fail(attempt, _failure(reason), reason)

    def attempt(self, number: int) -> Attempt | None:
        """The join that an answer with ``number`` is for."""
        return next((attempt for attempt in self._attempts.values() if attempt.number == number), None)

    def is_rejoin(self, number: int) -> bool:
        """An answer with ``number`` is for the rejoin."""
        return bool(self._seeds) and number == self._rejoin_number

    def refused(self, number: int, reason: str, detail: str) -> None:
        """Whoever was asked said no."""
        attempt = self.attempt(number)
        if attempt is not None:
            self.fail(attempt, _FAILURE_OF_REFUSAL.get(reason, JoinFailure.REFUSED), detail or reason)

    def version_not_spoken(self, version: int) -> None:
        """An answer came in a version that this node cannot read: whom it was for cannot be told."""
        for attempt in list(self._attempts.values()):
            self.fail(attempt, JoinFailure.VERSION, f"the node there speaks version {version} of the protocol")

    def fail(self, attempt: Attempt, reason: JoinFailure, detail: str) -> None:
        """The join ends without success."""
        self.end(attempt)
        self._outbox.emit(JoinFailed(attempt.address, reason, detail))

    def end(self, attempt: Attempt) -> None:
        """The join is over."""
        del self._attempts[attempt.address]
        self._outbox.disarm(TimerKind.JOIN, attempt.address)

    def rejoin(self, seeds: Sequence[Peer]) -> None:
        """Look for company at ``seeds`` until there is some."""
        own = self._membership.myself.address
        self._seeds = tuple(seed for seed in seeds if seed.address != own)
        self._rejoin_interval_s = self._config.join_retry_s
        self.rejoin_again()

    def rejoin_again(self) -> None:
        """Ask a few of the seeds, unless there is company by now."""
        if not self._seeds or len(self._membership.live_others):
            self._seeds = ()
            return
        for seed in self._rng.sample(self._seeds, min(_REJOIN_PEERS, len(self._seeds))):
            self._ask(seed.address, self._rejoin_number)
        self._outbox.arm(TimerKind.REJOIN, self._rejoin_interval_s * self._rng.uniform(0.75, 1.25))
        self._rejoin_interval_s = min(self._rejoin_interval_s * _REJOIN_GROWTH, _REJOIN_INTERVAL_MAX_S)

    def disregard(self, node: str) -> None:
        """Ask ``node`` no more."""
        self._seeds = tuple(seed for seed in self._seeds if seed.node != node)

    def rejoined(self) -> None:
        """A seed has let this node in."""
        self._seeds = ()
        self._outbox.disarm(TimerKind.REJOIN)

    def _ask(self, address: str, number: int) -> None:
        myself = self._membership.myself
        self._outbox.send_joining(Peer("", address), Join(number, myself.address, myself.incarnation))


def _failure(reason: str) -> JoinFailure:
    """What a transport's reason means for a join."""
    if reason.startswith(NOT_TRUSTED):
        return JoinFailure.NOT_TRUSTED
    return JoinFailure.NOT_GARY if reason.lower().startswith(_NOT_GARY) else JoinFailure.UNREACHABLE
