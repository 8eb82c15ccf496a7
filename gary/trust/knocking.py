"""Going to somebody's door as a guest: a transport of its own that dials, says one thing, and hears one answer."""

from __future__ import annotations

import asyncio

from gossip import GossipError, Lane, Peer, TransportConfig, TransportFactory
from gossip.transport import Credentials

ANSWER_WAIT_S = 10.0


class DoorClosed(Exception):
    """The world failed: nobody answered at the door. Nothing has changed."""


class _Ear:
    """The receiver of one answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def received(self, sender: str, lane: Lane, frame: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(frame)

    def unreachable(self, peer: Peer, reason: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(DoorClosed(reason))


async def knock(make: TransportFactory, address: str, guest: str, credentials: Credentials, frame: bytes) -> bytes:
    """Say ``frame`` at ``address``; the answer. Raises ``DoorClosed``."""
    ear = _Ear()
    transport = make(TransportConfig(guest, bind="", credentials=credentials))
    try:
        await transport.start(ear)
    except GossipError as error:
        raise DoorClosed(f"the invitation cannot be used: {error}") from error
    try:
        transport.send(Peer("", address), Lane.BULK, frame)
        async with asyncio.timeout(ANSWER_WAIT_S):
            return await ear.answer
    except TimeoutError as error:
        raise DoorClosed(f"no answer within {ANSWER_WAIT_S:g} s") from error
    finally:
        await transport.close()
