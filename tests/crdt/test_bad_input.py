"""Whatever bytes come, there is an answer or one of our own errors, and the replica stays as it was and goes on."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from hashlib import sha256

import msgpack
import pytest
from automerge import core
from hypothesis import example, given
from hypothesis import strategies as st

from crdt import CorruptReplica, Exchange, Limits, Replica
from crdt.changes import SKELETON_ACTOR, Change, SetKey, encode_change
from crdt.chunks import COMPRESSED_CHANGE, MAGIC, seal_change, unsigned
from crdt.messages import Heads, HeadsPurpose, Push, PushPurpose
from tests.crdt.support import (
    MAPS,
    author,
    bring,
    contents,
    forged,
    permit_all,
    permit_own,
    replica,
    state,
    writes,
)


def packed(value: object) -> bytes:
    message: bytes = msgpack.packb(value)
    return message


def lively() -> tuple[Replica, bytes]:
    """A replica with some history, and a change that fits on it."""
    one, two = replica(1), replica(2)
    one.put({("promises", "1/a"): b"1", ("promises", "1/b"): b"2"})
    two.put({("promises", "2/a"): b"3"})
    bring(one, two)
    bring(two, one)
    return two, one.put({("promises", "1/a"): b"4", ("members", "1/new"): b"5"})


def goes_on(target: Replica) -> None:
    """The replica still writes, takes in, saves and loads."""
    other = replica(7)
    assert target.put({("specs", "own"): b"still writes"})
    assert target.apply([other.put({("specs", "other"): b"still takes in"})], permit_all).refused == ()
    assert target.get("specs", "other") == b"still takes in"
    assert state(Replica.load(author(8), MAPS, target.save())) == state(target)


def after_skeleton(*sets: SetKey, seq: int = 1, start_op: int = len(MAPS) + 1, actor: bytes = author(3)) -> bytes:
    return seal_change(encode_change(Change(b"", replica(3).heads(), actor, seq, start_op, sets)))


@given(st.lists(st.binary(max_size=200), max_size=3))
@example([b""])
@example([MAGIC])
@example([MAGIC + bytes(20)])
def test_any_bytes_applied_are_refused(raws: list[bytes]) -> None:
    target, change = lively()
    before = state(target)
    applied = target.apply(raws, permit_all)
    assert (applied.changes, len(applied.refused)) == ((), len(raws))
    assert state(target) == before
    assert target.apply([change], permit_all).changes == (change,)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_forged_change_with_a_right_checksum_is_refused_or_means_what_it_says(at: int, byte: int) -> None:
    target, change = lively()
    before = state(target)
    raw = forged(change, at, byte)
    applied = target.apply([raw], permit_own)
    if not applied.changes:
        assert state(target) == before
    changed = {key for key, value in target.items("promises").items() if before[1]["promises"].get(key) != value}
    assert not any(key.startswith("2/") for key in changed)
    goes_on(target)


def test_every_byte_of_a_change_may_be_forged_without_harm() -> None:
    target, change = lively()
    before = state(target)
    noise = random.Random(1)
    for at in range(len(contents(change))):
        for byte in (0, 1, 0x7F, 0x80, 0xFF, noise.randrange(256)):
            raw = forged(change, at, byte)
            if target.apply([raw], lambda *_: "refused by the permit").changes:
                pytest.fail(f"byte {at} set to {byte} was applied")
    assert state(target) == before
    goes_on(target)


def test_a_compressed_change_that_inflates_too_far_is_refused_before_it_does() -> None:
    target, _ = lively()
    before = state(target)
    one = core.Document(author(1))
    with one.transaction() as transaction:
        transaction.put(core.ROOT, "bomb", core.ScalarType.Bytes, bytes(50_000_000))
    bomb = one.get_changes([])[0].bytes
    assert len(bomb) < 100_000
    (refusal,) = target.apply([bomb], permit_all).refused
    assert "inflates to more than" in refusal.reason
    assert state(target) == before
    goes_on(target)


def test_a_compressed_change_with_something_behind_its_stream_is_refused() -> None:
    target, change = lively()
    stream = zlib.compressobj(wbits=-15)
    body = stream.compress(contents(change)) + stream.flush() + b"more"
    raw = MAGIC + change[4:8] + bytes([COMPRESSED_CHANGE]) + unsigned(len(body)) + body
    (refusal,) = target.apply([raw], permit_all).refused
    assert refusal.reason == "is not exactly one compressed stream"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (after_skeleton(SetKey(1, "a", b"", ()), actor=b"short"), "has an author of 5 bytes"),
        (after_skeleton(SetKey(1, "a", b"", ()), seq=2), "has sequence number 2"),
        (after_skeleton(SetKey(1, "a", b"", ()), start_op=10**6), "does not count its operations"),
        (after_skeleton(SetKey(9, "a", b"", ())), "no map of the skeleton"),
        (after_skeleton(SetKey(0, "a", b"", ())), "no map of the skeleton"),
        (after_skeleton(SetKey(1, "", b"", ())), "without a key"),
        (after_skeleton(SetKey(1, "k" * 2000, b"", ())), "a key of more than"),
        (after_skeleton(SetKey(1, "a", b"", ()), SetKey(1, "a", b"", ())), "one register twice"),
        (after_skeleton(SetKey(1, "a", b"", ((1, SKELETON_ACTOR),))), "a write that is not there"),
        (after_skeleton(), "writes nothing"),
        (seal_change(b""), "ends"),
        (seal_change(bytes(1) + contents(after_skeleton(SetKey(1, "a", b"", ())))[33:]), "depend on the skeleton"),
    ],
)
def test_changes_that_no_replica_would_make_are_refused(raw: bytes, reason: str) -> None:
    target, _ = lively()
    before = state(target)
    (refusal,) = target.apply([raw], permit_all).refused
    assert reason in refusal.reason
    assert state(target) == before
    goes_on(target)


def foreign(operation: str) -> bytes:
    """A change by Automerge itself, on our skeleton, that is no setting of a key to bytes."""
    one = replica(1)
    one.put({("specs", "a"): b"1"})
    document = core.Document.load(one.save())
    document.set_actor(author(4))
    heads = document.get_heads()
    found = document.get(core.ROOT, "specs")
    assert found is not None
    with document.transaction() as transaction:
        match operation:
            case "text":
                transaction.put(found[1], "a", core.ScalarType.Str, "text")
            case "number":
                transaction.put(found[1], "a", core.ScalarType.Uint, 1)
            case "delete":
                transaction.delete(found[1], "a")
            case "delete map":
                transaction.delete(core.ROOT, "specs")
            case "root":
                transaction.put(core.ROOT, "specs", core.ScalarType.Bytes, b"")
            case "object":
                transaction.put_object(found[1], "a", core.ObjType.Map)
    return document.get_changes(heads)[0].bytes


@pytest.mark.parametrize("operation", ["text", "number", "delete", "delete map", "root", "object"])
def test_operations_other_than_setting_a_key_to_bytes_are_refused(operation: str) -> None:
    one = replica(1)
    one.put({("specs", "a"): b"1"})
    before = state(one)
    applied = one.apply([foreign(operation)], permit_all)
    assert (applied.changes, applied.waiting, len(applied.refused)) == ((), 0, 1)
    assert state(one) == before
    goes_on(one)


@given(st.binary(max_size=300))
def test_any_bytes_loaded_are_a_corrupt_replica(snapshot: bytes) -> None:
    if snapshot:
        with pytest.raises(CorruptReplica):
            Replica.load(author(1), MAPS, snapshot)
    with pytest.raises(CorruptReplica):
        Replica.load(author(1), MAPS, b"", [snapshot])


@given(writes, st.integers(0, 2000), st.integers(0, 255), st.booleans())
def test_a_damaged_snapshot_is_a_corrupt_replica_or_says_the_same(
    written: Mapping[tuple[str, str], bytes], at: int, byte: int, repaired: bool
) -> None:
    one, two = replica(1), replica(2)
    one.put(written)
    two.put({("specs", "a"): b"concurrent"})
    bring(two, one)
    snapshot = bytearray(one.save())
    snapshot[at % len(snapshot)] = byte
    damaged = repair(bytes(snapshot)) if repaired else bytes(snapshot)
    try:
        loaded = Replica.load(author(3), MAPS, damaged)
    except CorruptReplica:
        return
    goes_on(loaded)


def repair(snapshot: bytes) -> bytes:
    """``snapshot`` with the checksum that fits it."""
    return snapshot[:4] + sha256(snapshot[8:]).digest()[:4] + snapshot[8:]


def test_a_snapshot_that_announces_endless_rows_is_refused() -> None:
    endless = unsigned(2**60) + b"\x01"
    body = b"".join((unsigned(0), unsigned(0), unsigned(0), unsigned(1), b"\x02", unsigned(len(endless)), endless))
    raw = repair(MAGIC + bytes(4) + b"\x00" + unsigned(len(body)) + body)
    with pytest.raises(CorruptReplica, match="rows"):
        Replica.load(author(1), MAPS, raw)


@given(
    st.one_of(st.binary(max_size=100), st.recursive(st.none() | st.integers(0, 5) | st.binary(), st.lists).map(packed))
)
def test_any_message_is_taken_or_called_malformed(message: bytes) -> None:
    target, change = lively()
    before = state(target)
    exchange = Exchange(target, random.Random(1))
    received = exchange.receive("fellow", message, ["fellow"], permit_all)
    assert received.malformed or not received.changes
    assert state(target) == before
    assert exchange.receive("fellow", Push(PushPurpose.PUBLISH, (change,)).encode(), ["fellow"], permit_all).changes


def test_messages_beyond_the_limits_are_malformed() -> None:
    exchange = Exchange(replica(1), random.Random(1))
    for message in (
        bytes(3 * 1024 * 1024),
        Push(PushPurpose.REPAIR, (b"",) * 5000).encode(),
        Heads(HeadsPurpose.REQUEST, (bytes(32),) * 300).encode(),
        Heads(HeadsPurpose.REQUEST, (bytes(31),)).encode(),
        b"\x91" * 100_000,
    ):
        assert exchange.receive("fellow", message, ["fellow"], permit_all).malformed


def test_limits_are_those_of_the_replica() -> None:
    small = Replica(author(1), MAPS, Limits(writes_max=1))
    two = replica(2)
    (refusal,) = small.apply([two.put({("specs", "a"): b"1", ("specs", "b"): b"2"})], permit_all).refused
    assert "more than 1 rows" in refusal.reason
