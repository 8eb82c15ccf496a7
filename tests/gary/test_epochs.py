"""Epochs: what goes on in the next document, what does not, and that nobody could tell the difference."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import Replica
from gary.assignment import keepings
from gary.document import Document, Draft
from gary.epochs import EPOCHS_AHEAD_MAX, GONE_MAX, STEP_IN_MAX, changes_until, is_reachable, taken_along
from gary.facts import MAPS, Fact, encode_carried
from gary.identity import Generation, NodeId, rendezvous
from gary.permission import permit_in
from gary.spec import Partition
from gary.state import Promise, PromiseState, Role
from tests.gary.facts import G1, G2, INSTANCE, NODES, A, B, C, Copy, D, promise, service, spec, view

_numbers = itertools.count(1)


def blank(node: NodeId) -> Document:
    return Document(Replica(bytes.fromhex(node) + b"epoch" + next(_numbers).to_bytes(3, "big"), MAPS), node)


def begin(copy: Copy, slots: frozenset[str] = frozenset()) -> None:
    """``copy`` goes on in an epoch that it begins itself."""
    document = blank(copy.node)
    document.commit_all(taken_along(copy.document, document, slots))
    assert document.epoch == copy.document.epoch + 1
    copy.document = document


def follow(copy: Copy, leader: Copy, slots: frozenset[str] = frozenset()) -> None:
    """``copy`` goes on in the later epoch that ``leader`` is in."""
    document = blank(copy.node)
    hear(document, leader.document)
    document.commit_all(taken_along(copy.document, document, slots))
    copy.document = document


def hear(document: Document, other: Document) -> None:
    applied = document.replica.apply(other.replica.changes_since(()), permit_in(other.epoch))
    assert not applied.refused
    assert not applied.waiting


def meet(*copies: Copy) -> None:
    """All of them get to the latest epoch among them, and hear everything that the others say there."""
    leader = max(copies, key=lambda copy: copy.document.epoch)
    for copy in copies:
        if copy.document.epoch < leader.document.epoch:
            follow(copy, leader)
    for one, other in itertools.permutations(copies, 2):
        hear(one.document, other.document)


def write(copy: Copy, say: Callable[[Draft], None]) -> None:
    draft = copy.draft()
    say(draft)
    copy.write(draft)


def deployment(*nodes: NodeId, **fields: Any) -> list[Copy]:
    """``nodes`` are members; each keeps a slot."""
    copies = [Copy(node) for node in nodes]
    write(copies[0], lambda draft: draft.deploy(G1, spec(service(replicas=len(nodes), **fields))))
    for index, copy in enumerate(copies, 1):
        hear(copy.document, copies[0].document)

        def say(draft: Draft, node: NodeId = copy.node, index: int = index) -> None:
            draft.stay(copies[0].node)
            draft.promise(promise(node, f"web/{index}", lamport=index, once_healthy=True))

        write(copy, say)
    meet(*copies)
    return copies


# Who begins, and when


def test_members_begin_an_epoch_one_after_the_other_without_clocks() -> None:
    limits = [changes_until(4, node, NODES, 1000) for node in rendezvous("4", NODES)]
    assert limits == [8 + 1000 + 100 * rank for rank in range(8)]
    assert changes_until(4, A, [A], 1000) == 1001


def test_the_last_of_many_begins_at_twice_the_number() -> None:
    many = [f"{number:032x}" for number in range(128)]
    assert max(changes_until(0, node, many, 1000) for node in many) == 128 + 1000 + STEP_IN_MAX * 100


def test_an_epoch_is_never_due_because_all_have_just_entered_it() -> None:
    copies = deployment(*NODES)
    begin(copies[0])
    meet(*copies)
    assert copies[0].document.replica.change_count == len(NODES)
    assert all(changes_until(1, node, NODES, 1) > len(NODES) for node in NODES)


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_a_number_from_the_network_leads_only_so_far(epoch: int, present: int) -> None:
    assert is_reachable(epoch, present) == (0 < epoch - present <= EPOCHS_AHEAD_MAX)


# What goes on


def test_nothing_that_counts_changes_for_whoever_begins_and_whoever_follows() -> None:
    copies = deployment(A, B, C)
    write(copies[1], lambda draft: draft.judge(G1, "web/2"))
    write(copies[1], lambda draft: draft.call(D))
    meet(*copies)
    before = copies[0].state
    begin(copies[0])
    assert copies[0].document.epoch == 1
    assert replace(copies[0].state, calling={}) == replace(before, calling={})
    for copy in copies[1:]:
        follow(copy, copies[0])
        assert replace(copy.state, calling={}) == replace(before, calling={})
    meet(*copies)
    assert len({copy.document.replica.heads() for copy in copies}) == 1
    assert copies[2].state == copies[0].state
    assert copies[0].state.malformed == 0
    assert keepings(copies[0].state, view()) == keepings(before, view())


def test_the_history_is_dropped() -> None:
    one, *others = deployment(A, B, C)
    for number in range(300):
        said = promise(A, "web/1", state=PromiseState.FAILING, reason=f"exit code {number * 7919}")
        write(one, lambda draft, said=said: draft.promise(said))  # type: ignore[misc]
    meet(one, *others)
    size = len(one.document.replica.save())
    begin(one)
    meet(one, *others)
    assert one.document.replica.change_count == 3
    assert len(one.document.replica.save()) < size / 2


def test_epoch_after_epoch_a_document_says_the_same_and_grows_no_more() -> None:
    copies = deployment(A, B, C)
    before, sizes = copies[0].state, []
    for number in range(6):
        begin(copies[number % 3])
        meet(*copies)
        sizes.append(len(copies[0].document.replica.save()))
        assert copies[0].state == before
    assert copies[0].document.epoch == 6
    assert max(sizes) < sizes[0] + 100


def test_promises_of_a_node_that_is_away_are_kept_for_it() -> None:
    copies = deployment(A, B, C, partition=Partition.HOLD)
    before = keepings(copies[0].state, view(alive=(A, B)))
    assert before["web/3"].held
    for number in range(3):
        begin(copies[number % 2])
        meet(*copies[:2])
    assert keepings(copies[0].state, view(alive=(A, B))) == before
    write(copies[2], lambda draft: draft.promise(promise(C, "web/3", lamport=3, state=PromiseState.FAILING)))
    meet(*copies)
    assert copies[0].state.promise(C, "web/3") == promise(C, "web/3", lamport=3, state=PromiseState.FAILING)


def test_what_the_beginner_had_not_heard_is_brought_along_by_whoever_knows_it() -> None:
    copies = deployment(A, B, C)
    later = Generation(INSTANCE, G2.clock, C)
    write(copies[2], lambda draft: draft.deploy(later, spec(service(replicas=9))))
    write(copies[2], lambda draft: draft.judge(G1, "web/3"))
    write(copies[2], lambda draft: draft.promise(promise(C, "web/3", lamport=3, state=PromiseState.FAILING)))
    hear(copies[1].document, copies[2].document)
    begin(copies[0])
    meet(*copies[:2])  # C is dead from now on; B knows what it said.
    assert copies[0].state.effective == later
    assert copies[0].state.verdicts == {(G1, C, "web/3")}
    assert copies[0].state.promise(C, "web/3") == promise(C, "web/3", lamport=3, state=PromiseState.FAILING)


def test_a_removal_is_never_lost() -> None:
    copies = deployment(A, B, C)
    write(copies[2], lambda draft: draft.remove(INSTANCE))
    begin(copies[0])
    begin(copies[0])
    meet(*copies)
    assert all(copy.state.is_removed for copy in copies)


def test_a_node_brings_its_own_promises_over_any_number_of_epochs() -> None:
    copies = deployment(A, B, C)
    write(copies[2], lambda draft: draft.promise(promise(C, "web/9", lamport=9)))
    for _ in range(4):
        begin(copies[0])
        meet(*copies[:2])
    meet(*copies)
    assert all(copy.state.promise(C, "web/9") == promise(C, "web/9", lamport=9) for copy in copies)


def test_halves_that_began_different_epochs_lose_nothing_when_they_meet() -> None:
    copies = deployment(A, B, C, D)
    left, right = copies[:2], copies[2:]
    later = Generation(INSTANCE, G2.clock, D)
    write(left[0], lambda draft: draft.promise(promise(A, "web/7", lamport=7)))
    begin(left[0])
    begin(left[0])
    meet(*left)
    write(right[1], lambda draft: draft.deploy(later, spec(service(replicas=5))))
    begin(right[0])
    meet(*right)
    write(right[0], lambda draft: draft.promise(promise(C, "web/8", lamport=8)))
    write(right[1], lambda draft: draft.judge(later, "web/8"))
    meet(*copies)
    said = copies[0].state
    assert {p.slot for p in said.promises} == {"web/1", "web/2", "web/3", "web/4", "web/7", "web/8"}
    assert said.effective == later
    assert said.verdicts == {(later, D, "web/8")}
    assert all(copy.state == said for copy in copies)


# What does not


def test_a_withdrawn_promise_is_dropped_once_its_node_has_entered_an_epoch() -> None:
    copies = deployment(A, B, C)
    write(copies[1], lambda draft: draft.promise(promise(B, "web/2", lamport=2, state=PromiseState.WITHDRAWN)))
    meet(*copies)
    begin(copies[0])
    assert copies[0].state.promise(B, "web/2") is not None
    meet(*copies)
    assert copies[0].state.promise(B, "web/2") is None
    begin(copies[2])
    assert not [key for key in copies[2].document.replica.items("carried") if key.endswith(f"{B}/web/2")]


def test_old_news_of_a_withdrawn_promise_does_not_bring_it_back() -> None:
    copies = deployment(A, B, C)
    write(copies[1], lambda draft: draft.promise(promise(B, "web/2", lamport=2, state=PromiseState.WITHDRAWN)))
    meet(*copies[:2])
    for _ in range(3):
        begin(copies[0])
        meet(*copies[:2])
    assert copies[2].state.promise(B, "web/2") == promise(B, "web/2", lamport=2, once_healthy=True)
    begin(copies[2])
    begin(copies[2])
    begin(copies[2])
    meet(*copies)
    assert all(copy.state.promises_of(B) == () for copy in copies)


def test_what_was_withdrawn_is_remembered_while_its_container_is_there() -> None:
    copies = deployment(A, B, C)
    withdrawn = promise(B, "web/2", lamport=2, state=PromiseState.WITHDRAWN)
    write(copies[1], lambda draft: draft.promise(withdrawn))
    begin(copies[1], slots=frozenset({"web/2"}))
    assert copies[1].state.promise(B, "web/2") == withdrawn
    begin(copies[1])
    assert copies[1].state.promise(B, "web/2") is None


def test_a_node_that_left_stays_gone_and_may_come_back() -> None:
    copies = deployment(A, B, C)

    def leave(draft: Draft) -> None:
        draft.promise(promise(B, "web/2", lamport=2, state=PromiseState.WITHDRAWN))
        draft.leave()

    write(copies[1], leave)
    meet(*copies[:2])
    begin(copies[0])
    begin(copies[0])
    begin(copies[2])
    begin(copies[2])  # with old news, to the same epoch
    hear(copies[0].document, copies[2].document)
    assert copies[0].state.members[B].role is Role.LEFT
    assert [p for p in copies[0].state.promises if p.node == B] == []
    write(copies[0], lambda draft: draft.invite(B))
    again = Copy(B)
    hear(again.document, copies[0].document)
    assert again.state.promises_of(B) == ()

    def accept(draft: Draft) -> None:
        draft.stay(A)
        draft.promise(promise(B, "web/2", lamport=12))

    write(again, accept)
    meet(copies[0], copies[2], again)
    assert copies[2].state.promises_of(B) == (promise(B, "web/2", lamport=12),)


def test_a_node_whose_disk_was_restored_says_again_what_it_said_last() -> None:
    copies = deployment(A, B, C)
    backup = Copy(B)
    hear(backup.document, copies[1].document)
    write(copies[1], lambda draft: draft.promise(promise(B, "web/2", lamport=2, state=PromiseState.WITHDRAWN)))
    write(copies[1], lambda draft: draft.promise(promise(B, "web/5", lamport=5)))
    meet(*copies)
    for number in range(3):
        begin(copies[0])
        if number == 0:
            meet(*copies)  # B says last in epoch 1 what it keeps, and is away then.
        meet(copies[0], copies[2])
    meet(copies[0], copies[2], backup)
    assert backup.state.promises_of(B) == (promise(B, "web/5", lamport=5),)
    assert copies[0].state.promises_of(B) == backup.state.promises_of(B)


def test_a_node_that_lost_its_document_keeps_what_others_know_that_it_keeps() -> None:
    copies = deployment(A, B, C)
    begin(copies[0])
    fresh = Copy(B)
    hear(fresh.document, copies[0].document)
    write(fresh, lambda draft: draft.promise(promise(B, "web/4", lamport=4)))
    assert {p.slot for p in fresh.state.promises_of(B)} == {"web/2", "web/4"}
    assert fresh.state.members[B].role is Role.MEMBER


def test_promises_of_forgotten_nodes_end_and_return_with_them() -> None:
    copies = deployment(A, B, C)
    write(copies[0], lambda draft: draft.forget(C))
    begin(copies[0])
    meet(*copies[:2])
    begin(copies[0])
    meet(*copies[:2])
    assert copies[0].state.promises_of(C) == ()
    meet(*copies)
    assert copies[0].state.promises_of(C) == (promise(C, "web/3", lamport=3, once_healthy=True),)
    begin(copies[0])
    assert copies[0].state.promises_of(C) == (promise(C, "web/3", lamport=3, once_healthy=True),)


def test_who_was_forgotten_brings_no_old_news_of_others() -> None:
    copies = deployment(A, B, C)
    write(copies[2], lambda draft: draft.promise(promise(C, "web/6", lamport=6)))
    write(copies[1], lambda draft: draft.promise(promise(B, "web/2", lamport=2, state=PromiseState.FAILING)))
    hear(copies[2].document, copies[1].document)
    write(copies[0], lambda draft: draft.forget(C))
    begin(copies[0])
    follow(copies[2], copies[0])
    assert copies[2].state.promise(B, "web/2") == promise(B, "web/2", lamport=2, once_healthy=True)
    assert copies[2].state.promise(C, "web/6") is not None


def test_what_only_a_leaving_node_heard_of_one_that_died_is_kept() -> None:
    copies = deployment(A, B, C)
    write(copies[2], lambda draft: draft.leave())
    meet(*copies)
    write(copies[0], lambda draft: draft.promise(promise(A, "web/6", lamport=6)))
    hear(copies[2].document, copies[0].document)  # A is dead from now on.
    begin(copies[1])
    meet(copies[1], copies[2])
    assert copies[1].state.promise(A, "web/6") == promise(A, "web/6", lamport=6)


def test_who_left_and_forgot_it_with_its_disk_brings_no_old_news_of_others() -> None:
    copies = deployment(A, B, C)
    backup = Copy(C)
    hear(backup.document, copies[2].document)
    write(copies[2], lambda draft: draft.leave())
    meet(*copies)
    write(backup, lambda draft: draft.forget(B))
    begin(copies[0])
    meet(copies[0], backup)
    assert copies[0].state.members[B].role is Role.MEMBER


def test_of_the_nodes_that_are_gone_only_the_latest_are_remembered() -> None:
    copies = deployment(A, B)
    strangers = [f"{number:032x}" for number in range(1000, 1000 + GONE_MAX + 40)]
    for stranger in strangers:
        write(copies[0], lambda draft, node=stranger: draft.forget(node))  # type: ignore[misc]
    begin(copies[0])
    forgotten = {node for node, member in copies[0].state.members.items() if member.role is Role.FORGOTTEN}
    assert forgotten == set(strangers[-GONE_MAX:])
    assert copies[0].state.holders == (A, B)


def test_calls_and_releases_last_as_long_as_the_promise_that_they_are_about() -> None:
    copies = deployment(A, B, C)
    for missing in (B, D, ""):
        write(copies[0], lambda draft, missing=missing: draft.call(missing))  # type: ignore[misc]
    for slot in ("web/2", "web/3"):
        write(copies[0], lambda draft, slot=slot: draft.release(B, slot))  # type: ignore[misc]
    begin(copies[0])
    assert copies[0].state.calling == {B: A, "": A}
    assert copies[0].state.releases == {(B, "web/2")}


def test_who_was_granted_and_who_was_revoked_stays_so_in_every_epoch() -> None:
    copies = deployment(A, B, C)
    write(copies[0], lambda draft: draft.grant(INSTANCE, b"k" * 32, b"w" * 16))
    write(copies[0], lambda draft: draft.grant(INSTANCE, b"r" * 32, b"w" * 16))
    meet(*copies)
    write(copies[1], lambda draft: draft.revoke(INSTANCE, b"r" * 32))
    meet(*copies)
    for _ in range(3):
        begin(copies[0])
        meet(*copies)
        assert all(set(copy.state.operators) == {b"k" * 32} for copy in copies)
    write(copies[2], lambda draft: draft.revoke(INSTANCE, b"k" * 32))
    begin(copies[1])
    meet(*copies)
    assert all(copy.state.operators == {} for copy in copies)


# Bad input


@pytest.mark.parametrize(
    ("name", "key", "value", "reason"),
    [
        ("meta", "epoch", b"\x09", "a document is of one epoch"),
        ("carried", f"{B}/promises/{C}/web/3", encode_carried(Fact(1, 1, b"any")), "stated before it"),
        ("carried", f"{C}/promises/{C}/web/3", encode_carried(Fact(0, 1, b"any")), "says so itself"),
        ("breaks", C, b"\x09", "what it promised itself"),
    ],
)
def test_a_liar_writes_neither_an_epoch_nor_the_present_of_another(
    name: str, key: str, value: bytes, reason: str
) -> None:
    copies = deployment(A, B, C)
    begin(copies[0])
    meet(*copies)
    change = copies[1].write_raw(name, key, value)
    (refusal,) = copies[0].document.replica.apply([change], permit_in(1)).refused
    assert reason in refusal.reason


def test_no_one_s_hearsay_beats_the_word_of_a_node_that_has_entered_the_epoch() -> None:
    copies = deployment(A, B, C)
    begin(copies[0])
    meet(*copies)
    lie = encode_carried(Fact(0, 2**61, copies[2].document.replica.items("promises")[f"{C}/web/3"]))
    write(copies[2], lambda draft: draft.promise(promise(C, "web/3", lamport=3, state=PromiseState.WITHDRAWN)))
    copies[1].write_raw("carried", f"{B}/promises/{C}/web/3", lie)
    copies[1].write_raw("carried", f"{B}/promises/{C}/web/4", lie)
    meet(*copies)
    assert copies[0].state.promises_of(C) == ()


def test_what_claims_to_be_carried_from_the_present_is_counted_and_not_believed() -> None:
    copies = deployment(A, B, C)
    begin(copies[0])
    before = copies[0].state
    lie = encode_carried(Fact(1, 2**61, copies[0].document.facts["promises", f"{C}/web/3"].value))
    copies[0].write_raw("carried", f"{B}/promises/{C}/web/4", lie)
    assert copies[0].state == replace(before, malformed=1)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.just(A), st.text(max_size=6)),
            st.sampled_from([*MAPS, "x", ""]),
            st.sampled_from([B, f"{B}/web/1", str(G1), f"{G1}/{B}/web/1", "", "-"]),
            st.one_of(
                st.binary(max_size=12),
                st.builds(encode_carried, st.builds(Fact, *[st.integers(0, 3)] * 2, st.binary(max_size=9))),
            ),
        ),
        max_size=6,
    )
)
def test_any_bytes_that_are_carried_are_a_fact_or_counted_and_the_rest_stands(
    carried: list[tuple[str, str, str, bytes]],
) -> None:
    copies = deployment(A, B)
    begin(copies[0])
    for carrier, name, about, value in carried:
        copies[0].write_raw("carried", f"{carrier}/{name}/{about}", value)
    assert promise(A, "web/1", once_healthy=True) in copies[0].state.promises
    begin(copies[0])
    assert promise(A, "web/1", once_healthy=True) in copies[0].state.promises


# As without epochs


@dataclass
class Node:
    """One node in two worlds: ``copy`` goes from epoch to epoch, ``plain`` keeps its whole history."""

    copy: Copy
    plain: Copy
    is_gone: bool = False
    slots: dict[str, Promise] = field(default_factory=dict)

    def write(self, say: Callable[[Draft], None]) -> None:
        write(self.copy, say)
        write(self.plain, say)

    def meet(self, other: Node) -> None:
        meet(self.copy, other.copy)
        hear(self.plain.document, other.plain.document)
        hear(other.plain.document, self.plain.document)


STEPS = (
    "promise",
    "promise",
    "withdraw",
    "deploy",
    "remove",
    "judge",
    "begin",
    "begin",
    "leave",
    "meet",
    "meet",
    "meet",
)


@given(st.lists(st.tuples(st.sampled_from(STEPS), *[st.integers(0, 3)] * 3), max_size=40), st.sets(st.integers(0, 3)))
def test_whatever_happens_documents_say_in_the_end_what_they_would_without_epochs(
    steps: list[tuple[str, int, int, int]], dead: set[int]
) -> None:
    nodes = [Node(Copy(node), Copy(node)) for node in (A, B, C, D)]
    nodes[0].write(lambda draft: draft.deploy(G1, spec()))
    for node in nodes:
        node.meet(nodes[0])
        node.write(lambda draft: draft.stay(A))
        node.meet(nodes[0])
    for number, (step, index, other, slot) in enumerate(steps, 2):
        take(nodes, step, index, other, f"web/{slot}", number)
    living = [node for index, node in enumerate(nodes) if index not in dead] or nodes[:1]
    for _ in range(2):
        for one, another in itertools.permutations(living, 2):
            one.meet(another)
    epochs = {node.copy.document.epoch for node in living}
    assert len(epochs) == 1
    for node in living:
        said, plain = node.copy.state, node.plain.state
        assert (said.specs, said.removed, said.verdicts) == (plain.specs, plain.removed, plain.verdicts)
        assert said.holders == plain.holders
        for keeper in (A, B, C, D):
            assert said.promises_of(keeper) == plain.promises_of(keeper)
    for node in living:
        kept = () if node.is_gone else tuple(p for _, p in sorted(node.slots.items()))
        assert node.copy.state.promises_of(node.copy.node) == kept


def take(nodes: list[Node], step: str, index: int, other: int, slot: str, number: int) -> None:
    node = nodes[index]
    me = node.copy.node
    generation = Generation(INSTANCE, number << 16, me)
    if node.is_gone and step not in ("meet", "begin"):
        return
    match step:
        case "promise":
            given = promise(me, slot, lamport=number)
            node.slots[slot] = given
            node.write(lambda draft: draft.promise(given))
        case "withdraw" if slot in node.slots:
            given = replace(node.slots.pop(slot), state=PromiseState.WITHDRAWN)
            node.write(lambda draft: draft.promise(given))
        case "deploy":
            node.write(lambda draft: draft.deploy(generation, spec(service(replicas=number))))
        case "remove":
            node.write(lambda draft: draft.remove(f"life{other + 2}"))
        case "judge":
            node.write(lambda draft: draft.judge(G1, slot))
        case "leave" if index:
            withdrawn = [replace(p, state=PromiseState.WITHDRAWN) for p in node.slots.values()]
            node.slots.clear()
            node.is_gone = True
            for given in withdrawn:
                node.write(lambda draft, given=given: draft.promise(given))  # type: ignore[misc]
            node.write(lambda draft: draft.leave())
        case "begin" if not node.is_gone:
            begin(node.copy)
        case "meet" if other != index:
            node.meet(nodes[other])
