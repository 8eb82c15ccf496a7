"""Envelopes: what an operator asks of one node, and what that node answers, past a node in between.

Whoever passes them on can lose them, and sees who talks to whom, and how much. It cannot read, forge, reorder or repeat
anything of it, nor leave anything out unnoticed:

- An *order* is signed by the operator, behind a prefix that no other signature begins with, and then sealed to the key
  of the node that is to carry it out. It names that node, the boot epoch of its present life, the time, and 16 random
  bytes of its own, so that ``Orders`` takes it once.
- With it comes the public half of a key pair that the operator has made for its *answers*. They are sealed between that
  pair and the node's own: nobody else can make one. Each names the order and its own place among the answers, and the
  last one says that it is.

Everything is msgpack. Decoding is strict: whatever the bytes are, they are an order or ``BadEnvelope``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from gary.errors import GaryError
from gary.identity import NodeId, is_node_id
from gary.trust.keys import PUBLIC_SIZE_BYTES, SEED_SIZE_BYTES, SIGNATURE_SIZE_BYTES, BadSeal, KeyPair, is_signed, seal

VERSION = 1
ORDER_ID_SIZE_BYTES = 16
ENVELOPE_SIZE_BYTES_MAX = 2 * 1024 * 1024
ANSWER_SIZE_BYTES_MAX = 3 * 1024 * 1024
TEXT_LENGTH_MAX = 64
_ORDER_PREFIX = b"gary order\0"

Entropy = Callable[[int], bytes]
"""``entropy(n)`` gives n random bytes."""


class BadEnvelope(GaryError):
    """The peer's mistake: bytes that are no envelope for this key, or were changed on the way. State is as it was."""


@dataclass(frozen=True, slots=True)
class Order:
    """What ``operator`` (a public key) wants of ``node`` in its life ``epoch``.

    ``deployment``: its id or its pseudonym; empty for what is about the cluster. ``at_s``: seconds since 1970 by the
    operator's clock. ``answers``: the public key that the answers are sealed to.
    """

    operator: bytes
    deployment: str
    node: NodeId
    epoch: int
    at_s: float
    id: bytes
    operation: str
    arguments: Mapping[str, Any]
    answers: bytes


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of an answer. ``lost``: how many before it did not arrive."""

    content: Mapping[str, Any]
    last: bool
    lost: int


class Sent:
    """The operator's side: an order that was sealed, and what opens its answers."""

    def __init__(self, order: Order, node_key: bytes, operator: KeyPair, answers: KeyPair, entropy: Entropy) -> None:
        self.envelope = seal_order(order, node_key, operator, entropy)
        self._order = order
        self._channel = answers.channel(node_key)
        self._next = 0
        self._is_ended = False

    def open(self, sealed: bytes) -> Item:
        """One answer; each comes later than those before it. Raises ``BadEnvelope``, and goes on as if without it."""
        if len(sealed) > ANSWER_SIZE_BYTES_MAX:
            raise BadEnvelope("larger than any answer")
        try:
            fields = _unpacked(self._channel.open(sealed))
        except BadSeal as error:
            raise BadEnvelope(f"an answer that is {error}") from error
        match fields:
            case [bytes(id), int(sequence), bool(last), dict(content)] if _has_text_keys(content):
                pass
            case _:
                raise BadEnvelope("an answer that cannot be read")
        if id != self._order.id:
            raise BadEnvelope("an answer to another order")
        if self._is_ended or isinstance(sequence, bool) or sequence < self._next:
            raise BadEnvelope("an answer that was given before")
        lost = sequence - self._next
        self._next, self._is_ended = sequence + 1, last
        return Item(content, last, lost)

    @property
    def is_answered(self) -> bool:
        """The last answer was among those that came."""
        return self._is_ended


def write_order(
    operator: KeyPair,
    node_key: bytes,
    *,
    deployment: str,
    node: NodeId,
    epoch: int,
    at_s: float,
    operation: str,
    arguments: Mapping[str, Any],
    entropy: Entropy,
) -> Sent:
    """An order for the owner of ``node_key``. Raises ``BadEnvelope`` if that is no key, or the order is too large."""
    answers = KeyPair(entropy(SEED_SIZE_BYTES))
    id = entropy(ORDER_ID_SIZE_BYTES)
    order = Order(operator.public, deployment, node, epoch, at_s, id, operation, arguments, answers.public)
    return Sent(order, node_key, operator, answers, entropy)


def seal_order(order: Order, node_key: bytes, operator: KeyPair, entropy: Entropy) -> bytes:
    """``order`` as it travels. Raises ``BadEnvelope``."""
    body: bytes = msgpack.packb(
        [
            VERSION,
            order.operator,
            order.deployment,
            order.node,
            order.epoch,
            order.at_s,
            order.id,
            order.operation,
            dict(order.arguments),
            order.answers,
        ]
    )
    try:
        envelope = seal(node_key, operator.sign(_ORDER_PREFIX + body) + body, entropy)
    except BadSeal as error:
        raise BadEnvelope(f"{error}") from error
    if len(envelope) > ENVELOPE_SIZE_BYTES_MAX:
        raise BadEnvelope(f"an order of {len(envelope)} bytes; at most {ENVELOPE_SIZE_BYTES_MAX} are passed on")
    return envelope


def open_order(envelope: bytes, node: KeyPair) -> Order:
    """The order that was sealed to ``node``, which its operator has signed. Raises ``BadEnvelope``."""
    if len(envelope) > ENVELOPE_SIZE_BYTES_MAX:
        raise BadEnvelope("larger than any envelope")
    try:
        signed = node.open(envelope)
    except BadSeal as error:
        raise BadEnvelope(f"{error}") from error
    signature, body = signed[:SIGNATURE_SIZE_BYTES], signed[SIGNATURE_SIZE_BYTES:]
    order = _order(_unpacked(body))
    if not is_signed(order.operator, _ORDER_PREFIX + body, signature):
        raise BadEnvelope("an order that its operator has not signed")
    return order


class Answers:
    """The node's side: seals one answer after the other. Raises ``BadEnvelope`` if the order names no key for them."""

    def __init__(self, order: Order, node: KeyPair, entropy: Entropy) -> None:
        self._order = order
        self._entropy = entropy
        self._sequence = 0
        try:
            self._channel = node.channel(order.answers)
        except BadSeal as error:
            raise BadEnvelope(f"{error}") from error

    def seal(self, content: Mapping[str, Any], *, last: bool) -> bytes:
        packed = msgpack.packb([self._order.id, self._sequence, last, dict(content)])
        self._sequence += 1
        return self._channel.seal(packed, self._entropy)


def _order(fields: object) -> Order:
    match fields:
        case [
            int(version),
            bytes(operator),
            str(deployment),
            str(node),
            int(epoch),
            float(at_s),
            bytes(id),
            str(operation),
            dict(arguments),
            bytes(answers),
        ]:
            pass
        case _:
            raise BadEnvelope("an order that cannot be read")
    if version != VERSION or isinstance(version, bool):
        raise BadEnvelope(f"an order in version {version}; this is {VERSION}")
    is_sound = (
        len(operator) == len(answers) == PUBLIC_SIZE_BYTES
        and len(id) == ORDER_ID_SIZE_BYTES
        and len(deployment) <= TEXT_LENGTH_MAX
        and len(operation) <= TEXT_LENGTH_MAX
        and is_node_id(node)
        and not isinstance(epoch, bool)
        and math.isfinite(at_s)
        and _has_text_keys(arguments)
    )
    if not is_sound:
        raise BadEnvelope("an order that says what none says")
    return Order(operator, deployment, node, epoch, at_s, id, operation, arguments, answers)


def _unpacked(packed: bytes) -> object:
    try:
        return msgpack.unpackb(packed, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise BadEnvelope("no msgpack") from error


def _has_text_keys(content: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) for key in content)
