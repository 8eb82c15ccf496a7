"""Containers without a document: they run on until somebody who knows says that they are not this node's to keep."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from gary.acquaintance import digest, proof_of_instance
from gary.cluster import Cluster
from gary.effects import Alarm, SetAlarm
from gary.engines import Engines
from gary.identity import DeploymentId, NodeId, Slot
from gary.messages import Message, Released
from gary.messages import Orphans as Question
from gary.runtime.base import Container
from gary.tombstones import Tombstones

ASKED_MAX = 3
GRACE_S = 10.0
LOOK_S = 5.0
"""So long after something changed, and again and again while there are some."""


class Host(Protocol):
    """The node that the containers run on."""

    node: NodeId

    def responsible(self, deployment: DeploymentId) -> tuple[NodeId, ...]: ...

    def send(self, node: NodeId, message: Message) -> None: ...

    def emit(self, effects: Sequence[SetAlarm]) -> None: ...

    def count(self, what: str) -> None: ...

    def stop_container(self, deployment: DeploymentId, slot: Slot, container: Container, grace_s: float) -> None: ...

    def tell(self, kind: str, message: str, *, deployment: str = "", slot: Slot = "") -> None: ...


class Orphans:
    """``held``: the deployments whose documents this node holds, as they change."""

    def __init__(
        self, host: Host, engines: Engines, cluster: Cluster, tombstones: Tombstones, held: Collection[DeploymentId]
    ) -> None:
        self._host = host
        self._engines = engines
        self._cluster = cluster
        self._tombstones = tombstones
        self._held = held
        self._looks = 0
        self._is_due = False

    def look_soon(self) -> None:
        """Containers or deployments have changed, so there may be some."""
        if not self._is_due:
            self._is_due = True
            self._host.emit([SetAlarm(Alarm("orphans", "", 0), LOOK_S)])

    def due(self) -> None:
        """The alarm of ``look_soon`` went off: stop what is known to be removed; ask the responsible nodes about the
        rest.
        """
        self._is_due = False
        found = self._found()
        if found:
            self.look_soon()
        for id, containers in sorted(found.items()):
            if id in self._tombstones:
                self.gone(id, frozenset(map(digest, self._tombstones.instances(id))))
                continue
            slots = tuple(sorted({container.labels.slot for container in containers}))
            instances = sorted({_instance(container) for container in containers})
            for node in self._asked(id):
                proofs = tuple(proof_of_instance(instance, self._host.node, node) for instance in instances)
                self._host.send(node, Question(id, slots, proofs))

    def _asked(self, id: DeploymentId) -> Sequence[NodeId]:
        """Some that are responsible, others each time; if nobody is, some of all: they may know that it was removed."""
        others = sorted(node for node in self._cluster.alive if node != self._host.node)
        responsible = frozenset(self._host.responsible(id))
        chosen = [node for node in others if node in responsible] or others
        self._looks += 1
        first = self._looks * ASKED_MAX % max(1, len(chosen))
        return (chosen[first:] + chosen[:first])[:ASKED_MAX]

    def gone(self, id: DeploymentId, digests: frozenset[str]) -> None:
        """These instances were removed: who knows their digests knows them."""
        self._stop([container for container in self._found().get(id, ()) if digest(_instance(container)) in digests])

    def released(self, sender: NodeId, answer: Released) -> None:
        """Somebody says that the containers on some slots are not to be kept here, and shows that it may know."""
        containers = self._found().get(answer.deployment, ())
        known = [c for c in containers if proof_of_instance(_instance(c), sender, self._host.node) in answer.proofs]
        if not known:
            self._host.count("strangers_refused")
        self._stop([container for container in known if container.labels.slot in answer.slots])

    def _stop(self, containers: Iterable[Container]) -> None:
        for container in containers:
            if not self._engines.is_being_stopped(container):
                labels = container.labels
                self._host.tell("container", "stopped: it is kept elsewhere or no longer wanted", slot=labels.slot)
                self._host.stop_container(labels.deployment, labels.slot, container, GRACE_S)

    def _found(self) -> dict[DeploymentId, list[Container]]:
        found: dict[DeploymentId, list[Container]] = {}
        for container in self._engines.containers():
            if container.labels.deployment not in self._held:
                found.setdefault(container.labels.deployment, []).append(container)
        return found


def _instance(container: Container) -> str:
    """Which life of its deployment the container was started in."""
    return container.labels.generation.partition(".")[0]
