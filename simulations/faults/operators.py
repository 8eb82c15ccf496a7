"""What operators do meanwhile, and what they do wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from simulations.faults.base import Mend, World, nothing
from simulations.host import Host
from simulations.units import Seconds


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
        app = self.app or _any(world)
        holders = _able(world, app)
        if not holders:
            return None
        count = self.replicas or world.rng.randint(1, self.up_to)
        world.order(world.rng.choice(holders), "scale", {"app": app, "services": {self.service: count}})
        return nothing


@dataclass(frozen=True, slots=True)
class Remove:
    """``app`` (empty: one by chance) is removed."""

    app: str = ""
    about: ClassVar[str] = "a deployment is removed"
    evidence: ClassVar[tuple[str, ...]] = ("commands",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        app = self.app or _any(world)
        holders = _able(world, app)
        if not holders:
            return None
        world.order(world.rng.choice(holders), "remove", {"app": app})
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
        world.order(world.rng.choice(able), "rotate", {"overlap_s": int(self.overlap_s)})
        return nothing


@dataclass(frozen=True, slots=True)
class Drain:
    """The hosts leave the cluster on purpose, after somebody else keeps what they kept; they join again afterwards."""

    about: ClassVar[str] = "hosts that leave"
    evidence: ClassVar[tuple[str, ...]] = ("commands",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        struck = [host for host in hosts if host.agent is not None]
        for host in struck:
            world.order(host, "leave", {})

        def mend() -> None:
            for host in struck:
                if host.agent is None:
                    world.start(host)

        return mend if struck else None


def _any(world: World) -> str:
    apps = world.apps()
    return world.rng.choice(apps) if apps else ""


def _able(world: World, app: str) -> list[Host]:
    return [host for host in world.holders(app) if not host.stands_still] if app else []
