"""An agent without a core: answers prepared beforehand, over the real API on a real unix socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from gary.api import Answer, Api, Arguments
from gary.connections import Limits
from gary.control import ControlSocket

CLUSTER = b"c" * 16
FIRST_QUESTIONS: dict[str, Answer] = {"version": {"cluster": CLUSTER.hex()}, "holders": {"here": True, "holders": []}}
"""What the command line asks before a command about a deployment; answered even if nothing is prepared."""


@dataclass
class PreparedCommands:
    """``answers``: per operation, one answer for every call, or a list of which the last one repeats.

    An exception in place of an answer is raised. ``asked`` has every call in order. A stream whose operation is in
    ``endless`` stays open after its items; ``closed`` has the operations whose streams were closed.
    """

    answers: dict[str, object] = field(default_factory=dict)
    endless: frozenset[str] = frozenset()
    asked: list[tuple[str, Arguments]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    @property
    def given(self) -> list[tuple[str, Arguments]]:
        """The commands in order, without the questions that came before them."""
        return [(op, args) for op, args in self.asked if op not in FIRST_QUESTIONS or op in self.answers]

    async def call(self, op: str, args: Arguments) -> Answer:
        self.asked.append((op, args))
        answer = self.answers.get(op, FIRST_QUESTIONS.get(op, {}))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, Mapping)
        return answer

    async def stream(self, op: str, args: Arguments) -> AsyncGenerator[Answer, None]:
        self.asked.append((op, args))
        items = self.answers.get(op, [])
        assert isinstance(items, Sequence)
        try:
            for item in items:
                if isinstance(item, BaseException):
                    raise item
                yield item
            if op in self.endless:
                await asyncio.Event().wait()
        finally:
            self.closed.append(op)

    def metrics(self) -> bytes:
        return b"gary_test_metric 1\n"


class AgentDouble:
    """A context manager that serves ``commands`` at ``socket_path`` from a thread of its own."""

    def __init__(
        self,
        socket_path: Path,
        commands: PreparedCommands,
        metrics_bind: str = "",
        limits: Limits | None = None,
        owner: int | None = None,
        group: int | None = None,
    ) -> None:
        self.socket_path = socket_path
        self.commands = commands
        self.api = Api(commands, ControlSocket(socket_path, owner, group), metrics_bind, limits)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> AgentDouble:
        self._thread.start()
        assert self._started.wait(10)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._loop is not None
        assert self._ended is not None
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            await self.api.start()
        except Exception as error:  # noqa: BLE001 - handed to the test's thread
            self._failure = error
            return
        finally:
            self._started.set()
        await self._ended.wait()
        await self.api.close()
