"""What is asked about deployments: which there are, how each is kept, and what every member reports of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from gary import views
from gary.assignment import View, keepings, live_members
from gary.commands.asking import Answered, gather
from gary.commands.command import Command, Json
from gary.commands.finding import Finder
from gary.commands.host import Asking, Holding
from gary.deployment import Deployment
from gary.engines import Engines
from gary.errors import CommandError, ErrorCode
from gary.identity import DeploymentId, NodeId
from gary.runtime.base import Container
from gary.state import State
from gossip import Swim


class Host(Asking, Holding, Protocol):
    """The node that is asked."""

    swim: Swim
    engines: Engines

    def view(self, state: State) -> View: ...

    def display_name(self, node: NodeId) -> str: ...

    def containers(self, deployment: DeploymentId) -> Sequence[Container]: ...


class Questions:
    """``report`` is what members ask each other; the rest is what people ask."""

    def __init__(self, host: Host, finding: Finder) -> None:
        self._host = host
        self._finding = finding

    # All deployments

    def ps(self, command: Command) -> None:
        """The deployments that this node holds, and where the others are, of which it knows no more than ids."""
        host = self._host
        own = [deployment for deployment in host.deployments.values() if deployment.state.effective is not None]
        foreign = [id for id in host.swim.directory.names() if id not in host.deployments]
        elsewhere = [self._finding.whereabouts(id) for id in foreign]
        unanswered = [place["deployment"] for place in elsewhere if not place["holders"] and not place["removed"]]
        command.responder.end(
            {
                "deployments": sorted(map(self._summarise, own), key=lambda summary: str(summary["name"])),
                "elsewhere": [place for place in elsewhere if place["holders"]],
                "unanswered": unanswered,
            }
        )

    def summary(self, command: Command, deployment: Deployment) -> None:
        command.responder.end(self._summarise(deployment))

    def _summarise(self, deployment: Deployment) -> Json:
        state = deployment.state
        return views.summary(state, self._host.view(state), deployment.id, self._host.display_name)

    # One deployment

    def status(self, command: Command, deployment: Deployment) -> None:
        def answer(reports: Mapping[NodeId, Json]) -> None:
            state = deployment.state
            if state.effective is None:
                command.responder.fail(CommandError(ErrorCode.NOT_FOUND, "the deployment was removed meanwhile"))
                return
            view, names = self._host.view(state), self._host.display_name
            command.responder.end(views.status(state, view, deployment.id, names, reports))

        self._with_reports(deployment, answer)

    def promises(self, command: Command, deployment: Deployment) -> None:
        def answer(reports: Mapping[NodeId, Json]) -> None:
            state = deployment.state
            command.responder.end(views.promises(state, self._host.display_name, reports, state.holders))

        self._with_reports(deployment, answer)

    def endpoints(self, command: Command, deployment: Deployment) -> None:
        def answer(reports: Mapping[NodeId, Json]) -> None:
            state = deployment.state
            command.responder.end(views.endpoints(state, self._host.view(state), self._host.display_name, reports))

        self._with_reports(deployment, answer)

    # Reports

    def report(self, command: Command, deployment: Deployment) -> None:
        command.responder.end(self._own_report(deployment))

    def _with_reports(self, deployment: Deployment, done: Answered) -> None:
        """``done`` with the report of every live member that answers, this node's own among them."""
        host = self._host
        members = live_members(deployment.state, host.view(deployment.state))
        own = {host.node: self._own_report(deployment)}
        others = [node for node in members if node != host.node]
        gather(host, others, "report", {"deployment": deployment.id}, lambda answers: done({**own, **answers}))

    def _own_report(self, deployment: Deployment) -> Json:
        host, state = self._host, deployment.state
        view = host.view(state)
        declined = deployment.calling.missing_report(keepings(state, view))
        trouble = [f"cannot write: {deployment.storage_failure}"] if deployment.storage_failure else []
        trouble += [f"its {runtime} engine does not answer" for runtime in host.engines.away()]
        address = host.swim.address.rpartition(":")[0]
        containers = host.containers(deployment.id)
        return views.report(state, view, containers, deployment.slates, declined, address, "; ".join(trouble))
