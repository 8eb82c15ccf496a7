"""A network between virtual nodes: delays, losses, cuts. It carries frames; it does not look into them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from gossip import Lane, Peer
from gossip.transport import Credentials
from simulations.clock import Clock


@dataclass(frozen=True, slots=True)
class Link:
    """One-way delay drawn uniformly from ``delay_s``; ``loss`` is the chance that a frame vanishes."""

    delay_s: tuple[float, float] = (0.0002, 0.001)
    loss: float = 0.0


@dataclass(slots=True)
class Endpoint:
    """``credentials()``: what it shows and trusts now, with words in place of certificates (``simulations.notary``)."""

    node: str
    credentials: Callable[[], Credentials]
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
        self._guests: dict[str, tuple[str, Endpoint]] = {}
        self._expelled: set[tuple[str, str]] = set()
        self._shut: set[str] = set()

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

    def welcome(self, guest: str, address: str, endpoint: Endpoint) -> None:
        """Somebody at ``address`` who is no node yet; frames for it go by its name, on the connection that it made."""
        self._guests[guest] = (address, endpoint)

    def dismiss(self, guest: str) -> None:
        """The guest has gone."""
        self._guests.pop(guest, None)

    def expel(self, address: str, node: str) -> None:
        """Who lives at ``address`` has nothing to do with ``node`` any more."""
        self._expelled.add((address, node))

    def partition(self, sides: dict[str, int]) -> None:
        """Addresses on different sides do not hear each other; an empty dict heals."""
        self._sides = dict(sides)

    def deafen(self, source: str, target: str) -> None:
        """``target`` no longer hears ``source``; the other direction stays."""
        self._deaf.add((source, target))

    def shut(self, address: str) -> None:
        """Nobody connects to ``address`` any more; the connections that there are stay."""
        self._shut.add(address)

    def heal(self) -> None:
        self._sides = {}
        self._deaf.clear()

    def send(self, source: str, sender: str, peer: Peer, lane: Lane, frame: bytes) -> None:
        self.counters["frames"] += 1
        self.counters["bytes"] += len(frame)
        delay = self._rng.uniform(*self.link.delay_s)
        if peer.node in self._guests:
            peer = Peer(peer.node, self._guests[peer.node][0])
        cut = self._sides.get(source, 0) != self._sides.get(peer.address, 0) or (source, peer.address) in self._deaf
        if cut or peer.address in self._silent or (self.link.loss and self._rng.random() < self.link.loss):
            self.counters["lost"] += 1
            return
        origin = self._guests[sender][1] if sender in self._guests else self._endpoints.get(source)
        refusal = self._refusal(source, origin, peer, sender)
        if refusal is None:
            self._clock.after(delay, lambda: self._arrive(peer, sender, lane, frame))
            return
        self.counters["refused"] += 1
        if origin is not None:
            self._clock.after(2 * delay, lambda: origin.unreachable(peer, refusal))

    def reaches(self, source: str, target: str) -> str:
        """Why nobody at ``source`` can connect to ``target``; empty if they can."""
        cut = self._sides.get(source, 0) != self._sides.get(target, 0)
        if cut or target in self._silent | self._shut or {(source, target), (target, source)} & self._deaf:
            return "no answer"
        return "" if target in self._endpoints else "connection refused"

    def _refusal(self, source: str, origin: Endpoint | None, peer: Peer, sender: str) -> str | None:
        """Why there is no connection; None if there is one."""
        if peer.node in self._guests:
            return None
        target = self._endpoints.get(peer.address)
        if target is None:
            return "connection refused"
        if {(source, target.node), (peer.address, sender)} & self._expelled:
            return "it hung up"
        if origin is not None and not (_trusts(origin, target) and _trusts(target, origin)):
            return "not trusted: a certificate is refused"
        return None

    def _arrive(self, peer: Peer, sender: str, lane: Lane, frame: bytes) -> None:
        endpoint = self._guests[peer.node][1] if peer.node in self._guests else self._endpoints.get(peer.address)
        if endpoint is not None:
            endpoint.received(sender, lane, frame)


def _trusts(one: Endpoint, other: Endpoint) -> bool:
    """Whether a root that ``one`` trusts has signed something in the chain that ``other`` shows."""
    shown = other.credentials().certificate
    return any(f" by {root}>" in shown for root in one.credentials().roots)
