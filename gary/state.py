"""What a deployment's document says, as immutable values: all decisions are functions of a ``State``.

The same for all who hold the same changes. How it is read and written is in ``document``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from gary import spec as specs
from gary.identity import Claim, Generation, NodeId, Slot, service_of, slot_order
from gary.spec import Mode, Service, Spec


class Role(StrEnum):
    """``invited`` by another, ``member`` by its own word; ``left`` of its own accord, ``forgotten`` by the others."""

    INVITED = "invited"
    MEMBER = "member"
    LEFT = "left"
    FORGOTTEN = "forgotten"


GONE = (Role.LEFT, Role.FORGOTTEN)


class PromiseState(StrEnum):
    STARTING = "starting"
    HEALTHY = "healthy"
    FAILING = "failing"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Promise:
    """A node's own statement: "I keep this slot at this generation".

    ``epoch`` is the promiser's boot epoch when it last said so: a promise of an earlier epoch is no evidence of health.
    ``once_healthy``: has once been healthy at ``generation``; never goes back. ``yielding``: somebody else may take
    over, because it fails for good here or because the node is leaving. ``instead_of``: the nodes whose yielding
    promise on this slot it replaces.
    """

    node: NodeId
    slot: Slot
    claim: Claim
    generation: Generation
    epoch: int
    state: PromiseState
    once_healthy: bool = False
    yielding: bool = False
    instead_of: tuple[NodeId, ...] = ()
    reason: str = ""

    @property
    def precedence(self) -> tuple[int, int, int, str]:
        """Sorts the promises on one slot, the winner first: the higher generation, then the lower claim."""
        clock, author, _ = self.generation.order
        return (-clock, -author, self.claim.lamport, self.claim.node)


@dataclass(frozen=True, slots=True)
class Membership:
    role: Role
    inviter: NodeId


@dataclass(frozen=True, slots=True)
class Grant:
    """Whether an operator may command, who said so, and the word by which the operator knows a member."""

    is_granted: bool
    by: NodeId
    watchword: bytes


@dataclass(frozen=True)
class State:
    """What a document says, as one immutable value; the same for all who hold the same changes."""

    specs: Mapping[Generation, Spec] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    members: Mapping[NodeId, Membership] = field(default_factory=dict)
    promises: tuple[Promise, ...] = ()
    verdicts: frozenset[tuple[Generation, NodeId, Slot]] = frozenset()
    calling: Mapping[NodeId, NodeId] = field(default_factory=dict)
    releases: frozenset[tuple[NodeId, Slot]] = frozenset()
    grants: Mapping[tuple[str, bytes], Grant] = field(default_factory=dict)
    malformed: int = 0

    @cached_property
    def effective(self) -> Generation | None:
        """The generation that counts: the highest of an instance that lives; None once all are removed."""
        living = [generation for generation in self.specs if generation.instance not in self.removed]
        return max(living, key=lambda generation: generation.order, default=None)

    @cached_property
    def spec(self) -> Spec | None:
        return None if self.effective is None else self.specs[self.effective]

    @cached_property
    def name(self) -> str:
        """The deployment's name; all generations share it."""
        return next((spec.name for spec in self.specs.values()), "")

    @cached_property
    def operators(self) -> Mapping[bytes, Grant]:
        """Who may command the deployment from outside, by public key: all that may command an instance that lives."""
        living = {generation.instance for generation in self.specs} - self.removed
        return {key: grant for (instance, key), grant in self.grants.items() if grant.is_granted and instance in living}

    @property
    def is_removed(self) -> bool:
        return bool(self.specs or self.removed) and self.effective is None

    @cached_property
    def clock(self) -> int:
        """The highest hybrid logical clock in it."""
        return max((generation.clock for generation in self.specs), default=0)

    @cached_property
    def lamport(self) -> int:
        return max((promise.claim.lamport for promise in self.promises), default=0)

    @cached_property
    def by_slot(self) -> Mapping[Slot, tuple[Promise, ...]]:
        """All promises by slot, withdrawn ones too."""
        found: dict[Slot, list[Promise]] = {}
        for promise in self.promises:
            found.setdefault(promise.slot, []).append(promise)
        return {slot: tuple(promises) for slot, promises in found.items()}

    @cached_property
    def standing(self) -> Mapping[Slot, tuple[Promise, ...]]:
        """The promises that are not withdrawn by slot, the winner first."""
        found: dict[Slot, list[Promise]] = {}
        for promise in self.promises:
            if promise.state is not PromiseState.WITHDRAWN:
                found.setdefault(promise.slot, []).append(promise)
        return {slot: tuple(sorted(promises, key=lambda p: p.precedence)) for slot, promises in found.items()}

    @cached_property
    def _by_node(self) -> Mapping[NodeId, tuple[Promise, ...]]:
        found: dict[NodeId, list[Promise]] = {}
        for promise in self.promises:
            if promise.state is not PromiseState.WITHDRAWN:
                found.setdefault(promise.node, []).append(promise)
        return {node: tuple(promises) for node, promises in found.items()}

    @cached_property
    def _by_place(self) -> Mapping[tuple[NodeId, Slot], Promise]:
        return {(promise.node, promise.slot): promise for promise in self.promises}

    @cached_property
    def replicas(self) -> tuple[Slot, ...]:
        """The slots of all services that run in a number of replicas, in order."""
        replicated = (service for service in self.services.values() if service.mode is Mode.REPLICATED)
        slots = (f"{service.name}/{index}" for service in replicated for index in range(1, service.replicas + 1))
        return tuple(sorted(slots, key=slot_order))

    @cached_property
    def fingerprints(self) -> Mapping[tuple[Generation, str], str]:
        return {
            (generation, service.name): specs.fingerprint(service)
            for generation, spec in self.specs.items()
            for service in spec.services
        }

    @cached_property
    def services(self) -> Mapping[str, Service]:
        """The effective spec's services by name."""
        return {} if self.spec is None else {service.name: service for service in self.spec.services}

    def service(self, slot: Slot) -> Service | None:
        return self.services.get(service_of(slot))

    def wants(self, slot: Slot) -> bool:
        """Whether the effective spec asks for ``slot``. Which nodes a global service is for, no spec says."""
        service = self.service(slot)
        return service is not None and (service.mode is Mode.GLOBAL or slot in self.replicas)

    def is_current(self, promise: Promise) -> bool:
        """Whether the promised container is the one that the effective spec wants, whichever generation named it."""
        if self.effective is None:
            return False
        service = service_of(promise.slot)
        wanted = self.fingerprints.get((self.effective, service))
        return wanted is not None and wanted == self.fingerprints.get((promise.generation, service))

    def promise(self, node: NodeId, slot: Slot) -> Promise | None:
        return self._by_place.get((node, slot))

    def promises_of(self, node: NodeId) -> tuple[Promise, ...]:
        """That node's promises which it has not withdrawn."""
        return self._by_node.get(node, ())

    def promised(self, promise: Promise) -> Service | None:
        """The service as ``promise`` keeps it, which may be an earlier generation's."""
        spec = self.specs.get(promise.generation)
        return None if spec is None else spec.service(service_of(promise.slot))

    def failed_at(self, slot: Slot) -> frozenset[NodeId]:
        """The nodes on which the container that the effective spec wants for ``slot`` has failed for good."""
        if self.effective is None or not self.verdicts:
            return frozenset()
        service = service_of(slot)
        wanted = self.fingerprints.get((self.effective, service))
        return frozenset(
            node
            for generation, node, judged in self.verdicts
            if judged == slot and self.fingerprints.get((generation, service)) == wanted
        )

    def is_gone(self, node: NodeId) -> bool:
        """Whether ``node`` was a member, and has left or was forgotten."""
        membership = self.members.get(node)
        return membership is not None and membership.role in GONE

    def number(self, generation: Generation) -> int:
        """The generation's place in the deployment's history, from 1; what people are shown."""
        earlier = [g for g in self.specs if g.instance == generation.instance and g.order <= generation.order]
        return len(earlier)

    @cached_property
    def holders(self) -> tuple[NodeId, ...]:
        """The nodes that hold the document or were asked to: neither left nor forgotten."""
        return tuple(node for node, membership in sorted(self.members.items()) if membership.role not in GONE)
