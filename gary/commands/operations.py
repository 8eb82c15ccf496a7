"""The operations by name, and what comes in while they are under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gary.commands import cluster, deployments, doctor, events, logs, questions, relays, trust
from gary.commands.cluster import ClusterCommands
from gary.commands.command import Command, LocalResponder
from gary.commands.deployments import DeploymentCommands
from gary.commands.doctor import Doctor
from gary.commands.events import Events
from gary.commands.logs import Logs
from gary.commands.questions import Questions
from gary.commands.relays import Relays
from gary.commands.streams import Streams
from gary.commands.trust import TrustCommands
from gary.deployment import Deployment
from gary.effects import Effect
from gary.errors import CommandError, ErrorCode
from gary.identity import NodeId
from gary.requests import RemoteResponder, Responder
from gossip import JoinFailure

OWN_OPERATOR_ONLY = ("join", "leave", "trust", "invite", "invitations", "revoke", "expel", "rotate", "admit", "doctor")


class Host(
    relays.Host,
    questions.Host,
    deployments.Host,
    logs.Host,
    events.Host,
    cluster.Host,
    trust.Host,
    doctor.Host,
    Protocol,
):
    """One node, as commands see it."""

    def emit(self, effects: Sequence[Effect]) -> None: ...

    def tell(self, kind: str, message: str, *, deployment: str = "") -> None: ...


class Commands:
    """The commands of one node: each runs here, or is relayed to a node that holds the deployment it names."""

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
        self._deployments = deployments = DeploymentCommands(host, self._relays)
        self._questions = questions = Questions(host)
        self._of_nodes: Mapping[str, Callable[[Command], None]] = {
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
            "clock": doctor.clock,
            "dial_back": doctor.dial_back,
            "ps": questions.ps,
            "summary": questions.summary,
            "report": questions.report,
            "deploy": deployments.deploy,
            "local_logs": logs.local_logs,
            "events": events.events,
            "local_events": events.local_events,
        }
        self._of_deployments: Mapping[str, Callable[[Command, Deployment], None]] = {
            "status": questions.status,
            "promises": questions.promises,
            "endpoints": questions.endpoints,
            "scale": deployments.scale,
            "release": deployments.release,
            "remove": deployments.remove,
            "logs": logs.logs,
        }

    # What is asked

    def local(self, number: int, operation: str, arguments: Mapping[str, Any]) -> None:
        """A command of this node's own API; the answer is emitted as ``Reply`` effects."""
        responder = self._local[number] = LocalResponder(self._host.emit, number)
        self._run(Command(operation, arguments, responder, is_relayed=False))
        self._local = {number: known for number, known in self._local.items() if not known.is_cancelled}

    def remote(self, asker: NodeId, operation: str, arguments: Mapping[str, Any], responder: RemoteResponder) -> None:
        """A request of another node."""
        if operation in OWN_OPERATOR_ONLY:
            responder.fail(CommandError(ErrorCode.REFUSED, f"{operation} is for the node's own operator"))
            return
        self._run(Command(operation, arguments, responder, is_relayed=True, asker=asker))

    def _run(self, command: Command) -> None:
        try:
            if command.operation in self._of_nodes:
                self._of_nodes[command.operation](command)
            elif command.operation in self._of_deployments:
                deployment = self._relays.deployment(command)
                if deployment is not None:
                    self._of_deployments[command.operation](command, deployment)
            else:
                message = f"there is no operation {command.operation!r}"
                raise CommandError(ErrorCode.BAD_REQUEST, message, "is this agent older?")
        except CommandError as error:
            command.responder.fail(error)

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
