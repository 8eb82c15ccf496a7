"""What a cluster says: who can have said it, and that in the end all who heard the same trust the same."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.trust.keys import KeyPair
from gary.trust.ledger import UNSUPPORTED_MAX, Ledger
from gary.trust.statements import Admission, BadStatement, Expulsion, Root, Rotation, Statement, read, sign
from tests.gary.facts import A, B, C

CLUSTER, ELSEWHERE = b"c" * 16, b"e" * 16
KEYS = [KeyPair(bytes([number]) * 32) for number in range(6)]
FOUNDING = Root(KEYS[0].public, "<founding>")


def rotation(to: KeyPair, until_s: int = 1000, *, is_urgent: bool = False) -> Rotation:
    return Rotation(Root(to.public, "<new>"), "<cross>", until_s, is_urgent)


def said(statement: Statement, by: KeyPair = KEYS[0], cluster: bytes = CLUSTER) -> bytes:
    return sign(statement, by, cluster).raw


def ledger(*raws: bytes) -> Ledger:
    made = Ledger(CLUSTER, FOUNDING)
    for raw in raws:
        made.hear(raw)
    return made


EXPULSION = Expulsion(A, "node-a", B, KEYS[4].public, 1_700_000_000)
STATEMENTS = [EXPULSION, Admission(KEYS[4].public, A, 5), rotation(KEYS[1])]


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda one: type(one).__name__)
def test_a_statement_is_read_back_and_is_of_one_cluster_and_one_signer(statement: Statement) -> None:
    raw = said(statement)
    assert read(raw, CLUSTER).statement == statement
    assert read(raw, CLUSTER).signer == KEYS[0].public
    with pytest.raises(BadStatement):
        read(raw, ELSEWHERE)
    forged = said(statement, KEYS[1]).replace(KEYS[1].public, KEYS[0].public, 1)
    with pytest.raises(BadStatement):
        read(forged, CLUSTER)


@given(st.sampled_from(STATEMENTS), st.data())
def test_no_changed_byte_passes(statement: Statement, data: st.DataObject) -> None:
    raw = bytearray(said(statement))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadStatement):
        read(bytes(raw), CLUSTER)


@given(st.binary(max_size=300))
def test_any_bytes_are_no_statement(data: bytes) -> None:
    with pytest.raises(BadStatement):
        read(data, CLUSTER)


def test_a_statement_of_somebody_who_is_no_root_is_nobody_s_word() -> None:
    made = ledger(said(EXPULSION, KEYS[3]))
    assert not made.expulsions
    assert made.ids == ()


def test_strangers_cannot_fill_the_ledger() -> None:
    made = ledger(*(said(Expulsion(A, f"{n}", B, b"", n), KEYS[3]) for n in range(UNSUPPORTED_MAX * 3)))
    made.hear(said(EXPULSION))
    assert set(made.expulsions) == {A}


def test_a_new_root_is_present_at_once_and_the_old_one_trusted_until_its_time_is_over() -> None:
    made = ledger(said(rotation(KEYS[1], until_s=1000)))
    assert made.present.public == KEYS[1].public
    assert [root.public for root in made.trusted(999.0)] == [KEYS[1].public, KEYS[0].public]
    assert [root.public for root in made.trusted(1000.0)] == [KEYS[1].public]
    assert made.until_s() == (1000.0,)
    assert made.predecessor(KEYS[1].public) == KEYS[0].public


def test_who_is_no_root_any_more_still_counts_for_what_it_said() -> None:
    """Otherwise what is trusted would depend on the order of hearing."""
    made = ledger(said(rotation(KEYS[1], until_s=1)), said(EXPULSION, KEYS[0]))
    assert set(made.expulsions) == {A}


def test_of_two_rotations_at_once_one_wins_everywhere_and_both_are_trusted_meanwhile() -> None:
    one, other = said(rotation(KEYS[1], until_s=500)), said(rotation(KEYS[2], until_s=700))
    winner, loser = sorted((KEYS[1].public, KEYS[2].public))
    until_s = 500 if winner == KEYS[1].public else 700
    for made in (ledger(one, other), ledger(other, one)):
        assert made.present.public == winner
        assert {root.public for root in made.trusted(0.0)} == {KEYS[0].public, winner, loser}
        assert [root.public for root in made.trusted(float(until_s))] == [winner]


def test_the_longer_line_of_roots_wins() -> None:
    lowest = min(KEYS[1].public, KEYS[2].public)
    short, long = (KEYS[1], KEYS[2]) if lowest == KEYS[1].public else (KEYS[2], KEYS[1])
    made = ledger(said(rotation(short)), said(rotation(long)), said(rotation(KEYS[3]), long))
    assert made.present.public == KEYS[3].public


def test_news_counts_when_it_is_taken_in_and_not_before() -> None:
    made = ledger()
    digest = made.digest
    named, by_the_new = said(rotation(KEYS[1])), said(EXPULSION, KEYS[1])
    assert made.news(by_the_new) is None
    news = made.news(named)
    assert news is not None
    assert made.ready() == []
    assert (made.present.public, made.ids, made.digest) == (KEYS[0].public, (), digest)
    assert made.take(news)
    assert made.present.public == KEYS[1].public
    assert made.digest != digest
    assert made.news(named) is None
    assert not made.take(news)
    assert made.ready() == [by_the_new]
    assert made.ready() == []
    assert made.news(by_the_new) is not None
    assert not made.expulsions


def test_a_root_s_secret_is_handed_down_to_the_vouchers_of_those_before_it_until_one_was_stolen() -> None:
    assert ledger().handing_down() == ()
    one, two = said(rotation(KEYS[1])), said(rotation(KEYS[2]), KEYS[1])
    made = ledger(one, two)
    assert made.handing_down() == (KEYS[1].public, KEYS[0].public)
    made.hear(said(rotation(KEYS[3], is_urgent=True), KEYS[2]))
    assert made.handing_down() == (KEYS[2].public, KEYS[1].public, KEYS[0].public)
    made.hear(said(rotation(KEYS[4]), KEYS[3]))
    assert made.handing_down() == (KEYS[3].public,)


def test_a_root_that_lost_against_another_one_is_handed_the_next_secret_like_the_winner() -> None:
    winner, loser = sorted(KEYS[1:3], key=lambda key: key.public)
    made = ledger(said(rotation(winner)), said(rotation(loser)))
    assert made.handing_down() == (loser.public, KEYS[0].public)
    made.hear(said(rotation(KEYS[3]), winner))
    assert set(made.handing_down()) == {winner.public, loser.public, KEYS[0].public}


def test_a_root_that_names_one_of_its_own_line_changes_nothing() -> None:
    made = ledger(said(rotation(KEYS[1])), said(rotation(KEYS[0]), KEYS[1]), said(rotation(KEYS[1]), KEYS[1]))
    assert made.present.public == KEYS[1].public


def test_two_that_expel_each_other_are_both_out_and_are_named() -> None:
    made = ledger(
        said(Expulsion(A, "a", B, b"", 1)), said(Expulsion(B, "b", A, b"", 2)), said(Expulsion(C, "c", B, b"", 3))
    )
    assert set(made.expulsions) == {A, B, C}
    assert made.opponents(A) == (B,)
    assert made.opponents(B) == (A,)
    assert made.opponents(C) == ()


@st.composite
def histories(draw: st.DrawFn) -> list[bytes]:
    """Statements as roots may have said them: each of a root that was named before, or of nobody."""
    speakers, raws = [KEYS[0]], []
    fresh = list(KEYS[1:5])
    for number in range(draw(st.integers(0, 8))):
        by = draw(st.sampled_from([*speakers, KEYS[5]]))
        kind = draw(st.sampled_from(["rotate", "expel", "admit"]))
        if kind == "rotate" and fresh:
            new = fresh.pop()
            raws.append(said(rotation(new, draw(st.integers(0, 2000))), by))
            if by is not KEYS[5]:
                speakers.append(new)
        elif kind == "admit":
            raws.append(said(Admission(draw(st.sampled_from(KEYS)).public, A, number), by))
        else:
            node, author = draw(st.sampled_from([A, B, C])), draw(st.sampled_from([A, B, C]))
            raws.append(said(Expulsion(node, "n", author, b"", number), by))
    return raws


@given(histories(), st.integers(0, 2**32), st.integers(0, 2500))
def test_whatever_the_order_of_hearing_all_trust_the_same(raws: list[bytes], seed: int, at_s: int) -> None:
    one = ledger(*raws)
    shuffled = raws * 2
    random.Random(seed).shuffle(shuffled)
    other = ledger(*shuffled)
    assert one.digest == other.digest
    assert one.present == other.present
    assert one.trusted(float(at_s)) == other.trusted(float(at_s))
    assert one.expulsions == other.expulsions
    assert one.operators == other.operators
    assert one.present in one.trusted(float(at_s))
    again = Ledger(CLUSTER, FOUNDING, random.Random(seed).sample(one.raws, len(one.raws)))
    assert again.digest == one.digest


@given(histories(), histories())
def test_two_ledgers_that_exchange_what_the_other_lacks_are_equal(first: list[bytes], second: list[bytes]) -> None:
    one, other = ledger(*first), ledger(*second)
    for_one, for_other = other.without(one.ids), one.without(other.ids)
    for raw in for_one:
        one.hear(raw)
    for raw in for_other:
        other.hear(raw)
    assert one.digest == other.digest
    assert not one.without(other.ids)
