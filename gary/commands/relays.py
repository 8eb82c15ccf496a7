"""How a command gets to a node that holds the document.

The node in between is an envelope: it keeps, caches and logs nothing of the answer. A relayed command is not relayed
again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gary.commands.command import Command
from gary.commands.host import Asking, Holding
from gary.deployment import Deployment
from gary.errors import CommandError, ErrorCode
from gary.identity import DeploymentId, NodeId
from gary.requests import Responder

RELAY_WAIT_S = 30.0


class Host(Asking, Holding, Protocol):
    """The node in between."""

    rng: random.Random

    def display_name(self, node: NodeId) -> str: ...


class Relays:
    """The commands that are with other nodes at the moment."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._open: list[tuple[Responder, int]] = []

    def deployment(self, command: Command) -> Deployment | None:
        """The deployment that ``command`` names, if this node holds it; else the command is on its way to another."""
        host, name = self._host, command.text("app")
        id = host.id_of(name)
        deployment = host.deployments.get(id)
        if deployment is not None and not deployment.state.is_removed and deployment.state.spec is not None:
            return deployment
        if deployment is not None or command.is_relayed:
            raise _no_such(name)
        self.relay(name, id, command)
        return None

    def relay(self, name: str, id: DeploymentId, command: Command) -> None:
        """Let a node answer that is responsible for the deployment; raises ``CommandError`` if none can."""
        host = self._host
        responsible = [node for node in host.responsible(id) if node != host.node]
        if not responsible:
            raise _no_such(name)
        alive = [node for node in responsible if node in host.alive]
        if not alive and host.tombstones.instances(id):
            raise _no_such(name)
        if not alive:
            names = ", ".join(host.display_name(node) for node in responsible)
            message = f"deployment {name!r} is held by {names} alone, and none of them is reachable"
            raise CommandError(ErrorCode.UNAVAILABLE, message, "bring one of them back, or choose another name")
        host.rng.shuffle(alive)
        self._ask_in_turn(alive, command)

    def cancel(self, responder: Responder) -> None:
        for listening, request in [entry for entry in self._open if entry[0] is responder]:
            self._open.remove((listening, request))
            self._host.requests.cancel(request)

    def _ask_in_turn(self, nodes: Sequence[NodeId], command: Command) -> None:
        host, responder = self._host, command.responder
        heard_anything = False

        def heard(item: Mapping[str, Any], last: bool) -> None:
            nonlocal heard_anything
            heard_anything = True
            (responder.end if last else responder.item)(item)

        def failed(error: CommandError) -> None:
            name = str(command.arguments.get("app", ""))
            is_elsewhere = error.code in (ErrorCode.UNAVAILABLE, ErrorCode.NOT_FOUND) and not heard_anything
            if is_elsewhere and len(nodes) > 1:
                self._ask_in_turn(nodes[1:], command)
            elif is_elsewhere and host.tombstones.instances(host.id_of(name)):
                # What is left of it is with nodes that have not heard of its removal yet.
                responder.fail(_no_such(name))
            else:
                responder.fail(error)

        request = host.requests.ask(
            nodes[0],
            command.operation,
            command.arguments,
            host.clock.now,
            timeout_s=RELAY_WAIT_S,
            heard=heard,
            failed=failed,
        )
        self._open = [entry for entry in self._open if not entry[0].is_cancelled]
        self._open.append((responder, request))


def _no_such(name: str) -> CommandError:
    return CommandError(ErrorCode.NOT_FOUND, f"there is no deployment {name!r}", "'gary ps' lists what there is")
