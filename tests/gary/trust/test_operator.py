"""An operator with an agent at hand that does what it likes, and nodes that hold what they say, or do not."""

from __future__ import annotations

import base64
import os
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.errors import CommandError, ErrorCode
from gary.identity import pseudonym
from gary.trust.credentials import BadCredential, Credential, credential, read_credential, read_key
from gary.trust.envelope import Answers, open_order
from gary.trust.keys import KeyPair, node_id_of
from gary.trust.operator import Operator

CLUSTER = b"c" * 16
KEY, STRANGER = KeyPair(b"k" * 32), KeyPair(b"s" * 32)
NOW = 1_700_000_000.0
ITEMS: list[Mapping[str, Any]] = [{"n": number} for number in range(5)]

Answer = Mapping[str, Any]
Twist = Callable[[list[Answer]], list[Answer]]


class Node:
    """A node that is told orders. ``knows``: the operator whose watchword it has for the deployment called shop."""

    def __init__(self, seed: int, knows: KeyPair | None = KEY, fails: CommandError | None = None) -> None:
        self.key = KeyPair(bytes([seed]) * 32)
        self.id = node_id_of(self.key.public)
        self.done: list[tuple[str, Mapping[str, Any]]] = []
        self._watchword = b"?" * 16 if knows is None else credential(knows, "shop", CLUSTER).watchword
        self._fails = fails

    @property
    def place(self) -> Answer:
        return {"node": self.id, "key": self.key.public.hex(), "epoch": 1, "name": f"node-{self.id[:4]}"}

    def answer(self, envelope: bytes) -> list[Answer]:
        order = open_order(envelope, self.key)
        answers = Answers(order, self.key, os.urandom)
        self.done.append((order.operation, order.arguments))
        if order.operation == "hello":
            items: list[Answer] = [{"name": "shop", "watchword": self._watchword}]
        else:
            items = ITEMS if self._fails is None else [self._fails.to_json()]
        return [{"sealed": base64.b64encode(answers.seal(item, last=item is items[-1])).decode()} for item in items]


class AtHand:
    """The agent at hand, and all that it is asked. ``twist``: what it does to the answers of others; ``removed``: it
    knows that the deployment was.
    """

    def __init__(self, *nodes: Node, twist: Twist = lambda answers: answers, removed: bool = False) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self._nodes = nodes
        self._twist = twist
        self._removed = removed

    def ask(self, operation: str, arguments: Mapping[str, Any]) -> Iterator[Answer]:
        self.asked.append((operation, arguments))
        holders = [node.place for node in self._nodes]
        places = {"deployment": "d" * 32, "holders": holders, "removed": self._removed}
        match operation:
            case "version":
                yield {"cluster": CLUSTER.hex()}
            case "holders":
                yield {"here": False, **places}
            case "ps":
                yield {"deployments": [], "elsewhere": [places], "unanswered": []}
            case "relay":
                node = next(node for node in self._nodes if node.id == arguments["node"])
                answers = node.answer(base64.b64decode(arguments["envelope"]))
                yield from answers if node.done[-1][0] == "hello" else self._twist(answers)
            case _:
                raise CommandError(ErrorCode.ELSEWHERE, "elsewhere", "", places)


def operator(agent: AtHand, key: KeyPair = KEY) -> Operator:
    return Operator(lambda: key, os.urandom, lambda: NOW, agent.ask)


def status(agent: AtHand, key: KeyPair = KEY) -> list[Answer]:
    return list(operator(agent, key).command("status", {"app": "shop", "detail": "canary"}))


def test_the_agent_at_hand_is_told_no_names_and_nothing_that_is_for_others() -> None:
    node = Node(1)
    agent = AtHand(node)
    assert status(agent) == ITEMS
    assert node.done == [("hello", {}), ("status", {"detail": "canary"})]
    (first, asked), *rest = [entry for entry in agent.asked if entry[0] != "version"]
    assert (first, asked["app"]) == ("status", pseudonym("shop", CLUSTER))
    assert {operation for operation, _ in rest} == {"relay"}
    assert "canary" not in repr(rest)
    assert "shop" not in repr(agent.asked)


def test_what_the_agent_at_hand_can_answer_itself_asks_nobody_else_and_needs_no_key() -> None:
    def ask(operation: str, arguments: Mapping[str, Any]) -> Iterator[Answer]:
        yield {"cluster": CLUSTER.hex()} if operation == "version" else {"state": "whole"}

    def no_key() -> KeyPair:
        raise AssertionError("it was asked for")

    alone = Operator(no_key, os.urandom, lambda: NOW, ask)
    assert list(alone.command("status", {"app": "shop"})) == [{"state": "whole"}]
    assert list(alone.command("nodes", {})) == [{"state": "whole"}]


def test_nothing_is_said_to_a_node_that_does_not_know_the_watchword() -> None:
    for stranger in (Node(1, None), Node(2, STRANGER)):
        with pytest.raises(CommandError, match="watchword"):
            status(AtHand(stranger))
        assert stranger.done == [("hello", {})]
    liar, member = Node(1, None), Node(3)
    assert status(AtHand(liar, member)) == ITEMS
    assert liar.done == [("hello", {})]


@pytest.mark.parametrize("code", [ErrorCode.UNAVAILABLE, ErrorCode.NOT_FOUND, ErrorCode.ELSEWHERE])
def test_when_one_holder_cannot_the_next_one_is_asked(code: ErrorCode) -> None:
    assert status(AtHand(Node(1, fails=CommandError(code, "no")), Node(2))) == ITEMS
    rotation = operator(AtHand(Node(1, fails=CommandError(code, "no")), Node(2))).command("rotate", {})
    assert list(rotation) == ITEMS


@pytest.mark.parametrize("code", [ErrorCode.REFUSED, ErrorCode.CONFLICT, ErrorCode.TIMEOUT, ErrorCode.BAD_REQUEST])
def test_what_a_member_refuses_is_not_asked_of_another_one(code: ErrorCode) -> None:
    other = Node(2)
    with pytest.raises(CommandError) as refused:
        status(AtHand(Node(1, fails=CommandError(code, "no", "do that")), other))
    assert (refused.value.code, refused.value.message, refused.value.hint) == (code, "no", "do that")
    assert other.done == []


def test_what_was_removed_is_not_there_though_somebody_that_has_not_heard_of_it_does_not_answer() -> None:
    away = Node(1, fails=CommandError(ErrorCode.UNAVAILABLE, "gone"))
    with pytest.raises(CommandError) as failed:
        status(AtHand(away, removed=True))
    assert failed.value.code is ErrorCode.NOT_FOUND
    (seen,) = operator(AtHand(away, removed=True)).command("ps", {})
    assert seen == {"deployments": [], "unanswered": [], "withheld": []}
    with pytest.raises(CommandError) as failed:
        status(AtHand(away))
    assert failed.value.code is ErrorCode.UNAVAILABLE


def test_a_deploy_of_a_name_that_is_held_elsewhere_shows_its_spec_to_a_member_alone() -> None:
    node = Node(1)
    agent = AtHand(node)
    assert list(operator(agent).command("deploy", {"spec": {"name": "shop", "image": "canary"}})) == ITEMS
    assert "canary" not in repr(agent.asked)
    assert node.done[-1] == ("deploy", {"spec": {"name": "shop", "image": "canary"}})


def test_a_deploy_of_a_new_name_says_whose_it_is() -> None:
    def ask(operation: str, arguments: Mapping[str, Any]) -> Iterator[Answer]:
        if operation == "version":
            yield {"cluster": CLUSTER.hex()}
        else:
            yield {"here": False, "holders": []} if operation == "holders" else arguments

    (given,) = Operator(lambda: KEY, os.urandom, lambda: NOW, ask).command("deploy", {"spec": {"name": "shop"}})
    assert given["operator"] == str(credential(KEY, "shop", CLUSTER))


def test_ps_counts_what_may_not_be_seen_and_what_nobody_answers_for() -> None:
    (seen,) = operator(AtHand(Node(1))).command("ps", {})
    assert seen == {"deployments": [ITEMS[-1]], "unanswered": [], "withheld": []}
    refusing = Node(1, fails=CommandError(ErrorCode.REFUSED, "no"))
    (seen,) = operator(AtHand(refusing)).command("ps", {})
    assert seen == {"deployments": [], "unanswered": [], "withheld": ["d" * 32]}
    (seen,) = operator(AtHand(Node(1, None))).command("ps", {})
    assert seen == {"deployments": [], "unanswered": ["d" * 32], "withheld": []}


@given(st.lists(st.one_of(st.none(), st.text(max_size=5), st.dictionaries(st.text(max_size=5), st.text(max_size=5)))))
def test_whatever_an_agent_says_of_holders_nobody_but_holders_is_asked(holders: list[Any]) -> None:
    def ask(operation: str, arguments: Mapping[str, Any]) -> Iterator[Answer]:
        if operation == "version":
            yield {"cluster": CLUSTER.hex()}
            return
        assert operation == "status"
        raise CommandError(ErrorCode.ELSEWHERE, "", "", {"deployment": "d" * 32, "holders": holders})

    with pytest.raises(CommandError) as failed:
        list(Operator(lambda: KEY, os.urandom, lambda: NOW, ask).command("status", {"app": "shop"}))
    assert failed.value.code is ErrorCode.UNAVAILABLE


def test_a_key_that_is_not_the_node_s_is_nobody_s() -> None:
    mixed = Node(1)
    mixed.id = Node(2).id
    with pytest.raises(CommandError) as failed:
        status(AtHand(mixed))
    assert failed.value.code is ErrorCode.UNAVAILABLE
    assert mixed.done == []


def until_it_fails(answers: Iterator[Answer]) -> tuple[list[Answer], ErrorCode | None]:
    """The items of an answer, and the error that it ended with."""
    items: list[Answer] = []
    while True:
        try:
            items.append(next(answers))
        except StopIteration:
            return items, None
        except CommandError as error:
            return items, error.code


@given(st.randoms(use_true_random=False), st.floats(0.0, 0.9))
def test_what_is_left_out_of_a_stream_is_counted_and_its_end_is_not_left_out_unnoticed(
    rng: random.Random, loss: float
) -> None:
    kept = [index for index in range(len(ITEMS)) if rng.random() >= loss]
    agent = AtHand(Node(1), twist=lambda answers: [answers[index] for index in kept])
    items, failure = until_it_fails(operator(agent).command("status", {"app": "shop"}))
    assert failure is (None if len(ITEMS) - 1 in kept else ErrorCode.UNAVAILABLE)
    heard = [item for item in items if "lost" not in item]
    assert heard == [ITEMS[index] for index in kept]
    if kept:
        assert sum(item["lost"] for item in items if "lost" in item) == kept[-1] + 1 - len(kept)


@given(st.permutations(range(len(ITEMS))))
def test_a_stream_out_of_order_is_refused(order: list[int]) -> None:
    agent = AtHand(Node(1), twist=lambda answers: [answers[index] for index in order])
    if order == sorted(order):
        assert status(agent) == ITEMS
        return
    with pytest.raises(CommandError) as refused:
        status(agent)
    assert refused.value.code is ErrorCode.INTERNAL


# Credentials


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
def test_a_credential_is_read_back_from_its_text(key: bytes, watchword: bytes) -> None:
    given_ = Credential(key, watchword)
    assert read_credential(str(given_)) == given_
    assert read_key(str(given_)) == read_key(key.hex()) == key


@given(st.text("0123456789abcdefABCDEF:g ", max_size=110))
def test_any_other_text_is_no_credential(text: str) -> None:
    try:
        found = read_credential(text)
    except BadCredential:
        return
    assert str(found) == text


def test_a_watchword_is_of_one_operator_one_name_and_one_cluster() -> None:
    mine = credential(KEY, "shop", CLUSTER)
    assert mine == credential(KEY, "shop", CLUSTER)
    others = [(STRANGER, "shop", CLUSTER), (KEY, "blog", CLUSTER), (KEY, "shop", b"d" * 16)]
    assert len({mine.watchword, *(credential(*other).watchword for other in others)}) == 4
