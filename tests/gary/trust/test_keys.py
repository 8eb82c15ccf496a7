"""Key pairs: who signed, and who can read."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.identity import is_node_id
from gary.trust.keys import SEAL_SIZE_BYTES, BadSeal, KeyPair, is_signed, node_id_of, seal

OURS, THEIRS = KeyPair(b"o" * 32), KeyPair(b"t" * 32)


def test_a_node_id_is_a_hash_of_the_public_key() -> None:
    assert is_node_id(node_id_of(OURS.public))
    assert node_id_of(OURS.public) != node_id_of(THEIRS.public)


@given(st.binary(max_size=200), st.integers(0, 63))
def test_a_signature_is_of_one_message_and_one_key(message: bytes, place: int) -> None:
    signature = OURS.sign(message)
    assert is_signed(OURS.public, message, signature)
    assert not is_signed(OURS.public, message + b"!", signature)
    assert not is_signed(THEIRS.public, message, signature)
    changed = bytearray(signature)
    changed[place] ^= 1
    assert not is_signed(OURS.public, message, bytes(changed))


@given(st.binary(max_size=200))
def test_what_is_sealed_is_read_by_the_owner_of_the_key_alone(message: bytes) -> None:
    sealed = seal(OURS.public, message, os.urandom)
    assert len(sealed) == len(message) + SEAL_SIZE_BYTES
    assert OURS.open(sealed) == message
    assert len(message) < 4 or message not in sealed
    with pytest.raises(BadSeal):
        THEIRS.open(sealed)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_seal_no_key_and_no_signature(data: bytes) -> None:
    with pytest.raises(BadSeal):
        OURS.open(data)
    assert not is_signed(data, b"message", data)
    if len(data) != 32:
        with pytest.raises(BadSeal):
            seal(data, b"message", os.urandom)


def test_a_key_pair_does_not_show_its_secret() -> None:
    assert (b"o" * 32).hex() not in repr(OURS)
    assert "oooo" not in repr(OURS)


@given(st.binary(max_size=200))
def test_what_two_share_nobody_else_makes_or_reads(message: bytes) -> None:
    third = KeyPair(b"x" * 32)
    sealed = OURS.channel(THEIRS.public).seal(message, os.urandom)
    assert THEIRS.channel(OURS.public).open(sealed) == message
    for stranger in (third.channel(OURS.public), third.channel(THEIRS.public), OURS.channel(third.public)):
        with pytest.raises(BadSeal):
            stranger.open(sealed)
    with pytest.raises(BadSeal):
        THEIRS.channel(OURS.public).open(message)


def test_nothing_is_shared_with_what_is_no_key() -> None:
    with pytest.raises(BadSeal):
        OURS.channel(b"short")
