"""What a node keeps on its disk, and the one way to write it.

A ``Storage`` holds small records in named tables and, for each deployment of which this node is a member, a document:
a snapshot with the changes appended since. ``write`` is one atomic and durable transaction: when it returns, all of it
survives a loss of power; when it raises ``StorageFailed``, none of it happened. There is no other state between.

``SqliteStorage`` is the real one; ``MemoryStorage`` obeys the same contract for tests and simulations.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, assert_never

from gary.errors import StorageFailed


class Table(StrEnum):
    """Where a record belongs. ``NODE``: identity, epoch, cluster; ``TRUST``: the node's standing in its cluster;
    ``DEPLOYMENT``: its small facts about one deployment.
    """

    NODE = "node"
    PEER = "peer"
    TOMBSTONE = "tombstone"
    DEPLOYMENT = "deployment"
    TRUST = "trust"


@dataclass(frozen=True, slots=True)
class PutRecord:
    table: Table
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class DeleteRecord:
    """Deleting a record that is not there changes nothing."""

    table: Table
    key: str


@dataclass(frozen=True, slots=True)
class AppendChanges:
    deployment: str
    changes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PutSnapshot:
    """Replaces the snapshot and every change appended so far."""

    deployment: str
    snapshot: bytes


@dataclass(frozen=True, slots=True)
class DropDocument:
    deployment: str


Write = PutRecord | DeleteRecord | AppendChanges | PutSnapshot | DropDocument


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """``snapshot`` is empty when only changes were ever appended; ``changes`` are in the order of their appending."""

    snapshot: bytes
    changes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """All that was durable, sorted by key. Every table is present.

    ``set_aside``: what could not be read and was kept under another name, in words: the whole file, and then the
    storage began anew, or single records, which count as absent.
    """

    records: Mapping[Table, Mapping[str, bytes]] = field(default_factory=lambda: {table: {} for table in Table})
    documents: Mapping[str, StoredDocument] = field(default_factory=dict)
    set_aside: tuple[str, ...] = ()


class Storage(Protocol):
    def load(self) -> Stored:
        """Everything that is durable now. Raises ``StorageFailed`` when the disk cannot be read."""

    def write(self, writes: Sequence[Write]) -> None:
        """All of ``writes``, in order, durable, or ``StorageFailed`` and none of them."""

    def close(self) -> None:
        """Let go of files. Closing twice is fine."""


MIGRATIONS = (
    """
    CREATE TABLE record (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key))
        WITHOUT ROWID;
    CREATE TABLE snapshot (deployment TEXT PRIMARY KEY, content BLOB NOT NULL);
    CREATE TABLE change (number INTEGER PRIMARY KEY, deployment TEXT NOT NULL, content BLOB NOT NULL);
    CREATE INDEX change_of_deployment ON change (deployment, number);
    """,
    # Documents have checksums of their own.
    "ALTER TABLE record ADD COLUMN checksum INTEGER",
)
"""Step ``i`` takes a file from version ``i`` to ``i + 1``. Steps only ever add: a file that a newer Gary has touched is
still read and written by this one, so an upgrade can be taken back."""

FILE_NAME = "gary.sqlite"
_COMPANIONS = ("", "-wal", "-shm")
# SQLITE_ERROR while opening: the statements are ours, so it is the file whose tables are not what they should be.
_UNREADABLE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})


class SqliteStorage:
    """One SQLite file in ``directory`` (made if missing, mode 0700), locked for as long as it is open.

    Calls must not overlap, but may come from any one thread at a time. Opening raises ``StorageFailed`` when the
    directory cannot be used or another agent has it. A file that is no database any more is set aside, never deleted.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / FILE_NAME
        self._set_aside: tuple[str, ...] = ()
        try:
            _make_private_directory(directory)
            try:
                self._connection = _open(self._path)
            except sqlite3.DatabaseError as error:
                if not _is_unreadable(error):
                    raise
                self._set_aside = _set_aside(self._path)
                self._connection = _open(self._path)
            self._set_aside += _set_damaged_records_aside(self._connection)
        except (OSError, sqlite3.Error) as error:
            raise StorageFailed(_explain(self._path, error)) from error

    def load(self) -> Stored:
        records: dict[Table, dict[str, bytes]] = {table: {} for table in Table}
        changes: dict[str, list[bytes]] = {}
        try:
            known = {table.value: table for table in Table}
            rows = self._connection.execute("SELECT kind, key, CAST(value AS BLOB) FROM record ORDER BY kind, key")
            for kind, key, value in rows:
                if kind in known:  # A newer Gary may have kept records of a kind that this one does not know.
                    records[known[kind]][key] = value
            snapshots = dict(self._connection.execute("SELECT deployment, content FROM snapshot").fetchall())
            for deployment, content in self._connection.execute(
                "SELECT deployment, content FROM change ORDER BY number"
            ):
                changes.setdefault(deployment, []).append(content)
        except sqlite3.Error as error:
            raise StorageFailed(_explain(self._path, error)) from error
        documents = {
            deployment: StoredDocument(snapshots.get(deployment, b""), tuple(changes.get(deployment, ())))
            for deployment in sorted(snapshots.keys() | changes.keys())
        }
        return Stored(records, documents, self._set_aside)

    def write(self, writes: Sequence[Write]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for write in writes:
                _execute(self._connection, write)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):  # Some failures have ended the transaction already.
                self._connection.execute("ROLLBACK")
            raise StorageFailed(_explain(self._path, error)) from error

    def close(self) -> None:
        self._connection.close()


class MemoryStorage:
    """The contract of ``Storage`` without a disk: what ``write`` returned for is there after ``crash`` and ``close``.

    ``failing``: while set, every write is refused with this reason. ``writes_count``: of the transactions that
    succeeded those that had something to write. ``losses_count``: how often something that it had was lost.
    """

    def __init__(self) -> None:
        self.failing: str | None = None
        self.writes_count = 0
        self.losses_count = 0
        self._records: dict[Table, dict[str, bytes]] = {table: {} for table in Table}
        self._documents: dict[str, StoredDocument] = {}
        self._set_aside: tuple[str, ...] = ()
        self._closed = False

    def load(self) -> Stored:
        if self._closed:
            raise StorageFailed("the storage is closed")
        records = {table: dict(sorted(content.items())) for table, content in self._records.items()}
        return Stored(records, dict(sorted(self._documents.items())), self._set_aside)

    def document(self, id: str) -> StoredDocument | None:
        """One of the documents that ``load`` would give."""
        return self._documents.get(id)

    def record(self, table: Table, key: str) -> bytes | None:
        """One of the records that ``load`` would give."""
        return self._records[table].get(key)

    def write(self, writes: Sequence[Write]) -> None:
        if self._closed:
            raise StorageFailed("the storage is closed")
        if self.failing is not None:
            raise StorageFailed(self.failing)
        for write in writes:
            self._apply(write)
        self.writes_count += bool(writes)

    def close(self) -> None:
        self._closed = True

    def crash(self) -> None:
        """The process died and another opens the same disk: all that was written is there, and nothing else."""
        self._closed = False
        self._set_aside = ()

    def corrupt(self) -> None:
        """The disk became unreadable while nobody had it open; the next ``load`` reports it and begins anew."""
        self.wipe()
        self._set_aside = (f"{FILE_NAME}.unreadable-1",)

    def corrupt_documents(self, rng: random.Random) -> int:
        """A byte of each document's snapshot, or of its last change, is another one; how many documents that struck."""
        self.losses_count += 1
        for id, stored in sorted(self._documents.items()):
            *changes, last = stored.changes or (stored.snapshot,)
            broken = bytearray(last)
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            self._documents[id] = (
                StoredDocument(stored.snapshot, (*changes, bytes(broken)))
                if stored.changes
                else StoredDocument(bytes(broken), ())
            )
        return len(self._documents)

    def damage(self, table: Table, key: str) -> None:
        """That record is not what was written any more; the next ``load`` reports it and goes without it."""
        self.losses_count += 1
        del self._records[table][key]
        self._set_aside = (_in_words(table.value, key),)

    def wipe(self) -> None:
        """The disk was replaced by an empty one."""
        self.losses_count += 1
        self._records = {table: {} for table in Table}
        self._documents = {}
        self._closed = False

    def copy(self) -> MemoryStorage:
        """All that is on the disk now, on another one."""
        other = MemoryStorage()
        other.restore(self)
        return other

    def restore(self, copy: MemoryStorage) -> None:
        """The disk has what ``copy`` has, and nothing else."""
        self.losses_count += 1
        self._records = {table: dict(records) for table, records in copy._records.items()}
        self._documents = dict(copy._documents)
        self._closed = False

    def _apply(self, write: Write) -> None:
        match write:
            case PutRecord(table, key, value):
                self._records[table][key] = value
            case DeleteRecord(table, key):
                self._records[table].pop(key, None)
            case AppendChanges(deployment, changes):
                if changes:
                    before = self._documents.get(deployment, StoredDocument(b"", ()))
                    self._documents[deployment] = StoredDocument(before.snapshot, before.changes + changes)
            case PutSnapshot(deployment, snapshot):
                self._documents[deployment] = StoredDocument(snapshot, ())
            case DropDocument(deployment):
                self._documents.pop(deployment, None)
            case _:
                assert_never(write)


def _execute(connection: sqlite3.Connection, write: Write) -> None:
    match write:
        case PutRecord(table, key, value):
            connection.execute(
                "INSERT INTO record (kind, key, value, checksum) VALUES (?, ?, ?, ?) ON CONFLICT (kind, key) "
                "DO UPDATE SET value = excluded.value, checksum = excluded.checksum",
                (table.value, key, value, _checksum(table.encode(), key.encode(), value)),
            )
        case DeleteRecord(table, key):
            connection.execute("DELETE FROM record WHERE kind = ? AND key = ?", (table.value, key))
        case AppendChanges(deployment, changes):
            connection.executemany(
                "INSERT INTO change (deployment, content) VALUES (?, ?)", [(deployment, change) for change in changes]
            )
        case PutSnapshot(deployment, snapshot):
            connection.execute("DELETE FROM change WHERE deployment = ?", (deployment,))
            connection.execute(
                "INSERT INTO snapshot VALUES (?, ?) ON CONFLICT (deployment) DO UPDATE SET content = excluded.content",
                (deployment, snapshot),
            )
        case DropDocument(deployment):
            connection.execute("DELETE FROM change WHERE deployment = ?", (deployment,))
            connection.execute("DELETE FROM snapshot WHERE deployment = ?", (deployment,))
        case _:
            assert_never(write)


def _open(path: Path) -> sqlite3.Connection:
    """A connection ready for use, with the schema of this version. Raises ``sqlite3.Error``."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.0)
    try:
        # The lock lives as long as the process, so that two agents never share one state directory.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 4194304")
        for (verdict,) in connection.execute("PRAGMA quick_check(1)"):
            if verdict != "ok":
                raise _Unreadable(verdict)
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
            for statement in filter(str.strip, step.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
        for columns in (
            "kind, key, value, checksum FROM record",
            "deployment, content FROM snapshot",
            "number FROM change",
        ):
            connection.execute(f"SELECT {columns} LIMIT 0")
    except UnicodeDecodeError as error:
        # What SQLite says of a schema that is broken quotes it, and Python cannot read that.
        connection.close()
        raise _Unreadable(str(error)) from error
    except BaseException:
        connection.close()
        raise
    return connection


class _Unreadable(sqlite3.DatabaseError):
    """SQLite opened the file, and found its structure broken."""


def _checksum(kind: bytes, key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(kind + b"/" + key))


def _set_damaged_records_aside(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Records that are not what was written get a kind that nobody reads. Those of a version without checksums pass."""
    # Where bytes have changed, what was text may be none.
    rows = connection.execute(
        "SELECT CAST(kind AS BLOB), CAST(key AS BLOB), CAST(value AS BLOB), checksum FROM record "
        "WHERE checksum IS NOT NULL"
    ).fetchall()
    damaged = [(kind, key) for kind, key, value, checksum in rows if _checksum(kind, key, value) != checksum]
    words = [(kind.decode(errors="replace"), key.decode(errors="replace")) for kind, key in damaged]
    for raw, (kind, key) in zip(damaged, words, strict=True):
        connection.execute(
            "UPDATE OR REPLACE record SET kind = ?, key = ?, checksum = NULL "
            "WHERE CAST(kind AS BLOB) = ? AND CAST(key AS BLOB) = ?",
            (f"damaged {kind}", key, *raw),
        )
    return tuple(_in_words(kind, key) for kind, key in words)


def _in_words(kind: str, key: str) -> str:
    return f"the record {key} of {kind}"


def _is_unreadable(error: sqlite3.Error) -> bool:
    # The lower byte is the primary code; the rest says which part of the file it was.
    return isinstance(error, _Unreadable) or (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _UNREADABLE


def _set_aside(path: Path) -> tuple[str, ...]:
    """Rename the file and its companions to the first free name; returns the new names."""
    number = 1
    while (target := path.with_name(f"{path.name}.unreadable-{number}")).exists():
        number += 1
    names = []
    for suffix in _COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{target}{suffix}")
            names.append(f"{target.name}{suffix}")
    _sync_directory(path.parent)
    return tuple(names)


def _make_private_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    """A new or renamed entry is durable only when its directory is."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(path: Path, error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{path}: another agent is using this state directory"
    if code == sqlite3.SQLITE_FULL:
        return f"{path}: no space left on the disk"
    return f"{path}: {error}"
