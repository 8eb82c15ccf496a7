"""What a cluster has said about who belongs to it: statements that a root has signed, for everybody to check.

A statement is msgpack ``[kind, field, ...]``. It travels and is kept with the public key of the root that signed it and
the signature, which covers the cluster's id as well. Who holds a root's secret half *vouches*.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgpack

from gary.errors import GaryError
from gary.identity import NodeId, is_node_id
from gary.trust.keys import PUBLIC_SIZE_BYTES, SIGNATURE_SIZE_BYTES, KeyPair, is_signed

ID_SIZE_BYTES = 16
CERTIFICATE_LENGTH_MAX = 4096
STATEMENT_SIZE_BYTES_MAX = 16 * 1024
_PURPOSE = b"gary statement 1\0"


class BadStatement(GaryError):
    """The peer's mistake: bytes that are no statement, or that its signer did not sign."""


@dataclass(frozen=True, slots=True)
class Root:
    """Whom a cluster trusts: ``public`` signs statements, ``certificate`` (PEM) certificates for TLS."""

    public: bytes
    certificate: str

    @property
    def name(self) -> str:
        """What it is called in certificates; no two are called the same."""
        return root_name(self.public)


@dataclass(frozen=True, slots=True)
class Rotation:
    """``root`` takes the place of the one that says so, which is trusted until ``until_s`` (seconds since 1970).

    ``cross_certificate``: the new root in the name of the old one. ``is_urgent``: the old one's secret may be known to
    others, so only who was a member before is helped over.
    """

    root: Root
    cross_certificate: str
    until_s: int
    is_urgent: bool


@dataclass(frozen=True, slots=True)
class Expulsion:
    """``node`` is out for ever. ``by``: the node that vouched for it; ``operator``: whose order it was, if that is
    known (32 bytes, else none). ``name``: what the expelled node was called. ``at_s``: seconds since 1970.
    """

    node: NodeId
    name: str
    by: NodeId
    operator: bytes
    at_s: int


@dataclass(frozen=True, slots=True)
class Admission:
    """The operator with this public key may command the cluster, through any node."""

    operator: bytes
    by: NodeId
    at_s: int


Statement = Rotation | Expulsion | Admission


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement as it travels. ``id`` is a hash of ``raw``."""

    raw: bytes
    signer: bytes
    statement: Statement

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.raw).digest()[:ID_SIZE_BYTES]


def root_name(public: bytes) -> str:
    return f"gary root {public.hex()[:16]}"


def sign(statement: Statement, root: KeyPair, cluster: bytes) -> Signed:
    """``statement`` in the name of ``root``."""
    body: bytes = msgpack.packb(_fields(statement))
    raw: bytes = msgpack.packb([root.public, root.sign(_PURPOSE + cluster + body), body])
    return Signed(raw, root.public, statement)


def read(raw: bytes, cluster: bytes) -> Signed:
    """The statement in ``raw``, signed by whom it says. Raises ``BadStatement``."""
    try:
        if len(raw) > STATEMENT_SIZE_BYTES_MAX:
            raise ValueError("too large")
        signer, signature, body = msgpack.unpackb(raw)
        _sized(signer, PUBLIC_SIZE_BYTES)
        _sized(signature, SIGNATURE_SIZE_BYTES)
        statement = _statement(msgpack.unpackb(body))
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise BadStatement(f"not a statement: {error}") from error
    if not is_signed(signer, _PURPOSE + cluster + body, signature):
        raise BadStatement("not signed by whom it says")
    return Signed(raw, signer, statement)


def _fields(statement: Statement) -> list[Any]:
    match statement:
        case Rotation(root, cross_certificate, until_s, is_urgent):
            return ["rotation", root.public, root.certificate, cross_certificate, until_s, is_urgent]
        case Expulsion(node, name, by, operator, at_s):
            return ["expulsion", node, name, by, operator, at_s]
        case Admission(operator, by, at_s):
            return ["admission", operator, by, at_s]


def _statement(fields: Any) -> Statement:
    match fields:
        case ["rotation", public, certificate, cross_certificate, until_s, is_urgent]:
            root = Root(_sized(public, PUBLIC_SIZE_BYTES), _text(certificate, CERTIFICATE_LENGTH_MAX))
            cross = _text(cross_certificate, CERTIFICATE_LENGTH_MAX)
            return Rotation(root, cross, _time(until_s), is_urgent is True)
        case ["expulsion", node, name, by, operator, at_s]:
            key = _sized(operator, PUBLIC_SIZE_BYTES) if operator else b""
            return Expulsion(_node(node), _text(name, 64), _node(by), key, _time(at_s))
        case ["admission", operator, by, at_s]:
            return Admission(_sized(operator, PUBLIC_SIZE_BYTES), _node(by), _time(at_s))
    raise ValueError("of no known kind")


def _sized(value: Any, size: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != size:
        raise TypeError("not a key or a signature")
    return value


def _text(value: Any, length_max: int) -> str:
    if not isinstance(value, str) or len(value) > length_max:
        raise TypeError("not a text")
    return value


def _node(value: Any) -> NodeId:
    if not is_node_id(value):
        raise TypeError("not a node id")
    return str(value)


def _time(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**40:
        raise TypeError("not a time")
    return value
