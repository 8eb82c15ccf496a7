"""Enrolment: what a restart begins with is written when it changes, and only then (rule 6)."""

from __future__ import annotations

from gary.boot import Boot
from gary.enrolment import Enrolment
from gary.storage import DeleteRecord, PutRecord, Table
from gary.trust.keys import KeyPair
from gossip import Peer
from tests.gary.facts import B, C

SECRET, OTHER = b"s" * 32, b"o" * 32


def enrolment() -> Enrolment:
    return Enrolment(Boot(KeyPair(b"k" * 32), 1, b"c" * 16, SECRET, peers=(Peer(B, "b:1"),)))


def test_names_have_other_ids_in_another_cluster() -> None:
    here = enrolment()
    before = here.id_of("shop")
    assert here.joined(b"c" * 16, SECRET) == []
    assert here.id_of("shop") == before
    writes = here.joined(b"d" * 16, OTHER)
    assert PutRecord(Table.NODE, "secret", OTHER) in writes
    assert here.id_of("shop") != before


def test_peers_are_written_when_they_change_and_seeing_nobody_forgets_nobody() -> None:
    here = enrolment()
    assert here.remember([Peer(B, "b:1")]) == []
    assert here.remember([]) == []
    moved = here.remember([Peer(B, "b:2"), Peer(C, "c:1")])
    assert moved == [PutRecord(Table.PEER, B, b"b:2"), PutRecord(Table.PEER, C, b"c:1")]
    assert here.remember([Peer(C, "c:1")]) == [DeleteRecord(Table.PEER, B)]
    assert DeleteRecord(Table.PEER, C) in here.left(is_expelled=False)


def test_who_this_host_was_before_is_written_once_and_its_containers_are_looked_after() -> None:
    here = enrolment()
    assert list(here.nodes) == [here.node]
    assert here.recognise(B) == [PutRecord(Table.NODE, "ids", f"{here.node} {B}".encode())]
    assert here.recognise(B) == []
    assert list(here.nodes) == [here.node, B]
