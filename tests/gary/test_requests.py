"""Questions from node to node over a network that loses, repeats and reorders, and bytes that are no answer."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.errors import CommandError, ErrorCode, error_in
from gary.identity import NodeId
from gary.messages import Cancel, MalformedMessage, Request, Response
from gary.requests import (
    ANSWERS_REMEMBERED_MAX,
    OPEN_MAX,
    RemoteResponder,
    Requests,
    Serving,
    arguments_of,
)
from tests.gary.facts import A, B


class Asking:
    """The asking side with everything that it says and hears."""

    def __init__(self) -> None:
        self.sent: list[tuple[NodeId, Request | Cancel]] = []
        self.items: list[tuple[Mapping[str, Any], bool]] = []
        self.errors: list[ErrorCode] = []
        numbers = itertools.count(1)
        self.requests = Requests(lambda node, message: self.sent.append((node, message)), lambda: next(numbers))

    def ask(self, node: NodeId = B, *, timeout_s: float = 10.0) -> int:
        return self.requests.ask(
            node,
            "status",
            {"app": "shop"},
            0.0,
            timeout_s=timeout_s,
            heard=lambda item, last: self.items.append((item, last)),
            failed=lambda error: self.errors.append(error.code),
        )


def response(id: int, item: object, sequence: int = 0, *, last: bool = True) -> Response:
    return Response(id, sequence, last, msgpack.packb(item))


def test_an_answer_is_heard_once_and_ends_the_request() -> None:
    asking = Asking()
    id = asking.ask()
    for _ in range(3):
        asking.requests.response(B, response(id, {"x": 1}))
    assert asking.items == [({"x": 1}, True)]
    assert asking.requests.tick(1e6) is None
    assert asking.errors == []


def test_an_answer_from_somebody_else_is_not_heard() -> None:
    asking = Asking()
    asking.requests.response(A, response(asking.ask(B), {"x": 1}))
    assert asking.items == []


def test_a_request_is_repeated_every_second_until_its_time_is_up() -> None:
    asking = Asking()
    asking.ask(timeout_s=3.5)
    now, looks = 0.0, 0
    while (at := asking.requests.tick(now)) is not None:
        assert at > now
        now, looks = at, looks + 1
    assert (now, looks) == (3.5, 4)
    assert len(asking.sent) == 4
    assert len({message.id for _, message in asking.sent}) == 1
    assert asking.errors == [ErrorCode.TIMEOUT]


def test_a_node_that_went_away_fails_what_was_asked_of_it_and_nothing_else() -> None:
    asking = Asking()
    asking.ask(A)
    other = asking.ask(B)
    asking.requests.gone(A)
    assert asking.errors == [ErrorCode.UNAVAILABLE]
    asking.requests.response(B, response(other, {}))
    assert asking.items == [({}, True)]


def test_a_cancelled_request_says_so_to_the_other_side_and_is_silent_from_then_on() -> None:
    asking = Asking()
    id = asking.ask()
    asking.requests.cancel(id)
    asking.requests.cancel(id)
    asking.requests.response(B, response(id, {}))
    asking.requests.tick(1e6)
    assert [message for _, message in asking.sent[1:]] == [Cancel(id)]
    assert (asking.items, asking.errors) == ([], [])


@pytest.mark.parametrize("how", ["time", "death"])
def test_one_failure_may_cancel_the_other_requests(how: str) -> None:
    sent: list[Request | Cancel] = []
    numbers = itertools.count(1)
    requests = Requests(lambda node, message: sent.append(message), lambda: next(numbers))
    failures: list[ErrorCode] = []

    def failing(error: CommandError) -> None:
        failures.append(error.code)
        for id in ids:
            requests.cancel(id)

    def ask() -> int:
        return requests.ask(B, "report", {}, 0.0, timeout_s=1.0, heard=lambda item, last: None, failed=failing)

    ids = [ask() for _ in range(3)]
    if how == "time":
        requests.tick(2.0)
    else:
        requests.gone(B)
    assert len(failures) == 1


def test_too_many_open_requests_are_refused_with_what_to_do() -> None:
    asking = Asking()
    for _ in range(OPEN_MAX):
        asking.ask()
    with pytest.raises(CommandError) as refused:
        asking.ask()
    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert refused.value.hint


@given(st.permutations(range(6)), st.sets(st.integers(0, 4)), st.lists(st.integers(0, 5), max_size=4))
def test_items_of_a_stream_come_in_order_and_every_gap_is_known(
    order: list[int], lost: set[int], repeated: list[int]
) -> None:
    asking = Asking()
    id = asking.ask()
    arriving = [number for number in [*order, *repeated] if number not in lost]
    for number in arriving:
        asking.requests.response(B, response(id, {"n": number}, number, last=number == 5))
    told = 0
    for item, last in asking.items:
        if "lost" in item:
            assert item["lost"] > 0
            told += item["lost"]
        else:
            assert item["n"] == told
            told += 1
            assert last is (item["n"] == 5)
    assert told == 6


def test_an_error_that_is_answered_is_a_failure() -> None:
    asking = Asking()
    asking.requests.response(B, response(asking.ask(), {"error": {"code": "not_found", "message": "m", "hint": "h"}}))
    assert asking.errors == [ErrorCode.NOT_FOUND]


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=4), st.binary(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)
UNHASHABLE_KEY = b"\x81\x90\x01"
bodies = st.one_of(
    st.binary(max_size=30), anything.map(lambda value: bytes(msgpack.packb(value))), st.just(UNHASHABLE_KEY)
)


@given(bodies)
def test_any_bytes_are_an_answer_or_a_malformed_one_that_changes_nothing(body: bytes) -> None:
    asking = Asking()
    id = asking.ask()
    try:
        asking.requests.response(B, Response(id, 0, True, body))
    except MalformedMessage:
        asking.requests.response(B, response(id, {"right": True}))
        assert asking.items == [({"right": True}, True)]
    else:
        assert len(asking.items) + len(asking.errors) == 1


@given(bodies)
def test_any_bytes_are_arguments_or_malformed(body: bytes) -> None:
    try:
        arguments = arguments_of(Request(1, "status", body))
    except MalformedMessage:
        return
    assert all(isinstance(key, str) for key in arguments)


@pytest.mark.parametrize("body", [UNHASHABLE_KEY, b"", b"\xc1", b"\x91" * 2000, b"\x81\x01\x01"], ids=repr)
def test_bytes_that_break_decoders_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        arguments_of(Request(1, "status", body))


@given(st.one_of(anything, st.fixed_dictionaries({"code": anything, "message": anything, "hint": anything})))
def test_any_error_of_another_node_can_be_shown(value: object) -> None:
    error = error_in({"error": value})
    assert error is not None
    assert error.code in set(ErrorCode)
    assert error.to_json()


@given(st.sampled_from(list(ErrorCode)), st.text(max_size=10))
def test_an_error_crosses_the_network_unchanged(code: ErrorCode, text: str) -> None:
    error = error_in(CommandError(code, text, text).to_json())
    assert error is not None
    assert (error.code, error.message, error.hint) == (code, text, text)


# The answering side


def test_a_repeated_request_acts_once_and_is_answered_again() -> None:
    serving, sent = Serving(), list[Response]()
    request = Request(7, "scale", b"\x80")
    responder = serving.accept(A, request, sent.append)
    assert responder is not None
    assert serving.accept(A, request, sent.append) is None
    assert sent == []
    responder.end({"done": True})
    assert serving.accept(A, request, sent.append) is None
    assert sent == [response(7, {"done": True})] * 2
    assert serving.accept(B, request, sent.append) is not None


def test_nothing_follows_the_end_of_an_answer_nor_a_cancel() -> None:
    sent: list[Response] = []
    responder = RemoteResponder(sent.append, 1)
    responder.item({"n": 0})
    responder.end({"n": 1})
    responder.item({"n": 2})
    responder.fail(CommandError(ErrorCode.INTERNAL, "late"))
    assert [(r.sequence, r.last) for r in sent] == [(0, False), (1, True)]
    serving = Serving()
    cancelled = serving.accept(A, Request(2, "logs", b"\x80"), sent.append)
    assert cancelled is not None
    assert serving.cancel(A, 2) is cancelled
    assert serving.cancel(B, 2) is None
    cancelled.item({"n": 0})
    assert len(sent) == 2


def test_what_is_remembered_of_answers_is_bounded_and_a_stream_under_way_is_not_dropped_for_it() -> None:
    serving, sent = Serving(), list[Response]()
    stream = serving.accept(A, Request(0, "logs", b"\x80"), sent.append)
    assert stream is not None
    for id in range(1, 3 * ANSWERS_REMEMBERED_MAX):
        responder = serving.accept(A, Request(id, "status", b"\x80"), sent.append)
        assert responder is not None
        responder.end({})
    assert len(serving) <= ANSWERS_REMEMBERED_MAX
    assert not stream.is_cancelled
    for id in range(10_000, 10_000 + 2 * ANSWERS_REMEMBERED_MAX):
        assert serving.accept(A, Request(id, "logs", b"\x80"), sent.append) is not None
    assert len(serving) <= ANSWERS_REMEMBERED_MAX
    assert stream.is_cancelled


def test_who_asks_very_often_has_nothing_forgotten_but_its_own() -> None:
    serving, sent = Serving(), list[Response]()
    stream = serving.accept(A, Request(0, "logs", b"\x80"), sent.append)
    answered = serving.accept(A, Request(1, "status", b"\x80"), sent.append)
    assert stream is not None
    assert answered is not None
    answered.end({})
    for id in range(4 * ANSWERS_REMEMBERED_MAX):
        assert serving.accept(B, Request(id, "logs", b"\x80"), sent.append) is not None
    assert not stream.is_cancelled
    assert serving.accept(A, Request(1, "status", b"\x80"), sent.append) is None
    assert len(sent) == 2


@given(st.randoms(use_true_random=False), st.floats(0.0, 0.6), st.integers(1, 4))
def test_over_any_network_a_request_acts_at_most_once_and_ends(rng: random.Random, loss: float, answers: int) -> None:
    """A stream's lost last item is not repeated, so only answers of one item are sure to arrive."""
    asking, serving, acted = Asking(), Serving(), list[int]()
    back: list[Response] = []
    id = asking.ask(timeout_s=20.0)
    now = 0.0
    while not asking.items and not asking.errors:
        travelling = [message for _, message in asking.sent if rng.random() >= loss]
        asking.sent.clear()
        travelling += rng.sample(travelling, rng.randint(0, len(travelling)))
        for message in travelling:
            assert isinstance(message, Request)
            responder = serving.accept(A, message, back.append)
            if responder is not None:
                acted.append(message.id)
                responder.end({"answers": answers})
        arriving = [answer for answer in back if rng.random() >= loss]
        back.clear()
        rng.shuffle(arriving)
        for answer in arriving:
            asking.requests.response(B, answer)
        at = asking.requests.tick(now)
        now = now if at is None else at
    assert acted in ([], [id])
    assert len(asking.items) + len(asking.errors) == 1
    assert asking.errors in ([], [ErrorCode.TIMEOUT])
    if not loss:
        assert asking.items == [({"answers": answers}, True)]
