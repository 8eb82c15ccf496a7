"""Who gets a document and whose word counts in it: members among themselves, and a stranger among them.

``X`` is a node of the cluster that guessed the deployment's id, and says whatever it likes.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from crdt import MessageLimits
from crdt.messages import Heads, HeadsPurpose, Push, PushPurpose, decode_message
from gary.acquaintance import digest, proof_of_instance, proofs
from gary.deployment import FORGET_AFTER_S
from gary.host import Change
from gary.identity import Generation
from gary.messages import (
    Acceptance,
    Acquaintance,
    Behind,
    Dismissed,
    Gone,
    Invitation,
    Message,
    Orphans,
    Released,
    Snapshot,
    Sync,
)
from gary.replication import COMPARE_S, Replication
from gary.state import Role
from gary.trust.credentials import WATCHWORD_SIZE_BYTES
from tests.gary.facts import G1, INSTANCE, NODES, A, B, C, D, service, spec
from tests.gary.members import ID, Member, group, is_level, later, talk

X = NODES[7]
KEY = b"k" * 32
_numbers = itertools.count(100)
TELLING = (Sync, Snapshot, Invitation)
"""The messages that a document travels in."""


def stranger() -> Member:
    """A node with a document of its own making, under the same name."""
    made = Member(X, [A, B, C, X])
    made.write(lambda draft: draft.deploy(Generation("forged", 99 << 16, X), spec(service(image="evil"))))
    made.write(lambda draft: draft.stay(X))
    made.sent.clear()
    return made


def heads_of(member: Member, purpose: HeadsPurpose = HeadsPurpose.PROBE) -> bytes:
    """What a member says of what it knows."""
    return Heads(purpose, member.document.replica.heads(), ()).encode()


def is_acknowledgement(message: Message) -> bool:
    told = decode_message(message.body, MessageLimits()) if isinstance(message, Sync) else None
    return isinstance(told, Heads) and told.purpose is HeadsPurpose.ACKNOWLEDGE


def forgeries() -> dict[str, Message]:
    evil = stranger()
    changes = evil.document.replica.changes_since(())
    snapshot = evil.document.replica.save()
    return {
        "heads": Sync(ID, 0, heads_of(evil)),
        "changes": Sync(ID, 0, Push(PushPurpose.PUBLISH, tuple(changes)).encode()),
        "changes of a later epoch": Sync(ID, 1, Push(PushPurpose.REPAIR, tuple(changes)).encode()),
        "a question for the document": Behind(ID, 0),
        "a later document": Snapshot(ID, 1, snapshot),
        "an invitation": Invitation(1, ID, ("web/1",), b""),
        "an invitation with a document": Invitation(1, ID, ("web/1",), snapshot),
        "an acceptance": Acceptance(1, ID, ("web/1",), ()),
        "a removal": Gone(ID, (INSTANCE, digest("forged"), digest(INSTANCE))),
        "a removal that another has shown": Gone(ID, (digest(INSTANCE),), (proof_of_instance(INSTANCE, B, A),)),
        "a dismissal": Dismissed(ID, 9, 2**40),
        "orphans": Orphans(ID, ("web/1", "web/9"), proofs(evil.document.state, X, A)),
        "an acquaintance": Acquaintance(ID, proofs(evil.document.state, X, A), asks=True),
    }


@pytest.mark.parametrize("forgery", forgeries())
def test_whatever_a_stranger_says_it_gets_nothing_and_nothing_changes(forgery: str) -> None:
    members = group(A, B, C)
    member, message = members[A], forgeries()[forgery]
    member.present = [A, B, C, X]
    heads, state = member.document.replica.heads(), member.document.state
    written = len(member.disk)
    for _ in range(3):
        member.hear(X, message)
    member.flush()
    assert member.document.replica.heads() == heads
    assert member.document.state == state
    assert len(member.disk) == written
    assert not [sent for to, sent in member.sent if to == X and isinstance(sent, TELLING)]
    assert member.counted["strangers_refused"] == (0 if forgery == "an acceptance" else 3)
    assert member.parted == []
    later(members, COMPARE_S * 2)
    talk(members)
    assert not [sent for to, sent in member.sent if to == X and isinstance(sent, TELLING)]
    assert is_level(members)


def test_who_says_that_it_holds_the_deployment_has_to_show_it_and_is_told_of_once() -> None:
    members = group(A, B, C)
    evil = stranger()
    members[A].present = [A, B, C, X]
    for _ in range(5):
        later(members, COMPARE_S * 2)
        for to, message in members[A].sent:
            if to == X:
                evil.hear(A, message)
        for to, message in evil.sent:
            members[to].hear(X, message)
        evil.sent.clear()
        talk(members)
    assert X not in members[A].document.state.members
    assert A not in evil.document.state.members
    assert len([words for words in members[A].told if words.startswith("stranger:")]) == 1


def test_what_a_stranger_learns_from_a_proof_proves_nothing_to_others() -> None:
    members = group(A, B, C)
    members[A].present = [A, B, C, X]
    members[A].hear(X, Behind(ID, 0))
    ((_, asked),) = members[A].sent
    assert isinstance(asked, Acquaintance)
    for given in (asked.proofs, proofs(members[A].document.state, A, B)):
        members[B].hear(X, Acquaintance(ID, given, asks=True))
    members[B].hear(X, Behind(ID, 0))
    later(members, 2 * COMPARE_S)
    members[B].flush()
    assert not [message for to, message in members[B].sent if to == X and isinstance(message, TELLING)]


def test_a_member_that_left_gets_no_further_changes_and_is_told_that_it_is_known() -> None:
    members = group(A, B, C)
    members[C].deployment.leave(members[C].now)
    talk(members)
    assert members[A].document.state.members[C].role is Role.LEFT
    members[A].write(lambda draft: draft.deploy(replace(G1, clock=9 << 16), spec(service(image="secret"))))
    members[A].flush()
    assert C not in {to for to, message in members[A].sent if isinstance(message, TELLING)}
    members[A].sent.clear()
    for message in (Behind(ID, 0), Sync(ID, 0, heads_of(members[C]))):
        members[A].hear(C, message)
    members[A].flush()
    assert {type(message) for to, message in members[A].sent if to == C} == {Dismissed}


def test_who_leaves_goes_though_nobody_exchanges_with_it_any_more() -> None:
    """Its goodbye arrived; the acknowledgements got lost."""
    members = group(A, B, C)
    members[C].deployment.leave(members[C].now)
    talk(
        members,
        lose=lambda message: (
            isinstance(message, Sync) and message.body == heads_of(members[A], HeadsPurpose.ACKNOWLEDGE)
        ),
    )
    assert not members[C].parted
    later(members, 2.0)
    heard = talk(members)
    assert any(isinstance(message, Dismissed) for message in heard)
    later(members, 2.0)
    assert members[C].parted


def test_who_was_forgotten_and_returns_is_dismissed_and_keeps_nothing_of_the_document() -> None:
    members = group(A, B, C)
    members[C].present = [C]
    for node in (A, B):
        members[node].present, members[node].missing_since = [A, B], members[node].now - FORGET_AFTER_S
    later({node: members[node] for node in (A, B)}, 1.0)
    talk(members, lose=lambda message: False)
    assert members[A].document.state.members[C].role is Role.FORGOTTEN
    members[A].write(lambda draft: draft.deploy(replace(G1, clock=9 << 16), spec(service(image="secret"))))
    for member in members.values():
        member.present, member.missing_since = [A, B, C], member.now
        member.deployment.members_changed(C if member.node != C else A, Change.CAME, member.now)
    heard = talk(members)
    assert members[C].parted == [ID]
    assert any(isinstance(message, Dismissed) for message in heard)
    assert {len(s.services) and s.services["web"].image for s in [members[C].document.state]} == {"shop/web:1"}


def test_a_dismissal_that_is_older_than_an_invitation_is_not_followed() -> None:
    members = group(A, B, C)
    mine = members[C].document.facts["members", C]
    members[C].hear(A, Dismissed(ID, mine.epoch, mine.counter - 1))
    members[C].hear(A, Dismissed(ID, mine.epoch, mine.counter))
    assert members[C].parted == []
    later(members, COMPARE_S * 2)
    talk(members)
    members[C].hear(A, Dismissed(ID, mine.epoch, mine.counter))
    assert members[C].parted == []


def test_who_had_left_and_stayed_alone_is_a_member_when_the_others_are_there_again() -> None:
    """Its goodbye arrived, their acknowledgements did not: for all that it knew it was the last one."""
    members = group(A, B, C)
    alone = members[C]
    alone.deployment.leave(alone.now)
    talk(members, lose=is_acknowledgement)
    alone.present, members[A].present, members[B].present = [C], [A, B], [A, B]
    later(members, 60.0)
    talk(members)
    assert alone.document.state.members[C].role is Role.MEMBER
    assert members[A].document.state.members[C].role is Role.LEFT
    later_spec = replace(G1, clock=9 << 16, author=C)
    alone.write(lambda draft: draft.deploy(later_spec, spec(service(image="told"))))
    for member in members.values():
        member.present = [A, B, C]
    for _ in range(2):
        later(members, COMPARE_S * 1.25)
        talk(members)
    assert not alone.parted
    assert is_level(members)
    assert members[A].document.state.members[C].role is Role.MEMBER
    assert members[A].document.state.effective == later_spec


@pytest.mark.parametrize("is_forgotten", [False, True])
@pytest.mark.parametrize("is_same_operator", [True, False])
def test_who_was_a_member_and_deploys_that_name_anew_where_nobody_knew_of_it_loses_nothing(
    is_same_operator: bool, is_forgotten: bool
) -> None:
    members = group(A, B, C)
    members[A].write(lambda draft: draft.grant(INSTANCE, KEY, b"w" * WATCHWORD_SIZE_BYTES))
    talk(members)
    if is_forgotten:
        for _ in range(9):
            members[A].write(lambda draft: draft.judge(G1, f"web/{next(_numbers)}"))
        members[A].write(lambda draft: draft.forget(C))
    else:
        members[C].deployment.leave(members[C].now)
    talk(members)
    watchword = (b"w" if is_same_operator else b"x") * WATCHWORD_SIZE_BYTES
    anew = members[C] = Member(C, [A, B, C])
    generation = Generation("life2", 99 << 16, C)
    draft = anew.document.draft()
    draft.deploy(generation, spec(service(image="anew")))
    draft.grant(generation.instance, KEY, watchword)
    draft.stay(C)
    draft.invite(A)
    anew.deployment.write(draft, anew.now)
    assert members[A].document.facts["members", C] > anew.document.facts["members", C]
    for _ in range(3):
        later(members, COMPARE_S * 1.25)
        talk(members)
    effective = {member.document.state.effective for member in members.values()}
    assert (effective == {generation}) is is_same_operator
    assert bool(anew.parted) is is_same_operator
    assert members[A].document.state.members[C].role in (Role.LEFT, Role.FORGOTTEN)
    changes = [member.document.replica.change_count for member in members.values()]
    later(members, COMPARE_S * 1.25)
    talk(members)
    assert [member.document.replica.change_count for member in members.values()] == changes


def test_who_was_invited_while_another_was_away_shows_that_it_is_a_member() -> None:
    """All whom the one that returns knows are gone; the one that came meanwhile has the document."""
    members = group(A, B)
    away = members.pop(B)
    away.present = [B]
    members[A].write(lambda draft: draft.invite(C))
    members[A].flush()
    members[C] = Member(C, [A, C])
    members[C].hold(members[A].document.replica.save())
    members[C].hear(A, Invitation(1, ID, (), b""))
    members[A].present = [A, C]
    talk(members)
    del members[A]
    members[B] = away
    for member in members.values():
        member.present = [B, C]
        member.deployment.members_changed(B if member.node == C else C, Change.CAME, member.now)
    talk(members)
    later(members, COMPARE_S * 1.25)
    talk(members)
    assert is_level(members)
    assert members[B].document.state.holders == (A, B, C)


@pytest.mark.parametrize("is_same_operator", [True, False])
def test_two_that_founded_one_name_apart_merge_if_one_operator_did_it(is_same_operator: bool) -> None:
    members = {}
    for number, node in enumerate((A, B)):
        member = members[node] = Member(node, [A, B])
        watchword = bytes([0 if is_same_operator else number]) * WATCHWORD_SIZE_BYTES
        generation = Generation(f"life{number}", (number + 1) << 16, node)
        draft = member.document.draft()
        draft.deploy(generation, spec())
        draft.grant(generation.instance, KEY, watchword)
        draft.stay(node)
        member.deployment.write(draft, member.now)
        member.flush()
    for member in members.values():
        member.deployment.members_changed(A if member.node == B else B, Change.CAME, member.now)
    talk(members)
    later(members, COMPARE_S * 2)
    talk(members)
    assert is_level(members) is is_same_operator
    assert [len(member.document.state.holders) for member in members.values()] == [1 + is_same_operator] * 2
    assert any("another one of this name" in words for words in members[A].told) is not is_same_operator


def test_an_expelled_node_does_not_contradict_what_is_said_of_it_again_and_again() -> None:
    members = group(A, B)
    alone = members[A]
    alone.present, alone.is_expelled, alone.expelled = [A], True, (A,)
    alone.deployment.evaluate(alone.now)
    alone.flush()
    count = alone.document.replica.change_count
    for _ in range(5):
        later({A: alone}, 1.0)
        alone.flush()
    assert alone.document.replica.change_count == count


# Orphans: containers without a document


def test_orphans_are_answered_to_who_runs_containers_of_this_life_only() -> None:
    members = group(A, B, C)
    member = members[A]
    member.present = [A, B, C, D]
    member.hear(D, Orphans(ID, ("web/1",), (proof_of_instance("forged", D, A), proof_of_instance(INSTANCE, C, A))))
    assert member.sent == []
    assert member.counted["strangers_refused"] == 1
    member.hear(D, Orphans(ID, ("web/1",), (proof_of_instance(INSTANCE, D, A),)))
    ((to, answer),) = member.sent
    assert isinstance(answer, Released)
    assert (to, answer.slots) == (D, ("web/1",))
    assert proof_of_instance(INSTANCE, A, D) in answer.proofs


# Acceptances


def test_only_the_node_that_was_invited_vouches_for_the_document() -> None:
    host = group(A, B)[A]
    host.present = [A, B, C, X]
    replication = Replication(ID, host.document, host, frozenset, host.now, is_restored=False)
    done: list[tuple[str, ...]] = []
    replication.when_durable(host.document.replica.heads()[0], lambda: 2, done.append)
    replication.goes_with(7, C, 1)
    for id in range(10):
        replication.accepted(X, Acceptance(id, ID, (), ()))
        replication.accepted(B, Acceptance(id, ID, (), ()))
    replication.check_waiting()
    assert done == []
    replication.accepted(C, Acceptance(7, ID, (), ()))
    replication.check_waiting()
    assert done == [(A, C)]
