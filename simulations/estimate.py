"""What a run will take, before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from simulations.scenarios.model import Scenario

BASE_BYTES: Final = 60_000_000
AGENT_BYTES: Final = 100_000
HEARD_BYTES: Final = 100
"""Of each agent's view, for each member that it has heard: what differs from what all began with."""
HEARD_PER_S: Final = 2.0
ADVERTISED_BYTES: Final = 150
"""Of each agent, for each copy of a document: what its holder advertises has changed since all began with the same."""
COPY_BYTES: Final = 150_000
"""A document, its history and its disk, for each member of a deployment."""
MEMBERS_OF_A_DEPLOYMENT: Final = 3


def memory_bytes(scenario: Scenario) -> int:
    """About how much memory a run of it takes."""
    copies = sum(
        group.count * max(MEMBERS_OF_A_DEPLOYMENT, min(group.replicas, scenario.nodes))
        for group in scenario.deployments
    )
    heard = min(scenario.nodes, round(HEARD_PER_S * scenario.for_s))
    agent_bytes = AGENT_BYTES + heard * HEARD_BYTES + min(copies, scenario.nodes) * ADVERTISED_BYTES
    return BASE_BYTES + scenario.nodes * agent_bytes + copies * COPY_BYTES


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """How much memory programs can have on this machine now; None where nobody says."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None
