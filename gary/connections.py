"""The connections of the API: aiohttp's, bounded in all that a client has in its hand.

A connection carries one request. What its client sends ahead of the answer is thrown away, so there is no second
request that could hide behind the first, and no queue of them. Each client is given a time for its head, for its body
and for taking what it is sent; whoever exceeds it is told so, and cut off. What it holds meanwhile is bounded by the
sizes that aiohttp checks and by the buffer of one connection; how many there are is bounded, too.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse, json_response
from aiohttp.web_server import Server

from gary.errors import CommandError, ErrorCode

LINE_SIZE_BYTES_MAX = 8190
HEADERS_MAX = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one listener grants its clients.

    ``head_s``: from the connection to the end of the headers. ``body_s``: from there to the end of the body.
    ``reader_s``: how long what was written may lie there before all of it is taken. ``farewell_s``: how long somebody
    who is turned away may take to read why. ``connections_max``: at once; as many again may be on their way out.
    """

    head_s: float = 10.0
    body_s: float = 30.0
    reader_s: float = 30.0
    farewell_s: float = 2.0
    connections_max: int = 128


class Connections:
    """All of one listener: the factory of its protocols. ``counters`` says how often a limit was hit."""

    def __init__(self, server: Server, limits: Limits, counters: Counter[str]) -> None:
        self.server = server
        self.limits = limits
        self.counters = counters
        self.admitted: set[Connection] = set()
        self.leaving: set[Connection] = set()

    def __call__(self) -> Connection:
        return Connection(self)

    def close(self) -> None:
        """Cut off all that are left."""
        for connection in [*self.admitted, *self.leaving]:
            connection.abort()


class Connection(RequestHandler):
    """One client. The handler of its request says how far that has come: ``has_head``, then ``has_body``.

    ``last_words``: what its client is told if it does not take its answer; set by whoever streams one.
    """

    __slots__ = ("_all", "_deadline", "_is_discarding", "_line", "last_words")

    def __init__(self, all: Connections) -> None:
        super().__init__(
            all.server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=0,
            logger=_log,
            access_log=None,  # type: ignore[arg-type] # This is how aiohttp is told to keep none.
            max_line_size=LINE_SIZE_BYTES_MAX,
            max_field_size=LINE_SIZE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            lingering_time=all.limits.farewell_s,
            auto_decompress=False,
        )
        self._all = all
        self._deadline: asyncio.TimerHandle | None = None
        self._is_discarding = False
        self.last_words = b""

    # What its handler says

    def has_head(self) -> None:
        """Its time for the head is over; the handler times the body."""
        self._within(None)

    def has_body(self) -> None:
        """The whole request is there. What comes now is too much."""
        self._is_discarding = True
        if not self._line.is_reading():
            self._line.resume_reading()  # Else nobody would notice that the client hangs up.

    # What the event loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = cast(asyncio.Transport, transport)
        # Told of every byte that lies there, we know that nothing does once an answer has been written.
        self._line.set_write_buffer_limits(high=0)
        if len(self._all.admitted) < self._all.limits.connections_max:
            self._all.admitted.add(self)
            self._within(self._all.limits.head_s, self._head_is_late)
            super().connection_made(transport)
        else:
            message = f"{self._all.limits.connections_max} connections are open already"
            error = CommandError(ErrorCode.UNAVAILABLE, message, "end one of the clients that follow logs or events")
            self._all.counters["connections_refused"] += 1
            self._dismiss(_whole_answer(HTTPStatus.SERVICE_UNAVAILABLE, error), self._all.limits.farewell_s)

    def data_received(self, data: bytes) -> None:
        if not self._is_discarding:
            super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self in self._all.admitted:
            self._within(self._all.limits.reader_s, self._reader_is_slow)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self in self._all.admitted:
            self._within(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._within(None)
        self._all.admitted.discard(self)
        self._all.leaving.discard(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """What aiohttp answers to what is no request; its own words would repeat the client's, and fill the log."""
        self.has_head()
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            return super().handle_error(request, status, exc, message)
        self._all.counters["requests_malformed"] += 1
        reason = (message or "").strip().partition("\n")[0].rstrip(":")
        if isinstance(exc, LineTooLong):
            reason = f"a line of its head is longer than {LINE_SIZE_BYTES_MAX} bytes"
        if isinstance(exc, LineTooLong) or reason.startswith("Too many headers"):
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        error = CommandError(ErrorCode.BAD_REQUEST, f"the request cannot be read: {reason}")
        response: Response = json_response(error.to_json(), status=status)
        response.force_close()
        return response

    # Cutting it off

    def abort(self) -> None:
        self._line.abort()

    def _within(self, delay_s: float | None, otherwise: Callable[[], None] = lambda: None) -> None:
        """Do ``otherwise`` after ``delay_s`` instead of what was set before; None: do nothing."""
        if self._deadline is not None:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        self._deadline = None if delay_s is None else loop.call_later(delay_s, otherwise)

    def _head_is_late(self) -> None:
        self._all.counters["requests_late"] += 1
        error = CommandError(ErrorCode.BAD_REQUEST, f"no request came within {self._all.limits.head_s:g} s")
        self._dismiss(_whole_answer(HTTPStatus.REQUEST_TIMEOUT, error), self._all.limits.farewell_s)

    def _reader_is_slow(self) -> None:
        self._all.counters["readers_too_slow"] += 1
        self._dismiss(self.last_words, self._all.limits.reader_s if self.last_words else 0.0)

    def _dismiss(self, words: bytes, farewell_s: float) -> None:
        """End what is being done for it, say ``words``, and hang up when it has, or when ``farewell_s`` are over."""
        self._all.admitted.discard(self)
        if len(self._all.leaving) >= self._all.limits.connections_max:
            farewell_s = 0.0
        self._all.leaving.add(self)
        self._is_discarding = True
        self.transport = None  # So that aiohttp, which gives up here, does not hang up before that was said.
        super().connection_lost(ConnectionResetError("cut off"))
        self._line.write(words)
        self._line.write_eof()
        self._within(farewell_s, self._line.abort)


def _whole_answer(status: HTTPStatus, error: CommandError) -> bytes:
    """An error as it goes over the line, for somebody whose request is not there."""
    body = json.dumps(error.to_json()).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + body
