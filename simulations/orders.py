"""What operators ordered, and what they were told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gary.effects import Reply
from simulations.cluster import Cluster
from simulations.host import Host


@dataclass(slots=True)
class Order:
    """One command. ``told_s``: when its last answer came; None: it never did, and may or may not have been done.
    ``was_needless``: it was as it should be already, as far as was known there, and so nothing was said to anybody.
    """

    operation: str
    app: str
    arguments: Mapping[str, Any]
    host: str
    at_s: float
    told_s: float | None = None
    error: Mapping[str, object] | None = None
    was_needless: bool = False

    @property
    def is_acknowledged(self) -> bool:
        return self.told_s is not None and self.error is None


@dataclass
class Orders:
    """All commands of a run, in the order in which they were given."""

    cluster: Cluster
    given: list[Order] = field(default_factory=list)
    _waiting: dict[tuple[str, int], Order] = field(default_factory=dict)

    def give(self, host: Host, operation: str, app: str, arguments: Mapping[str, Any]) -> Order:
        """Give a command on ``host``, whose agent runs."""
        order = Order(operation, app, arguments, host.name, self.cluster.clock.now)
        self.given.append(order)
        number = self.cluster.post(host, operation, arguments)
        self._waiting[host.name, number] = order
        self._answered(host, number, order)
        return order

    def look(self) -> None:
        """See which have been answered."""
        by_name = {host.name: host for host in self.cluster.hosts}
        for (name, number), order in list(self._waiting.items()):
            self._answered(by_name[name], number, order)

    def of(self, app: str) -> Sequence[Order]:
        return [order for order in self.given if order.app == app]

    def _answered(self, host: Host, number: int, order: Order) -> None:
        last: Reply | None = next((reply for reply in host.replies.get(number, ()) if reply.last), None)
        if last is not None:
            order.told_s, order.error = self.cluster.clock.now, last.error
            order.was_needless = _says_that_nothing_changed(last.item)
            del host.replies[number]
            self._waiting.pop((host.name, number), None)


def _says_that_nothing_changed(item: Mapping[str, Any]) -> bool:
    changes = item.get("changes", ())
    return bool(changes) and all(change["action"] == "keep" for change in changes)
