"""Finding nodes that take on slots: what is asked for, who could, who is chosen. Pure, but for the one open ``Call``.

A call shows requirements and nothing else: never a name, an image or an environment (rule 2). An offer is a hint and
holds nothing; what counts is the invited node's own promise.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gary.identity import NodeId, Slot, index_of, rendezvous, service_of
from gary.spec import Constraint, Mode, RuntimeName, Service

DEFAULT_CPUS = 0.05
DEFAULT_MEMORY_BYTES = 32 * 1024 * 1024
"""What a container without a reservation is counted with, so that a node cannot promise without end."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What one replica of a service needs of a node. ``ports``: fixed host ports as (port, protocol)."""

    runtime: RuntimeName
    cpus: float
    memory_bytes: int
    ports: tuple[tuple[int, str], ...] = ()
    constraints: tuple[Constraint, ...] = ()


@dataclass(frozen=True, slots=True)
class Room:
    """What a node has to offer. ``free_*`` is what its promises leave; ``ports`` are its fixed host ports in use."""

    node: NodeId
    hostname: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    runtimes: tuple[str, ...] = ()
    free_cpus: float = 0.0
    free_memory_bytes: int = 0
    free_containers: int = 0
    ports: frozenset[tuple[int, str]] = frozenset()
    accepting: bool = True


def requirement(service: Service) -> Requirement:
    resources = service.resources
    cpus = resources.reserve_cpus or min(DEFAULT_CPUS, resources.limit_cpus or DEFAULT_CPUS)
    memory = resources.reserve_memory_bytes or min(
        DEFAULT_MEMORY_BYTES, resources.limit_memory_bytes or DEFAULT_MEMORY_BYTES
    )
    ports = tuple(sorted((port.host, port.protocol) for port in service.ports if port.host))
    return Requirement(service.runtime, cpus, memory, ports, service.constraints)


def unmet_constraint(constraints: Iterable[Constraint], room: Room) -> str | None:
    """The first constraint that the node does not satisfy, in words."""
    for constraint in constraints:
        match constraint.attribute.split(".", 2):
            case ["node", "id"]:
                actual = room.node
            case ["node", "hostname"]:
                actual = room.hostname
            case ["node", "labels", label]:
                actual = room.labels.get(label, "")
            case _:
                actual = ""
        if (actual == constraint.value) is not constraint.equal:
            sign = "==" if constraint.equal else "!="
            return f"constraint {constraint.attribute} {sign} {constraint.value} is not satisfied"
    return None


def supports(runtime: RuntimeName, room: Room) -> bool:
    return bool(room.runtimes) if runtime is RuntimeName.ANY else runtime.value in room.runtimes


def refusal(needed: Requirement, room: Room) -> str | None:
    """Why a node with this room cannot take one such replica; None if it can."""
    if not room.accepting:
        return "the node is draining"
    if not supports(needed.runtime, room):
        return "no runtime answers there" if needed.runtime is RuntimeName.ANY else f"no {needed.runtime} runtime"
    unmet = unmet_constraint(needed.constraints, room)
    if unmet:
        return unmet
    if room.free_containers < 1:
        return "no room for another container"
    if needed.cpus > room.free_cpus + 1e-9:
        return "not enough CPU"
    if needed.memory_bytes > room.free_memory_bytes:
        return "not enough memory"
    for port in needed.ports:
        if port in room.ports:
            return f"host port {port[0]}/{port[1]} is taken"
    return None


def after(room: Room, needed: Requirement) -> Room:
    """The room that is left once one such replica has moved in."""
    return replace(
        room,
        free_cpus=room.free_cpus - needed.cpus,
        free_memory_bytes=room.free_memory_bytes - needed.memory_bytes,
        free_containers=room.free_containers - 1,
        ports=room.ports | frozenset(needed.ports),
    )


def sample(nodes: Mapping[NodeId, float], count: int, rng: random.Random) -> list[NodeId]:
    """``count`` nodes, the heavier the likelier (Efraimidis and Spirakis, 2006), in the order drawn."""
    drawn = sorted(((rng.random() ** (1.0 / max(weight, 1e-6)), node) for node, weight in nodes.items()), reverse=True)
    return [node for _, node in drawn[:count]]


@dataclass(frozen=True, slots=True)
class Vacancy:
    """A slot that is to be given to somebody. ``barred``: nodes that must not take it (they failed at it)."""

    slot: Slot
    service: Service
    barred: frozenset[NodeId] = frozenset()

    def only(self) -> NodeId | None:
        """The one node that can keep it; None if any may (global services bind a slot to a node)."""
        return index_of(self.slot) if self.service.mode is Mode.GLOBAL else None


@dataclass(frozen=True, slots=True)
class Distribution:
    """Which node is to be invited for which slots, and for each slot left over why each node declined."""

    invited: Mapping[NodeId, tuple[Slot, ...]]
    declined: Mapping[Slot, Mapping[NodeId, str]]


def per_node_max(service: Service) -> int:
    """How many replicas one node may keep; 0: any number. A fixed host port exists once on a node."""
    fixed = 1 if any(port.host for port in service.ports) else 0
    limits = [limit for limit in (fixed, service.replicas_per_node_max) if limit]
    return min(limits, default=0)


def distribute(
    vacancies: Sequence[Vacancy],
    rooms: Sequence[Room],
    kept: Mapping[NodeId, Sequence[Slot]],
    members: frozenset[NodeId],
) -> Distribution:
    """Spread ``vacancies`` over the nodes that offered, one after the other.

    ``kept``: the slots of this deployment that each node keeps already. A node with fewer of the service's replicas
    comes first, then one with fewer of the deployment's, then a member, then the one with more free containers.
    """
    left = {room.node: room for room in rooms}
    of_service = Counter((node, service_of(slot)) for node, slots in kept.items() for slot in slots)
    of_deployment = Counter({node: len(slots) for node, slots in kept.items()})
    invited: dict[NodeId, list[Slot]] = {}
    declined: dict[Slot, dict[NodeId, str]] = {}
    for vacancy in vacancies:
        service = vacancy.service
        needed = requirement(service)
        refusals: dict[NodeId, str] = {}
        possible: list[NodeId] = []
        for node, room in left.items():
            reason = _refusal_for(vacancy, needed, room, of_service[node, service.name])
            if reason is None:
                possible.append(node)
            else:
                refusals[node] = reason
        if not possible:
            declined[vacancy.slot] = refusals
            continue
        place = {node: position for position, node in enumerate(rendezvous(vacancy.slot, possible))}
        chosen = min(
            possible,
            key=lambda node: (
                of_service[node, service.name],
                of_deployment[node],
                node not in members,
                -left[node].free_containers,
                place[node],
            ),
        )
        left[chosen] = after(left[chosen], needed)
        of_service[chosen, service.name] += 1
        of_deployment[chosen] += 1
        invited.setdefault(chosen, []).append(vacancy.slot)
    return Distribution({node: tuple(slots) for node, slots in invited.items()}, declined)


def _refusal_for(vacancy: Vacancy, needed: Requirement, room: Room, kept_here: int) -> str | None:
    only = vacancy.only()
    if only is not None and only != room.node:
        return "the slot belongs to another node"
    if room.node in vacancy.barred:
        return "it failed there before"
    limit = per_node_max(vacancy.service)
    if limit and kept_here >= limit:
        return f"at most {limit} per node"
    return refusal(needed, room)


@dataclass(slots=True)
class Call:
    """One round of asking for volunteers: who was asked, who has answered, until when to wait.

    A call ends when all have answered or the time is up; what is still vacant then is asked of more nodes in the next
    round, or again later.
    """

    id: int
    vacancies: tuple[Vacancy, ...]
    witnesses: int
    asked: tuple[NodeId, ...]
    offers: dict[NodeId, Room] = field(default_factory=dict)

    def offer(self, room: Room) -> None:
        if room.node in self.asked:
            self.offers[room.node] = room

    @property
    def is_answered(self) -> bool:
        return len(self.offers) >= len(self.asked)
