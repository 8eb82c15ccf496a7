"""Finding out who does not answer.

One member is pinged per interval. A ping that is not acked in time, or is refused outright, is tried again through
relays, and directly once more; what is not acked within its window has failed, and the member is accused. An
accusation is not yet a death: see ``gossip.suspicion``.

The second direct ping is for connections: one that breaks takes the ping with it, and while a member opens its listener
anew everybody is refused for a moment, relays as well. Where everybody is refused again, the probe has failed at once.

All these times are longer for a node that is itself unwell (``gossip.health``): relays say so when they have no answer,
so that of one who hears neither acks nor that, it can be told who is to blame.

Members are also probed out of turn, soon and with jitter, when there is reason to doubt them: somebody else accuses
them, a frame to them was refused, or they were asked to relay and stayed silent. That is what brings confirmations
within one probe's time, and it finds the many that vanish at once.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gossip.config import SwimConfig
from gossip.digest import Digest
from gossip.directory import Publication
from gossip.effects import TimerKind
from gossip.health import LocalHealth
from gossip.member import Claim, Status
from gossip.membership import Membership, Roster
from gossip.messages import Ack, Message, Nack, Ping, PingRequest
from gossip.outbox import Outbox
from gossip.suspicion import Suspicions
from gossip.transport import Lane, Peer

# A relay says that it has no answer a little before the one who asked stops waiting (Lifeguard).
_NACK_AT: Final = 0.8
# As a share of the time for a direct ping: how long after a refusal it is tried again.
_AGAIN_AT: Final = 0.25
_NOBODY: Final[dict[str, None]] = {}


class Rotation:
    """Whose turn it is: round-robin over a subset of the members, in an order drawn by chance, that slowly changes."""

    def __init__(self, config: SwimConfig, rng: random.Random, candidates: Roster) -> None:
        self._config = config
        self._rng = rng
        self._candidates = candidates
        self._subset: list[str] = []
        self._turn: list[str] = []
        self._rounds = 0
        # As of then, everybody in the subset was a candidate.
        self._changes_seen = -1

    def take_in(self, node: str) -> None:
        """Let ``node`` have its turn soon, in place of another: it is new, and few others know that it is there."""
        is_full = len(self._subset) >= self._config.probe_subset
        if is_full and node in self._candidates and node not in self._subset:
            self._subset[self._rng.randrange(len(self._subset))] = node
            self._turn.insert(self._rng.randint(0, len(self._turn)), node)

    @property
    def subset(self) -> Sequence[str]:
        """The members whose turn comes, and perhaps some that are gone."""
        return self._subset

    def next(self) -> str | None:
        """The next member to probe; None when there is none."""
        for _ in range(2):
            while self._turn:
                node = self._turn.pop()
                if self._candidates.changes == self._changes_seen or node in self._candidates:
                    return node
            self._new_round()
        return None

    def _new_round(self) -> None:
        # The order stays from round to round: each member's turn then comes after the same time, where a new shuffle
        # could leave almost two rounds between two probes of one member.
        subset = self._subset
        if self._candidates.changes != self._changes_seen:
            self._changes_seen = self._candidates.changes
            subset = [node for node in subset if node in self._candidates]
        size = min(self._config.probe_subset, len(self._candidates))
        self._rounds += 1
        is_time = self._rounds % self._config.probe_rotation_rounds == 0
        if is_time and subset and len(self._candidates) > self._config.probe_subset:
            del subset[self._rng.randrange(len(subset))]
        if len(subset) < size:
            for node in self._candidates.sample(self._rng, size - len(subset), without=subset):
                subset.insert(self._rng.randint(0, len(subset)), node)
        self._subset = subset
        self._turn = subset[::-1]


@dataclass(slots=True, init=False)
class Flight:
    """A probe of our own that is under way.

    ``key``: that of its timer. ``pings`` counts the direct ones so far, at most two, and ``refused`` is about the
    second. ``silent`` holds the relays that have said nothing yet. ``excused``: it got more time, because this node
    stood still. At ``ends_at`` it has failed; the timer for that is set in place of that for the direct ping, since
    most probes are over by then.
    """

    node: str
    sequence: int
    key: str
    ends_at: float
    pings: int
    relayed: bool
    refused: bool
    excused: bool
    relays: tuple[str, ...]
    silent: dict[str, None]

    def __init__(self, node: str, sequence: int, ends_at: float) -> None:
        self.node = node
        self.sequence = sequence
        self.key = str(sequence)
        self.ends_at = ends_at
        self.pings = 1
        self.relayed = self.refused = self.excused = False
        self.relays = ()
        self.silent = _NOBODY


@dataclass(slots=True)
class Relayed:
    """A ping sent for somebody else."""

    target: str
    requester: str
    requester_sequence: int
    nacked: bool = False


class Prober:
    """The probes that this node makes, for itself and for others."""

    def __init__(
        self,
        *,
        config: SwimConfig,
        rng: random.Random,
        membership: Membership,
        suspicions: Suspicions,
        health: LocalHealth,
        outbox: Outbox,
        counters: defaultdict[str, int],
        digest: Digest,
        mark: Callable[[], int],
        claim_about: Callable[[str, float], Claim],
        accuse: Callable[[str, float], None],
    ) -> None:
        self._config = config
        self._rng = rng
        self._membership = membership
        self._suspicions = suspicions
        self._health = health
        self._outbox = outbox
        self._counters = counters
        self._digest = digest
        self._mark = mark
        self._claim_about = claim_about
        self._accuse = accuse
        self.probes = 0
        self._rotation = Rotation(config, rng, membership.live_others)
        self._sequence = rng.getrandbits(32)
        self._flights: dict[int, Flight] = {}
        self._sequence_of: dict[str, int] = {}
        self._relayed: dict[int, Relayed] = {}
        self._early: dict[str, None] = {}
        self._contacts: list[str] = []

    # Whom to probe, and when

    def start(self) -> None:
        """Begin to probe, at a random point of the interval."""
        self._outbox.arm(TimerKind.PROBE, self._rng.uniform(0, self._config.probe_period_s(self._membership.size)))

    def stop(self) -> None:
        """Probe nobody any more, except for others."""
        self._outbox.disarm(TimerKind.PROBE)
        for flight in list(self._flights.values()):
            self._land(flight)
        for node in list(self._early):
            self._cancel_early(node)

    def turn(self, now: float) -> None:
        """It is time to probe the next member."""
        period_s = self._config.probe_period_s(self._membership.size)
        self._outbox.arm(TimerKind.PROBE, self._health.scaled(period_s))
        node = self._rotation.next()
        if node is not None:
            self._probe(node, now)

    def audience(self, count: int) -> list[str]:
        """Up to ``count`` members to tell news to: suspects last, if it is sure that pings tell them of it soon."""
        return self._near(count, suspects_last=self._config.buddy and self._config.probe_early_peers > 0)

    def _near(self, count: int, *, without: str = "", suspects_last: bool) -> list[str]:
        """Up to ``count`` members to talk to, at random: those that most likely listen, and at least expense.

        In a large cluster these are members whose turn comes anyway. Who has been heard of late is connected; a member
        that has just joined, or is back, opens a few connections, and not one to everybody in the same moment.
        """
        everybody, fanout = self._membership.live_others, self._config.gossip_fanout
        is_large = len(everybody) > self._config.probe_subset
        undrawn = list(self._rotation.subset if is_large else everybody)
        recently = self._outbox.now - 2 * self._config.probe_subset * self._config.probe_interval_s
        # Drawn one after the other, since almost always the first few will do.
        connected: list[str] = []
        strangers: list[str] = []
        suspects: list[str] = []
        while undrawn and len(connected) < max(count, fanout + 1):
            index = int(self._rng.random() * len(undrawn))
            node, undrawn[index] = undrawn[index], undrawn[-1]
            del undrawn[-1]
            if node == without or node not in everybody:
                continue
            if suspects_last and self._suspicions.is_suspect(node):
                suspects.append(node)
                continue
            is_connected = (self._membership.heard_at(node) or -math.inf) > recently
            (connected if is_connected else strangers).append(node)
        if len(connected) <= fanout:
            listening = strangers if connected or strangers else suspects
            connected += self._first_contacts(fanout + 1 - len(connected), listening)
        return self._rng.sample(connected, min(count, len(connected)))

    def _first_contacts(self, count: int, strangers: Sequence[str]) -> list[str]:
        """``count`` members to open a connection to; the same ones again until they have answered."""
        self._contacts = [node for node in self._contacts if node in strangers]
        others = [node for node in strangers if node not in self._contacts]
        missing = min(count - len(self._contacts), len(others))
        self._contacts += self._rng.sample(others, max(0, missing))
        return self._contacts[:count]

    def doubt(self, node: str) -> None:
        """There is reason to probe ``node`` out of turn."""
        doubted = node in self._early or node in self._sequence_of or self._accuses(node)
        if doubted or len(self._early) >= self._config.probe_early_peers:
            return
        self._early[node] = None
        self._outbox.arm(TimerKind.PROBE_EARLY, self._rng.uniform(0, self._config.probe_early_jitter_s), node)

    def doubt_with_others(self, node: str) -> None:
        """Likewise, when all the cluster has the same reason: enough members do it, wherever the cluster is large."""
        if self._rng.random() * self._membership.size < self._config.probe_early_peers:
            self.doubt(node)

    def early(self, node: str, now: float) -> None:
        """The time for a probe out of turn has come."""
        self._early.pop(node, None)
        if not self._accuses(node):
            self._probe(node, now, is_doubted=True)

    def forget(self, node: str) -> None:
        """``node`` is down or gone: what is under way to it ends without a verdict."""
        self._cancel_early(node)
        sequence = self._sequence_of.get(node)
        if sequence is not None:
            self._land(self._flights[sequence])

    def ping(self, peer: Peer, now: float) -> None:
        """Ping without waiting for an answer: whoever is there will make itself known."""
        self._sequence += 1
        self._send_ping(peer, self._sequence, now)

    def ping_with_others(self, peer: Peer, now: float) -> None:
        """Likewise, when all the cluster has the same reason."""
        if self._rng.random() * self._membership.size < self._config.probe_early_peers:
            self.ping(peer, now)

    # What is heard

    def pinged(self, sender: Peer, ping: Ping, now: float, lacking: Sequence[Claim | Publication]) -> None:
        """Somebody asks whether we are there, and lacks ``lacking``, as can be seen from the digest in its question.

        Whoever knows what we know, or would with that, gets no other news about members.
        """
        if self._membership.heard_at(sender.node) is None:
            self._rotation.take_in(sender.node)
        ack, doubts = Ack(ping.sequence, self._digest.total, self._mark()), self._doubts_about(sender, now)
        is_level = self._config.tell_lacking and (bool(lacking) or ping.digest == ack.digest)
        self._outbox.send_with_news(sender, [ack, *doubts, *lacking], view_news=not is_level)

    def acked(self, sender: str, ack: Ack) -> None:
        """An ack, from the member that was pinged or from a relay."""
        flight = self._flights.get(ack.sequence)
        if flight is not None:
            if sender == flight.node or sender in flight.relays:
                self._land(flight)
                self._health.better()
            return
        relayed = self._relayed.get(ack.sequence)
        if relayed is not None and relayed.target == sender:
            self._end_relayed(ack.sequence)
            self._answer(relayed, Ack(relayed.requester_sequence, self._digest.total, self._mark()))

    def asked(self, sender: str, request: PingRequest, now: float) -> None:
        """Somebody asks us to ping another member."""
        target = self._membership.get(request.target)
        of_sender = sum(relayed.requester == sender for relayed in self._relayed.values())
        if len(self._relayed) >= self._config.relayed_probes_max or of_sender >= self._config.relayed_probes_per_member:
            self._counters["drop_relayed_probe"] += 1
            return
        relayed = Relayed(request.target, sender, request.sequence)
        if target is None or target.node == self._membership.node:
            self._answer(relayed, Nack(request.sequence))
            return
        self._sequence += 1
        self._relayed[self._sequence] = relayed
        delay_s = self._config.probe_timeout_s * _NACK_AT
        self._outbox.arm(TimerKind.RELAY, delay_s, str(self._sequence))
        self._ping_doubted(Peer(target.node, target.address), self._sequence, now)

    def nacked(self, sender: str, nack: Nack, now: float) -> None:
        """A relay is there, but has got no answer."""
        flight = self._flights.get(nack.sequence)
        if flight is not None and sender in flight.silent:
            self._without_relay(flight, sender, now)

    def hung_up(self, node: str) -> None:
        """``node`` has ended the connection, as it does to everybody when its process ends: some look after it."""
        if node in self._membership.live_others:
            self.doubt_with_others(node)

    def refused(self, node: str, now: float) -> None:
        """A frame to ``node`` could not be delivered, for certain."""
        sequence = self._sequence_of.get(node)
        if sequence is None:
            # Whoever relays has not found out by itself: if each of them asked relays in turn, soon everybody would.
            is_relayed = any(relayed.target == node for relayed in self._relayed.values())
            if node in self._membership.live_others:
                (self.doubt_with_others if is_relayed else self.doubt)(node)
        else:
            self._refused(self._flights[sequence], now)
        for own_sequence, relayed in list(self._relayed.items()):
            if relayed.target == node and not relayed.nacked:
                self._end_relayed(own_sequence)
                self._answer(relayed, Nack(relayed.requester_sequence))
        for flight in list(self._flights.values()):
            if node in flight.silent:
                self._without_relay(flight, node, now)

    # What times out

    def direct_timeout(self, sequence: int, now: float) -> None:
        """The direct ping was not acked in time, or it was refused a moment ago."""
        flight = self._flights.get(sequence)
        if flight is None:
            return
        if not flight.relayed:
            self._ask_relays(flight)
        flight.pings += 1
        self._outbox.arm(TimerKind.PROBE_END, flight.ends_at - now, flight.key)
        member = self._membership.get(flight.node)
        assert member is not None, "the flight to a member that is forgotten has ended"
        self._ping_doubted(Peer(flight.node, member.address), sequence, now)

    def end(self, sequence: int, now: float) -> None:
        """The whole time of a probe has passed without an ack."""
        flight = self._flights.get(sequence)
        if flight is None:
            return
        if not flight.excused and now < self._health.caught_up_at:
            flight.excused = True
            self._outbox.arm(TimerKind.PROBE_END, self._config.probe_timeout_s, flight.key)
            return
        self._fail(flight, now)

    def relay_timeout(self, sequence: int) -> None:
        """A ping for somebody else was not acked in time. A late ack is still passed on."""
        relayed = self._relayed.get(sequence)
        if relayed is None:
            return
        if relayed.nacked:
            del self._relayed[sequence]
            return
        relayed.nacked = True
        self._outbox.arm(TimerKind.RELAY, self._config.probe_window_s, str(sequence))
        self._answer(relayed, Nack(relayed.requester_sequence))

    # The course of one probe

    def _probe(self, node: str, now: float, *, is_doubted: bool = False) -> None:
        member = self._membership.get(node)
        if node in self._sequence_of or member is None or not member.status.live:
            return
        self.probes += 1
        self._sequence += 1
        window_s = self._health.scaled(self._config.probe_window_s)
        flight = Flight(node, self._sequence, now + window_s)
        self._flights[flight.sequence] = flight
        self._sequence_of[node] = flight.sequence
        timeout_s = self._health.scaled(self._config.probe_timeout_s)
        self._outbox.arm(TimerKind.PROBE_DIRECT, timeout_s, flight.key)
        peer = Peer(node, member.address)
        if is_doubted:
            self._ping_doubted(peer, flight.sequence, now)
        else:
            self._send_ping(peer, flight.sequence, now)

    def _refused(self, flight: Flight, now: float) -> None:
        if flight.pings > 1:
            flight.refused = True
            self._fail_if_hopeless(flight, now)
        elif not flight.relayed:
            delay_s = self._config.probe_timeout_s * _AGAIN_AT
            self._outbox.arm(TimerKind.PROBE_DIRECT, delay_s, flight.key)
            self._ask_relays(flight)

    def _ask_relays(self, flight: Flight) -> None:
        flight.relayed = True
        relays = self._near(self._config.probe_relays, without=flight.node, suspects_last=True)
        if len(relays) < self._config.probe_relays:
            others = self._membership.live_others
            relays += others.sample(self._rng, self._config.probe_relays - len(relays), (flight.node, *relays))
        flight.relays = tuple(relays)
        flight.silent = dict.fromkeys(relays)
        self._counters["probes_indirect"] += 1
        for relay in relays:
            self._send_to(relay, PingRequest(flight.sequence, flight.node))

    def _without_relay(self, flight: Flight, relay: str, now: float) -> None:
        del flight.silent[relay]
        self._fail_if_hopeless(flight, now)

    def _fail_if_hopeless(self, flight: Flight, now: float) -> None:
        if flight.refused and not flight.silent:
            self._fail(flight, now)

    def _fail(self, flight: Flight, now: float) -> None:
        self._counters["probes_failed"] += 1
        self._land(flight)
        if not flight.relays and not flight.refused:
            self._health.worse()
        for relay in flight.silent:
            if not any(accuser != self._membership.node for accuser in self._suspicions.accusers(relay)):
                self._health.silence(relay)
            self.doubt(relay)
        self._accuse(flight.node, now)

    def _land(self, flight: Flight) -> None:
        del self._flights[flight.sequence]
        del self._sequence_of[flight.node]
        self._outbox.disarm(TimerKind.PROBE_DIRECT if flight.pings == 1 else TimerKind.PROBE_END, flight.key)

    def _end_relayed(self, sequence: int) -> None:
        del self._relayed[sequence]
        self._outbox.disarm(TimerKind.RELAY, str(sequence))

    def _cancel_early(self, node: str) -> None:
        if node in self._early:
            del self._early[node]
            self._outbox.disarm(TimerKind.PROBE_EARLY, node)

    def _accuses(self, node: str) -> bool:
        """This node accuses it already. However many others do: a suspect that answers learns of it by being probed."""
        return self._membership.node in self._suspicions.accusers(node)

    def _doubts_about(self, peer: Peer, now: float) -> tuple[Claim, ...]:
        """What a member must hear that is held to be down, suspect or elsewhere, so that it can refute."""
        member = self._membership.get(peer.node)
        if member is None or (member.status is Status.ALIVE and member.address == peer.address):
            return ()
        if member.status is Status.SUSPECT and not self._config.buddy:
            return ()
        return (self._claim_about(peer.node, now),)

    def _ping(self, sequence: int) -> Ping:
        myself = self._membership.myself
        return Ping(sequence, self._digest.total, myself.address, myself.incarnation, self._mark())

    def _send_ping(self, peer: Peer, sequence: int, now: float) -> None:
        self._outbox.send_with_news(peer, [self._ping(sequence), *self._doubts_about(peer, now)])

    def _ping_doubted(self, peer: Peer, sequence: int, now: float) -> None:
        # News is not spent on somebody who is likely to be silent: each piece is sent a few times only, and several of
        # these pings leave at once when many have vanished.
        self._outbox.send(peer, Lane.PROBE, self._ping(sequence), *self._doubts_about(peer, now))

    def _answer(self, relayed: Relayed, message: Ack | Nack) -> None:
        self._send_to(relayed.requester, message)

    def _send_to(self, node: str, message: Message) -> None:
        member = self._membership.get(node)
        if member is not None:
            self._outbox.send(Peer(node, member.address), Lane.PROBE, message)
