"""Asking the notary from an agent: one child at a time, started when there is something to ask."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process

from gary.errors import GaryError
from gary.trust.notary import MESSAGE_SIZE_BYTES_MAX, Answer, Request, decode_answer, encode

IDLE_S = 5.0
"""How long the child stays for further requests: one that joins is seldom alone."""
ANSWER_WAIT_S = 30.0
_LENGTH_SIZE_BYTES = 4


class NotaryFailed(GaryError):
    """The world failed: no certificate can be made here. Nothing has changed."""


class Notary:
    """``ask`` in any number; the requests are answered one after the other."""

    def __init__(self) -> None:
        self._child: Process | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    async def ask(self, request: Request) -> Answer:
        """The notary's answer. Raises ``NotaryFailed``."""
        async with self._turn:
            self._stay()
            try:
                async with asyncio.timeout(ANSWER_WAIT_S):
                    answer = await self._converse(encode(request))
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                await self._dismiss()
                raise NotaryFailed(f"no certificate can be made: {error or type(error).__name__}") from error
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._hint)
        try:
            return decode_answer(request, answer)
        except ValueError as error:
            raise NotaryFailed(f"no certificate can be made: {error}") from error

    async def close(self) -> None:
        """End the child."""
        async with self._turn:
            self._stay()
            await self._dismiss()

    async def _converse(self, request: bytes) -> bytes:
        if self._child is None or self._child.returncode is not None:
            # -P: as for the agent itself, the working directory lends no modules.
            isolation = ["-P"] if sys.flags.safe_path else []
            self._child = await asyncio.create_subprocess_exec(
                sys.executable, *isolation, "-m", "gary.trust.notary", stdin=PIPE, stdout=PIPE
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(request)
        await self._child.stdin.drain()
        size = int.from_bytes(await self._child.stdout.readexactly(_LENGTH_SIZE_BYTES), "big")
        if size > MESSAGE_SIZE_BYTES_MAX:
            raise OSError("the notary talks nonsense")
        return await self._child.stdout.readexactly(size)

    def _hint(self) -> None:
        """Nothing was asked for a while: the child ends when its input does."""
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()
            self._child = None

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    async def _dismiss(self) -> None:
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            child.kill()
            await child.wait()
