"""Clusters and applications for whole-agent tests in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gary.effects import Effect
from gary.spec import Service, Spec
from gary.storage import Write
from simulations.checkers import safety
from simulations.checkers.books import Books
from simulations.checkers.steadiness import Steadiness
from simulations.cluster import Cluster
from simulations.host import Host

SEEDS = (1, 2)


class Safely:
    """All that watches at all times, as one. ``canaries``: bytes of documents."""

    def __init__(self, *canaries: bytes) -> None:
        books = Books()
        self._checkers = (books, *safety(books, canaries))
        self.watches = tuple({kind: None for checker in self._checkers for kind in checker.watches})

    def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
        for checker in self._checkers:
            if type(effect) in checker.watches:
                checker.performs(cluster, host, effect)

    def wrote(self, cluster: Cluster, host: Host, writes: Sequence[Write]) -> None:
        for checker in self._checkers:
            checker.wrote(cluster, host, writes)

    @property
    def violations(self) -> list[str]:
        """Everything that was found."""
        return [finding.said for checker in self._checkers for finding in checker.findings]

    def pop(self) -> str:
        """What was found last by whoever found anything; it is forgotten."""
        checker = next(checker for checker in self._checkers if checker.findings)
        return checker.findings.pop().said


def growth(cluster: Cluster, seconds: float) -> list[str]:
    """What is wrong with a cluster in which nothing happens for so long."""
    steadiness = Steadiness()
    steadiness.begin(cluster)
    cluster.run(seconds)
    steadiness.end(cluster)
    return [finding.said for finding in steadiness.findings]


def app(replicas: int, *, name: str = "shop", resilience: int = 3, **service: Any) -> Spec:
    """One service, ``web``, of an image that runs for ever."""
    return Spec(name, (Service("web", **{"image": "img", "replicas": replicas, **service}),), resilience)


def cluster_of(count: int, seed: int, **options: Any) -> Cluster:
    """``count`` joined agents that have seen their containers' engines and each other."""
    cluster = Cluster(count, seed, **options)
    cluster.join_all()
    assert cluster.run_until(cluster.sees_all, 30.0)
    cluster.run(1.5)
    return cluster


def wanted(replicas: int, service: str = "web") -> list[str]:
    return sorted(f"{service}/{index}" for index in range(1, replicas + 1))


def runs(cluster: Cluster, replicas: int, hosts: list[Host] | None = None) -> bool:
    """Each wanted slot runs exactly once on hosts that have power; ``hosts`` limits the look to those."""
    names = {host.name for host in hosts or cluster.hosts}
    found = {slot: [name for name in where if name in names] for slot, where in cluster.running().items()}
    return sorted(slot for slot, where in found.items() if where) == wanted(replicas) and all(
        len(where) <= 1 for where in found.values()
    )


def has_all(cluster: Cluster, replicas: int, hosts: list[Host]) -> bool:
    """Each wanted slot runs at least once on ``hosts``."""
    names = {host.name for host in hosts}
    found = cluster.running()
    return all(names & set(found.get(slot, ())) for slot in wanted(replicas))


def per_host(cluster: Cluster) -> Counter[str]:
    return Counter(name for where in cluster.running().values() for name in where)


def is_whole(cluster: Cluster, host: Host, app: str = "shop") -> bool:
    """``host``'s own view of the deployment says that nothing is missing."""
    return bool(cluster.answer(host, "status", {"app": app})["state"] == "whole")


def settled(cluster: Cluster, spec: Spec, host: Host | None = None) -> Cluster:
    """Deploy ``spec`` and wait until it is whole."""
    host = host or cluster.hosts[0]
    reply = cluster.deploy(host, spec)
    assert reply.error is None, reply.error
    assert cluster.run_until(lambda: is_whole(cluster, host, spec.name), 30.0)
    cluster.run(2.0)
    return cluster
