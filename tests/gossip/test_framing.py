"""The bytes on a connection, and the window under which they leave."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip import framing
from gossip.errors import BadFrame
from gossip.framing import Batch, Flow, Hello
from gossip.transport import GUEST, Lane

hellos = st.builds(
    Hello,
    node=st.builds(str.__add__, st.sampled_from(["", GUEST]), st.binary(min_size=16, max_size=16).map(bytes.hex)),
    instance=st.binary(min_size=framing.INSTANCE_BYTES, max_size=framing.INSTANCE_BYTES),
    address=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    lane=st.sampled_from(Lane),
)
counts = st.integers(0, 2**32 - 1)
batches = st.builds(Batch, st.lists(st.binary(max_size=50), min_size=1).map(tuple), counts, st.booleans()) | st.builds(
    Batch, st.just(()), counts, st.just(False)
)


@given(hellos)
def test_a_hello_survives_its_encoding(hello: Hello) -> None:
    assert framing.is_hello(framing.encode_hello(hello))
    assert framing.decode_hello(framing.encode_hello(hello)) == hello


@given(batches)
def test_a_batch_survives_its_encoding_and_is_never_taken_for_a_hello(batch: Batch) -> None:
    message = framing.encode_batch(batch)
    assert framing.decode_batch(message) == batch
    assert not framing.is_hello(message)


@given(st.binary(max_size=60), hellos, batches, st.integers(0, 200))
def test_any_other_bytes_are_a_bad_frame_and_nothing_worse(noise: bytes, hello: Hello, batch: Batch, cut: int) -> None:
    whole = (framing.encode_hello(hello), framing.encode_batch(batch))
    for message in (noise, b"gary" + noise, *(part[:cut] for part in whole), *(part + noise for part in whole)):
        for decode in (framing.decode_hello, framing.decode_batch):
            try:
                decode(message)
            except BadFrame:
                continue


def test_a_hello_of_another_version_says_so() -> None:
    with pytest.raises(BadFrame, match="version 9"):
        framing.decode_hello(b"gary\x09 whatever comes next")


def test_a_node_id_of_another_length_is_not_sent() -> None:
    with pytest.raises(ValueError, match="32 hexadecimal"):
        framing.encode_hello(Hello("abcd", bytes(8), "127.0.0.1:1", Lane.PROBE))


def test_a_credit_for_what_was_never_sent_is_a_bad_frame() -> None:
    with pytest.raises(BadFrame):
        Flow(sent=3, credited=1).receive(Batch((), 4, asks=False))


def test_a_message_that_needs_no_answer_asks_for_none() -> None:
    flow = Flow(sent=5, credited=5)
    assert not flow.compose((b"ping",)).asks


@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(["left sends", "right sends", "to right", "to left"])))
def test_no_order_of_sending_overfills_a_connection_or_closes_its_window_for_ever(start: int, steps: list[str]) -> None:
    """Two flows over lossless links; nng has room for three messages a connection and drops what exceeds them."""
    left = Flow(sent=start, credited=start, asked=start, taken=start)
    right = Flow(sent=start, credited=start, asked=start, taken=start)
    to_right: deque[Batch] = deque()
    to_left: deque[Batch] = deque()

    def deliver(link: deque[Batch], receiver: Flow, back: deque[Batch]) -> None:
        if link:
            receiver.receive(link.popleft())
            if receiver.owes:
                transmit(receiver, (), back)

    def transmit(sender: Flow, frames: tuple[bytes, ...], link: deque[Batch]) -> None:
        if not frames or sender.open:
            batch = sender.compose(frames)
            link.append(batch)
            sender.left(batch)
        assert len(link) <= framing.WINDOW + 1

    for step in steps:
        if step == "left sends":
            transmit(left, (b"frame",), to_right)
        elif step == "right sends":
            transmit(right, (b"frame",), to_left)
        elif step == "to right":
            deliver(to_right, right, to_left)
        else:
            deliver(to_left, left, to_right)
    while to_right or to_left:
        deliver(to_right, right, to_left)
        deliver(to_left, left, to_right)
    assert left.open
    assert right.open
