"""Virtual time."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from simulations.clock import Clock

DELAYS_S = st.sampled_from([-1.0, 0.0, 0.001, 0.004, 0.01, 0.5]) | st.floats(0.0, 3.0)


@given(st.lists(st.tuples(DELAYS_S, st.lists(DELAYS_S, max_size=3)), max_size=30), st.lists(DELAYS_S, max_size=10))
def test_things_happen_in_the_order_of_their_times_and_equal_ones_in_that_of_their_scheduling(
    given_: Sequence[tuple[float, Sequence[float]]], pauses_s: Sequence[float]
) -> None:
    clock = Clock()
    happened: list[tuple[float, int]] = []
    expected: list[tuple[float, int]] = []

    def schedule(delay_s: float, more: Sequence[float]) -> None:
        number = len(expected)
        expected.append((clock.now + max(0.0, delay_s), number))
        clock.after(delay_s, happen, number, more)

    def happen(number: int, more: Sequence[float]) -> None:
        happened.append((clock.now, number))
        for delay_s in more:
            schedule(delay_s, ())

    for delay_s, more in given_:
        schedule(delay_s, more)
    for pause_s in pauses_s:
        until = clock.now + max(0.0, pause_s)
        clock.run_until(until)
        assert clock.now == until
        assert happened == sorted(thing for thing in expected if thing[0] <= until)
        schedule(pause_s, (0.002,))
    clock.run_until(100.0)
    assert happened == sorted(expected)
