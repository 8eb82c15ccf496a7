"""All kinds of faults by name, and how often each comes when chance decides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from simulations.faults import disks, engines, hosts, network, operators, poison
from simulations.faults.base import Fault


@dataclass(frozen=True, slots=True)
class Kind:
    """``weight``: how often it comes by chance, compared to the others. ``hosts_max``: how many it then strikes, and
    ``takes_away``: whether those are then without an agent.
    """

    make: type[Fault]
    weight: int = 1
    hosts_max: int = 1
    takes_away: bool = False


def name_of(fault: Fault | type[Fault]) -> str:
    """The name of its class, in lower case and with dashes."""
    kind = fault if isinstance(fault, type) else type(fault)
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


def _named(*kinds: Kind) -> dict[str, Kind]:
    return {name_of(kind.make): kind for kind in kinds}


KINDS: Final[dict[str, Kind]] = _named(
    Kind(network.Partition, 3, hosts_max=1_000_000),
    Kind(network.Isolation, 3, hosts_max=2),
    Kind(network.OneWay, 2, hosts_max=2),
    Kind(network.Loss, 2, hosts_max=1_000_000),
    Kind(network.Slowness, 2, hosts_max=10),
    Kind(network.Stalls, 2, hosts_max=1_000_000),
    Kind(network.Duplication, 2, hosts_max=1_000_000),
    Kind(network.Reordering, 2, hosts_max=1_000_000),
    Kind(network.Narrowness, 1, hosts_max=5),
    Kind(hosts.PowerLoss, 4, hosts_max=2, takes_away=True),
    Kind(hosts.AgentCrash, 4, hosts_max=2, takes_away=True),
    Kind(hosts.Upgrade, 1, hosts_max=2),
    Kind(hosts.Pause, 3, hosts_max=2),
    Kind(hosts.Starvation, 2, hosts_max=3),
    Kind(hosts.ClockJump, 1, hosts_max=3),
    Kind(hosts.ClockDrift, 1, hosts_max=3),
    Kind(disks.DiskFull, 2, hosts_max=2),
    Kind(disks.DiskSlow, 2, hosts_max=3),
    Kind(disks.DiskLost, 0),
    Kind(disks.DiskUnreadable, 0),
    Kind(disks.DiskRestored, 1),
    Kind(disks.DiskForgets, 1),
    Kind(disks.DiskCorrupted, 1),
    Kind(disks.DiskDamaged, 1),
    Kind(engines.EngineDown, 2, hosts_max=2),
    Kind(engines.EngineSlow, 1, hosts_max=3),
    Kind(engines.EngineHang, 1, hosts_max=2),
    Kind(engines.EngineLies, 1, hosts_max=2),
    Kind(engines.ContainerCrash, 4, hosts_max=3),
    Kind(engines.HealthFlap, 1, hosts_max=2),
    Kind(poison.Poison, 1),
    Kind(operators.Scale, 4),
    Kind(operators.Update, 3),
    Kind(operators.Expel, 1),
    Kind(operators.Remove, 1),
    Kind(operators.Rotate, 1),
    Kind(operators.Drain, 1, takes_away=True),
)
"""By name."""
