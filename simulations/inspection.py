"""Looking at hosts and their agents from outside, at one moment."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.table import Table

from gary.storage import Table as Records
from gossip import Status
from simulations.cluster import Cluster
from simulations.host import Host


def overview(cluster: Cluster) -> Table:
    """A row for each host."""
    table = Table("host", "agent", "sees alive", "documents", "promises", "runs", "writes wait")
    for host in cluster.hosts:
        running = [c.labels.slot for c in host.engine.present(cluster.clock.now) if c.state.value == "running"]
        if host.agent is None:
            table.add_row(host.name, "none", "", "", "", ", ".join(running), "")
            continue
        gauges = host.agent.gauges()
        table.add_row(
            host.name,
            "stands still" if host.stands_still else host.agent.node[:8],
            f"{gauges['alive_members']:.0f}",
            f"{gauges['deployments']:.0f}",
            f"{gauges['promises']:.0f}",
            ", ".join(running),
            f"{gauges['unwritten']:.0f}",
        )
    return table


def whole_state(cluster: Cluster, host: Host) -> dict[str, Any]:
    """All about a host, its disk and engine and its agent, ready for JSON."""
    now = cluster.clock.now
    stored = host.storage.load()
    state: dict[str, Any] = {
        "host": host.name,
        "address": host.address,
        "labels": dict(host.labels),
        "version": host.version,
        "starts": host.life,
        "clock": {"now_s": host.local_s(now), "rate": host.clock_rate, "wall_skew_s": host.wall_skew_s},
        "stands_still": host.stands_still,
        "inputs_waiting": len(host.overdue) + len(host.waiting),
        "disk": {
            "records": {table.value: len(stored.records[table]) for table in Records},
            "documents": {id: len(document.changes) for id, document in stored.documents.items()},
        },
        "containers": [
            {
                "slot": container.labels.slot,
                "deployment": container.labels.deployment,
                "state": container.state.value,
                "health": container.health.value,
                "generation": container.labels.generation,
            }
            for container in host.engine.present(now)
        ],
        "agent": None,
    }
    if host.agent is not None:
        state["agent"] = _agent(host)
    return state


def _agent(host: Host) -> dict[str, Any]:
    agent = host.agent
    assert agent is not None
    members = agent.swim.members()
    return {
        "node": agent.node,
        "incarnation": list(agent.swim.incarnation),
        "local_health": agent.swim.local_health,
        "members": dict(Counter(member.status.value for member in members)),
        "not_alive": {m.node: m.status.value for m in members if m.status is not Status.ALIVE},
        "vouches": agent.standing.vouches,
        "expelled": sorted(agent.standing.ledger.expulsions),
        "deployments": {id: _deployment(deployment) for id, deployment in agent.deployments.items()},
        "gauges": agent.gauges(),
        "counters": {**dict(sorted(agent.counters.items())), **dict(sorted(agent.swim.counters().items()))},
        "events": [f"{event.at_s:.3f} {event.kind}: {event.message}" for event in agent.events],
    }


def _deployment(deployment: Any) -> dict[str, Any]:
    state, replica = deployment.state, deployment.document.replica
    return {
        "name": state.name,
        "generation": str(state.effective),
        "epoch": deployment.document.epoch,
        "changes": replica.change_count,
        "heads": [head.hex() for head in replica.heads()],
        "members": {node: member.role.value for node, member in state.members.items()},
        "promises": [
            {
                "slot": p.slot,
                "node": p.node,
                "state": p.state.value,
                "generation": str(p.generation),
                "reason": p.reason,
            }
            for p in state.promises
        ],
        "writes_waiting": deployment.unwritten,
    }
