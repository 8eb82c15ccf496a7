"""Pacing: once in a while for each, and a bounded memory."""

from __future__ import annotations

from gary.trust.pacing import REMEMBERED_MAX, Pacing


def test_the_same_is_done_again_only_after_a_while_and_others_at_once() -> None:
    pacing = Pacing(10.0)
    assert pacing.allows("a", 0.0)
    assert not pacing.allows("a", 9.9)
    assert pacing.allows("b", 9.9)
    assert pacing.allows("a", 10.0)
    assert not pacing.allows("a", 19.9)


def test_what_it_remembers_is_bounded() -> None:
    pacing = Pacing(10.0)
    for number in range(REMEMBERED_MAX * 3):
        assert pacing.allows(number, 0.0)
    assert not pacing.allows(REMEMBERED_MAX * 3 - 1, 1.0)
    assert pacing.allows(0, 1.0)
