"""One run of a scenario: form, let things happen, end the faults, wait until all is well, and judge."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

from gary import __version__
from gary.spec import Service, Spec, to_json
from simulations.build import build
from simulations.checkers import Checkers, healed, safety
from simulations.checkers.acknowledged import Acknowledged
from simulations.checkers.answering import Answering
from simulations.checkers.bearers import Bearers
from simulations.checkers.books import Books
from simulations.checkers.membership import staying
from simulations.checkers.steadiness import Steadiness
from simulations.entering import Entering
from simulations.faults.base import World
from simulations.faults.schedule import Schedule
from simulations.host import Host
from simulations.observer import Observer
from simulations.orders import Orders
from simulations.result import Check, Finding, Result
from simulations.scenarios.model import Deployments, Scenario

GLANCE_S = 0.1
BACKUP_S = 60.0
"""How often each disk is copied."""
SAMPLES = 300
FORMING_TIMEOUT_S = 120.0
REST_S = 20.0
CANARY_SIZE_MIN = 6
"""Shorter names may be anywhere by chance."""


class Run:
    """Play ``scenario``, up to ``until_s`` after the cluster was formed. ``replay``: the command that does it again."""

    def __init__(self, scenario: Scenario, replay: str = "", until_s: float = math.inf) -> None:
        self.scenario = scenario
        self._until_s = until_s
        self.cluster, self._hosts = build(scenario)
        self._rng = random.Random(f"happenings {scenario.seed}")
        self._entering = Entering(self.cluster, self._rng)
        self._specs = [spec for group in scenario.deployments for spec in _specs(group)]
        books = Books()
        bearers = Bearers(self.cluster, books)
        self.orders = Orders(self.cluster, bearers)
        watching = safety(books, _canaries(self._specs))
        self.checkers = Checkers(watching, healed(Acknowledged(self.orders, bearers), books), Steadiness(), Answering())
        self.cluster.watch(books, *self.checkers.safety)
        self.cluster.driver.ended = lambda host, error: self.checkers.answering.ended(self.cluster, host, error)
        self._schedule = Schedule(
            World(self.cluster, self._rng, self._entering.start, self._holders, self._order, self._apps)
        )
        self._observer: Observer | None = None
        self._wrong: list[Finding] = []
        self.result = Result(
            scenario=scenario.name,
            about=scenario.about,
            seed=scenario.seed,
            nodes=scenario.nodes,
            deployments=len(self._specs),
            version=__version__,
            replay=replay,
            is_whole=False,
        )

    def steps(self) -> Iterator[float]:
        """Do it, pausing now and then: gives the seconds since the cluster was formed."""
        yield from self._form()
        observer = self._observer = Observer(self.cluster, self.cluster.clock.now)
        self._plan()
        yield from self._let_happen(self.scenario.for_s)
        if self._is_stopped():
            return
        self._schedule.end()
        self._start_all()
        yield from self._recover(observer)
        self.checkers.steadiness.begin(self.cluster)
        yield from self._let_happen(REST_S)
        if self._is_stopped():
            return
        self.checkers.steadiness.end(self.cluster)
        self._expect(observer)
        self.result.is_whole = True

    def report(self) -> Result:
        """What it has shown so far; after ``steps`` all of it."""
        observer, result = self._observer, self.result
        result.checks = [*self.checkers.checks(), *self._own_checks()]
        result.findings = sorted([*self.checkers.findings, *self._wrong], key=lambda f: (f.at_s, f.check, f.said))
        result.happenings = self._schedule.happenings
        result.counters = dict(sorted({**self.cluster.counters, **self.cluster.network.sent}.items()))
        result.trace = self.cluster.trace
        if observer is not None:
            observer.end()
            result.simulated_s = observer.now
            result.samples, result.recoveries, result.promises = (
                observer.samples,
                observer.recoveries,
                observer.promises,
            )
        return result

    # What happens

    def _form(self) -> Iterator[float]:
        first = [host for host, group in self._hosts if group.joins_s is None]
        if self.scenario.forming == "at once":
            self.cluster.form(first)
        else:
            self.cluster.join_all(first)
        waited_s = 0.0
        while not self.cluster.sees_all() and waited_s < FORMING_TIMEOUT_S:
            self.cluster.run(1.0)
            waited_s += 1.0
            yield 0.0
        self.result.formed_s = self.cluster.clock.now
        if not self.cluster.sees_all():
            self._say("forming", f"not all see all after {FORMING_TIMEOUT_S:g} s")

    def _plan(self) -> None:
        after = self.cluster.clock.after
        for host, group in self._hosts:
            if group.joins_s is not None:
                after(group.joins_s + self._rng.uniform(0.0, group.within_s), self._entering.start, host)
        specs = iter(self._specs)
        for deployments in self.scenario.deployments:
            for _ in _specs(deployments):
                after(deployments.at_s + self._rng.uniform(0.0, deployments.within_s), self._deploy, next(specs))
        self._back_up()
        self._schedule.begin(self.scenario.faults, self.scenario.chance)

    def _back_up(self) -> None:
        for host in self.cluster.live():
            host.backup = host.storage.copy()
        self.cluster.clock.after(BACKUP_S, self._back_up)

    def _let_happen(self, seconds: float) -> Iterator[float]:
        observer = self._observer
        assert observer is not None
        sample_s = max(0.5, round(self.scenario.for_s / SAMPLES, 1))
        until = min(self.cluster.clock.now + seconds, self.result.formed_s + self._until_s)
        sampled = self.cluster.clock.now
        while self.cluster.clock.now < until:
            self.cluster.run(min(GLANCE_S, until - self.cluster.clock.now))
            observer.glance()
            self._entering.look()
            if self.cluster.clock.now - sampled >= sample_s - GLANCE_S / 2:
                sampled = self.cluster.clock.now
                observer.sample(self._schedule.at_work)
                for checker in self.checkers.safety:
                    checker.look(self.cluster)
                yield observer.now

    def _is_stopped(self) -> bool:
        """Whether it was to go on so far only."""
        return self.cluster.clock.now >= self.result.formed_s + self._until_s

    def _recover(self, observer: Observer) -> Iterator[float]:
        """Until all is well, or time is over."""
        within_s = self.scenario.expect.whole_within_s
        until = self.cluster.clock.now + within_s
        problems = self._problems()
        while problems and self.cluster.clock.now < until and not self._is_stopped():
            yield from self._let_happen(1.0)
            problems = self._problems()
        for check, said in problems:
            self._wrong.append(Finding(check, observer.now, f"{said}, {within_s:g} s after the last fault"))

    def _problems(self) -> list[tuple[str, str]]:
        problems: list[tuple[str, str]] = []
        for checker in self.checkers.healed:
            problems += [(checker.name, said) for said in checker.judge(self.cluster)]
            if problems:
                break  # What is wrong with the membership makes the rest wrong, too.
        return problems

    def _expect(self, observer: Observer) -> None:
        expect = self.scenario.expect
        for said in (*self._schedule.unproven, *self._schedule.missed):
            self._say("faults", said)
        if self._specs and not any(sample.kept for sample in observer.samples):
            self._say("kept", "nothing that was deployed ever ran")
        for sample in observer.samples:
            if sample.lost > (1.0 - expect.kept) * sample.wanted:
                self._say("kept", f"{sample.lost} of {sample.wanted} slots ran no more at {sample.at_s:.1f} s")
                break
        for recovery in observer.recoveries:
            if expect.recovery_s is not None and (recovery.took_s is None or recovery.took_s > expect.recovery_s):
                took = "for ever" if recovery.took_s is None else f"for {recovery.took_s:.1f} s"
                self._say("recovery", f"{recovery.slot} of {recovery.deployment} did not run {took}")
        if expect.sent_bytes_per_s is not None:
            passed_s = max(1e-9, observer.now) * self.scenario.nodes
            rate = self.cluster.network.sent["bytes"] / passed_s
            if rate > expect.sent_bytes_per_s:
                self._say("traffic", f"agents sent {rate:.0f} bytes a second on average")

    def _own_checks(self) -> list[Check]:
        about = {
            "forming": "the cluster forms",
            "faults": "each fault really happened",
            "kept": "as many slots run at all times as expected",
            "recovery": "no slot is without a container for longer than expected",
            "traffic": "agents send no more than expected",
        }
        return [Check(name, said, sum(f.check == name for f in self._wrong)) for name, said in about.items()]

    def _say(self, check: str, said: str) -> None:
        self._wrong.append(Finding(check, self._observer.now if self._observer else 0.0, said))

    # What faults and operators do through it

    def _start_all(self) -> None:
        for host, _ in self._hosts:
            if host.agent is None:
                self._entering.start(host)
            else:
                self._entering.see_to(host)

    def _holders(self, app: str) -> list[Host]:
        return [
            host
            for host in staying(self.cluster)
            if host.agent is not None
            and any(not app or deployment.state.name == app for deployment in host.agent.deployments.values())
        ]

    def _apps(self) -> list[str]:
        removed = {order.app for order in self.orders.given if order.operation == "remove"}
        return [spec.name for spec in self._specs if spec.name not in removed]

    def _order(self, host: Host, operation: str, app: str, arguments: dict[str, object]) -> None:
        self.orders.give(host, operation, app, arguments)

    def _deploy(self, spec: Spec) -> None:
        able = [host for host in staying(self.cluster) if not host.stands_still]
        if able:
            self.orders.give(self._rng.choice(able), "deploy", spec.name, {"spec": to_json(spec)})


def _specs(group: Deployments) -> list[Spec]:
    names = [group.name] if group.count == 1 else [f"{group.name}-{number}" for number in range(1, group.count + 1)]
    if group.compose is not None:
        names = [name.replace(group.name, group.compose.name, 1) for name in names]
        return [replace(group.compose, name=name) for name in names]
    return [Spec(name, (Service("web", image=group.image, replicas=group.replicas),)) for name in names]


def _canaries(specs: list[Spec]) -> list[bytes]:
    words = {spec.name for spec in specs} | {service.image for spec in specs for service in spec.services}
    return [word.encode() for word in sorted(words) if len(word) >= CANARY_SIZE_MIN]
