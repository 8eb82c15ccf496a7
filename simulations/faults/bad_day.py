"""Random faults: what a bad day does to a cluster, drawn from one source of randomness, and its end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from gary.spec import Spec
from gary.storage import Table
from simulations.cluster import Cluster
from simulations.host import Host
from simulations.network import Link

INVITATION_S = OVERLAP_S = 24 * 3600
"""Longer than clocks jump and faults last."""
ORDER_S = 0.5
"""How long an operator waits for an answer."""
HOLDERS_MIN = 2
"""So many copies of a document have to be left on hosts that are not expelled."""
RENEWAL_S = 30.0
"""Within so long after the faults somebody can let others in again."""


class BadDay:
    """Breaks things for a while. ``happened`` counts what really did: a fault that never struck proves nothing."""

    def __init__(self, cluster: Cluster, rng: random.Random, spec: Spec) -> None:
        self.happened: Counter[str] = Counter()
        self._cluster = cluster
        self._rng = rng
        self._spec = spec
        self._expelled = ""
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
            (2, self._agent_stands_still),
            (3, self._agent_goes_on),
            (3, self._container_ends),
            (3, self._operator_scales),
            (1, self._operator_expels),
            (1, self._operator_rotates),
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
        """Everything works again, and every host has power. Who was expelled stays out."""
        cluster = self._cluster
        cluster.heal()
        cluster.network.link = Link()
        for host in cluster.hosts:
            host.storage.failing = None
            host.engine.come_up()
            if host.stands_still:
                cluster.resume(host)
            if host.agent is None:
                self._cluster.start(host)
        cluster.run_until(lambda: bool(self._inviting()), RENEWAL_S)
        for host in self._staying():
            self._join(host)

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
        host = self._rng.choice(self._staying())
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

    def _agent_stands_still(self) -> bool:
        self._cluster.pause(self._rng.choice(self._cluster.live()))
        return True

    def _agent_goes_on(self) -> bool:
        still = [host for host in self._cluster.hosts if host.stands_still]
        for host in still:
            self._cluster.resume(host)
        return bool(still)

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

    def _operator_expels(self) -> bool:
        """At most one host, and not one without which too few have the document."""
        if self._expelled:
            return False
        host, other = self._rng.choice(self._cluster.live()), self._rng.choice(self._cluster.live())
        if host is other or len([holder for holder in self._holders() if holder is not host]) < HOLDERS_MIN:
            return False
        self._expelled = host.name
        return self._order(other, "expel", {"node": host.node})

    def _operator_rotates(self) -> bool:
        return self._order(self._rng.choice(self._staying()), "rotate", {"overlap_s": OVERLAP_S})

    # Helpers

    def _order(self, host: Host, operation: str, arguments: Mapping[str, Any]) -> bool:
        """Give an order about the cluster; whether it was carried out. If not at once, it may be later."""
        number = self._cluster.post(host, operation, arguments)
        self._cluster.run(ORDER_S)
        return any(reply.last and reply.error is None for reply in host.replies[number])

    def _start(self, host: Host) -> bool:
        host.storage.failing = None
        self._cluster.start(host)
        self._join(host)
        return True

    def _join(self, host: Host) -> None:
        """Let a host into the cluster that has never been there, or has lost its disk; if anybody can."""
        inviting = [other for other in self._inviting() if other is not host]
        if inviting and not host.storage.load().records[Table.PEER]:
            token = self._cluster.invite(self._rng.choice(inviting), expires_s=INVITATION_S)
            self._cluster.post(host, "join", {"token": token})

    def _inviting(self) -> list[Host]:
        """Those that can let others in: they belong to the cluster, vouch for it and can write."""
        able = [host for host in self._staying() if host.storage.failing is None]
        return [h for h in able if h.agent and h.agent.standing.vouches and h.storage.load().records[Table.PEER]]

    def _holders(self) -> list[Host]:
        return [host for host in self._staying() if host.agent is not None and host.agent.deployments]

    def _staying(self) -> list[Host]:
        """The live hosts that nobody has expelled."""
        return [host for host in self._cluster.live() if host.name != self._expelled]
