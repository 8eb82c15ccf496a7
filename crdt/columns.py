"""Columns: the run-length encodings in which Automerge stores operations.

A column is a sequence of runs: a positive length and one value, a negative length and that many different values, or
zero and a number of nulls. Delta columns store differences. Boolean columns alternate between counts of false and true.
Decoders are told how many rows may come, so a run of 2**60 values costs nothing. They accept any form; whether it is
the one that Automerge itself would write is decided by encoding again (see ``changes``).

Source: Automerge binary document format, sections "Run Length Encoding", "Delta Encoding", "Boolean Encoding".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypeVar

from crdt.chunks import Reader, signed, unsigned
from crdt.errors import MalformedChange

T = TypeVar("T", int, str)


def decode_runs(column: bytes, rows_max: int, value: Callable[[Reader], T]) -> list[T | None]:
    """All rows of a run-length encoded column; ``value`` reads one value."""
    reader = Reader(column)
    rows: list[T | None] = []
    while reader.remaining:
        length = reader.signed()
        count = abs(length) if length else reader.unsigned()
        if len(rows) + count > rows_max:
            raise MalformedChange(f"has a column of more than {rows_max} rows")
        if length > 0:
            rows.extend([value(reader)] * count)
        elif length < 0:
            rows.extend(value(reader) for _ in range(count))
        else:
            rows.extend([None] * count)
    return rows


def decode_numbers(column: bytes, rows_max: int) -> list[int | None]:
    return decode_runs(column, rows_max, Reader.unsigned)


def decode_texts(column: bytes, rows_max: int) -> list[str | None]:
    return decode_runs(column, rows_max, _text)


def decode_deltas(column: bytes, rows_max: int) -> list[int | None]:
    """Absolute values of a delta column; nulls do not move it."""
    total = 0
    rows: list[int | None] = []
    for delta in decode_runs(column, rows_max, Reader.signed):
        total += delta or 0
        rows.append(None if delta is None else total)
    return rows


def encode_numbers(rows: Sequence[int | None]) -> bytes:
    return _encode_runs(rows, unsigned)


def encode_texts(rows: Sequence[str]) -> bytes:
    return _encode_runs(rows, _encode_text)


def encode_deltas(rows: Sequence[int]) -> bytes:
    return _encode_runs([row - before for before, row in zip([0, *rows], rows, strict=False)], signed)


def _encode_runs(rows: Sequence[T | None], encode: Callable[[T], bytes]) -> bytes:
    out = bytearray()
    different: list[bytes] = []
    for row, group in groupby(rows):
        count = len(list(group))
        if row is not None and count == 1:
            different.append(encode(row))
            continue
        out += _flush(different)
        out += b"\x00" + unsigned(count) if row is None else signed(count) + encode(row)
    return bytes(out + _flush(different))


def _flush(different: list[bytes]) -> bytes:
    out = signed(-len(different)) + b"".join(different) if different else b""
    different.clear()
    return out


def _text(reader: Reader) -> str:
    try:
        return reader.take(reader.unsigned()).decode()
    except UnicodeDecodeError as error:
        raise MalformedChange("has a key that is not UTF-8") from error


def _encode_text(text: str) -> bytes:
    encoded = text.encode()
    return unsigned(len(encoded)) + encoded
