"""Going into a cluster with an invitation: from the token to a certificate, before gossip hears of this node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gary.advertising import Settings
from gary.trust import host
from gary.trust.entry import Admittance, BadEntry, Rejection, apply, decode_answer, encode
from gary.trust.notary import Answer, Keys, MakeKeys
from gary.trust.statements import BadStatement
from gary.trust.tokens import Token
from gossip.transport import Credentials, Peer

Entered = Callable[[str], None]
"""With the address of the node that let this one in."""
Refused = Callable[[str], None]
Heard = Callable[[bytes | None, str], None]
"""An answer; without one, why there is none."""


class Host(host.Host, Protocol):
    """The node that wants in."""

    settings: Settings

    def knock(self, address: str, guest: str, credentials: Credentials, frame: bytes, heard: Heard) -> None:
        """Say ``frame`` at a door; ``heard(answer, reason)`` comes later, without an answer if there was none."""

    def take_over(
        self, issuer: Peer, tls_key: str, admittance: Admittance, entered: Callable[[], None], refused: Refused
    ) -> None:
        """Be a node of that cluster from now on: durably, and to whoever connects. Raises ``BadStatement``."""


@dataclass(frozen=True, slots=True)
class _Visit:
    token: Token
    keys: Keys
    application: bytes
    entered: Entered
    refused: Refused


class Entering:
    def __init__(self, host: Host) -> None:
        self._host = host

    def enter(self, token: Token, addresses: Sequence[str], entered: Entered, refused: Refused) -> None:
        """Ask at each of ``addresses`` in turn until somebody answers; then call one of the two."""
        host = self._host

        def made(answer: Answer) -> None:
            assert isinstance(answer, Keys)
            application = apply(host.key, answer.tls_public, host.settings.name, vouches=host.settings.vouches)
            self._knock(_Visit(token, answer, encode(application), entered, refused), addresses, "")

        host.consult(MakeKeys(token.guest_number), made, refused)

    def _knock(self, visit: _Visit, addresses: Sequence[str], before: str) -> None:
        if not addresses:
            visit.refused(before)
            return
        address, *others = addresses
        token = visit.token

        def heard(answer: bytes | None, reason: str) -> None:
            if answer is None:
                self._knock(visit, others, f"{before}; {address}: {reason}" if before else f"{address}: {reason}")
            else:
                self._answered(visit, address, answer)

        self._host.knock(address, token.guest, token.credentials(visit.keys.guest_key), visit.application, heard)

    def _answered(self, visit: _Visit, address: str, answer: bytes) -> None:
        try:
            entry = decode_answer(answer, self._host.key)
            if isinstance(entry, Rejection):
                visit.refused(entry.reason)
            elif isinstance(entry, Admittance) and entry.cluster == visit.token.cluster:
                issuer, entered = Peer(visit.token.issuer, address), partial(visit.entered, address)
                self._host.take_over(issuer, visit.keys.tls_key, entry, entered, visit.refused)
            else:
                visit.refused("the node there answered with something else than was asked for")
        except (BadEntry, BadStatement) as error:
            visit.refused(f"the answer cannot be used: {error}")
