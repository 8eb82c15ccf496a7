"""What a fault is: something that goes wrong with some hosts, and is over at some time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from simulations.cluster import Cluster
from simulations.host import Host

Mend = Callable[[], None]
"""Ends a fault; what it broke works again."""


@dataclass(frozen=True, slots=True)
class World:
    """What faults act on. ``start(host)``: let its agent start, and join if its disk knows no cluster any more.
    ``holders(app)``: the hosts whose agents hold that deployment; of any, if it is empty. ``order(host, operation,
    app, arguments)``: give a command there, about a deployment unless ``app`` is empty.
    """

    cluster: Cluster
    rng: random.Random
    start: Callable[[Host], None]
    holders: Callable[[str], list[Host]]
    order: Callable[[Host, str, str, dict[str, object]], None]
    apps: Callable[[], list[str]]

    @property
    def now(self) -> float:
        return self.cluster.clock.now


class Fault(Protocol):
    """A kind of fault, with its measures as fields.

    ``about``: what it is, for people. ``evidence``: counters of the cluster; if it struck, one of them has grown until
    it was over. Otherwise it proved nothing, and the run says so. No evidence: the fault is its own.
    """

    about: ClassVar[str]
    evidence: ClassVar[tuple[str, ...]]

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        """Break it. None: there was nothing that it could break."""


def without_agents(
    world: World,
    hosts: Sequence[Host],
    *,
    with_host: bool = False,
    meanwhile: Callable[[Host], None] = lambda host: None,
) -> Mend | None:
    """The agents that run on ``hosts`` end, ``with_host`` or alone; they start again when it is over."""
    struck = [host for host in hosts if host.agent is not None]
    for host in struck:
        world.cluster.kill(host, with_host=with_host)
        meanwhile(host)

    def mend() -> None:
        for host in struck:
            if host.agent is None:
                world.start(host)

    return mend if struck else None


def nothing() -> None:
    """The end of a fault that ends by itself."""
