"""Rule 6: no write in a loop. With nothing happening documents do not grow and only probes are sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from simulations.checkers.base import Checker
from simulations.checkers.membership import staying
from simulations.cluster import Cluster

QUIET_BYTES_PER_S = 1_000.0
"""What an agent sends at rest, at most: a ping, an ack and the comparison of documents with fellows now and then."""

WRITES_MAX = 2
"""What an agent writes of what was before the rest, at most, and once for each document: the peers that it knows, and
what it was told last.
"""


class Quiet(Checker):
    name = "quiet"
    about = "what was news has been told to all, and nobody goes on telling it"

    def judge(self, cluster: Cluster) -> Iterator[str]:
        hosts = [host for host in staying(cluster) if host.agent is not None and len(host.agent.alive) > 1]
        telling = [host for host in hosts if host.agent is not None and host.agent.swim.has_news]
        if telling:
            yield f"{len(telling)} of {len(hosts)} agents, {telling[0].name} among them, still have news to tell"
        views = Counter(host.agent.swim.digest for host in hosts if host.agent is not None)
        if len(views) > 1:
            few = len(hosts) - max(views.values())
            yield f"{few} of {len(hosts)} agents know something else of members or what these publish than others do"


class Steadiness(Checker):
    name = "steadiness"
    about = "at rest no document grows, nothing is written again and again, and only probes are sent"

    def __init__(self) -> None:
        super().__init__()
        self._before: tuple[float, dict[tuple[str, str], int], dict[str, int], int] | None = None

    def begin(self, cluster: Cluster) -> None:
        """From now on nothing happens."""
        self._before = cluster.clock.now, _sizes(cluster), _writes(cluster), cluster.network.sent["bytes"]

    def end(self, cluster: Cluster) -> None:
        """Until now nothing has happened."""
        assert self._before is not None, "begin comes first"
        since, sizes, writes, sent = self._before
        for (name, id), size in _sizes(cluster).items():
            before = sizes.get((name, id), 0)
            if size != before:
                self.found(cluster, f"the document {id[:6]} of {name} grew from {before} to {size} changes at rest")
        held = Counter(name for name, _ in sizes)
        for name, count in _writes(cluster).items():
            if count - writes.get(name, count) > WRITES_MAX + held[name]:
                self.found(cluster, f"{name} wrote {count - writes[name]} times at rest")
        rate = (cluster.network.sent["bytes"] - sent) / (cluster.clock.now - since) / max(1, len(cluster.live()))
        if rate > QUIET_BYTES_PER_S:
            self.found(cluster, f"at rest each agent sends {rate:.0f} bytes a second")


def _sizes(cluster: Cluster) -> dict[tuple[str, str], int]:
    return {
        (host.name, id): deployment.document.replica.change_count
        for host in staying(cluster)
        if host.agent is not None
        for id, deployment in host.agent.deployments.items()
    }


def _writes(cluster: Cluster) -> dict[str, int]:
    return {host.name: host.storage.writes_count for host in staying(cluster)}
