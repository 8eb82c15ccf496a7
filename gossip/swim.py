"""SWIM membership without IO: inputs in, effects out.

Das, Gupta and Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process Group Membership Protocol" (2002),
with Lifeguard (Dadgar, Phillips and Currey 2018), on connections instead of datagrams. The rules:

- Claims about a member are totally ordered by (incarnation, status); the greater one holds (``gossip.member``).
- Only a member raises its incarnation: at every boot, and to refute what it hears about itself.
- A member that answers no probe is suspected; one that does not refute in time is dead (``probe``, ``suspicion``).
- What is new here is passed on (``dissemination``); what was lost is found by comparing views (``antientropy``).
- The dead are dialled, and told that they are held dead, so that partitions heal by themselves.

``Swim`` reads no clock and draws no randomness but the one it is given. Every input returns the effects to perform, in
order. Whatever bytes arrive, no input raises: what cannot be used is dropped and counted by name.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Final

from gossip.antientropy import Reconciliation
from gossip.config import SwimConfig
from gossip.directory import Advertisement, Publication
from gossip.effects import (
    Deliver,
    Effect,
    Heard,
    Joined,
    JoinFailure,
    MarkDiffers,
    Timer,
    TimerKind,
)
from gossip.errors import AdvertisementTooLarge, BadFrame, NewsTooLarge
from gossip.health import LocalHealth
from gossip.joining import Joining
from gossip.member import Claim, Incarnation, Member, Status
from gossip.messages import (
    ADDRESS_LENGTH_MAX,
    NAMES_MAX,
    VERSIONS,
    Ack,
    Buckets,
    Frame,
    Join,
    Message,
    Nack,
    News,
    Payload,
    Ping,
    PingRequest,
    Records,
    Refuse,
    VersionRange,
    Versions,
    Wanted,
    Welcome,
    decode,
    encode,
)
from gossip.outbox import Outbox
from gossip.pace import Pace
from gossip.probe import Prober
from gossip.roll import Roll
from gossip.suspicion import Evidence
from gossip.transport import HUNG_UP, Lane, Peer
from gossip.view import View

_PEERS_MAX: Final = 256
# So many members, on average over a large cluster, tell news to one that is held dead since a short while.
_TELL_THE_DEAD: Final = 10
# What is learned right after a join is old news to everybody else.
_QUIET_AFTER_WELCOME_S: Final = 2.0


class Swim:
    """One node's part in the membership protocol.

    ``node``: 32 lowercase hex characters. ``cluster``: 16 bytes. ``epoch`` is greater than at any earlier start of this
    node. ``welcome()`` gives the opaque bytes that whoever joins through this node receives. ``mark()`` gives what each
    ping and ack shows, from 0 to 2^64 - 1: a digest of what the application wants to be alike on all nodes, 0 for
    nothing; whoever shows another one is told of as ``MarkDiffers``. ``expelled``: the nodes that have been expelled so
    far (``expel``). ``versions``: the lowest and the highest version of the protocol that
    this node speaks; two nodes talk in the highest that both do.
    """

    def __init__(
        self,
        *,
        node: str,
        address: str,
        cluster: bytes,
        epoch: int,
        config: SwimConfig,
        rng: random.Random,
        welcome: Callable[[], bytes],
        mark: Callable[[], int] = lambda: 0,
        expelled: Collection[str] = (),
        versions: VersionRange = VERSIONS,
    ) -> None:
        self.node = node
        self.address = address
        self._config = config
        self._rng = rng
        self._welcome = welcome
        self._mark = mark
        self._counters: defaultdict[str, int] = defaultdict(int)
        self._versions = versions
        self._health = LocalHealth(config, self._counters)
        self._outbox = Outbox(
            node,
            cluster,
            config,
            self._counters,
            versions,
            claim_about=lambda about: self._view.news_about(about),
            publication_of=lambda about: self._view.news_of_publication(about),
        )
        self._view = View(
            myself=Member(node, address, Incarnation(epoch, 0), Status.ALIVE),
            config=config,
            health=self._health,
            outbox=self._outbox,
            counters=self._counters,
            expelled=expelled,
            doubted=self._doubted,
            gone=self._gone,
            moved=self._moved,
        )
        self.directory = self._view.directory
        self._membership = self._view.membership
        self._prober = Prober(
            config=config,
            rng=rng,
            membership=self._membership,
            suspicions=self._view.suspicions,
            health=self._health,
            outbox=self._outbox,
            counters=self._counters,
            digest=self._view.digest,
            mark=mark,
            claim_about=self._view.claim_about,
            accuse=self._view.accuse,
        )
        self._reconciliation = Reconciliation(
            config=config,
            membership=self._membership,
            directory=self.directory,
            digest=self._view.digest,
            outbox=self._outbox,
            counters=self._counters,
            expelled=self._view.expelled,
            claim_about=self._view.claim_about,
        )
        self._joining = Joining(config=config, rng=rng, membership=self._membership, outbox=self._outbox)
        self._welcomes = Pace(config.join_retry_s / 2, each=1, all_=config.joins_answered_max)
        self._greetings = Pace(config.answer_interval_s, each=1, all_=config.joins_answered_max)
        self._quiet_from = ""
        self._quiet_until = float("-inf")
        # What is counted all the time is not in the table of counters, which takes longer.
        self._frames_received = 0
        self._bytes_received = 0

    # Reads

    @property
    def cluster(self) -> bytes:
        """The id of the cluster that this node is part of."""
        return self._outbox.cluster

    @property
    def incarnation(self) -> Incarnation:
        """This node's present incarnation."""
        return self._membership.myself.incarnation

    def member(self, node: str) -> Member | None:
        """The member called ``node``, in whatever state."""
        return self._membership.get(node)

    @property
    def known(self) -> int:
        """How many members are known, this node and down ones included."""
        return len(self._membership)

    def members(self) -> list[Member]:
        """Every member known, this node and down ones included, sorted by node."""
        return list(self._membership.members())

    def alive(self) -> tuple[str, ...]:
        """The nodes that are alive or suspect, this one included, sorted."""
        return self._membership.alive()

    def last_heard(self, node: str) -> float | None:
        """When the last frame from ``node`` itself arrived; None if never."""
        return self._membership.heard_at(node)

    def advertisement(self, node: str) -> Advertisement | None:
        """What ``node`` has published about itself; kept while it is down."""
        publication = self.directory.publication(node)
        return publication.advertisement if publication else None

    def publication(self, node: str) -> Publication | None:
        """The same as it travels, with its version."""
        return self._view.directory.publication(node)

    @property
    def digest(self) -> int:
        """Equal at two nodes exactly if they know the same of members and of what these publish (but for chance)."""
        return self._view.digest.total

    @property
    def has_news(self) -> bool:
        """Something is left to pass on to others."""
        return self._outbox.has_news

    @property
    def local_health(self) -> int:
        """How unwell this node finds itself: 0 is well, ``awareness_max - 1`` the worst."""
        return self._health.score

    def evidence(self, node: str) -> Evidence | None:
        """On what ``node`` is held suspect or dead; None for whoever is alive, has left or is unknown."""
        return self._view.evidence(node)

    def counters(self) -> Mapping[str, int]:
        """Totals since the start, by name; dropped input is under ``drop_...``."""
        return {
            "frames_received": self._frames_received,
            "bytes_received": self._bytes_received,
            "frames_sent": self._outbox.frames_sent,
            "bytes_sent": self._outbox.bytes_sent,
            "probes": self._prober.probes,
            **self._counters,
        }

    def peers(self) -> list[Peer]:
        """Whom to ask after a restart: known members other than this node, live ones first, a bounded number.

        Nobody, once this node has left: it does not come back by itself.
        """
        if self._view.has_left:
            return []
        live, dead = (
            sorted(islice(roster, _PEERS_MAX)) for roster in (self._membership.live_others, self._membership.dead)
        )
        known = (self._membership.get(node) for node in (live + dead)[:_PEERS_MAX])
        return [Peer(member.node, member.address) for member in known if member is not None]

    # Inputs

    def adopt(self, roll: Roll, now: float) -> None:
        """Know, and have just heard, everybody in ``roll``, as if that had been so for long: nothing is passed on.

        For simulations that begin with a formed cluster, before anything has been heard. What is held is replaced.
        Raises ``ValueError`` if this node is not in the roll, as it is.
        """
        self._view.adopt(roll, now)

    def start(self, now: float, seeds: Sequence[Peer] = ()) -> list[Effect]:
        """Begin to probe and, with ``seeds``, look for the members known before a restart until one answers."""
        self._outbox.now = now
        self._prober.start()
        self._joining.rejoin([seed for seed in seeds if seed.node not in self._view.expelled])
        return self._finish()

    def join(self, address: str, now: float) -> list[Effect]:
        """Become part of the cluster of the node at ``address``; ends in ``Joined`` or ``JoinFailed``."""
        self._outbox.now = now
        self._joining.begin(address, now)
        return self._finish()

    def leave(self, now: float) -> list[Effect]:
        """Tell the cluster that this node goes. Keep delivering timers and frames for a second, so that all hear."""
        self._outbox.now = now
        if self._view.has_left:
            return []
        self._prober.stop()
        self._outbox.disarm(TimerKind.REDIAL)
        self._view.become(Status.LEFT, self.incarnation, now)
        self._gossip(now)
        return self._finish()

    def advertise(self, advertisement: Advertisement, now: float) -> list[Effect]:
        """Publish ``advertisement`` in place of the one before. The same again is no change.

        Raises ``AdvertisementTooLarge``; the one before stays.
        """
        self._outbox.now = now
        size_bytes = advertisement.size_bytes
        names_fit = len(advertisement.names) <= NAMES_MAX and all(
            len(name) <= ADDRESS_LENGTH_MAX for name in advertisement.names
        )
        if size_bytes > self._config.advertisement_bytes_max or not names_fit:
            raise AdvertisementTooLarge(size_bytes, self._config.advertisement_bytes_max)
        if self.advertisement(self.node) != advertisement:
            self._view.publish(advertisement)
        return self._finish()

    def expel(self, node: str, now: float) -> list[Effect]:
        """Have nothing to do with ``node`` any more, for ever: to this node it is as if it had never been.

        The application hears of it as of a member that left and is forgotten. Nothing is told to other nodes: that,
        and why, is the application's to spread. An expulsion outlives a move to another cluster, and nothing takes it
        back. Expelling a node again changes nothing; neither does expelling this node itself, which others will no
        longer listen to: the application should stop.
        """
        self._outbox.now = now
        if node == self.node or node in self._view.expelled:
            return []
        self._joining.disregard(node)
        self._view.expel(node, now)
        return self._finish()

    def broadcast(self, key: str, body: bytes, now: float) -> list[Effect]:
        """Pass ``body`` on to other nodes, which hear it as ``Heard``, in place of earlier news under the same key.

        It reaches the cluster if each node to which it is new passes it on likewise. Of many nodes one may miss it, and
        so do those that are away: who must know all compares what it knows with others now and then. To a node
        without live members, which has nobody to tell, this is nothing. Raises ``NewsTooLarge``.
        """
        self._outbox.now = now
        if len(body) > self._config.news_bytes_max:
            raise NewsTooLarge(len(body), self._config.news_bytes_max)
        if len(self._membership.live_others) and not self._outbox.application_news.put(key, encode(News(body))):
            self._counters["drop_news_full"] += 1
        return self._finish()

    def send(self, to: str, payload: bytes, lane: Lane = Lane.BULK) -> list[Effect]:
        """Send bytes of the application to a known member; to anybody else it is a counted drop."""
        member = self._membership.get(to)
        if member is None or to == self.node:
            self._counters["drop_payload_to_unknown"] += 1
            return []
        self._outbox.send(Peer(to, member.address), lane, Payload(payload))
        return self._finish()

    def unreachable(self, peer: Peer, reason: str, now: float) -> list[Effect]:
        """A frame to ``peer`` could not be delivered. Reason to probe and to ask relays; never a death by itself."""
        self._outbox.now = now
        self._counters["unreachable"] += 1
        if not peer.node:
            self._joining.unreachable(peer.address, reason)
            return self._finish()
        member = self._membership.get(peer.node)
        if member is not None and member.address == peer.address and not self._view.has_left:
            if reason.startswith(HUNG_UP):
                self._prober.hung_up(peer.node)
            else:
                self._prober.refused(peer.node, now)
        return self._finish()

    def receive(self, sender: str, lane: Lane, frame: bytes, now: float) -> list[Effect]:
        """A frame came from ``sender``: the transport vouches for that, and what says it is from another is dropped."""
        self._outbox.now = now
        self._frames_received += 1
        self._bytes_received += len(frame)
        try:
            decoded = decode(frame, self._config.frame_size_bytes_max, self._versions)
        except BadFrame as bad:
            self._counters[f"drop_{bad.cause}"] += 1
            return []
        if decoded.skipped:
            self._counters["drop_unknown_kind"] += decoded.skipped
        if decoded.sender != sender:
            self._counters["drop_sender"] += 1
        elif self._view.expelled and decoded.sender in self._view.expelled:
            self._counters["drop_expelled"] += 1
        elif not self._versions.lowest <= decoded.version <= self._versions.highest:
            self._unspoken(decoded, now)
        elif decoded.sender == self.node:
            self._own_voice(decoded, now)
        elif not decoded.cluster:
            self._strangers(decoded, now)
        elif decoded.cluster == self.cluster:
            self._converse(decoded, now)
        else:
            self._foreigners(decoded, now)
        return self._finish()

    def timer(self, timer: Timer, now: float) -> list[Effect]:
        """The delay of ``timer`` has passed; nothing happens if it is stale."""
        self._outbox.now = now
        due = self._outbox.fired(timer)
        if due is None:
            self._counters["timers_stale"] += 1
            return []
        stalled_s = self._health.stalled_s(due, now)
        if stalled_s:
            self._view.stood_still(stalled_s, now)
        match timer.kind:
            case TimerKind.PROBE:
                self._prober.turn(now)
            case TimerKind.PROBE_DIRECT:
                self._prober.direct_timeout(int(timer.key), now)
            case TimerKind.PROBE_END:
                self._prober.end(int(timer.key), now)
            case TimerKind.PROBE_EARLY:
                self._prober.early(timer.key, now)
            case TimerKind.RELAY:
                self._prober.relay_timeout(int(timer.key))
            case TimerKind.SUSPICION:
                self._view.suspicions_over(now)
            case TimerKind.GOSSIP:
                self._gossip(now)
            case TimerKind.REDIAL:
                self._redial(now)
            case TimerKind.REAP:
                self._view.reap(now)
            case TimerKind.JOIN:
                self._joining.retry(timer.key, now)
            case TimerKind.REJOIN:
                self._joining.rejoin_again()
        return self._finish()

    # Frames, by who speaks

    def _converse(self, frame: Frame, now: float) -> None:
        """A frame of our cluster."""
        refuted: list[str] = []
        for message in frame.messages:
            if isinstance(message, Claim) and self._view.is_refuted(message):
                refuted.append(message.member.node)
            self._handle(frame.sender, message, now)
        sender = self._membership.get(frame.sender)
        if sender is None:
            return
        self._membership.heard(sender, now)
        self._outbox.speaks(frame.sender, frame.highest)
        if refuted:
            self._reconciliation.refute(Peer(frame.sender, sender.address), refuted, now)
        if sender.status is Status.DEAD and self._view.may_answer(frame.sender, now):
            peer = Peer(frame.sender, sender.address)
            self._outbox.send(peer, Lane.PROBE, self._view.claim_about(frame.sender, now))

    def _handle(self, sender: str, message: Message, now: float) -> None:
        if not isinstance(message, (Ping, Ack)):  # which nearly all are
            match message:
                case Claim():
                    return self._view.hear(message, sender, now)
                case Publication():
                    return self._view.hear_publication(message, sender)
                case Records():
                    return self._hear_records(message, sender, now)
                case Payload():
                    return self._outbox.emit(Deliver(sender, message.body))
                case News():
                    return self._hear_news(message, sender)
                case Welcome():
                    return self._welcomed(message, sender, now)
                case Refuse():
                    return self._joining.refused(message.attempt, message.reason, message.detail)
        member = self._membership.get(sender)
        if isinstance(message, Ping) and (member is None or not _is_as_known(member, message)):
            asker = Member(sender, message.address, message.incarnation, Status.ALIVE)
            self._view.hear(Claim(asker), sender, now)
            member = self._membership.get(sender)
        if member is None:
            self._counters["drop_unknown_sender"] += 1
            return None
        # Whoever pings says where it is: there it gets its answer, even if others have us believe that it is elsewhere.
        address = message.address if isinstance(message, Ping) else member.address
        return self._reply(Peer(sender, address), message, now)

    def _reply(self, peer: Peer, message: Message, now: float) -> None:
        """Messages that are answered, or were an answer."""
        if isinstance(message, (Ping, Ack)):
            lacking = self._reconciliation.lacking(peer, message.digest, now)
            if isinstance(message, Ping):
                self._prober.pinged(peer, message, now, lacking)
            else:
                self._prober.acked(peer.node, message)
                if lacking:
                    self._outbox.send(peer, Lane.PROBE, *lacking)
            self._reconciliation.heard(peer, message.digest, now)
            if message.mark != self._mark():
                self._outbox.emit(MarkDiffers(peer.node))
            return
        match message:
            case PingRequest():
                self._prober.asked(peer.node, message, now)
            case Nack():
                self._prober.nacked(peer.node, message, now)
            case Buckets():
                self._reconciliation.buckets(peer, message, now)
            case Versions():
                self._reconciliation.versions(peer, message, now)
            case Wanted():
                self._reconciliation.wanted(peer, message, now)
            case _:
                self._counters["drop_misplaced"] += 1

    def _strangers(self, frame: Frame, now: float) -> None:
        """A frame of no cluster: somebody asks to join."""
        for message in frame.messages:
            if isinstance(message, Join):
                self._let_in(frame.sender, message, now)
            else:
                self._counters["drop_misplaced"] += 1

    def _foreigners(self, frame: Frame, now: float) -> None:
        """A frame of another cluster is heard only if it answers a join of ours."""
        for message in frame.messages:
            attempt = self._joining.attempt(message.attempt) if isinstance(message, Welcome | Refuse) else None
            if attempt is None:
                continue
            if isinstance(message, Refuse):
                self._joining.refused(message.attempt, message.reason, message.detail)
            elif len(self._membership.live_others) and not self._view.has_left:
                detail = "this node is in another cluster, with other live members; it must leave that first"
                self._joining.fail(attempt, JoinFailure.REFUSED, detail)
            else:
                self._view.forget_all()
                self._outbox.cluster = frame.cluster
                self._converse(frame, now)
            return
        self._counters["drop_foreign_cluster"] += 1

    def _unspoken(self, frame: Frame, now: float) -> None:
        """A frame of a version that we do not speak.

        If there is one that both do, an empty frame says so. Otherwise it says so to whoever asks to join.
        """
        self._counters["drop_version"] += 1
        if frame.cluster:
            self._joining.version_not_spoken(frame.version)
        if self._greetings.allows(frame.sender, now):
            member = self._membership.get(frame.sender)
            if member is not None:
                self._outbox.speaks(frame.sender, frame.highest)
            # Where an unknown sender lives is in the part that cannot be read; it has a connection to us.
            self._outbox.send(Peer(frame.sender, member.address if member else ""), Lane.PROBE)

    def _own_voice(self, frame: Frame, now: float) -> None:
        """Our own node id speaks to us: we have reached ourselves, or we live twice."""
        self._counters["drop_own_voice"] += 1
        for message in frame.messages:
            if isinstance(message, Join):
                attempt = self._joining.attempt(message.attempt)
                if attempt is not None:
                    self._joining.fail(attempt, JoinFailure.SELF, "this node itself answers at that address")
                elif not self._joining.is_rejoin(message.attempt):
                    self._view.conflict(message.address, now)
                    refusal = Refuse(message.attempt, "identity", "another process lives under the same node id")
                    self._outbox.send(Peer(self.node, message.address), Lane.PROBE, refusal)
            elif isinstance(message, Ping) and message.address != self.address:
                self._view.conflict(message.address, now)
            elif isinstance(message, Refuse):
                attempt = self._joining.attempt(message.attempt)
                if attempt is not None:
                    self._view.conflict(attempt.address, now)
                    self._joining.fail(attempt, JoinFailure.REFUSED, message.detail)

    # Joining

    def _let_in(self, sender: str, join: Join, now: float) -> None:
        """Answer a join. Whoever asks becomes a member when it speaks as one of the cluster, not before."""
        if not self._welcomes.allows(sender, now):
            self._counters["drop_join"] += 1
            return
        peer = Peer(sender, join.address)
        held = self._membership.get(sender)
        refusal = None
        if self._view.has_left:
            refusal = Refuse(join.attempt, "leaving", "the node there is leaving its cluster; try another one")
        elif held is None and not self._view.has_room:
            refusal = Refuse(join.attempt, "full", f"the cluster has {len(self._membership)} members")
        elif join.address == self.address:
            refusal = Refuse(join.attempt, "identity", _cut(f"{join.address} is the address of another node"))
        elif held is not None and _is_twin(held, join):
            self._view.contradict(held, join.address, now)
            refusal = Refuse(join.attempt, "identity", _cut(f"this node id lives at {held.address} already"))
        if refusal is not None:
            self._counters["joins_refused"] += 1
            self._outbox.send(peer, Lane.PROBE, refusal)
            return
        self._counters["joins_welcomed"] += 1
        nodes = [self.node, *(member.node for member in self._membership.members() if member.node != self.node)]
        pieces = self._reconciliation.pieces(nodes, now)
        self._outbox.send(peer, Lane.BULK, Welcome(join.attempt, self._welcome()), next(pieces))
        for count, piece in enumerate(pieces, 1):
            if count == self._config.sync_pieces_max:
                break
            self._outbox.send(peer, Lane.BULK, piece)

    def _welcomed(self, message: Welcome, sender: str, now: float) -> None:
        """A join was answered: take over the cluster, if it is another one."""
        attempt = self._joining.attempt(message.attempt)
        if attempt is None and not self._joining.is_rejoin(message.attempt):
            return
        if attempt is not None:
            self._joining.end(attempt)
        self._joining.rejoined()
        self._quiet_from, self._quiet_until = sender, now + _QUIET_AFTER_WELCOME_S
        self._outbox.emit(Joined(self.cluster, message.welcome))
        if self._view.has_left:
            self._view.become(Status.ALIVE, self.incarnation.above(self.incarnation), now)
            self._prober.start()
        else:
            self._view.spread_myself()

    def _hear_records(self, records: Records, sender: str, now: float) -> None:
        quiet, before = sender == self._quiet_from and now < self._quiet_until, self.digest
        for claim in records.claims:
            self._view.hear(claim, sender, now, record=True, quiet=quiet)
        for publication in records.publications:
            self._view.hear_publication(publication, sender, quiet=quiet)
        if self.digest != before:
            self._reconciliation.brought_news()

    def _hear_news(self, news: News, sender: str) -> None:
        if len(news.body) > self._config.news_bytes_max:
            self._counters["drop_news_too_large"] += 1
        else:
            self._outbox.emit(Heard(sender, news.body))

    # Spreading news, and finding the lost again

    def _doubted(self, node: str) -> None:
        if not self._view.has_left:
            self._prober.doubt_with_others(node)

    def _moved(self, former: Peer, now: float) -> None:
        if not self._view.has_left:
            self._prober.ping_with_others(former, now)

    def _gone(self, node: str) -> None:
        self._prober.forget(node)

    def _gossip(self, now: float) -> None:
        """One round: news to a few live members, and to one of those that are held dead since a short while.

        In a large cluster not everybody tells these in each round: a host that is back would drown in it.
        """
        recent = self._view.recently_dead
        while recent and now >= recent[next(iter(recent))] + self._config.gossip_dead_window_s:
            del recent[next(iter(recent))]
        if recent and self._rng.random() * self._membership.size < _TELL_THE_DEAD:
            self._tell_news(self._rng.choice(list(recent)), counts=False)
        for node in self._prober.audience(self._config.gossip_fanout):
            self._tell_news(node, counts=True)

    def _tell_news(self, node: str, *, counts: bool) -> None:
        member = self._membership.get(node)
        if member is not None and self._outbox.has_news:
            self._outbox.send_with_news(Peer(node, member.address), [], counts=counts)

    def _redial(self, now: float) -> None:
        """Ping some of the dead: whoever is back learns that it is held dead, and refutes."""
        for node in self._membership.dead.sample(self._rng, self._config.redial_peers):
            member = self._membership.get(node)
            if member is not None and self._membership.at(member.address) is None:
                self._prober.ping(Peer(node, member.address), now)

    def _redial_delay_s(self) -> float:
        scaled = self._config.redial_interval_s * max(1.0, self._membership.size / 5)
        return self._rng.uniform(0.5, 1.0) * min(scaled, self._config.redial_interval_max_s)

    def _finish(self) -> list[Effect]:
        """What every input ends with: timers run exactly while there is something for them to do."""
        outbox, view = self._outbox, self._view
        has_audience = len(self._membership.live_others) or view.recently_dead
        if outbox.has_news and has_audience and not outbox.is_armed(TimerKind.GOSSIP):
            outbox.arm(TimerKind.GOSSIP, self._rng.uniform(0.5, 1.0) * self._config.gossip_interval_s)
        if len(self._membership.dead) and not view.has_left and not outbox.is_armed(TimerKind.REDIAL):
            outbox.arm(TimerKind.REDIAL, self._redial_delay_s())
        return outbox.drain()


def _is_as_known(held: Member, ping: Ping) -> bool:
    """Who pings says of itself what is held: of what arrives, most is that."""
    return held.status is Status.ALIVE and held.incarnation == ping.incarnation and held.address == ping.address


def _cut(detail: str) -> str:
    """Addresses are other people's words: with one of the longest, a sentence may be too long for a frame."""
    return detail[:ADDRESS_LENGTH_MAX]


def _is_twin(held: Member, join: Join) -> bool:
    """Somebody asks to join under the id of a live member, at the same boot epoch, from somewhere else."""
    return held.status.live and held.incarnation.epoch == join.incarnation.epoch and held.address != join.address
