"""What people are shown: answers built from a document's state, a view of the cluster, and members' reports. Pure.

A report is what one member says of itself when asked live: its containers, its assessment of every promise, and what it
learned from nodes that declined. What nobody reported is unknown, and shown as unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gary.assignment import (
    Keeping,
    View,
    is_believed_healthy,
    keepings,
    live_members,
    live_promises,
    resilience,
    wanted_slots,
)
from gary.identity import NodeId, Slot, service_of
from gary.reconciler import Slate
from gary.runtime.base import Container, ContainerState
from gary.state import Promise, PromiseState, Role, State

Json = dict[str, Any]
Naming = Callable[[NodeId], str]
KEPT, NOT_KEPT, UNKNOWN = "kept", "not kept", "unknown"


def assessment(promise: Promise, view: View) -> str:
    """What the node of ``view`` concludes about a promise (Promise Theory: an assessment is always somebody's)."""
    if promise.node not in view.alive:
        return NOT_KEPT
    if promise.state is PromiseState.HEALTHY:
        return KEPT if is_believed_healthy(promise, view) else UNKNOWN
    return NOT_KEPT if promise.state is PromiseState.FAILING else UNKNOWN


def report(
    state: State,
    view: View,
    containers: Sequence[Container],
    slates: Mapping[Slot, Slate],
    declined: Mapping[Slot, Mapping[str, int]],
    address: str,
    trouble: str,
) -> Json:
    """This member's own report."""
    return {
        "containers": [
            {
                "slot": container.labels.slot,
                "id": container.id,
                "state": container.state.value,
                "restarts": slates.get(container.labels.slot, Slate()).restarts,
                "ports": [
                    {
                        "container_port": port.container_port,
                        "protocol": port.protocol,
                        "host_ip": port.host_ip,
                        "host_port": port.host_port,
                    }
                    for port in container.ports
                ],
            }
            for container in containers
        ],
        "restarts": {slot: slate.restarts for slot, slate in slates.items() if slate.restarts},
        "reasons": {slot: slate.reason for slot, slate in slates.items() if slate.reason},
        "assessments": {
            f"{promise.node}/{promise.slot}": assessment(promise, view)
            for promise in state.promises
            if promise.state is not PromiseState.WITHDRAWN
        },
        "declined": {slot: dict(reasons) for slot, reasons in declined.items()},
        "address": address,
        "trouble": trouble,
    }


def is_whole(state: State, view: View) -> bool:
    """Every wanted slot is kept, healthy and current, nobody keeps too much, and enough members hold the document."""
    wanted = wanted_slots(state, view)
    for slot in wanted:
        live = live_promises(state, view, slot)
        if (
            len(live) != 1
            or not is_believed_healthy(live[0], view)
            or not state.is_current(live[0])
            or live[0].yielding
        ):
            return False
    surplus = any(
        p.node in view.alive and p.slot not in wanted for p in state.promises if p.state is not PromiseState.WITHDRAWN
    )
    return not surplus and len(live_members(state, view)) >= resilience(state, view)


def condition(state: State, view: View) -> str:
    """``whole``, ``degraded`` when a slot has no keeper or a failing one, otherwise ``converging``."""
    if is_whole(state, view):
        return "whole"
    for keeping in keepings(state, view).values():
        if keeping.holder is None or keeping.holder.state is PromiseState.FAILING:
            return "degraded"
    return "converging"


def healthy_slots(state: State, view: View) -> list[Slot]:
    return [
        slot
        for slot, keeping in keepings(state, view).items()
        if keeping.holder is not None and is_believed_healthy(keeping.holder, view)
    ]


def summary(state: State, view: View, deployment: str, names: Naming) -> Json:
    """One line of ``gary ps``."""
    assert state.effective is not None
    return {
        "name": state.name,
        "id": deployment,
        "generation": state.number(state.effective),
        "services": len(state.services),
        "wanted": len(wanted_slots(state, view)),
        "healthy": len(healthy_slots(state, view)),
        "state": condition(state, view),
        "members": sorted(names(node) for node in live_members(state, view)),
    }


def status(state: State, view: View, deployment: str, names: Naming, reports: Mapping[NodeId, Json]) -> Json:
    """``gary status``: services, slots with their containers, members, and what is missing and why."""
    assert state.effective is not None
    situation = keepings(state, view)
    healthy = set(healthy_slots(state, view))
    slots = [_slot(state, slot, keeping, names, reports) for slot, keeping in situation.items()]
    slots += [
        _surplus(state, promise, names, reports)
        for promise in state.promises
        if promise.node in view.alive
        and promise.state is not PromiseState.WITHDRAWN
        and (promise.slot not in situation or situation[promise.slot].holder != promise)
    ]
    return {
        "name": state.name,
        "id": deployment,
        "generation": state.number(state.effective),
        "state": condition(state, view),
        "services": [
            {
                "name": service.name,
                "wanted": sum(service_of(slot) == service.name for slot in situation),
                "healthy": sum(service_of(slot) == service.name for slot in healthy),
                "updated": sum(
                    service_of(slot) == service.name and keeping.holder is not None and state.is_current(keeping.holder)
                    for slot, keeping in situation.items()
                ),
                "image": service.image,
                "runtime": service.runtime.value,
            }
            for service in state.services.values()
        ],
        "slots": slots,
        "members": [
            {
                "name": names(node),
                "node": node,
                "role": _role(state, node),
                "status": "alive" if node in view.alive else "left" if node in view.left else "down",
                "trouble": reports.get(node, {}).get("trouble", ""),
            }
            for node in sorted(state.holders, key=lambda node: (names(node), node))
        ],
        "operators": sorted(key.hex() for key in state.operators),
        "missing": missing(situation, reports),
        "resilience": {"wanted": resilience(state, view), "have": len(live_members(state, view))},
    }


def _role(state: State, node: NodeId) -> str:
    """What a holder is to the deployment; ``invited`` until it has said itself that it holds the document."""
    if state.members[node].role is Role.INVITED:
        return "invited"
    return "runner" if state.promises_of(node) else "witness"


def missing(situation: Mapping[Slot, Keeping], reports: Mapping[NodeId, Json]) -> list[Json]:
    """Each slot that nobody keeps well: how many nodes declined and why, by the reports of those who asked them."""
    found: list[Json] = []
    for slot, keeping in situation.items():
        if keeping.holder is not None and keeping.holder.state is not PromiseState.FAILING:
            continue
        declined: dict[str, int] = {}
        for member in reports.values():
            for reason, count in dict(member.get("declined", {}).get(slot, {})).items():
                declined[reason] = max(declined.get(reason, 0), count)
        if keeping.holder is not None:
            detail = keeping.holder.reason or "it fails"
        elif keeping.held:
            detail = f"reserved for a node that is away; 'gary release' gives {slot} to another"
        elif declined:
            detail = "no node could take it"
        else:
            detail = "a keeper is being looked for"
        found.append({"slot": slot, "asked": sum(declined.values()), "declined": declined, "detail": detail})
    return found


def _live(slot: Slot, node: NodeId, reports: Mapping[NodeId, Json]) -> Json:
    """What the node itself reported of its container on ``slot``; a running one before one that has ended."""
    entries = [c for c in reports.get(node, {}).get("containers", ()) if c.get("slot") == slot]
    running = [entry for entry in entries if entry.get("state") == ContainerState.RUNNING.value]
    return dict((running or entries or [{}])[0])


def _slot(state: State, slot: Slot, keeping: Keeping, names: Naming, reports: Mapping[NodeId, Json]) -> Json:
    holder = keeping.holder
    if holder is not None:
        return _surplus(state, holder, names, reports)
    return {
        "slot": slot,
        "service": service_of(slot),
        "state": "held" if keeping.held else "unkept",
        "node": None,
        "node_name": None,
        "generation": None,
        "current": False,
        "reason": f"last kept by {', '.join(names(node) for node in keeping.lost)}" if keeping.lost else "",
        "restarts": 0,
        "container": None,
        "ports": [],
    }


def _surplus(state: State, promise: Promise, names: Naming, reports: Mapping[NodeId, Json]) -> Json:
    live = _live(promise.slot, promise.node, reports)
    said = reports.get(promise.node, {})
    reasons = (promise.reason or said.get("reasons", {}).get(promise.slot, ""), said.get("trouble", ""))
    return {
        "slot": promise.slot,
        "service": service_of(promise.slot),
        "state": promise.state.value,
        "node": promise.node,
        "node_name": names(promise.node),
        "generation": state.number(promise.generation),
        "current": state.is_current(promise),
        "reason": "; ".join(reason for reason in reasons if reason),
        "restarts": said.get("restarts", {}).get(promise.slot, 0),
        "container": live.get("id"),
        "ports": live.get("ports", []),
    }


def promises(state: State, names: Naming, reports: Mapping[NodeId, Json], members: Sequence[NodeId]) -> Json:
    """``gary promises``: each promise, and what each member assesses it as. Who did not answer says ``unknown``."""
    return {
        "promises": [
            {
                "slot": promise.slot,
                "node": promise.node,
                "node_name": names(promise.node),
                "state": promise.state.value,
                "generation": state.number(promise.generation),
                "claim": str(promise.claim.lamport),
                "reason": promise.reason,
                "assessments": {
                    names(member): reports.get(member, {})
                    .get("assessments", {})
                    .get(f"{promise.node}/{promise.slot}", UNKNOWN)
                    for member in members
                },
            }
            for promise in state.promises
            if promise.state is not PromiseState.WITHDRAWN
        ]
    }


def endpoints(state: State, view: View, names: Naming, reports: Mapping[NodeId, Json]) -> Json:
    """``gary endpoints``: where the ports of healthy slots answer now. No dead members, no withdrawn slots."""
    found: list[Json] = []
    for slot, keeping in keepings(state, view).items():
        holder = keeping.holder
        if holder is None or not is_believed_healthy(holder, view):
            continue
        address = str(reports.get(holder.node, {}).get("address", ""))
        for port in _live(slot, holder.node, reports).get("ports", []):
            host_ip = port.get("host_ip", "")
            found.append(
                {
                    "service": service_of(slot),
                    "slot": slot,
                    "node": holder.node,
                    "node_name": names(holder.node),
                    "address": host_ip if host_ip not in ("", "0.0.0.0", "::") else address,
                    "port": port.get("host_port"),
                    "container_port": port.get("container_port"),
                    "protocol": port.get("protocol"),
                }
            )
    return {"endpoints": found}
