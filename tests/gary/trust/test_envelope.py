"""Envelopes past a node in between that does to them what it likes."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.trust import envelope
from gary.trust.envelope import Answers, BadEnvelope, Item, Order, Sent, open_order, seal_order, write_order
from gary.trust.keys import KeyPair, node_id_of, seal

OPERATOR, NODE, OTHER = KeyPair(b"o" * 32), KeyPair(b"n" * 32), KeyPair(b"x" * 32)


def written(operation: str = "status", **arguments: Any) -> Sent:
    return write_order(
        OPERATOR,
        NODE.public,
        deployment="d" * 32,
        node=node_id_of(NODE.public),
        epoch=3,
        at_s=1e9,
        operation=operation,
        arguments=arguments,
        entropy=os.urandom,
    )


def answering(writing: Sent, node: KeyPair = NODE) -> Answers:
    return Answers(open_order(writing.envelope, NODE), node, os.urandom)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(max_size=20), st.dictionaries(st.text(max_size=8), _json, max_size=4))
def test_an_order_arrives_as_it_was_written(operation: str, arguments: Mapping[str, Any]) -> None:
    order = open_order(written(operation, given=arguments).envelope, NODE)
    assert (order.operator, order.node, order.epoch, order.at_s) == (OPERATOR.public, node_id_of(NODE.public), 3, 1e9)
    assert (order.operation, order.arguments) == (operation, {"given": arguments})


def test_no_two_orders_are_alike() -> None:
    first, second = written(), written()
    assert first.envelope != second.envelope
    assert open_order(first.envelope, NODE).id != open_order(second.envelope, NODE).id


def test_an_envelope_shows_nothing_of_what_is_in_it_and_opens_for_its_node_alone() -> None:
    envelope = written("deploy", secret="canary").envelope
    assert b"canary" not in envelope
    assert b"deploy" not in envelope
    assert OPERATOR.public not in envelope
    with pytest.raises(BadEnvelope):
        open_order(envelope, OTHER)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_an_envelope_that_was_changed_anywhere_is_none(place: int, change: int) -> None:
    envelope = bytearray(written().envelope)
    envelope[place % len(envelope)] ^= change
    with pytest.raises(BadEnvelope):
        open_order(bytes(envelope), NODE)


@given(st.binary(max_size=400))
def test_any_bytes_are_no_envelope_and_no_answer(data: bytes) -> None:
    with pytest.raises(BadEnvelope):
        open_order(data, NODE)
    with pytest.raises(BadEnvelope):
        open_order(seal(NODE.public, data, os.urandom), NODE)
    with pytest.raises(BadEnvelope):
        written().open(data)


_FIELDS: list[Any] = [1, OPERATOR.public, "d" * 32, "a" * 32, 1, 1e9, b"i" * 16, "status", {}, OTHER.public]


@given(st.integers(0, len(_FIELDS) - 1), _json | st.floats())
def test_a_signed_order_with_anything_in_a_field_is_an_order_or_none(place: int, value: object) -> None:
    fields = [*_FIELDS[:place], value, *_FIELDS[place + 1 :]]
    body = msgpack.packb(fields)
    signed = seal(NODE.public, OPERATOR.sign(b"gary order\0" + body) + body, os.urandom)
    try:
        order = open_order(signed, NODE)
    except BadEnvelope:
        return
    assert isinstance(order, Order)
    assert order.operator == OPERATOR.public


def test_an_order_in_another_s_name_is_none() -> None:
    order = replace(open_order(written().envelope, NODE), operator=OTHER.public)
    with pytest.raises(BadEnvelope, match="not signed"):
        open_order(seal_order(order, NODE.public, OPERATOR, os.urandom), NODE)


def test_a_signature_of_something_else_is_no_order() -> None:
    body = msgpack.packb(_FIELDS)
    with pytest.raises(BadEnvelope, match="not signed"):
        open_order(seal(NODE.public, OPERATOR.sign(body) + body, os.urandom), NODE)


def test_an_order_that_is_too_large_is_neither_written_nor_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    large = written("deploy", spec="x" * 2000).envelope
    monkeypatch.setattr(envelope, "ENVELOPE_SIZE_BYTES_MAX", 1000)
    with pytest.raises(BadEnvelope, match="at most 1000"):
        written("deploy", spec="x" * 2000)
    with pytest.raises(BadEnvelope, match="larger"):
        open_order(large, NODE)


def test_what_is_no_key_is_nobody_s_address() -> None:
    order = open_order(written().envelope, NODE)
    with pytest.raises(BadEnvelope):
        seal_order(order, b"short", OPERATOR, os.urandom)
    with pytest.raises(BadEnvelope):
        Answers(replace(order, answers=b"short"), NODE, os.urandom)


# Answers


def test_answers_arrive_in_order_and_the_last_one_ends_them() -> None:
    writing = written()
    answers = answering(writing)
    for number in range(3):
        assert writing.open(answers.seal({"line": number}, last=False)) == Item({"line": number}, False, 0)
    assert not writing.is_answered
    assert writing.open(answers.seal({}, last=True)) == Item({}, True, 0)
    assert writing.is_answered


def test_an_answer_of_another_node_is_refused() -> None:
    writing = written()
    with pytest.raises(BadEnvelope):
        writing.open(answering(writing, OTHER).seal({"state": "whole"}, last=True))


def test_an_answer_to_another_order_is_refused_even_with_the_same_key_for_answers() -> None:
    writing = written()
    order = open_order(writing.envelope, NODE)
    elsewhere = Answers(replace(order, id=b"0" * 16), NODE, os.urandom)
    with pytest.raises(BadEnvelope, match="another order"):
        writing.open(elsewhere.seal({}, last=True))
    with pytest.raises(BadEnvelope):
        written().open(answering(writing).seal({}, last=True))


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_an_answer_that_was_changed_anywhere_is_refused(place: int, change: int) -> None:
    writing = written()
    sealed = bytearray(answering(writing).seal({"state": "whole"}, last=True))
    sealed[place % len(sealed)] ^= change
    with pytest.raises(BadEnvelope):
        writing.open(bytes(sealed))
    assert not writing.is_answered


@given(st.randoms(use_true_random=False), st.integers(1, 8), st.floats(0.0, 0.6))
def test_whatever_is_left_out_repeated_or_reordered_shows(rng: random.Random, count: int, loss: float) -> None:
    """What is heard is in the order in which it was said, each once, with the number of those missing in between."""
    writing = written()
    answers = answering(writing)
    sealed = [answers.seal({"n": number}, last=number == count - 1) for number in range(count)]
    arriving = [one for one in sealed if rng.random() >= loss]
    arriving += rng.sample(sealed, rng.randint(0, count))
    rng.shuffle(arriving)
    heard: list[Item] = []
    for one in arriving:
        try:
            heard.append(writing.open(one))
        except BadEnvelope:
            continue
    places = [item.content["n"] for item in heard]
    assert places == sorted(set(places))
    assert [item.lost for item in heard] == [at - before - 1 for before, at in zip([-1, *places], places, strict=False)]
    assert writing.is_answered is (count - 1 in places)
