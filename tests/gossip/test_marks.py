"""Marks: pings and acks show what the application wants to be alike everywhere, and who shows another is told of."""

from hypothesis import given
from hypothesis import strategies as st

from gossip import Incarnation, MarkDiffers
from gossip.messages import Ack, Ping, decode, encode, frame, frame_head
from tests.gossip.harness import CLUSTER, CONFIG, Solo, address_of, node_id, of_type

MARK = 7


def marked(mark: int) -> tuple[Ping, Ack]:
    return Ping(1, 0, address_of(2), Incarnation(1, 0), mark), Ack(1, 0, mark)


def solo(mark: int = MARK) -> Solo:
    return Solo(knows=[2], mark=lambda: mark)


def test_every_ping_and_every_ack_shows_the_mark() -> None:
    it = solo()
    it.hears(2, marked(MARK)[0])
    it.passes(3.0)
    assert {ack.mark for ack in it.sent_to(2, Ack)} == {MARK}
    assert {ping.mark for ping in it.sent_to(2, Ping)} == {MARK}


def test_who_shows_another_mark_is_told_of_each_time_and_who_shows_the_same_is_not() -> None:
    it = solo()
    for message in marked(MARK):
        it.hears(2, message)
    assert of_type(it.events, MarkDiffers) == []
    for message in (*marked(MARK + 1), *marked(0)):
        it.hears(2, message)
    assert of_type(it.events, MarkDiffers) == [MarkDiffers(node_id(2))] * 4


def test_what_strangers_show_is_nothing() -> None:
    it = solo()
    it.hears(3, marked(MARK + 1)[1])
    assert of_type(it.events, MarkDiffers) == []


def test_no_mark_takes_no_bytes() -> None:
    for with_mark, without in zip(marked(MARK), marked(0), strict=True):
        assert isinstance(with_mark, Ping | Ack)
        assert isinstance(without, Ping | Ack)
        assert len(encode(with_mark)) - len(encode(without)) == 10


@given(st.integers(0, 2**64 - 1))
def test_a_mark_arrives_as_it_was_sent(mark: int) -> None:
    sent = marked(mark)
    read = decode(frame(frame_head(CLUSTER, node_id(2)), [encode(one) for one in sent]), CONFIG.frame_size_bytes_max)
    assert read.messages == sent
