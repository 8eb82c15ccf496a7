"""Key pairs: who signs, who can read. The only place that knows PyNaCl.

A node, a cluster's root and an operator each have one Ed25519 key pair (Bernstein et al., 2012). It signs statements,
and what is sealed to it (X25519 with XSalsa20-Poly1305: NaCl's box, from a key that is used once) only its owner reads.
Certificates for TLS are another matter: ``notary``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey
from nacl.signing import SigningKey, VerifyKey

from gary.errors import GaryError
from gary.identity import NODE_ID_SIZE_BYTES, NodeId

SEED_SIZE_BYTES = 32
PUBLIC_SIZE_BYTES = 32
SIGNATURE_SIZE_BYTES = 64
SEAL_SIZE_BYTES = PUBLIC_SIZE_BYTES + Box.NONCE_SIZE + 16
"""What a sealed message is longer than the message."""


class BadSeal(GaryError):
    """The peer's mistake: bytes that were not sealed to this key, or were changed on the way."""


class Channel:
    """What the owners of two key pairs share: each opens what the other sealed, and nobody else makes or reads it."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def seal(self, message: bytes, entropy: Callable[[int], bytes]) -> bytes:
        return bytes(self._box.encrypt(message, entropy(Box.NONCE_SIZE)))

    def open(self, sealed: bytes) -> bytes:
        """Raises ``BadSeal``."""
        try:
            return bytes(self._box.decrypt(sealed))
        except (CryptoError, ValueError, TypeError) as error:
            raise BadSeal("not sealed by the other end, or changed on the way") from error


class KeyPair:
    """``seed``: 32 secret bytes that are all of it. ``public`` is what others know it by."""

    def __init__(self, seed: bytes) -> None:
        self._signing = SigningKey(seed)
        self.public = bytes(self._signing.verify_key)

    def __repr__(self) -> str:
        return f"KeyPair({self.public.hex()[:8]})"

    def sign(self, message: bytes) -> bytes:
        """64 bytes that only the owner of this pair can make for ``message``."""
        return bytes(self._signing.sign(message).signature)

    def open(self, sealed: bytes) -> bytes:
        """What was sealed to this pair. Raises ``BadSeal``."""
        try:
            box = Box(self._signing.to_curve25519_private_key(), PublicKey(sealed[:PUBLIC_SIZE_BYTES]))
            return bytes(box.decrypt(sealed[PUBLIC_SIZE_BYTES:]))
        except (CryptoError, ValueError, TypeError) as error:
            raise BadSeal("not sealed to this key, or changed on the way") from error

    def channel(self, public: bytes) -> Channel:
        """What this pair shares with the owner of ``public``. Raises ``BadSeal`` for what is no key."""
        try:
            return Channel(Box(self._signing.to_curve25519_private_key(), _sealing_key(public)))
        except (CryptoError, ValueError, TypeError) as error:
            raise BadSeal("nothing can be sealed to what is no key") from error


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the owner of ``public`` has signed ``message`` so."""
    try:
        VerifyKey(public).verify(message, signature)
    except (CryptoError, ValueError, TypeError):
        return False
    return True


def seal(public: bytes, message: bytes, entropy: Callable[[int], bytes]) -> bytes:
    """``message`` for the owner of ``public`` alone, by nobody in particular. Raises ``BadSeal`` for what is no key."""
    once = PrivateKey(entropy(PrivateKey.SIZE))
    try:
        box = Box(once, _sealing_key(public))
    except (CryptoError, ValueError, TypeError) as error:
        raise BadSeal("nothing can be sealed to what is no key") from error
    return bytes(once.public_key) + bytes(box.encrypt(message, entropy(Box.NONCE_SIZE)))


def _sealing_key(public: bytes) -> PublicKey:
    return VerifyKey(public).to_curve25519_public_key()


def node_id_of(public: bytes) -> NodeId:
    """The id of the node that owns ``public``: a hash, so that nobody else can have it."""
    return hashlib.sha256(public).digest()[:NODE_ID_SIZE_BYTES].hex()
