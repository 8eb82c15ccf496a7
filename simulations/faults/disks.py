"""What happens to disks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from simulations.faults.base import Mend, World, without_agents
from simulations.host import Host


@dataclass(frozen=True, slots=True)
class DiskFull:
    """Nothing can be written."""

    about: ClassVar[str] = "disks that are full"
    evidence: ClassVar[tuple[str, ...]] = ("writes_refused",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        for host in hosts:
            host.storage.failing = "no space left on the disk"

        def mend() -> None:
            for host in hosts:
                host.storage.failing = None

        return mend if hosts else None


@dataclass(frozen=True, slots=True)
class DiskSlow:
    """Every write takes ``factor`` times as long."""

    factor: float = 100.0
    about: ClassVar[str] = "disks that write slowly"
    evidence: ClassVar[tuple[str, ...]] = ("writes_slow",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        for host in hosts:
            host.timing.write_factor = self.factor

        def mend() -> None:
            for host in hosts:
                host.timing.write_factor = 1.0

        return mend if hosts else None


@dataclass(frozen=True, slots=True)
class DiskLost:
    """The agents end, and start again on empty disks; their containers run on."""

    about: ClassVar[str] = "disks that were replaced by empty ones"
    evidence: ClassVar[tuple[str, ...]] = ("agents_lost",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        return without_agents(world, hosts, meanwhile=lambda host: host.storage.wipe())


@dataclass(frozen=True, slots=True)
class DiskUnreadable:
    """The agents end, and their disks cannot be read when they start again."""

    about: ClassVar[str] = "disks that became unreadable"
    evidence: ClassVar[tuple[str, ...]] = ("agents_lost",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        return without_agents(world, hosts, meanwhile=lambda host: host.storage.corrupt())


@dataclass(frozen=True, slots=True)
class DiskForgets:
    """The disks say that writes are durable and keep none of them: when it is over the hosts lose power, and are back
    with what the disks had when it began.
    """

    about: ClassVar[str] = "disks that forget what they wrote when the power goes"
    evidence: ClassVar[tuple[str, ...]] = ("hosts_lost",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        struck = [(host, host.storage.copy()) for host in hosts if host.agent is not None]

        def mend() -> None:
            for host, copy in struck:
                if host.agent is not None:
                    world.cluster.kill(host)
                host.storage.restore(copy)
                world.start(host)

        return mend if struck else None


@dataclass(frozen=True, slots=True)
class DiskCorrupted:
    """The agents end, and find some bytes of their documents changed when they start again."""

    about: ClassVar[str] = "disks on which bytes of documents have changed"
    evidence: ClassVar[tuple[str, ...]] = ("documents_corrupted",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        def corrupt(host: Host) -> None:
            world.cluster.counters["documents_corrupted"] += host.storage.corrupt_documents(world.rng)

        return without_agents(world, [host for host in hosts if host.storage.load().documents], meanwhile=corrupt)


@dataclass(frozen=True, slots=True)
class DiskDamaged:
    """The agents end, and find that a record of theirs is not what they wrote when they start again: who they are, whom
    they know, what was removed, or how they stand with the cluster.
    """

    about: ClassVar[str] = "disks on which bytes of other records have changed"
    evidence: ClassVar[tuple[str, ...]] = ("records_damaged",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        def damage(host: Host) -> None:
            records = {table: sorted(kept) for table, kept in host.storage.load().records.items() if kept}
            table = world.rng.choice(list(records))
            host.storage.damage(table, world.rng.choice(records[table]))
            world.cluster.counters["records_damaged"] += 1

        return without_agents(world, hosts, meanwhile=damage)


@dataclass(frozen=True, slots=True)
class DiskRestored:
    """The agents end, and start again on disks as they were up to a minute ago."""

    about: ClassVar[str] = "disks that are restored from an old copy"
    evidence: ClassVar[tuple[str, ...]] = ("agents_lost",)

    def strike(self, world: World, hosts: Sequence[Host]) -> Mend | None:
        return without_agents(world, [host for host in hosts if host.backup is not None], meanwhile=_restore)


def _restore(host: Host) -> None:
    assert host.backup is not None
    host.storage.restore(host.backup)
