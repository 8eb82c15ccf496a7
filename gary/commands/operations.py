"""The operations by name, and what comes in while they are under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gary.commands import cluster, deployments, doctor, events, finding, logs, orders, questions, trust
from gary.commands.cluster import ClusterCommands
from gary.commands.command import Command, LocalResponder
from gary.commands.deployments import DeploymentCommands
from gary.commands.doctor import Doctor
from gary.commands.events import Events
from gary.commands.finding import Finder
from gary.commands.host import held, is_fellow
from gary.commands.logs import Logs
from gary.commands.operators import OperatorCommands
from gary.commands.orders import OfCluster, OfDeployment, Offered, Orders
from gary.commands.questions import Questions
from gary.commands.relays import ORDER, Relays
from gary.commands.streams import Streams
from gary.commands.trust import TrustCommands
from gary.effects import Effect
from gary.errors import CommandError, ErrorCode
from gary.identity import NodeId
from gary.requests import RemoteResponder, Responder
from gossip import JoinFailure


class Host(
    finding.Host,
    questions.Host,
    deployments.Host,
    logs.Host,
    events.Host,
    cluster.Host,
    trust.Host,
    orders.Host,
    doctor.Host,
    Protocol,
):
    """One node, as commands see it."""

    def emit(self, effects: Sequence[Effect]) -> None: ...

    def tell(self, kind: str, message: str, *, deployment: str = "") -> None: ...


class Commands:
    """The commands of one node. It may be asked

    - by its own socket: anything, and what is about a deployment that it does not hold is answered with who does;
    - by operators, in envelopes that come by way of other nodes: what they may command;
    - by other nodes: what has nothing to do with deployments, and by fellow members what they report to each other.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._local: dict[int, Responder] = {}
        self._relays = Relays(host)
        self._streams = Streams(host)
        self._logs = logs = Logs(host, self._streams)
        self._events = events = Events(host, self._streams)
        self._cluster = cluster = ClusterCommands(host)
        trust = TrustCommands(host)
        doctor = Doctor(host)
        self._finding = finding = Finder(host)
        deployments = DeploymentCommands(host, finding)
        operators = OperatorCommands(host)
        questions = Questions(host, finding)
        self._of_sockets: Mapping[str, OfCluster] = {
            "version": cluster.version,
            "nodes": cluster.nodes,
            "join": cluster.join,
            "leave": cluster.leave,
            "trust": trust.trust,
            "invite": trust.invite,
            "invitations": trust.invitations,
            "revoke": trust.revoke,
            "expel": trust.expel,
            "rotate": trust.rotate,
            "admit": trust.admit,
            "doctor": doctor.doctor,
            "ps": questions.ps,
            "holders": finding.holders,
            "deploy": deployments.deploy,
            "relay": self._relays.relay,
        }
        self._of_everybody: Mapping[str, OfCluster] = {
            "version": cluster.version,
            "clock": doctor.clock,
            "dial_back": doctor.dial_back,
            "local_events": events.local_events,
        }
        self._of_fellows: Mapping[str, OfDeployment] = {
            "report": questions.report,
            "local_logs": logs.local_logs,
        }
        self._of_deployments: Mapping[str, OfDeployment] = {
            "status": questions.status,
            "promises": questions.promises,
            "endpoints": questions.endpoints,
            "scale": deployments.scale,
            "release": deployments.release,
            "remove": deployments.remove,
            "grant": operators.grant,
            "logs": logs.logs,
        }
        of_orders = {
            **self._of_deployments,
            "deploy": deployments.update,
            "events": events.of_deployment,
            "hello": operators.hello,
            "summary": questions.summary,
        }
        self._orders = Orders(
            host, finding, Offered(of_orders, {"expel": trust.expel, "rotate": trust.rotate, "admit": trust.admit})
        )

    # What is asked

    def local(self, number: int, operation: str, arguments: Mapping[str, Any]) -> None:
        """A command of this node's own API; the answer is emitted as ``Reply`` effects."""
        responder = self._local[number] = LocalResponder(self._host.emit, number)
        self._answer(Command(operation, arguments, responder), self._run)
        self._local = {number: known for number, known in self._local.items() if not known.is_cancelled}

    def remote(self, asker: NodeId, operation: str, arguments: Mapping[str, Any], responder: RemoteResponder) -> None:
        """A request of another node."""
        self._answer(Command(operation, arguments, responder, asker), self._run_for_another)

    def _answer(self, command: Command, run: Callable[[Command], None]) -> None:
        try:
            run(command)
        except CommandError as error:
            command.responder.fail(error)

    def _run(self, command: Command) -> None:
        if command.operation in self._of_sockets:
            self._of_sockets[command.operation](command)
        elif command.operation == "events" and not command.arguments.get("app"):
            self._events.events(command)
        elif command.operation == "events":
            self._events.of_deployment(command, self._finding.deployment(command.text("app")))
        elif command.operation in self._of_deployments:
            deployment = self._finding.deployment(command.text("app"))
            self._of_deployments[command.operation](command, deployment)
        else:
            message = f"there is no operation {command.operation!r}"
            raise CommandError(ErrorCode.BAD_REQUEST, message, "is this agent older?")

    def _run_for_another(self, command: Command) -> None:
        responder = command.responder
        if command.operation == ORDER:
            assert isinstance(responder, RemoteResponder)
            self._orders.carry_out(command.arguments.get("envelope"), responder)
        elif command.operation in self._of_everybody:
            self._of_everybody[command.operation](command)
        elif command.operation in self._of_fellows:
            deployment = held(self._host, command)
            if not is_fellow(deployment, command.asker):
                raise self._refused(f"{command.operation} is for the fellow members of a deployment")
            self._of_fellows[command.operation](command, deployment)
        else:
            raise self._refused(f"{command.operation!r} is not for other nodes to ask")

    def _refused(self, message: str) -> CommandError:
        self._host.count("requests_refused")
        return CommandError(ErrorCode.REFUSED, message)

    def cancel(self, number: int) -> None:
        """Nobody waits for the answer to that local command any more."""
        responder = self._local.pop(number, None)
        if responder is not None:
            self.cancel_responder(responder)

    def cancel_responder(self, responder: Responder) -> None:
        """Whoever listened is gone: stop everything that feeds it."""
        responder.is_cancelled = True
        self._streams.cancel(responder)
        self._logs.cancel(responder)
        self._relays.cancel(responder)
        self._events.cancel(responder)
        self._cluster.cancel(responder)

    # What became of it

    def logged(self, stream: int, chunk: tuple[str, bytes] | None) -> None:
        self._logs.logged(stream, chunk)

    def joined(self) -> None:
        self._cluster.joined()

    def join_failed(self, address: str, reason: JoinFailure, detail: str) -> None:
        self._cluster.join_failed(address, reason, detail)
