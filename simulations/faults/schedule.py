"""When faults strike, whom, and when they are over: as planned, and by chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from simulations.faults.base import Fault, Mend, World
from simulations.faults.catalogue import KINDS, name_of
from simulations.host import Host
from simulations.result import Happening
from simulations.scenarios.model import Chance, Planned, Where

LIVE_MIN = 2
"""Chance leaves so many agents running."""


@dataclass(slots=True)
class _Striking:
    """A fault that is at work. ``counted``: its evidence when it began. ``is_planned``: somebody counts on it."""

    fault: Fault
    index: int
    mend: Mend
    counted: int
    is_planned: bool


class Schedule:
    """All faults of one run. ``happenings``: what struck. ``unproven``: what was planned and left no trace, ``missed``:
    what was planned and found nothing to break.
    """

    def __init__(self, world: World) -> None:
        self.happenings: list[Happening] = []
        self.unproven: list[str] = []
        self.missed: list[str] = []
        self._world = world
        self._began_s = 0.0
        self._striking: list[_Striking] = []
        self._stopped = False

    @property
    def at_work(self) -> int:
        """How many faults are not over."""
        return len(self._striking)

    def begin(self, planned: Sequence[Planned], chance: Chance) -> None:
        """From now on, everything happens in its time."""
        after = self._world.cluster.clock.after
        self._began_s = self._world.now
        for plan in planned:
            for number in range(plan.times):
                after(plan.at_s + number * plan.every_s, self._strike_planned, plan)
        if chance.for_s:
            after(chance.from_s, self._strike_by_chance, chance, self._world.now + chance.from_s + chance.for_s)

    def end(self) -> None:
        """Nothing strikes any more, and all that did is over."""
        self._stopped = True
        while self._striking:
            self._over(self._striking[-1])

    # Inside

    def _strike_planned(self, plan: Planned) -> None:
        if self._stopped:
            return
        if not self._strike(plan.fault, _chosen(plan.where, self._world), plan.lasts_s, is_planned=True):
            self.missed.append(f"{name_of(plan.fault)} at {plan.at_s:g} s found nothing to break")

    def _strike_by_chance(self, chance: Chance, until_s: float) -> None:
        world = self._world
        if self._stopped or world.now >= until_s:
            return
        weights = chance.kinds or {name: kind.weight for name, kind in KINDS.items()}
        kind = KINDS[world.rng.choices(list(weights), list(weights.values()))[0]]
        live = world.cluster.live()
        spare = len(live) - LIVE_MIN if kind.takes_away else len(live)
        if spare > 0:
            most = min(kind.hosts_max, spare)
            hosts = world.rng.sample(live, world.rng.randint(1, most))
            self._strike(kind.make(), hosts, world.rng.uniform(*chance.lasts_s), is_planned=False)
        world.cluster.clock.after(world.rng.uniform(*chance.pause_s), self._strike_by_chance, chance, until_s)

    def _strike(self, fault: Fault, hosts: Sequence[Host], lasts_s: float | None, *, is_planned: bool) -> bool:
        world = self._world
        counted = self._evidence(fault)
        mend = fault.strike(world, hosts)
        if mend is None:
            return False
        self.happenings.append(Happening(world.now - self._began_s, name_of(fault), _about(fault, hosts, world)))
        striking = _Striking(fault, len(self.happenings) - 1, mend, counted, is_planned)
        self._striking.append(striking)
        if lasts_s is not None:
            world.cluster.clock.after(lasts_s, self._over, striking)
        return True

    def _over(self, striking: _Striking) -> None:
        if striking not in self._striking:
            return
        self._striking.remove(striking)
        striking.mend()
        until_s = self._world.now - self._began_s
        happening = replace(self.happenings[striking.index], until_s=until_s)
        if striking.fault.evidence and self._evidence(striking.fault) <= striking.counted:
            happening = replace(happening, about=f"{happening.about}; it changed nothing")
            if striking.is_planned:
                self.unproven.append(f"{happening.kind} at {happening.at_s:.1f} s: {happening.about}")
        self.happenings[striking.index] = happening

    def _evidence(self, fault: Fault) -> int:
        return sum(self._world.cluster.counters.get(name, 0) for name in fault.evidence)


def _chosen(where: Where, world: World) -> list[Host]:
    """The hosts that ``where`` means, now."""
    conditions: list[Callable[[Host], bool]] = []
    if where.zone:
        conditions.append(lambda host: host.labels.get("zone") == where.zone)
    if where.rack:
        conditions.append(lambda host: host.labels.get("rack") == where.rack)
    if where.hosts:
        conditions.append(lambda host: host.name in where.hosts)
    if where.holding:
        holders = {host.name for host in world.holders(where.holding)}
        conditions.append(lambda host: host.name in holders)
    hosts = [
        host for host in world.cluster.hosts if host.agent is not None and all(holds(host) for holds in conditions)
    ]
    count = where.count or (round(where.share * len(hosts)) if where.share else len(hosts))
    return hosts if count >= len(hosts) else world.rng.sample(hosts, count)


def _about(fault: Fault, hosts: Sequence[Host], world: World) -> str:
    if len(hosts) == len(world.cluster.hosts):
        return f"{fault.about}: all hosts"
    names = ", ".join(host.name for host in hosts[:4])
    return f"{fault.about}: {names}{f' and {len(hosts) - 4} more' if len(hosts) > 4 else ''}"
