"""What is said at the door: one question of a guest, and one answer. Strict decoding; a later version only adds fields.

A guest has proved by its certificate that it holds an invitation, and nothing more. It asks for a certificate for the
key that it will speak TLS with, and proves by a signature that this key belongs to the node it says it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import msgpack

from gary.errors import GaryError
from gary.identity import NodeId
from gary.trust.keys import PUBLIC_SIZE_BYTES, BadSeal, KeyPair, is_signed, node_id_of, seal
from gary.trust.statements import CERTIFICATE_LENGTH_MAX, Root

VERSION = 1
TLS_PUBLIC_SIZE_BYTES_MAX = 512
STATEMENTS_MAX = 4096
REASON_LENGTH_MAX = 300
_PURPOSE = b"gary certificate 1\0"
_PROOF = b"gary voucher 1\0"


class BadEntry(GaryError):
    """The peer's mistake: bytes that nobody says at a door."""


@dataclass(frozen=True, slots=True)
class Application:
    """``node key``, its ``tls_public`` (DER), and the signature that makes them one. ``vouches``: whether the node
    wants to hold the root's secret half; a member that has the secret of ``vouched``, a root before, shows that by
    ``proof``. ``name``: what its operator calls it.
    """

    public: bytes
    tls_public: bytes
    signature: bytes
    vouches: bool
    name: str
    vouched: bytes = b""
    proof: bytes = b""

    @property
    def node(self) -> NodeId:
        return node_id_of(self.public)

    @property
    def is_genuine(self) -> bool:
        """The node's own key has signed for the key that is to be certified."""
        return is_signed(self.public, _PURPOSE + self.tls_public, self.signature)

    def has_vouched(self, roots: Collection[bytes]) -> bool:
        """The node has shown that it holds the secret half of one of ``roots``."""
        return self.vouched in roots and is_signed(self.vouched, _PROOF + self.public, self.proof)


@dataclass(frozen=True, slots=True)
class Admittance:
    """What makes the guest a node of the cluster. ``certificate``: PEM, with the certificates that lead to ``issuer``,
    the key of the root that signed it. ``root_secret``: sealed to the node, or nothing.
    """

    cluster: bytes
    secret: bytes = field(repr=False)
    founding: Root
    statements: tuple[bytes, ...]
    issuer: bytes
    certificate: str
    root_secret: bytes


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why not, in words for whoever holds the invitation. ``others_may``: it does not vouch itself, and says nothing of
    the applicant.
    """

    reason: str
    others_may: bool = False


Entry = Application | Admittance | Rejection


def apply(key: KeyPair, tls_public: bytes, name: str, *, vouches: bool, vouched: KeyPair | None = None) -> Application:
    """The application of the node that owns ``key``. ``vouched``: a root before, if the node has its secret."""
    shown = (b"", b"") if vouched is None else (vouched.public, vouched.sign(_PROOF + key.public))
    return Application(key.public, tls_public, key.sign(_PURPOSE + tls_public), vouches, name, *shown)


def encode(entry: Entry) -> bytes:
    match entry:
        case Application(public, tls_public, signature, vouches, name, vouched, proof):
            fields: list[Any] = [VERSION, "apply", public, tls_public, signature, vouches, name, vouched, proof]
        case Admittance(cluster, secret, founding, statements, issuer, certificate, root_secret):
            root = [founding.public, founding.certificate]
            fields = [VERSION, "admit", cluster, secret, root, list(statements), issuer, certificate, root_secret]
        case Rejection(reason, others_may):
            fields = [VERSION, "reject", reason[:REASON_LENGTH_MAX], others_may]
    packed: bytes = msgpack.packb(fields)
    return packed


def addressee(node: NodeId) -> bytes:
    """What an answer to the application of ``node`` begins with."""
    return bytes.fromhex(node)


def encode_answer(answer: Entry, public: bytes, entropy: Callable[[int], bytes]) -> bytes:
    """``answer`` to the applicant that owns ``public``, which nobody else with the same invitation can read."""
    return addressee(node_id_of(public)) + seal(public, encode(answer), entropy)


def decode_answer(frame: bytes, key: KeyPair) -> Entry:
    """What was answered to the applicant that owns ``key``. Raises ``BadEntry``."""
    start = len(addressee(node_id_of(key.public)))
    try:
        return decode(key.open(frame[start:]))
    except BadSeal as error:
        raise BadEntry(str(error)) from error


def decode(data: bytes) -> Entry:
    """What was said; raises ``BadEntry`` for anything else."""
    try:
        fields = msgpack.unpackb(data, max_array_len=STATEMENTS_MAX, max_map_len=0)
        if not isinstance(fields, list) or fields[0] != VERSION:
            raise BadEntry("of another version of Gary")
        return _entry(fields[1:])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise BadEntry(f"not a word that is said at a door: {error}") from error


def _entry(fields: list[Any]) -> Entry:
    match fields:
        case [
            "apply",
            bytes(public),
            bytes(tls),
            bytes(signature),
            bool(vouches),
            str(name),
            bytes(vouched),
            bytes(proof),
            *_,
        ]:
            if len(public) == PUBLIC_SIZE_BYTES and len(tls) <= TLS_PUBLIC_SIZE_BYTES_MAX and len(name) <= 64:
                return Application(public, tls, signature, vouches, name, vouched, proof)
        case [
            "admit",
            bytes(cluster),
            bytes(secret),
            [bytes(public), str(root_certificate)],
            list(statements),
            bytes(issuer),
            str(certificate),
            bytes(root_secret),
            *_,
        ]:
            is_whole = (
                (len(cluster), len(secret), len(public), len(issuer)) == (16, 32, PUBLIC_SIZE_BYTES, PUBLIC_SIZE_BYTES)
                and len(root_certificate) <= CERTIFICATE_LENGTH_MAX
                and all(isinstance(statement, bytes) for statement in statements)
            )
            if is_whole:
                founding = Root(public, root_certificate)
                return Admittance(cluster, secret, founding, tuple(statements), issuer, certificate, root_secret)
        case ["reject", str(reason), bool(others_may), *_]:
            return Rejection(reason[:REASON_LENGTH_MAX], others_may)
    raise ValueError("a field is of the wrong kind")
