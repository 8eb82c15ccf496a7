"""Asking other nodes what this one does not know: all of them, or one after the other until one answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gary.commands.command import Json
from gary.commands.host import Asking
from gary.identity import NodeId

ANSWERS_WAIT_S = 1.0

Answered = Callable[[Mapping[NodeId, Json]], None]
Settled = Callable[[Mapping[str, Any] | None], None]


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

        _ask(host, node, operation, arguments, settle, lambda: settle(None))

    deadline = host.clock.after(ANSWERS_WAIT_S, finish)
    for node in nodes:
        ask(node)
    if not nodes:
        finish(host.clock.now)


def ask_in_turn(
    host: Asking, nodes: Sequence[NodeId], operation: str, arguments: Mapping[str, Any], settle: Settled
) -> None:
    """``settle`` with the first answer; with None if the first three do not answer, or there is nobody to ask."""
    if not nodes:
        settle(None)
        return
    _ask(
        host,
        nodes[0],
        operation,
        arguments,
        settle,
        lambda: ask_in_turn(host, nodes[1:3], operation, arguments, settle),
    )


def _ask(
    host: Asking,
    node: NodeId,
    operation: str,
    arguments: Mapping[str, Any],
    heard: Settled,
    failed: Callable[[], None],
) -> None:
    host.requests.ask(
        node,
        operation,
        arguments,
        host.clock.now,
        timeout_s=ANSWERS_WAIT_S,
        heard=lambda item, last: heard(item),
        failed=lambda error: failed(),
    )
