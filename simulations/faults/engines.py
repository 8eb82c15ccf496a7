"""What happens to engines and to containers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gary.runtime.base import ContainerState, Health
from simulations.faults.base import Mend, World, nothing
from simulations.host import Host
from simulations.units import Seconds, Share


@dataclass(frozen=True, slots=True)
class EngineDown:
    """The engines do not answer; their containers run on."""

    about: ClassVar[str] = "engines that do not answer"
    evidence: ClassVar[tuple[str, ...]] = ("engine_refused",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        for host in hosts:
            host.engine.go_down()

        def mend() -> None:
            for host in hosts:
                host.engine.come_up()

        return mend if hosts else None


@dataclass(frozen=True, slots=True)
class EngineSlow:
    """To start or stop a container takes ``by_s`` longer."""

    by_s: Seconds = 5.0
    about: ClassVar[str] = "engines that are slow"
    evidence: ClassVar[tuple[str, ...]] = ()

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        for host in hosts:
            host.timing.engine_late_s = self.by_s

        def mend() -> None:
            for host in hosts:
                host.timing.engine_late_s = 0.0

        return mend if hosts else None


@dataclass(frozen=True, slots=True)
class EngineHang:
    """The engines take what they are asked, and answer when it is over."""

    about: ClassVar[str] = "engines that hang"
    evidence: ClassVar[tuple[str, ...]] = ("engine_hung",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        for host in hosts:
            world.cluster.driver.set_engine_hanging(host, hangs=True)

        def mend() -> None:
            for host in hosts:
                world.cluster.driver.set_engine_hanging(host, hangs=False)

        return mend if hosts else None


@dataclass(frozen=True, slots=True)
class EngineLies:
    """With a ``chance`` an answer is not true: that a container was started, or could not be; or one is left out."""

    chance: Share = 0.3
    about: ClassVar[str] = "engines that lie"
    evidence: ClassVar[tuple[str, ...]] = ("engine_lied",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        for host in hosts:
            host.engine_lies = self.chance

        def mend() -> None:
            for host in hosts:
                host.engine_lies = 0.0

        return mend if hosts else None


@dataclass(frozen=True, slots=True)
class ContainerCrash:
    """On each of the hosts a container that runs, if there is one, ends by itself."""

    about: ClassVar[str] = "containers that end by themselves"
    evidence: ClassVar[tuple[str, ...]] = ()

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        struck = False
        for host in hosts:
            running = _running(host, world.now)
            if running:
                host.engine.crash(world.rng.choice(running), world.now)
                struck = True
        return nothing if struck else None


@dataclass(frozen=True, slots=True)
class HealthFlap:
    """The health checks of all containers on the hosts say that they are ill; then what they said before."""

    about: ClassVar[str] = "containers whose health checks fail"
    evidence: ClassVar[tuple[str, ...]] = ()

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        struck = [(host, container) for host in hosts for container in _running(host, world.now)]
        for host, container in struck:
            host.engine.set_health(container, Health.UNHEALTHY)

        def mend() -> None:
            for host, container in struck:
                if container in _running(host, world.now):
                    host.engine.set_health(container, None)

        return mend if struck else None


def _running(host: Host, now: float) -> list[str]:
    return [c.id for c in host.engine.present(now) if c.state is ContainerState.RUNNING]
