"""What commands ask of the node that they are given to. Each module adds what it alone needs; ``Node`` has it all."""

from __future__ import annotations

from typing import Protocol

from gary.assignment import Epochs
from gary.clock import Clock
from gary.commands.command import Command
from gary.deployment import Deployment
from gary.errors import CommandError, ErrorCode
from gary.identity import DeploymentId, NodeId
from gary.requests import Requests
from gary.tombstones import Tombstones


class Heard(Protocol):
    """A node to whose word others listen, or do not."""

    @property
    def is_expelled(self) -> bool:
        """Others have expelled it: its word counts for nobody any more."""


class Asking(Protocol):
    """A node that can ask others."""

    node: NodeId
    clock: Clock
    requests: Requests

    @property
    def alive(self) -> Epochs:
        """The nodes that it believes to be alive, itself among them."""


class Holding(Protocol):
    """A node that holds documents, and knows who holds the others."""

    deployments: dict[DeploymentId, Deployment]
    tombstones: Tombstones

    def id_of(self, app: str) -> DeploymentId:
        """The deployment id of ``app``, a name or a pseudonym, in this cluster."""

    def responsible(self, deployment: DeploymentId) -> tuple[NodeId, ...]:
        """The nodes that advertise to hold that document, sorted."""


def held(host: Holding, command: Command) -> Deployment:
    """The deployment whose id the command gives, which this node ought to hold."""
    deployment = host.deployments.get(command.text("deployment"))
    if deployment is None:
        raise not_held()
    return deployment


def is_fellow(deployment: Deployment, node: NodeId) -> bool:
    """Whether ``node`` may know what the document says: by that very document."""
    return node in deployment.state.holders


def not_held() -> CommandError:
    return CommandError(ErrorCode.NOT_FOUND, "this node does not hold that deployment")


def has_to_be_heard(host: Heard) -> None:
    """Before something is written that others are to know. Raises ``CommandError`` if nobody listens to ``host``."""
    if host.is_expelled:
        message = "this node was expelled from its cluster: nobody would hear of it"
        raise CommandError(ErrorCode.REFUSED, message, "give the command on another node")
