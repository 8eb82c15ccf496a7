"""Answers that flow: one stream to whoever asked, fed from several places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gary.commands.command import Json
from gary.commands.host import Asking
from gary.errors import CommandError
from gary.identity import NodeId
from gary.requests import Responder

FIRST_ITEM_WAIT_S = 3.0


Read = Callable[[Mapping[str, Any]], Json | None]
"""Makes of what another node has sent what it may mean; None: nothing."""


@dataclass(slots=True, eq=False)
class Stream:
    """It ends when none of its sources is open any more. ``asked``: the requests to other nodes that feed it."""

    responder: Responder
    open: int = 0
    asked: list[int] = field(default_factory=list)


class Streams:
    """All that are open at this node."""

    def __init__(self, host: Asking) -> None:
        self._host = host
        self._open: list[Stream] = []

    def begin(self, responder: Responder, sources: int = 0) -> Stream:
        """A stream with so many ``sources``; each ends with ``close``."""
        stream = Stream(responder, sources)
        self._open.append(stream)
        return stream

    def feed(self, stream: Stream, node: NodeId, operation: str, arguments: Mapping[str, Any], read: Read) -> None:
        """Let another node's answer flow into ``stream``, as far as ``read`` can make something of it."""

        def heard(item: Mapping[str, Any], last: bool) -> None:
            known = read(item) if item else None
            if known is not None:
                stream.responder.item(known)
            if last:
                self.close(stream)

        def failed(error: CommandError) -> None:
            self.close(stream)

        host = self._host
        stream.open += 1
        request = host.requests.ask(
            node, operation, arguments, host.clock.now, timeout_s=FIRST_ITEM_WAIT_S, heard=heard, failed=failed
        )
        stream.asked.append(request)

    def close(self, stream: Stream) -> None:
        """One of its sources has ended."""
        stream.open -= 1
        self.end_if_done(stream)

    def end_if_done(self, stream: Stream) -> None:
        if stream.open <= 0 and stream in self._open:
            self._open.remove(stream)
            stream.responder.end({})

    def cancel(self, responder: Responder) -> None:
        """Nobody listens any more: what other nodes are asked for ends."""
        for stream in [stream for stream in self._open if stream.responder is responder]:
            self._open.remove(stream)
            for request in stream.asked:
                self._host.requests.cancel(request)
