"""How fast, how wide and how big: the settings of the membership protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Final

from gossip.errors import InvalidConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SwimConfig:
    """Defaults are for a LAN and fast failover: a node that goes silent among five is held dead within about 3 s.

    Times are seconds, sizes bytes. All nodes of a cluster should agree on the timing fields; nothing breaks if they
    do not. Raises ``InvalidConfig`` when a field is out of bounds.
    """

    probe_interval_s: float = 1.0
    """Between two probes in clusters of nine and more. Smaller ones probe more often, down to ``probe_window_s``, so
    that each member is probed as often as there. Who falls silent is next probed after this time on average, and now
    and then only after some times as much. Costs one frame each way."""

    probe_window_s: float = 0.5
    """How long one probe may take in all; what is not acked by then has failed. Lower finds failures sooner. Above
    ``probe_timeout_s``, and at most ``probe_interval_s``."""

    probe_timeout_s: float = 0.2
    """How long a direct ping waits for its ack before relays are asked. At least a few round trips of the network;
    too low makes relays work for nothing, too high leaves them no time."""

    probe_subset: int = 24
    """How many members are probed in turn before any is replaced, at least 1. In a larger cluster news and requests for
    relayed probes go to these, too. Higher spreads all that over more connections, which the transport must keep open:
    about twice as many, since as many others probe this node."""

    probe_rotation_rounds: int = 3
    """After so many rounds one of the subset is exchanged for another member, at least 1. Lower rotates sooner and
    opens more connections: with TLS, one costs as many bytes as probes of half a minute."""

    probe_relays: int = 3
    """Members that are asked to probe for us when a ping is not answered, at least 0. Each costs up to four frames per
    failed ping, and each makes a false suspicion less likely."""

    probe_early_jitter_s: float = 0.1
    """On hearing of a suspicion, the suspect is probed out of turn within this time. Lower gives faster
    confirmations, and less spread of the load on the suspect."""

    probe_early_peers: int = 10
    """How many members, on average over a large cluster, probe a suspect out of turn. More is faster and burdens the
    suspect; 0: nobody does, and confirmations come as turns come. Also the limit of such probes waiting in one node."""

    relayed_probes_max: int = 256
    """Probes on behalf of others that run at once; more are declined by silence."""

    relayed_probes_per_member: int = 32
    """How many of these may be for one and the same member. More than a member ever has of its own at once."""

    awareness_max: int = 8
    """Local health (Lifeguard, LHA-Probe) goes from 0, which is well, to this minus 1, and the interval and the timeout
    of probes are health + 1 times as long. Higher lets a node that is itself slow accuse less, and detect later. 0: a
    node never doubts itself."""

    stall_s: float = 0.25
    """A timer that goes off so much later than asked for tells that this node itself stood still. That counts against
    local health, and is not held against those whose answers may wait unread. Lower notices smaller stalls, down to
    what the event loop needs on a good day. 0: lateness is not noticed."""

    buddy: bool = True
    """Whoever is suspected hears so in every ping and ack (Lifeguard, Buddy System). Costs nothing while nobody is;
    without it suspects wait for gossip to reach them."""

    deaths_on_trust: bool = False
    """Believe at once what others tell of a death, as SWIM does. Otherwise the member has the shortest time of a
    suspect to object, at each node: deaths spread a little later, and those declared by mistake do not spread."""

    suspicion_min_s: float = 1.25
    """How long a suspect has to refute once enough others confirm, in clusters of up to 10; grows with log10 of the
    cluster size. Lower is faster failover and more false deaths. Above ``probe_window_s``."""

    suspicion_max_factor: float = 6.0
    """An unconfirmed suspicion takes this many times as long as a confirmed one, at least 1. Higher protects against
    an accuser that is itself slow, and delays detection when confirmations are lost."""

    suspicion_confirmations: int = 3
    """Independent confirmations after which only the minimum is waited, 0 to 7. Higher asks more of the others. 0:
    every suspicion lasts for the minimum (SWIM without Lifeguard's LHA-Suspicion)."""

    gossip_interval_s: float = 0.1
    """Between two rounds of gossip while there is news. Lower spreads faster, in more frames."""

    gossip_fanout: int = 3
    """Members that get news in each round, at least 1."""

    gossip_membership_bytes: int = 1024
    """Room for membership news in one frame. One claim is about 40 bytes."""

    gossip_advertisement_bytes: int = 4096
    """Room for advertisements in one frame; a larger one travels in a frame of its own."""

    gossip_news_bytes: int = 2048
    """Room for the application's news in one frame; a larger piece travels in a frame of its own."""

    gossip_news_max: int = 256
    """Pieces of the application's news waiting to be passed on, at least 1; what was sent most makes room."""

    gossip_dead_window_s: float = 10.0
    """News also goes to members held dead for less than this, so that one held dead by mistake learns of it."""

    retransmit_mult: int = 4
    """A piece of news is sent mult x ceil(log10(N + 1)) times by each node, at least 1. Higher survives more loss."""

    retransmit_max: int = 3
    """News about members and what they publish is sent no more often than that, at least 1: it then reaches 94 of 100,
    and the others are told when they ping or ack. Without ``tell_lacking`` there is no such limit."""

    tell_lacking: bool = True
    """Whoever shows in a ping or ack, by its digest, that it just lacks the latest changes is told these. Costs nothing
    while all know the same. False: what gossip misses is found by comparisons only."""

    sync_interval_s: float = 1.0
    """At least this long between two comparisons of whole views that this node starts; doubles while they differ and
    comparisons bring nothing."""

    sync_interval_max_s: float = 60.0
    """The longest that comparisons are put off while views differ."""

    sync_piece_bytes: int = 64 * 1024
    """Size of one piece of a comparison's answer. Larger needs fewer frames and blocks the bulk lane longer."""

    sync_pieces_max: int = 64
    """Pieces in one answer; what does not fit waits for the next comparison."""

    sync_answers_max: int = 8
    """Each step of a comparison is answered so often per second; more are dropped."""

    sync_answers_per_member: int = 2
    """How many of these may be for one and the same member."""

    redial_interval_s: float = 2.0
    """How often members held dead are pinged, in clusters of up to five; grows with the cluster so that the dead host
    sees a constant rate. Lower heals partitions sooner."""

    redial_interval_max_s: float = 30.0
    """The longest time between two such pings, however large the cluster."""

    redial_peers: int = 3
    """How many of the dead are pinged each time, at least 1."""

    forget_after_s: float = 72 * 3600.0
    """Members that are down are kept, dialled and listed in the directory for so long. Costs memory per dead member."""

    join_timeout_s: float = 5.0
    """After so long without any answer a join has failed."""

    join_retry_s: float = 0.5
    """How often the first message of a join is sent again."""

    joins_answered_max: int = 64
    """Joins answered within half of ``join_retry_s``, and one of each node; who is left out asks again. An answer holds
    all that is known about all members."""

    answer_interval_s: float = 1.0
    """A member held dead that keeps talking is told so at most this often."""

    advertisement_bytes_max: int = 64 * 1024
    """The largest advertisement, encoded. Every node of the cluster holds every advertisement."""

    news_bytes_max: int = 16 * 1024
    """The largest piece of the application's news. Larger ones are neither sent nor taken."""

    frame_size_bytes_max: int = 4 * 1024 * 1024
    """Larger frames are neither sent nor read. No more than the transport's own limit."""

    members_max: int = 20_000
    """Members known at once, down ones included. Beyond, the dead make room for the living, and the others wait."""

    directory_bytes_max: int = 64 * 1024 * 1024
    """Size of all advertisements together. Beyond, the dead make room, and then further ones are dropped."""

    orphans_max: int = 64
    """Advertisements kept for nodes that are not known yet."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value < 0:
                raise InvalidConfig(field.name, "must be a finite number of at least 0")
            if value == 0 and field.name not in _MAY_BE_ZERO:
                raise InvalidConfig(field.name, "must be above 0")
        if self.probe_timeout_s >= self.probe_window_s:
            raise InvalidConfig("probe_timeout_s", "must be below probe_window_s, or relays have no time")
        if self.probe_window_s > self.probe_interval_s:
            raise InvalidConfig("probe_window_s", "must be at most probe_interval_s, or probes pile up")
        if self.suspicion_max_factor < 1:
            raise InvalidConfig("suspicion_max_factor", "must be at least 1")
        if self.suspicion_confirmations > _CONFIRMATIONS_MAX:
            raise InvalidConfig("suspicion_confirmations", f"must be at most {_CONFIRMATIONS_MAX}")
        if self.advertisement_bytes_max + self.news_bytes_max + 2048 > self.frame_size_bytes_max:
            raise InvalidConfig("frame_size_bytes_max", "must have room for advertisement_bytes_max and news_bytes_max")

        if 0 < self.stall_s <= _STALL_S_MIN:
            raise InvalidConfig("stall_s", f"must be above {_STALL_S_MIN:g}, or 0: no event loop is punctual")

    def probe_period_s(self, members: int) -> float:
        """Time between two probes of one node in a cluster of ``members``."""
        share = (members - 1) / _PROBED_BY_ENOUGH
        return max(self.probe_window_s, min(1.0, share) * self.probe_interval_s)

    def suspicion_bounds_s(self, members: int) -> tuple[float, float]:
        """Shortest and longest time a suspicion lasts in a cluster of ``members``."""
        shortest = self.suspicion_min_s * max(1.0, math.log10(max(1, members)))
        return shortest, shortest * self.suspicion_max_factor

    def retransmit_limit(self, members: int) -> int:
        """How often each node sends one piece of the application's news in a cluster of ``members``."""
        return self.retransmit_mult * math.ceil(math.log10(members + 1))

    def view_retransmit_limit(self, members: int) -> int:
        """The same for news of which digests tell who lacks it."""
        limit = self.retransmit_limit(members)
        return min(limit, self.retransmit_max) if self.tell_lacking else limit


# All accusers travel in one claim.
_CONFIRMATIONS_MAX = 7
_STALL_S_MIN = 0.01
# So many others probe a member in a cluster that is large enough for the whole interval.
_PROBED_BY_ENOUGH = 8
_MAY_BE_ZERO = frozenset(
    {
        "probe_relays",
        "probe_early_jitter_s",
        "probe_early_peers",
        "awareness_max",
        "stall_s",
        "buddy",
        "tell_lacking",
        "deaths_on_trust",
        "suspicion_confirmations",
        "gossip_dead_window_s",
    }
)

PROFILES: Final[Mapping[str, SwimConfig]] = MappingProxyType(
    {
        "lan": SwimConfig(),
        "wan": SwimConfig(
            probe_interval_s=4.0,
            probe_window_s=2.0,
            probe_timeout_s=0.8,
            probe_early_jitter_s=0.4,
            stall_s=0.5,
            suspicion_min_s=6.0,
            gossip_interval_s=0.25,
            gossip_fanout=4,
            gossip_dead_window_s=60.0,
            sync_interval_s=4.0,
            redial_interval_s=5.0,
            join_timeout_s=15.0,
            join_retry_s=2.0,
        ),
    }
)
"""Settings for two kinds of networks, by name: round trips of a few milliseconds, and of up to some hundred."""
