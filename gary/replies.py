"""What the agent has said to one client and the client has not taken yet: bounded, however slowly it reads.

Whoever reads a container's output for it waits for room, so nothing of that is lost. What comes from other nodes cannot
be made to wait; if there is too much of it the oldest goes, and the client is told how much.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from gary.effects import Reply

SIZE_BYTES_MAX = 4 * 1024 * 1024
ITEM_BYTES = 100
"""What an item takes beside its texts."""


class Replies:
    """A queue of the replies to ``command``, of about ``size_bytes_max`` bytes. The last reply is never dropped."""

    def __init__(self, command: int, size_bytes_max: int = SIZE_BYTES_MAX) -> None:
        self._command = command
        self._size_bytes_max = size_bytes_max
        self._replies: deque[Reply] = deque()
        self._size_bytes = 0
        self._lost = 0
        self._changed = asyncio.Event()

    def put(self, reply: Reply) -> None:
        self._replies.append(reply)
        self._size_bytes += _size_bytes(reply.item)
        while self._size_bytes > self._size_bytes_max and not self._replies[0].last:
            self._size_bytes -= _size_bytes(self._replies.popleft().item)
            self._lost += 1
        self._changed.set()

    async def get(self) -> Reply:
        """The next one; ``{"lost": n}`` where n items are missing before it."""
        while not self._replies:
            await self._change()
        if self._lost:
            lost, self._lost = self._lost, 0
            return Reply(self._command, {"lost": lost}, last=False)
        reply = self._replies.popleft()
        self._size_bytes -= _size_bytes(reply.item)
        self._changed.set()
        return reply

    async def room(self) -> None:
        """Return when no more than half of what there may be is left."""
        while self._size_bytes > self._size_bytes_max // 2:
            await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _size_bytes(item: Mapping[str, object]) -> int:
    """Items of streams are flat: texts and numbers."""
    return ITEM_BYTES + sum(len(value) for value in item.values() if isinstance(value, str))
