"""From promises and containers to operations, and from containers back to promises: pure, level-triggered.

``Slate`` is what the reconciler remembers of one slot between two looks: failures in a row and when to try again. None
of it goes into the document (rule 6): the document hears of transitions alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gary.identity import Slot
from gary.runtime.base import Container, ContainerState, Health
from gary.spec import RestartCondition, RestartPolicy, Service
from gary.state import Promise, PromiseState

SETTLE_S = 1.0
"""A container without a health check is healthy when it has run for this long."""
BACKOFF_S_MAX = 300.0
DELAY_S_MIN = 0.1
DOUBLINGS_MAX = 12
"""Enough to get from the least delay past the longest; more would in the end be no float any more."""
STEADY_S = 10.0
"""Failures in a row are forgotten once a container has run well for this long (or as long as its last backoff)."""
FAILURES_TO_FAIL = 2
FAILURES_TO_YIELD = 3
UNHEALTHY = "its health check fails"


@dataclass(frozen=True, slots=True)
class Slate:
    """``container``: the one whose end was counted last, so that it counts once. ``since_s``: running since then."""

    failures: int = 0
    retry_at_s: float = 0.0
    reason: str = ""
    counted: str = ""
    running: str = ""
    since_s: float = 0.0
    restarts: int = 0
    completed: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    slot: Slot
    service: Service


@dataclass(frozen=True, slots=True)
class Stop:
    container: Container
    why: str


Operation = Start | Stop

Containers = Mapping[Slot, Sequence[Container]]
"""What runs here of one deployment, by slot."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A slot that this node keeps, and the fingerprint of the container that keeps it."""

    slot: Slot
    service: Service
    fingerprint: str


def by_slot(containers: Iterable[Container]) -> dict[Slot, list[Container]]:
    found: dict[Slot, list[Container]] = {}
    for container in containers:
        found.setdefault(container.labels.slot, []).append(container)
    return found


def operations(
    wanted: Mapping[Slot, Wanted],
    unwanted: frozenset[Slot],
    containers: Containers,
    slates: Mapping[Slot, Slate],
    busy: frozenset[Slot],
    now: float,
) -> list[Operation]:
    """What has to be done now for the containers to be what was promised.

    ``unwanted``: slots that are positively known not to be this node's (any more). A container on a slot in neither set
    is left alone: absence is never permission (rule 5). ``busy``: slots with an operation under way.
    """
    todo: list[Operation] = []
    for slot in sorted(unwanted - busy):
        todo.extend(Stop(container, "not wanted here") for container in containers.get(slot, ()))
    for slot, want in wanted.items():
        if slot in busy:
            continue
        present = containers.get(slot, ())
        matching = [c for c in present if c.labels.fingerprint == want.fingerprint]
        running = [c for c in matching if c.state is ContainerState.RUNNING]
        keep = next(iter(running or matching), None)
        surplus = [c for c in present if c is not keep]
        if surplus:
            todo.extend(Stop(c, "replaced") for c in surplus)
            continue
        slate = slates.get(slot, Slate())
        if slate.completed or now < slate.retry_at_s:
            continue
        if keep is None or keep.state is not ContainerState.RUNNING:
            todo.append(Start(slot, want.service))
        elif keep.health is Health.UNHEALTHY and slate.counted == _incarnation(keep):
            todo.append(Stop(keep, UNHEALTHY))
    return todo


def backoff_s(policy: RestartPolicy, failures: int) -> float:
    doublings = min(max(1, failures) - 1, DOUBLINGS_MAX)
    return float(min(BACKOFF_S_MAX, max(DELAY_S_MIN, policy.delay_s) * 2**doublings))


def failed(slate: Slate, policy: RestartPolicy, reason: str, now: float, *, container: str = "") -> Slate:
    """A start that did not work, or a container that ended."""
    failures = slate.failures + 1
    return replace(
        slate,
        failures=failures,
        retry_at_s=now + backoff_s(policy, failures),
        reason=reason,
        counted=container,
        running="",
        restarts=slate.restarts + 1,
    )


def observe(slate: Slate, container: Container | None, policy: RestartPolicy, now: float) -> Slate:
    """Take in what a slot's container looks like now."""
    if container is None or container.state is ContainerState.CREATED:
        return replace(slate, running="") if slate.running else slate
    incarnation = _incarnation(container)
    if container.state is ContainerState.RUNNING:
        if slate.running != incarnation:
            slate = replace(slate, running=incarnation, since_s=now, completed=False)
        if container.health is Health.UNHEALTHY:
            if slate.counted == incarnation or not _may_restart(policy, slate):
                return slate
            return replace(failed(slate, policy, UNHEALTHY, now, container=incarnation), running=incarnation)
        steady = max(STEADY_S, backoff_s(policy, slate.failures)) if slate.failures else STEADY_S
        is_well = container.health is not Health.STARTING
        if slate.failures and is_well and now >= slate.since_s + steady:
            return replace(slate, failures=0, retry_at_s=0.0, reason="")
        return slate
    if slate.counted == incarnation or slate.completed:
        return slate
    clean = container.exit_code == 0
    if clean and policy.condition is RestartCondition.ON_FAILURE:
        return replace(slate, counted=incarnation, running="", completed=True, reason="")
    if not _may_restart(policy, slate):
        is_done = clean and policy.condition is RestartCondition.NONE
        reason = "" if is_done else _ending(container)
        return replace(slate, counted=incarnation, running="", completed=True, reason=reason)
    if slate.running == incarnation and not slate.failures and now >= slate.since_s + STEADY_S:
        # It ran well for a while: restart it at once, and count from there.
        first = failed(slate, policy, _ending(container), now, container=incarnation)
        return replace(first, retry_at_s=now)
    return failed(slate, policy, _ending(container), now, container=incarnation)


def _incarnation(container: Container) -> str:
    """One life of a container, which may be started more than once."""
    return f"{container.id}@{container.started_at_s}"


def _may_restart(policy: RestartPolicy, slate: Slate) -> bool:
    if policy.condition is RestartCondition.NONE:
        return False
    return not policy.attempts_max or slate.restarts < policy.attempts_max


def _ending(container: Container) -> str:
    code = "an unknown code" if container.exit_code is None else f"code {container.exit_code}"
    return f"the container ended with {code}" + (f": {container.reason}" if container.reason else "")


def settles_at_s(slate: Slate) -> float:
    """When a running container counts as healthy, if it runs until then."""
    needed = SETTLE_S if slate.failures == 0 else max(STEADY_S, SETTLE_S)
    return slate.since_s + needed


def outcome(promise: Promise, container: Container | None, slate: Slate, now: float) -> Promise:
    """The promise as its promiser now has to state it; equal to ``promise`` when nothing changed.

    Failing takes failures in a row, and healthy after failing takes a container that stays up, so a container that
    flaps does not write.
    """
    if slate.completed:
        if slate.reason:
            return replace(promise, state=PromiseState.FAILING, reason=slate.reason)
        return _healthy(promise)
    running = container is not None and container.state is ContainerState.RUNNING
    if running and container is not None:
        if container.health is Health.UNHEALTHY:
            return _failing(promise, slate, UNHEALTHY)
        well = container.health is Health.HEALTHY or (
            container.health is Health.NONE and slate.running != "" and now >= settles_at_s(slate)
        )
        if well and (slate.failures == 0 or now >= settles_at_s(slate)):
            return _healthy(promise)
        return promise
    if slate.failures >= FAILURES_TO_FAIL:
        return _failing(promise, slate, slate.reason)
    return promise


def _failing(promise: Promise, slate: Slate, reason: str) -> Promise:
    """``promise`` as one that is not kept. The first reason stays: what follows it would be a write each time."""
    first = promise.reason if promise.state is PromiseState.FAILING and promise.reason else reason
    yielding = promise.yielding or slate.failures >= FAILURES_TO_YIELD
    return replace(promise, state=PromiseState.FAILING, yielding=yielding, reason=first)


def _healthy(promise: Promise) -> Promise:
    if promise.state is PromiseState.HEALTHY and promise.once_healthy and not (promise.yielding or promise.reason):
        return promise
    return replace(promise, state=PromiseState.HEALTHY, once_healthy=True, yielding=False, reason="")
