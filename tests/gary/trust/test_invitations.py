"""Invitations: how often each is good, how long, and that the disk remembers it."""

from __future__ import annotations

import pytest

from gary.storage import MemoryStorage, Table, Write
from gary.trust.invitations import OPEN_MAX, REMEMBERED_S, Invitation, Invitations, TooManyInvitations
from tests.gary.facts import A, B, C

ONE = Invitation("1" * 32, 2, 1000, vouches=True)


class Disk:
    def __init__(self) -> None:
        self._storage = MemoryStorage()

    def write(self, writes: list[Write]) -> None:
        self._storage.write(writes)

    def read(self) -> Invitations:
        return Invitations(self._storage.load().records[Table.TRUST])


def test_it_is_good_for_as_many_nodes_as_it_says_and_for_those_again() -> None:
    invitations = Invitations({})
    invitations.issue(ONE, 0.0)
    for node in (A, B, A):
        [kept] = invitations
        assert kept.why_not(node, 10.0) == ""
        invitations.admit(ONE.id, node)
    [kept] = invitations
    assert kept.why_not(C, 10.0) == "the invitation is used up"
    assert kept.why_not(B, 10.0) == ""
    assert not kept.is_open(10.0)


def test_it_ends_at_its_time_and_when_it_is_revoked() -> None:
    invitations = Invitations({})
    invitations.issue(ONE, 0.0)
    [kept] = invitations
    assert kept.why_not(A, 999.0) == ""
    assert "expired" in kept.why_not(A, 1000.0)
    invitations.admit(ONE.id, A)
    invitations.revoke(ONE.id)
    [kept] = invitations
    assert "revoked" in kept.why_not(A, 10.0)


def test_what_was_issued_used_and_revoked_is_on_the_disk() -> None:
    disk, invitations = Disk(), Invitations({})
    disk.write(invitations.issue(ONE, 0.0))
    assert list(disk.read()) == [ONE]
    disk.write(invitations.admit(ONE.id, A))
    assert invitations.admit(ONE.id, A) == []
    disk.write(invitations.revoke(ONE.id))
    assert list(disk.read()) == list(invitations)
    disk.write(invitations.forget_all())
    assert list(disk.read()) == []


def test_they_are_bounded_and_forgotten_a_month_after_their_end() -> None:
    disk, invitations = Disk(), Invitations({})
    for number in range(OPEN_MAX):
        disk.write(invitations.issue(Invitation(f"{number:032x}", 1, 1000, vouches=True), 0.0))
    with pytest.raises(TooManyInvitations):
        invitations.issue(ONE, 0.0)
    later = 1000.0 + REMEMBERED_S
    disk.write(invitations.issue(Invitation("f" * 32, 1, int(later) + 60, vouches=True), later))
    assert [one.id for one in disk.read()] == ["f" * 32]


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x90", b"\x95\x01\x02\x03\x04\x05"])
def test_an_unreadable_one_lets_nobody_in(raw: bytes) -> None:
    assert list(Invitations({"invitation/" + "1" * 32: raw})) == []
