"""Who keeps which slot, from any view; and that views which differ never lose a slot between them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.assignment import (
    View,
    Withdrawal,
    callers,
    is_believed_healthy,
    is_dispensable,
    keeping,
    keepings,
    live_promises,
    patience_s,
    reason_to_withdraw,
    relieved,
    resilience,
    wanted_slots,
    witnesses_needed,
)
from gary.identity import Claim, Generation, NodeId, Slot
from gary.spec import Mode, Partition, Spec
from gary.state import Membership, Promise, PromiseState, Role
from tests.gary.facts import G1, G2, NODES, A, B, C, Copy, D, E, members, merge_all, promise, service, spec, state, view

FAILING, STARTING, WITHDRAWN = PromiseState.FAILING, PromiseState.STARTING, PromiseState.WITHDRAWN
CROWD = NODES[:4]
TWO = spec(service(replicas=2))


# One view


def test_replicas_are_numbered_from_one_and_global_slots_are_nodes() -> None:
    both = spec(service("log", mode=Mode.GLOBAL, replicas=7), service("web", replicas=11))
    said = state(specs={G1: both})
    slots = wanted_slots(said, view(eligible={"log": (B, C)}))
    assert slots == (f"log/{B}", f"log/{C}", *(f"web/{number}" for number in range(1, 12)))


def test_a_slot_that_nobody_promised_is_needed() -> None:
    found = keepings(state(), view())
    assert list(found) == ["web/1"]
    assert found["web/1"].is_needed
    assert found["web/1"].lost == ()


def test_a_promise_of_a_node_that_is_away_makes_the_slot_needed_and_says_who_is_lost() -> None:
    found = keeping(state(promise(D), promise(E, lamport=2, state=WITHDRAWN)), view(), "web/1")
    assert found.is_needed
    assert found.lost == (D,)


def test_the_lower_claim_holds_and_health_does_not_reorder() -> None:
    said = state(promise(A, lamport=2), promise(B, lamport=1, state=FAILING))
    assert keeping(said, view(), "web/1").holder == said.promise(B, "web/1")


def test_the_higher_generation_holds_before_the_lower_claim() -> None:
    assert promise(B, lamport=9, generation=G2).precedence < promise(A, lamport=1).precedence


def test_a_live_node_that_was_forgotten_keeps_nothing_and_nobody_waits_for_it() -> None:
    struck_off = {**members(A, C), B: Membership(Role.FORGOTTEN, A)}
    said = state(promise(B), promise(C, "web/2"), specs={G1: TWO}, members=struck_off)
    found = keepings(said, view(alive=(A, B, C)))
    assert (found["web/1"].holder, found["web/1"].lost, found["web/1"].is_needed) == (None, (), True)
    assert found["web/2"].holder == promise(C, "web/2")
    again = replace(said, members=members(A, B, C))
    assert keepings(again, view(alive=(A, B, C)))["web/1"].holder == promise(B)


def test_a_reserved_slot_is_not_replaced_until_it_is_released_or_its_node_has_left() -> None:
    hold = {G1: spec(service(partition=Partition.HOLD))}
    holders = members(A, B, C, D)
    kept = state(promise(D), specs=hold, members=holders)
    assert keeping(kept, view(), "web/1").held
    assert not keeping(kept, view(), "web/1").is_needed
    assert keeping(kept, view(left=frozenset({D})), "web/1").is_needed
    assert keeping(replace(kept, releases=frozenset({(D, "web/1")})), view(), "web/1").is_needed
    forgotten = replace(kept, members={**holders, D: Membership(Role.FORGOTTEN, A)})
    assert keeping(forgotten, view(), "web/1").is_needed
    assert keeping(state(specs=hold), view(), "web/1").is_needed


def test_a_slot_that_failed_for_good_on_two_nodes_stays_where_it_is() -> None:
    yielding = promise(A, state=FAILING, yielding=True)
    once = state(yielding, verdicts=frozenset({(G1, A, "web/1")}))
    twice = replace(once, verdicts=once.verdicts | {(G1, B, "web/1")})
    assert keeping(once, view(), "web/1").is_needed
    assert not keeping(twice, view(), "web/1").is_needed
    other_slot = replace(once, verdicts=once.verdicts | {(G1, B, "web/2")})
    assert keeping(other_slot, view(), "web/1").is_needed


def test_an_old_epochs_word_is_no_evidence_of_health() -> None:
    assert is_believed_healthy(promise(B, epoch=1), view())
    assert not is_believed_healthy(promise(B, epoch=2), view())
    assert not is_believed_healthy(promise(D), view())


# Withdrawing


def test_a_slot_that_the_spec_does_not_want_is_given_up() -> None:
    gone, surplus = promise(A, "db/1"), promise(A, "web/2")
    assert reason_to_withdraw(state(gone), view(), gone) == Withdrawal("no longer wanted")
    assert reason_to_withdraw(state(surplus), view(), surplus) == Withdrawal("no longer wanted")


def test_the_loser_withdraws_when_the_winner_is_alive_and_healthy() -> None:
    winner, loser = promise(A, lamport=1), promise(B, lamport=2)
    said = state(winner, loser)
    assert reason_to_withdraw(said, view(B), loser) == Withdrawal("kept elsewhere", A)
    assert reason_to_withdraw(said, view(A), winner) is None


@pytest.mark.parametrize(
    "winner",
    [
        promise(D),
        promise(A, state=STARTING),
        promise(A, state=FAILING),
        promise(A, state=WITHDRAWN),
        promise(A, epoch=7),
        promise(A, yielding=True),
    ],
    ids=["away", "starting", "failing", "withdrawn", "of an earlier start", "yielding"],
)
def test_the_loser_stays_while_the_winner_does_not_surely_keep_the_slot(winner: Promise) -> None:
    loser = promise(B, lamport=2)
    assert reason_to_withdraw(state(winner, loser), view(B), loser) is None


def test_an_empty_view_is_no_reason_to_withdraw() -> None:
    loser = promise(B, lamport=2)
    assert reason_to_withdraw(state(promise(A), loser), view(B, alive=[]), loser) is None


def test_who_yields_leaves_the_slot_to_the_one_that_relieves_it() -> None:
    failing = promise(A, state=FAILING, yielding=True)
    leaving = promise(A, yielding=True)
    starting = promise(B, lamport=2, state=STARTING, instead_of=(A,))
    assert reason_to_withdraw(state(failing, starting), view(), failing) == Withdrawal("handed over", B)
    assert reason_to_withdraw(state(leaving, starting), view(), leaving) is None
    healthy = replace(starting, state=PromiseState.HEALTHY)
    assert reason_to_withdraw(state(leaving, healthy), view(), leaving) == Withdrawal("handed over", B)
    assert reason_to_withdraw(state(failing, healthy), view(B), healthy) is None
    assert keeping(state(failing, starting), view(), "web/1").holder == starting


def test_who_recovered_while_it_was_being_relieved_keeps_the_slot_alone() -> None:
    recovered = promise(A)
    relief = promise(B, lamport=2, instead_of=(A,))
    said = state(recovered, relief)
    assert reason_to_withdraw(said, view(A), recovered) is None
    assert reason_to_withdraw(said, view(B), relief) == Withdrawal("kept elsewhere", A)


def test_a_keeper_relieves_those_that_begin_to_yield_beside_it() -> None:
    yielding, keeper = promise(A, state=FAILING, yielding=True), promise(B, lamport=2)
    said = state(yielding, keeper)
    assert reason_to_withdraw(said, view(A), yielding) is None
    assert relieved(said, view(B), keeper) == (A,)
    assert relieved(said, view(A), yielding) == ()
    assert relieved(said, view(B, alive=[B]), keeper) == ()
    relieving = replace(keeper, instead_of=(A,))
    assert relieved(state(yielding, relieving), view(B), relieving) == (A,)
    assert reason_to_withdraw(state(yielding, relieving), view(A), yielding) == Withdrawal("handed over", B)


# Members


def test_missing_members_are_missing_witnesses_but_never_more_than_there_are_nodes() -> None:
    said = state(specs={G1: spec(resilience=5)}, members=members(A, B))
    assert witnesses_needed(said, view(alive=NODES[:4])) == ("witness/1", "witness/2")
    assert witnesses_needed(said, view(alive=[A, B])) == ()
    assert witnesses_needed(said, view(alive=[A, B, C], draining=frozenset({B}))) == ("witness/1",)


def test_who_was_only_invited_is_no_live_member_yet() -> None:
    said = state(members={A: Membership(Role.MEMBER, A), B: Membership(Role.INVITED, A)})
    assert witnesses_needed(said, view(alive=[A, B, C])) == ("witness/1", "witness/2")


@given(st.sets(st.sampled_from(NODES), min_size=1), st.sets(st.sampled_from(NODES)), st.integers(1, 5))
def test_if_all_that_are_dispensable_leave_at_once_enough_members_stay(
    holders: set[NodeId], runners: set[NodeId], wanted: int
) -> None:
    kept = tuple(promise(node, f"web/{place}") for place, node in enumerate(sorted(runners & holders), 1))
    said = state(*kept, specs={G1: spec(service(replicas=8), resilience=wanted)}, members=members(*sorted(holders)))
    staying = [node for node in sorted(holders) if not is_dispensable(said, view(node, NODES))]
    assert len(staying) >= min(resilience(said, view(A, NODES)), len(holders))
    assert runners & holders <= set(staying)


@given(st.sets(st.sampled_from(NODES), min_size=1), st.one_of(st.just(""), st.sampled_from(NODES)))
def test_all_members_agree_on_who_calls_and_each_has_its_rank(holders: set[NodeId], missing: NodeId) -> None:
    said = state(members=members(*sorted(holders)))
    orders = {tuple(callers(said, view(node, NODES), missing)) for node in holders}
    assert len(orders) == 1
    assert set(orders.pop()) == holders
    if not missing and G1.author in holders:
        assert callers(said, view(A, NODES), missing)[0] == G1.author


@given(st.integers(0, 200), st.integers(0, 200))
def test_patience_grows_with_the_share_that_vanished_and_stays_below_ten_seconds(vanished: int, others: int) -> None:
    assert 1.5 <= patience_s(vanished, others) <= patience_s(vanished + 1, others) <= 8.0
    assert patience_s(1, 4) < 2.0


# Views that differ

claims = st.permutations(range(1, 5))
health = st.sampled_from([PromiseState.HEALTHY, PromiseState.STARTING, PromiseState.FAILING])


class Town:
    """Nodes with a copy of one document each, and with views of each other that may be as wrong as one likes."""

    def __init__(self, specification: Spec) -> None:
        self.copies = {node: Copy(node) for node in CROWD}
        draft = self.copies[A].draft()
        draft.deploy(G1, specification)
        first = self.copies[A].write(draft)
        for copy in self.copies.values():
            copy.hear([first])
        self.alive: dict[NodeId, frozenset[NodeId]] = {node: frozenset(CROWD) for node in CROWD}
        self.withdrawals = 0

    def view(self, node: NodeId) -> View:
        return view(node, self.alive[node])

    def state_change(self, node: NodeId, slot: Slot, **fields: object) -> None:
        mine = self.copies[node].state.promise(node, slot)
        if mine is not None and mine.state is not WITHDRAWN:
            self.say(replace(mine, **fields))  # type: ignore[arg-type]

    def say(self, promised: Promise) -> None:
        copy = self.copies[promised.node]
        draft = copy.draft()
        draft.promise(promised)
        copy.write(draft)

    def claim(self, node: NodeId, slot: Slot) -> None:
        """Take the slot on if it looks as if nobody kept it, as an invited node does."""
        said, seen = self.copies[node].state, self.view(node)
        mine = said.promise(node, slot)
        if not keeping(said, seen, slot).is_needed or (mine is not None and mine.state is not WITHDRAWN):
            return
        generation = said.effective
        assert generation is not None
        instead_of = tuple(p.node for p in live_promises(said, seen, slot) if p.yielding)
        claimed = Promise(node, slot, Claim(said.lamport + 1, node), generation, 1, STARTING, instead_of=instead_of)
        self.say(claimed)

    def reconsider(self, node: NodeId) -> None:
        """What a member does for each of its promises whenever it looks."""
        said, seen = self.copies[node].state, self.view(node)
        for mine in said.promises_of(node):
            if reason_to_withdraw(said, seen, mine) is not None:
                self.withdrawals += 1
                self.say(replace(mine, state=WITHDRAWN))
            elif relieved(said, seen, mine) != mine.instead_of:
                self.say(replace(mine, instead_of=relieved(said, seen, mine)))

    def gossip(self, sender: NodeId, receiver: NodeId, rng: random.Random) -> None:
        """Some of what one knows reaches the other: out of order, repeated, with holes."""
        changes = self.copies[sender].document.replica.changes_since(())
        heard = rng.sample(changes, rng.randint(0, len(changes)))
        self.copies[receiver].hear([*heard, *heard[:2]])

    def holders(self, slot: Slot) -> list[NodeId]:
        """By each node's own word, which is the truth about it."""
        return [node for node, copy in self.copies.items() if any(p.slot == slot for p in copy.state.promises_of(node))]

    def heal(self) -> None:
        self.alive = {node: frozenset(CROWD) for node in CROWD}
        merge_all(list(self.copies.values()))

    def settle(self, slots: Mapping[Slot, None]) -> int:
        """All see all and hear all; containers run well. How many rounds until nothing changes."""
        for turn in range(12):
            before = {node: copy.document.replica.heads() for node, copy in self.copies.items()}
            self.heal()
            for node in CROWD:
                self.reconsider(node)
            self.heal()
            for node in CROWD:
                for slot in slots:
                    self.state_change(node, slot, state=PromiseState.HEALTHY, yielding=False)
            self.heal()
            for slot in slots:
                if not self.holders(slot):
                    self.claim(CROWD[0], slot)
            if before == {node: copy.document.replica.heads() for node, copy in self.copies.items()}:
                return turn
        raise AssertionError("it does not come to rest")


SLOTS = {"web/1": None, "web/2": None}
steps = st.lists(
    st.tuples(
        st.sampled_from(["claim", "health", "reconsider", "gossip", "blind", "update", "yield"]),
        st.sampled_from(CROWD),
        st.sampled_from(CROWD),
        st.sampled_from(sorted(SLOTS)),
    ),
    min_size=4,
    max_size=40,
)


def play(town: Town, step: str, node: NodeId, other: NodeId, slot: Slot, rng: random.Random) -> None:
    match step:
        case "claim":
            town.claim(node, slot)
        case "health":
            town.state_change(node, slot, state=rng.choice([PromiseState.HEALTHY, PromiseState.HEALTHY, FAILING]))
        case "reconsider":
            town.reconsider(node)
        case "gossip":
            town.gossip(node, other, rng)
        case "blind":
            town.alive[node] = frozenset(rng.sample(CROWD, rng.randint(0, len(CROWD)))) | {node}
        case "update":
            said = town.copies[node].state
            generation = Generation(G1.instance, said.clock + 1, node)
            draft = town.copies[node].draft()
            draft.deploy(generation, spec(service(replicas=2, image=f"shop/web:{said.clock}")))
            town.copies[node].write(draft)
            town.state_change(node, slot, generation=generation, state=STARTING)
        case "yield":
            town.state_change(node, slot, state=FAILING, yielding=True)


@given(steps, st.randoms(use_true_random=False))
def test_whatever_happened_in_the_end_each_slot_has_exactly_one_holder(
    story: list[tuple[str, NodeId, NodeId, Slot]], rng: random.Random
) -> None:
    town = Town(TWO)
    for step in story:
        play(town, *step, rng)
    town.settle(SLOTS)
    assert [len(town.holders(slot)) for slot in SLOTS] == [1, 1]


@given(steps, st.randoms(use_true_random=False))
def test_the_last_holder_of_a_slot_never_withdraws_whatever_the_views(
    story: list[tuple[str, NodeId, NodeId, Slot]], rng: random.Random
) -> None:
    """Without yielding: who yields has said that the slot is not kept, and then a gap is that failure's doing."""
    town = Town(TWO)
    for step in story:
        if step[0] == "yield":
            continue
        held = {slot for slot in SLOTS if town.holders(slot)}
        play(town, *step, rng)
        assert held <= {slot for slot in SLOTS if town.holders(slot)}


@given(
    claims,
    st.lists(health, min_size=4, max_size=4),
    st.lists(st.sampled_from([G1, G2]), min_size=4, max_size=4),
    st.data(),
)
def test_holders_with_old_news_of_each_other_never_all_withdraw(
    lamports: list[int], states: list[PromiseState], generations: list[Generation], data: st.DataObject
) -> None:
    """Each sees of the others any earlier version: a lower generation, any health, or nothing at all."""
    specs = {G1: spec(), G2: spec(service(image="shop/web:2"))}
    now = [
        promise(node, lamport=lamport, generation=generation, state=condition)
        for node, lamport, generation, condition in zip(CROWD, lamports, generations, states, strict=True)
    ]
    staying = []
    for mine in now:
        seen = [mine]
        for other in now:
            if other.node == mine.node or data.draw(st.booleans()):
                continue
            earlier = data.draw(st.sampled_from([G1, other.generation]))
            seen.append(replace(other, generation=earlier, state=data.draw(health)))
        said = state(*seen, specs=specs, members=members(*CROWD))
        alive = data.draw(st.sets(st.sampled_from(CROWD)))
        if reason_to_withdraw(said, view(mine.node, alive), mine) is None:
            staying.append(mine.node)
    assert staying


@given(st.lists(st.tuples(st.booleans(), health, st.booleans(), st.booleans()), min_size=1, max_size=25))
def test_a_yielding_node_and_its_relief_never_both_withdraw(news: list[tuple[bool, PromiseState, bool, bool]]) -> None:
    """A yields for good and B relieves it; either may know any old version of the other from then on."""
    yielding = promise(A, yielding=True)
    relief = promise(B, lamport=2, state=STARTING, instead_of=(A,))
    seen_of_a, seen_of_b = yielding, relief
    for whose, condition, told, looks in news:
        if whose:
            yielding = replace(yielding, state=condition)
        else:
            relief = replace(relief, state=condition)
        if told:
            seen_of_a, seen_of_b = (yielding, seen_of_b) if whose else (seen_of_a, relief)
        if looks:
            a_goes = reason_to_withdraw(state(yielding, seen_of_b), view(A), yielding)
            b_goes = reason_to_withdraw(state(seen_of_a, relief), view(B), relief)
            assert b_goes is None
            assert a_goes in (None, Withdrawal("handed over", B))


@given(st.lists(st.tuples(st.sampled_from(CROWD), health), max_size=30), claims)
def test_flapping_health_moves_no_slot_to_and_fro(
    flaps: list[tuple[NodeId, PromiseState]], lamports: list[int]
) -> None:
    """However the health of all holders flaps, each withdraws at most once and the winner never does."""
    town = Town(spec())
    for node, lamport in zip(CROWD, lamports, strict=True):
        town.say(promise(node, lamport=lamport))
    winner = CROWD[lamports.index(1)]
    for node, condition in flaps:
        town.state_change(node, "web/1", state=condition)
        merge_all(list(town.copies.values()))
        for other in CROWD:
            town.reconsider(other)
            town.claim(other, "web/1")
        assert winner in town.holders("web/1")
    assert town.withdrawals <= len(CROWD) - 1
