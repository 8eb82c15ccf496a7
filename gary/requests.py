"""Questions from node to node over a transport that may lose any frame.

The asking side repeats a request until something comes back or its time is up; the answering side knows a repeated
request by its sender and id and does not act twice. Items of an answer carry a sequence number, so that a gap is known.
An answering node forwards what it was asked and keeps nothing of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgpack

from gary.errors import CommandError, ErrorCode, error_in
from gary.identity import NodeId
from gary.messages import Cancel, MalformedMessage, Request, Response

REPEAT_S = 1.0
ANSWERS_REMEMBERED_MAX = 256
OF_ONE_REMEMBERED_MAX = 128
"""Of one node's requests; so that nobody has the others' forgotten."""
ANSWER_SIZE_BYTES_REMEMBERED_MAX = 64 * 1024
OPEN_MAX = 1024


class Responder(Protocol):
    """Where the answer to one command goes: to this node's own API, or back to the node that asked.

    An empty item says to another node that its request has arrived and that answers may take their time.
    """

    is_cancelled: bool
    """Nobody listens any more."""

    def item(self, item: Mapping[str, Any]) -> None:
        """One item of a stream; more follow."""

    def end(self, item: Mapping[str, Any]) -> None:
        """The answer, or the last item of a stream."""

    def fail(self, error: CommandError) -> None: ...


Heard = Callable[[Mapping[str, Any], bool], None]
"""Called with each item of an answer, and whether it is the last one."""
Failed = Callable[[CommandError], None]


@dataclass(slots=True)
class _Asked:
    node: NodeId
    request: Request
    heard: Heard
    failed: Failed
    until: float
    repeat_at: float
    next_sequence: int = 0
    streaming: bool = False


class Requests:
    """The asking side."""

    def __init__(self, send: Callable[[NodeId, Request | Cancel], None], next_id: Callable[[], int]) -> None:
        self._send = send
        self._next_id = next_id
        self._open: dict[int, _Asked] = {}

    def ask(
        self,
        node: NodeId,
        operation: str,
        arguments: Mapping[str, Any],
        now: float,
        *,
        timeout_s: float,
        heard: Heard,
        failed: Failed,
    ) -> int:
        """Ask ``node``; ``heard`` or ``failed`` is called later, never from within. Returns an id to cancel it with."""
        if len(self._open) >= OPEN_MAX:
            raise CommandError(ErrorCode.UNAVAILABLE, "this agent has too many requests open", "try again in a moment")
        body: bytes = msgpack.packb(dict(arguments))
        request = Request(self._next_id(), operation, body)
        self._open[request.id] = _Asked(node, request, heard, failed, now + timeout_s, now + REPEAT_S)
        self._send(node, request)
        return request.id

    def response(self, sender: NodeId, response: Response) -> None:
        asked = self._open.get(response.id)
        if asked is None or asked.node != sender or response.sequence < asked.next_sequence:
            return
        try:
            item = msgpack.unpackb(response.body, strict_map_key=False)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
            raise MalformedMessage("an answer that is no msgpack") from error
        if not isinstance(item, dict):
            raise MalformedMessage("an answer that is no map")
        lost = response.sequence - asked.next_sequence
        asked.next_sequence = response.sequence + 1
        asked.streaming = not response.last
        if response.last:
            del self._open[response.id]
        if lost:
            asked.heard({"lost": lost}, False)
        failure = error_in(item)
        if failure is not None:
            # Details are for programs that know the agent that they ask; from another node they may be anything.
            asked.failed(CommandError(failure.code, failure.message, failure.hint))
        else:
            asked.heard(item, response.last)

    def cancel(self, id: int) -> None:
        asked = self._open.pop(id, None)
        if asked is not None:
            self._send(asked.node, Cancel(id))

    def gone(self, node: NodeId) -> None:
        """That node is no longer there: whatever was asked of it fails."""
        for id in [id for id, asked in self._open.items() if asked.node == node]:
            asked = self._open.pop(id, None)  # what one failure led to may have cancelled another
            if asked is not None:
                asked.failed(CommandError(ErrorCode.UNAVAILABLE, f"node {node} went away before it answered"))

    def tick(self, now: float) -> float | None:
        """Repeat and give up what is due; when to look again."""
        if not self._open:
            return None
        for id, asked in list(self._open.items()):
            if asked.streaming or id not in self._open:
                continue
            if now >= asked.until:
                del self._open[id]
                asked.failed(CommandError(ErrorCode.TIMEOUT, f"node {asked.node} did not answer in time", "try again"))
            elif now >= asked.repeat_at:
                asked.repeat_at = now + REPEAT_S
                self._send(asked.node, asked.request)
        due = [min(asked.until, asked.repeat_at) for asked in self._open.values() if not asked.streaming]
        return min(due, default=None)


Seal = Callable[[Mapping[str, Any], bool], Mapping[str, Any]]


def _plain(item: Mapping[str, Any], last: bool) -> Mapping[str, Any]:
    return item


class RemoteResponder:
    """Sends an answer back to the node that asked."""

    def __init__(self, send: Callable[[Response], None], id: int) -> None:
        self._send = send
        self._id = id
        self._sequence = 0
        self.is_cancelled = False
        self.is_ended = False
        self.answer: Response | None = None
        self.seal: Seal = _plain
        """What becomes of each item, of which is said whether it is the last, before it is sent."""

    def item(self, item: Mapping[str, Any]) -> None:
        self._respond(item, last=False)

    def end(self, item: Mapping[str, Any]) -> None:
        self._respond(item, last=True)

    def fail(self, error: CommandError) -> None:
        self._respond(error.to_json(), last=True)

    def _respond(self, item: Mapping[str, Any], *, last: bool) -> None:
        if self.is_ended or self.is_cancelled:
            return
        body: bytes = msgpack.packb(dict(self.seal(item, last)))
        response = Response(self._id, self._sequence, last, body)
        self._sequence += 1
        self.is_ended = last
        if last and self._sequence == 1 and len(body) <= ANSWER_SIZE_BYTES_REMEMBERED_MAX:
            self.answer = response
        self._send(response)


class Serving:
    """The answering side: which requests are under way or were answered lately."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[NodeId, int], RemoteResponder] = OrderedDict()

    def accept(self, sender: NodeId, request: Request, send: Callable[[Response], None]) -> RemoteResponder | None:
        """A responder for a new request; None for a repeated one, which is answered again if its answer is known."""
        key = (sender, request.id)
        known = self._known.get(key)
        if known is not None:
            if known.answer is not None:
                send(known.answer)
            return None
        responder = RemoteResponder(send, request.id)
        self._known[key] = responder
        own = [key for key in self._known if key[0] == sender]
        if len(own) > OF_ONE_REMEMBERED_MAX:
            self._forget_one_of(own)
        if len(self._known) > ANSWERS_REMEMBERED_MAX:
            self._forget_one_of(list(self._known))
        return responder

    def _forget_one_of(self, keys: list[tuple[NodeId, int]]) -> None:
        """The oldest that is over; if all go on, the oldest."""
        over = (key for key in keys if self._known[key].is_ended or self._known[key].is_cancelled)
        self._known.pop(next(over, keys[0])).is_cancelled = True

    def __len__(self) -> int:
        """How many requests are remembered."""
        return len(self._known)

    def cancel(self, sender: NodeId, id: int) -> RemoteResponder | None:
        known = self._known.get((sender, id))
        if known is not None:
            known.is_cancelled = True
        return known


def arguments_of(request: Request) -> dict[str, Any]:
    """The request's arguments; raises ``MalformedMessage`` for anything but a map with string keys."""
    try:
        value = msgpack.unpackb(request.body, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise MalformedMessage("arguments that are no msgpack") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise MalformedMessage("arguments that are no map")
    return value
