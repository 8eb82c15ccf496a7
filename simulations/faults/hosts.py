"""What happens to hosts and their agents, their clocks among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gossip import VERSIONS, VersionRange
from simulations.faults.base import Mend, World, nothing, without_agents
from simulations.host import Host
from simulations.units import Seconds, Share


@dataclass(frozen=True, slots=True)
class PowerLoss:
    """The hosts go dark; they come back with their disks when it is over."""

    about: ClassVar[str] = "hosts without power"
    evidence: ClassVar[tuple[str, ...]] = ("hosts_lost",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        return without_agents(world, hosts, with_host=True)


@dataclass(frozen=True, slots=True)
class AgentCrash:
    """The agents end and their containers run on; the agents start again when it is over."""

    about: ClassVar[str] = "agents that ended, while their containers run on"
    evidence: ClassVar[tuple[str, ...]] = ("agents_lost",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        return without_agents(world, hosts)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The agents end and start again as another ``version``, which ``speaks`` up to this version of the protocol."""

    version: str = "next"
    speaks: int = VERSIONS.highest + 1
    about: ClassVar[str] = "agents that are replaced by another version"
    evidence: ClassVar[tuple[str, ...]] = ("agents_lost",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        struck = [host for host in hosts if host.agent is not None]
        for host in struck:
            world.cluster.kill(host, with_host=False)
            host.version = self.version
            host.speaks = VersionRange(VERSIONS.lowest, max(VERSIONS.lowest, self.speaks))
            world.start(host)
        return nothing if struck else None


@dataclass(frozen=True, slots=True)
class Pause:
    """The agents stand still, as if stopped by a signal or by a virtual machine that moves; then they go on."""

    about: ClassVar[str] = "agents that stand still"
    evidence: ClassVar[tuple[str, ...]] = ("inputs_waited",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        struck = [host for host in hosts if host.agent is not None and not host.stands_still]
        for host in struck:
            world.cluster.pause(host)

        def mend() -> None:
            for host in struck:
                if host.stands_still:
                    world.cluster.resume(host)

        return mend if struck else None


@dataclass(frozen=True, slots=True)
class Starvation:
    """The agents get to everything up to ``late_s`` late."""

    late_s: Seconds = 1.0
    about: ClassVar[str] = "agents that get hardly any CPU"
    evidence: ClassVar[tuple[str, ...]] = ("inputs_late",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        for host in hosts:
            host.late_s = self.late_s

        def mend() -> None:
            for host in hosts:
                host.late_s = 0.0

        return mend if hosts else None


@dataclass(frozen=True, slots=True)
class ClockJump:
    """The hosts' wall clocks are ``by_s`` wrong, fast or slow by chance."""

    by_s: Seconds = 3600.0
    about: ClassVar[str] = "wall clocks that jump"
    evidence: ClassVar[tuple[str, ...]] = ()

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        for host in hosts:
            host.wall_skew_s = world.rng.choice((-self.by_s, self.by_s))

        def mend() -> None:
            for host in hosts:
                host.wall_skew_s = 0.0

        return mend if hosts else None


@dataclass(frozen=True, slots=True)
class ClockDrift:
    """The hosts' clocks and timers run ``rate`` fast or slow, by chance."""

    rate: Share = 0.01
    about: ClassVar[str] = "clocks that run fast or slow"
    evidence: ClassVar[tuple[str, ...]] = ()

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        for host in hosts:
            host.drift(world.rng.choice((1.0 - self.rate, 1.0 + self.rate)), world.now)

        def mend() -> None:
            for host in hosts:
                host.drift(1.0, world.now)

        return mend if hosts else None
