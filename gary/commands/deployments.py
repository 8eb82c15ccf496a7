"""What changes a deployment: a spec is deployed or scaled, a slot released, the whole removed."""

from __future__ import annotations

from typing import Protocol

from gary import spec as specs
from gary.advertising import Settings
from gary.assignment import Epochs
from gary.clock import Clock
from gary.commands.command import Command, Json
from gary.commands.finding import Finder
from gary.commands.host import Heard, Holding, has_to_be_heard
from gary.commands.operators import credential_in
from gary.deployment import Deployment
from gary.document import Document
from gary.errors import CommandError, ErrorCode
from gary.identity import DeploymentId, Generation, NodeId, next_clock
from gary.requests import Responder
from gary.spec import Mode, Spec, SpecError

DURABLE_WAIT_S = 20.0
MEMBERS_MAX = 128
INSTANCE_SIZE_BYTES = 16
"""Enough that nobody guesses one: whoever knows it has seen the document."""


class Host(Holding, Heard, Protocol):
    """The node through which it is changed."""

    node: NodeId
    settings: Settings
    clock: Clock

    @property
    def alive(self) -> Epochs: ...

    @property
    def is_draining(self) -> bool: ...

    def display_name(self, node: NodeId) -> str: ...

    def random_hex(self, size_bytes: int) -> str: ...

    def blank_document(self) -> Document: ...

    def adopt(self, id: DeploymentId, document: Document) -> Deployment:
        """Take up a deployment whose document is in memory; the caller makes it durable."""

    def tell(self, kind: str, message: str, *, deployment: str = "") -> None: ...


class DeploymentCommands:
    """``deploy`` may found a deployment; the others are about one whose document this node holds."""

    def __init__(self, host: Host, finding: Finder) -> None:
        self._host = host
        self._finding = finding

    def deploy(self, command: Command) -> None:
        """A deploy at this node's own socket."""
        host, spec = self._host, self._spec(command)
        id = host.id_of(spec.name)
        deployment = host.deployments.get(id)
        if deployment is not None and deployment.state.is_removed:
            message = f"{spec.name!r} is being removed and still stops its containers here"
            raise CommandError(ErrorCode.CONFLICT, message, "try again in a moment")
        if deployment is not None:
            self._update(deployment, spec, command)
            return
        elsewhere = self._finding.elsewhere(spec.name, id)
        if elsewhere.code is not ErrorCode.NOT_FOUND:
            raise elsewhere
        self._create(id, spec, command)

    def update(self, command: Command, deployment: Deployment) -> None:
        """A deploy that an operator has sent to a member."""
        spec = self._spec(command)
        if spec.name != deployment.name:
            message = f"the order is about {deployment.name!r}, and its spec about {spec.name!r}"
            raise CommandError(ErrorCode.BAD_REQUEST, message)
        self._update(deployment, spec, command)

    def _spec(self, command: Command) -> Spec:
        try:
            spec = specs.from_json(command.arguments.get("spec"))
        except SpecError as error:
            raise CommandError(
                ErrorCode.BAD_REQUEST, f"the spec is refused: {error}", "'gary deploy' checks the file"
            ) from error
        nodes = len(self._host.alive)
        if any(service.mode is Mode.GLOBAL for service in spec.services) and nodes > MEMBERS_MAX:
            message = f"a global service would make {nodes} members; a document has at most {MEMBERS_MAX}"
            raise CommandError(ErrorCode.REFUSED, message, "use replicas, or constraints that fewer nodes satisfy")
        return spec

    def scale(self, command: Command, deployment: Deployment) -> None:
        counts = command.arguments.get("services")
        if not isinstance(counts, dict) or not counts or not all(isinstance(service, str) for service in counts):
            raise CommandError(ErrorCode.BAD_REQUEST, "nothing to scale", "say SERVICE=N")
        assert deployment.state.spec is not None
        try:
            spec = specs.scaled(deployment.state.spec, counts)
        except SpecError as error:
            raise CommandError(ErrorCode.BAD_REQUEST, str(error), "'gary status' lists the services") from error
        self._write(deployment, spec, command.responder)

    def release(self, command: Command, deployment: Deployment) -> None:
        slot = command.text("slot")
        situation = deployment.situation()
        if slot not in situation:
            raise CommandError(ErrorCode.NOT_FOUND, f"there is no slot {slot!r}", "'gary status' lists the slots")
        if not situation[slot].held:
            message = f"{slot} is not reserved for a node that is away"
            raise CommandError(ErrorCode.CONFLICT, message, "'gary status' shows who keeps it")
        has_to_be_heard(self._host)
        now, draft = self._host.clock.now, deployment.document.draft()
        for node in situation[slot].lost:
            draft.release(node, slot)
        deployment.write(draft, now, lambda at: command.responder.end({"released": slot}))
        deployment.evaluate(now)

    def remove(self, command: Command, deployment: Deployment) -> None:
        has_to_be_heard(self._host)
        name, state = deployment.name, deployment.state
        now, draft = self._host.clock.now, deployment.document.draft()
        for instance in sorted({generation.instance for generation in state.specs} - state.removed):
            draft.remove(instance)
        deployment.write(draft, now, lambda at: command.responder.end({"removed": name}))
        deployment.evaluate(now)

    # A generation is written, and told of once it is durable

    def _create(self, id: DeploymentId, spec: Spec, command: Command) -> None:
        """The first deploy of a name: this node becomes its first member and sponsor."""
        host, now = self._host, self._host.clock.now
        if command.says("dry_run"):
            command.responder.end(_planned(spec.name, id, None, spec))
            return
        has_to_be_heard(self._host)
        if host.is_draining:
            raise CommandError(ErrorCode.REFUSED, "this node is leaving", "deploy through another node")
        operator = credential_in(command) if command.arguments.get("operator") else None
        document = host.blank_document()
        draft = document.draft()
        draft.found()
        for instance in host.tombstones.instances(id):
            draft.remove(instance)
        generation = Generation(host.random_hex(INSTANCE_SIZE_BYTES), next_clock(host.clock.wall_s(), 0), host.node)
        draft.deploy(generation, spec)
        if operator is not None:
            draft.grant(generation.instance, operator.key, operator.watchword)
        draft.stay(host.node)
        document.commit(draft)
        change = document.replica.heads()[0]
        deployment = host.adopt(id, document)
        deployment.save(now)
        host.tell("deploy", f"generation 1 was deployed by {host.settings.name}", deployment=spec.name)
        self._answer_when_durable(deployment, change, _planned(spec.name, id, None, spec), command.responder)
        deployment.evaluate(now)

    def _update(self, deployment: Deployment, spec: Spec, command: Command) -> None:
        """A deploy of a name that is there already."""
        old = deployment.state.spec
        assert old is not None
        shared = {service.name for service in old.services} & {service.name for service in spec.services}
        if not shared and not command.says("replace"):
            running = ", ".join(service.name for service in old.services)
            message = f"the name {spec.name!r} is taken by another application (its services: {running})"
            hint = "choose another with --name; or, if this file is its successor, say --replace"
            raise CommandError(ErrorCode.NAME_TAKEN, message, hint)
        self._write(deployment, spec, command.responder, is_dry_run=command.says("dry_run"))

    def _write(self, deployment: Deployment, spec: Spec, responder: Responder, *, is_dry_run: bool = False) -> None:
        """The next generation, unless it would be the same again."""
        host, state, now = self._host, deployment.state, self._host.clock.now
        assert state.spec is not None
        assert state.effective is not None
        planned = _planned(spec.name, deployment.id, state.spec, spec)
        is_new = spec != state.spec
        if is_dry_run or not is_new:
            responder.end({**planned, "generation": state.number(state.effective) + is_new})
            return
        has_to_be_heard(self._host)
        generation = Generation(state.effective.instance, next_clock(host.clock.wall_s(), state.clock), host.node)
        draft = deployment.document.draft()
        draft.deploy(generation, spec)
        change = deployment.write(draft, now)
        number = deployment.state.number(generation)
        host.tell("deploy", f"generation {number} was deployed by {host.settings.name}", deployment=spec.name)
        self._answer_when_durable(deployment, change, {**planned, "generation": number}, responder)
        deployment.evaluate(now)

    def _answer_when_durable(self, deployment: Deployment, change: bytes, answer: Json, responder: Responder) -> None:
        """Answer once enough live members have ``change`` on disk; say how far it got if that takes too long."""
        host = self._host
        resilience = deployment.state.spec.resilience if deployment.state.spec is not None else 1
        is_done = False

        def late(now: float) -> None:
            nonlocal is_done
            is_done = True
            message = f"it is not yet durable on {min(resilience, len(host.alive))} nodes; this node goes on trying"
            hint = f"'gary status {deployment.name}' shows what is missing"
            if deployment.storage_failure:
                message = f"this node cannot write to its disk: {deployment.storage_failure}"
                hint = "make room on the disk; it goes on by itself"
            responder.fail(CommandError(ErrorCode.TIMEOUT, message, hint))

        def durable(nodes: tuple[NodeId, ...]) -> None:
            if not is_done:
                host.clock.forget(deadline)
                responder.end({**answer, "durable_on": sorted(host.display_name(node) for node in nodes)})

        deadline = host.clock.after(DURABLE_WAIT_S, late)
        deployment.when_durable(change, lambda: min(resilience, len(host.alive)), durable)


def _planned(name: str, id: DeploymentId, old: Spec | None, new: Spec) -> Json:
    changes = [
        {"service": change.service, "action": change.action.value, "detail": change.detail}
        for change in specs.changes(old, new)
    ]
    return {"name": name, "id": id, "generation": 1, "created": old is None, "changes": changes, "durable_on": []}
