"""Snapshots: bounds on a saved document before Automerge expands it.

A document chunk holds the columns of all changes and all operations, run-length encoded and perhaps compressed, so a
hundred bytes can announce 2**60 rows. ``check_snapshot`` walks the shell and counts; what the columns mean is judged
later, change by change.

Source: Automerge binary document format, sections "Document Chunk", "Column Specification".
"""

from __future__ import annotations

from hashlib import sha256

from crdt.chunks import DOCUMENT, HASH_SIZE_BYTES, Limits, Reader, inflate, open_chunk, unsigned
from crdt.errors import MalformedChange

_COMPRESSED = 0x08
_BOOLEAN, _TEXT, _VALUE_META, _VALUE_RAW = 4, 5, 6, 7
_DELTA = 3
_ACTORS_MAX = 65536
_COLUMNS_MAX = 64


def check_snapshot(snapshot: bytes, limits: Limits) -> None:
    """Raise ``MalformedChange`` unless ``snapshot`` is one document chunk that expands within ``limits``."""
    kind, checksum, contents = open_chunk(snapshot)
    if kind != DOCUMENT:
        raise MalformedChange(f"is a chunk of type {kind}, not a document")
    if sha256(bytes([DOCUMENT]) + unsigned(len(contents)) + contents).digest()[:4] != checksum:
        raise MalformedChange("has a wrong checksum")
    reader = Reader(contents)
    for _ in range(_bounded(reader, _ACTORS_MAX)):
        reader.take(reader.unsigned())
    heads = _bounded(reader, limits.dependencies_max)
    reader.take(HASH_SIZE_BYTES * heads)
    directories = [_directory(reader), _directory(reader)]
    budget = limits.snapshot_size_bytes_max
    for directory in directories:
        for spec, size in directory:
            column = reader.take(size)
            if spec & _COMPRESSED:
                column = inflate(column, budget)
            budget -= len(column)
            if budget < 0:
                raise MalformedChange(f"expands to more than {limits.snapshot_size_bytes_max} bytes")
            _count(column, spec & 0x07, limits)
    for _ in range(heads):
        reader.unsigned()
    if reader.remaining:
        raise MalformedChange(f"has {reader.remaining} bytes behind its columns")


def _directory(reader: Reader) -> list[tuple[int, int]]:
    return [(reader.unsigned(), reader.unsigned()) for _ in range(_bounded(reader, _COLUMNS_MAX))]


def _bounded(reader: Reader, count_max: int) -> int:
    count = reader.unsigned()
    if count > count_max:
        raise MalformedChange(f"announces {count} parts where {count_max} are the limit")
    return count


def _count(column: bytes, kind: int, limits: Limits) -> None:
    """Walk the runs of one column; raise if they add up to too many rows or to bytes that are not there."""
    if kind == _VALUE_RAW:
        return
    reader = Reader(column)
    rows = expanded = 0
    while reader.remaining:
        if kind == _BOOLEAN:
            rows += reader.unsigned()
        else:
            length = reader.signed()
            if length == 0:
                rows += reader.unsigned()
            rows += abs(length)
            for _ in range(min(1, length) if length > 0 else -length):
                size = _value(reader, kind)
                expanded += size * max(1, length)
        if rows > limits.snapshot_rows_max or expanded > limits.snapshot_size_bytes_max:
            raise MalformedChange(f"has a column of more than {limits.snapshot_rows_max} rows or too many bytes")


def _value(reader: Reader, kind: int) -> int:
    """Pass over one value; how many bytes it stands for."""
    if kind == _TEXT:
        return len(reader.take(reader.unsigned()))
    if kind == _DELTA:
        reader.signed()
        return 0
    number = reader.unsigned()
    return number >> 4 if kind == _VALUE_META else 0
