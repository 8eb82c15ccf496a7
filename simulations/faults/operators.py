"""What operators do meanwhile, and what they do wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from gary.spec import to_json
from simulations.faults.base import Mend, World, nothing
from simulations.host import Host
from simulations.units import Seconds

HOLDERS_MIN = 2
"""So many copies of a document have to be left on hosts that are not expelled."""


@dataclass(frozen=True, slots=True)
class Scale:
    """``service`` of ``app`` (empty: one by chance) gets as many containers as said, or any number up to ``up_to``."""

    app: str = ""
    service: str = "web"
    replicas: int = 0
    up_to: int = 6
    about: ClassVar[str] = "a deployment gets another size"
    evidence: ClassVar[tuple[str, ...]] = ("commands",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        app, holders = _chosen(world, self.app)
        if not holders:
            return None
        count = self.replicas or world.rng.randint(1, self.up_to)
        world.order(_desk(world, holders), "scale", app, {"app": app, "services": {self.service: count}})
        return nothing


@dataclass(frozen=True, slots=True)
class Update:
    """``app`` (empty: one by chance) gets another image, in all its services."""

    app: str = ""
    image: str = ""
    about: ClassVar[str] = "a deployment is updated"
    evidence: ClassVar[tuple[str, ...]] = ("commands",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        app, holders = _chosen(world, self.app)
        if not holders:
            return None
        host = world.rng.choice(holders)
        assert host.agent is not None
        spec = next(d.state.spec for d in host.agent.deployments.values() if d.state.name == app)
        if spec is None:
            return None
        image = self.image or f"{spec.services[0].image.partition('@')[0]}@{world.rng.randrange(10**6)}"
        updated = replace(spec, services=tuple(replace(service, image=image) for service in spec.services))
        world.order(_desk(world, holders), "deploy", app, {"spec": to_json(updated)})
        return nothing


@dataclass(frozen=True, slots=True)
class Expel:
    """One of the hosts is put out of the cluster for ever; if others hold what it holds, and it is the first one."""

    about: ClassVar[str] = "a host is expelled"
    evidence: ClassVar[tuple[str, ...]] = ("commands",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        live = [host for host in world.cluster.live() if not host.stands_still]
        victims = [host for host in hosts if host in live and _can_go(host, world)]
        others = [host for host in live if host not in victims[:1] and host.agent and host.agent.standing.vouches]
        if not victims or not others:
            return None
        world.order(world.rng.choice(others), "expel", "", {"node": victims[0].node})
        return nothing


@dataclass(frozen=True, slots=True)
class Remove:
    """``app`` (empty: one by chance) is removed."""

    app: str = ""
    about: ClassVar[str] = "a deployment is removed"
    evidence: ClassVar[tuple[str, ...]] = ("commands",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        app, holders = _chosen(world, self.app)
        if not holders:
            return None
        world.order(_desk(world, holders), "remove", app, {"app": app})
        return nothing


@dataclass(frozen=True, slots=True)
class Rotate:
    """The cluster gets a new root."""

    overlap_s: Seconds = 86400.0
    about: ClassVar[str] = "the cluster gets a new root certificate"
    evidence: ClassVar[tuple[str, ...]] = ("commands",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        able = [host for host in hosts if host.agent is not None and host.agent.standing.vouches]
        if not able:
            return None
        world.order(world.rng.choice(able), "rotate", "", {"overlap_s": int(self.overlap_s)})
        return nothing


@dataclass(frozen=True, slots=True)
class Drain:
    """The hosts leave the cluster on purpose, after somebody else keeps what they kept; they join again afterwards."""

    about: ClassVar[str] = "hosts that leave"
    evidence: ClassVar[tuple[str, ...]] = ("commands",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        struck = [host for host in hosts if host.agent is not None]
        for host in struck:
            world.order(host, "leave", "", {})

        def mend() -> None:
            for host in struck:
                if host.agent is None:
                    world.start(host)

        return mend if struck else None


def _can_go(host: Host, world: World) -> bool:
    """Whether nobody has been expelled yet, and enough others hold each of its documents."""
    assert host.agent is not None
    if host.agent.standing.ledger.expulsions:
        return False
    counts = [
        sum(id in other.agent.deployments for other in world.cluster.live() if other.agent is not None)
        for id in host.agent.deployments
    ]
    return all(count > HOLDERS_MIN for count in counts)


def _chosen(world: World, app: str) -> tuple[str, list[Host]]:
    """``app``, or one by chance if it is empty, and the hosts that hold it and can take an order."""
    apps = [app] if app else world.apps()
    if not apps:
        return "", []
    chosen = world.rng.choice(apps)
    return chosen, [host for host in world.holders(chosen) if not host.stands_still]


def _desk(world: World, holders: Sequence[Host]) -> Host:
    """Where an operator gives an order: at one of the holders, or as often at any host of the cluster at all. What is
    deployed on a host that has lost its cluster is deployed in another one.
    """
    able = [(host, host.agent.swim.cluster) for host in world.cluster.live() if host.agent and not host.stands_still]
    ((main, _),) = Counter(cluster for _, cluster in able).most_common(1)
    anywhere = [host for host, cluster in able if cluster == main]
    near = [host for host in anywhere if host in holders]
    return world.rng.choice(world.rng.choice((near or anywhere, anywhere)))
