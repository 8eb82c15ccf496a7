"""Which deployment a command is about, and who holds it where this node does not."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Protocol

from gary.assignment import Epochs
from gary.cluster import Cluster
from gary.commands.command import Command, Json
from gary.commands.host import Holding
from gary.deployment import Deployment
from gary.errors import CommandError, ErrorCode
from gary.identity import PSEUDONYM_MARK, DeploymentId, NodeId


class Addressing(Protocol):
    """A node that knows how to write to others."""

    rng: random.Random
    cluster: Cluster

    @property
    def alive(self) -> Epochs: ...


class Host(Addressing, Holding, Protocol):
    """The node that is asked."""

    node: NodeId

    def display_name(self, node: NodeId) -> str: ...


class Finder:
    """Deployments by the names, pseudonyms and ids that commands give."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def id_of(self, app: str) -> DeploymentId:
        return self._host.id_of(app)

    def deployment(self, app: str) -> Deployment:
        """The deployment called ``app`` that this node holds. Raises ``CommandError``, ``elsewhere`` if others do."""
        id = self._host.id_of(app)
        found = self.held(id)
        if found is None and id not in self._host.deployments:
            raise self.elsewhere(app, id)
        if found is None:
            raise no_such(app)
        return found

    def held(self, id: DeploymentId) -> Deployment | None:
        """The deployment with that id, if this node holds it and it was not removed."""
        found = self._host.deployments.get(id)
        return None if found is None or found.state.is_removed or found.state.spec is None else found

    def holders(self, command: Command) -> None:
        """Who holds the deployment: this node (``here``), or which others (none: nobody does)."""
        app = command.text("app")
        id = self._host.id_of(app)
        if id in self._host.deployments or not self._others(id):
            command.responder.end({"deployment": id, "here": id in self._host.deployments, "holders": []})
            return
        command.responder.end({"here": False, **self.elsewhere(app, id).details})

    def elsewhere(self, app: str, id: DeploymentId) -> CommandError:
        """What to answer about a deployment that is not held here: which nodes to ask, or why there are none."""
        host = self._host
        others = self._others(id)
        alive = [node for node in others if node in host.alive]
        if not others or (not alive and host.tombstones.instances(id)):
            return no_such(app)
        if not alive:
            names = ", ".join(host.display_name(node) for node in others)
            message = f"{_named(app)} is held by {names} alone, and none of them is reachable"
            return CommandError(ErrorCode.UNAVAILABLE, message, "bring one of them back, or choose another name")
        message = f"this node does not hold {_named(app)}: {', '.join(map(host.display_name, alive))} can answer"
        hint = "'gary' asks them by itself; other programs send them what they ask in an envelope, by way of this node"
        return CommandError(ErrorCode.ELSEWHERE, message, hint, self.whereabouts(id))

    def whereabouts(self, id: DeploymentId) -> Json:
        """The live nodes that say that they hold it, in no order: for each, what is needed to write to it alone.

        ``removed``: it is known here that it was; they may not have heard of that.
        """
        holders = addressees(self._host, self._others(id))
        return {"deployment": id, "holders": holders, "removed": id in self._host.tombstones}

    def _others(self, id: DeploymentId) -> list[NodeId]:
        return [node for node in self._host.responsible(id) if node != self._host.node]


def addressees(host: Addressing, nodes: Iterable[NodeId]) -> list[Json]:
    """Those of ``nodes`` that are alive, in no order: for each, what is needed to write to it alone."""
    alive = [node for node in nodes if node in host.alive]
    host.rng.shuffle(alive)
    known = [(node, profile) for node in alive if (profile := host.cluster.profile(node)) is not None]
    return [
        {"node": node, "key": profile.key.hex(), "epoch": host.alive[node], "name": profile.name}
        for node, profile in known
    ]


def no_such(app: str) -> CommandError:
    called = "of that name" if app.startswith(PSEUDONYM_MARK) else repr(app)
    return CommandError(ErrorCode.NOT_FOUND, f"there is no deployment {called}", "'gary ps' lists what there is")


def _named(app: str) -> str:
    return "the deployment" if app.startswith(PSEUDONYM_MARK) else f"deployment {app!r}"
