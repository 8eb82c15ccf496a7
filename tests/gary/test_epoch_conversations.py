"""What members say to each other to get to one epoch: loss, repetition, slow disks, liars. No network, no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gary.deployment import Deployment
from gary.epochs import EPOCHS_AHEAD_MAX, taken_along
from gary.identity import NodeId
from gary.messages import Acquaintance, Behind, Invitation, Message, Snapshot, Sync
from gary.replication import ASK_AGAIN_S
from gary.state import PromiseState, Role
from gary.storage import AppendChanges, PutSnapshot
from tests.gary.facts import G1, A, B, C, D
from tests.gary.members import ID, Member, epochs, group, is_level, later, talk


def test_one_begins_the_others_follow_and_then_there_is_silence() -> None:
    members = group(A, B, C)
    members[B].fill()
    talk(members)
    later(members, 1.0)
    heard = talk(members)
    assert epochs(members) == {1}
    assert is_level(members)
    assert sum(member.counted["epochs_begun"] for member in members.values()) == 1
    assert sum(isinstance(message, Snapshot) for message in heard) == 2
    for _ in range(5):
        later(members, 30.0)
        assert not [message for message in talk(members) if not isinstance(message, Sync)]
    assert epochs(members) == {1}


def test_a_lone_survivor_begins_epochs_and_the_others_find_them_when_they_return() -> None:
    members = group(A, B, C)
    alone = members[C]
    alone.present = [C]
    for _ in range(4):
        alone.fill()
        alone.flush()
        alone.deployment.evaluate(alone.now)
    assert alone.document.epoch == 4
    alone.present = [A, B, C]
    talk(members)
    later(members, 30.0)
    talk(members)
    later(members, 30.0)
    talk(members)
    assert epochs(members) == {4}
    assert is_level(members)


@pytest.mark.parametrize("lost", [Behind, Snapshot, Sync])
def test_a_message_that_is_lost_is_made_up_for(lost: type[Message]) -> None:
    members = group(A, B, C)
    members[B].fill()
    talk(members)
    later(members, 1.0)
    talk(members, lose=lambda message: isinstance(message, lost))
    assert epochs(members) == {0, 1}
    for _ in range(3):
        later(members, 30.0 if lost is Sync else ASK_AGAIN_S)
        talk(members)
    assert epochs(members) == {1}
    assert is_level(members)


def test_messages_that_come_twice_and_late_change_nothing() -> None:
    members = group(A, B, C)
    members[B].fill()
    heard = talk(members)
    later(members, 1.0)
    heard += talk(members)
    state = members[A].document.state
    for message in [*reversed(heard), *heard]:
        for member in members.values():
            for sender in members:
                if sender != member.node:
                    member.hear(sender, message)
        talk(members)
    later(members, 30.0)
    talk(members)
    assert epochs(members) == {1}
    assert is_level(members)
    assert members[A].document.state == state


def test_an_epoch_is_told_of_when_it_is_durable_and_not_before() -> None:
    members = group(A, B, C)
    members[B].fill()
    talk(members)
    later(members, 1.0)
    (beginner,) = [member for member in members.values() if member.document.epoch == 1]
    others = [member for member in members.values() if member is not beginner]
    beginner.has_disk = False
    beginner.hear(others[0].node, Behind(ID, 0))
    talk(members)
    assert beginner.sent == []
    assert {member.document.epoch for member in others} == {0}
    beginner.has_disk = True
    talk(members)
    assert isinstance(beginner.disk[-1] if len(beginner.disk) else None, PutSnapshot | AppendChanges)
    assert epochs(members) == {1}
    snapshots = [write for write in beginner.disk if isinstance(write, PutSnapshot)]
    assert beginner.open_document(snapshots[-1].snapshot, 1).epoch == 1


def test_who_waits_for_a_change_to_be_durable_hears_of_it_across_epochs() -> None:
    members = group(A, B, C)
    members[A].changes_per_epoch = members[C].changes_per_epoch = 10_000
    members[B].present = [B]
    change = members[A].write(lambda draft: draft.judge(G1, "web/1"))
    done: list[tuple[NodeId, ...]] = []
    members[A].deployment.when_durable(change, lambda: 2, done.append)
    members[A].sent.clear()
    members[A].flush()
    members[A].sent.clear()
    members[B].fill()
    members[B].flush()
    members[B].deployment.evaluate(members[B].now)
    assert members[B].document.epoch == 1
    members[B].present = [A, B, C]
    assert done == []
    later(members, 25.0)
    talk(members)
    later(members, 25.0)
    talk(members)
    assert members[A].document.epoch == 1
    assert [A in nodes and len(nodes) >= 2 for nodes in done] == [True]
    assert members[B].document.state.verdicts == {(G1, A, "web/1")}


def test_who_leaves_while_an_epoch_begins_waits_until_its_leaving_is_known_there() -> None:
    members = group(A, B, C)
    leaving, others = members[A], {node: members[node] for node in (B, C)}
    withdrawn = replace(leaving.keeps, state=PromiseState.WITHDRAWN)
    leaving.write(lambda draft: draft.promise(withdrawn))
    leaving.deployment.leave(leaving.now)
    leaving.flush()
    leaving.sent.clear()
    members[B].fill()
    talk(others)
    later(others, 1.0)
    talk(others)
    assert epochs(others) == {1}
    leaving.deployment.evaluate(leaving.now)
    assert leaving.parted == []
    for _ in range(3):
        later(members, 2.0)
        talk(members)
    later(members, 2.0)
    assert ID in leaving.parted
    assert all(member.document.state.members[A].role is Role.LEFT for member in others.values())
    assert all(member.document.state.promises_of(A) == () for member in others.values())


def poisoned(member: Member, epoch: int) -> bytes:
    """A document of ``epoch`` in which somebody promises for somebody else."""
    document = member.blank_document()
    document.commit_all(taken_along(member.document, document))
    document.replica.put({("promises", f"{C}/web/1"): b"\x90"})
    assert document.epoch == epoch
    return document.replica.save()


def test_a_document_that_cannot_be_is_refused_and_counted_and_the_present_one_stands() -> None:
    members = group(A, B, C)
    state, heads = members[A].document.state, members[A].document.replica.heads()
    honest = members[B].blank_document()
    honest.commit_all(taken_along(members[B].document, honest))
    save = honest.replica.save()
    other = Member(B, [A, B])
    other.write(lambda draft: draft.begin(1))
    bad = [
        Snapshot(ID, 1, b""),
        Snapshot(ID, 1, b"\x85oJ\x83 nonsense"),
        Snapshot(ID, 1, save[:-5]),
        Snapshot(ID, 2, save),
        Snapshot(ID, 1, members[B].document.replica.save()),
        Snapshot(ID, 1, poisoned(members[B], 1)),
        Snapshot(ID, 1, other.document.replica.save()),
        Snapshot(ID, 2**62, save),
        Snapshot(ID, EPOCHS_AHEAD_MAX + 1, save),
    ]
    for message in bad:
        members[A].hear(B, message)
    members[A].hear(D, Snapshot(ID, 1, save))
    assert members[A].counted["epochs_refused"] == len(bad)
    assert members[A].counted["strangers_refused"] == 1
    assert members[A].document.replica.heads() == heads
    assert members[A].document.state == state
    members[A].hear(B, Snapshot(ID, 1, save))
    assert members[A].document.epoch == 1


def test_a_peer_that_boasts_of_a_far_epoch_is_not_even_asked() -> None:
    members = group(A, B, C)
    for epoch in (EPOCHS_AHEAD_MAX + 1, 2**60, 2**63 - 1):
        members[A].hear(B, Sync(ID, epoch, b""))
    assert members[A].sent == []
    assert members[A].counted["epochs_refused"] == 3
    members[B].fill()
    talk(members)
    later(members, 1.0)
    talk(members)
    assert epochs(members) == {1}


def test_a_peer_that_boasts_all_the_time_is_asked_now_and_then() -> None:
    members = group(A, B, C)
    for _ in range(1000):
        members[A].hear(B, Sync(ID, 1, b""))
    assert sum(isinstance(message, Behind) for _, message in members[A].sent) == 1


def test_a_node_that_is_no_member_gets_nothing() -> None:
    members = group(A, B, C)
    members[B].fill()
    talk(members)
    later(members, 1.0)
    talk(members)
    for message in (Behind(ID, 0), Sync(ID, 0, b""), Sync(ID, 9, b"")):
        members[A].hear(D, message)
    members[A].flush()
    assert [type(message) for _, message in members[A].sent] == [Acquaintance]
    assert members[A].counted["strangers_refused"] == 3


def test_who_asks_often_while_the_disk_is_slow_gets_one_answer() -> None:
    members = group(A, B, C)
    members[B].fill()
    talk(members)
    later(members, 1.0)
    talk(members)
    members[A].has_disk = False
    members[A].write(lambda draft: draft.judge(G1, "web/9"))
    for _ in range(50):
        members[A].hear(B, Behind(ID, 0))
    assert members[A].sent == []
    members[A].flush()
    assert sum(isinstance(message, Snapshot) for _, message in members[A].sent) == 1


def test_an_invitation_with_the_former_document_leads_to_the_present_one() -> None:
    members = group(A, B)
    invited = members[A].document.draft()
    invited.invite(C)
    members[A].deployment.write(invited, members[A].now)
    talk(members)
    former = members[A].document.replica.save()
    members[B].fill()
    talk(members)
    later(members, 1.0)
    talk(members)
    assert epochs(members) == {1}
    late = Member(C, [A, B, C])
    late.deployment = Deployment(ID, late.open_document(former, 0), late, late.now, is_restored=False)
    members[C] = late
    for member in members.values():
        member.present = [A, B, C]
    late.deployment.invited(A, Invitation(1, ID, (), b""), late.now)
    talk(members)
    later(members, ASK_AGAIN_S)
    talk(members)
    assert epochs(members) == {1}
    assert is_level(members)
    assert members[A].document.state.holders == (A, B, C)
