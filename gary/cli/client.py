"""HTTP over the agent's unix socket, with the standard library only: a command must start fast."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from gary.cli.exits import AgentUnreachable
from gary.cli.key_file import load_key
from gary.errors import CommandError, ErrorCode, error_in
from gary.routes import ROUTES
from gary.trust.operator import Operator

ANSWER_TIMEOUT_S = 120.0

SUMMARIES_AT_ONCE = 8

Answer = dict[str, Any]
T = TypeVar("T")
R = TypeVar("R")


class Client:
    """Asks the agent at ``socket_path``, and by way of it others, with the operator's key in ``key_file``.

    Every method raises ``CommandError``, ``AgentUnreachable`` or ``UnusableKey``.
    """

    def __init__(self, socket_path: Path, key_file: Path) -> None:
        self.socket_path = socket_path
        self._operator = Operator(lambda: load_key(key_file), os.urandom, time.time, self._ask, _at_once)

    def call(self, operation: str, **arguments: Any) -> Answer:
        """The answer to an operation; the last item of one that answers with several."""
        answer: Answer = {}
        for item in self.stream(operation, **arguments):
            answer = item
        return answer

    def stream(self, operation: str, **arguments: Any) -> Iterator[Answer]:
        """The items of an answer as they come; ends with it. An error among them is raised like any other.

        What is about a deployment is answered by a node that holds it.
        """
        return (dict(item) for item in self._operator.command(operation, arguments))

    def credential(self, app: str) -> str:
        """What this operator gives to somebody who is to grant it that deployment."""
        return self._operator.credential(app)

    def _ask(self, operation: str, arguments: Mapping[str, Any]) -> Iterator[Answer]:
        """What this host's own agent answers."""
        (route,) = (route for route in ROUTES if route.op == operation)
        url = re.sub(r"\{(\w+)\}", lambda match: quote(str(arguments[match[1]]), safe=""), route.path)
        asked = {field.name: arguments.get(field.name) for field in route.query}
        if said := {name: value for name, value in asked.items() if value is not None and value is not False}:
            url += "?" + urlencode({name: "1" if value is True else value for name, value in said.items()})
        given = {field.name: arguments[field.name] for field in route.body if arguments.get(field.name) is not None}
        content = json.dumps(given).encode() if route.body else None
        with self._request(route.method, url, content, None if route.streams else ANSWER_TIMEOUT_S) as response:
            if route.streams:
                yield from (_checked(_decoded(line)) for line in response)
            else:
                yield _checked(_decoded(response.read()))

    @contextlib.contextmanager
    def _request(
        self, method: str, url: str, content: bytes | None, timeout_s: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = UnixConnection(self.socket_path, timeout_s)
        try:
            connection.connect()
        except OSError as error:
            raise _unreachable(self.socket_path, error) from error
        try:
            connection.request(method, url, content, {"Content-Type": "application/json"} if content else {})
            with connection.getresponse() as response:  # The connection is the response's, since it is the only one.
                if response.status >= 400:
                    _checked(_decoded(response.read()))
                    raise CommandError(ErrorCode.INTERNAL, f"the agent answered with status {response.status}")
                yield response
        except TimeoutError as error:
            message = f"the agent did not answer within {timeout_s:g} s"
            raise CommandError(ErrorCode.TIMEOUT, message, "its log says what it is waiting for") from error
        except (ConnectionResetError, http.client.HTTPException) as error:
            message = f"the agent at {self.socket_path} went away before it had answered"
            raise AgentUnreachable(message, "its log says why; ask again once it runs") from error
        finally:
            connection.close()


def _at_once(function: Callable[[T], R], values: Sequence[T]) -> Iterable[R]:
    """``map`` on several threads."""
    if not values:
        return ()
    with ThreadPoolExecutor(SUMMARIES_AT_ONCE) as pool:
        return list(pool.map(function, values))


class UnixConnection(http.client.HTTPConnection):
    """A connection to the unix socket at ``path``."""

    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


def _unreachable(path: Path, error: OSError) -> AgentUnreachable:
    start = f"start one with: gary agent --state-dir {path.parent}  (or say where it is with --socket)"
    if isinstance(error, FileNotFoundError):
        return AgentUnreachable(f"no agent runs here: there is no socket {path}", start)
    if isinstance(error, ConnectionRefusedError):
        return AgentUnreachable(f"no agent runs here: nobody answers at {path}", start)
    if isinstance(error, PermissionError):
        hint = "run this as root, or as a user that the agent's socket_owner and socket_group let in"
        return AgentUnreachable(f"you may not use the agent's socket {path}", hint)
    return AgentUnreachable(f"the agent's socket {path} cannot be used: {error}", start)


def _decoded(text: bytes) -> Answer:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CommandError(ErrorCode.INTERNAL, "the agent's answer is not JSON") from error
    if not isinstance(value, dict):
        raise CommandError(ErrorCode.INTERNAL, "the agent's answer is not a JSON object")
    return value


def _checked(answer: Answer) -> Answer:
    error = error_in(answer)
    if error is not None:
        raise error
    return answer
