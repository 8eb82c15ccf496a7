"""Durable before told: in order, through any failures of the disk."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from gary.effects import Persist
from gary.errors import StorageFailed
from gary.outbox import Outbox
from gary.storage import MemoryStorage, PutRecord, Table


def record(number: int) -> PutRecord:
    return PutRecord(Table.DEPLOYMENT, f"{number:03}", b"")


def outbox() -> Outbox:
    numbers = itertools.count(1)
    return Outbox(lambda: next(numbers))


def test_what_waits_for_a_write_happens_when_it_is_durable_and_not_before() -> None:
    box, told = outbox(), list[float]()
    (asked,) = box.add([record(1)], told.append)
    assert (asked.writes, told, len(box)) == ((record(1),), [], 1)
    assert box.persisted(asked.token, 7.0)
    assert (told, len(box)) == ([7.0], 0)
    assert not box.persisted(asked.token, 8.0)
    assert told == [7.0]


def test_nothing_overtakes_a_write_that_failed() -> None:
    box, told = outbox(), list[str]()
    (first,) = box.add([record(1)], lambda now: told.append("first"))
    (second,) = box.add([record(2)], lambda now: told.append("second"))
    assert box.persist_failed("disk full") == (True, True)
    assert box.failure == "disk full"
    assert not box.persisted(second.token, 1.0)
    assert box.add([record(3)], lambda now: told.append("third")) == []
    assert told == []
    again = box.retry()
    assert [persist.writes for persist in again] == [(record(1),), (record(2),), (record(3),)]
    assert not box.holds(first.token)
    for persist in again:
        assert box.persisted(persist.token, 2.0)
    assert told == ["first", "second", "third"]
    assert box.failure == ""


def test_a_retry_is_arranged_once_and_the_same_reason_is_told_once() -> None:
    box = outbox()
    box.add([record(1)], lambda now: None)
    assert [box.persist_failed(reason) for reason in ("full", "full", "gone")] == [
        (True, True),
        (False, False),
        (False, True),
    ]
    box.retry()
    assert box.persist_failed("gone") == (True, False)


def test_what_waited_may_write_again() -> None:
    box = outbox()
    more: list[Persist] = []
    (asked,) = box.add([record(1)], lambda now: more.extend(box.add([record(2)], lambda at: None)))
    box.persisted(asked.token, 0.0)
    assert [persist.writes for persist in more] == [(record(2),)]
    assert len(box) == 1


@given(st.randoms(use_true_random=False), st.floats(0.0, 0.8))
def test_what_is_told_is_always_durable_and_told_in_order_on_any_disk(rng: random.Random, trouble: float) -> None:
    box, storage, told = outbox(), MemoryStorage(), list[int]()
    underway: list[Persist] = []

    def telling(number: int) -> None:
        durable = storage.load().records[Table.DEPLOYMENT]
        assert [f"{earlier:03}" in durable for earlier in range(number + 1)] == [True] * (number + 1)
        told.append(number)

    def work() -> None:
        """The disk takes one write, or does not."""
        persist = underway.pop(0)
        try:
            if rng.random() < trouble:
                raise StorageFailed("disk full")
            storage.write(persist.writes)
        except StorageFailed as failure:
            if box.holds(persist.token):
                box.persist_failed(failure.reason)
        else:
            box.persisted(persist.token, 0.0)

    for number in range(20):
        underway += box.add([record(number)], lambda now, number=number: telling(number))  # type: ignore[misc]
        while underway and rng.random() < 0.5:
            work()
        if rng.random() < 0.3:
            underway += box.retry()
    trouble = 0.0
    for _ in range(2):
        while underway:
            work()
        underway += box.retry()
    while underway:
        work()
    assert told == list(range(20))
    assert len(box) == 0
