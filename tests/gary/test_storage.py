"""The contract of ``Storage``, for both implementations, and what only a disk can do wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gary.boot import Boot, boot
from gary.errors import StorageFailed
from gary.storage import (
    FILE_NAME,
    MIGRATIONS,
    AppendChanges,
    DeleteRecord,
    DropDocument,
    MemoryStorage,
    PutRecord,
    PutSnapshot,
    SqliteStorage,
    Storage,
    Stored,
    StoredDocument,
    Table,
    Write,
)
from gary.trust.keys import SEED_SIZE_BYTES
from gary.trust.notary import Founded, answer
from gary.trust.standing import Standing, found, founding_writes

Reopen = Callable[[Storage], Storage]


def _reopen(storage: Storage) -> Storage:
    """What the next process would see."""
    storage.close()
    if isinstance(storage, MemoryStorage):
        storage.crash()
        return storage
    assert isinstance(storage, SqliteStorage)
    return SqliteStorage(storage._directory)


@pytest.fixture(params=["sqlite", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    made: Storage = SqliteStorage(tmp_path / "state") if request.param == "sqlite" else MemoryStorage()
    yield made
    made.close()


def test_a_new_storage_is_empty_and_has_every_table(storage: Storage) -> None:
    stored = storage.load()
    assert dict(stored.records) == {table: {} for table in Table}
    assert dict(stored.documents) == {}
    assert stored.set_aside == ()


def test_what_was_written_is_there_for_the_next_process(storage: Storage) -> None:
    storage.write(
        [PutRecord(Table.NODE, "epoch", b"\x01"), PutRecord(Table.PEER, "b", b"2"), PutRecord(Table.PEER, "a", b"1")]
    )
    storage.write([PutSnapshot("d", b"whole"), AppendChanges("d", (b"x", b"y")), AppendChanges("e", (b"z",))])
    after = _reopen(storage)
    stored = after.load()
    after.close()
    assert stored.records[Table.NODE] == {"epoch": b"\x01"}
    assert list(stored.records[Table.PEER].items()) == [("a", b"1"), ("b", b"2")]
    assert list(stored.documents.items()) == [
        ("d", StoredDocument(b"whole", (b"x", b"y"))),
        ("e", StoredDocument(b"", (b"z",))),
    ]


def test_a_record_is_replaced_and_deleted(storage: Storage) -> None:
    storage.write(
        [PutRecord(Table.NODE, "k", b"old"), PutRecord(Table.NODE, "k", b"new"), PutRecord(Table.PEER, "k", b"p")]
    )
    assert storage.load().records[Table.NODE] == {"k": b"new"}
    storage.write([DeleteRecord(Table.NODE, "k"), DeleteRecord(Table.NODE, "never there")])
    assert storage.load().records[Table.NODE] == {}
    assert storage.load().records[Table.PEER] == {"k": b"p"}


def test_a_snapshot_replaces_the_changes_before_it_and_a_dropped_document_is_gone(storage: Storage) -> None:
    storage.write([AppendChanges("d", (b"1", b"2")), PutSnapshot("d", b"s"), AppendChanges("d", (b"3",))])
    assert storage.load().documents == {"d": StoredDocument(b"s", (b"3",))}
    storage.write([DropDocument("d"), DropDocument("never there"), AppendChanges("e", ())])
    assert storage.load().documents == {}


def test_memory_storage_can_be_made_to_fail_and_then_changes_nothing() -> None:
    storage = MemoryStorage()
    storage.write([PutRecord(Table.NODE, "k", b"1")])
    storage.failing = "no space left on the disk"
    with pytest.raises(StorageFailed, match="no space"):
        storage.write([PutRecord(Table.NODE, "k", b"2")])
    storage.failing = None
    assert storage.load().records[Table.NODE] == {"k": b"1"}
    storage.corrupt()
    assert storage.load().set_aside
    assert storage.load().records[Table.NODE] == {}


_KEYS = st.sampled_from(["a", "b", "c"])
_BYTES = st.binary(max_size=8)
_WRITES: st.SearchStrategy[Write] = st.one_of(
    st.builds(PutRecord, st.sampled_from(Table), _KEYS, _BYTES),
    st.builds(DeleteRecord, st.sampled_from(Table), _KEYS),
    st.builds(AppendChanges, _KEYS, st.lists(_BYTES, max_size=3).map(tuple)),
    st.builds(PutSnapshot, _KEYS, _BYTES),
    st.builds(DropDocument, _KEYS),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(_WRITES, max_size=4), max_size=6))
def test_both_storages_end_with_the_same_content(
    tmp_path_factory: pytest.TempPathFactory, transactions: Sequence[Sequence[Write]]
) -> None:
    real: Storage = SqliteStorage(tmp_path_factory.mktemp("state"))
    model = MemoryStorage()
    for transaction in transactions:
        real.write(transaction)
        model.write(transaction)
    assert real.load() == model.load()
    real = _reopen(real)
    assert real.load() == model.load()
    real.close()


def test_the_directory_and_the_file_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "var" / "state"
    storage = SqliteStorage(directory)
    storage.write([PutRecord(Table.NODE, "k", b"v")])
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in directory.iterdir()} == {0o600}
    storage.close()


def test_a_second_agent_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    first = SqliteStorage(tmp_path)
    with pytest.raises(StorageFailed, match="another agent"):
        SqliteStorage(tmp_path)
    first.write([PutRecord(Table.NODE, "k", b"v")])
    assert first.load().set_aside == ()
    first.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "flipped", "foreign"])
def test_an_unreadable_file_is_set_aside_and_reported(tmp_path: Path, damage: str) -> None:
    storage = SqliteStorage(tmp_path)
    storage.write([AppendChanges("d", tuple(bytes([n]) * 500 for n in range(100)))])
    storage.close()
    path = tmp_path / FILE_NAME
    content = path.read_bytes()
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign")) as foreign:
        foreign.execute("PRAGMA journal_mode = WAL")
        foreign.execute("CREATE TABLE record (x)")
    broken = {
        "foreign": (tmp_path / "foreign").read_bytes(),
        "garbage": b"this is no database\n" * 500,
        "truncated": content[: len(content) // 2],
        "flipped": content[:4096] + bytes(255 - byte for byte in content[4096:]),
    }[damage]
    path.write_bytes(broken)
    fresh = SqliteStorage(tmp_path)
    stored = fresh.load()
    assert stored.set_aside == ("gary.sqlite.unreadable-1",)
    assert stored.documents == {}
    assert (tmp_path / stored.set_aside[0]).read_bytes() == broken
    fresh.write([PutRecord(Table.NODE, "k", b"v")])
    fresh.close()
    again = SqliteStorage(tmp_path)
    assert again.load().set_aside == ()
    assert again.load().records[Table.NODE] == {"k": b"v"}
    again.close()


@settings(max_examples=15, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 40_000))
@example(b"\x80", 3512)
def test_damaged_bytes_on_disk_never_stop_the_storage_from_opening(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, offset: int
) -> None:
    directory = tmp_path_factory.mktemp("state")
    storage = SqliteStorage(directory)
    storage.write([AppendChanges("d", (b"x" * 9000,)), PutRecord(Table.NODE, "k", b"v")])
    storage.close()
    content = bytearray((directory / FILE_NAME).read_bytes())
    content[offset : offset + len(noise)] = noise
    (directory / FILE_NAME).write_bytes(content)
    reopened = SqliteStorage(directory)
    with contextlib.suppress(StorageFailed):
        reopened.load()
    reopened.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [("value = x'76616c7564'", "the record k of trust"), ("key = CAST(x'ff' AS TEXT)", "the record \ufffd of trust")],
)
def test_a_record_of_which_a_bit_has_changed_counts_as_absent_and_is_reported_once(
    tmp_path: Path, change: str, said: str
) -> None:
    storage = SqliteStorage(tmp_path)
    storage.write([PutRecord(Table.NODE, "k", b"value"), PutRecord(Table.TRUST, "k", b"value")])
    storage._connection.execute(f"UPDATE record SET {change} WHERE kind = 'trust'")
    (damaged,) = storage._connection.execute("SELECT value FROM record WHERE kind = 'trust'").fetchall()
    storage.close()
    storage = SqliteStorage(tmp_path)
    stored = storage.load()
    assert stored.set_aside == (said,)
    assert (stored.records[Table.NODE], stored.records[Table.TRUST]) == ({"k": b"value"}, {})
    storage.write([PutRecord(Table.TRUST, "k", b"new")])
    storage.close()
    storage = SqliteStorage(tmp_path)
    assert (storage.load().set_aside, storage.load().records[Table.TRUST]) == ((), {"k": b"new"})
    kept = storage._connection.execute("SELECT value FROM record WHERE kind = 'damaged trust'")
    assert kept.fetchall() == [damaged]
    storage.close()


def test_records_that_were_written_without_checksums_are_read(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as old:
        old.executescript(MIGRATIONS[0])
        old.execute("INSERT INTO record VALUES ('node', 'k', x'76')")
        old.execute("PRAGMA user_version = 1")
        old.commit()
    storage = SqliteStorage(tmp_path)
    assert storage.load() == Stored(records={table: {"k": b"v"} if table is Table.NODE else {} for table in Table})
    storage.close()


@pytest.mark.parametrize("name", ["node seed", "node epoch", "node cluster", "trust root", "trust tls"])
def test_a_node_starts_whatever_record_of_its_is_damaged(tmp_path: Path, name: str) -> None:
    def started(storage: SqliteStorage) -> Boot:
        stored = storage.load()
        made, writes = boot(stored, os.urandom)
        if not made.is_founded:
            seed = os.urandom(SEED_SIZE_BYTES)
            founded = answer(found(seed, made.node))
            assert isinstance(founded, Founded)
            writes += founding_writes(seed, founded, 0.0)
        storage.write(writes)
        Standing(made.key, made.cluster, storage.load().records[Table.TRUST])
        return made

    storage = SqliteStorage(tmp_path)
    before = started(storage)
    which = tuple(name.split())
    (value,) = storage._connection.execute("SELECT value FROM record WHERE kind = ? AND key = ?", which).fetchone()
    flipped = value[:-1] + bytes([value[-1] ^ 1])
    storage._connection.execute("UPDATE record SET value = ? WHERE kind = ? AND key = ?", (flipped, *which))
    storage.close()
    storage = SqliteStorage(tmp_path)
    assert len(storage.load().set_aside) == 1
    after = started(storage)
    assert after.is_founded is False
    assert (after.node == before.node) == (name not in ("node seed", "node epoch"))
    storage.close()


def test_a_file_that_a_newer_version_has_touched_is_still_used(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path)
    storage.write([PutRecord(Table.NODE, "k", b"v")])
    storage._connection.execute("CREATE TABLE of_the_future (x)")
    storage._connection.execute("INSERT INTO record VALUES ('of the future', 'k', x'00', NULL)")
    storage._connection.execute("PRAGMA user_version = 99")
    storage.close()
    older = SqliteStorage(tmp_path)
    assert older.load().records[Table.NODE] == {"k": b"v"}
    older.write([PutRecord(Table.NODE, "k", b"w")])
    older.close()


def test_a_directory_that_cannot_be_made_is_a_failure_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="file"):
        SqliteStorage(tmp_path / "file" / "state")


_FULL_DISK = """
import resource, sys
from pathlib import Path
from gary.errors import StorageFailed
from gary.storage import AppendChanges, PutRecord, SqliteStorage, Table
storage = SqliteStorage(Path(sys.argv[1]))
storage.write([PutRecord(Table.NODE, "k", b"before"), AppendChanges("d", (b"kept",))])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
try:
    storage.write([PutRecord(Table.NODE, "k", b"after"), AppendChanges("d", (b"x" * 1_000_000,))])
except StorageFailed as error:
    print(error.reason)
before = storage.load()
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
storage.write([PutRecord(Table.NODE, "again", b"fine")])
print(before.records[Table.NODE], before.documents["d"].changes)
"""


def test_a_full_disk_refuses_the_write_and_leaves_everything_as_it_was(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=30, check=False
    )
    reason, content = ended.stdout.splitlines()
    assert ended.returncode == 0
    assert str(tmp_path / FILE_NAME) in reason
    assert content == "{'k': b'before'} (b'kept',)"
    storage = SqliteStorage(tmp_path)
    assert storage.load().records[Table.NODE] == {"k": b"before", "again": b"fine"}
    storage.close()


_ENDLESS_WRITER = """
import sys
from pathlib import Path
from gary.storage import AppendChanges, PutRecord, PutSnapshot, SqliteStorage, Table
storage = SqliteStorage(Path(sys.argv[1]))
n = 0
while True:
    n += 1
    document = PutSnapshot("d", b"%d" % n) if n % 7 == 0 else AppendChanges("d", (b"%d" % n,))
    storage.write([PutRecord(Table.NODE, "n", b"%d" % n), document])
    print(n, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 20, 150])
def test_a_writer_killed_at_any_instant_leaves_a_prefix_with_all_that_was_told(tmp_path: Path, lines: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _ENDLESS_WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(lines):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().splitlines()
    told = int(rest[-1]) if rest and rest[-1] else lines
    storage = SqliteStorage(tmp_path)
    stored = storage.load()
    storage.close()
    assert stored.set_aside == ()
    n = int(stored.records[Table.NODE]["n"])
    assert n in (told, told + 1)
    snapshot_at = n - n % 7
    expected = StoredDocument(
        b"%d" % snapshot_at if snapshot_at else b"", tuple(b"%d" % m for m in range(snapshot_at + 1, n + 1))
    )
    assert stored.documents["d"] == expected
