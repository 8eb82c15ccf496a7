"""HTTP over the agent's unix socket, with the standard library only: a command must start fast."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from gary.cli.exits import AgentUnreachable
from gary.errors import CommandError, ErrorCode

ANSWER_TIMEOUT_S = 120.0

Answer = dict[str, Any]


class Client:
    """Asks the agent at ``socket_path``. Every method raises ``CommandError`` or ``AgentUnreachable``."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path

    def get(self, *path: str, **query: object) -> Answer:
        return self._ask("GET", path, query)

    def post(self, *path: str, body: Mapping[str, object]) -> Answer:
        return self._ask("POST", path, {}, body)

    def delete(self, *path: str) -> Answer:
        return self._ask("DELETE", path, {})

    def stream(
        self, method: str, *path: str, body: Mapping[str, object] | None = None, **query: object
    ) -> Iterator[Answer]:
        """The items of a stream as they come; ends with it. An error in the stream is raised like any other."""
        with self._request(method, path, query, body, timeout_s=None) as response:
            for line in response:
                yield _checked(_decoded(line))

    def _ask(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, object],
        body: Mapping[str, object] | None = None,
    ) -> Answer:
        with self._request(method, path, query, body, timeout_s=ANSWER_TIMEOUT_S) as response:
            return _checked(_decoded(response.read()))

    @contextlib.contextmanager
    def _request(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, object],
        body: Mapping[str, object] | None,
        timeout_s: float | None,
    ) -> Iterator[http.client.HTTPResponse]:
        connection = UnixConnection(self.socket_path, timeout_s)
        url = "/v1/" + "/".join(quote(part, safe="") for part in path)
        given = {name: value for name, value in query.items() if value is not None and value is not False}
        if given:
            url += "?" + urlencode({name: "1" if value is True else value for name, value in given.items()})
        content = None if body is None else json.dumps(body).encode()
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
    error = answer.get("error")
    if not isinstance(error, dict):
        return answer
    known = {code.value for code in ErrorCode}
    code = error.get("code")
    raise CommandError(
        ErrorCode(code) if code in known else ErrorCode.INTERNAL,
        str(error.get("message", "the agent refused without a reason")),
        str(error.get("hint", "")),
    )
