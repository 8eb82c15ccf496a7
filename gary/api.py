"""The agent's face to its own host: HTTP with JSON on a unix socket.

This layer checks the shape of what it is given, calls ``Commands``, and carries the answer; it decides nothing. Every
answer, errors too, is JSON; streams are one JSON object a line, and an error after the first line is the last line.

Web pages are not among its clients. What a browser sends for one is refused, even where somebody has put a proxy before
the socket: it says from which page it comes or, if the page's own name was made to lead here, names a foreign host.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Protocol

from aiohttp.http_writer import HttpVersion10, HttpVersion11

# Not ``aiohttp.web``, which holds the same and brings a command line of its own: 0.9 MB of argparse and gettext.
from aiohttp.web_app import Application
from aiohttp.web_exceptions import HTTPException, HTTPRequestEntityTooLarge
from aiohttp.web_middlewares import middleware
from aiohttp.web_request import Request
from aiohttp.web_response import Response, StreamResponse, json_response
from aiohttp.web_routedef import RouteDef, route
from aiohttp.web_runner import AppRunner

from gary.config import split_address
from gary.connections import Connection, Connections, Limits
from gary.control import BACKLOG, ControlSocket
from gary.errors import CommandError, ErrorCode, SocketUnusable
from gary.routes import PATH_FIELDS, REQUIRED, ROUTES, Field, Route

BODY_SIZE_BYTES_MAX = 4 * 1024 * 1024
STREAMS_MAX = 64
FIRST_ITEM_WAIT_S = 0.25
"""How long a stream may hold back the status line, so that an error known at once still has its own status."""
METRICS_CONNECTIONS_MAX = 16
OWN_NAMES = frozenset({"", "gary", "localhost"})
"""What a client of the socket, which has no address, may call the host that it asks."""

STATUS = {
    ErrorCode.BAD_REQUEST: 400,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.NAME_TAKEN: 409,
    ErrorCode.CONFLICT: 409,
    ErrorCode.ELSEWHERE: 421,
    ErrorCode.REFUSED: 422,
    ErrorCode.INTERNAL: 500,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.TIMEOUT: 504,
}

_log = logging.getLogger(__name__)

Arguments = dict[str, object]
Answer = Mapping[str, object]


class Commands(Protocol):
    """What the API can ask of the agent. Every failure that a user can do something about is a ``CommandError``.

    A caller that goes away cancels; the command may be carried out nevertheless.
    """

    async def call(self, op: str, args: Arguments) -> Answer:
        """One answer."""

    def stream(self, op: str, args: Arguments) -> AsyncGenerator[Answer, None]:
        """Items until the end, or until it is closed."""

    def metrics(self) -> bytes:
        """Prometheus text."""


Handler = Callable[[Request], Awaitable[StreamResponse]]


class _Refusal(CommandError):
    """A request that is turned away because of how it was sent; ``status`` says so more closely than a code."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(ErrorCode.REFUSED if status == 403 else ErrorCode.BAD_REQUEST, message, hint)
        self.status = status


class Api:
    """Serves ``commands`` at ``control``, and ``/metrics`` over TCP too when ``metrics_bind`` is ``host:port``."""

    def __init__(
        self, commands: Commands, control: ControlSocket, metrics_bind: str = "", limits: Limits | None = None
    ) -> None:
        self._commands = commands
        self._control = control
        self._metrics_bind = metrics_bind
        self._limits = limits or Limits()
        self._listener: socket.socket | None = None
        self._runners: list[AppRunner] = []
        self._servers: list[tuple[asyncio.Server, Connections]] = []
        self._streams_open = 0
        self._counters: Counter[str] = Counter()

    def open(self) -> None:
        """Make the socket; who connects waits for ``start``. Raises ``SocketUnusable``."""
        self._listener = self._control.listen()

    async def start(self) -> None:
        """Answer from now on. Raises ``SocketUnusable``, also when the address for metrics cannot be had."""
        if self._listener is None:
            self.open()
        assert self._listener is not None
        metrics = _route_to("GET", "/metrics", self._metrics)
        routes = [_route_to(route.method, route.path, self._handler(route)) for route in ROUTES]
        await self._serve([*routes, metrics], self._listener, self._limits, OWN_NAMES)
        if self._metrics_bind:
            listener = _listen_over_tcp(self._metrics_bind)
            # By which name Prometheus finds this host is not ours to know, and there is nothing here to be protected.
            await self._serve([metrics], listener, replace(self._limits, connections_max=METRICS_CONNECTIONS_MAX), None)

    async def close(self) -> None:
        """Stop answering, end what is open, and remove the socket."""
        for server, _ in self._servers:
            server.close()
        for runner in self._runners:
            await runner.cleanup()
        for _, connections in self._servers:
            connections.close()
        if self._listener is not None:
            self._listener.close()
            self._control.remove()
            self._listener = None
        self._runners.clear()
        self._servers.clear()

    def counters(self) -> Mapping[str, int]:
        """Requests by operation, answers that were errors by code, and limits that were hit, since the start."""
        return self._counters | {"streams_open": self._streams_open}

    async def _serve(
        self, routes: list[RouteDef], listener: socket.socket, limits: Limits, names: frozenset[str] | None
    ) -> None:
        """``names``: by which the host may be called here; None: by any."""

        @middleware
        async def admit(request: Request, handler: Handler) -> StreamResponse:
            return await self._answer(request, handler, names)

        application = Application(client_max_size=BODY_SIZE_BYTES_MAX, middlewares=[admit])
        application.add_routes([*routes, _route_to("*", "/{path:.*}", _nothing)])
        # A client that goes away cancels its handler: that is how a followed log ends.
        runner = AppRunner(application, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        assert runner.server is not None
        connections = Connections(runner.server, limits, self._counters)
        server = await asyncio.get_running_loop().create_server(connections, sock=listener, backlog=BACKLOG)
        self._servers.append((server, connections))

    async def _answer(self, request: Request, handler: Handler, names: frozenset[str] | None) -> StreamResponse:
        connection = _connection(request)
        connection.has_head()
        try:
            if request.version not in (HttpVersion10, HttpVersion11):
                raise _Refusal(400, "it is in another version of HTTP than 1.1 and 1.0")
            if reason := _why_foreign(request, names):
                self._counters["requests_foreign"] += 1
                raise _Refusal(403, reason, "ask with gary, or with curl")
            await self._read_body(request)
            connection.has_body()
            response = await handler(request)
        except _Refusal as refusal:
            response = self._error(refusal, refusal.status)
        except CommandError as error:
            response = self._error(error)
        except HTTPException as error:
            response = self._error(CommandError(ErrorCode.BAD_REQUEST, error.reason), error.status)
        except ConnectionError:
            raise  # The client went away; there is nobody to answer.
        except Exception as error:  # noqa: BLE001 - a fault of ours is answered as one, and the agent lives on
            _log.exception("a request failed", extra={"method": request.method, "path": request.path})
            response = self._error(_internal(error))
        response.force_close()
        return response

    async def _read_body(self, request: Request) -> None:
        """Have ``request`` hold its whole body. Raises ``_Refusal``."""
        expected = request.headers.get("Expect", "")
        if expected and expected.lower() != "100-continue":
            raise _Refusal(417, "it expects something other than 100-continue")
        try:
            async with asyncio.timeout(self._limits.body_s):
                if expected:
                    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    request.writer.output_size = 0  # aiohttp takes what was written for the answer.
                await request.read()
        except TimeoutError:
            self._counters["requests_late"] += 1
            raise _Refusal(408, f"the body did not come within {self._limits.body_s:g} s") from None
        except HTTPRequestEntityTooLarge:
            raise _Refusal(413, f"the body is larger than {BODY_SIZE_BYTES_MAX} bytes") from None

    def _error(self, error: CommandError, status: int | None = None) -> Response:
        self._counters[f"errors_{error.code}"] += 1
        return json_response(error.to_json(), status=status or STATUS[error.code])

    async def _metrics(self, _request: Request) -> StreamResponse:
        return Response(body=self._commands.metrics(), headers={"Content-Type": "text/plain; version=0.0.4"})

    def _handler(self, route: Route) -> Handler:
        async def handle(request: Request) -> StreamResponse:
            self._counters[f"requests_{route.op}"] += 1
            args = await _arguments(route, request)
            if route.streams:
                return await self._stream(request, route.op, args)
            return json_response(await self._commands.call(route.op, args))

        return handle

    async def _stream(self, request: Request, op: str, args: Arguments) -> StreamResponse:
        if self._streams_open >= STREAMS_MAX:
            message = f"{STREAMS_MAX} streams are open already"
            raise CommandError(ErrorCode.UNAVAILABLE, message, "end one of the clients that follow logs or events")
        self._streams_open += 1
        try:
            async with contextlib.aclosing(self._commands.stream(op, args)) as items:
                return await self._send_items(request, items)
        finally:
            self._streams_open -= 1

    async def _send_items(self, request: Request, items: AsyncGenerator[Answer, None]) -> StreamResponse:
        first = asyncio.ensure_future(anext(items, None))
        try:
            await asyncio.wait({first}, timeout=FIRST_ITEM_WAIT_S)
            if first.done() and (error := first.exception()) is not None:
                raise error
            response = StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            response.force_close()
            await response.prepare(request)
            _connection(request).last_words = self._said_to_slow_readers(is_chunked=request.version >= HttpVersion11)
            try:
                item = await first
                while item is not None:
                    await response.write(json.dumps(item).encode() + b"\n")
                    item = await anext(items, None)
            except CommandError as failed:
                await response.write(json.dumps(failed.to_json()).encode() + b"\n")
            except ConnectionError:
                raise
            except Exception as failed:  # noqa: BLE001 - as above
                _log.exception("a stream failed", extra={"path": request.path})
                await response.write(json.dumps(_internal(failed).to_json()).encode() + b"\n")
            await response.write_eof()
            return response
        finally:
            if not first.done():
                first.cancel()
                await asyncio.wait({first})

    def _said_to_slow_readers(self, *, is_chunked: bool) -> bytes:
        """The last line of a stream of which nothing is taken, with the end of its encoding."""
        message = f"the stream was ended: for {self._limits.reader_s:g} s its reader did not take what was sent"
        error = CommandError(ErrorCode.TIMEOUT, message, "read faster, or ask for less")
        line = json.dumps(error.to_json()).encode() + b"\n"
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(line), line) if is_chunked else line


def _listen_over_tcp(address: str) -> socket.socket:
    host, port = split_address(address)
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise SocketUnusable(f"metrics cannot be served at {address}: {error.strerror or error}") from error


def _connection(request: Request) -> Connection:
    assert isinstance(request.protocol, Connection)
    return request.protocol


def _why_foreign(request: Request, names: frozenset[str] | None) -> str:
    """Why this is none of our clients' requests; empty if it may be. ``names``: what the host may be called."""
    headers = request.headers
    if "Origin" in headers:
        return "requests of web pages are refused, and this one has an origin"
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return "requests of web pages are refused, and a browser made this one for a page of another site"
    hosts = headers.getall("Host", [])
    if len(hosts) > 1 or not request.raw_path.startswith("/"):
        return "it does not say clearly which host it is for"
    host = re.sub(r":\d*$", "", hosts[0].lower() if hosts else "")
    if names is not None and host not in names:
        return f"it is for the host {host!r}, and this one is called {' or '.join(sorted(filter(None, names)))} here"
    return ""


def _route_to(method: str, path: str, handler: Handler) -> RouteDef:
    # Otherwise every GET would answer HEAD as well, by carrying out the command and throwing the answer away.
    more = {"allow_head": False} if method == "GET" else {}
    return route(method, path, handler, expect_handler=_let_the_body_wait, **more)


async def _let_the_body_wait(_request: Request) -> None:
    """What aiohttp does at once for who expects to be told to go on; here that is done once the head is admitted."""


async def _nothing(request: Request) -> StreamResponse:
    message = f"there is no {request.method} {request.path}"
    raise CommandError(ErrorCode.NOT_FOUND, message, "the reference of the API lists what there is")


async def _arguments(route: Route, request: Request) -> Arguments:
    """The checked arguments of ``route``. Raises ``CommandError`` that names all that is wrong."""
    problems: list[str] = []
    path_fields = tuple(field for field in PATH_FIELDS if f"{{{field.name}}}" in route.path)
    arguments = _read_fields(path_fields, dict(request.match_info), "path", problems)
    arguments |= _read_fields(route.query, dict(request.query), "query", problems)
    body = await request.read()
    if body and not route.body:
        problems.append("body: none is expected here")
    elif route.body:
        arguments |= _read_fields(route.body, _json_object(body), "body", problems)
    if problems:
        raise CommandError(ErrorCode.BAD_REQUEST, f"{route.op}: " + "; ".join(problems))
    return arguments


def _read_fields(fields: tuple[Field, ...], given: Mapping[str, object], where: str, problems: list[str]) -> Arguments:
    names = {field.name for field in fields}
    problems += [f"{where}: {name!r} is not known" for name in sorted(given.keys() - names)]
    arguments: Arguments = {}
    for field in fields:
        value = given.get(field.name, field.default)
        if value is REQUIRED:
            problems.append(f"{where}: {field.name!r} is missing")
        elif field.name not in given or (value is None and field.default is not REQUIRED):
            arguments[field.name] = field.default
        else:
            try:
                arguments[field.name] = field.read(value)
            except ValueError as error:
                problems.append(f"{where}: {field.name!r} must be {error}")
    return arguments


def _json_object(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body or b"{}", parse_constant=_no_constant)
        # An escape such as \ud800 gives a text that no encoding can carry further.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise CommandError(ErrorCode.BAD_REQUEST, f"the body is not JSON: {reason}") from error
    if not isinstance(value, dict):
        raise CommandError(ErrorCode.BAD_REQUEST, "the body is not a JSON object")
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")


def _internal(error: Exception) -> CommandError:
    message = f"the agent failed to carry this out: {type(error).__name__}"
    return CommandError(ErrorCode.INTERNAL, message, "the agent's log has the details; this is a fault in Gary")
