"""What happened, and what happens, on this node and on all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, Protocol

from gary.advertising import Settings
from gary.commands.asking import gather
from gary.commands.command import Command, Json
from gary.commands.host import Asking, Holding, is_fellow
from gary.commands.streams import Streams
from gary.deployment import Deployment
from gary.effects import Event
from gary.events import EventLog
from gary.identity import NodeId
from gary.requests import Responder


class Host(Asking, Holding, Protocol):
    """The node on which it happened."""

    settings: Settings
    events: EventLog


@dataclass(frozen=True, slots=True)
class _Follower:
    """Hears of each event that it may know and that is about ``app``, if that is not empty."""

    responder: Responder
    asker: NodeId
    app: str


class Events:
    """``events`` and ``of_deployment`` are what people ask, ``local_events`` what nodes want of each other.

    A node tells another one what has nothing to do with deployments, and of deployments what happened to those whose
    documents name both.
    """

    def __init__(self, host: Host, streams: Streams) -> None:
        self._host = host
        self._streams = streams
        self._followers: list[_Follower] = []
        host.events.listen(self._told)

    def events(self, command: Command) -> None:
        """What happened on all live nodes, in the order of their clocks; then, on request, what happens."""
        self._gather(command, sorted(node for node in self._host.alive if node != self._host.node), "")

    def of_deployment(self, command: Command, deployment: Deployment) -> None:
        """The same for one deployment and its members."""
        host = self._host
        fellows = [node for node in deployment.state.holders if node in host.alive and node != host.node]
        self._gather(command, fellows, deployment.name)

    def _gather(self, command: Command, others: Sequence[NodeId], app: str) -> None:
        own = self._past("", app)

        def past(answers: Mapping[NodeId, Json]) -> None:
            found = own + [event for node, answer in answers.items() for event in _events_in(node, answer)]
            for event in sorted(found, key=lambda event: float(event["at"])):
                command.responder.item(event)
            if not command.says("follow"):
                command.responder.end({})
                return
            stream = self._streams.begin(command.responder, sources=1)
            self._follow(command.responder, "", app)
            for node in others:
                asked = {"app": app, "follow": True}
                self._streams.feed(stream, node, "local_events", asked, partial(_event_in, node))

        gather(self._host, others, "local_events", {"app": app}, past)

    def local_events(self, command: Command) -> None:
        """What happened, or from now on happens, on this node, as far as the node that asks may know it."""
        app = str(command.arguments.get("app") or "")
        if command.says("follow"):
            self._follow(command.responder, command.asker, app)
            command.responder.item({})
        else:
            command.responder.end({"events": self._past(command.asker, app)})

    def _follow(self, responder: Responder, asker: NodeId, app: str) -> None:
        listening = [follower for follower in self._followers if not follower.responder.is_cancelled]
        self._followers = [*listening, _Follower(responder, asker, app)]

    def cancel(self, responder: Responder) -> None:
        self._followers = [follower for follower in self._followers if follower.responder is not responder]

    def _told(self, event: Event) -> None:
        for follower in list(self._followers):
            if self._is_for(event, follower.asker, follower.app):
                follower.responder.item(self._item(event))

    def _past(self, asker: NodeId, app: str) -> list[Json]:
        return [self._item(event) for event in self._host.events.past if self._is_for(event, asker, app)]

    def _is_for(self, event: Event, asker: NodeId, app: str) -> bool:
        """``asker`` empty: this node's own operator, or one who may command the deployment ``app``."""
        if app and event.deployment != app:
            return False
        if not asker or not event.deployment:
            return True
        deployment = self._host.deployments.get(self._host.id_of(event.deployment))
        return deployment is not None and is_fellow(deployment, asker)

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


def _events_in(node: NodeId, answer: Mapping[str, Any]) -> list[Json]:
    events = answer.get("events")
    found = [_event_in(node, event) for event in events] if isinstance(events, list) else []
    return [event for event in found if event is not None and "at" in event]


def _event_in(node: NodeId, said: object) -> Json | None:
    """What ``node`` says has happened there; None for what is no event."""
    if not isinstance(said, Mapping):
        return None
    if isinstance(said.get("lost"), int):
        return {"lost": said["lost"]}
    at_s = said.get("at")
    texts = {key: said.get(key) for key in ("node_name", "kind", "deployment", "slot", "message")}
    if not isinstance(at_s, float) or not isfinite(at_s) or not all(isinstance(text, str) for text in texts.values()):
        return None
    return {"at": at_s, "node": node, **texts}
