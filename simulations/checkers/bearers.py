"""Who has what an operator was told to be done on its disk at that moment: as long as one of them has it, it holds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gary.identity import DeploymentId, Generation, NodeId
from gary.spec import Spec, from_json
from gary.storage import Table
from gary.trust.keys import KeyPair, node_id_of
from simulations.checkers.books import Books, buried_on
from simulations.checkers.membership import expelled
from simulations.cluster import Cluster
from simulations.host import Host
from simulations.orders import Order


@dataclass(frozen=True, slots=True)
class _Bearer:
    """``losses``: how often the disk of ``host`` had lost something by then."""

    host: Host
    node: NodeId
    losses: int


@dataclass(slots=True)
class _Before:
    """What there was when an order was given."""

    ids: frozenset[DeploymentId]
    generations: frozenset[Generation]
    removed: frozenset[str]


class Bearers:
    """A witness of orders."""

    def __init__(self, cluster: Cluster, books: Books) -> None:
        self._cluster = cluster
        self._books = books
        self._names: dict[DeploymentId, str] = {}
        self._before: dict[Order, _Before] = {}
        self._bearers: dict[Order, list[_Bearer]] = {}
        self._instances: dict[Order, frozenset[str]] = {}

    def given(self, order: Order) -> None:
        if order.app:
            ids = self._called(order.app)
            states = [state for id in ids for host in self._hosts(id) if (state := self._books.on_disk(host, id))]
            generations = frozenset(generation for state in states for generation in state.specs)
            self._before[order] = _Before(ids, generations, frozenset().union(*(state.removed for state in states)))

    def told(self, order: Order) -> None:
        before = self._before.pop(order, None)
        if before is not None and order.is_acknowledged:
            bearers = self._bearers[order] = []
            instances: set[str] = set()
            for id in self._called(order.app):
                for host in self._hosts(id):
                    borne = self._borne(host, id, order, before)
                    instances |= borne
                    if borne:
                        bearers.append(_Bearer(host, _node_on(host), host.storage.losses_count))
            self._instances[order] = frozenset(instances)

    def still_bear(self, order: Order) -> bool:
        """Whether one of those that had it has lost nothing since, and is not out of the cluster for ever."""
        out = expelled(self._cluster)
        return any(
            bearer.host.storage.losses_count == bearer.losses and bearer.node not in out
            for bearer in self._bearers.get(order, ())
        )

    def saw_it_done(self, order: Order) -> bool:
        """Whether a disk says what ``order`` wants that none said before it was given."""
        return bool(self._instances.get(order))

    def are_about_the_same(self, one: Order, other: Order) -> bool:
        """Whether both were done to one instance of the deployment, as far as is known: of one that is deployed on two
        sides of a broken network there are two.
        """
        first, second = self._instances.get(one), self._instances.get(other)
        return not (first and second) or not first.isdisjoint(second)

    def _borne(self, host: Host, id: DeploymentId, order: Order, before: _Before) -> set[str]:
        """The instances of which the disk of ``host`` says what ``order`` wants."""
        state = self._books.on_disk(host, id)
        if order.operation == "remove":
            removed = frozenset() if state is None else state.removed
            return {*removed, *buried_on(host, id)} - before.removed
        news = {} if state is None else {of: spec for of, spec in state.specs.items() if of not in before.generations}
        return {generation.instance for generation, spec in news.items() if says(order, spec)}

    def _called(self, app: str) -> frozenset[DeploymentId]:
        """The documents, of whatever cluster, of deployments with that name."""
        for id in self._books.hosts.keys() - self._names.keys():
            states = (self._books.on_disk(host, id) for host in self._hosts(id))
            name = next((state.name for state in states if state is not None and state.name), None)
            if name is not None:
                self._names[id] = name
        return frozenset(id for id, name in self._names.items() if name == app)

    def _hosts(self, id: DeploymentId) -> Collection[Host]:
        return self._books.hosts[id].values()


def _node_on(host: Host) -> NodeId:
    """Who the host is, by its disk; empty if that does not know."""
    seed = host.storage.record(Table.NODE, "seed") or b""
    return node_id_of(KeyPair(seed).public) if seed else ""


def says(order: Order, spec: Spec) -> bool:
    """Whether ``spec`` is as ``order``, a deploy or a scale, wants the deployment to be."""
    services = {service.name: service for service in spec.services}
    if order.operation == "scale":
        sizes = order.arguments["services"]
        return all(services[name].replicas == size for name, size in sizes.items() if name in services)
    wanted = {service.name: service for service in from_json(order.arguments["spec"]).services}
    return services.keys() == wanted.keys() and all(
        (services[name].image, services[name].replicas) == (service.image, service.replicas)
        for name, service in wanted.items()
    )
