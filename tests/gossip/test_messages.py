"""Frames: what is encoded is read back, and any other bytes are a ``BadFrame``."""

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip import Advertisement, BadFrame, Claim, Incarnation, Lane
from gossip.directory import Publication
from gossip.messages import (
    ARRAY_LENGTH_MAX,
    VERSIONS,
    Message,
    Nack,
    News,
    Payload,
    decode,
    encode,
    frame,
    frame_head,
)
from tests.gossip.harness import CLUSTER, Solo, alive, make_swim, node_id
from tests.gossip.strategies import any_nodes, messages, plain

SIZE_MAX = 1 << 20


def is_repeatable(message: Message) -> bool:
    return isinstance(message, Claim | Publication | Payload | News)


def without_repeats(sent: list[Message]) -> list[Message]:
    kinds = [type(message) for message in sent]
    return [m for place, m in enumerate(sent) if is_repeatable(m) or type(m) not in kinds[:place]]


@given(st.lists(messages, max_size=20).map(without_repeats), st.sampled_from([b"", CLUSTER]), any_nodes)
def test_a_frame_is_read_back_as_it_was_written(sent: list[Message], cluster: bytes, sender: str) -> None:
    decoded = decode(frame(frame_head(cluster, sender), [encode(message) for message in sent]), SIZE_MAX)
    assert (decoded.version, decoded.cluster, decoded.sender) == (VERSIONS.highest, cluster, sender)
    assert decoded.messages == tuple(sent)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_a_bad_frame(data: bytes) -> None:
    with contextlib.suppress(BadFrame):
        decode(data, SIZE_MAX)


@given(st.lists(st.tuples(st.integers(0, 16), st.lists(plain, max_size=8)), max_size=4))
def test_any_fields_are_a_frame_or_a_bad_frame(items: list[tuple[int, list[object]]]) -> None:
    data = msgpack.packb([VERSIONS.highest, CLUSTER, bytes(16), [[kind, *fields] for kind, fields in items]])
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
    data = msgpack.packb([VERSIONS.highest, CLUSTER, bytes(16), [[99]] * (ARRAY_LENGTH_MAX + 1)])
    with pytest.raises(BadFrame):
        decode(data, SIZE_MAX)


@given(messages)
def test_a_frame_asks_and_answers_once_and_says_as_much_as_it_likes(message: Message) -> None:
    data = frame(frame_head(CLUSTER, node_id(2)), [encode(message)] * 2)
    if is_repeatable(message):
        assert decode(data, SIZE_MAX).messages == (message, message)
    else:
        with pytest.raises(BadFrame):
            decode(data, SIZE_MAX)


def test_unknown_kinds_and_unknown_fields_are_skipped() -> None:
    messages = [[200, "?"], [4, 9, "new"], ["x"]]
    data = msgpack.packb([VERSIONS.highest, CLUSTER, bytes.fromhex(node_id(2)), messages, VERSIONS.highest, "more"])
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
            data = msgpack.packb([VERSIONS.highest, CLUSTER, bytes(16), [fields]])
            if is_well:
                assert decode(data, SIZE_MAX).messages == (message,)
            else:
                with pytest.raises(BadFrame):
                    decode(data, SIZE_MAX)
