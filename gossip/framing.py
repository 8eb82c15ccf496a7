"""What travels on one connection of ``gossip.nng``: a hello each way, then batches of frames under a credit window.

nng gives a connection room for three messages and throws away what does not fit, without a word. So a sender keeps at
most ``WINDOW`` messages on their way (the third place is for a credit) and the receiver says how many it has taken.
That count rides on whatever it sends anyway; only a sender whose window is full asks for a message of its own, and not
again before that was answered, so that one place is enough for credits. Frames that wait for the window leave together
in one message: a small window costs latency and not throughput.

``Flow`` is the count of one connection; the functions are the bytes. Nothing here knows of sockets or time.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from gossip.errors import BadFrame
from gossip.transport import GUEST, Lane

VERSION = 1
WINDOW = 2
INSTANCE_BYTES = 8
FRAME_OVERHEAD_BYTES = 4
MESSAGE_OVERHEAD_BYTES = 5 + FRAME_OVERHEAD_BYTES
"""What a message of one frame is longer than it."""

_MAGIC = b"gary"
_GUEST_BIT = 0x80
"""Of the byte that says the lane."""
_NODE_BYTES = 16
_HELLO = struct.Struct(f"!4sBB{_NODE_BYTES}s{INSTANCE_BYTES}s")
_HEAD = struct.Struct("!BI")
_LENGTH = struct.Struct("!I")
_COUNT_MASK = 0xFFFFFFFF
_FRAMES, _FRAMES_ASKING, _CREDIT = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of each side: who speaks, since which start (``instance``), reachable where, on which lane.

    The address of who does not listen is empty.
    """

    node: str
    instance: bytes
    address: str
    lane: Lane


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames (none in a bare credit), the number of messages taken so far, and whether a credit is asked for."""

    frames: tuple[bytes, ...]
    taken: int
    asks: bool


def encode_hello(hello: Hello) -> bytes:
    """The bytes of ``hello``; raises ``ValueError`` unless its node is 32 hexadecimal characters or a guest's name."""
    node = bytes.fromhex(hello.node.removeprefix(GUEST))
    if len(node) != _NODE_BYTES:
        raise ValueError(f"a node id has {2 * _NODE_BYTES} hexadecimal characters, not {len(hello.node)}")
    lane = hello.lane | _GUEST_BIT if hello.node.startswith(GUEST) else hello.lane
    return _HELLO.pack(_MAGIC, VERSION, lane, node, hello.instance) + hello.address.encode()


def is_hello(message: bytes) -> bool:
    """Whether ``message`` claims to be a hello, of whatever version."""
    return message.startswith(_MAGIC)


def decode_hello(message: bytes) -> Hello:
    """The hello in ``message``; raises ``BadFrame`` saying what is wrong with it."""
    if len(message) < len(_MAGIC) + 1 or not is_hello(message):
        raise BadFrame("malformed", "not a hello")
    if message[len(_MAGIC)] != VERSION:
        raise BadFrame("version", f"it speaks version {message[len(_MAGIC)]} on connections, this node {VERSION}")
    if len(message) < _HELLO.size:
        raise BadFrame("malformed", "a hello cut short")
    _, _, lane, node, instance = _HELLO.unpack_from(message)
    name = f"{GUEST if lane & _GUEST_BIT else ''}{node.hex()}"
    try:
        return Hello(name, instance, message[_HELLO.size :].decode(), Lane(lane & ~_GUEST_BIT))
    except ValueError as error:
        raise BadFrame("malformed", "a hello with an unknown lane or an unreadable address") from error


def encode_batch(batch: Batch) -> bytes:
    """The bytes of ``batch``."""
    if not batch.frames:
        return _HEAD.pack(_CREDIT, batch.taken)
    parts = [_HEAD.pack(_FRAMES_ASKING if batch.asks else _FRAMES, batch.taken)]
    for frame in batch.frames:
        parts.append(_LENGTH.pack(len(frame)))
        parts.append(frame)
    return b"".join(parts)


def decode_batch(message: bytes) -> Batch:
    """The batch in ``message``; raises ``BadFrame`` when its lengths do not add up."""
    if len(message) < _HEAD.size:
        raise BadFrame("malformed", "a message cut short")
    kind, taken = _HEAD.unpack_from(message)
    at, end = _HEAD.size, len(message)
    if kind == _CREDIT and at == end:
        return Batch((), taken, asks=False)
    if kind not in (_FRAMES, _FRAMES_ASKING) or at == end:
        raise BadFrame("malformed", f"a message of unknown kind {kind}")
    frames = []
    while at < end:
        if end - at < _LENGTH.size:
            raise BadFrame("malformed", "a frame cut short")
        (length,) = _LENGTH.unpack_from(message, at)
        at += _LENGTH.size
        if end - at < length:
            raise BadFrame("malformed", "a frame cut short")
        frames.append(message[at : at + length])
        at += length
    return Batch(tuple(frames), taken, asks=kind == _FRAMES_ASKING)


@dataclass(slots=True)
class Flow:
    """How many messages went each way on one connection, and how many of ours are known to have been taken.

    Counts wrap at 32 bits. The hello is the first message of either side; bare credits do not count. ``asked`` is
    the number of the last message that asked for a credit, ``owes`` whether the other side waits for one.
    """

    sent: int = 1
    credited: int = 0
    asked: int = 0
    taken: int = 0
    owes: bool = False

    @property
    def open(self) -> bool:
        """Whether another message may leave."""
        return (self.sent - self.credited) & _COUNT_MASK < WINDOW

    def compose(self, frames: Sequence[bytes]) -> Batch:
        """What to send so that ``frames`` leave in one message, or a bare credit if there are none."""
        last = (self.sent + 1 - self.credited) & _COUNT_MASK >= WINDOW
        waiting = 0 < (self.asked - self.credited) & _COUNT_MASK <= WINDOW
        return Batch(tuple(frames), self.taken, asks=bool(frames) and last and not waiting)

    def left(self, batch: Batch) -> None:
        """Account for ``batch``, just sent."""
        self.owes = False
        if batch.frames:
            self.sent = (self.sent + 1) & _COUNT_MASK
        if batch.asks:
            self.asked = self.sent

    def receive(self, batch: Batch) -> None:
        """Account for ``batch``; raises ``BadFrame`` when it claims to have taken what was never sent."""
        if (batch.taken - self.credited) & _COUNT_MASK > (self.sent - self.credited) & _COUNT_MASK:
            raise BadFrame("malformed", "credit for messages that were never sent")
        self.credited = batch.taken
        if batch.frames:
            self.taken = (self.taken + 1) & _COUNT_MASK
            self.owes = self.owes or batch.asks
