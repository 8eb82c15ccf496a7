"""The notary of a simulated cluster: it answers as the real one does, with words in place of certificates.

Nothing in a simulation checks certificates: the virtual network vouches for every sender.
"""

from __future__ import annotations

import random

from gary.trust.notary import (
    NUMBER_SIZE_BYTES,
    Answer,
    Certified,
    Certify,
    CertifyGuest,
    Examine,
    Found,
    Founded,
    GuestCertified,
    Keys,
    MakeKeys,
    Request,
    Succeed,
    Succeeded,
)


def answer(request: Request, rng: random.Random) -> Answer:
    """Never fails."""
    match request:
        case Found(root, node):
            return Founded(f"<{root}>", f"<key of {root}>", f"<key of {node}>", f"<{node} by <{root}>>")
        case MakeKeys(number):
            return Keys(f"<key {rng.getrandbits(32)}>", rng.randbytes(NUMBER_SIZE_BYTES), f"<key {number.hex()}>")
        case Certify(root_certificate, _, _, name):
            return Certified(f"<{name} by {root_certificate}>")
        case CertifyGuest(root_certificate, _, name):
            return GuestCertified(f"<{name} by {root_certificate}>", rng.randbytes(NUMBER_SIZE_BYTES))
        case Examine(_, certificate, _, _):
            return Certified(certificate)
        case Succeed(root_certificate, _, root):
            return Succeeded(f"<{root}>", f"<key of {root}>", f"<{root} by {root_certificate}>")
