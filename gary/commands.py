"""What operators ask of a node, and how it is answered: here if this node holds the document, else by one that does.

Each operation is a method ``_<operation>``. A node that is no member relays the request to a responsible node as an
envelope: it keeps, caches and logs nothing of the answer. A relayed request is not relayed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from gary import spec as specs
from gary import views
from gary.advertisements import PROTOCOL
from gary.assignment import keepings, live_members
from gary.deployment import Deployment
from gary.document import Promise, PromiseState
from gary.effects import Event, ReadLogs, StopLogs
from gary.errors import CommandError, ErrorCode
from gary.identity import DeploymentId, Generation, NodeId, index_of, next_clock, service_of
from gary.requests import RemoteResponder, Responder
from gary.spec import Mode, Spec, SpecError
from gossip import JoinFailure, Status

if TYPE_CHECKING:
    from gary.agent import Agent

REPORT_WAIT_S = 1.0
RELAY_WAIT_S = 30.0
DURABLE_WAIT_S = 20.0
JOIN_WAIT_S = 15.0
MEMBERS_MAX = 128
Json = dict[str, Any]
Answered = Callable[[Mapping[NodeId, Json]], None]


@dataclass(slots=True)
class _Gathering:
    waiting: set[NodeId]
    answers: dict[NodeId, Json] = field(default_factory=dict)


@dataclass(slots=True)
class _Fan:
    """One stream that is fed from several places; it ends when all of them have."""

    responder: Responder
    open: int = 0
    asked: list[int] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _LogStream:
    fan: _Fan
    slot: str
    partial: dict[str, bytes] = field(default_factory=dict)


class Commands:
    """The operations, on one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._local: dict[int, Responder] = {}
        self._joining: tuple[Responder, int] | None = None
        self._fans: list[_Fan] = []
        self._logs: dict[int, _LogStream] = {}
        self._followers: list[tuple[Responder, str]] = []
        self._relays: list[tuple[Responder, int]] = []
        self._leaving: Responder | None = None

    # What comes in

    def local(
        self, command: int, operation: str, arguments: Mapping[str, Any], responder: Responder, now: float
    ) -> None:
        self._local[command] = responder
        self._run(operation, arguments, responder, is_relayed=False)
        self._local = {number: known for number, known in self._local.items() if not known.is_cancelled}

    def remote(self, operation: str, arguments: Mapping[str, Any], responder: RemoteResponder, now: float) -> None:
        """A request of another node."""
        if operation in ("join", "leave"):
            responder.fail(CommandError(ErrorCode.REFUSED, f"{operation} is for the node's own operator"))
            return
        self._run(operation, arguments, responder, is_relayed=True)

    def _run(self, operation: str, arguments: Mapping[str, Any], responder: Responder, *, is_relayed: bool) -> None:
        known = _OPERATIONS.get(operation)
        try:
            if known is None:
                raise CommandError(
                    ErrorCode.BAD_REQUEST, f"there is no operation {operation!r}", "is this agent older?"
                )
            known(self, arguments, responder, is_relayed)
        except CommandError as error:
            responder.fail(error)

    def cancel(self, command: int) -> None:
        responder = self._local.pop(command, None)
        if responder is not None:
            self.cancel_responder(responder)

    def cancel_responder(self, responder: Responder) -> None:
        """Whoever listened is gone: stop everything that feeds it."""
        responder.is_cancelled = True
        for fan in [fan for fan in self._fans if fan.responder is responder]:
            self._fans.remove(fan)
            for request in fan.asked:
                self._agent.requests.cancel(request)
            for stream in fan.streams:
                self._logs.pop(stream, None)
                self._agent.emit([StopLogs(stream)])
        for listening, request in [entry for entry in self._relays if entry[0] is responder]:
            self._relays.remove((listening, request))
            self._agent.requests.cancel(request)
        self._followers = [entry for entry in self._followers if entry[0] is not responder]
        if self._leaving is responder:
            self._leaving = None
            self._agent.drain(is_draining=False)

    # Finding who can answer

    def _deployment(
        self, operation: str, arguments: Mapping[str, Any], responder: Responder, *, is_relayed: bool
    ) -> Deployment | None:
        """The deployment that ``arguments`` name, if this node holds it; else the request is on its way to another."""
        agent, name = self._agent, _text(arguments, "app")
        id = agent.id_of(name)
        deployment = agent.deployments.get(id)
        if deployment is not None and not deployment.state.is_removed and deployment.state.spec is not None:
            return deployment
        if deployment is not None or is_relayed:
            raise _no_such(name)
        self._relay(name, id, operation, arguments, responder)
        return None

    def _relay(
        self, name: str, id: DeploymentId, operation: str, arguments: Mapping[str, Any], responder: Responder
    ) -> None:
        agent = self._agent
        responsible = [node for node in agent.responsible(id) if node != agent.node]
        if not responsible:
            raise _no_such(name)
        alive = [node for node in responsible if node in agent.alive]
        if not alive and agent.tombstone(id):
            raise _no_such(name)
        if not alive:
            names = ", ".join(agent.display_name(node) for node in responsible)
            message = f"deployment {name!r} is held by {names} alone, and none of them is reachable"
            raise CommandError(ErrorCode.UNAVAILABLE, message, "bring one of them back, or choose another name")
        agent.rng.shuffle(alive)
        self._ask_in_turn(alive, operation, arguments, responder)

    def _ask_in_turn(
        self, nodes: Sequence[NodeId], operation: str, arguments: Mapping[str, Any], responder: Responder
    ) -> None:
        heard_anything = False

        def heard(item: Mapping[str, Any], last: bool) -> None:
            nonlocal heard_anything
            heard_anything = True
            (responder.end if last else responder.item)(item)

        def failed(error: CommandError) -> None:
            is_elsewhere = error.code in (ErrorCode.UNAVAILABLE, ErrorCode.NOT_FOUND) and not heard_anything
            if is_elsewhere and len(nodes) > 1:
                self._ask_in_turn(nodes[1:], operation, arguments, responder)
            elif is_elsewhere and agent.tombstone(agent.id_of(str(arguments.get("app", "")))):
                # What is left of it is with nodes that have not heard of its removal yet.
                responder.fail(_no_such(str(arguments.get("app"))))
            else:
                responder.fail(error)

        agent = self._agent
        request = agent.requests.ask(
            nodes[0], operation, arguments, agent.now_s(), timeout_s=RELAY_WAIT_S, heard=heard, failed=failed
        )
        self._relays = [entry for entry in self._relays if not entry[0].is_cancelled]
        self._relays.append((responder, request))

    def _gather(self, nodes: Sequence[NodeId], operation: str, arguments: Mapping[str, Any], done: Answered) -> None:
        """Ask several nodes; ``done`` with what came back within a second. Who does not answer is not in it."""
        agent = self._agent
        gathering = _Gathering(set(nodes))
        is_done = False

        def finish(now: float) -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                agent.forget_deadline(deadline)
                done(gathering.answers)

        def ask(node: NodeId) -> None:
            def settle(answer: Mapping[str, Any] | None) -> None:
                gathering.waiting.discard(node)
                if answer is not None:
                    gathering.answers[node] = dict(answer)
                if not gathering.waiting:
                    finish(agent.now_s())

            agent.requests.ask(
                node,
                operation,
                arguments,
                agent.now_s(),
                timeout_s=REPORT_WAIT_S,
                heard=lambda item, last: settle(item),
                failed=lambda error: settle(None),
            )

        deadline = agent.after(REPORT_WAIT_S, finish)
        for node in nodes:
            ask(node)
        if not nodes:
            finish(agent.now_s())

    def _with_reports(self, deployment: Deployment, done: Answered) -> None:
        """``done`` with the report of every live member that answers, this node's own among them."""
        agent = self._agent
        members = live_members(deployment.state, agent.view(deployment.state))
        own = {agent.node: self._own_report(deployment)}
        others = [node for node in members if node != agent.node]
        self._gather(others, "report", {"deployment": deployment.id}, lambda answers: done({**own, **answers}))

    def _own_report(self, deployment: Deployment) -> Json:
        agent, state = self._agent, deployment.state
        view = agent.view(state)
        declined = deployment.calling.missing_report(keepings(state, view))
        trouble = [f"cannot write: {deployment.storage_failure}"] if deployment.storage_failure else []
        trouble += [f"its {runtime} engine does not answer" for runtime in agent.engines_away()]
        host = agent.swim.address.rpartition(":")[0]
        containers = agent.containers(deployment.id)
        return views.report(state, view, containers, deployment.slates, declined, host, "; ".join(trouble))

    # Operations that this node answers by itself

    def _version(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        settings = self._agent.settings
        node = {"node": self._agent.node, "name": settings.name}
        responder.end({"version": settings.version, "protocol": PROTOCOL, **node})

    def _nodes(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        agent = self._agent
        found = []
        members = sorted(agent.swim.members(), key=lambda member: (agent.display_name(member.node), member.node))
        for member in members:
            profile = agent.profile(member.node)
            room = None if profile is None else profile.room
            advertisement = agent.swim.advertisement(member.node)
            found.append(
                {
                    "node": member.node,
                    "name": agent.display_name(member.node),
                    "address": member.address,
                    "status": member.status.value,
                    "self": member.node == agent.node,
                    "accepting": room is not None and room.accepting,
                    "labels": {} if room is None else dict(room.labels),
                    "runtimes": [] if room is None else list(room.runtimes),
                    "cpus": 0.0 if profile is None else profile.cpus,
                    "memory_bytes": 0 if profile is None else profile.memory_bytes,
                    "containers": 0 if profile is None else profile.containers,
                    "containers_max": 0 if profile is None else profile.containers_max,
                    "deployments": 0 if advertisement is None else len(advertisement.names),
                }
            )
        responder.end({"nodes": found})

    def _report(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        deployment = self._agent.deployments.get(_text(arguments, "deployment"))
        if deployment is None:
            raise CommandError(ErrorCode.NOT_FOUND, "this node does not hold that deployment")
        responder.end(self._own_report(deployment))

    def _summary(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        deployment = self._agent.deployments.get(_text(arguments, "deployment"))
        if deployment is None or deployment.state.effective is None:
            raise CommandError(ErrorCode.NOT_FOUND, "this node does not hold that deployment")
        responder.end(self._summarise(deployment))

    def _summarise(self, deployment: Deployment) -> Json:
        agent, state = self._agent, deployment.state
        return views.summary(state, agent.view(state), deployment.id, agent.display_name)

    def _ps(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        agent = self._agent
        held = {id: d for id, d in agent.deployments.items() if d.state.effective is not None}
        found = [self._summarise(deployment) for deployment in held.values()]
        elsewhere = [id for id in agent.swim.directory.names() if id not in agent.deployments]
        unanswered: list[DeploymentId] = []
        open = len(elsewhere)

        def settle(id: DeploymentId, answer: Mapping[str, Any] | None) -> None:
            nonlocal open
            open -= 1
            if answer is None and not agent.tombstone(id):
                unanswered.append(id)
            elif answer is not None:
                found.append(dict(answer))
            if not open:
                finish()

        def finish() -> None:
            ordered = sorted(found, key=lambda summary: str(summary["name"]))
            responder.end({"deployments": ordered, "unanswered": sorted(unanswered)})

        for id in elsewhere:
            self._summary_of(id, partial(settle, id))
        if not elsewhere:
            finish()

    def _summary_of(self, id: DeploymentId, settle: Callable[[Mapping[str, Any] | None], None]) -> None:
        agent = self._agent
        alive = [node for node in agent.responsible(id) if node in agent.alive]

        def ask(nodes: Sequence[NodeId]) -> None:
            if not nodes:
                settle(None)
                return
            agent.requests.ask(
                nodes[0],
                "summary",
                {"deployment": id},
                agent.now_s(),
                timeout_s=REPORT_WAIT_S,
                heard=lambda item, last: settle(item),
                failed=lambda error: ask(nodes[1:3]),
            )

        ask(alive)

    # Operations on a deployment

    def _status(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        deployment = self._deployment("status", arguments, responder, is_relayed=is_relayed)
        if deployment is None:
            return

        def answer(reports: Mapping[NodeId, Json]) -> None:
            state = deployment.state
            if state.effective is None:
                responder.fail(CommandError(ErrorCode.NOT_FOUND, "the deployment was removed meanwhile"))
                return
            view = self._agent.view(state)
            responder.end(views.status(state, view, deployment.id, self._agent.display_name, reports))

        self._with_reports(deployment, answer)

    def _promises(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        deployment = self._deployment("promises", arguments, responder, is_relayed=is_relayed)
        if deployment is None:
            return

        def answer(reports: Mapping[NodeId, Json]) -> None:
            state = deployment.state
            responder.end(views.promises(state, self._agent.display_name, reports, state.holders))

        self._with_reports(deployment, answer)

    def _endpoints(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        deployment = self._deployment("endpoints", arguments, responder, is_relayed=is_relayed)
        if deployment is None:
            return

        def answer(reports: Mapping[NodeId, Json]) -> None:
            state = deployment.state
            responder.end(views.endpoints(state, self._agent.view(state), self._agent.display_name, reports))

        self._with_reports(deployment, answer)

    def _deploy(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        agent = self._agent
        try:
            spec = specs.from_json(arguments.get("spec"))
        except SpecError as error:
            raise CommandError(
                ErrorCode.BAD_REQUEST, f"the spec is refused: {error}", "'gary deploy' checks the file"
            ) from error
        if any(service.mode is Mode.GLOBAL for service in spec.services) and len(agent.alive) > MEMBERS_MAX:
            message = f"a global service would make {len(agent.alive)} members; a document has at most {MEMBERS_MAX}"
            raise CommandError(ErrorCode.REFUSED, message, "use replicas, or constraints that fewer nodes satisfy")
        id = agent.id_of(spec.name)
        deployment = agent.deployments.get(id)
        if deployment is not None and deployment.state.is_removed:
            message = f"{spec.name!r} is being removed and still stops its containers here"
            raise CommandError(ErrorCode.CONFLICT, message, "try again in a moment")
        if deployment is not None:
            self._update(deployment, spec, arguments, responder)
        elif not is_relayed and [node for node in agent.responsible(id) if node != agent.node]:
            self._relay(spec.name, id, "deploy", arguments, responder)
        else:
            self._create(id, spec, arguments, responder)

    def _create(self, id: DeploymentId, spec: Spec, arguments: Mapping[str, Any], responder: Responder) -> None:
        """The first deploy of a name: this node becomes its first member and sponsor."""
        agent = self._agent
        if arguments.get("dry_run") is True:
            responder.end(_planned(spec.name, id, None, spec))
            return
        if agent.is_draining:
            raise CommandError(ErrorCode.REFUSED, "this node is leaving", "deploy through another node")
        document = agent.blank_document()
        draft = document.draft()
        draft.found()
        for instance in agent.tombstone(id):
            draft.remove(instance)
        generation = Generation(agent.random_hex(8), next_clock(agent.wall_s(), 0), agent.node)
        draft.deploy(generation, spec)
        draft.stay(agent.node)
        document.commit(draft)
        change = document.replica.heads()[0]
        deployment = agent.adopt_deployment(id, document)
        deployment.save(agent.now_s())
        agent.tell("deploy", f"generation 1 was deployed by {agent.settings.name}", deployment=spec.name)
        self._answer_when_durable(deployment, change, _planned(spec.name, id, None, spec), responder)
        deployment.evaluate(agent.now_s())

    def _update(self, deployment: Deployment, spec: Spec, arguments: Mapping[str, Any], responder: Responder) -> None:
        agent, state = self._agent, deployment.state
        old = state.spec
        assert old is not None
        assert state.effective is not None
        planned = _planned(spec.name, deployment.id, old, spec)
        shared = {service.name for service in old.services} & {service.name for service in spec.services}
        if not shared and arguments.get("replace") is not True:
            running = ", ".join(service.name for service in old.services)
            message = f"the name {spec.name!r} is taken by another application (its services: {running})"
            hint = "choose another with --name; or, if this file is its successor, say --replace"
            raise CommandError(ErrorCode.NAME_TAKEN, message, hint)
        if spec == old or arguments.get("dry_run") is True:
            responder.end({**planned, "generation": state.number(state.effective) + (spec != old)})
            return
        generation = Generation(state.effective.instance, next_clock(agent.wall_s(), state.clock), agent.node)
        draft = deployment.document.draft()
        draft.deploy(generation, spec)
        change = deployment.write(draft, agent.now_s())
        number = deployment.state.number(generation)
        agent.tell("deploy", f"generation {number} was deployed by {agent.settings.name}", deployment=spec.name)
        self._answer_when_durable(deployment, change, {**planned, "generation": number}, responder)
        deployment.evaluate(agent.now_s())

    def _answer_when_durable(self, deployment: Deployment, change: bytes, answer: Json, responder: Responder) -> None:
        """Answer once enough live members have ``change`` on disk; say how far it got if that takes too long."""
        agent = self._agent
        resilience = deployment.state.spec.resilience if deployment.state.spec is not None else 1
        is_done = False

        def late(now: float) -> None:
            nonlocal is_done
            is_done = True
            message = f"it is not yet durable on {min(resilience, len(agent.alive))} nodes; this node goes on trying"
            hint = f"'gary status {deployment.name}' shows what is missing"
            if deployment.storage_failure:
                message = f"this node cannot write to its disk: {deployment.storage_failure}"
                hint = "make room on the disk; it goes on by itself"
            responder.fail(CommandError(ErrorCode.TIMEOUT, message, hint))

        def durable(nodes: tuple[NodeId, ...]) -> None:
            if not is_done:
                agent.forget_deadline(deadline)
                responder.end({**answer, "durable_on": sorted(agent.display_name(node) for node in nodes)})

        deadline = agent.after(DURABLE_WAIT_S, late)
        deployment.when_durable(change, lambda: min(resilience, len(agent.alive)), durable)

    def _scale(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        deployment = self._deployment("scale", arguments, responder, is_relayed=is_relayed)
        if deployment is None:
            return
        counts = arguments.get("services")
        if not isinstance(counts, dict) or not counts:
            raise CommandError(ErrorCode.BAD_REQUEST, "nothing to scale", "say SERVICE=N")
        assert deployment.state.spec is not None
        try:
            spec = specs.scaled(deployment.state.spec, counts)
        except SpecError as error:
            raise CommandError(ErrorCode.BAD_REQUEST, str(error), "'gary status' lists the services") from error
        self._update(deployment, spec, {"replace": True}, responder)

    def _release(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        deployment = self._deployment("release", arguments, responder, is_relayed=is_relayed)
        if deployment is None:
            return
        slot = _text(arguments, "slot")
        situation = deployment.situation()
        if slot not in situation:
            raise CommandError(ErrorCode.NOT_FOUND, f"there is no slot {slot!r}", "'gary status' lists the slots")
        if not situation[slot].held:
            message = f"{slot} is not reserved for a node that is away"
            raise CommandError(ErrorCode.CONFLICT, message, "'gary status' shows who keeps it")
        draft = deployment.document.draft()
        for node in situation[slot].lost:
            draft.release(node, slot)
        deployment.write(draft, self._agent.now_s(), lambda at: responder.end({"released": slot}))
        deployment.evaluate(self._agent.now_s())

    def _remove(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        deployment = self._deployment("remove", arguments, responder, is_relayed=is_relayed)
        if deployment is None:
            return
        name, state = deployment.name, deployment.state
        draft = deployment.document.draft()
        for instance in sorted({generation.instance for generation in state.specs} - state.removed):
            draft.remove(instance)
        deployment.write(draft, self._agent.now_s(), lambda at: responder.end({"removed": name}))
        deployment.evaluate(self._agent.now_s())

    # Streams

    def _logs_operation(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        deployment = self._deployment("logs", arguments, responder, is_relayed=is_relayed)
        if deployment is None:
            return
        wanted = self._promises_matching(deployment, arguments)
        if not wanted:
            raise CommandError(ErrorCode.NOT_FOUND, "nothing runs there", f"see 'gary status {deployment.name}'")
        agent = self._agent
        fan = _Fan(responder)
        self._fans.append(fan)
        for node in dict.fromkeys(promise.node for promise in wanted):
            fan.open += 1
            if node == agent.node:
                self._read_own_logs(deployment, [p for p in wanted if p.node == node], arguments, fan)
            else:
                body = {**arguments, "deployment": deployment.id, "slots": [p.slot for p in wanted if p.node == node]}
                self._feed(fan, node, "local_logs", body)
        self._close_if_done(fan)

    def _promises_matching(self, deployment: Deployment, arguments: Mapping[str, Any]) -> list[Promise]:
        service, index = arguments.get("service"), arguments.get("index")
        return [
            promise
            for promise in deployment.state.promises
            if promise.state is not PromiseState.WITHDRAWN
            and promise.node in self._agent.alive
            and (not service or service_of(promise.slot) == service)
            and (not index or index_of(promise.slot) == str(index))
        ]

    def _local_logs(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        deployment = self._agent.deployments.get(_text(arguments, "deployment"))
        if deployment is None:
            raise CommandError(ErrorCode.NOT_FOUND, "this node does not hold that deployment")
        slots = arguments.get("slots") or []
        own = [p for p in deployment.state.promises_of(self._agent.node) if p.slot in slots]
        fan = _Fan(responder, open=1)
        self._fans.append(fan)
        self._read_own_logs(deployment, own, arguments, fan)
        self._close_if_done(fan)

    def _read_own_logs(
        self, deployment: Deployment, promises: Sequence[Promise], arguments: Mapping[str, Any], fan: _Fan
    ) -> None:
        """Open this node's containers; ``fan.open`` counts this call as one source: its streams take its place."""
        agent = self._agent
        follow = arguments.get("follow") is True
        tail = arguments.get("tail")
        fan.open -= 1
        for promise in promises:
            for container in agent.containers(deployment.id):
                runtime = agent.runtime_of(container.id)
                if container.labels.slot != promise.slot or runtime is None:
                    continue
                stream = agent.next_number()
                fan.open += 1
                fan.streams.append(stream)
                self._logs[stream] = _LogStream(fan, promise.slot)
                lines = tail if isinstance(tail, int) and not isinstance(tail, bool) else None
                agent.emit([ReadLogs(stream, runtime, container.id, follow, lines)])

    def logged(self, stream: int, chunk: tuple[str, bytes] | None) -> None:
        """Output of a container arrived: whole lines go on, the rest waits for its end."""
        log = self._logs.get(stream)
        if log is None:
            return
        if chunk is not None:
            name, data = chunk
            *lines, rest = (log.partial.get(name, b"") + data).split(b"\n")
            log.partial[name] = rest[-65536:]
            for line in lines:
                self._log_line(log, name, line)
            return
        for name, rest in log.partial.items():
            if rest:
                self._log_line(log, name, rest)
        del self._logs[stream]
        log.fan.open -= 1
        log.fan.streams.remove(stream)
        self._close_if_done(log.fan)

    def _log_line(self, log: _LogStream, name: str, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        item = {"slot": log.slot, "node_name": self._agent.settings.name, "stream": name, "line": text}
        log.fan.responder.item(item)

    def _feed(self, fan: _Fan, node: NodeId, operation: str, arguments: Mapping[str, Any]) -> None:
        """Let another node's answer flow into ``fan``."""

        def heard(item: Mapping[str, Any], last: bool) -> None:
            if item:
                fan.responder.item(item)
            if last:
                done()

        def done(error: CommandError | None = None) -> None:
            fan.open -= 1
            self._close_if_done(fan)

        agent = self._agent
        fan.asked.append(
            agent.requests.ask(
                node, operation, arguments, agent.now_s(), timeout_s=REPORT_WAIT_S * 3, heard=heard, failed=done
            )
        )

    def _close_if_done(self, fan: _Fan) -> None:
        if fan.open <= 0 and fan in self._fans:
            self._fans.remove(fan)
            fan.responder.end({})

    def told(self, event: Event) -> None:
        """Something happened on this node: those who follow hear of it."""
        for responder, app in list(self._followers):
            if not app or event.deployment == app:
                responder.item(self._event(event))

    def _event(self, event: Event) -> Json:
        return {
            "at": event.at_s,
            "node": self._agent.node,
            "node_name": self._agent.settings.name,
            "kind": event.kind,
            "deployment": event.deployment,
            "slot": event.slot,
            "message": event.message,
        }

    def _local_events(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        app = str(arguments.get("app") or "")
        past = [self._event(event) for event in self._agent.events if not app or event.deployment == app]
        if arguments.get("follow") is not True:
            responder.end({"events": past})
            return
        self._followers.append((responder, app))

    def _events(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        """What happened on all live nodes, in the order of their clocks; then, on request, what happens."""
        agent = self._agent
        app = str(arguments.get("app") or "")
        others = [node for node in agent.alive if node != agent.node]
        own = [self._event(event) for event in agent.events if not app or event.deployment == app]

        def past(answers: Mapping[NodeId, Json]) -> None:
            found = own + [event for answer in answers.values() for event in answer.get("events", ())]
            for event in sorted(found, key=lambda event: float(event.get("at", 0.0))):
                responder.item(event)
            if arguments.get("follow") is not True:
                responder.end({})
                return
            fan = _Fan(responder, open=1)
            self._fans.append(fan)
            self._followers.append((responder, app))
            for node in others:
                fan.open += 1
                self._feed(fan, node, "local_events", {"app": app, "follow": True})

        self._gather(others, "local_events", {"app": app}, past)

    # The node and its cluster

    def _join(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        agent = self._agent
        peer = _text(arguments, "peer")
        others = [m for m in agent.swim.members() if m.node != agent.node and m.status is not Status.LEFT]
        if self._joining is not None:
            raise CommandError(ErrorCode.CONFLICT, "this agent is joining already", "wait for that to end")
        if agent.deployments and not others:
            names = ", ".join(sorted(d.name for d in agent.deployments.values()))
            message = f"this node is a cluster of its own and runs deployments ({names})"
            raise CommandError(ErrorCode.REFUSED, message, "remove them first, or let the other node join this one")
        if peer == agent.swim.address:
            message, hint = _join_words(peer, JoinFailure.SELF, "")
            raise CommandError(ErrorCode.REFUSED, message, hint)
        if others and all(member.address != peer for member in others):
            message = f"this node is in a cluster already, with {len(others)} other nodes, and {peer} is none of them"
            raise CommandError(ErrorCode.REFUSED, message, "'gary leave' first, to move it to another cluster")
        deadline = agent.after(JOIN_WAIT_S, lambda now: self.join_failed(peer, JoinFailure.TIMEOUT, "nobody answered"))
        self._joining = (responder, deadline)
        agent.join(peer)

    def joined(self, now: float) -> None:
        if self._joining is None:
            return
        responder, deadline = self._joining
        self._joining = None
        self._agent.forget_deadline(deadline)
        self._agent.tell("member", f"joined a cluster of {len(self._agent.alive)}")
        responder.end({"joined": True, "nodes": len(self._agent.alive)})

    def join_failed(self, address: str, reason: JoinFailure, detail: str) -> None:
        if self._joining is None:
            return
        responder, deadline = self._joining
        self._joining = None
        self._agent.forget_deadline(deadline)
        message, hint = _join_words(address, reason, detail)
        code = ErrorCode.REFUSED if reason is JoinFailure.SELF else ErrorCode.UNAVAILABLE
        responder.fail(CommandError(code, message, hint))

    def _leave(self, arguments: Mapping[str, Any], responder: Responder, is_relayed: bool) -> None:
        agent = self._agent
        if self._leaving is not None:
            raise CommandError(ErrorCode.CONFLICT, "this node is leaving already", "wait for that to end")
        if agent.is_isolated:
            known = len(agent.swim.members()) > 1
            message = "no other node is reachable, so nobody could take over" if known else "this node is in no cluster"
            hint = "bring a peer back first, or just stop the agent: its containers run on"
            raise CommandError(ErrorCode.REFUSED, message, hint)
        timeout = arguments.get("timeout_s")
        until = agent.now_s() + (float(timeout) if isinstance(timeout, int | float) else 120.0)
        self._leaving = responder
        agent.drain(is_draining=True)
        agent.tell("leave", "handing over what this node keeps")
        self._watch_leaving(responder, until, "")

    def _watch_leaving(self, responder: Responder, until: float, said: str) -> None:
        agent = self._agent
        if responder.is_cancelled or self._leaving is not responder:
            return
        kept = [p for d in agent.deployments.values() for p in d.state.promises_of(agent.node)]
        words = f"{_count(len(kept), 'slot')} and {_count(len(agent.deployments), 'document')} to hand over"
        if not agent.deployments:
            agent.leave_cluster()
            responder.end({"left": True, "message": "left the cluster"})
            return
        if agent.now_s() >= until:
            self._leaving = None
            agent.drain(is_draining=False)
            slots = ", ".join(promise.slot for promise in kept[:5])
            message = f"not everything was taken over in time ({words}{': ' + slots if slots else ''}); this node stays"
            responder.fail(CommandError(ErrorCode.TIMEOUT, message, "'gary status' says why; or allow more --timeout"))
            return
        if words != said:
            responder.item({"message": words})
        agent.after(0.25, lambda now: self._watch_leaving(responder, until, words))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _no_such(name: str) -> CommandError:
    return CommandError(ErrorCode.NOT_FOUND, f"there is no deployment {name!r}", "'gary ps' lists what there is")


def _planned(name: str, id: DeploymentId, old: Spec | None, new: Spec) -> Json:
    changes = [
        {"service": change.service, "action": change.action.value, "detail": change.detail}
        for change in specs.changes(old, new)
    ]
    return {"name": name, "id": id, "generation": 1, "created": old is None, "changes": changes, "durable_on": []}


def _join_words(address: str, reason: JoinFailure, detail: str) -> tuple[str, str]:
    because = f" ({detail})" if detail else ""
    match reason:
        case JoinFailure.SELF:
            return f"{address} is this very node", "give the address of another one"
        case JoinFailure.UNREACHABLE:
            return (
                f"{address} cannot be reached{because}",
                "check the address, and that an agent runs there: 'gary version'",
            )
        case JoinFailure.TIMEOUT:
            return f"{address} did not answer in time{because}", "check the address, its firewall and its agent's log"
    return f"{address} did not let this node in{because}", "see the log of the agent there"


def _text(arguments: Mapping[str, Any], key: str) -> str:
    value = arguments.get(key)
    if not isinstance(value, str) or not value or len(value) > 512:
        raise CommandError(ErrorCode.BAD_REQUEST, f"{key!r} is missing or is no text", "see 'gary --help'")
    return value


_OPERATIONS: Mapping[str, Callable[[Commands, Mapping[str, Any], Responder, bool], None]] = {
    "version": Commands._version,
    "nodes": Commands._nodes,
    "ps": Commands._ps,
    "report": Commands._report,
    "summary": Commands._summary,
    "status": Commands._status,
    "promises": Commands._promises,
    "endpoints": Commands._endpoints,
    "deploy": Commands._deploy,
    "scale": Commands._scale,
    "release": Commands._release,
    "remove": Commands._remove,
    "logs": Commands._logs_operation,
    "local_logs": Commands._local_logs,
    "events": Commands._events,
    "local_events": Commands._local_events,
    "join": Commands._join,
    "leave": Commands._leave,
}
