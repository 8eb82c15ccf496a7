"""Chunks: the outer shell of everything Automerge writes, opened without Automerge.

A chunk is ``magic, checksum (4 bytes), type (1 byte), length (uLEB128), contents``. The checksum is the beginning of
the SHA-256 over ``type, length, contents``; for a change that SHA-256 is also its hash. A *compressed change* (type 2)
has the contents of a change (type 1) as a raw DEFLATE stream and carries the checksum of the change it inflates to.

Bytes from outside are opened here first, so that the library behind the binding sees neither a wrong checksum nor a
stream that inflates to a thousand times its size.

Source: Automerge binary document format, https://automerge.org/automerge-binary-format-spec/ (sections "Chunk
Container", "Change Chunk", "Compressed Change Chunk").
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from hashlib import sha256

from crdt.errors import MalformedChange

MAGIC = b"\x85\x6f\x4a\x83"
HASH_SIZE_BYTES = 32

DOCUMENT = 0
CHANGE = 1
COMPRESSED_CHANGE = 2

_LEB_BYTES_MAX = 10
_INTEGER_MAX = 2**63 - 1
_SHORT = tuple(bytes([value]) for value in range(0x80))


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of anything a replica takes in. Raising one costs memory per peer that sends nonsense.

    ``change_size_bytes_max``: one change, inflated. ``inflation_max``: how many times larger than on the wire a change
    may be once it is larger than ``inflation_free_bytes``. ``writes_max``: registers written by one change.
    ``predecessors_max``: earlier writes that one change replaces. ``key_size_bytes_max``: one key.
    ``dependencies_max``: heads that one change merges. ``waiting_max`` and ``waiting_size_bytes_max``: changes kept
    until what they depend on arrives. ``snapshot_size_bytes_max`` and ``snapshot_rows_max``: one snapshot, inflated,
    and the rows of any of its columns.
    """

    change_size_bytes_max: int = 4 * 1024 * 1024
    inflation_max: int = 100
    inflation_free_bytes: int = 64 * 1024
    writes_max: int = 8192
    predecessors_max: int = 16384
    key_size_bytes_max: int = 1024
    dependencies_max: int = 512
    waiting_max: int = 1024
    waiting_size_bytes_max: int = 4 * 1024 * 1024
    snapshot_size_bytes_max: int = 64 * 1024 * 1024
    snapshot_rows_max: int = 1_000_000


@dataclass(frozen=True, slots=True)
class ChangeChunk:
    """A change whose checksum is right: its hash and its inflated contents, which nobody has looked at yet."""

    hash: bytes
    contents: bytes


class Reader:
    """A cursor over bytes that raises ``MalformedChange`` instead of reading past the end."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def remaining(self) -> int:
        return len(self._data) - self._position

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        end = self._position + size
        if end > len(self._data):
            raise MalformedChange(f"ends after {len(self._data)} bytes, {end} are announced")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def unsigned(self) -> int:
        """The next uLEB128, shortest form only, at most 63 bits."""
        data, position = self._data, self._position
        if position < len(data) and data[position] < 0x80:
            self._position = position + 1
            return data[position]
        value = shift = 0
        for read in range(_LEB_BYTES_MAX):
            if position + read >= len(data):
                raise MalformedChange("ends within a number")
            byte = data[position + read]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if (byte == 0 and read > 0) or value > _INTEGER_MAX:
                    raise MalformedChange("has a number in no canonical form")
                self._position = position + read + 1
                return value
        raise MalformedChange("has a number that is too long")

    def signed(self) -> int:
        """The next sLEB128 of at most 63 bits; the form is not checked to be the shortest."""
        value = shift = 0
        for _ in range(_LEB_BYTES_MAX):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if byte & 0x40:
                    value -= 1 << shift
                if not -_INTEGER_MAX <= value <= _INTEGER_MAX:
                    raise MalformedChange("has a number that is too large")
                return value
        raise MalformedChange("has a number that is too long")


def unsigned(value: int) -> bytes:
    """``value`` as uLEB128."""
    if value < len(_SHORT):
        return _SHORT[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    """``value`` as sLEB128."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def seal_change(contents: bytes) -> bytes:
    """Contents of a change as an uncompressed chunk, with the checksum that belongs to it."""
    body = bytes([CHANGE]) + unsigned(len(contents)) + contents
    return MAGIC + sha256(body).digest()[:4] + body


def plain_change(raw: bytes, limits: Limits) -> bytes:
    """``raw``, whose shell was checked before, as an uncompressed chunk."""
    kind, _, _ = open_chunk(raw)
    return seal_change(open_change(raw, limits).contents) if kind == COMPRESSED_CHANGE else raw


def open_change(raw: bytes, limits: Limits) -> ChangeChunk:
    """Check the shell of one change and inflate it if need be. Raises ``MalformedChange``; allocates within limits."""
    kind, checksum, contents = open_chunk(raw)
    if kind == COMPRESSED_CHANGE:
        contents = inflate(contents, _size_max(len(contents), limits))
    elif kind != CHANGE:
        raise MalformedChange(f"is a chunk of type {kind}, not a change")
    if len(contents) > limits.change_size_bytes_max:
        raise MalformedChange(f"is larger than {limits.change_size_bytes_max} bytes")
    digest = sha256(bytes([CHANGE]) + unsigned(len(contents)) + contents).digest()
    if digest[:4] != checksum:
        raise MalformedChange("has a wrong checksum")
    return ChangeChunk(digest, contents)


def open_chunk(raw: bytes) -> tuple[int, bytes, bytes]:
    """Type, checksum (not verified) and contents of bytes that are exactly one chunk."""
    reader = Reader(raw)
    if reader.take(4) != MAGIC:
        raise MalformedChange("does not begin like a chunk")
    checksum = reader.take(4)
    kind = reader.take(1)[0]
    contents = reader.take(reader.unsigned())
    if reader.remaining:
        raise MalformedChange(f"is followed by {reader.remaining} bytes that do not belong to it")
    return kind, checksum, contents


def inflate(compressed: bytes, size_bytes_max: int) -> bytes:
    """One raw DEFLATE stream, whole and nothing after it, refused beyond ``size_bytes_max``."""
    stream = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(compressed, size_bytes_max + 1)
    except zlib.error as error:
        raise MalformedChange(f"does not inflate: {error}") from error
    if len(inflated) > size_bytes_max:
        raise MalformedChange(f"inflates to more than {size_bytes_max} bytes")
    if not stream.eof or stream.unused_data:
        raise MalformedChange("is not exactly one compressed stream")
    return inflated


def _size_max(compressed_size: int, limits: Limits) -> int:
    allowed = max(limits.inflation_free_bytes, compressed_size * limits.inflation_max)
    return min(limits.change_size_bytes_max, allowed)
