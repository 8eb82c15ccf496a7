"""What happened, and what happens, on this node and on all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gary.advertising import Settings
from gary.commands.asking import gather
from gary.commands.command import Command, Json
from gary.commands.host import Asking
from gary.commands.streams import Streams
from gary.effects import Event
from gary.events import EventLog
from gary.identity import NodeId
from gary.requests import Responder


class Host(Asking, Protocol):
    """The node on which it happened."""

    settings: Settings
    events: EventLog


class Events:
    """``events`` is what people ask, ``local_events`` what the node they ask wants of the others.

    ``app`` limits either to the events of one deployment.
    """

    def __init__(self, host: Host, streams: Streams) -> None:
        self._host = host
        self._streams = streams
        self._followers: list[tuple[Responder, str]] = []
        host.events.listen(self._told)

    def events(self, command: Command) -> None:
        """What happened on all live nodes, in the order of their clocks; then, on request, what happens."""
        host, app = self._host, _app(command)
        others = [node for node in host.alive if node != host.node]
        own = self._past(app)

        def past(answers: Mapping[NodeId, Json]) -> None:
            found = own + [event for answer in answers.values() for event in answer.get("events", ())]
            for event in sorted(found, key=lambda event: float(event.get("at", 0.0))):
                command.responder.item(event)
            if not command.says("follow"):
                command.responder.end({})
                return
            stream = self._streams.begin(command.responder, sources=1)
            self._followers.append((command.responder, app))
            for node in others:
                self._streams.feed(stream, node, "local_events", {"app": app, "follow": True})

        gather(host, others, "local_events", {"app": app}, past)

    def local_events(self, command: Command) -> None:
        """What happened, or from now on happens, on this node, for another one."""
        if command.says("follow"):
            self._followers.append((command.responder, _app(command)))
        else:
            command.responder.end({"events": self._past(_app(command))})

    def cancel(self, responder: Responder) -> None:
        self._followers = [entry for entry in self._followers if entry[0] is not responder]

    def _told(self, event: Event) -> None:
        for responder, app in list(self._followers):
            if not app or event.deployment == app:
                responder.item(self._item(event))

    def _past(self, app: str) -> list[Json]:
        return [self._item(event) for event in self._host.events.past if not app or event.deployment == app]

    def _item(self, event: Event) -> Json:
        return {
            "at": event.at_s,
            "node": self._host.node,
            "node_name": self._host.settings.name,
            "kind": event.kind,
            "deployment": event.deployment,
            "slot": event.slot,
            "message": event.message,
        }


def _app(command: Command) -> str:
    return str(command.arguments.get("app") or "")
