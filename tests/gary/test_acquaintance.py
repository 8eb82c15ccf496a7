"""Proofs of knowing a deployment: who can make one, and what it is good for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gary.acquaintance import digest, is_proven, proof_of_instance, proofs
from gary.identity import Generation
from gary.state import Grant, State
from tests.gary.facts import G1, INSTANCE, A, B, C, spec, state

KEY, WATCHWORD = b"k" * 32, b"w" * 16


def founded(instance: str, *, watchword: bytes = b"", removed: frozenset[str] = frozenset()) -> State:
    grants = {(instance, KEY): Grant(True, A, watchword)} if watchword else {}
    return state(specs={Generation(instance, 1, A): spec()}, grants=grants, removed=removed)


def test_who_knows_the_instance_shows_it_to_others_that_do() -> None:
    assert is_proven(founded("life1"), proofs(founded("life1"), A, B), A, B)
    assert not is_proven(founded("life1"), proofs(founded("life2"), A, B), A, B)
    assert is_proven(founded("life1"), [proof_of_instance("life1", A, B)], A, B)


def test_two_lives_founded_by_one_operator_know_each_other() -> None:
    ours, theirs = founded("life1", watchword=WATCHWORD), founded("life2", watchword=WATCHWORD)
    assert is_proven(ours, proofs(theirs, B, A), B, A)
    assert not is_proven(ours, proofs(founded("life2", watchword=b"x" * 16), B, A), B, A)


def test_a_proof_is_of_no_use_to_anybody_else() -> None:
    known = founded("life1", watchword=WATCHWORD)
    shown = proofs(known, A, B)
    assert not is_proven(known, shown, B, C)
    assert not is_proven(known, shown, A, C)
    assert not is_proven(known, shown, B, A)
    assert not is_proven(known, shown, C, B)


def test_a_life_that_has_ended_proves_nothing() -> None:
    ended = founded("life1", watchword=WATCHWORD, removed=frozenset({"life1"}))
    assert proofs(ended, A, B) == ()
    assert not is_proven(ended, proofs(founded("life1", watchword=WATCHWORD), A, B), A, B)


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_any_bytes_prove_nothing(given_: list[bytes]) -> None:
    assert not is_proven(founded("life1", watchword=WATCHWORD), given_, A, B)


def test_a_digest_does_not_say_what_it_is_of() -> None:
    assert digest(INSTANCE) != digest("life2")
    assert INSTANCE not in digest(INSTANCE)
    assert not is_proven(state(specs={G1: spec()}), [bytes.fromhex(digest(INSTANCE))], A, B)
