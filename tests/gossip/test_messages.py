"""Frames: what is encoded is read back, and any other bytes are a ``BadFrame``."""

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip import Advertisement, BadFrame, Claim, Incarnation, Lane, Member, Status
from gossip.directory import NEVER, Publication
from gossip.member import INCARNATION_MAX
from gossip.messages import (
    ARRAY_LENGTH_MAX,
    VERSION,
    Ack,
    Buckets,
    Join,
    Message,
    Nack,
    News,
    Payload,
    Ping,
    PingRequest,
    Records,
    Refuse,
    Version,
    Versions,
    Wanted,
    Welcome,
    decode,
    encode,
    frame,
    frame_head,
)
from tests.gossip.harness import CLUSTER, Solo, alive, make_swim, node_id

SIZE_MAX = 1 << 20

nodes = st.binary(min_size=16, max_size=16).map(bytes.hex)
integers = st.integers(0, 2**63 - 1)
hashes = st.integers(0, 2**64 - 1)
parts = st.integers(0, INCARNATION_MAX)
incarnations = st.builds(Incarnation, parts, parts)
addresses = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
members = st.builds(Member, nodes, addresses, incarnations, st.sampled_from(Status))
claims = st.builds(Claim, members, st.lists(nodes, max_size=8).map(tuple), integers)
advertisements = st.builds(Advertisement, st.lists(addresses, max_size=4).map(tuple), st.binary(max_size=60))
publications = st.builds(Publication, nodes, incarnations, advertisements)
versions = st.builds(Version, nodes, incarnations, st.integers(0, 3), incarnations | st.just(NEVER))
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Ping, integers, hashes, addresses, incarnations),
    st.builds(Ack, integers, hashes),
    st.builds(PingRequest, integers, nodes),
    st.builds(Nack, integers),
    claims,
    publications,
    st.builds(Buckets, st.lists(hashes, max_size=8).map(tuple)),
    st.builds(Versions, st.lists(integers, max_size=4).map(tuple), st.lists(versions, max_size=4).map(tuple)),
    st.builds(Wanted, st.lists(nodes, max_size=4).map(tuple)),
    st.builds(Records, st.lists(claims, max_size=3).map(tuple), st.lists(publications, max_size=3).map(tuple)),
    st.builds(Join, integers, addresses, incarnations),
    st.builds(Welcome, integers, st.binary(max_size=40)),
    st.builds(Refuse, integers, addresses, addresses),
    st.builds(Payload, st.binary(max_size=60)),
    st.builds(News, st.binary(max_size=60)),
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=20) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(messages, max_size=20), st.sampled_from([b"", CLUSTER]), nodes)
def test_a_frame_is_read_back_as_it_was_written(sent: list[Message], cluster: bytes, sender: str) -> None:
    decoded = decode(frame(frame_head(cluster, sender), [encode(message) for message in sent]), SIZE_MAX)
    assert (decoded.version, decoded.cluster, decoded.sender) == (VERSION, cluster, sender)
    assert decoded.messages == tuple(sent)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_a_bad_frame(data: bytes) -> None:
    with contextlib.suppress(BadFrame):
        decode(data, SIZE_MAX)


@given(st.lists(st.tuples(st.integers(0, 16), st.lists(plain, max_size=8)), max_size=4))
def test_any_fields_are_a_frame_or_a_bad_frame(items: list[tuple[int, list[object]]]) -> None:
    data = msgpack.packb([VERSION, CLUSTER, bytes(16), [[kind, *fields] for kind, fields in items]])
    with contextlib.suppress(BadFrame):
        decode(data, SIZE_MAX)


@given(messages, st.integers(0, 400), st.integers(0, 255))
def test_a_frame_with_one_byte_changed_never_harms_the_core(message: Message, position: int, value: int) -> None:
    data = bytearray(frame(frame_head(CLUSTER, node_id(2)), [encode(alive(2)), encode(message)]))
    data[position % len(data)] = value
    swim = make_swim(1)
    swim.receive(node_id(2), Lane.PROBE, bytes(data), 1.0)
    assert swim.node in swim.alive()


@given(st.lists(messages, max_size=6))
def test_any_messages_in_any_order_never_harm_the_core(sent: list[Message]) -> None:
    solo = Solo(knows=[2, 3])
    for message in sent:
        solo.hears(2, message)
        solo.passes(0.2)
    solo.passes(3.0)
    assert solo.swim.node in solo.swim.alive()


def test_deep_nesting_and_huge_announced_lengths_are_bad_frames() -> None:
    for data in (
        b"\x91" * 5000,
        b"\xdd\xff\xff\xff\xff" * 1000,
        b"\xdd\x00\x00\x20\x00" * 600,
        b"\xdf\x7f\xff\xff\xff",
    ):
        with pytest.raises(BadFrame):
            decode(data, SIZE_MAX)


def test_more_items_than_allowed_are_a_bad_frame() -> None:
    data = msgpack.packb([VERSION, CLUSTER, bytes(16), [[99]] * (ARRAY_LENGTH_MAX + 1)])
    with pytest.raises(BadFrame):
        decode(data, SIZE_MAX)


def test_unknown_kinds_and_unknown_fields_are_skipped() -> None:
    data = msgpack.packb([VERSION, CLUSTER, bytes.fromhex(node_id(2)), [[200, "?"], [4, 9, "new"], ["x"]], "more"])
    decoded = decode(data, SIZE_MAX)
    assert decoded.messages == (Nack(9),)
    assert decoded.skipped == 2


def test_drops_are_counted_by_name() -> None:
    solo = Solo()
    size_max = solo.config.frame_size_bytes_max
    solo.receives(b"\xc1")
    solo.receives(bytes(size_max + 1))
    solo.receives(msgpack.packb([9, CLUSTER, bytes.fromhex(node_id(2)), "who knows"]))
    solo.receives(frame(frame_head(bytes(16), node_id(2)), [encode(alive(2))]))
    solo.receives(frame(frame_head(CLUSTER, node_id(3)), [encode(alive(3))]), number=2)
    counters = solo.swim.counters()
    for name in ("malformed", "oversized", "version", "foreign_cluster", "sender"):
        assert counters[f"drop_{name}"] == 1, name
    assert solo.swim.alive() == (solo.swim.node,)


def test_what_is_out_of_shape_is_so_even_after_its_well_formed_twin() -> None:
    for message, place in ((alive(2), 3), (Publication(node_id(2), Incarnation(1, 1), Advertisement(("a",), b"b")), 2)):
        fields = msgpack.unpackb(encode(message))
        assert fields[place] == 1
        for value, is_well in ((1, True), (True, False), (1.0, False), (1, True)):
            fields[place] = value
            data = msgpack.packb([VERSION, CLUSTER, bytes(16), [fields]])
            if is_well:
                assert decode(data, SIZE_MAX).messages == (message,)
            else:
                with pytest.raises(BadFrame):
                    decode(data, SIZE_MAX)
