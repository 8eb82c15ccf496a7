"""What a deployment asks of the node that it lives on. ``gary.node.Node`` is the only implementation."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from enum import Enum, auto
from typing import Protocol

from gary.assignment import Epochs, View
from gary.document import Document
from gary.effects import Effect
from gary.identity import DeploymentId, NodeId, Slot
from gary.messages import Message
from gary.runtime.base import Container, StartRequest
from gary.spec import Service
from gary.state import State
from gary.volunteering import Room


class Change(Enum):
    """What news of a node means for those that count on it. ``CAME``: alive, anew or after a restart. ``OFFERS``:
    something else than before.
    """

    CAME = auto()
    WENT = auto()
    OFFERS = auto()
    NONE = auto()


class Host(Protocol):
    """One node, as its deployments see it."""

    node: NodeId
    epoch: int
    changes_per_epoch: int
    pace: float
    """How many times as long as in a LAN things take in this cluster's network."""
    rng: random.Random

    @property
    def is_draining(self) -> bool:
        """The node is about to leave: its promises are to be handed over."""

    @property
    def is_isolated(self) -> bool:
        """It sees no other node alive."""

    @property
    def alive(self) -> Epochs:
        """The boot epoch of every node that this one holds alive, itself included."""

    def view(self, state: State) -> View:
        """What this node believes about the cluster."""

    def responsible(self, deployment: DeploymentId) -> tuple[NodeId, ...]:
        """The nodes that advertise to hold that document, sorted."""

    @property
    def former(self) -> tuple[NodeId, ...]:
        """The ids that this host had before its disk was lost."""

    @property
    def expelled(self) -> Collection[NodeId]:
        """The nodes that are out of the cluster for ever."""

    @property
    def is_expelled(self) -> bool:
        """This node is one of them: it keeps what it keeps, and takes on nothing."""

    def missing_since_s(self, node: NodeId) -> float:
        """Since when ``node`` has not been alive; the agent's start if it was never seen."""

    def vanished_with(self, node: NodeId) -> frozenset[NodeId]:
        """``node`` and all that stopped being alive at about the same time, whether they have come back or not."""

    def observers(self, node: NodeId) -> frozenset[NodeId]:
        """The nodes, this one perhaps among them, that are known to have found ``node``, which is not alive, silent."""

    @property
    def is_well(self) -> bool:
        """This node answers others, and is answered, as it should be."""

    def room(self) -> Room:
        """What this node has to offer now."""

    def advertised(self, node: NodeId) -> Room | None:
        """What another node last advertised."""

    def display_name(self, node: NodeId) -> str: ...

    def containers(self, deployment: DeploymentId) -> Sequence[Container]:
        """The containers of that deployment that were last observed here, in any runtime that answers."""

    def runtime_for(self, service: Service) -> str | None:
        """The runtime that would keep the service here; None if this node has none for it."""

    def away_since_s(self, runtime: str | None) -> float | None:
        """Since when that runtime has not answered; None if it does."""

    def start_container(self, runtime: str, request: StartRequest) -> None:
        """Start a container; how it went comes back through ``Deployment.operated``."""

    def stop_container(self, deployment: DeploymentId, slot: Slot, container: Container, grace_s: float) -> None: ...

    def send(self, node: NodeId, message: Message) -> None: ...

    def emit(self, effects: Sequence[Effect]) -> None: ...

    def count(self, what: str) -> None:
        """Count something that the metrics show."""

    def blank_document(self) -> Document:
        """A document that says nothing yet, for this process to write."""

    def open_document(self, snapshot: bytes, epoch: int | None = None) -> Document:
        """A peer's document, of ``epoch`` if that is said; raises ``CorruptReplica`` for one that breaks a rule."""

    def next_number(self) -> int:
        """A number that this process has not used yet."""

    def wall_s(self) -> float:
        """Seconds since 1970 by this host's clock."""

    def tell(self, kind: str, message: str, *, deployment: str = "", slot: Slot = "") -> None:
        """Record an event."""

    def bury(self, deployment: DeploymentId, instances: Sequence[str]) -> None:
        """The deployment is removed and nothing of it runs here: keep a tombstone, drop the document."""

    def part_with(self, deployment: DeploymentId) -> None:
        """This node is no member any more: drop the document."""

    def changed(self, deployment: DeploymentId) -> None:
        """Something that others see of this node may have changed (its room, its deployments)."""
