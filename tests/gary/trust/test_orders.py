"""Orders that come again, late, to another node, or to another life of the node."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gary.errors import CommandError, ErrorCode
from gary.trust.envelope import Order
from gary.trust.orders import REMEMBERED_MAX, WINDOW_S, Orders

NODE = "a" * 32
NOW = 1_700_000_000.0


def order(number: int = 0, *, node: str = NODE, epoch: int = 2, at_s: float = NOW) -> Order:
    return Order(b"o" * 32, "d" * 32, node, epoch, at_s, number.to_bytes(16, "big"), "status", {}, b"k" * 32)


def test_an_order_is_taken_once() -> None:
    orders = Orders(NODE)
    orders.check(order(), 2, NOW)
    orders.take(order())
    with pytest.raises(CommandError, match="before"):
        orders.check(order(), 2, NOW)
    orders.check(order(1), 2, NOW)


def test_an_order_for_another_node_is_refused() -> None:
    with pytest.raises(CommandError, match="another node"):
        Orders(NODE).check(order(node="b" * 32), 2, NOW)


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_order_for_another_life_of_the_node_is_refused_and_may_be_given_again(epoch: int) -> None:
    with pytest.raises(CommandError, match="another life") as refused:
        Orders(NODE).check(order(epoch=epoch), 2, NOW)
    assert refused.value.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize(("apart_s", "words"), [(WINDOW_S + 60, "6 minutes ago"), (-7200.0, "120 minutes from now")])
def test_an_order_outside_of_the_window_is_refused_with_words_about_clocks(apart_s: float, words: str) -> None:
    with pytest.raises(CommandError, match=words) as refused:
        Orders(NODE).check(order(at_s=NOW - apart_s), 2, NOW)
    assert "clock" in refused.value.hint


@settings(max_examples=10)
@given(st.integers(1, 300))
def test_what_is_remembered_is_bounded_and_what_was_forgotten_is_not_taken_again(over: int) -> None:
    orders = Orders(NODE)
    for number in range(REMEMBERED_MAX + over):
        orders.take(order(number, at_s=NOW + number / 100))
    assert len(orders) == REMEMBERED_MAX
    for number in (0, over // 2, over - 1, over, REMEMBERED_MAX):
        with pytest.raises(CommandError):
            orders.check(order(number, at_s=NOW + number / 100), 2, NOW)
    with pytest.raises(CommandError, match="older"):
        orders.check(order(10**9, at_s=NOW), 2, NOW)
    orders.check(order(10**9, at_s=NOW + (REMEMBERED_MAX + over) / 100), 2, NOW)
