"""Random faults: what a bad day does to a cluster, drawn from one source of randomness, and its end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from gary.spec import Spec
from gary.storage import Table
from simulations.cluster import Cluster, Host
from simulations.network import Link

INVITATION_S = 24 * 3600
"""Longer than clocks jump."""


class BadDay:
    """Breaks things for a while. ``happened`` counts what really did: a fault that never struck proves nothing."""

    def __init__(self, cluster: Cluster, rng: random.Random, spec: Spec) -> None:
        self.happened: Counter[str] = Counter()
        self._cluster = cluster
        self._rng = rng
        self._spec = spec
        self._kinds: tuple[tuple[int, Callable[[], bool]], ...] = (
            (4, self._host_dies),
            (4, self._host_returns),
            (3, self._agent_restarts),
            (1, self._agent_stops),
            (1, self._disk_is_lost),
            (2, self._network_splits),
            (3, self._network_heals),
            (2, self._goes_deaf),
            (1, self._loses_frames),
            (2, self._engine_stops),
            (3, self._engine_returns),
            (2, self._disk_fills),
            (3, self._disk_has_room),
            (1, self._clock_jumps),
            (3, self._container_ends),
            (3, self._operator_scales),
        )

    def go_on(self, seconds: float, pause_s: tuple[float, float] = (0.5, 5.0)) -> None:
        """Let faults strike, one after the other, for so long."""
        end = self._cluster.clock.now + seconds
        weights = [weight for weight, _ in self._kinds]
        while self._cluster.clock.now < end:
            _, strike = self._rng.choices(self._kinds, weights)[0]
            if strike():
                self.happened[strike.__name__.strip("_")] += 1
            self._cluster.run(self._rng.uniform(*pause_s))

    def end(self) -> None:
        """Everything works again, and every host has power."""
        cluster = self._cluster
        cluster.heal()
        cluster.network.link = Link()
        for host in cluster.hosts:
            host.storage.failing = None
            host.engine.come_up()
            if host.agent is None:
                self._start(host)

    # The faults; each says whether it could strike

    def _host_dies(self) -> bool:
        live = self._cluster.live()
        if len(live) <= 2:
            return False
        self._cluster.kill(self._rng.choice(live))
        return True

    def _host_returns(self) -> bool:
        down = [host for host in self._cluster.hosts if host.agent is None]
        return bool(down) and self._start(self._rng.choice(down))

    def _agent_restarts(self) -> bool:
        host = self._rng.choice(self._cluster.live())
        self._cluster.kill(host, with_host=False)
        self._cluster.run(self._rng.uniform(0.0, 0.5))
        return self._start(host)

    def _agent_stops(self) -> bool:
        live = self._cluster.live()
        if len(live) <= 2:
            return False
        self._cluster.kill(self._rng.choice(live), with_host=False)
        return True

    def _disk_is_lost(self) -> bool:
        """At most one disk: a cluster that loses all copies of a document has lost it."""
        if self.happened["disk_is_lost"]:
            return False
        host = self._rng.choice(self._cluster.live())
        if len(self._holders()) < self._spec.resilience or self._cluster.network.is_cut:
            return False
        self._cluster.kill(host, with_host=False)
        host.storage.wipe()
        return self._start(host)

    def _network_splits(self) -> bool:
        hosts = list(self._cluster.hosts)
        self._rng.shuffle(hosts)
        at = self._rng.randint(1, len(hosts) - 1)
        self._cluster.partition(hosts[:at], hosts[at:])
        return True

    def _network_heals(self) -> bool:
        self._cluster.heal()
        self._cluster.network.link = Link()
        return True

    def _goes_deaf(self) -> bool:
        source, target = self._rng.sample(self._cluster.hosts, 2)
        self._cluster.network.deafen(source.address, target.address)
        return True

    def _loses_frames(self) -> bool:
        self._cluster.network.link = Link(delay_s=(0.0005, 0.02), loss=self._rng.uniform(0.01, 0.2))
        return True

    def _engine_stops(self) -> bool:
        self._rng.choice(self._cluster.hosts).engine.go_down()
        return True

    def _engine_returns(self) -> bool:
        for host in self._cluster.hosts:
            host.engine.come_up()
        return True

    def _disk_fills(self) -> bool:
        self._rng.choice(self._cluster.live()).storage.failing = "no space left on the disk"
        return True

    def _disk_has_room(self) -> bool:
        for host in self._cluster.hosts:
            host.storage.failing = None
        return True

    def _clock_jumps(self) -> bool:
        self._rng.choice(self._cluster.hosts).wall_skew_s = self._rng.choice((-3600.0, -1.0, 0.0, 1.0, 3600.0))
        return True

    def _container_ends(self) -> bool:
        now = self._cluster.clock.now
        running = [
            (host, container.id)
            for host in self._cluster.hosts
            for container in host.engine.present(now)
            if container.state.value == "running"
        ]
        if not running:
            return False
        host, container = self._rng.choice(running)
        host.engine.crash(container, now)
        return True

    def _operator_scales(self) -> bool:
        service = self._spec.services[0]
        count = self._rng.randint(1, 2 * service.replicas)
        arguments = {"app": self._spec.name, "services": {service.name: count}}
        self._cluster.post(self._rng.choice(self._holders() or self._cluster.live()), "scale", arguments)
        return True

    # Helpers

    def _start(self, host: Host) -> bool:
        host.storage.failing = None
        self._cluster.start(host)
        others = [other for other in self._cluster.live() if other is not host]
        if others and not host.storage.load().records[Table.PEER]:
            inviting = [other for other in others if other.storage.failing is None]
            token = self._cluster.invite(self._rng.choice(inviting), expires_s=INVITATION_S)
            self._cluster.post(host, "join", {"token": token})
        return True

    def _holders(self) -> list[Host]:
        return [host for host in self._cluster.live() if host.agent is not None and host.agent.deployments]
