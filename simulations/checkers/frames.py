"""Looking into frames, as those who judge them do."""

from __future__ import annotations

from collections.abc import Iterator

from crdt import MessageLimits
from crdt.messages import Push, decode_message
from gary.messages import Invitation, MalformedMessage, Message, Snapshot, Sync, decode
from gossip.messages import Payload
from gossip.messages import decode as decode_frame
from gossip.messages import encode as encode_message
from simulations.checkers.books import changes_in

FRAME_SIZE_BYTES_MAX = 4 * 1024 * 1024

_SIZES = (0, 2**8, 2**16)
_PAYLOADS = tuple(encode_message(Payload(bytes(size)))[:3] for size in _SIZES)
"""How a payload begins, by its size."""


def messages(frame: bytes) -> Iterator[Message]:
    """What agents say to each other in it."""
    # After a partition most large frames compare views, and to read those takes long.
    if not any(start in frame for start in _PAYLOADS):
        return
    for message in decode_frame(frame, FRAME_SIZE_BYTES_MAX).messages:
        if isinstance(message, Payload):
            try:
                decoded = decode(message.body)
            except MalformedMessage:
                continue
            if decoded is not None:
                yield decoded


def carried(message: Message) -> tuple[bytes, ...]:
    """The changes of a document that it carries. Those that compare heads carry none."""
    match message:
        case Invitation(snapshot=snapshot) | Snapshot(snapshot=snapshot) if snapshot:
            return changes_in(snapshot)
        case Sync(body=body):
            pushed = decode_message(body, MessageLimits())
            return pushed.changes if isinstance(pushed, Push) else ()
    return ()
