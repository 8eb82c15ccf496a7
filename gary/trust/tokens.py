"""Invitations as people carry them: one line of text that lets its holder in, as often as its issuer said.

It has what a stranger needs to know the cluster before it says a word (the root's certificate), where to go, and a
guest's certificate with the number that makes its key. TLS with it admits to the door and no further: ``door``.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass, field
from typing import Any

import msgpack

from gary.errors import GaryError
from gary.identity import NodeId, is_node_id
from gary.trust.notary import NUMBER_SIZE_BYTES
from gary.trust.statements import CERTIFICATE_LENGTH_MAX
from gossip.transport import GUEST, Credentials

PREFIX = "gary1."
LENGTH_MAX = 8192
UNPACKED_SIZE_BYTES_MAX = 16 * 1024
ADDRESSES_MAX = 8
CHECKSUM_SIZE_BYTES = 4


class BadToken(GaryError):
    """The user's mistake: a text that is no token of ours, or only a part of one."""


@dataclass(frozen=True, slots=True)
class Token:
    """``invitation``: 32 hex characters, by which the issuer knows it. ``expires_s``: seconds since 1970."""

    cluster: bytes
    issuer: NodeId
    addresses: tuple[str, ...]
    invitation: str
    expires_s: int
    root_certificate: str
    guest_certificate: str
    guest_number: bytes = field(repr=False)

    @property
    def guest(self) -> str:
        """What its holder is called at the door."""
        return GUEST + self.invitation

    def credentials(self, guest_key: str) -> Credentials:
        """To come to the door with; ``guest_key`` is what the notary makes of ``guest_number``."""
        return Credentials(self.guest_certificate, guest_key, (self.root_certificate,))


def write(token: Token) -> str:
    """``token`` as one line without spaces."""
    # Certificates as text are a third longer than they need to be; compressed they are not.
    body = zlib.compress(
        msgpack.packb(
            [
                token.cluster,
                token.issuer,
                list(token.addresses),
                token.invitation,
                token.expires_s,
                token.root_certificate,
                token.guest_certificate,
                token.guest_number,
            ]
        )
    )
    return PREFIX + base64.urlsafe_b64encode(_checksum(body) + body).rstrip(b"=").decode()


def read(text: str) -> Token:
    """The token in ``text``, around which there may be spaces. Raises ``BadToken`` saying what is wrong with it."""
    text = "".join(text.split())
    if not text.startswith(PREFIX):
        raise BadToken(f"a token begins with {PREFIX!r}; 'gary invite' prints one")
    if len(text) > LENGTH_MAX:
        raise BadToken("that is longer than any token")
    try:
        encoded = text[len(PREFIX) :]
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise BadToken("the token is damaged: it has characters that no token has") from error
    body = data[CHECKSUM_SIZE_BYTES:]
    if data[:CHECKSUM_SIZE_BYTES] != _checksum(body):
        raise BadToken("the token is damaged or was cut short: copy all of it")
    try:
        return _token(_unpacked(body))
    except (
        ValueError,
        TypeError,
        LookupError,
        OverflowError,
        RecursionError,
        msgpack.UnpackException,
        zlib.error,
    ) as error:
        raise BadToken("the token was made by another version of Gary, or by something else") from error


def _token(fields: Any) -> Token:
    cluster, issuer, addresses, invitation, expires_s, root_certificate, guest_certificate, number = fields[:8]
    is_whole = (
        (isinstance(cluster, bytes) and len(cluster) == 16)
        and (is_node_id(issuer) and is_node_id(invitation))
        and (isinstance(number, bytes) and len(number) == NUMBER_SIZE_BYTES)
        and (type(expires_s) is int and 0 <= expires_s < 2**40)
        and (isinstance(addresses, list) and 0 < len(addresses) <= ADDRESSES_MAX)
        and all(isinstance(address, str) and 0 < len(address) <= 300 for address in addresses)
    )
    if not is_whole:
        raise ValueError("a field is of the wrong kind")
    return Token(
        cluster,
        issuer,
        tuple(addresses),
        invitation,
        expires_s,
        _text(root_certificate),
        _text(guest_certificate),
        number,
    )


def _checksum(body: bytes) -> bytes:
    """Against slips of the hand; who forges a token gets no further than TLS."""
    return hashlib.sha256(body).digest()[:CHECKSUM_SIZE_BYTES]


def _unpacked(body: bytes) -> Any:
    decompressor = zlib.decompressobj()
    data = decompressor.decompress(body, UNPACKED_SIZE_BYTES_MAX)
    if decompressor.unconsumed_tail or not decompressor.eof:
        raise ValueError("larger than any token")
    return msgpack.unpackb(data)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= CERTIFICATE_LENGTH_MAX:
        raise TypeError("not a certificate")
    return value
