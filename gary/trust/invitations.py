"""The invitations that this node has issued. Only the issuer redeems one, so uses are exact even in a partition.

An invitation stays known for a while after its end, so that who comes late hears why. Pure: methods return the writes
that make the change durable; a use counts before the guest hears of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import msgpack

from gary.errors import GaryError
from gary.identity import NodeId, is_node_id
from gary.storage import DeleteRecord, PutRecord, Table, Write

OPEN_MAX = 256
REMEMBERED_S = 30 * 24 * 3600
USES_MAX = 10_000
_INVITATION = "invitation/"


class TooManyInvitations(GaryError):
    """The user's mistake: more invitations than anybody keeps in mind."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """``uses_max`` nodes may come until ``expires_s`` (seconds since 1970); those in ``admitted`` have. ``vouches``:
    they may get the root's secret half.
    """

    id: str
    uses_max: int
    expires_s: int
    vouches: bool
    admitted: tuple[NodeId, ...] = ()
    is_revoked: bool = False

    def why_not(self, node: NodeId, wall_s: float) -> str:
        """Why it does not let ``node`` in; empty if it does. Who was let in once may ask again: answers get lost."""
        if self.is_revoked:
            return "the invitation was revoked"
        if node in self.admitted:
            return ""
        if wall_s >= self.expires_s:
            return "the invitation has expired"
        if len(self.admitted) >= self.uses_max:
            return "the invitation is used up"
        return ""

    def is_open(self, wall_s: float) -> bool:
        return not self.is_revoked and wall_s < self.expires_s and len(self.admitted) < self.uses_max


class Invitations:
    """``records``: the table ``trust``; an unreadable invitation lets nobody in."""

    def __init__(self, records: Mapping[str, bytes]) -> None:
        read = [_read(name, raw) for name, raw in sorted(records.items()) if name.startswith(_INVITATION)]
        self._invitations = {invitation.id: invitation for invitation in read if invitation is not None}

    def __iter__(self) -> Iterator[Invitation]:
        """By the time at which they expire."""
        return iter(sorted(self._invitations.values(), key=lambda one: (one.expires_s, one.id)))

    def get(self, id: str) -> Invitation | None:
        return self._invitations.get(id)

    def issue(self, invitation: Invitation, wall_s: float) -> list[Write]:
        """Raises ``TooManyInvitations``."""
        long_ended = [one.id for one in self if wall_s >= one.expires_s + REMEMBERED_S]
        if sum(one.is_open(wall_s) for one in self) >= OPEN_MAX:
            raise TooManyInvitations(f"{OPEN_MAX} invitations are open already")
        for id in long_ended:
            del self._invitations[id]
        return [*(DeleteRecord(Table.TRUST, _INVITATION + id) for id in long_ended), self._put(invitation)]

    def admit(self, id: str, node: NodeId) -> list[Write]:
        """``node`` uses it; nothing to write if it did before."""
        invitation = self._invitations[id]
        if node in invitation.admitted:
            return []
        return [self._put(replace(invitation, admitted=(*invitation.admitted, node)))]

    def revoke(self, id: str) -> list[Write]:
        return [self._put(replace(self._invitations[id], is_revoked=True))]

    def forget_all(self) -> list[Write]:
        """This node goes to another cluster."""
        writes: list[Write] = [DeleteRecord(Table.TRUST, _INVITATION + id) for id in sorted(self._invitations)]
        self._invitations = {}
        return writes

    def _put(self, invitation: Invitation) -> Write:
        self._invitations[invitation.id] = invitation
        fields = [
            invitation.uses_max,
            invitation.expires_s,
            invitation.vouches,
            list(invitation.admitted),
            invitation.is_revoked,
        ]
        return PutRecord(Table.TRUST, _INVITATION + invitation.id, msgpack.packb(fields))


def _read(name: str, raw: bytes) -> Invitation | None:
    try:
        match msgpack.unpackb(raw):
            case [int(uses_max), int(expires_s), bool(vouches), list(admitted), bool(is_revoked)]:
                nodes = tuple(str(node) for node in admitted if is_node_id(node))
                return Invitation(name[len(_INVITATION) :], uses_max, expires_s, vouches, nodes, is_revoked)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return None
    return None
