"""The agent's face to its own host: HTTP with JSON on a unix socket.

This layer checks the shape of what it is given, calls ``Commands``, and carries the answer; it decides nothing. Every
answer, errors too, is JSON; streams are one JSON object a line, and an error after the first line is the last line.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import socket
import stat
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

# Not ``aiohttp.web``, which holds the same and brings a command line of its own: 0.9 MB of argparse and gettext.
from aiohttp.web_app import Application
from aiohttp.web_exceptions import HTTPException, HTTPMethodNotAllowed, HTTPNotFound, HTTPRequestEntityTooLarge
from aiohttp.web_middlewares import middleware
from aiohttp.web_request import Request
from aiohttp.web_response import Response, StreamResponse, json_response
from aiohttp.web_routedef import RouteDef, route
from aiohttp.web_runner import AppRunner, SockSite

from gary.config import split_address
from gary.errors import CommandError, ErrorCode, SocketTaken
from gary.routes import PATH_FIELDS, REQUIRED, ROUTES, Field, Route

BODY_SIZE_BYTES_MAX = 4 * 1024 * 1024
STREAMS_MAX = 64
FIRST_ITEM_WAIT_S = 0.25
"""How long a stream may hold back the status line, so that an error known at once still has its own status."""

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


class Api:
    """Serves ``commands`` at ``socket_path``, and ``/metrics`` over TCP too when ``metrics_bind`` is ``host:port``."""

    def __init__(self, commands: Commands, socket_path: Path, metrics_bind: str = "") -> None:
        self._commands = commands
        self._socket_path = socket_path
        self._metrics_bind = metrics_bind
        self._runners: list[AppRunner] = []
        self._streams_open = 0
        self._counters: Counter[str] = Counter()

    async def start(self) -> None:
        """Answer from now on. Raises ``SocketTaken``, or ``OSError`` when an address cannot be had."""
        listener = _listen(self._socket_path)
        metrics = _route_to("GET", "/metrics", self._metrics)
        routes = [_route_to(route.method, route.path, self._handler(route)) for route in ROUTES]
        await self._serve([*routes, metrics], listener)
        if self._metrics_bind:
            host, port = split_address(self._metrics_bind)
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            await self._serve([metrics], socket.create_server((host, port), family=family))

    async def close(self) -> None:
        """Stop answering, end what is open, and remove the socket."""
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()
        self._socket_path.unlink(missing_ok=True)

    def counters(self) -> Mapping[str, int]:
        """Requests by operation and answers that were errors by code, since the start."""
        return self._counters | {"streams_open": self._streams_open}

    async def _serve(self, routes: list[RouteDef], listener: socket.socket) -> None:
        application = Application(client_max_size=BODY_SIZE_BYTES_MAX, middlewares=[self._answer_in_json])
        application.add_routes(routes)
        # A client that goes away cancels its handler: that is how a followed log ends.
        runner = AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        await SockSite(runner, listener).start()

    @middleware
    async def _answer_in_json(self, request: Request, handler: Handler) -> StreamResponse:
        try:
            return await handler(request)
        except CommandError as error:
            return self._error(error)
        except HTTPRequestEntityTooLarge:
            message = f"the body is larger than {BODY_SIZE_BYTES_MAX} bytes"
            return self._error(CommandError(ErrorCode.BAD_REQUEST, message), status=413)
        except (HTTPNotFound, HTTPMethodNotAllowed):
            message = f"there is no {request.method} {request.path}"
            return self._error(
                CommandError(ErrorCode.NOT_FOUND, message, "the reference of the API lists what there is")
            )
        except HTTPException as error:
            return self._error(CommandError(ErrorCode.BAD_REQUEST, error.reason), status=error.status)
        except ConnectionError:
            raise  # The client went away; there is nobody to answer.
        except Exception as error:  # noqa: BLE001 - a fault of ours is answered as one, and the agent lives on
            _log.exception("a request failed", extra={"method": request.method, "path": request.path})
            return self._error(_internal(error))

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
            await response.prepare(request)
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


def _route_to(method: str, path: str, handler: Handler) -> RouteDef:
    # Otherwise every GET would answer HEAD as well, by carrying out the command and throwing the answer away.
    return route(method, path, handler, **({"allow_head": False} if method == "GET" else {}))


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


def _listen(path: Path) -> socket.socket:
    """A listening socket at ``path``, mode 0660. A socket that nobody answers at is replaced; anything else is not."""
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise SocketTaken(f"{path}: {error.strerror}") from error
    finally:
        os.umask(before)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketTaken(f"{path} is in the way: it is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise SocketTaken(f"{path} is in the way: {error}") from error
        else:
            raise SocketTaken(f"an agent answers at {path} already")
    path.unlink()
