"""A scenario: what there is, what happens to it, and what to expect.

Every class here is a table of a scenario file, and its fields are that table's keys: ``memory_bytes`` is written as
``memory`` with a unit (``reader``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gary.spec import Spec
from gossip import VERSIONS
from simulations.faults.base import Fault
from simulations.units import Bytes, BytesPerSecond, Seconds, Share, Span


@dataclass(frozen=True, slots=True)
class Hosts:
    """So many hosts of one kind.

    ``zone`` empty: they are dealt over all zones, and in each over its racks. ``joins_s``: when they start and join;
    until ``joins_s`` + ``within_s`` all have; None: they are there from the beginning. ``version``: of the software,
    which ``speaks`` up to this version of the protocol between nodes.
    ``vouch``: whether they may hold the secret of the cluster's root.
    """

    count: int = 1
    zone: str = ""
    cpus: float = 4.0
    memory_bytes: Bytes = 8_000_000_000
    containers: int = 100
    labels: Mapping[str, str] = field(default_factory=dict)
    joins_s: Seconds | None = None
    within_s: Seconds = 0.0
    version: str = "simulated"
    speaks: int = VERSIONS.highest
    vouch: bool = True


@dataclass(frozen=True, slots=True)
class Way:
    """How frames get from one place to another (``simulations.network.Link``).

    ``delay_s``: drawn uniformly from it; with a chance of ``tail`` there come as many as ``tail_s`` seconds on top, on
    average. ``loss``: frames vanish. ``stalls``: packets are sent again, and what is behind them waits.
    """

    delay_s: Span = (0.0002, 0.001)
    tail: Share = 0.0
    tail_s: Seconds = 0.01
    loss: Share = 0.0
    stalls: Share = 0.0


@dataclass(frozen=True, slots=True)
class Between:
    """``way``: from each of two ``zones`` to the other."""

    zones: tuple[str, ...] = ()
    way: Way = Way()


_IN_RACK = Way(delay_s=(0.0001, 0.0003))
_IN_ZONE = Way(delay_s=(0.0002, 0.0006))
_FAR = Way(delay_s=(0.0005, 0.0015))


@dataclass(frozen=True, slots=True)
class Topology:
    """Where hosts are, and how frames get from one to another.

    ``zones`` and, in each, ``racks``. ``in_rack``: within one; ``in_zone``: from rack to rack; ``far``: from zone to
    zone, unless ``between`` says something else about the two. ``handshake_s``: computed at both ends of a new
    connection. ``uplink_bytes_per_s``: what a host can send; 0: without limit.
    """

    zones: tuple[str, ...] = ("z0", "z1", "z2")
    racks: int = 2
    in_rack: Way = _IN_RACK
    in_zone: Way = _IN_ZONE
    far: Way = _FAR
    between: tuple[Between, ...] = ()
    handshake_s: Seconds = 0.005
    uplink_bytes_per_s: BytesPerSecond = 0.0


@dataclass(frozen=True, slots=True)
class Engines:
    """How long engines take: ``pull_s`` for an image that a host does not have, ``start_s`` and ``stop_s``."""

    pull_s: Span = (0.5, 3.0)
    start_s: Span = (0.1, 0.4)
    stop_s: Span = (0.05, 0.2)


@dataclass(frozen=True, slots=True)
class Disks:
    """``write_s``: how long a write takes. ``stalls``: the chance that one takes ``stall_s`` more."""

    write_s: Span = (0.001, 0.004)
    stalls: Share = 0.0
    stall_s: Seconds = 0.5


@dataclass(frozen=True, slots=True)
class Deployments:
    """``count`` deployments, of ``replicas`` containers each or as ``compose`` says; with several, names are numbered.

    ``at_s``: when they are deployed, each on a host of its own, all within ``within_s``.
    """

    name: str = "app"
    count: int = 1
    replicas: int = 3
    image: str = "registry.example/app:1"
    compose: Spec | None = None
    at_s: Seconds = 0.0
    within_s: Seconds = 0.0


@dataclass(frozen=True, slots=True)
class Where:
    """Which hosts: all conditions hold. ``count`` or ``share``: so many of those, by chance; neither: all of them."""

    zone: str = ""
    rack: str = ""
    hosts: tuple[str, ...] = ()
    holding: str = ""
    count: int = 0
    share: Share = 0.0


@dataclass(frozen=True, slots=True)
class Planned:
    """``fault`` strikes at ``at_s`` and is over after ``lasts_s`` (None: with the last of them all); ``times`` times in
    all, each ``every_s`` after the one before.
    """

    fault: Fault
    where: Where = Where()
    at_s: Seconds = 0.0
    lasts_s: Seconds | None = None
    times: int = 1
    every_s: Seconds = 0.0


@dataclass(frozen=True, slots=True)
class Chance:
    """Faults by chance, from ``from_s`` on for ``for_s``, with a ``pause_s`` between two; each ``lasts_s``. ``kinds``:
    how often each comes, compared to the others; empty: as often as ``faults.catalogue`` says.
    """

    for_s: Seconds = 0.0
    from_s: Seconds = 0.0
    pause_s: Span = (0.5, 5.0)
    lasts_s: Span = (2.0, 30.0)
    kinds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expect:
    """What a run of the scenario has to show, beside what every run has to.

    ``whole_within_s``: after the last fault all is well within that time. ``kept``: the share of slots that, once
    they have run, run at any time. ``recovery_s``: the longest time that a slot may be without a
    container. ``sent_bytes_per_s``: what an agent may send, on average over all agents and the whole run.
    """

    whole_within_s: Seconds = 120.0
    kept: Share = 0.0
    recovery_s: Seconds | None = None
    sent_bytes_per_s: BytesPerSecond | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """``name``: empty for that of its file. ``for_s``: how long things happen. Then faults end, and all has to become
    well (``expect.whole_within_s``).

    ``forming``: ``at once``: all hosts have known each other for long when the run begins; ``by tokens``: they join one
    by one, with the whole protocol. ``profile``: of gossip. ``epoch_changes``: after so many changes a document begins
    anew.
    """

    name: str = ""
    about: str = ""
    for_s: Seconds = 60.0
    seed: int = 1
    forming: str = "at once"
    profile: str = "lan"
    epoch_changes: int = 1000
    hosts: tuple[Hosts, ...] = (Hosts(20),)
    topology: Topology = Topology()
    engines: Engines = Engines()
    disks: Disks = Disks()
    deployments: tuple[Deployments, ...] = (Deployments(),)
    faults: tuple[Planned, ...] = ()
    chance: Chance = Chance()
    expect: Expect = Expect()

    @property
    def nodes(self) -> int:
        return sum(hosts.count for hosts in self.hosts)
