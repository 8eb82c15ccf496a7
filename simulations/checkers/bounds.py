"""Rule 7: each queue, message and document has a limit."""

from __future__ import annotations

from gary.effects import Effect
from gossip import Send
from simulations.checkers.base import Checker
from simulations.checkers.frames import FRAME_SIZE_BYTES_MAX
from simulations.cluster import Cluster
from simulations.host import Host

DOCUMENT_SIZE_BYTES_MAX = 2_000_000
UNWRITTEN_MAX = 1_000
"""Writes that wait for one disk."""


class Bounds(Checker):
    name = "bounds"
    about = "frames, documents and what waits to be written stay within limits"
    watches = (Send,)

    def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
        assert isinstance(effect, Send)
        if len(effect.frame) > FRAME_SIZE_BYTES_MAX:
            self.found(cluster, f"{host.name} sends a frame of {len(effect.frame)} bytes")

    def look(self, cluster: Cluster) -> None:
        for host in cluster.live():
            assert host.agent is not None
            if not host.agent.deployments:
                continue
            gauges = host.agent.gauges()
            if gauges["documents_bytes"] > DOCUMENT_SIZE_BYTES_MAX * len(host.agent.deployments):
                self.found(cluster, f"{host.name} holds documents of {gauges['documents_bytes']:.0f} bytes")
            if gauges["unwritten"] > UNWRITTEN_MAX:
                self.found(cluster, f"on {host.name} {gauges['unwritten']:.0f} writes wait for the disk")
