"""Rule 8: whatever comes in, an agent goes on."""

from __future__ import annotations

from simulations.checkers.base import Checker
from simulations.cluster import Cluster
from simulations.host import Host


class Answering(Checker):
    """The driver tells it of exceptions that came out of an agent, which has then ended as its process would have."""

    name = "answering"
    about = "no input makes an agent end"

    def ended(self, cluster: Cluster, host: Host, error: Exception) -> None:
        self.found(cluster, f"the agent on {host.name} ended: {type(error).__name__}: {error}")
