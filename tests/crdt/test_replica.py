"""A replica keeps registers, merges with others in any order, and comes back from disk as it was."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest
from automerge import core
from hypothesis import given
from hypothesis import strategies as st

from crdt import CorruptReplica, LibraryFailed, Limits, Replica, WriteRefused
from crdt.document import AutomergeDocument
from tests.crdt.support import MAPS, author, bring, permit_all, permit_own, replica, state, writes


def test_a_written_value_is_read_back() -> None:
    one = replica(1)
    one.put({("specs", "b"): b"2", ("specs", "a"): b"1"})
    assert one.get("specs", "a") == b"1"
    assert list(one.items("specs").items()) == [("a", b"1"), ("b", b"2")]
    assert one.get("specs", "c") is None
    assert one.change_count == 1


def test_equal_values_are_not_written_again() -> None:
    one = replica(1)
    one.put({("specs", "a"): b"1"})
    assert one.put({("specs", "a"): b"1"}) == b""
    assert one.change_count == 1


def test_replicas_that_were_started_independently_have_equal_heads_and_merge() -> None:
    one, two = replica(1), replica(2)
    assert one.heads() == two.heads()
    one.put({("specs", "a"): b"1"})
    two.put({("specs", "b"): b"2"})
    bring(one, two)
    bring(two, one)
    assert state(one) == state(two)
    assert one.items("specs") == {"a": b"1", "b": b"2"}


def test_the_order_in_which_maps_are_named_does_not_matter() -> None:
    assert Replica(author(1), MAPS[::-1]).heads() == replica(2).heads()


def test_changes_wait_for_those_that_they_depend_on() -> None:
    one, two = replica(1), replica(2)
    changes = [one.put({("specs", "a"): bytes([number])}) for number in range(4)]
    early = two.apply(changes[:0:-1], permit_all)
    assert (early.changes, early.waiting, two.waiting, two.change_count) == ((), 3, 3, 0)
    late = two.apply(changes[:1], permit_all)
    assert late.changes == tuple(changes)
    assert state(two) == state(one)
    assert two.waiting == 0


def test_waiting_changes_are_bounded_and_the_oldest_goes_first() -> None:
    one, two = replica(1), Replica(author(2), MAPS, Limits(waiting_max=2))
    changes = [one.put({("specs", "a"): bytes([number])}) for number in range(5)]
    two.apply(changes[2:], permit_all)
    assert (two.waiting, two.waiting_dropped) == (2, 1)
    two.apply(changes, permit_all)
    assert state(two) == state(one)


def test_known_changes_are_passed_over() -> None:
    one, two = replica(1), replica(2)
    change = one.put({("specs", "a"): b"1"})
    assert two.apply([change, change], permit_all).changes == (change,)
    assert two.apply([change], permit_all).changes == ()


def test_concurrent_writes_show_the_same_value_everywhere() -> None:
    one, two = replica(1), replica(2)
    one.put({("specs", "a"): b"1"})
    two.put({("specs", "a"): b"2"})
    bring(one, two)
    bring(two, one)
    assert one.get("specs", "a") == two.get("specs", "a") == b"2"


def test_a_register_of_somebody_else_is_refused() -> None:
    one, two = replica(1), replica(2)
    two.apply([one.put({("promises", "1/a"): b"mine"})], permit_own)
    before = state(two)
    foreign = one.put({("promises", "1/a"): b"new", ("promises", "2/a"): b"not mine"})
    applied = two.apply([foreign], permit_own)
    assert applied.changes == ()
    assert [(refusal.actor, refusal.reason) for refusal in applied.refused] == [
        (author(1), "2/a belongs to somebody else")
    ]
    assert state(two) == before


def test_a_refused_change_does_not_take_others_of_its_batch_with_it() -> None:
    good, bad, two = replica(1), replica(3), replica(2)
    batch = [bad.put({("promises", "1/a"): b"no"}), good.put({("promises", "1/a"): b"yes"})]
    applied = two.apply(batch, permit_own)
    assert (applied.changes, len(applied.refused)) == ((batch[1],), 1)


def test_the_permit_is_asked_about_what_the_author_saw() -> None:
    one, two, three = replica(1), replica(2), replica(3)
    first = one.put({("specs", "a"): b"1"})
    two.apply([first], permit_all)
    second = two.put({("specs", "a"): b"2"})
    concurrent = one.put({("specs", "a"): b"3"})
    asked: list[tuple[bytes, str, str, bytes | None, bytes]] = []

    def permit(actor: bytes, map: str, key: str, before: bytes | None, after: bytes) -> None:
        asked.append((actor, map, key, before, after))

    three.apply([first, second, concurrent], permit)
    assert asked == [
        (author(1), "specs", "a", None, b"1"),
        (author(2), "specs", "a", b"1", b"2"),
        (author(1), "specs", "a", b"1", b"3"),
    ]


def test_a_permit_that_fails_leaves_the_replica_as_it_was() -> None:
    one, two = replica(1), replica(2)
    changes = [one.put({("specs", "a"): b"1"}), one.put({("specs", "b"): b"2"})]
    before = state(two)

    def permit(actor: bytes, map: str, key: str, before: bytes | None, after: bytes) -> str | None:
        if key == "b":
            raise ZeroDivisionError
        return None

    with pytest.raises(ZeroDivisionError):
        two.apply(changes, permit)
    assert state(two) == before
    assert len(two.apply(changes, permit_all).changes) == 2


def test_a_failure_of_automerge_refuses_the_batch_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = replica(1), replica(2)
    two.put({("specs", "z"): b"own"})
    change, before = one.put({("specs", "a"): b"1"}), state(two)
    apply, failures = AutomergeDocument.apply, [LibraryFailed("defect")]

    def fail_once(document: AutomergeDocument, changes: Sequence[bytes], heads: Sequence[bytes]) -> None:
        apply(document, changes, heads)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(AutomergeDocument, "apply", fail_once)
    applied = two.apply([change], permit_all)
    assert (applied.changes, [refusal.reason for refusal in applied.refused]) == ((), ["defect"])
    assert state(two) == before
    assert two.apply([change], permit_all).changes == (change,)
    assert state(Replica.load(author(9), MAPS, two.save())) == state(two)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("nowhere", "a"), b""),
        (("specs", ""), b""),
        (("specs", "\ud800"), b""),
        (("specs", "k" * 2000), b""),
        (("specs", "bomb"), bytes(1024 * 1024)),
        (("specs", "large"), random.Random(1).randbytes(4 * 1024 * 1024)),
    ],
)
def test_a_write_that_others_would_refuse_is_refused_at_once(place: tuple[str, str], value: bytes) -> None:
    one = replica(1)
    one.put({("specs", "a"): b"1"})
    before = state(one)
    with pytest.raises(WriteRefused):
        one.put({place: value})
    assert state(one) == before
    two = replica(2)
    assert two.apply([*one.changes_since(()), one.put({("specs", "a"): b"2"})], permit_all).refused == ()
    assert state(two) == state(one)


def test_a_replica_comes_back_from_its_snapshot_and_appended_changes() -> None:
    one = replica(1)
    one.put({("specs", "a"): b"1"})
    snapshot = one.save()
    appended = [one.put({("specs", "a"): b"2"}), one.put({("members", "b"): b"3"})]
    loaded = Replica.load(author(2), MAPS, snapshot, appended)
    assert state(loaded) == state(one)
    assert loaded.change_count == 3
    assert state(Replica.load(author(3), MAPS, b"", one.changes_since(()))) == state(one)


def test_an_appended_change_without_its_dependencies_is_reported() -> None:
    one = replica(1)
    snapshot = one.save()
    one.put({("specs", "a"): b"1"})
    with pytest.raises(CorruptReplica, match="depend on changes that are not there"):
        Replica.load(author(2), MAPS, snapshot, [one.put({("specs", "a"): b"2"})])


def test_a_snapshot_of_another_skeleton_is_reported() -> None:
    with pytest.raises(CorruptReplica):
        Replica.load(author(2), ("other",), replica(1).save())


def test_changes_since_unknown_heads_are_all_changes() -> None:
    one = replica(1)
    changes = [one.put({("specs", "a"): bytes([number])}) for number in range(3)]
    assert one.changes_since([bytes(32)]) == changes
    assert one.changes_since([*one.heads(), bytes(32)]) == []


steps = st.lists(st.tuples(st.integers(0, 2), st.one_of(writes, st.integers(0, 2))), max_size=25)


@given(steps)
def test_replicas_converge_and_show_what_automerge_shows(
    steps: list[tuple[int, Mapping[tuple[str, str], bytes] | int]],
) -> None:
    replicas = [replica(number) for number in range(3)]
    for actor, action in steps:
        if isinstance(action, int):
            assert bring(replicas[action], replicas[actor]).refused == ()
        else:
            replicas[actor].put(action)
    for _ in range(2):
        for source in replicas:
            for target in replicas:
                bring(source, target)
    assert state(replicas[0]) == state(replicas[1]) == state(replicas[2])
    assert registers_of_automerge(replicas[0].save()) == {name: replicas[0].items(name) for name in MAPS}
    again = Replica.load(author(9), MAPS, replicas[0].save())
    assert state(again) == state(replicas[0])
    shown = [register for name in MAPS for register in again.items(name).items()]
    assert again.size_bytes == replicas[0].size_bytes == sum(len(key.encode()) + len(value) for key, value in shown)


@given(steps, st.integers(0, 30))
def test_changes_since_heads_are_exactly_what_follows_them(
    steps: list[tuple[int, Mapping[tuple[str, str], bytes] | int]], until: int
) -> None:
    one, two, behind = replica(0), replica(1), replica(2)
    for place, (_, action) in enumerate(steps):
        if isinstance(action, int):
            bring(one, two)
            bring(two, one)
        else:
            (one if place % 2 else two).put(action)
        if place == until:
            bring(one, behind)
    missing = one.changes_since(behind.heads())
    assert len(missing) == one.change_count - behind.change_count
    assert behind.apply(missing, permit_all).changes == tuple(missing)
    assert behind.heads() == one.heads()


def registers_of_automerge(snapshot: bytes) -> dict[str, dict[str, bytes]]:
    """What the library itself reads from a saved document."""
    document = core.Document.load(snapshot)
    registers = {}
    for name in document.keys(core.ROOT):
        found = document.get(core.ROOT, name)
        assert found is not None
        registers[name] = {key: value_of(document, found[1], key) for key in document.keys(found[1])}
    return registers


def value_of(document: core.Document, object_id: bytes, key: str) -> bytes:
    found = document.get(object_id, key)
    assert found is not None
    assert not isinstance(found[0], core.ObjType)
    kind, value = found[0]
    assert kind == core.ScalarType.Bytes
    return bytes(value)  # type: ignore[arg-type]


def test_registers_are_stamped_alike_everywhere_and_an_author_s_stamps_only_rise() -> None:
    one, two = replica(1), replica(2)
    stamps = []
    for value in (b"1", b"2", b"3"):
        one.put({("specs", "a"): value, ("members", "b"): value})
        bring(one, two)
        two.put({("promises", "c"): value})
        assert one.stamped("specs") == two.stamped("specs")
        stamps.append(one.stamped("specs")["a"])
    assert [value for _, value in stamps] == [b"1", b"2", b"3"]
    assert stamps == sorted(stamps)
    assert one.stamped("promises") == {}


def test_a_snapshot_of_a_peer_is_refused_if_one_change_in_it_is_not_permitted() -> None:
    source = replica(1)
    source.put({("specs", "1/a"): b"its own"})
    permitted = source.save()
    assert Replica.load(author(2), MAPS, permitted, permit=permit_own).heads() == source.heads()
    source.put({("specs", "2/a"): b"somebody else's"})
    with pytest.raises(CorruptReplica, match="belongs to somebody else"):
        Replica.load(author(2), MAPS, source.save(), permit=permit_own)
    assert Replica.load(author(2), MAPS, source.save()).heads() == source.heads()
