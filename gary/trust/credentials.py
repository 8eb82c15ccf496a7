"""Credentials: what an operator gives to those who are to obey it, as text that people can hand on.

``KEY:WATCHWORD``, both in hexadecimal. The key says whom a deployment's members obey. The watchword, which only the
operator's secret key can make, is for the operator: a node that knows it was told by a member, so it may be trusted
with what is said about that deployment. Members show it to that operator and to nobody else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gary.errors import GaryError

if TYPE_CHECKING:
    from gary.trust.keys import KeyPair

KEY_SIZE_BYTES = 32
WATCHWORD_SIZE_BYTES = 16
_PREFIX = b"gary watchword\0"


class BadCredential(GaryError):
    """The user's mistake: a text that is no credential, or no key."""


@dataclass(frozen=True, slots=True)
class Credential:
    """``key``: the operator's public key. ``watchword``: the operator's own for one deployment."""

    key: bytes
    watchword: bytes

    def __str__(self) -> str:
        return f"{self.key.hex()}:{self.watchword.hex()}"


def credential(operator: KeyPair, name: str, cluster: bytes) -> Credential:
    """The operator's credential for the deployment called ``name`` in the cluster with this id; always the same."""
    signature = operator.sign(_PREFIX + cluster + name.encode())
    return Credential(operator.public, hashlib.sha256(signature).digest()[:WATCHWORD_SIZE_BYTES])


def read_credential(text: str) -> Credential:
    """The inverse of ``str``. Raises ``BadCredential``."""
    key, colon, watchword = text.partition(":")
    if not colon:
        raise BadCredential("a key alone says whom to obey, and not by what its owner knows a member")
    return Credential(read_key(key), _bytes(watchword, WATCHWORD_SIZE_BYTES, "a watchword"))


def read_key(text: str) -> bytes:
    """A public key, alone or in a credential. Raises ``BadCredential``."""
    return _bytes(text.partition(":")[0], KEY_SIZE_BYTES, "an operator's key")


def _bytes(text: str, size_bytes: int, what: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size_bytes or value.hex() != text:
        raise BadCredential(f"{text!r} is not {what}: {2 * size_bytes} lowercase hexadecimal digits")
    return value
