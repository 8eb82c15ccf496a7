"""Waiting for a deployment to become whole, and showing how it does.

``Watch`` decides, from one status after the other, whether to go on; the views show; ``wait_until_whole`` does the
asking. Time is given to ``Watch``, so that a test needs none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol

from gary.cli import render
from gary.cli.client import Client
from gary.cli.exits import AgentUnreachable, NotWhole
from gary.cli.terminal import is_watched, say, talk_console
from gary.errors import CommandError, ErrorCode

POLL_INTERVAL_S = 0.2
SETTLE_S = 15.0
"""How long nothing may change, with nothing under way, before waiting on is pointless. Longer than one round of
calling for volunteers, shorter than a person's patience."""

Status = Mapping[str, Any]
_SETTLED_STATES = frozenset({"healthy", "failing", "unkept", "held", "withdrawn"})
_PASSING = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT, ErrorCode.NOT_FOUND})


class Verdict(StrEnum):
    GOING_ON = "going on"
    WHOLE = "whole"
    STUCK = "stuck"
    LATE = "late"


class Watch:
    """What to conclude from the statuses of a deployment that was asked to reach ``generation``."""

    def __init__(self, generation: object, timeout_s: float, now: float) -> None:
        self._generation = generation
        self._deadline = now + timeout_s
        self._picture: object = None
        self._unchanged_since = now

    def judge(self, status: Status | None, now: float) -> Verdict:
        """``status`` None: it could not be had just now."""
        if status is not None:
            if status.get("state") == "whole" and status.get("generation") == self._generation:
                return Verdict.WHOLE
            picture = [
                (slot.get("slot"), slot.get("state"), slot.get("node"), slot.get("current"), slot.get("reason"))
                for slot in status.get("slots", ())
            ]
            if picture != self._picture or not _is_settled(status):
                self._picture, self._unchanged_since = picture, now
        if now >= self._deadline:
            return Verdict.LATE
        return Verdict.STUCK if now - self._unchanged_since >= SETTLE_S else Verdict.GOING_ON


def _is_settled(status: Status) -> bool:
    """Whether nothing is on its way: every slot is where it will stay unless something from outside changes."""
    return all(slot.get("state") in _SETTLED_STATES for slot in status.get("slots", ()))


class View(Protocol):
    def update(self, status: Status) -> None: ...

    def close(self) -> None: ...


class LineView:
    """One line for each slot whose state changed: for logs and pipes."""

    def __init__(self) -> None:
        self._shown: dict[object, tuple[object, ...]] = {}

    def update(self, status: Status) -> None:
        for slot in status.get("slots", ()):
            now = (slot.get("state"), slot.get("node_name"), slot.get("current"), slot.get("reason"))
            if self._shown.get(slot.get("slot")) != now:
                self._shown[slot.get("slot")] = now
                say(render.slot_line(slot))

    def close(self) -> None:
        pass


class LiveView:
    """The table of slots, redrawn in place: for a person at a terminal."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(console=talk_console(), auto_refresh=False, transient=True)
        self._live.start()

    def update(self, status: Status) -> None:
        self._live.update(render.progress(status), refresh=True)

    def close(self) -> None:
        self._live.stop()


def wait_until_whole(
    client: Client,
    app: str,
    generation: object,
    timeout_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Status:
    """The status in which ``app`` is whole at ``generation``. Raises ``NotWhole`` with what is missing and why."""
    started = clock()
    watch = Watch(generation, timeout_s, started)
    view: View = LiveView() if is_watched() else LineView()
    status: Status | None = None
    try:
        while True:
            latest = _ask(client, app)
            if latest is not None:
                status = latest
                view.update(status)
            verdict = watch.judge(latest, clock())
            if verdict is Verdict.WHOLE:
                assert status is not None
                return status
            if verdict is not Verdict.GOING_ON:
                break
            sleep(POLL_INTERVAL_S)
    finally:
        view.close()
    raise NotWhole(_what_is_missing(app, generation, status, verdict, clock() - started))


def _ask(client: Client, app: str) -> Status | None:
    try:
        return client.call("status", app=app)
    except AgentUnreachable:
        return None
    except CommandError as error:
        # The nodes that hold the deployment may be out of reach for a moment; the time limit ends that, too.
        if error.code in _PASSING:
            return None
        raise


def _what_is_missing(app: str, generation: object, status: Status | None, verdict: Verdict, waited_s: float) -> str:
    if status is None:
        return f"{app}: no node that holds it answered for {waited_s:.0f} s; gary nodes says who is there"
    why = "nothing more is under way" if verdict is Verdict.STUCK else f"the time limit of {waited_s:.0f} s is over"
    lines = [f"{app} is not whole: {why}."]
    if status.get("generation") != generation:
        lines.append(f"  its generation is {status.get('generation')}: another deploy may have come after this one")
    lines += [f"  {line}" for line in render.missing(status)]
    lines.append(f"The deployment stays and goes on trying: gary status {app}")
    return "\n".join(lines)
