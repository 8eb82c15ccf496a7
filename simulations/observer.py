"""What there is to see in a cluster from outside, and what became of it: samples, recoveries, promises over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gary.assignment import wanted_slots
from gary.identity import DeploymentId, NodeId, Slot
from gary.runtime.base import ContainerState
from gary.state import PromiseState, State
from simulations.checkers.membership import staying
from simulations.cluster import Cluster
from simulations.host import Host
from simulations.result import Promise, Recovery, Sample
from simulations.sight import Edition, Sight


class Observer:
    """Looks at a cluster again and again. Times are since ``began_s``."""

    def __init__(self, cluster: Cluster, began_s: float) -> None:
        self.samples: list[Sample] = []
        self.recoveries: list[Recovery] = []
        self._cluster = cluster
        self._began_s = began_s
        self._engines = _Engines(cluster)
        self._sight = Sight()
        self._hosts: dict[NodeId, str] = {}
        self._promises = _Promises()
        self._wanted: dict[DeploymentId, tuple[State, Edition, Sequence[Slot]]] = {}
        self._names: dict[DeploymentId, str] = {}
        self._kept: set[tuple[DeploymentId, Slot]] = set()
        self._lost: dict[tuple[DeploymentId, Slot], float] = {}
        self._sampled_s = cluster.clock.now
        self._sent = cluster.network.sent_bytes

    @property
    def now(self) -> float:
        return self._cluster.clock.now - self._began_s

    @property
    def lost(self) -> Mapping[tuple[str, Slot], float]:
        """The slots that have run, ought to, and do not, and since when; by the deployment's name."""
        return {(self._names[id], slot): since for (id, slot), since in self._lost.items()}

    @property
    def promises(self) -> list[Promise]:
        """Who promised what, in the order of deployments, slots and time."""
        return self._promises.spans()

    def glance(self) -> None:
        """See which slots have stopped to run or run again."""
        if self._engines.look():
            self._compare()

    def _compare(self) -> None:
        running = self._engines.running
        wanted = {(id, slot) for id, (_, _, slots) in self._wanted.items() for slot in slots}
        for key in [key for key in self._kept if key not in running and key in wanted]:
            self._lost.setdefault(key, self.now)
        for key in [key for key in self._lost if key in running or key not in wanted]:
            since = self._lost.pop(key)
            if key in wanted:
                self.recoveries.append(Recovery(self._names[key[0]], key[1], since, self.now - since))
        self._kept = {key for key in running if key in wanted}

    def sample(self, faults: int) -> Sample:
        """See everything. ``faults``: how many are at work."""
        states = self._states()
        live = self._cluster.live()
        self._hosts.update({host.node: host.name for host in live})
        for id, (state, host) in states.items():
            self._remember(id, state, host)
            self._promises.see(state, self._hosts, self.now)
        for id in [id for id in self._wanted if id not in states]:
            del self._wanted[id]
        self._engines.look()
        self._compare()
        wanted = [(id, slot) for id, (_, _, slots) in self._wanted.items() for slot in slots]
        sizes = [
            deployment.document.replica.size_bytes
            for host in live
            if host.agent is not None
            for deployment in host.agent.deployments.values()
        ]
        rates = self._rates(live)
        running = self._engines.running
        sample = Sample(
            at_s=self.now,
            up=len(live),
            converged=self._converged(),
            wanted=len(wanted),
            kept=sum(key in running for key in wanted),
            doubled=sum(running.get(key, 0) > 1 for key in wanted),
            lost=len(self._lost),
            bytes_mean=sum(rates) / len(rates) if rates else 0.0,
            bytes_max=max(rates, default=0.0),
            documents=len(sizes),
            document_bytes_mean=sum(sizes) / len(sizes) if sizes else 0.0,
            document_bytes_max=max(sizes, default=0),
            faults=faults,
        )
        self.samples.append(sample)
        return sample

    def end(self) -> None:
        """What has not come back by now never did."""
        self.recoveries += [Recovery(name, slot, since, None) for (name, slot), since in sorted(self.lost.items())]
        self._lost.clear()

    # Inside

    def _states(self) -> dict[DeploymentId, tuple[State, Host]]:
        """Of each deployment what the first live member says."""
        found: dict[DeploymentId, tuple[State, Host]] = {}
        for host in self._cluster.live():
            assert host.agent is not None
            for id, deployment in host.agent.deployments.items():
                if id not in found and deployment.state.spec is not None:
                    found[id] = deployment.state, host
        return found

    def _remember(self, id: DeploymentId, state: State, host: Host) -> None:
        assert host.agent is not None
        known, alive = self._wanted.get(id), Edition.of(host.agent.alive)
        if known is None or known[0] is not state or known[1] != alive:
            self._wanted[id] = state, alive, wanted_slots(state, host.agent.view(state))
            self._names[id] = state.name

    def _converged(self) -> float:
        """The share of the members that see the truth; the expelled see nobody, and nobody sees them."""
        members = staying(self._cluster)
        return (len(members) - len(self._sight.mistaken(members))) / len(members) if members else 1.0

    def _rates(self, live: Sequence[Host]) -> list[float]:
        passed_s = self._cluster.clock.now - self._sampled_s
        sent = self._cluster.network.sent_bytes
        rates = (
            [(sent.get(h.address, 0) - self._sent.get(h.address, 0)) / passed_s for h in live] if passed_s > 0 else []
        )
        self._sampled_s, self._sent = self._cluster.clock.now, sent
        return rates


class _Engines:
    """Which slots run, kept as engines change."""

    def __init__(self, cluster: Cluster) -> None:
        self.running: dict[tuple[DeploymentId, Slot], int] = {}
        self._cluster = cluster
        self._of: dict[str, list[tuple[DeploymentId, Slot]]] = {}
        self._changed: dict[str, Host] = {}
        self._due: dict[str, tuple[Host, float]] = {}
        self._watched = 0

    def look(self) -> bool:
        """Whether anything may have changed since the last time."""
        now = self._cluster.clock.now
        for host in self._cluster.hosts[self._watched :]:
            host.engine.listen(self._noting(host))
            self._changed[host.name] = host
        self._watched = len(self._cluster.hosts)
        for host, at in list(self._due.values()):
            if at <= now:
                self._changed[host.name] = host
        changed, self._changed = self._changed, {}
        for name, host in changed.items():
            for key in self._of.pop(name, ()):
                self.running[key] -= 1
                if not self.running[key]:
                    del self.running[key]
            self._of[name] = [
                (container.labels.deployment, container.labels.slot)
                for container in host.engine.present(now)
                if container.state is ContainerState.RUNNING
            ]
            for key in self._of[name]:
                self.running[key] = self.running.get(key, 0) + 1
            due = host.engine.next_change_s(now)
            self._due.pop(name, None)
            if due is not None:
                self._due[name] = host, due
        return bool(changed)

    def _noting(self, host: Host) -> Callable[[], None]:
        def note() -> None:
            self._changed[host.name] = host

        return note


class _Promises:
    """Who promised what from when until when."""

    def __init__(self) -> None:
        self._over: list[Promise] = []
        self._open: dict[tuple[str, Slot, NodeId], Promise] = {}
        self._seen: dict[str, State] = {}

    def see(self, state: State, names: Mapping[NodeId, str], now: float) -> None:
        if self._seen.get(state.name) is state:
            return
        self._seen[state.name] = state
        said = {
            (state.name, promise.slot, promise.node): promise
            for promise in state.promises
            if promise.state is not PromiseState.WITHDRAWN
        }
        for key in [key for key in self._open if key[0] == state.name]:
            if key not in said or said[key].state.value != self._open[key].state:
                self._over.append(replace(self._open.pop(key), until_s=now))
        for key, promise in said.items():
            if key not in self._open:
                host = names.get(promise.node, promise.node[:6])
                self._open[key] = Promise(host, state.name, promise.slot, promise.state.value, now, None)

    def spans(self) -> list[Promise]:
        spans = [*self._over, *self._open.values()]
        return sorted(spans, key=lambda p: (p.deployment, p.slot, p.from_s, p.host, p.state))
