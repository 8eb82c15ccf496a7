"""Compaction keeps the registers, drops their history, and is the same wherever it is done."""

from __future__ import annotations

from crdt import compacted
from tests.crdt.support import MAPS, author, bring, replica


def test_replicas_with_equal_heads_compact_to_identical_bytes() -> None:
    one, two = replica(1), replica(2)
    for number in range(700):
        one.put({("specs", f"{number}"): b"1", ("members", "a"): bytes([number % 256])})
    bring(one, two)
    first, second = compacted(one, author(3), lambda *_: True), compacted(two, author(4), lambda *_: True)
    assert first.save() == second.save()
    assert {name: first.items(name) for name in MAPS} == {name: one.items(name) for name in MAPS}
    assert first.change_count == 2


def test_replicas_with_different_heads_compact_to_documents_that_merge() -> None:
    one, two = replica(1), replica(2)
    one.put({("specs", "a"): b"1", ("promises", "1/a"): b"not kept"})
    bring(one, two)
    two.put({("specs", "b"): b"2"})
    first, second = (compacted(each, author(5), lambda map, _: map == "specs") for each in (one, two))
    bring(first, second)
    bring(second, first)
    assert first.heads() == second.heads()
    assert first.items("specs") == {"a": b"1", "b": b"2"}
    assert first.items("promises") == {}
    assert first.put({("promises", "1/a"): b"again"})
