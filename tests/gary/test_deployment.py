"""One member of a deployment: what it starts, stops and says, and what has to be on its disk before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gary.acquaintance import digest, proofs
from gary.calling import Waits
from gary.deployment import GIVE_AGAIN_S, UNHEARD_S, Deployment
from gary.host import Change
from gary.identity import NodeId, Slot
from gary.messages import CallForVolunteers, Gone, Invitation, Offer, Orphans, Released, Snapshot, Without
from gary.replication import AWAITED_COMPARE_S, COMPARE_S
from gary.runtime.base import Container, ContainerState, Labels
from gary.spec import Mode, fingerprint
from gary.state import PromiseState
from tests.gary.facts import G1, G2, G3, A, B, C, D, promise, room, service, spec
from tests.gary.members import ID, Member, group, later, talk


def begin_anew(member: Member, snapshot: bytes) -> Member:
    """The same node with nothing on its disk, given a document that a fellow has."""
    anew = Member(member.node, member.present, has_engine=True)
    anew.deployment = Deployment(ID, anew.open_document(snapshot), anew, anew.now, is_restored=False)
    return anew


def container(member: Member, slot: Slot, state: ContainerState = ContainerState.RUNNING) -> Container:
    labels = Labels(ID, slot, str(G1), fingerprint(service()), member.node)
    return Container(f"c-{slot}", slot, labels, state)


def started(member: Member) -> list[Slot]:
    return [request.labels.slot for request in member.started]


def stopped(member: Member) -> list[Slot]:
    return [container.labels.slot for container in member.stopped]


# Durable before told, and before done


def test_a_slot_that_a_node_claims_is_started_when_the_claim_is_on_its_disk() -> None:
    members = group(A, B)
    members[A].write(lambda draft: draft.deploy(G2, spec(service(replicas=3), resilience=1)))
    talk(members)
    members[A].has_engine = True
    members[A].here = [container(members[A], "web/1")]
    members[A].deployment.invited(B, Invitation(1, ID, ("web/3",), b""), members[A].now)
    members[A].deployment.evaluate(members[A].now)
    assert started(members[A]) == []
    members[A].flush()
    members[A].deployment.evaluate(members[A].now)
    assert started(members[A]) == ["web/3"]


def test_a_promise_that_comes_with_an_invitation_is_kept_when_the_document_is_on_the_disk() -> None:
    members = group(A, B)
    anew = begin_anew(members[A], members[B].document.replica.save())
    anew.deployment.save(anew.now)
    anew.deployment.invited(B, Invitation(1, ID, (), b""), anew.now)
    anew.deployment.evaluate(anew.now)
    assert started(anew) == []
    anew.flush()
    anew.deployment.evaluate(anew.now)
    assert started(anew) == ["web/1"]


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_promise_of_its_own_that_a_node_hears_of_from_a_fellow_is_kept_when_it_is_on_its_disk(epoch: int) -> None:
    members = group(A, B)
    members[A].write(lambda draft: draft.deploy(G2, spec(service(replicas=3), resilience=1)))
    talk(members)
    old = members[A].document.replica.save()
    members[A].deployment.invited(B, Invitation(1, ID, ("web/3",), b""), members[A].now)
    talk(members)
    go_on_alone(members[B], epoch)
    anew = members[A] = begin_anew(members[A], old)
    anew.deployment.save(anew.now)
    anew.flush()
    anew.deployment.evaluate(anew.now)
    assert started(anew) == ["web/1"]
    anew.has_disk = False
    anew.deployment.compare(anew.now)
    talk(members)
    assert anew.document.epoch == epoch
    assert [promise.slot for promise in anew.document.state.promises_of(A)] == ["web/1", "web/3"]
    assert started(anew) == ["web/1"]
    anew.flush()
    anew.deployment.evaluate(anew.now)
    assert started(anew) == ["web/1", "web/3"]


def go_on_alone(member: Member, epoch: int) -> None:
    present, member.present = member.present, [member.node]
    while member.document.epoch < epoch:
        member.fill()
        member.flush()
        member.deployment.evaluate(member.now)
    member.present = present


def test_who_waits_for_fellows_hears_of_them_soon_though_all_they_said_was_lost() -> None:
    members = group(A, B)
    done: list[tuple[NodeId, ...]] = []
    change = members[A].write(lambda draft: draft.judge(G1, "web/1"))
    members[A].deployment.when_durable(change, lambda: 2, done.append)
    members[A].deployment.evaluate(members[A].now)
    talk(members, lose=lambda message: True)
    for _ in range(3):
        later(members, AWAITED_COMPARE_S)
        assert done == []
        talk(members, lose=lambda message: True)
    later(members, 1.25 * AWAITED_COMPARE_S)
    talk(members)
    later(members, 0.0)
    assert done == [(A, B)]


# A disk that takes nothing


def test_a_member_that_cannot_write_looks_for_nobody_and_does_when_it_can() -> None:
    member = group(A)[A]
    member.present = [A, B]
    member.write(lambda draft: draft.deploy(G2, spec(service(replicas=3), resilience=1)))
    member.fail()
    for _ in range(10):
        member.now += 10.0
        member.deployment.evaluate(member.now)
    assert not [message for _, message in member.sent if isinstance(message, CallForVolunteers | Invitation)]
    member.deployment.rewrite()
    member.flush()
    member.deployment.evaluate(member.now)
    assert isinstance(member.sent[-1][1], CallForVolunteers)


def test_what_fellows_say_to_a_member_that_cannot_write_piles_up_nowhere() -> None:
    members = group(A, B)
    members[A].write(lambda draft: draft.judge(G1, "web/1"))
    members[A].fail()
    for _ in range(50):
        members[B].deployment.compare(members[B].now)
        members[A].deployment.compare(members[A].now)
        talk({B: members[B]})
        later(members, COMPARE_S)
    assert members[A].deployment.unwritten == 1
    members[A].deployment.rewrite()
    members[A].flush()
    later(members, 2 * COMPARE_S)
    talk(members)
    assert members[B].document.state == members[A].document.state


# Invitations


def call(member: Member, answers: Sequence[NodeId]) -> None:
    """It asks for volunteers, ``answers`` have room, and it chooses among them."""
    member.deployment.evaluate(member.now)
    while not (calls := [message for _, message in member.sent if isinstance(message, CallForVolunteers)]):
        assert member.now < 110.0  # Another member, if there is one, has the first word.
        member.now += 1.0
        member.flush()
        member.deployment.evaluate(member.now)
    asked = calls[0]
    member.sent.clear()
    for node in answers:
        member.deployment.calling.offer(node, Offer(asked.id, ID, room(node)))
    member.now += Waits().answers_wait_s
    member.deployment.evaluate(member.now)


def invited(member: Member) -> dict[NodeId, tuple[Slot, ...]]:
    return {to: message.slots for to, message in member.sent if isinstance(message, Invitation)}


def test_who_is_chosen_is_invited_when_that_is_durable() -> None:
    member = group(A)[A]
    member.present = [A, B, C]
    member.write(lambda draft: draft.deploy(G2, spec(service(replicas=3), resilience=1)))
    member.flush()
    call(member, [B, C])
    assert invited(member) == {}
    member.flush()
    assert sorted(invited(member).values()) == [("web/2",), ("web/3",)]


def test_nobody_is_invited_for_what_is_not_wanted_any_more_when_the_choice_is_durable() -> None:
    member = group(A)[A]
    member.present = [A, B, C]
    member.write(lambda draft: draft.deploy(G2, spec(service(replicas=3), resilience=1)))
    member.flush()
    call(member, [B, C])
    member.write(lambda draft: draft.deploy(G3, spec(service(replicas=2), resilience=1)))
    member.flush()
    assert list(invited(member).values()) == [("web/2",)]


def test_nobody_is_invited_with_the_document_of_an_epoch_that_is_over() -> None:
    members = group(A, B)
    members[A].present = [A, B, C]
    members[A].write(lambda draft: draft.deploy(G2, spec(service(replicas=3), resilience=1)))
    members[A].flush()
    call(members[A], [B, C])
    go_on_alone(members[B], 1)
    members[A].hear(B, Snapshot(ID, 1, members[B].document.replica.save()))
    assert members[A].document.epoch == 1
    members[A].flush()
    assert invited(members[A]) == {}


# Containers that no promise speaks of


@pytest.mark.parametrize("state", [ContainerState.RUNNING, ContainerState.EXITED])
def test_a_container_on_a_slot_beyond_the_replicas_is_stopped_though_nobody_keeps_the_slot(
    state: ContainerState,
) -> None:
    member = group(A)[A]
    member.has_engine = True
    member.here = [container(member, "web/1"), container(member, "web/7", state)]
    member.deployment.evaluate(member.now)
    assert stopped(member) == ["web/7"]
    assert {promise.slot for promise in member.document.state.promises} == {"web/1"}


def test_a_container_that_still_runs_is_kept_when_whoever_had_its_slot_instead_is_gone() -> None:
    members = group(A, B)
    member = members[A]
    members[B].write(lambda draft: draft.promise(promise(B, "web/1", lamport=1)))
    member.write(lambda draft: draft.promise(replace(member.keeps, state=PromiseState.WITHDRAWN)))
    talk(members)
    member.present, member.missing_since = [A], member.now
    member.has_engine = True
    member.here = [container(member, "web/1")]
    member.deployment.evaluate(member.now)
    assert stopped(member) == []
    assert [promise.slot for promise in member.document.state.promises_of(A)] == ["web/1"]


def test_a_container_of_a_slot_that_was_handed_over_is_stopped_though_its_new_keeper_is_gone() -> None:
    member = group(A)[A]
    withdrawn = replace(member.keeps, state=PromiseState.WITHDRAWN)
    member.write(lambda draft: draft.promise(withdrawn))
    member.flush()
    member.has_engine, member.is_draining = True, True
    member.here = [container(member, "web/1")]
    member.deployment.evaluate(member.now)
    assert stopped(member) == ["web/1"]


def test_an_ended_container_on_a_slot_that_is_wanted_stays_while_nobody_keeps_the_slot() -> None:
    member = group(A)[A]
    member.write(lambda draft: draft.deploy(G2, spec(service(replicas=2), resilience=1)))
    member.has_engine = True
    member.here = [container(member, "web/1"), container(member, "web/2", ContainerState.EXITED)]
    member.deployment.evaluate(member.now)
    assert stopped(member) == []


def test_who_has_containers_and_no_document_hears_which_of_them_nobody_wants() -> None:
    member = group(A)[A]
    member.present = [A, B]
    member.write(lambda draft: draft.deploy(G2, spec(service(replicas=2), resilience=1)))
    member.flush()
    state = member.document.state
    asked = Orphans(ID, ("web/1", "web/2", "web/3"), proofs(state, B, A))
    member.deployment.orphans(B, asked, member.now)
    assert [message for _, message in member.sent if isinstance(message, Released)] == [
        Released(ID, ("web/1", "web/3"), proofs(state, A, B))
    ]
    member.flush()
    assert invited(member) == {B: ()}


# Who comes and who goes

OTHERS = [f"{number:032x}" for number in range(100, 110)]


def looks_anew(member: Member, node: NodeId, change: Change) -> bool:
    return member.deployment.members_changed(node, change, member.now)


@pytest.mark.parametrize("change", [Change.CAME, Change.WENT, Change.OFFERS])
def test_what_strangers_of_a_large_cluster_do_is_nothing_to_a_deployment_that_is_whole(change: Change) -> None:
    members = resilient_group()
    whole = members[B]
    whole.present = [*whole.present, *OTHERS]
    whole.deployment.evaluate(whole.now)
    assert not looks_anew(whole, OTHERS[0], change)
    assert looks_anew(whole, A, change)


def test_who_comes_or_offers_something_may_be_what_a_vacant_slot_has_waited_for() -> None:
    members = resilient_group()
    looking = members[A]
    looking.present = [*looking.present, *OTHERS]
    looking.write(lambda draft: draft.deploy(G3, spec(service(replicas=6), resilience=2)))
    talk(members)
    looking.deployment.evaluate(looking.now)
    assert [looks_anew(looking, OTHERS[0], change) for change in (Change.CAME, Change.OFFERS)] == [True, True]
    assert not looks_anew(looking, OTHERS[0], Change.WENT)


def test_what_anybody_does_counts_where_each_node_has_a_slot_and_where_nodes_are_few() -> None:
    everywhere, few = resilient_group()[A], resilient_group()[A]
    everywhere.present = [*everywhere.present, *OTHERS]
    everywhere.write(lambda draft: draft.deploy(G3, spec(service(mode=Mode.GLOBAL), resilience=2)))
    everywhere.flush()
    for member in (everywhere, few):
        assert [looks_anew(member, OTHERS[0], change) for change in (Change.CAME, Change.WENT)] == [True, True]


# Who holds nothing


def resilient_group() -> dict[NodeId, Member]:
    members = group(A, B, C)
    members[A].write(lambda draft: draft.deploy(G2, spec(service(replicas=1), resilience=2)))
    talk(members)
    return members


def test_a_member_that_says_that_it_holds_nothing_is_given_the_document() -> None:
    members = resilient_group()
    members[B].hear(C, Without(ID, has_left=False))
    (invitation,) = [message for to, message in members[B].sent if to == C and isinstance(message, Invitation)]
    assert invitation.slots == ()
    assert set(members[C].open_document(invitation.snapshot).replica.heads()) == set(
        members[B].document.replica.heads()
    )


def test_a_member_that_says_so_again_and_again_is_given_the_document_once_in_a_while() -> None:
    members = resilient_group()
    giver = members[B]

    def given() -> int:
        return sum(to == C and isinstance(message, Invitation) for to, message in giver.sent)

    for _ in range(100):
        giver.hear(C, Without(ID, has_left=False))
    assert (given(), giver.counted["given_again_refused"]) == (1, 99)
    giver.now += GIVE_AGAIN_S
    giver.hear(C, Without(ID, has_left=False))
    assert given() == 2


def test_who_is_no_member_and_shows_nothing_is_given_nothing() -> None:
    members = resilient_group()
    members[B].hear("f" * 32, Without(ID, has_left=False))
    assert members[B].sent == []


def test_who_has_left_is_not_given_the_document_again() -> None:
    members = resilient_group()
    members[B].hear(C, Without(ID, has_left=True))
    assert not [message for _, message in members[B].sent if isinstance(message, Invitation)]


def test_who_says_that_it_has_left_is_given_the_document_to_leave_again_if_nobody_ever_hears_of_it() -> None:
    members = resilient_group()
    giver = members[B]
    giver.hear(C, Without(ID, has_left=True))
    giver.now += UNHEARD_S - 1.0
    giver.hear(C, Without(ID, has_left=True))
    assert not [message for _, message in giver.sent if isinstance(message, Invitation)]
    giver.now += 1.0
    giver.hear(C, Without(ID, has_left=True))
    assert [to for to, message in giver.sent if isinstance(message, Invitation)] == [C]


@pytest.mark.parametrize(("promises", "given"), [(True, [D]), (False, [])])
def test_who_was_invited_and_has_forgotten_what_it_promised_is_given_the_document_again(
    promises: bool, given: list[NodeId]
) -> None:
    members = group(A, B, C, D)
    forgetful, giver = members[D], members[B]
    if not promises:
        forgetful.write(lambda draft: draft.promise(replace(forgetful.keeps, state=PromiseState.WITHDRAWN)))
    talk(members)
    giver.write(lambda draft: draft.forget(D))
    giver.write(lambda draft: draft.invite(D))
    assert bool(giver.deployment.state.promises_of(D)) is promises
    giver.flush()
    giver.sent.clear()
    giver.hear(D, Without(ID, has_left=False))
    assert not [message for _, message in giver.sent if isinstance(message, Invitation)]
    giver.now += UNHEARD_S
    giver.hear(D, Without(ID, has_left=False))
    assert [to for to, message in giver.sent if isinstance(message, Invitation)] == given


def test_a_member_that_knows_only_of_an_earlier_removal_is_given_the_document() -> None:
    members = resilient_group()
    members[B].hear(C, Gone(ID, (digest("an earlier instance"),), ()))
    assert [to for to, message in members[B].sent if isinstance(message, Invitation)] == [C]
    assert members[B].deployment.state.spec is not None


def test_who_leaves_does_not_wait_for_those_that_say_that_they_hold_nothing() -> None:
    members = resilient_group()
    leaving = members[C]
    leaving.write(lambda draft: draft.promise(replace(leaving.keeps, state=PromiseState.WITHDRAWN)))
    leaving.deployment.leave(leaving.now)
    leaving.flush()
    leaving.sent.clear()
    assert leaving.parted == []
    leaving.hear(B, Without(ID, has_left=False))
    assert not [message for _, message in leaving.sent if isinstance(message, Invitation)]
    members[A].deployment.evaluate(members[A].now)
    later({A: members[A], C: leaving}, COMPARE_S)
    talk({A: members[A], C: leaving})
    assert leaving.parted
