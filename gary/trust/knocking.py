"""Going to somebody's door as a guest: a transport of its own that dials, says one thing, and hears one answer."""

from __future__ import annotations

import asyncio
import random

from gary.effects import Knock
from gossip import GossipError, Lane, Peer, TransportConfig, TransportFactory

ANSWER_WAIT_S = 10.0
COME_AGAIN_S = (0.1, 0.4)
HUNG_UP = "hung up"
"""What is in the reason of a transport whose peer closed the connection without a word."""


class DoorClosed(Exception):
    """The world failed: nobody answered at the door. Nothing has changed."""


class _Ear:
    """The receiver of one answer, which begins with ``addressee``."""

    def __init__(self, addressee: bytes) -> None:
        self._addressee = addressee
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def received(self, sender: str, lane: Lane, frame: bytes) -> None:
        if frame.startswith(self._addressee) and not self.answer.done():
            self.answer.set_result(frame)

    def unreachable(self, peer: Peer, reason: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(DoorClosed(reason))


async def knock(make: TransportFactory, visit: Knock) -> bytes:
    """Say what ``visit`` has to say; the answer. Raises ``DoorClosed``."""
    try:
        async with asyncio.timeout(ANSWER_WAIT_S):
            while True:
                try:
                    return await _once(make, visit)
                except DoorClosed as closed:
                    if HUNG_UP not in str(closed):
                        raise
                # So many guests are there that there was no room for this one.
                await asyncio.sleep(random.uniform(*COME_AGAIN_S))
    except TimeoutError as error:
        raise DoorClosed(f"no answer within {ANSWER_WAIT_S:g} s") from error


async def _once(make: TransportFactory, visit: Knock) -> bytes:
    ear = _Ear(visit.addressee)
    transport = make(TransportConfig(visit.guest, bind="", credentials=visit.credentials))
    try:
        await transport.start(ear)
    except GossipError as error:
        raise DoorClosed(f"the invitation cannot be used: {error}") from error
    try:
        transport.send(Peer("", visit.address), Lane.BULK, visit.frame)
        return await ear.answer
    finally:
        await transport.close()
