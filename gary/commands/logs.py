"""What containers write, from all nodes that keep a slot, line by line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gary.advertising import Settings
from gary.commands.command import Command, Json
from gary.commands.host import Asking, Holding
from gary.commands.streams import Stream, Streams
from gary.deployment import Deployment
from gary.effects import ReadLogs, StopLogs
from gary.engines import Engines
from gary.errors import CommandError, ErrorCode
from gary.identity import DeploymentId, Slot, index_of, service_of
from gary.requests import Responder
from gary.runtime.base import Container
from gary.state import Promise, PromiseState

LINE_SIZE_BYTES_MAX = 65536


class Host(Asking, Holding, Protocol):
    """The node whose containers write."""

    settings: Settings
    engines: Engines

    def containers(self, deployment: DeploymentId) -> Sequence[Container]: ...

    def next_number(self) -> int: ...

    def emit(self, effects: Sequence[ReadLogs | StopLogs]) -> None: ...


@dataclass(slots=True)
class _Output:
    """One container's. ``partial``: the beginning of a line that has not ended, for each of its streams."""

    stream: Stream
    slot: Slot
    partial: dict[str, bytes] = field(default_factory=dict)


class Logs:
    """``logs`` is what people ask, ``local_logs`` what the node they ask wants of the others."""

    def __init__(self, host: Host, streams: Streams) -> None:
        self._host = host
        self._streams = streams
        self._outputs: dict[int, _Output] = {}

    def logs(self, command: Command, deployment: Deployment) -> None:
        wanted = self._promises_matching(deployment, command)
        if not wanted:
            raise CommandError(ErrorCode.NOT_FOUND, "nothing runs there", f"see 'gary status {deployment.name}'")
        stream = self._streams.begin(command.responder)
        for node in dict.fromkeys(promise.node for promise in wanted):
            slots = [promise.slot for promise in wanted if promise.node == node]
            if node == self._host.node:
                self._read(deployment, slots, command, stream)
            else:
                body = {**command.arguments, "deployment": deployment.id, "slots": slots}
                self._streams.feed(stream, node, "local_logs", body, _line_in)
        self._streams.end_if_done(stream)

    def local_logs(self, command: Command, deployment: Deployment) -> None:
        """What this node's own containers write, for a fellow member."""
        slots = command.arguments.get("slots")
        if not isinstance(slots, list):
            raise CommandError(ErrorCode.BAD_REQUEST, "'slots' is no list")
        own = [promise.slot for promise in deployment.state.promises_of(self._host.node) if promise.slot in slots]
        stream = self._streams.begin(command.responder)
        if command.says("follow"):
            command.responder.item({})
        self._read(deployment, own, command, stream)
        self._streams.end_if_done(stream)

    def _promises_matching(self, deployment: Deployment, command: Command) -> list[Promise]:
        service, index = command.arguments.get("service"), command.arguments.get("index")
        return [
            promise
            for promise in deployment.state.promises
            if promise.state is not PromiseState.WITHDRAWN
            and promise.node in self._host.alive
            and (not service or service_of(promise.slot) == service)
            and (not index or index_of(promise.slot) == str(index))
        ]

    def _read(self, deployment: Deployment, slots: Iterable[Slot], command: Command, stream: Stream) -> None:
        """Let the output of this node's containers flow into ``stream``."""
        host, tail = self._host, command.arguments.get("tail")
        lines = tail if isinstance(tail, int) and not isinstance(tail, bool) else None
        for slot in slots:
            for container in host.containers(deployment.id):
                runtime = host.engines.runtime_of(container.id)
                if container.labels.slot != slot or runtime is None:
                    continue
                number = host.next_number()
                stream.open += 1
                self._outputs[number] = _Output(stream, slot)
                host.emit([ReadLogs(number, runtime, container.id, command.says("follow"), lines)])

    def logged(self, number: int, chunk: tuple[str, bytes] | None) -> None:
        """Output of a container arrived: whole lines go on, the rest waits for its end."""
        output = self._outputs.get(number)
        if output is None:
            return
        if chunk is not None:
            name, data = chunk
            *lines, rest = (output.partial.get(name, b"") + data).split(b"\n")
            output.partial[name] = rest[-LINE_SIZE_BYTES_MAX:]
            for line in lines:
                self._line(output, name, line)
            return
        for name, rest in output.partial.items():
            if rest:
                self._line(output, name, rest)
        del self._outputs[number]
        self._streams.close(output.stream)

    def _line(self, output: _Output, name: str, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        item = {"slot": output.slot, "node_name": self._host.settings.name, "stream": name, "line": text}
        output.stream.responder.item(item)

    def cancel(self, responder: Responder) -> None:
        """Nobody listens any more: stop reading."""
        for number in [number for number, out in self._outputs.items() if out.stream.responder is responder]:
            del self._outputs[number]
            self._host.emit([StopLogs(number)])


def _line_in(said: Mapping[str, Any]) -> Json | None:
    """A line as a fellow sends it; None for what is none."""
    if isinstance(said.get("lost"), int):
        return {"lost": said["lost"]}
    line = {key: said.get(key) for key in ("slot", "node_name", "stream", "line")}
    return line if all(isinstance(text, str) for text in line.values()) else None
