"""Messages of the exchange, as msgpack: ``[kind, ...]``.

``[0, purpose, [change, ...]]`` is a push, ``[1, purpose, [head, ...], [recent, ...]]`` tells heads. Decoding is total:
any bytes give a message within the limits or ``MalformedMessage``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

import msgpack

from crdt.chunks import HASH_SIZE_BYTES
from crdt.errors import MalformedMessage

P = TypeVar("P", bound=IntEnum)

_PUSH, _HEADS = 0, 1


class PushPurpose(IntEnum):
    """Why changes come, which decides what the receiver answers."""

    PUBLISH = 0
    """New from their author to all fellows: acknowledge."""
    SPREAD = 1
    """New from their author to some fellows: acknowledge, and relay what is new."""
    RELAY = 2
    """New to the sender: relay what is new."""
    REPAIR = 3
    """Missing according to the receiver's heads: acknowledge, ask for nothing more."""


class HeadsPurpose(IntEnum):
    """Why heads come. Each kind is answered only by kinds below it or by a repair, so every conversation ends."""

    COMPARE = 0
    """Are we equal? Silence if so."""
    PROBE = 1
    """Are we equal? Answer even if so."""
    REQUEST = 2
    """I am behind: send what I lack, and request in turn what you lack."""
    COUNTER_REQUEST = 3
    """Send what I lack."""
    ACKNOWLEDGE = 4
    """This much is durable here. No answer."""


@dataclass(frozen=True, slots=True)
class Push:
    purpose: PushPurpose
    changes: tuple[bytes, ...]

    def encode(self) -> bytes:
        return _pack([_PUSH, int(self.purpose), list(self.changes)])


@dataclass(frozen=True, slots=True)
class Heads:
    """``recent``: other hashes that the sender holds, from which the receiver sees what the two share."""

    purpose: HeadsPurpose
    heads: tuple[bytes, ...]
    recent: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        return _pack([_HEADS, int(self.purpose), list(self.heads), list(self.recent)])


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """What a message may hold. ``size_bytes_max`` is checked before anything is decoded."""

    size_bytes_max: int = 2 * 1024 * 1024
    changes_max: int = 4096
    hashes_max: int = 256


def decode_message(data: bytes, limits: MessageLimits) -> Push | Heads:
    """The message in ``data``; raises ``MalformedMessage`` for anything else."""
    if len(data) > limits.size_bytes_max:
        raise MalformedMessage(f"a message of {len(data)} bytes, {limits.size_bytes_max} are the limit")
    try:
        decoded = msgpack.unpackb(data, use_list=False, max_array_len=max(limits.changes_max, limits.hashes_max))
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise MalformedMessage(f"not msgpack: {error}") from error
    match decoded:
        case (int(kind), int(purpose), tuple(changes)) if kind == _PUSH:
            return Push(_purpose(PushPurpose, purpose), _byte_strings(changes, limits.changes_max))
        case (int(kind), int(purpose), tuple(heads), tuple(recent)) if kind == _HEADS:
            return Heads(_purpose(HeadsPurpose, purpose), _hashes(heads, limits), _hashes(recent, limits))
        case _:
            raise MalformedMessage("neither a push nor heads")


def _pack(value: list[object]) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _purpose(kind: type[P], number: int) -> P:
    try:
        return kind(number)
    except ValueError as error:
        raise MalformedMessage(f"an unknown purpose {number}") from error


def _hashes(found: Sequence[object], limits: MessageLimits) -> tuple[bytes, ...]:
    hashes = _byte_strings(found, limits.hashes_max)
    if any(len(item) != HASH_SIZE_BYTES for item in hashes):
        raise MalformedMessage("a hash of a wrong size")
    return hashes


def _byte_strings(found: Sequence[object], count_max: int) -> tuple[bytes, ...]:
    if len(found) > count_max:
        raise MalformedMessage(f"{len(found)} items, {count_max} are the limit")
    strings = tuple(item for item in found if isinstance(item, bytes))
    if len(strings) != len(found):
        raise MalformedMessage("an item that is not bytes")
    return strings
