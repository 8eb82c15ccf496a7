"""Orders: what operators ask of this node past others that need not know. It is checked here and answered sealed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gary.clock import Clock
from gary.commands.command import Command
from gary.commands.finding import Finder
from gary.commands.host import not_held
from gary.deployment import Deployment
from gary.errors import CommandError, ErrorCode
from gary.identity import PSEUDONYM_MARK, NodeId
from gary.requests import RemoteResponder
from gary.trust.envelope import Answers, BadEnvelope, Order, open_order
from gary.trust.keys import KeyPair
from gary.trust.orders import Orders as Taken
from gary.trust.standing import Standing

EVENT_PAUSE_S = 10.0
"""Refusals that come within this time of each other are one event: who is refused may ask as often as it likes."""

OfDeployment = Callable[[Command, Deployment], None]
OfCluster = Callable[[Command], None]


class Host(Protocol):
    """The node that carries them out."""

    node: NodeId
    epoch: int
    key: KeyPair
    clock: Clock
    standing: Standing

    def random_bytes(self, size_bytes: int) -> bytes: ...

    def count(self, what: str) -> None: ...

    def tell(self, kind: str, message: str, *, deployment: str = "") -> None: ...


@dataclass(frozen=True, slots=True)
class Offered:
    """The operations that can be ordered, by name."""

    of_deployments: Mapping[str, OfDeployment]
    of_cluster: Mapping[str, OfCluster]


class Orders:
    """Who may: on a deployment, the operators that its document lists; on the cluster, those that its ledger admits."""

    def __init__(self, host: Host, finding: Finder, offered: Offered) -> None:
        self._host = host
        self._finding = finding
        self._offered = offered
        self._taken = Taken(host.node)
        self._told_at = float("-inf")

    def carry_out(self, envelope: object, responder: RemoteResponder) -> None:
        """Open an envelope and do what it says. Raises ``CommandError``, which goes back in the clear, for what is no
        order for this node now; whatever the answer to an order is, it is sealed.
        """
        host = self._host
        try:
            order = open_order(envelope if isinstance(envelope, bytes) else b"", host.key)
            answers = Answers(order, host.key, host.random_bytes)
        except BadEnvelope as error:
            raise CommandError(ErrorCode.BAD_REQUEST, f"no order for this node: {error}") from error
        self._taken.check(order, host.epoch, host.clock.wall_s())

        def seal(item: Mapping[str, Any], last: bool) -> Mapping[str, Any]:
            return {"sealed": answers.seal(item, last=last)}

        responder.seal = seal
        try:
            run = self._permitted(order)
            self._taken.take(order)
            host.count("orders_taken")
            if order.arguments.get("follow") is True:
                responder.item({})
            run(Command(order.operation, order.arguments, responder, operator=order.operator))
        except CommandError as error:
            responder.fail(error)

    def _permitted(self, order: Order) -> OfCluster:
        if not order.deployment:
            return self._of_cluster(order)
        is_pseudonym = order.deployment.startswith(PSEUDONYM_MARK)
        deployment = self._finding.held(self._finding.id_of(order.deployment) if is_pseudonym else order.deployment)
        if deployment is None:
            raise not_held()
        if order.operator not in deployment.state.operators:
            raise self._refusal(order, f"deployment {deployment.name!r}", deployment.name)
        return self._of_deployment(order, deployment)

    def _of_deployment(self, order: Order, deployment: Deployment) -> OfCluster:
        operation = self._offered.of_deployments.get(order.operation)
        if operation is None:
            raise _no_such(order.operation)
        return lambda command: operation(command, deployment)

    def _of_cluster(self, order: Order) -> OfCluster:
        if order.operator not in self._host.standing.ledger.operators:
            raise self._refusal(order, "the cluster", "")
        operation = self._offered.of_cluster.get(order.operation)
        if operation is None:
            raise _no_such(order.operation)
        return operation

    def _refusal(self, order: Order, what: str, deployment: str) -> CommandError:
        host, key = self._host, order.operator.hex()
        host.count("orders_refused")
        if host.clock.now - self._told_at >= EVENT_PAUSE_S:
            self._told_at = host.clock.now
            host.tell("order", f"refused: the key {key} may not command {what}", deployment=deployment)
        hint = "'gary grant APP KEY' by somebody who may, with what 'gary key APP' prints here"
        if not deployment:
            hint = f"'gary grant --cluster {key}' on a node that vouches"
        return CommandError(ErrorCode.REFUSED, f"the key {key} may not command {what}", hint)


def _no_such(operation: str) -> CommandError:
    return CommandError(ErrorCode.BAD_REQUEST, f"there is no order {operation!r}", "is that agent older?")
