"""Updates: in a fixed order, never more in motion than allowed whatever old news a node acts on, and to an end."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.identity import NodeId, Slot
from gary.rollout import is_done, waits_for
from gary.spec import Service
from gary.state import Promise, PromiseState, State
from tests.gary.facts import G1, G2, G3, NODES, D, promise, service, spec, state, view

STARTING, FAILING = PromiseState.STARTING, PromiseState.FAILING
OLD, NEW = "shop/web:1", "shop/web:2"
KEEPERS = NODES[:3]


def slots(count: int) -> list[Slot]:
    return [f"web/{number}" for number in range(1, count + 1)]


def updated(*promises: Promise, replicas: int, parallelism: int, **fields: object) -> State:
    def one(image: str) -> Service:
        return service(image=image, replicas=replicas, update_parallelism=parallelism)

    return state(*promises, specs={G1: spec(one(OLD)), G2: spec(one(NEW))}, **fields)


def waiting(said: State) -> list[Slot]:
    """The slots that wait for others, as one sees it who knows all."""
    return [mine.slot for mine in said.promises if waits_for(said, view(), mine)]


@pytest.mark.parametrize(("parallelism", "moving"), [(1, 1), (2, 2), (5, 4), (0, 4)])
def test_the_first_slots_move_at_once_and_the_others_wait(parallelism: int, moving: int) -> None:
    kept = [promise(NODES[0], slot) for slot in slots(4)]
    assert waiting(updated(*kept, replicas=4, parallelism=parallelism)) == slots(4)[moving:]


def test_a_slot_names_those_that_it_waits_for() -> None:
    kept = [promise(NODES[0], slot) for slot in slots(3)]
    assert waits_for(updated(*kept, replicas=3, parallelism=1), view(), kept[2]) == ("web/1", "web/2")


def test_once_healthy_at_the_new_generation_lets_the_next_move_for_good() -> None:
    first = promise(NODES[0], "web/1", generation=G2, once_healthy=True)
    second = promise(NODES[1], "web/2")
    for condition in PromiseState:
        said = updated(replace(first, state=condition), second, replicas=2, parallelism=1)
        assert is_done(said, "web/1")
        assert waits_for(said, view(), second) == ()
    starting = replace(first, once_healthy=False, state=STARTING)
    assert waits_for(updated(starting, second, replicas=2, parallelism=1), view(), second) == ("web/1",)


def test_what_is_not_healthy_anyway_moves_at_once() -> None:
    kept = [promise(NODES[0], "web/1"), promise(NODES[0], "web/2", state=FAILING)]
    assert waiting(updated(*kept, replicas=2, parallelism=1)) == []


def test_an_unchanged_service_is_not_touched_and_holds_nobody_up() -> None:
    both = [service("db", replicas=3), service("web", replicas=2)]
    specs = {G1: spec(*both), G2: spec(both[0], service("web", replicas=2, image=NEW))}
    kept = [promise(NODES[0], slot) for slot in ("db/1", "db/2", "web/1", "web/2")]
    said = state(*kept, specs=specs)
    assert said.is_current(kept[1])
    assert [waits_for(said, view(), mine) for mine in kept] == [(), (), (), ("web/1",)]


def test_a_predecessor_that_nobody_keeps_counts_but_is_passed() -> None:
    kept = [promise(NODES[0], slot) for slot in slots(6)[2:]]
    lost = promise(D, "web/2")
    assert waiting(updated(lost, *kept, replicas=6, parallelism=4)) == ["web/5", "web/6"]
    assert waiting(updated(lost, *kept, replicas=6, parallelism=1)) == ["web/4", "web/5", "web/6"]


def test_a_second_update_under_way_starts_the_order_again() -> None:
    third = "shop/web:3"
    images = {G1: OLD, G2: NEW, G3: third}
    specs = {generation: spec(service(image=image, replicas=3)) for generation, image in images.items()}
    kept = [promise(NODES[0], "web/1", generation=G2, once_healthy=True), promise(NODES[0], "web/2")]
    said = state(*kept, specs=specs)
    assert [waits_for(said, view(), mine) for mine in kept] == [(), ("web/1",)]


@dataclass
class Update:
    """Keepers of one slot each, who act on any older state that they may have seen, and the truth about them."""

    replicas: int
    parallelism: int
    rng: random.Random
    unplaced: frozenset[Slot]
    history: list[State] = field(default_factory=list)
    known: dict[NodeId, int] = field(default_factory=dict)
    moving: set[Slot] = field(default_factory=set)
    moved: list[Slot] = field(default_factory=list)

    def begin(self) -> None:
        kept = [
            promise(KEEPERS[place % 3], slot)
            for place, slot in enumerate(slots(self.replicas))
            if slot not in self.unplaced
        ]
        self.history.append(updated(*kept, replicas=self.replicas, parallelism=self.parallelism))
        self.known = dict.fromkeys(KEEPERS, 0)

    @property
    def truth(self) -> State:
        return self.history[-1]

    def say(self, said: Promise) -> None:
        others = [p for p in self.truth.promises if (p.node, p.slot) != (said.node, said.slot)]
        merged = updated(*others, said, replicas=self.replicas, parallelism=self.parallelism)
        self.history.append(merged)

    def seen_by(self, node: NodeId) -> State:
        """Own promises as they are, the others' as they were at some earlier time; never older than before."""
        old = self.history[self.known[node]]
        mine = self.truth.promises_of(node)
        others = [p for p in old.promises if p.node != node]
        return updated(*mine, *others, replicas=self.replicas, parallelism=self.parallelism)

    def act(self, node: NodeId) -> None:
        said = self.seen_by(node)
        for mine in self.truth.promises_of(node):
            if not self.truth.is_current(mine) and not waits_for(said, view(node), mine):
                if mine.state is PromiseState.HEALTHY:
                    self.moving.add(mine.slot)
                self.moved.append(mine.slot)
                self.say(replace(mine, generation=G2, state=STARTING))
                said = self.seen_by(node)

    def step(self) -> None:
        node = self.rng.choice(KEEPERS)
        match self.rng.randrange(4):
            case 0:
                self.known[node] = self.rng.randint(self.known[node], len(self.history) - 1)
            case 1:
                self.act(node)
            case 2:
                started = [p for p in self.truth.promises if p.state is STARTING]
                if started:
                    ready = self.rng.choice(started)
                    self.moving.discard(ready.slot)
                    self.say(replace(ready, state=PromiseState.HEALTHY, once_healthy=True))
            case 3:
                flapping = self.rng.choice(self.truth.promises)
                if flapping.state is not STARTING and flapping.slot not in self.moving:
                    self.say(replace(flapping, state=self.rng.choice([FAILING, PromiseState.HEALTHY])))


@given(st.randoms(use_true_random=False), st.integers(1, 3), st.integers(2, 7), st.sets(st.integers(1, 7), max_size=3))
def test_no_more_move_at_once_than_allowed_whatever_old_news_they_act_on_and_all_move_in_the_end(
    rng: random.Random, parallelism: int, replicas: int, absent: set[int]
) -> None:
    unplaced = frozenset(f"web/{number}" for number in absent) & frozenset(slots(replicas))
    if len(unplaced) == replicas:
        return
    update = Update(replicas, parallelism, rng, unplaced)
    update.begin()
    for _ in range(60):
        update.step()
        assert len(update.moving) <= parallelism
    for _ in range(6 * replicas):
        update.known = dict.fromkeys(KEEPERS, len(update.history) - 1)
        for node in KEEPERS:
            update.act(node)
            assert len(update.moving) <= parallelism
        for starting in [p for p in update.truth.promises if p.state is STARTING]:
            update.moving.discard(starting.slot)
            update.say(replace(starting, state=PromiseState.HEALTHY, once_healthy=True))
    assert all(update.truth.is_current(p) for p in update.truth.promises)
    assert sorted(update.moved) == sorted(set(slots(replicas)) - unplaced)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=6), st.integers(0, 4), st.integers(0, 5))
def test_news_of_a_predecessor_that_is_done_only_ever_lets_more_move(
    predecessors: list[tuple[bool, bool]], parallelism: int, learned: int
) -> None:
    """Monotone: who knows less waits, and never moves earlier than who knows more."""
    count = len(predecessors) + 1
    kept = [
        promise(KEEPERS[place % 3], slot, generation=G2 if moved else G1, once_healthy=moved and done)
        for place, (slot, (moved, done)) in enumerate(zip(slots(count), predecessors, strict=False))
    ]
    mine = promise(KEEPERS[0], f"web/{count}")
    less = updated(*kept, mine, replicas=count, parallelism=parallelism)
    place = learned % len(kept)
    news = [*kept[:place], replace(kept[place], generation=G2, once_healthy=True), *kept[place + 1 :]]
    more = updated(*news, mine, replicas=count, parallelism=parallelism)
    assert waits_for(less, view(), mine) or not waits_for(more, view(), mine)


def test_a_slot_that_is_kept_again_waits_for_a_later_one_that_went_on_without_it() -> None:
    back = promise(NODES[0], "web/1")
    later = promise(NODES[1], "web/2", generation=G2, state=STARTING, once_healthy=False)
    untouched = promise(NODES[2], "web/3")
    said = updated(back, later, untouched, replicas=3, parallelism=1)
    assert waits_for(said, view(), back) == ("web/2",)
    assert waits_for(updated(back, later, untouched, replicas=3, parallelism=2), view(), back) == ()
    healthy = replace(later, state=PromiseState.HEALTHY, once_healthy=True)
    assert waits_for(updated(back, healthy, untouched, replicas=3, parallelism=1), view(), back) == ()
