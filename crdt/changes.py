"""Changes: what one author did in one transaction, decoded and checked without Automerge.

This package writes one kind of operation only: *set this key of a skeleton map to these bytes*. ``decode_change``
accepts exactly the changes that consist of those, in exactly the bytes that Automerge would write for them. The second
half matters: Automerge rebuilds changes from columns when it loads what it saved, and a change that was encoded in any
other way then has another hash, so that the saved document can never be loaded again. Nothing else gets to the library.

Contents of a change: dependencies, author, sequence number, first operation's counter, time, message, other actors,
column directory, columns. Operation ids are ``(counter, actor)``; their order decides between concurrent writes.

Source: Automerge binary document format, sections "Change Chunk" and "Operation Columns".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from crdt.chunks import HASH_SIZE_BYTES, ChangeChunk, Limits, Reader, signed, unsigned
from crdt.columns import decode_deltas, decode_numbers, decode_texts, encode_deltas, encode_numbers, encode_texts
from crdt.errors import MalformedChange

ACTOR_SIZE_BYTES = 24
SKELETON_ACTOR = b"crdt/skeleton/01"

OpId = tuple[int, bytes]

_OBJECT_ACTOR, _OBJECT_COUNTER = 0x01, 0x02
_KEY = 0x15
_INSERT, _ACTION = 0x34, 0x42
_VALUE_META, _VALUE_RAW = 0x56, 0x57
_PREDECESSORS, _PREDECESSOR_ACTOR, _PREDECESSOR_COUNTER = 0x70, 0x71, 0x73
_COLUMNS = (
    _OBJECT_ACTOR,
    _OBJECT_COUNTER,
    _KEY,
    _INSERT,
    _ACTION,
    _VALUE_META,
    _VALUE_RAW,
    _PREDECESSORS,
    _PREDECESSOR_ACTOR,
    _PREDECESSOR_COUNTER,
)
_ACTION_SET = 1
_VALUE_BYTES = 7


@dataclass(frozen=True, slots=True)
class SetKey:
    """One register written. ``predecessors``: the writes that the author saw in it and replaced, in ascending order."""

    object_counter: int
    key: str
    value: bytes
    predecessors: tuple[OpId, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One author's transaction. Operation ``i`` has the id ``(start_op + i, actor)``."""

    hash: bytes
    deps: tuple[bytes, ...]
    actor: bytes
    seq: int
    start_op: int
    writes: tuple[SetKey, ...]

    @property
    def max_op(self) -> int:
        return self.start_op + len(self.writes) - 1


def decode_change(chunk: ChangeChunk, limits: Limits) -> Change:
    """The change in ``chunk``. Raises ``MalformedChange`` for anything that this package would not have written."""
    reader = Reader(chunk.contents)
    deps, actor = _head(reader, limits)
    if len(actor) != ACTOR_SIZE_BYTES:
        raise MalformedChange(f"has an author of {len(actor)} bytes, not {ACTOR_SIZE_BYTES}")
    seq, start_op = reader.unsigned(), reader.unsigned()
    if reader.take(2) != b"\x00\x00":
        raise MalformedChange("carries a time or a message")
    actors = [actor, *_actors(reader, limits)]
    writes = _writes(_read_columns(reader), actors, limits)
    change = Change(chunk.hash, deps, actor, seq, start_op, writes)
    if encode_change(change) != chunk.contents:
        raise MalformedChange("is not encoded the one way in which it is written")
    return change


def author_of(chunk: ChangeChunk, limits: Limits) -> bytes:
    """Who made the change in ``chunk``, of which no more is read. Raises ``MalformedChange``."""
    _, author = _head(Reader(chunk.contents), limits)
    return author


def _head(reader: Reader, limits: Limits) -> tuple[tuple[bytes, ...], bytes]:
    return _hashes(reader, limits.dependencies_max), reader.take(reader.unsigned())


def encode_change(change: Change) -> bytes:
    """Contents of the chunk that Automerge writes for ``change``."""
    writes = change.writes
    predecessors = [op for write in writes for op in write.predecessors]
    others = sorted({SKELETON_ACTOR, *(actor for _, actor in predecessors)} - {change.actor})
    index = {actor: place for place, actor in enumerate([change.actor, *others])}
    columns = {
        _OBJECT_ACTOR: encode_numbers([index[SKELETON_ACTOR]] * len(writes)),
        _OBJECT_COUNTER: encode_numbers([write.object_counter for write in writes]),
        _KEY: encode_texts([write.key for write in writes]),
        _INSERT: unsigned(len(writes)),
        _ACTION: encode_numbers([_ACTION_SET] * len(writes)),
        _VALUE_META: encode_numbers([len(write.value) << 4 | _VALUE_BYTES for write in writes]),
        _VALUE_RAW: b"".join(write.value for write in writes),
        _PREDECESSORS: encode_numbers([len(write.predecessors) for write in writes]),
        _PREDECESSOR_ACTOR: encode_numbers([index[actor] for _, actor in predecessors]),
        _PREDECESSOR_COUNTER: encode_deltas([counter for counter, _ in predecessors]),
    }
    present = [(spec, column) for spec, column in columns.items() if column]
    return b"".join(
        (
            unsigned(len(change.deps)),
            *change.deps,
            _sized(change.actor),
            unsigned(change.seq),
            unsigned(change.start_op),
            signed(0),
            unsigned(0),
            unsigned(len(others)),
            *(_sized(actor) for actor in others),
            unsigned(len(present)),
            *(unsigned(spec) + unsigned(len(column)) for spec, column in present),
            *(column for _, column in present),
        )
    )


def _hashes(reader: Reader, count_max: int) -> tuple[bytes, ...]:
    count = reader.unsigned()
    if count > count_max:
        raise MalformedChange(f"depends on more than {count_max} changes")
    hashes = tuple(reader.take(HASH_SIZE_BYTES) for _ in range(count))
    if any(before >= after for before, after in pairwise(hashes)):
        raise MalformedChange("has dependencies out of order")
    return hashes


def _actors(reader: Reader, limits: Limits) -> list[bytes]:
    count = reader.unsigned()
    if count > limits.dependencies_max:
        raise MalformedChange(f"names more than {limits.dependencies_max} actors")
    return [reader.take(reader.unsigned()) for _ in range(count)]


def _read_columns(reader: Reader) -> dict[int, bytes]:
    count = reader.unsigned()
    if count > len(_COLUMNS):
        raise MalformedChange("has more columns than a write needs")
    directory = [(reader.unsigned(), reader.unsigned()) for _ in range(count)]
    unknown = [spec for spec, _ in directory if spec not in _COLUMNS]
    if unknown:
        raise MalformedChange(f"does something other than set a key (column {unknown[0]:#04x})")
    columns = {spec: reader.take(size) for spec, size in directory}
    if reader.remaining:
        raise MalformedChange(f"has {reader.remaining} bytes behind its columns")
    return columns


def _writes(columns: dict[int, bytes], actors: list[bytes], limits: Limits) -> tuple[SetKey, ...]:
    keys = decode_texts(columns.get(_KEY, b""), limits.writes_max)
    if not keys:
        raise MalformedChange("writes nothing")
    if any(len(key.encode()) > limits.key_size_bytes_max for key in set(keys) if key):
        raise MalformedChange(f"has a key of more than {limits.key_size_bytes_max} bytes")
    rows = len(keys)

    def numbers(spec: int) -> list[int]:
        found = [number for number in decode_numbers(columns.get(spec, b""), rows) if number is not None]
        if len(found) != rows:
            raise MalformedChange(f"has no number for each write in column {spec:#04x}")
        return found

    if any(_actor(actors, index) != SKELETON_ACTOR for index in numbers(_OBJECT_ACTOR)):
        raise MalformedChange("writes to something that is no map of the skeleton")
    if any(action != _ACTION_SET for action in numbers(_ACTION)):
        raise MalformedChange("does something other than set a key")
    values = _values(numbers(_VALUE_META), columns.get(_VALUE_RAW, b""))
    predecessors = _predecessors(numbers(_PREDECESSORS), columns, actors, limits)
    writes = []
    objects = numbers(_OBJECT_COUNTER)
    for object_counter, key, value, seen in zip(objects, keys, values, predecessors, strict=True):
        if not key:
            raise MalformedChange("has a write without a key")
        writes.append(SetKey(object_counter, key, value, seen))
    if len({(write.object_counter, write.key) for write in writes}) != rows:
        raise MalformedChange("writes one register twice")
    return tuple(writes)


def _values(metas: list[int], raw: bytes) -> list[bytes]:
    reader = Reader(raw)
    values = []
    for meta in metas:
        if meta & 0x0F != _VALUE_BYTES:
            raise MalformedChange("writes a value that is not bytes")
        values.append(reader.take(meta >> 4))
    return values


def _predecessors(
    counts: list[int], columns: dict[int, bytes], actors: list[bytes], limits: Limits
) -> list[tuple[OpId, ...]]:
    total = sum(counts)
    if total > limits.predecessors_max:
        raise MalformedChange(f"replaces more than {limits.predecessors_max} writes")
    by = decode_numbers(columns.get(_PREDECESSOR_ACTOR, b""), total)
    at = decode_deltas(columns.get(_PREDECESSOR_COUNTER, b""), total)
    if not len(by) == len(at) == total:
        raise MalformedChange("does not name each write that it replaces")
    ids = iter([(counter or 0, _actor(actors, index)) for counter, index in zip(at, by, strict=True)])
    grouped = [tuple(next(ids) for _ in range(count)) for count in counts]
    if any(list(group) != sorted(set(group)) for group in grouped):
        raise MalformedChange("names the writes that it replaces out of order")
    return grouped


def _actor(actors: list[bytes], index: int | None) -> bytes:
    if index is None or index >= len(actors):
        raise MalformedChange("refers to an actor that it does not name")
    return actors[index]


def _sized(data: bytes) -> bytes:
    return unsigned(len(data)) + data
