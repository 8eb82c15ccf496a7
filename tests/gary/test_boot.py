"""Who a node is when it starts, from any disk."""

from __future__ import annotations

import random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.boot import boot, cluster_writes, ids_write, peer_writes
from gary.identity import is_node_id
from gary.storage import MemoryStorage, PutRecord, Stored, Table
from tests.gary.facts import A, B, C
from tests.gary.trust.standings import founded


def entropy(count: int) -> bytes:
    return random.Random(count).randbytes(count)


def stored(**node: bytes) -> Stored:
    storage = MemoryStorage()
    storage.write([PutRecord(Table.NODE, key, value) for key, value in node.items()])
    return storage.load()


def test_a_new_disk_makes_a_new_node_in_a_cluster_of_its_own() -> None:
    made, writes = boot(stored(), entropy)
    assert is_node_id(made.node)
    assert (made.epoch, len(made.cluster), len(made.secret)) == (1, 16, 32)
    assert (made.former, made.peers) == ((), ())
    assert not made.is_founded
    storage = MemoryStorage()
    storage.write([*writes, *founded(made.key)])
    again, _ = boot(storage.load(), lambda count: b"?" * count)
    assert again.is_founded
    assert (again.node, again.cluster, again.secret) == (made.node, made.cluster, made.secret)


def test_a_node_without_a_standing_in_its_cluster_begins_one_of_its_own() -> None:
    storage = MemoryStorage()
    made, writes = boot(storage.load(), entropy)
    half = [write for write in founded(made.key) if not isinstance(write, PutRecord) or write.key != "tls"]
    storage.write([*writes, *half])
    again, writes = boot(storage.load(), lambda count: b"?" * count)
    assert (again.node, again.is_founded) == (made.node, False)
    assert again.cluster != made.cluster
    storage.write(writes)
    assert storage.load().records[Table.TRUST] == {}


def test_every_start_has_a_higher_epoch_that_is_durable_first() -> None:
    storage = MemoryStorage()
    for start in range(1, 5):
        made, writes = boot(storage.load(), entropy)
        assert made.epoch == start
        assert PutRecord(Table.NODE, "epoch", msgpack.packb(start)) in writes
        storage.write(writes)


def test_the_cluster_that_was_joined_the_peers_and_the_former_ids_are_read_back() -> None:
    storage = MemoryStorage()
    made, writes = boot(storage.load(), entropy)
    storage.write(writes + founded(made.key) + cluster_writes(b"c" * 16, b"s" * 32) + [ids_write((made.node, B, C))])
    storage.write(peer_writes({}, {A: "10.0.0.1:7", B: "10.0.0.2:7", made.node: "10.0.0.3:7"}))
    again, _ = boot(storage.load(), entropy)
    assert (again.cluster, again.secret) == (b"c" * 16, b"s" * 32)
    assert again.former == (B, C)
    assert [(peer.node, peer.address) for peer in again.peers] == [(A, "10.0.0.1:7"), (B, "10.0.0.2:7")]


def test_peers_are_written_as_they_come_move_and_go() -> None:
    storage = MemoryStorage()
    before = {A: "1:1", B: "2:2"}
    after = {B: "2:3", C: "3:3"}
    storage.write(peer_writes({}, before))
    storage.write(peer_writes(before, after))
    assert storage.load().records[Table.PEER] == {B: b"2:3", C: b"3:3"}
    assert peer_writes(after, after) == []


def test_a_node_whose_epoch_cannot_be_read_is_a_new_one() -> None:
    """With a lower epoch than before nobody would believe it."""
    storage = MemoryStorage()
    made, writes = boot(storage.load(), entropy)
    storage.write([*writes, PutRecord(Table.NODE, "epoch", b"\xc1")])
    again, _ = boot(storage.load(), lambda size: b"n" * size)
    assert again.node != made.node
    assert again.former == (made.node,)


@pytest.mark.parametrize("seed", [b"", b"damaged", b"d" * 32])
def test_a_host_whose_key_is_damaged_knows_who_it_was(seed: bytes) -> None:
    storage = MemoryStorage()
    made, writes = boot(storage.load(), entropy)
    storage.write([*writes, PutRecord(Table.NODE, "seed", seed)])
    again, writes = boot(storage.load(), lambda size: b"n" * size)
    assert again.node != made.node
    assert again.former == (made.node,)
    storage.write(writes)
    assert boot(storage.load(), entropy)[0].former == (made.node,)


@given(st.dictionaries(st.sampled_from(["seed", "epoch", "cluster", "secret", "ids"]), st.binary(max_size=40)))
def test_any_bytes_on_the_disk_make_a_node(records: dict[str, bytes]) -> None:
    made, writes = boot(stored(**records), entropy)
    assert is_node_id(made.node)
    assert made.epoch >= 1
    assert (len(made.cluster), len(made.secret)) == (16, 32)
    assert all(map(is_node_id, made.former))
    storage = MemoryStorage()
    storage.write(writes)
    assert boot(storage.load(), entropy)[0].epoch == made.epoch + 1
