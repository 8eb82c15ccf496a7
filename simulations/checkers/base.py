"""What a checker is. It shares no code with what it judges, and speaks in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from gary.effects import Effect
from gary.storage import Write
from simulations.cluster import Cluster
from simulations.host import Host
from simulations.result import Finding

FINDINGS_MAX: Final = 100
"""Of one checker; more are counted only."""


class Checker:
    """Sees all that agents ask for and write, and looks at the cluster from time to time.

    ``name``: of one word or two. ``about``: what has to be true. ``watches``: the effects that it wants to see.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    watches: ClassVar[tuple[type, ...]] = ()

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.count = 0

    def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
        """``host``'s agent has asked for ``effect``, one of those that are watched, which has not happened yet."""

    def wrote(self, cluster: Cluster, host: Host, writes: Sequence[Write]) -> None:
        """``writes`` are on the disk of ``host``, and its agent does not know yet."""

    def look(self, cluster: Cluster) -> None:
        """Time has passed."""

    def judge(self, cluster: Cluster) -> Iterable[str]:
        """What is wrong with a cluster that has had time to recover; asked again and again until nothing is."""
        return ()

    def found(self, cluster: Cluster, said: str) -> None:
        """Write down what is wrong now."""
        self.count += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(self.name, cluster.clock.now, said))
