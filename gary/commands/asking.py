"""Asking other nodes what this one does not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gary.commands.command import Json
from gary.commands.host import Asking
from gary.identity import NodeId

ANSWERS_WAIT_S = 1.0

Answered = Callable[[Mapping[NodeId, Json]], None]


def gather(host: Asking, nodes: Sequence[NodeId], operation: str, arguments: Mapping[str, Any], done: Answered) -> None:
    """Ask several nodes; ``done`` with what came back within a second. Who does not answer is not in it."""
    waiting = set(nodes)
    answers: dict[NodeId, Json] = {}
    is_done = False

    def finish(now: float) -> None:
        nonlocal is_done
        if not is_done:
            is_done = True
            host.clock.forget(deadline)
            done(answers)

    def ask(node: NodeId) -> None:
        def settle(answer: Mapping[str, Any] | None) -> None:
            waiting.discard(node)
            if answer is not None:
                answers[node] = dict(answer)
            if not waiting:
                finish(host.clock.now)

        host.requests.ask(
            node,
            operation,
            arguments,
            host.clock.now,
            timeout_s=ANSWERS_WAIT_S,
            heard=lambda item, last: settle(item),
            failed=lambda error: settle(None),
        )

    deadline = host.clock.after(ANSWERS_WAIT_S, finish)
    for node in nodes:
        ask(node)
    if not nodes:
        finish(host.clock.now)
