"""One command: what is asked, and where its answer goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gary.effects import Reply
from gary.errors import CommandError, ErrorCode
from gary.identity import NodeId
from gary.requests import Responder

Json = dict[str, Any]
TEXT_SIZE_MAX = 512


@dataclass(frozen=True, slots=True)
class Command:
    """``asker``: the node that wants to know; ``operator``: the public key that has ordered it. A command of this
    node's own socket has neither.
    """

    operation: str
    arguments: Mapping[str, Any]
    responder: Responder
    asker: NodeId = ""
    operator: bytes = b""

    def text(self, key: str) -> str:
        """The argument ``key``; raises ``CommandError`` if it is no text, empty, too long or not to be printed."""
        value = self.arguments.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= TEXT_SIZE_MAX or not value.isprintable():
            raise CommandError(ErrorCode.BAD_REQUEST, f"{key!r} is missing or is no text", "see 'gary --help'")
        return value

    def says(self, key: str) -> bool:
        """Whether the flag ``key`` is set."""
        return self.arguments.get(key) is True


class LocalResponder:
    """Answers a command of this node's own API."""

    def __init__(self, emit: Callable[[Sequence[Reply]], None], command: int) -> None:
        self._emit = emit
        self._command = command
        self.is_cancelled = False

    def item(self, item: Mapping[str, Any]) -> None:
        self._reply(Reply(self._command, item, last=False))

    def end(self, item: Mapping[str, Any]) -> None:
        self._reply(Reply(self._command, item))

    def fail(self, error: CommandError) -> None:
        self._reply(Reply(self._command, error=error.to_json()))

    def _reply(self, reply: Reply) -> None:
        if not self.is_cancelled:
            self._emit([reply])
            self.is_cancelled = reply.last
