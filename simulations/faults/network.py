"""What goes wrong between hosts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

from simulations.faults.base import Mend, World
from simulations.host import Host
from simulations.network import Impairment, Link
from simulations.units import BytesPerSecond, Seconds, Share

LINKS_REMEMBERED_MAX = 256


@dataclass(frozen=True, slots=True)
class Partition:
    """The hosts on one side, all others on the other."""

    about: ClassVar[str] = "two sides that do not hear each other"
    evidence: ClassVar[tuple[str, ...]] = ("cut",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        side = _addresses(hosts)
        if not side or len(side) == len(world.cluster.hosts):
            return None
        return world.cluster.network.impair(Impairment(lambda a, b: (a in side) != (b in side), None))


@dataclass(frozen=True, slots=True)
class Isolation:
    """Each of the hosts alone: its cable is pulled."""

    about: ClassVar[str] = "hosts that hear nobody and that nobody hears"
    evidence: ClassVar[tuple[str, ...]] = ("cut",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        alone = _addresses(hosts)
        return world.cluster.network.impair(Impairment(lambda a, b: a in alone or b in alone, None)) if alone else None


@dataclass(frozen=True, slots=True)
class OneWay:
    """The hosts hear everybody, and ``deaf`` share of the others do not hear them."""

    deaf: Share = 1.0
    about: ClassVar[str] = "hosts that others do not hear, though they hear them"
    evidence: ClassVar[tuple[str, ...]] = ("cut",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        mute = _addresses(hosts)
        others = [host.address for host in world.cluster.hosts if host.address not in mute]
        deaf = frozenset(world.rng.sample(others, round(self.deaf * len(others))))
        if not mute or not deaf:
            return None
        return world.cluster.network.impair(Impairment(lambda a, b: a in mute and b in deaf, None))


@dataclass(frozen=True, slots=True)
class Loss:
    """Frames to and from the hosts vanish."""

    chance: Share = 0.1
    about: ClassVar[str] = "frames that vanish"
    evidence: ClassVar[tuple[str, ...]] = ("lost",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        return _worsen(world, hosts, lambda link: replace(link, loss=max(link.loss, self.chance)))


@dataclass(frozen=True, slots=True)
class Slowness:
    """Frames to and from the hosts take ``factor`` times as long; with a chance of ``tail`` some ``tail_s`` more."""

    factor: float = 10.0
    tail: Share = 0.01
    tail_s: Seconds = 0.1
    about: ClassVar[str] = "frames that take long"
    evidence: ClassVar[tuple[str, ...]] = ("slowed",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        def worse(link: Link) -> Link:
            low, high = link.delay_s
            slower = low * self.factor, high * self.factor
            return replace(link, delay_s=slower, tail=max(link.tail, self.tail), tail_s=self.tail_s)

        return _worsen(world, hosts, worse)


@dataclass(frozen=True, slots=True)
class Stalls:
    """Packets are lost and sent again, and what is behind them waits."""

    chance: Share = 0.05
    about: ClassVar[str] = "packets that are sent again while others wait behind them"
    evidence: ClassVar[tuple[str, ...]] = ("stalled",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        return _worsen(world, hosts, lambda link: replace(link, stalls=max(link.stalls, self.chance)))


@dataclass(frozen=True, slots=True)
class Duplication:
    """Frames come twice."""

    chance: Share = 0.1
    about: ClassVar[str] = "frames that come twice"
    evidence: ClassVar[tuple[str, ...]] = ("duplicated",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        return _worsen(world, hosts, lambda link: replace(link, duplication=max(link.duplication, self.chance)))


@dataclass(frozen=True, slots=True)
class Reordering:
    """Frames overtake each other, as over connections that are made anew."""

    chance: Share = 0.2
    about: ClassVar[str] = "frames that overtake others"
    evidence: ClassVar[tuple[str, ...]] = ("overtaken",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        return _worsen(world, hosts, lambda link: replace(link, reordering=max(link.reordering, self.chance)))


@dataclass(frozen=True, slots=True)
class Narrowness:
    """The hosts can send so little that frames queue up."""

    uplink_bytes_per_s: BytesPerSecond = 20_000.0
    about: ClassVar[str] = "hosts whose uplink is too narrow"
    evidence: ClassVar[tuple[str, ...]] = ("queued", "overflowed")

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        narrow = _addresses(hosts)
        if not narrow:
            return None
        return world.cluster.network.impair(
            Impairment(lambda a, b: a in narrow, lambda link: replace(link, bytes_per_s=self.uplink_bytes_per_s))
        )


def _addresses(hosts: Sequence[Host]) -> frozenset[str]:
    return frozenset(host.address for host in hosts)


def _worsen(world: World, hosts: Sequence[Host], worsen: Callable[[Link], Link]) -> Mend | None:
    struck = _addresses(hosts)
    if not struck:
        return None
    # Of thousands of ways between hosts most are alike.
    worsened = lru_cache(LINKS_REMEMBERED_MAX)(worsen)
    return world.cluster.network.impair(Impairment(lambda a, b: a in struck or b in struck, worsened))
