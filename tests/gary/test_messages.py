"""What nodes say to each other: every kind there and back, and any bytes at all."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.advertisements import Profile, decode_profile, encode_profile
from gary.messages import (
    Acceptance,
    Acquaintance,
    Behind,
    CallForVolunteers,
    Cancel,
    ContactAnswer,
    ContactQuery,
    Dismissed,
    Gone,
    Invitation,
    MalformedMessage,
    Message,
    Offer,
    Orphans,
    Released,
    Request,
    Response,
    Snapshot,
    Sync,
    Without,
    decode,
    encode,
)
from gary.spec import Constraint, RuntimeName
from gary.volunteering import Requirement, Room
from tests.gary.facts import A, room

ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
numbers = st.integers(0, 2**63 - 1)
signed = st.integers(-(2**62), 2**62)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
texts = st.lists(words, max_size=3).map(tuple)
reals = st.floats(-1e9, 1e9)
ports = st.tuples(st.integers(1, 65535), st.sampled_from(["tcp", "udp"]))
proofs = st.lists(st.binary(max_size=16), max_size=3).map(tuple)
requirements = st.builds(
    Requirement,
    st.sampled_from(list(RuntimeName)),
    reals,
    numbers,
    st.lists(ports, max_size=2).map(tuple),
    st.lists(st.builds(Constraint, words, st.booleans(), words), max_size=2).map(tuple),
)
rooms = st.builds(
    Room,
    node=ids,
    hostname=words,
    labels=st.dictionaries(words, words, max_size=3),
    runtimes=texts,
    free_cpus=reals,
    free_memory_bytes=signed,
    free_containers=signed,
    ports=st.frozensets(ports, max_size=3),
    accepting=st.booleans(),
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Sync, ids, numbers, st.binary(max_size=20)),
    st.builds(Behind, ids, numbers),
    st.builds(Snapshot, ids, numbers, st.binary(max_size=20)),
    st.builds(Gone, ids, texts),
    st.builds(CallForVolunteers, numbers, ids, st.lists(requirements, max_size=3).map(tuple)),
    st.builds(Offer, numbers, ids, rooms),
    st.builds(Invitation, numbers, ids, texts, st.binary(max_size=20)),
    st.builds(Acceptance, numbers, ids, texts, st.lists(st.tuples(words, words), max_size=3).map(tuple)),
    st.builds(ContactQuery, numbers, ids),
    st.builds(ContactAnswer, numbers, ids, reals, st.booleans()),
    st.builds(Orphans, ids, texts, proofs),
    st.builds(Released, ids, texts, proofs),
    st.builds(Acquaintance, ids, proofs, st.booleans()),
    st.builds(Dismissed, ids, numbers, numbers),
    st.builds(Without, ids, st.booleans()),
    st.builds(Request, numbers, words, st.binary(max_size=20)),
    st.builds(Response, numbers, numbers, st.booleans(), st.binary(max_size=20)),
    st.builds(Cancel, numbers),
)
plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        st.binary(max_size=5),
        st.just(A),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=9),
        st.dictionaries(words, inner, max_size=3),
        st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4)),
    ),
    max_leaves=20,
)


@given(messages)
def test_every_message_is_read_back_as_it_was_said(message: Message) -> None:
    assert decode(encode(message)) == message


@given(messages, st.lists(plain, min_size=1, max_size=2))
def test_fields_that_a_later_version_adds_are_ignored(message: Message, more: list[object]) -> None:
    assert decode(msgpack.packb([*msgpack.unpackb(encode(message)), *more])) == message


@pytest.mark.parametrize("kind", [0, 99, 127, -1])
def test_a_kind_that_this_version_does_not_know_is_none(kind: int) -> None:
    assert decode(msgpack.packb([kind, "anything"])) is None


def read(payload: bytes) -> None:
    """A message, None or ``MalformedMessage``; what was read can be said again."""
    try:
        message = decode(payload)
    except MalformedMessage:
        return
    assert message is None or decode(encode(message)) == message


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_malformed(payload: bytes) -> None:
    read(payload)


@given(st.integers(0, 14), st.lists(plain, max_size=5))
def test_any_fields_are_a_message_or_malformed(kind: int, fields: list[object]) -> None:
    read(msgpack.packb([kind, *fields]))


@given(messages, st.data())
def test_a_message_with_one_field_changed_is_a_message_or_malformed(message: Message, data: st.DataObject) -> None:
    fields = msgpack.unpackb(encode(message))
    place = data.draw(st.integers(1, len(fields) - 1))
    if isinstance(fields[place], list) and fields[place] and data.draw(st.booleans()):
        fields[place][data.draw(st.integers(0, len(fields[place]) - 1))] = data.draw(plain)
    else:
        fields[place] = data.draw(plain)
    read(msgpack.packb(fields))


@given(messages, st.data())
def test_a_message_that_was_cut_or_damaged_is_a_message_or_malformed(message: Message, data: st.DataObject) -> None:
    payload = bytearray(encode(message))
    read(bytes(payload[: data.draw(st.integers(0, len(payload)))]))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(payload))


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x91" * 3000, b"\xdd\xff\xff\xff\xff", b"\x92\x01\x81\x90\x01", msgpack.packb({"a": 1}), msgpack.packb([])],
    ids=["nothing", "deep", "huge", "unhashable", "a map", "an empty list"],
)
def test_bytes_made_to_break_decoders_are_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(payload)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, True, "1"])
def test_a_number_that_nobody_can_compare_with_is_malformed(value: object) -> None:
    with pytest.raises(MalformedMessage):
        decode(msgpack.packb([8, 1, A, value]))


# Advertisements

PROFILE = Profile("host-a", b"k" * 32, room(A, free_cpus=3.7, free_containers=99), 4.0, 1 << 33, 13, 100, "0.1.0")


def test_a_profile_is_read_back_coarse() -> None:
    read_back = decode_profile(encode_profile(PROFILE))
    assert read_back is not None
    assert (read_back.name, read_back.room.free_cpus, read_back.room.free_containers) == ("host-a", 3.5, 96)
    assert encode_profile(read_back) == encode_profile(PROFILE)


@given(
    st.one_of(st.binary(max_size=60), st.lists(plain, max_size=10).map(lambda v: bytes(msgpack.packb(v)))), st.data()
)
def test_any_bytes_are_a_profile_or_none(body: bytes, data: st.DataObject) -> None:
    decode_profile(body)
    fields = msgpack.unpackb(encode_profile(PROFILE))
    fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(plain)
    decode_profile(msgpack.packb(fields))
