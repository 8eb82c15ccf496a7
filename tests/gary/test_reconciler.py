"""From promises to operations and back, with a toy engine in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.reconciler import (
    BACKOFF_S_MAX,
    SETTLE_S,
    STEADY_S,
    UNHEALTHY,
    Operation,
    Slate,
    Start,
    Stop,
    Wanted,
    backoff_s,
    by_slot,
    failed,
    observe,
    operations,
    outcome,
    settles_at_s,
)
from gary.runtime.base import Container, ContainerState, Health, Labels
from gary.spec import Healthcheck, RestartCondition, RestartPolicy, Service
from gary.state import Promise, PromiseState
from tests.gary.facts import G1, A, promise, service

RUNNING, EXITED, CREATED = ContainerState.RUNNING, ContainerState.EXITED, ContainerState.CREATED
SLOT = "web/1"
ANY = RestartPolicy()


def container(
    slot: str = SLOT, *, fingerprint: str = "f1", state: ContainerState = RUNNING, id: str = "c1", **fields: object
) -> Container:
    labels = Labels("d", slot, str(G1), fingerprint, A)
    return replace(Container(id, id, labels, state), **fields)  # type: ignore[arg-type]


def wanted(slot: str = SLOT, fingerprint: str = "f1", *, stop_grace_period_s: float = 10.0) -> dict[str, Wanted]:
    return {slot: Wanted(slot, service(stop_grace_period_s=stop_grace_period_s), fingerprint)}


def todo(
    want: dict[str, Wanted],
    containers: list[Container],
    *,
    unwanted: frozenset[str] = frozenset(),
    slates: dict[str, Slate] | None = None,
    busy: frozenset[str] = frozenset(),
    now: float = 0.0,
) -> list[Operation]:
    return operations(want, unwanted, by_slot(containers), slates or {}, busy, now)


# Operations


def test_a_wanted_slot_without_a_container_is_started() -> None:
    assert todo(wanted(), []) == [Start(SLOT, service())]


def test_a_running_container_of_the_right_fingerprint_is_left_alone() -> None:
    assert todo(wanted(), [container()]) == []


@pytest.mark.parametrize("state", [EXITED, CREATED])
def test_one_that_stands_still_is_started_again(state: ContainerState) -> None:
    assert todo(wanted(), [container(state=state)]) == [Start(SLOT, service())]


def test_another_fingerprint_is_stopped_first_and_started_afterwards() -> None:
    old = container(fingerprint="f0")
    assert todo(wanted(), [old]) == [Stop(old, "replaced")]
    assert todo(wanted(), []) == [Start(SLOT, service())]


def test_of_two_containers_on_a_slot_the_running_one_stays() -> None:
    dead, alive = container(id="c1", state=EXITED), container(id="c2")
    assert todo(wanted(), [dead, alive]) == [Stop(dead, "replaced")]


def test_a_slot_in_neither_set_is_left_alone() -> None:
    assert todo(wanted(), [container(), container("db/1", id="c2")]) == []


def test_a_slot_that_is_positively_unwanted_is_stopped() -> None:
    stray = container("db/1", id="c2")
    assert todo({}, [stray], unwanted=frozenset({"db/1"})) == [Stop(stray, "not wanted here")]


def test_a_busy_slot_is_left_alone() -> None:
    assert todo(wanted(), [container(fingerprint="f0")], busy=frozenset({SLOT})) == []
    assert todo({}, [container()], unwanted=frozenset({SLOT}), busy=frozenset({SLOT})) == []


def test_a_start_waits_for_its_backoff_and_a_completed_job_for_ever() -> None:
    waiting = {SLOT: Slate(failures=1, retry_at_s=5.0)}
    assert todo(wanted(), [], slates=waiting, now=4.9) == []
    assert todo(wanted(), [], slates=waiting, now=5.0) == [Start(SLOT, service())]
    assert todo(wanted(), [container(state=EXITED)], slates={SLOT: Slate(completed=True)}, now=1e9) == []


slots = st.sampled_from(["web/1", "web/2", "db/1"])
containers_seen = st.lists(
    st.builds(
        lambda slot, fingerprint, state, id: container(slot, fingerprint=fingerprint, state=state, id=f"c{id}"),
        slots,
        st.sampled_from(["f0", "f1"]),
        st.sampled_from(list(ContainerState)),
        st.integers(0, 99),
    ),
    max_size=6,
    unique_by=lambda c: c.id,
)


@given(st.sets(slots), st.sets(slots), st.sets(slots), containers_seen, st.floats(0, 100))
def test_no_operation_without_positive_knowledge(
    kept: set[str], released: set[str], busy: set[str], seen: list[Container], now: float
) -> None:
    want = {slot: Wanted(slot, service(), "f1") for slot in sorted(kept)}
    unwanted = frozenset(released - kept)
    done = operations(want, unwanted, by_slot(seen), {}, frozenset(busy), now)
    assert done == operations(want, unwanted, by_slot(seen), {}, frozenset(busy), now)
    touched = [
        operation.slot if isinstance(operation, Start) else operation.container.labels.slot for operation in done
    ]
    assert set(touched) <= (kept | unwanted) - busy
    assert [slot for slot in touched if slot in kept] or not (kept - busy - {c.labels.slot for c in seen})
    for operation in done:
        if isinstance(operation, Stop) and operation.container.labels.slot in kept:
            assert operation.container.labels.fingerprint == "f0" or len(seen) > 1
    assert len(set(map(repr, done))) == len(done)


@given(st.sets(slots, min_size=1), containers_seen)
def test_carrying_out_the_operations_comes_to_rest(kept: set[str], seen: list[Container]) -> None:
    want = {slot: Wanted(slot, service(), "f1") for slot in sorted(kept)}
    unwanted = frozenset({"db/1"} - kept)
    world = {c.id: c for c in seen}
    for turn in range(3):
        for operation in operations(want, unwanted, by_slot(world.values()), {}, frozenset(), 0.0):
            if isinstance(operation, Stop):
                del world[operation.container.id]
                continue
            still = [c.id for c in world.values() if c.labels.slot == operation.slot]
            id = still[0] if still else f"new {turn} {operation.slot}"
            world[id] = container(operation.slot, id=id)
    assert operations(want, unwanted, by_slot(world.values()), {}, frozenset(), 0.0) == []
    running = [c.labels.slot for c in world.values() if c.state is RUNNING and c.labels.fingerprint == "f1"]
    assert {slot: running.count(slot) for slot in kept} == dict.fromkeys(kept, 1)
    assert {c.id for c in seen if c.labels.slot not in kept | unwanted} <= set(world)


# Backoff


def test_backoff_doubles_from_the_policys_delay_to_five_minutes() -> None:
    assert [backoff_s(ANY, failures) for failures in range(1, 12)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert backoff_s(RestartPolicy(delay_s=50), 1) == 50
    assert backoff_s(RestartPolicy(delay_s=1000), 1) == 300


@given(st.floats(0, 366 * 86_400), st.integers(0, 10**6))
def test_backoff_never_falls_with_more_failures_and_is_bounded(delay_s: float, failures: int) -> None:
    policy = RestartPolicy(delay_s=delay_s)
    assert 0.1 <= backoff_s(policy, failures) <= backoff_s(policy, failures + 1) <= BACKOFF_S_MAX


# A toy engine: one slot, one container at a time, virtual time


@dataclass
class World:
    """Observes, states, operates and lets time pass, as a member does for one slot; remembers what was written."""

    policy: RestartPolicy = ANY
    runs_for_s: float = 1e9
    exit_code: int | None = 1
    checked: bool = False
    sick_after_s: float = 1e9
    refuses: bool = False
    stated: Promise = field(default_factory=lambda: promise(A, state=PromiseState.STARTING))
    now: float = 0.0
    container: Container | None = None
    slate: Slate = field(default_factory=Slate)
    starts: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    written: list[Promise] = field(default_factory=list)

    @property
    def service(self) -> Service:
        return service(restart=self.policy, healthcheck=Healthcheck(("CMD", "true")) if self.checked else None)

    def look(self) -> None:
        if self.container is not None and self.container.state is RUNNING and self.ends_at_s <= self.now:
            self.container = replace(
                self.container, state=EXITED, exit_code=self.exit_code, health=Health.NONE, finished_at_s=self.now
            )
        elif self.container is not None and self.container.state is RUNNING and self.sickens_at_s <= self.now:
            self.container = replace(self.container, health=Health.UNHEALTHY)
        self.slate = observe(self.slate, self.container, self.policy, self.now)
        said = outcome(self.stated, self.container, self.slate, self.now)
        if said != self.stated:
            self.written.append(said)
            self.stated = said
        self.operate()

    def operate(self) -> None:
        present = [] if self.container is None else [self.container]
        want = {SLOT: Wanted(SLOT, self.service, "f1")}
        for operation in operations(want, frozenset(), by_slot(present), {SLOT: self.slate}, frozenset(), self.now):
            if isinstance(operation, Stop):
                self.stops.append(self.now)
                self.container = None
                self.operate()
                return
            self.starts.append(self.now)
            if self.refuses:
                self.slate = failed(self.slate, self.policy, "the engine says no", self.now)
            else:
                health = Health.STARTING if self.checked else Health.NONE
                self.container = container(started_at_s=self.now, health=health)
                self.slate = observe(self.slate, self.container, self.policy, self.now)

    @property
    def ends_at_s(self) -> float:
        return 1e18 if self.container is None else self.container.started_at_s + self.runs_for_s

    @property
    def sickens_at_s(self) -> float:
        return 1e18 if self.container is None else self.container.started_at_s + self.sick_after_s

    def run(self, until_s: float) -> World:
        """Look at every moment at which something changes, and every 5 s besides."""
        while self.now < until_s:
            self.look()
            times = [self.now + 5.0, until_s, self.ends_at_s, self.sickens_at_s, self.slate.retry_at_s]
            times.append(settles_at_s(self.slate))
            self.now = min(at for at in times if at > self.now)
        self.look()
        return self

    def states(self) -> list[str]:
        return [said.state.value for said in self.written]


def test_a_container_without_a_check_is_healthy_when_it_has_run_for_a_moment() -> None:
    world = World()
    world.run(SETTLE_S - 0.01)
    assert world.written == []
    world.run(3600)
    assert world.states() == ["healthy"]
    assert world.stated.once_healthy
    assert world.starts == [0.0]


def test_a_container_with_a_check_is_healthy_when_the_check_says_so() -> None:
    world = World(checked=True).run(60)
    assert world.written == []
    assert world.container is not None
    for health, expected in [
        (Health.HEALTHY, ["healthy"]),
        (Health.UNHEALTHY, ["healthy", "failing"]),
        (Health.HEALTHY, ["healthy", "failing", "healthy"]),
    ]:
        world.container = replace(world.container, health=health)
        world.run(world.now + 60)
        assert world.states() == expected
    assert world.stated.once_healthy
    assert world.stated.reason == ""


def test_one_whose_check_keeps_failing_is_restarted_ever_less_often_and_left_to_others_after_three_times() -> None:
    world = World(checked=True, sick_after_s=30.0).run(24 * 3600)
    assert world.stops == world.starts[1:]
    waits = [
        round(stop - start - 30.0, 6) for start, stop in zip(world.starts, world.stops, strict=False) if stop > start
    ]
    assert waits[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert len(world.written) <= 3
    assert (world.stated.state, world.stated.reason) == (PromiseState.FAILING, UNHEALTHY)
    assert world.stated.yielding


@pytest.mark.parametrize(
    ("policy", "starts"),
    [(RestartPolicy(RestartCondition.NONE), 1), (RestartPolicy(RestartCondition.ANY, attempts_max=2), 3)],
    ids=["never", "twice"],
)
def test_one_whose_check_fails_is_restarted_as_often_as_its_policy_says(policy: RestartPolicy, starts: int) -> None:
    world = World(policy=policy, checked=True, sick_after_s=30.0).run(3600)
    assert len(world.starts) == starts
    assert world.container is not None
    assert world.stated.state is PromiseState.FAILING


def test_one_whose_check_passes_again_before_its_restart_is_due_is_left_alone() -> None:
    sick = container(health=Health.UNHEALTHY, started_at_s=1.0)
    slate = observe(observe(Slate(), replace(sick, health=Health.HEALTHY), ANY, 1.0), sick, ANY, 60.0)
    want = {SLOT: Wanted(SLOT, service(), "f1")}
    assert operations(want, frozenset(), by_slot([sick]), {SLOT: slate}, frozenset(), 60.5) == []
    assert operations(want, frozenset(), by_slot([sick]), {SLOT: slate}, frozenset(), 61.0) == [Stop(sick, UNHEALTHY)]
    well = replace(sick, health=Health.HEALTHY)
    again = observe(slate, well, ANY, 61.0)
    assert operations(want, frozenset(), by_slot([well]), {SLOT: again}, frozenset(), 61.0) == []


@pytest.mark.parametrize("runs_for_s", [0.001, 0.5])
def test_a_container_that_exits_at_once_writes_a_handful_and_backs_off(runs_for_s: float) -> None:
    world = World(runs_for_s=runs_for_s).run(24 * 3600)
    assert len(world.written) <= 3
    assert world.states()[-1] == "failing"
    assert world.stated.yielding
    assert not world.stated.once_healthy
    assert world.stated.reason == "the container ended with code 1"
    assert len(world.starts) < 24 * 12 + 15
    gaps = [
        round(later - earlier - runs_for_s, 6) for earlier, later in zip(world.starts, world.starts[1:], strict=False)
    ]
    assert gaps[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert set(gaps[9:]) == {300}


def test_an_engine_that_refuses_is_asked_ever_less_often_and_the_promise_says_why() -> None:
    world = World(refuses=True).run(24 * 3600)
    assert len(world.written) <= 3
    assert (world.stated.state, world.stated.reason) == (PromiseState.FAILING, "the engine says no")
    assert len(world.starts) < 24 * 12 + 15


@given(st.floats(0.0, 400.0), st.booleans(), st.sampled_from([0, 1, None]))
def test_a_container_that_keeps_ending_writes_little_whenever_it_ends(
    runs_for_s: float, checked: bool, exit_code: int | None
) -> None:
    """Rule 6: the document does not grow with restarts."""
    world = World(runs_for_s=runs_for_s, checked=checked, exit_code=exit_code).run(2 * 3600)
    early = len(world.written)
    assert early <= 6
    world.run(4 * 3600)
    assert len(world.written) == early or runs_for_s > STEADY_S


def test_one_that_ran_well_is_restarted_at_once_and_stays_healthy() -> None:
    world = World(runs_for_s=3600.0).run(4 * 3600 - 1)
    assert world.starts == [0.0, 3600.0, 7200.0, 10800.0]
    assert world.states() == ["healthy"]


def test_one_that_recovers_is_healthy_again_only_after_it_stayed_up() -> None:
    world = World(runs_for_s=0.5).run(20)
    assert world.states()[-1] == "failing"
    world.runs_for_s = 1e9
    retry_at_s = world.slate.retry_at_s
    world.run(retry_at_s + STEADY_S - 0.1)
    assert world.starts[-1] == retry_at_s
    assert world.states()[-1] == "failing"
    world.run(retry_at_s + STEADY_S)
    assert world.states()[-1] == "healthy"
    assert not world.stated.yielding


@pytest.mark.parametrize(
    ("policy", "exit_code", "starts", "state"),
    [
        (RestartPolicy(RestartCondition.NONE), 0, 1, PromiseState.HEALTHY),
        (RestartPolicy(RestartCondition.NONE), 1, 1, PromiseState.FAILING),
        (RestartPolicy(RestartCondition.ON_FAILURE), 0, 1, PromiseState.HEALTHY),
        (RestartPolicy(RestartCondition.ANY, attempts_max=3), 1, 4, PromiseState.FAILING),
        (RestartPolicy(RestartCondition.ANY, attempts_max=3), 0, 4, PromiseState.FAILING),
        (RestartPolicy(RestartCondition.ON_FAILURE, attempts_max=2), 1, 3, PromiseState.FAILING),
    ],
    ids=lambda value: str(value) if isinstance(value, int | str) else "",
)
def test_restart_policies_end_where_they_say(
    policy: RestartPolicy, exit_code: int, starts: int, state: PromiseState
) -> None:
    world = World(policy=policy, runs_for_s=0.5, exit_code=exit_code).run(3600)
    assert len(world.starts) == starts
    assert world.stated.state is state


def test_on_failure_starts_again_what_failed() -> None:
    world = World(policy=RestartPolicy(RestartCondition.ON_FAILURE), runs_for_s=0.5).run(100)
    assert len(world.starts) > 3


def test_an_end_is_counted_once_however_often_it_is_seen() -> None:
    ended = container(state=EXITED, exit_code=3, started_at_s=1.0)
    once = observe(Slate(), ended, ANY, 2.0)
    assert (once.failures, once.restarts) == (1, 1)
    assert observe(once, ended, ANY, 50.0) == once
    again = observe(once, replace(ended, started_at_s=5.0), ANY, 60.0)
    assert again.failures == 2


def test_a_completed_job_that_somebody_starts_again_runs() -> None:
    running = container(started_at_s=9.0)
    assert not observe(Slate(completed=True), running, ANY, 9.0).completed


@given(
    st.sampled_from(list(PromiseState)),
    st.one_of(
        st.none(),
        st.builds(
            lambda state, health, code: container(state=state, health=health, exit_code=code),
            st.sampled_from(list(ContainerState)),
            st.sampled_from(list(Health)),
            st.one_of(st.none(), st.integers(0, 255)),
        ),
    ),
    st.builds(Slate, failures=st.integers(0, 5), completed=st.booleans(), reason=st.sampled_from(["", "bad"])),
    st.builds(RestartPolicy, condition=st.sampled_from(list(RestartCondition)), attempts_max=st.integers(0, 3)),
)
def test_looking_twice_has_the_effect_of_once(
    state: PromiseState, seen: Container | None, slate: Slate, policy: RestartPolicy
) -> None:
    before = promise(A, state=state, once_healthy=True)
    after = observe(slate, seen, policy, 100.0)
    assert observe(after, seen, policy, 100.0) == after
    said = outcome(before, seen, after, 100.0)
    assert outcome(said, seen, after, 100.0) == said
    assert said.once_healthy
    assert (said.claim, said.generation, said.slot) == (before.claim, before.generation, before.slot)
