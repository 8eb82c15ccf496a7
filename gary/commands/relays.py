"""Passing on what operators and nodes say to each other in envelopes: this node reads, keeps and logs nothing of it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from gary.commands.command import Command
from gary.commands.host import Asking
from gary.errors import CommandError, ErrorCode
from gary.requests import Responder
from gary.trust.envelope import ENVELOPE_SIZE_BYTES_MAX

ORDER = "order"
"""The operation of a request that carries an envelope."""
RELAY_WAIT_S = 30.0


class Relays:
    """The envelopes whose answers are awaited."""

    def __init__(self, host: Asking) -> None:
        self._host = host
        self._open: list[tuple[Responder, int]] = []

    def relay(self, command: Command) -> None:
        """Carry an envelope to the node that it is for, and back what that node seals."""
        host, responder, node = self._host, command.responder, command.text("node")
        if node not in host.alive or node == host.node:
            message = f"node {node} is not reachable from here"
            raise CommandError(ErrorCode.UNAVAILABLE, message, "'gary nodes' shows which are")
        wait_s = command.arguments.get("timeout_s")

        def heard(item: Mapping[str, Any], last: bool) -> None:
            sealed = item.get("sealed")
            if isinstance(sealed, bytes):
                (responder.end if last else responder.item)({"sealed": base64.b64encode(sealed).decode()})
            elif last:
                responder.fail(CommandError(ErrorCode.INTERNAL, f"node {node} gave an answer that nobody can read"))

        request = host.requests.ask(
            node,
            ORDER,
            {"envelope": _envelope(command)},
            host.clock.now,
            timeout_s=float(wait_s) if isinstance(wait_s, int | float) else RELAY_WAIT_S,
            heard=heard,
            failed=responder.fail,
        )
        self._open = [entry for entry in self._open if not entry[0].is_cancelled]
        self._open.append((responder, request))

    def cancel(self, responder: Responder) -> None:
        for listening, request in [entry for entry in self._open if entry[0] is responder]:
            self._open.remove((listening, request))
            self._host.requests.cancel(request)


def _envelope(command: Command) -> bytes:
    given = command.arguments.get("envelope")
    try:
        envelope = base64.b64decode(given, validate=True) if isinstance(given, str) else b""
    except (binascii.Error, ValueError):
        envelope = b""
    if not 0 < len(envelope) <= ENVELOPE_SIZE_BYTES_MAX:
        raise CommandError(ErrorCode.BAD_REQUEST, "'envelope' is no envelope in base64, or too large a one")
    return envelope
