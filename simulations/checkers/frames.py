"""Looking into frames, as those who judge them do."""

from __future__ import annotations

from collections.abc import Iterator

from crdt import MessageLimits
from crdt.messages import Push, decode_message
from gary.messages import Invitation, MalformedMessage, Message, Snapshot, Sync, decode
from gossip.messages import Payload
from gossip.messages import decode as decode_frame
from simulations.checkers.books import changes_in

FRAME_SIZE_BYTES_MAX = 4 * 1024 * 1024


def messages(frame: bytes) -> Iterator[Message]:
    """What agents say to each other in it."""
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
