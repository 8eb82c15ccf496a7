"""A network between virtual hosts: delays, losses, cuts, connections. It carries frames; it does not look into them.

Hosts talk over connections, as the real transport does. The first frame from one host to another dials, which costs
round trips and a handshake. What goes one way on one lane of a connection keeps its order: a packet that is lost and
sent again holds up everything behind it. A host's uplink carries so many bytes a second, and what does not fit waits,
up to a limit. Each lane is a connection of its own, so that a probe never waits behind a document.

``sent`` says how much was, and ``counters`` what really happened: ``dials`` made, ``refused``; and for each kind of
trouble how many frames it struck: ``lost``, ``cut``, ``stalled``, ``duplicated``, ``overtaken``, ``queued``,
``overflowed``, ``slowed``.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gossip import Lane, Peer
from gossip.transport import Credentials
from simulations.clock import Clock

RETRANSMIT_S = 0.2
"""After so long TCP sends again what was lost (Linux' shortest retransmission timeout, RFC 6298 with TCP_RTO_MIN)."""
DIAL_ROUND_TRIPS = 2.0
"""One for TCP's handshake, one more for that of TLS 1.2 with what can go along with it."""
UPLINK_QUEUE_S = 1.0
"""What would wait longer than that for its turn on a host's uplink is dropped."""
CONNECTIONS_MAX = 64
"""A host that needs another one hangs up on whom it has not talked to for the longest time."""

_PROBE: Final = Lane.PROBE


@dataclass(frozen=True, slots=True)
class Link:
    """How frames get from one host to another, one way. All chances are for a single frame.

    ``delay_s``: drawn uniformly from it; with a chance of ``tail`` there come as many as ``tail_s`` seconds on top, on
    average, exponentially distributed. ``loss``: it vanishes. ``stalls``: a packet is lost and sent again, and what is
    behind it waits. ``duplication``: it comes twice. ``reordering``: it does not wait for what was sent before.
    ``bytes_per_s``: how much a sender can send in all; 0: without limit.
    """

    delay_s: tuple[float, float] = (0.0002, 0.001)
    tail: float = 0.0
    tail_s: float = 0.01
    loss: float = 0.0
    stalls: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    bytes_per_s: float = 0.0

    @property
    def is_plain(self) -> bool:
        """Frames take their time, and that is all."""
        troubles = (self.tail, self.loss, self.stalls, self.duplication, self.reordering, self.bytes_per_s)
        return not any(troubles)


@dataclass(slots=True, eq=False)
class Endpoint:
    """``credentials()``: what it shows and trusts now, with words in place of certificates (``simulations.notary``)."""

    node: str
    credentials: Callable[[], Credentials]
    received: Callable[[str, Lane, bytes], None]
    unreachable: Callable[[Peer, str], None]


@dataclass(frozen=True, slots=True)
class Impairment:
    """Trouble between hosts. ``strikes(source, target)``: addresses; ``worsen``: what becomes of the link."""

    strikes: Callable[[str, str], bool]
    worsen: Callable[[Link], Link] | None
    """None: nothing gets through."""


@dataclass(slots=True, init=False)
class _Path:
    """One way between two addresses. ``version``: of the network, when the rest was found out."""

    version: int
    link: Link
    is_plain: bool
    is_cut: bool
    refusal: str | None
    origin: Endpoint | None
    target: Endpoint | None
    connected_origin: Endpoint | None
    connected_target: Endpoint | None
    """Between which a connection was made, which is of no use to others."""
    probe_at: float
    bulk_at: float
    """When the last frame of a lane arrived, or will."""

    def __init__(self, link: Link) -> None:
        self.version = -1
        self.link = link
        self.is_plain = True
        self.is_cut = False
        self.refusal = None
        self.origin = self.target = None
        self.connected_origin = self.connected_target = None
        self.probe_at = self.bulk_at = 0.0

    @property
    def used_at(self) -> float:
        """When the last frame arrived, or will."""
        return max(self.probe_at, self.bulk_at)


class _Source:
    """What an address sends: its ``paths``, by the address to which they lead, and how much it has sent in all.

    ``free_at``: when its uplink will have sent what it was given.
    """

    def __init__(self) -> None:
        self.paths: Final[dict[str, _Path]] = {}
        self.frames = 0
        self.size_bytes = 0
        self.free_at = 0.0


class Network:
    """Knows who lives at which address, and which pairs cannot hear each other.

    ``between(source, target)``: the link between two addresses when all is well. ``handshake_s``: the time that both
    ends of a new connection compute. ``counters``: where to count.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        link: Link,
        *,
        between: Callable[[str, str], Link] | None = None,
        handshake_s: float = 0.005,
        counters: defaultdict[str, int] | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._random = rng.random
        self._link = link
        self._between = between
        self._handshake_s = handshake_s
        self.counters: defaultdict[str, int] = defaultdict(int) if counters is None else counters
        self._endpoints: dict[str, Endpoint] = {}
        self._silent: set[str] = set()
        self._sides: dict[str, int] = {}
        self._deaf: set[tuple[str, str]] = set()
        self._guests: dict[str, tuple[str, Endpoint]] = {}
        self._expelled: set[tuple[str, str]] = set()
        self._shut: set[str] = set()
        self._impairments: dict[int, Impairment] = {}
        self._impaired = 0
        self._version = 0
        self._sources: dict[str, _Source] = {}

    # How it is made

    @property
    def link(self) -> Link:
        """The one between all hosts for which no other was said."""
        return self._link

    @link.setter
    def link(self, link: Link) -> None:
        self._link = link
        self.changed()

    def changed(self) -> None:
        """Somebody shows or trusts something else: what is known about who can talk to whom is not true any more."""
        self._version += 1

    @property
    def is_cut(self) -> bool:
        """Whether anybody cannot hear somebody."""
        return bool(self._sides or self._deaf or any(i.worsen is None for i in self._impairments.values()))

    def attach(self, address: str, endpoint: Endpoint) -> None:
        self._endpoints[address] = endpoint
        self._silent.discard(address)
        self.changed()

    def detach(self, address: str, *, host_is_up: bool) -> None:
        """The process is gone. A host that is up refuses connections; one that is down says nothing."""
        self._endpoints.pop(address, None)
        if not host_is_up:
            self._silent.add(address)
        self.changed()

    def welcome(self, guest: str, address: str, endpoint: Endpoint) -> None:
        """Somebody at ``address`` who is no node yet; frames for it go by its name, on the connection that it made."""
        self._guests[guest] = (address, endpoint)

    def dismiss(self, guest: str) -> None:
        """The guest has gone."""
        self._guests.pop(guest, None)

    def expel(self, address: str, node: str) -> None:
        """Who lives at ``address`` has nothing to do with ``node`` any more."""
        self._expelled.add((address, node))
        self.changed()

    # What goes wrong with it

    def impair(self, impairment: Impairment) -> Callable[[], None]:
        """Let there be trouble, until the function that this returns is called."""
        self._impaired += 1
        number = self._impaired
        self._impairments[number] = impairment
        self.changed()

        def mend() -> None:
            if self._impairments.pop(number, None) is not None:
                self.changed()

        return mend

    def partition(self, sides: Mapping[str, int]) -> None:
        """Addresses on different sides do not hear each other; an empty mapping heals."""
        self._sides = dict(sides)
        self.changed()

    def deafen(self, source: str, target: str) -> None:
        """``target`` no longer hears ``source``; the other direction stays."""
        self._deaf.add((source, target))
        self.changed()

    def shut(self, address: str) -> None:
        """Nobody connects to ``address`` any more; the connections that there are stay."""
        self._shut.add(address)

    def heal(self) -> None:
        """Nothing is wrong with it any more."""
        self._sides = {}
        self._deaf.clear()
        self._impairments.clear()
        self.changed()

    @property
    def sent(self) -> dict[str, int]:
        """How many ``frames`` and ``bytes`` have been sent in all."""
        sources = self._sources.values()
        return {"frames": sum(s.frames for s in sources), "bytes": sum(s.size_bytes for s in sources)}

    @property
    def sent_bytes(self) -> dict[str, int]:
        """By the address of the sender."""
        return {address: source.size_bytes for address, source in self._sources.items()}

    def reaches(self, source: str, target: str) -> str:
        """Why nobody at ``source`` can connect to ``target``; empty if they can."""
        if self._is_cut(source, target) or self._is_cut(target, source) or target in self._silent | self._shut:
            return "no answer"
        return "" if target in self._endpoints else "connection refused"

    # What it carries

    def send(self, source: str, sender: str, peer: Peer, lane: Lane, frame: bytes) -> None:
        """Carry ``frame`` from ``sender`` at the address ``source``; tells its endpoint if nobody takes it."""
        sending = self._sources.get(source) or self._source(source)
        sending.frames += 1
        sending.size_bytes += len(frame)
        if self._guests and (sender in self._guests or peer.node in self._guests):
            self._send_as_guest(source, sender, peer, lane, frame)
            return
        path = sending.paths.get(peer.address) or self._path(sending, peer.address)
        if path.version != self._version:
            self._find_out(path, source, peer.address)
        if path.is_cut:
            self.counters["cut"] += 1
        elif path.refusal is not None:
            self.counters["refused"] += 1
            if path.origin is not None:
                self._clock.after(2 * self._delay_s(path.link), path.origin.unreachable, peer, path.refusal)
        else:
            assert path.target is not None, "who is not there refuses"
            self._carry(path, path.target, sending, source, sender, peer.address, lane, frame)

    def _carry(
        self,
        path: _Path,
        target: Endpoint,
        sending: _Source,
        source: str,
        sender: str,
        to: str,
        lane: Lane,
        frame: bytes,
    ) -> None:
        link = path.link
        low, high = link.delay_s
        at = self._clock.now + low + (high - low) * self._random()
        if path.connected_origin is not path.origin or path.connected_target is not path.target:
            self._connect(path, source, to)
            at += 2.0 * DIAL_ROUND_TRIPS * (at - self._clock.now) + self._handshake_s
        copies, overtakes = 1, False
        if not path.is_plain:
            at, copies, overtakes = self._trouble(link, sending, len(frame), at)
        if not overtakes:
            if lane is _PROBE:
                at = path.probe_at = max(at, path.probe_at)
            else:
                at = path.bulk_at = max(at, path.bulk_at)
        for _ in range(copies):
            self._clock.after(at - self._clock.now, target.received, sender, lane, frame)

    def _trouble(self, link: Link, sending: _Source, size_bytes: int, at: float) -> tuple[float, int, bool]:
        """What becomes of a frame on a link that is not plain: when it arrives, how often, and whether out of turn."""
        random_, counters = self._random, self.counters
        if link.loss and random_() < link.loss:
            counters["lost"] += 1
            return at, 0, True
        if link.bytes_per_s:
            now = self._clock.now
            free_at = max(now, sending.free_at)
            if free_at - now > UPLINK_QUEUE_S:
                counters["overflowed"] += 1
                return at, 0, True
            if free_at > now:
                counters["queued"] += 1
            sending.free_at = free_at + size_bytes / link.bytes_per_s
            at += sending.free_at - now
        if link.tail and random_() < link.tail:
            counters["slowed"] += 1
            at += self._rng.expovariate(1.0 / link.tail_s)
        while link.stalls and random_() < link.stalls:
            counters["stalled"] += 1
            at += RETRANSMIT_S
        copies = 1
        if link.duplication and random_() < link.duplication:
            counters["duplicated"] += 1
            copies = 2
        overtakes = bool(link.reordering) and random_() < link.reordering
        counters["overtaken"] += overtakes
        return at, copies, overtakes

    def _source(self, address: str) -> _Source:
        source = self._sources[address] = _Source()
        return source

    def _path(self, sending: _Source, to: str) -> _Path:
        """A new way; with too many, that on which nothing has arrived for the longest time is given up."""
        paths = sending.paths
        if len(paths) >= CONNECTIONS_MAX:
            del paths[_longest_unused(paths)]
        path = paths[to] = _Path(self._link)
        return path

    def _connect(self, path: _Path, source: str, to: str) -> None:
        """There is a connection now, which serves both ways."""
        self.counters["dials"] += 1
        path.connected_origin, path.connected_target = path.origin, path.target
        path.probe_at = path.bulk_at = 0.0
        answering = self._sources.get(to) or self._source(to)
        back = answering.paths.get(source) or self._path(answering, source)
        back.connected_origin, back.connected_target = path.target, path.origin

    def _find_out(self, path: _Path, source: str, to: str) -> None:
        path.version = self._version
        path.origin, path.target = self._endpoints.get(source), self._endpoints.get(to)
        path.is_cut = self._is_cut(source, to) or to in self._silent
        if path.is_cut:
            path.connected_origin = path.connected_target = None
        path.refusal = None
        path.link = self._link_between(source, to)
        path.is_plain = path.link.is_plain
        if not path.is_cut:
            path.refusal = self._refusal(source, path.origin, to, path.origin.node if path.origin else "")

    def _link_between(self, source: str, to: str) -> Link:
        link = self._link if self._between is None else self._between(source, to)
        for impairment in self._impairments.values():
            if impairment.worsen is not None and impairment.strikes(source, to):
                link = impairment.worsen(link)
        return link

    def _is_cut(self, source: str, to: str) -> bool:
        if self._sides.get(source, 0) != self._sides.get(to, 0) or (source, to) in self._deaf:
            return True
        return any(i.worsen is None and i.strikes(source, to) for i in self._impairments.values())

    def _refusal(self, source: str, origin: Endpoint | None, to: str, sender: str) -> str | None:
        """Why there is no connection; None if there is one."""
        target = self._endpoints.get(to)
        if target is None:
            return "connection refused"
        if {(source, target.node), (to, sender)} & self._expelled:
            return "it hung up"
        if origin is not None and not (_trusts(origin, target) and _trusts(target, origin)):
            return "not trusted: a certificate is refused"
        return None

    def _delay_s(self, link: Link) -> float:
        return self._rng.uniform(*link.delay_s)

    def _send_as_guest(self, source: str, sender: str, peer: Peer, lane: Lane, frame: bytes) -> None:
        """A guest's connection has its own endpoint on its side, and frames for it go by its name."""
        to = self._guests[peer.node][0] if peer.node in self._guests else peer.address
        link = self._link_between(source, to)
        delay_s = self._delay_s(link)
        if self._is_cut(source, to) or to in self._silent:
            self.counters["cut"] += 1
            return
        if link.loss and self._rng.random() < link.loss:
            self.counters["lost"] += 1
            return
        if peer.node in self._guests:
            self._clock.after(delay_s, self._arrive_at_guest, peer.node, sender, lane, frame)
            return
        origin = self._guests[sender][1] if sender in self._guests else self._endpoints.get(source)
        refusal = self._refusal(source, origin, to, sender)
        if refusal is None:
            self._clock.after(delay_s, self._endpoints[to].received, sender, lane, frame)
            return
        self.counters["refused"] += 1
        if origin is not None:
            self._clock.after(2 * delay_s, origin.unreachable, peer, refusal)

    def _arrive_at_guest(self, guest: str, sender: str, lane: Lane, frame: bytes) -> None:
        if guest in self._guests:
            self._guests[guest][1].received(sender, lane, frame)


def _longest_unused(paths: Mapping[str, _Path]) -> str:
    oldest, found = math.inf, ""
    for to, path in paths.items():
        if path.used_at < oldest:
            oldest, found = path.used_at, to
    return found


def _trusts(one: Endpoint, other: Endpoint) -> bool:
    """Whether a root that ``one`` trusts has signed something in the chain that ``other`` shows."""
    shown = other.credentials().certificate
    return any(f" by {root}>" in shown for root in one.credentials().roots)
