"""Tokens and what is said at the door: read back whole, and anything else is refused with a reason."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.trust.entry import Admittance, Application, BadEntry, Entry, Rejection, apply, decode, encode
from gary.trust.keys import KeyPair
from gary.trust.notary import CertifyGuest, Found, Founded, GuestCertified, answer
from gary.trust.statements import Root
from gary.trust.tokens import LENGTH_MAX, BadToken, Token, read, write
from tests.gary.facts import A, B

OURS, THEIRS = KeyPair(b"o" * 32), KeyPair(b"t" * 32)
TOKEN = Token(b"c" * 16, A, ("10.0.0.1:7946", "[fd00::1]:7946"), B, 1_700_003_600, "<root>", "<guest>", b"n" * 32)
ENTRIES: list[Entry] = [
    apply(OURS, b"tls public", "node-1", vouches=True),
    apply(OURS, b"tls public", "node-1", vouches=False, vouched=THEIRS),
    Admittance(b"c" * 16, b"s" * 32, Root(OURS.public, "<root>"), (b"one", b"two"), OURS.public, "<leaf>", b"sealed"),
    Rejection("the invitation is used up"),
]


def test_a_token_is_one_line_that_is_read_back() -> None:
    text = write(TOKEN)
    assert len(text.split()) == 1
    assert read(f"  {text[:30]}\n{text[30:]} \n") == TOKEN
    assert read(text).guest == f"guest:{B}"


def test_a_token_with_real_certificates_is_about_a_thousand_characters() -> None:
    root = answer(Found("gary root 0123456789abcdef", A))
    assert isinstance(root, Founded)
    guest = answer(CertifyGuest(root.root_certificate, root.root_key, f"guest:{B}"))
    assert isinstance(guest, GuestCertified)
    token = Token(b"c" * 16, A, ("10.0.0.1:7946",), B, 1, root.root_certificate, guest.certificate, guest.number)
    assert len(write(token)) < 1400
    assert read(write(token)) == token


def test_the_secret_of_a_token_is_not_shown_where_the_token_is() -> None:
    assert "nnnn" not in repr(TOKEN)


@given(st.integers(0, 10_000), st.sampled_from("AZaz09-_"))
def test_a_token_with_a_slip_in_it_or_cut_short_is_refused_with_a_reason(place: int, letter: str) -> None:
    text = write(TOKEN)
    place %= len(text)
    with pytest.raises(BadToken, match="token"):
        read(text[:place])
    if text[place] != letter and place < len(text) - 1:
        with pytest.raises(BadToken, match="token"):
            read(text[:place] + letter + text[place + 1 :])


@given(st.one_of(st.text(max_size=200), st.text(alphabet="ABCabc-_=", max_size=200).map("gary1.".__add__)))
def test_any_text_is_no_token(text: str) -> None:
    with pytest.raises(BadToken):
        read(text)


def test_a_text_that_is_longer_than_any_token_is_not_looked_at() -> None:
    with pytest.raises(BadToken, match="longer"):
        read("gary1." + "A" * LENGTH_MAX)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_what_is_said_at_the_door_is_read_back(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


@given(st.binary(max_size=300))
def test_any_bytes_are_nothing_that_is_said_at_a_door(data: bytes) -> None:
    with pytest.raises(BadEntry):
        decode(data)


@given(st.sampled_from(ENTRIES), st.data())
def test_changed_bytes_are_another_word_or_none(entry: Entry, data: st.DataObject) -> None:
    raw = bytearray(encode(entry))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadEntry):
        decode(bytes(raw))


def test_an_application_is_genuine_only_if_the_node_s_own_key_has_signed_for_the_other() -> None:
    good = apply(OURS, b"tls public", "node-1", vouches=True)
    assert good.is_genuine
    assert not Application(good.public, b"another", good.signature, True, "node-1").is_genuine
    assert not Application(THEIRS.public, good.tls_public, good.signature, True, "node-1").is_genuine


def test_who_had_vouched_can_show_it_and_nobody_else() -> None:
    had = apply(OURS, b"tls public", "node-1", vouches=True, vouched=THEIRS)
    roots = (THEIRS.public, bytes(32))
    assert had.has_vouched(roots)
    assert not had.has_vouched([OURS.public])
    assert not had.has_vouched([])
    assert not apply(OURS, b"tls public", "node-1", vouches=True).has_vouched(roots)
    borrowed = Application(THEIRS.public, b"x", b"", True, "n", had.vouched, had.proof)
    assert not borrowed.has_vouched(roots)
    unproven = Application(OURS.public, b"x", b"", True, "n", THEIRS.public, b"")
    assert not unproven.has_vouched(roots)
