"""Tables that begin as another one: to whoever reads and writes them they are dicts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip import Layered

KEYS = st.integers(0, 12)
STEPS = st.lists(st.tuples(KEYS, st.none() | st.integers(0, 3)), max_size=60)
"""Keys with the values that they are given; None: they are removed."""


@given(st.dictionaries(KEYS, st.integers(0, 3)), STEPS)
def test_a_table_that_begins_as_another_one_is_the_dict_that_it_would_be(
    base: dict[int, int], steps: Sequence[tuple[int, int | None]]
) -> None:
    before, expected, table = dict(base), dict(base), Layered(base)
    for key, value in steps:
        changes = table.changes
        if value is None:
            is_there = key in expected
            assert table.pop(key) == expected.pop(key, None)
        else:
            is_there = True
            expected[key] = table[key] = value
        assert table.changes == changes + is_there
        assert list(table.items()) == list(expected.items())
        assert list(table) == list(expected)
        assert list(table.values()) == list(expected.values())
        assert len(table) == len(expected)
        assert [(key in table, table.get(key)) for key in range(13)] == [
            (key in expected, expected.get(key)) for key in range(13)
        ]
    assert base == before, "many others begin with it"
    assert table.as_base() == expected


@given(STEPS)
def test_a_table_of_its_own_is_a_dict(steps: Sequence[tuple[int, int | None]]) -> None:
    table: Layered[int, int] = Layered()
    expected: dict[int, int] = {}
    for key, value in steps:
        if value is None:
            assert table.pop(key) == expected.pop(key, None)
        else:
            expected[key] = table[key] = value
    assert list(table.items()) == list(expected.items())


def test_what_is_not_there_is_not_there() -> None:
    table = Layered({1: 1})
    assert table[1] == 1
    with pytest.raises(KeyError):
        table[2]
    assert table.pop(2) is None
