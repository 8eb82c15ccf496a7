"""An exchange makes replicas equal over a network that loses, repeats and reorders, and is silent when they are."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from crdt import Exchange, ExchangeConfig, Outgoing, Received
from crdt.chunks import HASH_SIZE_BYTES
from crdt.messages import Heads, HeadsPurpose, MessageLimits, Push, PushPurpose, decode_message
from tests.crdt.support import permit_all, permit_own, replica, state


@dataclass
class Group:
    """Fellows and the messages under way between them."""

    size: int
    config: ExchangeConfig = field(default_factory=ExchangeConfig)

    def __post_init__(self) -> None:
        self.exchanges = {
            f"{number:03}": Exchange(replica(number), random.Random(number), self.config) for number in range(self.size)
        }
        self.under_way: list[tuple[str, Outgoing]] = []
        self.sent = 0

    def fellows(self, name: str) -> list[str]:
        return [other for other in self.exchanges if other != name]

    def write(self, number: int, key: str, value: bytes) -> bytes:
        name = f"{number:03}"
        change = self.exchanges[name].replica.put({("promises", key): value})
        self.send(name, self.exchanges[name].publish(change, self.fellows(name)))
        return change

    def compare(self, number: int) -> None:
        name = f"{number:03}"
        self.send(name, self.exchanges[name].compare(self.fellows(name)))

    def send(self, sender: str, outgoing: Iterable[Outgoing]) -> None:
        for message in outgoing:
            self.under_way.append((sender, message))
            self.sent += 1

    def deliver(self, at: int) -> Received:
        sender, message = self.under_way.pop(at % len(self.under_way))
        received = self.exchanges[message.to].receive(sender, message.message, self.fellows(message.to), permit_all)
        assert received.malformed == ""
        self.send(message.to, received.outgoing)
        return received

    def deliver_all(self) -> None:
        while self.under_way:
            assert self.sent < 20_000, "a conversation does not end"
            self.deliver(0)

    def equal(self) -> bool:
        states = [state(exchange.replica) for exchange in self.exchanges.values()]
        return all(other == states[0] for other in states)


def test_a_new_change_reaches_all_fellows_at_once_and_is_confirmed_by_them() -> None:
    group = Group(5)
    change = group.write(0, "a", b"1")
    (written,) = group.exchanges["000"].replica.heads()
    assert group.exchanges["000"].confirmed(written) == ()
    group.deliver_all()
    assert group.equal()
    assert group.sent == 4 + 4
    assert group.exchanges["000"].confirmed(written) == ("001", "002", "003", "004")
    assert group.exchanges["001"].replica.changes_since(()) == [change]


def test_equal_replicas_are_silent() -> None:
    group = Group(3)
    group.write(0, "a", b"1")
    group.deliver_all()
    for number in range(3):
        group.compare(number)
    group.deliver_all()
    group.sent = 0
    for _ in range(5):
        group.compare(0)
        group.deliver_all()
    assert group.sent == 5 * 2


def test_among_many_a_change_is_spread_by_relays_with_few_messages() -> None:
    group = Group(50)
    group.write(0, "a", b"1")
    group.deliver_all()
    reached = sum(exchange.replica.change_count for exchange in group.exchanges.values())
    assert reached >= 45
    assert group.sent <= 50 * (ceil(log2(50)) + 1)
    for _ in range(3):
        for number in range(50):
            group.compare(number)
        group.deliver_all()
    assert group.equal()


def test_replicas_that_wrote_at_the_same_time_become_equal_by_one_comparison() -> None:
    group = Group(2)
    group.write(0, "common", b"0")
    group.deliver_all()
    for number in range(2):
        for value in range(3):
            group.write(number, f"{number}", bytes([value]))
    group.under_way.clear()
    group.compare(0)
    group.deliver_all()
    assert group.equal()


def test_a_request_tells_enough_for_the_other_to_send_only_what_is_missing() -> None:
    group = Group(2)
    for value in range(100):
        group.write(0, "a", bytes([value]))
    group.deliver_all()
    group.write(0, "b", b"0")
    group.write(1, "c", b"1")
    group.under_way.clear()
    group.compare(0)
    pushed = 0
    while group.under_way:
        message = decode_message(group.under_way[0][1].message, MessageLimits())
        pushed += len(message.changes) if isinstance(message, Push) else 0
        group.deliver(0)
    assert group.equal()
    assert pushed == 2


def test_a_change_that_must_wait_makes_its_receiver_ask_for_the_rest() -> None:
    group = Group(2)
    group.write(0, "a", b"1")
    group.under_way.clear()
    group.write(0, "a", b"2")
    group.deliver_all()
    assert group.equal()


def test_a_repair_is_cut_into_pieces() -> None:
    group = Group(2, ExchangeConfig(piece_size_bytes_max=1000, pieces_max=100))
    noise = random.Random(1)
    for _ in range(20):
        group.write(0, "a", noise.randbytes(400))
    group.under_way.clear()
    group.compare(1)
    sizes = []
    while group.under_way:
        sizes.append(len(group.under_way[0][1].message))
        group.deliver(0)
    assert group.equal()
    assert len([size for size in sizes if size > 400]) >= 10
    assert max(sizes) < 1200


def test_a_lost_acknowledgement_is_asked_for_by_the_next_comparison() -> None:
    group = Group(2)
    group.write(0, "a", b"1")
    group.deliver(0)
    group.under_way.clear()
    exchange = group.exchanges["000"]
    assert exchange.confirmed(exchange.replica.heads()[0]) == ()
    group.compare(0)
    group.deliver_all()
    assert exchange.confirmed(exchange.replica.heads()[0]) == ("001",)


def test_an_older_acknowledgement_that_comes_late_takes_nothing_away() -> None:
    group = Group(2)
    group.write(0, "a", b"1")
    group.deliver(0)
    group.write(0, "a", b"2")
    group.deliver(1)
    group.deliver(1)
    group.deliver(0)
    exchange = group.exchanges["000"]
    assert exchange.confirmed(exchange.replica.heads()[0]) == ("001",)


def test_what_a_former_fellow_acknowledged_is_forgotten() -> None:
    group = Group(3)
    group.write(0, "a", b"1")
    group.deliver_all()
    exchange = group.exchanges["000"]
    head = exchange.replica.heads()[0]
    exchange.compare(["002"])
    assert exchange.confirmed(head) == ("002",)
    exchange.forget("002")
    assert exchange.confirmed(head) == ()


def test_who_is_no_fellow_gets_no_answer() -> None:
    group = Group(2)
    group.write(0, "a", b"1")
    exchange = group.exchanges["000"]
    request = Heads(HeadsPurpose.REQUEST, replica(9).heads()).encode()
    received = exchange.receive("stranger", request, ["001"], permit_all)
    assert received.outgoing == ()
    assert received.malformed == "stranger is no fellow"


def test_refused_changes_do_not_make_a_conversation_go_on_for_ever() -> None:
    one, two = Exchange(replica(1), random.Random(1)), Exchange(replica(2), random.Random(2))
    one.replica.put({("promises", "2/a"): b"forged"})
    one.replica.put({("promises", "1/a"): b"fine, but after the forged one"})
    two.replica.put({("promises", "2/a"): b"true"})
    messages = [("two", outgoing) for outgoing in one.compare(["two"])]
    count = 0
    while messages:
        count += 1
        assert count < 20
        to, outgoing = messages.pop(0)
        receiver, sender = (two, "one") if to == "two" else (one, "two")
        received = receiver.receive(sender, outgoing.message, [sender], permit_own)
        messages += [(answer.to, answer) for answer in received.outgoing]
    assert two.replica.items("promises") == {"2/a": b"true"}


moves = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 3), st.integers(0, 9)),
        st.tuples(st.just("compare"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("deliver"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("lose"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("repeat"), st.integers(0, 50), st.just(0)),
    ),
    max_size=40,
)


@given(moves)
def test_after_any_loss_repetition_and_reordering_a_few_comparisons_make_all_equal(
    moves: list[tuple[str, int, int]],
) -> None:
    group = Group(4)
    for move, number, value in moves:
        if move == "write":
            group.write(number, f"{number}/{value % 3}", bytes([value]))
        elif move == "compare":
            group.compare(number)
        elif group.under_way:
            if move == "repeat":
                group.under_way.append(group.under_way[number % len(group.under_way)])
            elif move == "lose":
                group.under_way.pop(number % len(group.under_way))
            else:
                group.deliver(number)
    group.deliver_all()
    for _ in range(3):
        for number in range(4):
            group.compare(number)
            group.deliver_all()
    assert group.equal()


hashes = st.lists(st.binary(min_size=HASH_SIZE_BYTES, max_size=HASH_SIZE_BYTES), max_size=5).map(tuple)


@given(
    st.one_of(
        st.builds(Push, st.sampled_from(PushPurpose), st.lists(st.binary(max_size=50), max_size=5).map(tuple)),
        st.builds(Heads, st.sampled_from(HeadsPurpose), hashes, hashes),
    )
)
def test_messages_come_out_as_they_went_in(message: Push | Heads) -> None:
    assert decode_message(message.encode(), MessageLimits()) == message
