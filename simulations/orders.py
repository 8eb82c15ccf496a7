"""What operators ordered, and what they were told."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from gary.effects import Effect, Reply
from gary.errors import CommandError, ErrorCode
from gary.trust.operator import Operator
from simulations.cluster import Cluster, said_in
from simulations.host import Host

_NEXT_S = 0.001
"""So long after one answer comes the next question."""
_MAYBE_DONE = (ErrorCode.TIMEOUT, ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL)

Items = Sequence[Mapping[str, Any]]


@dataclass(slots=True, eq=False)
class Order:
    """One command. ``told_s``: when its last answer came; None: it never did, and may or may not have been done.
    ``was_needless``: it was as it should be already, as far as was known there, and so nothing was said to anybody.
    ``clocks_s``: by so much the clocks of any two hosts differed when it or an earlier one was given. A generation that
    is dated ahead makes all later ones of its deployment so.
    """

    operation: str
    app: str
    arguments: Mapping[str, Any]
    host: str
    at_s: float
    told_s: float | None = None
    error: CommandError | None = None
    was_needless: bool = False
    clocks_s: float = 0.0

    @property
    def is_acknowledged(self) -> bool:
        return self.told_s is not None and self.error is None

    @property
    def is_over(self) -> bool:
        """Whatever comes of it has come of it: what a relay could not wait for may still be done later."""
        return self.told_s is not None and (self.error is None or self.error.code not in _MAYBE_DONE)


class Errand:
    """An operator's command, as the command line gives it to the agent at hand, on ``host``.

    It asks that agent several things, one after the other, and each answer takes its time. ``Operator`` waits for
    them, and nobody can wait within a moment of virtual time. So the command begins anew with each answer, with the
    same entropy and by the same clock: it asks the same, has all answers so far at hand, and goes one question further.
    """

    def __init__(
        self, cluster: Cluster, host: Host, operation: str, arguments: Mapping[str, Any], entropy: str
    ) -> None:
        self.host = host
        self._cluster = cluster
        self._operation = operation
        self._arguments = arguments
        self._entropy = entropy
        self._wall_s = host.wall_offset_s + cluster.clock.now
        self._answers: list[Sequence[Reply]] = []
        self.asked = 0

    def go_on(self) -> Items | CommandError | None:
        """Its outcome; None if it has ``asked`` something more."""
        at_hand = iter(self._answers)
        operator = Operator(
            load=lambda: self._cluster.operator_key,
            entropy=random.Random(self._entropy).randbytes,
            wall_s=lambda: self._wall_s,
            ask=partial(self._ask, at_hand),
        )
        try:
            return list(operator.command(self._operation, self._arguments))
        except CommandError as error:
            return error
        except _NotAnsweredYet:
            return None

    def answered(self) -> Items | CommandError | None:
        """What it asked last has been answered: go on."""
        self._answers.append(self.host.replies.pop(self.asked))
        return self.go_on()

    def _ask(
        self, at_hand: Iterator[Sequence[Reply]], operation: str, arguments: Mapping[str, Any]
    ) -> Iterator[Mapping[str, Any]]:
        replies = next(at_hand, None)
        if replies is None:
            self.asked = self._cluster.post(self.host, operation, arguments)
            raise _NotAnsweredYet
        yield from said_in(replies)


class _NotAnsweredYet(Exception):
    """The agent at hand has been asked just now."""


class Witness(Protocol):
    """Sees the cluster when an order is given and when its last answer comes."""

    def given(self, order: Order) -> None: ...

    def told(self, order: Order) -> None: ...


@dataclass
class Orders:
    """All commands of a run, in the order in which they were given."""

    cluster: Cluster
    witness: Witness | None = None
    given: list[Order] = field(default_factory=list)
    _apart_s: float = 0.0
    _waiting: dict[int, tuple[Errand, Order]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cluster.driver.watch(Reply, self._hears)

    def give(self, host: Host, operation: str, app: str, arguments: Mapping[str, Any]) -> Order:
        """Let an operator give a command at ``host``, whose agent runs."""
        clocks = [other.wall_skew_s for other in self.cluster.live()]
        self._apart_s = max(self._apart_s, max(clocks, default=0.0) - min(clocks, default=0.0))
        order = Order(operation, app, arguments, host.name, self.cluster.clock.now, clocks_s=self._apart_s)
        errand = Errand(self.cluster, host, operation, arguments, f"order {self.cluster.seed} {len(self.given)}")
        self.given.append(order)
        if self.witness is not None:
            self.witness.given(order)
        self._proceed(errand, order, errand.go_on())
        return order

    def of(self, app: str) -> Sequence[Order]:
        return [order for order in self.given if order.app == app]

    def _hears(self, host: Host, effect: Effect) -> None:
        if isinstance(effect, Reply) and effect.last:
            self.cluster.clock.after(_NEXT_S, self._answered, effect.command)

    def _answered(self, number: int) -> None:
        if number in self._waiting:
            errand, order = self._waiting.pop(number)
            self._proceed(errand, order, errand.answered())

    def _proceed(self, errand: Errand, order: Order, outcome: Items | CommandError | None) -> None:
        if outcome is None:
            self._waiting[errand.asked] = (errand, order)
            return
        order.told_s = self.cluster.clock.now
        if isinstance(outcome, CommandError):
            order.error = outcome
        elif outcome:
            order.was_needless = _says_that_nothing_changed(outcome[-1])
        if self.witness is not None:
            self.witness.told(order)


def _says_that_nothing_changed(item: Mapping[str, Any]) -> bool:
    changes = item.get("changes", ())
    return bool(changes) and all(change["action"] == "keep" for change in changes)
