"""Orders: each is taken once, by the node and in the life that it is meant for, and not long after it was given.

A bounded number of ids is remembered, those of the latest orders. When one has to be forgotten, no order that is as old
is taken any more, so setting the clock back brings none of them to life. A restart of the node needs to remember
nothing: the next life has another epoch.
"""

from __future__ import annotations

import heapq

from gary.errors import CommandError, ErrorCode
from gary.identity import NodeId
from gary.trust.envelope import Order

WINDOW_S = 300.0
"""How far the clocks of an operator and of a node may be apart."""
REMEMBERED_MAX = 4096


class Orders:
    """Those of ``node``. Times are seconds since 1970 by this node's clock."""

    def __init__(self, node: NodeId) -> None:
        self._node = node
        self._taken: set[bytes] = set()
        self._oldest: list[tuple[float, bytes]] = []
        self._forgotten_at_s = float("-inf")

    def check(self, order: Order, epoch: int, wall_s: float) -> None:
        """Raises ``CommandError`` if the order is not for this node in its life ``epoch``, or was taken before."""
        if order.node != self._node:
            raise CommandError(ErrorCode.REFUSED, "the order is for another node")
        if order.epoch != epoch:
            message = "the order is for another life of this node, which has started anew since"
            raise CommandError(ErrorCode.UNAVAILABLE, message, "try again")
        apart_s = wall_s - order.at_s
        if abs(apart_s) > WINDOW_S:
            message = (
                f"the order was given {abs(apart_s) / 60:.0f} minutes {'ago' if apart_s > 0 else 'from now'} by the "
                f"clock of the node that is to carry it out; it takes orders of {WINDOW_S / 60:.0f} minutes at most"
            )
            raise CommandError(ErrorCode.REFUSED, message, "one of the two clocks is wrong: set it right")
        if order.id in self._taken:
            raise CommandError(ErrorCode.REFUSED, "the order was carried out before")
        if order.at_s <= self._forgotten_at_s:
            message = "the order is older than those that the node remembers: it may have been carried out before"
            raise CommandError(ErrorCode.UNAVAILABLE, message, "try again, or on another node")

    def take(self, order: Order) -> None:
        """Take a checked order; no check lets it pass again."""
        self._taken.add(order.id)
        heapq.heappush(self._oldest, (order.at_s, order.id))
        if len(self._oldest) > REMEMBERED_MAX:
            self._forgotten_at_s, forgotten = heapq.heappop(self._oldest)
            self._taken.discard(forgotten)

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._taken)
