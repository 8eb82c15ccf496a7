"""No acknowledged deploy, scale or remove is lost silently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gary.state import State
from simulations.checkers.base import Checker
from simulations.checkers.wholeness import held
from simulations.cluster import Cluster
from simulations.orders import Order, Orders

CHANGING = ("deploy", "scale", "remove")


class Acknowledged(Checker):
    """After all faults each deployment is as some order said that no later, acknowledged one has overruled.

    An order that was never answered, or not in time, may have been done or not, or may be done yet. One that was given
    while another one waited for its answer may have come before it or after it. One that changed nothing, where it was
    given, is no word against another that was given at the same time on the other side of a broken network.
    """

    name = "acknowledged"
    about = "what an operator was told to be done is done, unless another order came after it"

    def __init__(self, orders: Orders) -> None:
        super().__init__()
        self._orders = orders

    def judge(self, cluster: Cluster) -> Iterator[str]:
        states = {state.name: state for of in held(cluster).values() for state in of.values() if state.spec}
        for app in sorted({order.app for order in self._orders.given if order.app}):
            orders = [o for o in self._orders.of(app) if o.operation in CHANGING and not o.was_needless]
            standing = [order for order in orders if not _is_overruled(order, orders)]
            if any(order.is_acknowledged for order in orders) and not any(
                _is_done(o, states.get(app)) for o in standing
            ):
                said = ", ".join(f"{o.operation} at {o.at_s:.1f} s" for o in standing)
                yield f"{app} is as none of the orders that stand says: {said}"


def _is_overruled(order: Order, orders: Sequence[Order]) -> bool:
    """Whether a later one, given when this one was over, was acknowledged."""
    if order.told_s is None or not order.is_over:
        return False
    # Which of two came later on two sides of a broken network only the clocks there tell.
    return any(
        other.is_acknowledged and other.at_s >= order.told_s + max(order.clocks_s, other.clocks_s)
        for other in orders
        if other is not order
    )


def _is_done(order: Order, state: State | None) -> bool:
    if order.operation == "remove" or state is None:
        return order.operation == "remove" and state is None
    if order.operation == "scale":
        sizes = order.arguments["services"]
        return all(state.services[name].replicas == size for name, size in sizes.items() if name in state.services)
    return True
