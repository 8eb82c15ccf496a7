"""What tests of the transport on nng share: nodes on real sockets, a clock that can be moved, and patience."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from gossip.nng import NngTransport
from gossip.testing import Node, Recorder
from gossip.transport import Credentials, TransportConfig

TIMEOUT_S = 10.0


class ClockAhead(asyncio.SelectorEventLoop):
    """An event loop whose clock can be put forward."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


def run_with_clock(test: Callable[[ClockAhead], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=ClockAhead) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, ClockAhead)
        runner.run(test(loop))


async def eventually(condition: Callable[[], bool]) -> None:
    """For what no event tells of: the end of something on nng's threads."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def run(config: TransportConfig) -> AsyncIterator[Node]:
    """A node on nng, for as long as the context lasts."""
    transport = NngTransport(config)
    heard = Recorder(TIMEOUT_S)
    await transport.start(heard)
    try:
        yield Node(config.node, transport, heard)
    finally:
        await transport.close()


def started(node: str, credentials: Credentials | None) -> contextlib.AbstractAsyncContextManager[Node]:
    """``run`` at any free pair of ports of this machine."""
    return run(TransportConfig(node, "127.0.0.1:0", credentials=credentials))
