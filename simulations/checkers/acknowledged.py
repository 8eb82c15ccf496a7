"""No acknowledged deploy, scale or remove is lost silently."""

from __future__ import annotations

from collections.abc import Iterator

from gary.state import State
from simulations.checkers.base import Checker
from simulations.checkers.bearers import Bearers, says
from simulations.checkers.wholeness import held
from simulations.cluster import Cluster
from simulations.orders import Order, Orders

CHANGING = ("deploy", "scale", "remove")


class Acknowledged(Checker):
    """After all faults each deployment is as some order said that no later, acknowledged one has overruled.

    An order that was never answered, or not in time, may have been done or not, or may be done yet. One that was given
    while another one waited for its answer may have come before it or after it. One that changed nothing, where it was
    given, is no word against another that was given at the same time on the other side of a broken network; unless a
    relay asked for it a second time, and the first time it was done, which ``bearers`` see.
    One that is on no disk any more that had it when it was acknowledged is lost without anybody's fault: ``bearers``
    know; without them, all are held to be there, and to be about the same.
    """

    name = "acknowledged"
    about = "what an operator was told to be done is done, unless another order came after it"

    def __init__(self, orders: Orders, bearers: Bearers | None = None) -> None:
        super().__init__()
        self._orders = orders
        self._bearers = bearers

    def judge(self, cluster: Cluster) -> Iterator[str]:
        states = {state.name: state for of in held(cluster).values() for state in of.values() if state.spec}
        for app in sorted({order.app for order in self._orders.given if order.app}):
            orders = [o for o in self._orders.of(app) if o.operation in CHANGING and not self._is_no_word(o)]
            binding = [order for order in orders if order.is_acknowledged and self._is_borne(order)]
            standing = [order for order in orders if not any(self._overrules(other, order) for other in binding)]
            if binding and not any(_is_done(order, states.get(app)) for order in standing):
                said = ", ".join(f"{o.operation} at {o.at_s:.1f} s" for o in standing)
                yield f"{app} is as none of the orders that stand says: {said}"

    def _is_borne(self, order: Order) -> bool:
        return self._bearers is None or self._bearers.still_bear(order)

    def _is_no_word(self, order: Order) -> bool:
        return order.was_needless and not (self._bearers is not None and self._bearers.saw_it_done(order))

    def _overrules(self, later: Order, order: Order) -> bool:
        """Whether ``later`` was given when ``order`` was over, and was done to what that was done to."""
        if order.told_s is None or not order.is_over or later is order:
            return False
        # Which of two came later on two sides of a broken network only the clocks there tell.
        is_later = later.at_s >= order.told_s + max(order.clocks_s, later.clocks_s)
        return is_later and (self._bearers is None or self._bearers.are_about_the_same(later, order))


def _is_done(order: Order, state: State | None) -> bool:
    if order.operation == "remove" or state is None:
        return order.operation == "remove" and state is None
    return state.spec is not None and says(order, state.spec)
