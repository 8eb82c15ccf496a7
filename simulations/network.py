"""A network between virtual nodes: delays, losses, cuts. It carries frames; it does not look into them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from gossip import Lane, Peer
from simulations.clock import Clock


@dataclass(frozen=True, slots=True)
class Link:
    """One-way delay drawn uniformly from ``delay_s``; ``loss`` is the chance that a frame vanishes."""

    delay_s: tuple[float, float] = (0.0002, 0.001)
    loss: float = 0.0


@dataclass(slots=True)
class Endpoint:
    node: str
    received: Callable[[str, Lane, bytes], None]
    unreachable: Callable[[Peer, str], None]


class Network:
    """Knows who lives at which address, and which pairs cannot hear each other."""

    def __init__(self, clock: Clock, rng: random.Random, link: Link) -> None:
        self._clock = clock
        self._rng = rng
        self.link = link
        self.counters: Counter[str] = Counter()
        self._endpoints: dict[str, Endpoint] = {}
        self._silent: set[str] = set()
        self._sides: dict[str, int] = {}
        self._deaf: set[tuple[str, str]] = set()

    @property
    def is_cut(self) -> bool:
        """Whether anybody cannot hear somebody."""
        return bool(self._sides or self._deaf)

    def attach(self, address: str, endpoint: Endpoint) -> None:
        self._endpoints[address] = endpoint
        self._silent.discard(address)

    def detach(self, address: str, *, host_is_up: bool) -> None:
        """The process is gone. A host that is up refuses connections; one that is down says nothing."""
        self._endpoints.pop(address, None)
        if not host_is_up:
            self._silent.add(address)

    def partition(self, sides: dict[str, int]) -> None:
        """Addresses on different sides do not hear each other; an empty dict heals."""
        self._sides = dict(sides)

    def deafen(self, source: str, target: str) -> None:
        """``target`` no longer hears ``source``; the other direction stays."""
        self._deaf.add((source, target))

    def heal(self) -> None:
        self._sides = {}
        self._deaf.clear()

    def send(self, source: str, sender: str, peer: Peer, lane: Lane, frame: bytes) -> None:
        self.counters["frames"] += 1
        self.counters["bytes"] += len(frame)
        delay = self._rng.uniform(*self.link.delay_s)
        cut = self._sides.get(source, 0) != self._sides.get(peer.address, 0) or (source, peer.address) in self._deaf
        if cut or peer.address in self._silent or (self.link.loss and self._rng.random() < self.link.loss):
            self.counters["lost"] += 1
            return
        if peer.address not in self._endpoints:
            origin = self._endpoints.get(source)
            if origin is not None:
                self._clock.after(2 * delay, lambda: origin.unreachable(peer, "connection refused"))
            return
        self._clock.after(delay, lambda: self._arrive(peer, sender, lane, frame))

    def _arrive(self, peer: Peer, sender: str, lane: Lane, frame: bytes) -> None:
        endpoint = self._endpoints.get(peer.address)
        if endpoint is not None:
            endpoint.received(sender, lane, frame)
