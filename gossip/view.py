"""What this node believes about the cluster, and how it changes its mind.

A claim is taken over if it supersedes what is held (``gossip.member``); what is new here is passed on. Claims about
this node itself are never taken over: they are answered, and refuted with a higher incarnation.

Nodes trust each other's claims, but no single one of them can make a member that answers look dead: that another is
down, has left, or gave way to somebody at its address, makes it a suspect here, which has the time to object
(``gossip.suspicion``); only what a member says of itself holds at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Final

from gossip.config import SwimConfig
from gossip.digest import Digest
from gossip.directory import NEVER, Advertisement, Directory, Publication
from gossip.effects import AdvertisementChanged, EpochRaised, Forgotten, IdentityConflict, MemberChanged, TimerKind
from gossip.health import LocalHealth
from gossip.member import DOWN_FOR_S_MAX, Claim, Incarnation, Member, Status
from gossip.membership import Membership
from gossip.messages import encode
from gossip.outbox import Outbox
from gossip.roll import Roll
from gossip.suspicion import Evidence, Suspicions
from gossip.transport import Lane, Peer

# What is about to be forgotten is not taken up again from somebody whose clock started a little later.
_TOO_OLD: Final = 0.98
_CONFLICT_INTERVAL_S: Final = 10.0
# What others say of a member's epoch is taken up to a number that no count of starts reaches, and to that many above
# what is held: so nobody can be driven to the end of all incarnations, where it could refute no more.
_EPOCH_CREDIBLE: Final = 2**32
_EPOCH_STEP: Final = 2**16
# Timers may come a hair early; a suspicion is not armed again for less than this.
_EARLY_S: Final = 0.001


class View:
    """The members, their advertisements and the suspicions among them, as one node sees them.

    ``doubted(node)`` is called when others accuse a member, ``gone(node)`` when one is down, and ``moved(former)`` when
    one is said to be no longer where it was.
    """

    def __init__(
        self,
        *,
        myself: Member,
        config: SwimConfig,
        health: LocalHealth,
        outbox: Outbox,
        counters: defaultdict[str, int],
        expelled: Collection[str],
        doubted: Callable[[str], None],
        gone: Callable[[str], None],
        moved: Callable[[Peer, float], None],
    ) -> None:
        self.node = myself.node
        self.membership = Membership(myself)
        self.directory = Directory(config.orphans_max)
        self.digest = Digest([myself])
        self.suspicions = Suspicions(config)
        self.recently_dead: dict[str, float] = {}
        self.expelled = set(expelled) - {self.node}
        self._config = config
        self._health = health
        self._outbox = outbox
        self._counters = counters
        self._evidence_of_death: dict[str, Evidence] = {}
        self._doubted = doubted
        self._gone = gone
        self._moved = moved
        self._confirmations_wanted = 0
        self._suspicions_at = float("inf")
        self._reap_at = float("inf")
        self._conflict_at = float("-inf")
        self._answered_at: dict[str, float] = {}
        self._objected_at = float("-inf")
        self._objected_to: set[str] = set()

    @property
    def has_left(self) -> bool:
        """This node has said that it leaves."""
        return self.membership.myself.status is Status.LEFT

    @property
    def has_room(self) -> bool:
        """Another member can be known, perhaps in place of one that is dead."""
        return len(self.membership) < self._config.members_max or bool(len(self.membership.dead))

    def claim_about(self, node: str, now: float) -> Claim:
        """What this node would say about ``node``, which it knows."""
        member = self.membership.get(node)
        assert member is not None
        if member.status.live:
            return Claim(member, self.suspicions.accusers(node))
        down_for_s = int(now - self.membership.down_since(node))
        return Claim(member, down_for_s=min(max(0, down_for_s), DOWN_FOR_S_MAX))

    def news_about(self, node: str) -> bytes:
        """The same, encoded, as it is at this moment."""
        return encode(self.claim_about(node, self._outbox.now))

    def news_of_publication(self, node: str) -> bytes:
        """What ``node`` publishes, encoded."""
        publication = self.directory.publication(node)
        assert publication is not None
        return encode(publication)

    def evidence(self, node: str) -> Evidence | None:
        """On what ``node`` is held suspect, or dead."""
        return self.suspicions.evidence(node) or self._evidence_of_death.get(node)

    # Claims

    def hear(self, claim: Claim, sender: str, now: float, *, record: bool = False, quiet: bool = False) -> None:
        """Take over ``claim`` if it supersedes what is held.

        ``record``: it is not news but what ``sender`` holds, possibly for long: others still have to confirm a death.
        ``quiet``: everybody else knows, so it is not passed on.
        """
        member = claim.member
        held = self.membership.get(member.node)
        if self._is_dropped(member.node, sender, member.incarnation, held.incarnation if held else NEVER):
            return
        if member.node == self.node:
            self._hear_about_myself(claim, sender, now)
            return
        if claim.accusers and self.expelled:
            accusers = tuple([node for node in claim.accusers if node not in self.expelled])
            claim = Claim(member, accusers, claim.down_for_s)
        if held is None:
            if not self._worth_knowing(claim):
                return
        elif held.status.live and not member.status.live and not self._is_trusted(sender, member, record):
            if member.precedence > held.precedence:
                confirmed = not record or member.status is Status.LEFT
                self._suspect_because_of(sender, member, now, confirmed=confirmed, quiet=quiet)
            return
        self._merge(claim, held, sender, now, quiet)

    def is_refuted(self, claim: Claim) -> bool:
        """Whether it says that another member is suspect or down which is known here to have refuted that."""
        if claim.member.status is Status.ALIVE or claim.member.node == self.node:
            return False
        held = self.membership.get(claim.member.node)
        return held is not None and held.status is Status.ALIVE and held.incarnation > claim.member.incarnation

    def accuse(self, node: str, now: float) -> None:
        """This node itself has got no answer from ``node``."""
        held = self.membership.get(node)
        if held is None or not held.status.live:
            return
        self._merge(Claim(held.with_status(Status.SUSPECT), (self.node,)), held, self.node, now, quiet=False)

    def suspicions_over(self, now: float) -> None:
        """The time of some suspects is over: they are dead, unless there is more of it meanwhile."""
        self._suspicions_at = float("inf")
        for node in self.suspicions.take_due(now + _EARLY_S):
            held = self.membership.get(node)
            if held is None or not self.suspicions.is_suspect(node):
                continue
            deadline = self._deadline(node)
            if deadline > now + _EARLY_S:
                self.suspicions.time(node, deadline)
                continue
            outcome = self.suspicions.outcome(node)
            self._counters["deaths_declared"] += outcome is Status.DEAD
            self._apply(Claim(held.with_status(outcome)), now, quiet=False)
        self._wake_for_suspicions(now)

    def time_suspicions(self, now: float) -> None:
        """Time all suspicions anew. A node that has left hears no refutations and lets none run out."""
        for node in self.suspicions.nodes():
            self.suspicions.time(node, self._deadline(node))
        self._wake_for_suspicions(now)

    def stood_still(self, duration_s: float, now: float) -> None:
        """This node could hear nobody for so long: no suspect is given up for that."""
        self.suspicions.postpone(duration_s)
        self.time_suspicions(now)

    def become(self, status: Status, incarnation: Incarnation, now: float) -> None:
        """Change what this node is, and tell everybody."""
        before = self.membership.myself
        self._put(Member(self.node, before.address, incarnation, status), now)
        self.spread_myself()
        if incarnation.epoch != before.incarnation.epoch:
            self._outbox.emit(EpochRaised(incarnation.epoch))
        if status is not before.status:
            self.time_suspicions(now)
            self._outbox.emit(MemberChanged(self.membership.myself, before.status))

    def spread_myself(self) -> None:
        """Pass on what this node is and publishes, again."""
        self._spread(self.node)
        self._spread_publication(self.node)

    def contradict(self, held: Member, address: str, now: float) -> None:
        """One node id, one incarnation, two addresses: tell both who live under it."""
        if not self.may_answer(held.node, now):
            return
        self._counters["identity_contradictions"] += 1
        other = Member(held.node, address, held.incarnation, Status.ALIVE)
        self._outbox.send(Peer(held.node, held.address), Lane.PROBE, Claim(other))
        self._outbox.send(Peer(held.node, address), Lane.PROBE, Claim(held.with_status(Status.ALIVE)))

    def conflict(self, address: str, now: float) -> bool:
        """Another process is said to live under this node's own id. False if that was told not long ago."""
        if now < self._conflict_at + _CONFLICT_INTERVAL_S:
            return False
        self._conflict_at = now
        self._counters["identity_conflicts"] += 1
        self._outbox.emit(IdentityConflict(self.node, address))
        return True

    def may_answer(self, node: str, now: float) -> bool:
        """Whether ``node`` may be told again what is held about it; counts as told."""
        member = self.membership.get(node)
        if member is None:
            return False
        answered_at = self._answered_at.get(node)
        if answered_at is not None and now < answered_at + self._config.answer_interval_s:
            return False
        self._answered_at[member.node] = now
        return True

    # Advertisements

    def publish(self, advertisement: Advertisement) -> None:
        """Publish ``advertisement`` as this node's own, in a version above all that anybody may hold."""
        version = self.directory.version(self.node).above(Incarnation(self.membership.myself.incarnation.epoch, 0))
        self._take(Publication(self.node, version, advertisement))
        self._spread_publication(self.node)

    def hear_publication(self, publication: Publication, sender: str, *, quiet: bool = False) -> None:
        """Take over what a node publishes, if it is newer; if that node is not known yet, when it is."""
        node = publication.node
        if publication is self.directory.publication(node):
            return
        if publication.advertisement.size_bytes > self._config.advertisement_bytes_max:
            self._counters["drop_advertisement_too_large"] += 1
            return
        if self._is_dropped(node, sender, publication.version, self.directory.version(node)):
            return
        if node == self.node:
            self._hear_own_publication(publication)
            return
        if self.membership.get(node) is None:
            self.directory.set_aside(publication)
            return
        if publication.version > self.directory.version(node) and not self._make_room_for(publication):
            self._counters["drop_directory_full"] += 1
            return
        if self._take(publication):
            if not quiet:
                self._spread_publication(node)
            self._outbox.emit(AdvertisementChanged(node))

    # Knowing many at once, and forgetting

    def adopt(self, roll: Roll, now: float) -> None:
        """Know all of ``roll`` as if it had been so for long."""
        if roll.members.get(self.node) != self.membership.myself:
            raise ValueError(f"the roll must hold this node as it is: {self.membership.myself}")
        self.membership.adopt(roll, now)
        self.directory.adopt(roll.directory)
        self.digest.copy_from(roll.digest)
        self._outbox.resize(self.membership.size)

    def reap(self, now: float) -> None:
        """Forget members that have been down for long enough."""
        self._reap_at = float("inf")
        for node, down_since in self.membership.down():
            if node == self.node:
                continue
            if down_since + self._config.forget_after_s <= now + _EARLY_S:
                self.forget(node)
            else:
                self._reap_at = min(self._reap_at, down_since + self._config.forget_after_s)
        if self._reap_at < float("inf"):
            self._outbox.arm(TimerKind.REAP, self._reap_at - now)

    def forget(self, node: str) -> None:
        """Keep nothing about ``node``."""
        self.digest.change(node, self.membership.get(node), None)
        self.digest.change(node, self.directory.publication(node), None)
        self.membership.remove(node)
        self.directory.forget(node)
        self._answered_at.pop(node, None)
        self.suspicions.end(node)
        self.recently_dead.pop(node, None)
        self._evidence_of_death.pop(node, None)
        self._outbox.forget(node)
        self._outbox.resize(self.membership.size)
        self._outbox.membership_news.drop(node)
        self._outbox.advertisement_news.drop(node)
        self._gone(node)
        self._outbox.emit(Forgotten(node))

    def expel(self, node: str, now: float) -> None:
        """Keep nothing about ``node``, nor anything that is ever said about it or by it."""
        self.expelled.add(node)
        self.directory.claim_orphan(node)
        for accused in self.suspicions.disregard(node):
            self._spread(accused)
        held = self.membership.get(node)
        if held is not None:
            if held.status is not Status.LEFT:
                self._outbox.emit(MemberChanged(held.with_status(Status.LEFT), held.status))
            self.forget(node)
        self.time_suspicions(now)

    def forget_all(self) -> None:
        """Keep nothing about anybody else: this node goes to another cluster."""
        for member in self.membership.members():
            if member.node != self.node:
                self.forget(member.node)

    # How a claim is merged

    def _is_dropped(self, node: str, sender: str, said: Incarnation, held: Incarnation) -> bool:
        """Whether what ``sender`` says about ``node``, in this incarnation or version, is not even considered."""
        if node in self.expelled:
            self._counters["drop_expelled"] += 1
            return True
        if sender != node and said.epoch > max(_EPOCH_CREDIBLE, held.epoch + _EPOCH_STEP):
            self._counters["drop_incredible"] += 1
            return True
        return False

    def _is_trusted(self, sender: str, member: Member, record: bool) -> bool:
        """Whether it holds at once that ``member`` is down: it says so itself, or those who say so are believed."""
        return sender == member.node or (self._config.deaths_on_trust and not record)

    def _worth_knowing(self, claim: Claim) -> bool:
        """A member that is not known yet should be."""
        if not claim.member.status.live and claim.down_for_s >= self._config.forget_after_s * _TOO_OLD:
            return False
        if len(self.membership) >= self._config.members_max:
            if not claim.member.status.live or not self.has_room:
                self._counters["drop_members_full"] += 1
                return False
            self.forget(self.membership.dead.first())
        return True

    def _make_room_for(self, publication: Publication) -> bool:
        """Whether ``publication`` can be held. For that of a live member, the dead are forgotten one after another."""
        held = self.directory.publication(publication.node)
        growth_bytes = publication.advertisement.size_bytes - (held.advertisement.size_bytes if held else 0)
        while self.directory.size_bytes + growth_bytes > self._config.directory_bytes_max:
            if publication.node not in self.membership.live_others or not len(self.membership.dead):
                return False
            self.forget(self.membership.dead.first())
        return True

    def _merge(self, claim: Claim, held: Member | None, sender: str, now: float, quiet: bool) -> None:
        member = claim.member
        if held is None or member.precedence > held.precedence:
            if member.status.live and member.address == self.membership.myself.address:
                # Whoever lived at our address before does so no more.
                self._suspect_because_of(self.node, member, now, confirmed=True, quiet=quiet)
            else:
                self._apply(claim, now, quiet=quiet)
        elif member.precedence == held.precedence and member.status is Status.SUSPECT:
            self._confirm(claim, sender, now)
        elif _is_elsewhere(held, member):
            self.contradict(held, member.address, now)
        elif member == held:
            self._told_again(member.node, sender)

    def _suspect_because_of(self, accuser: str, member: Member, now: float, *, confirmed: bool, quiet: bool) -> None:
        """``member`` is down, as far as ``accuser`` knows: here it has the time of a suspect to object.

        ``confirmed``: the shortest time, since others had to confirm it before.
        """
        node = member.node
        held = self.membership.get(node)
        suspect = Claim(member.with_status(Status.SUSPECT), (accuser,))
        if held is None or suspect.member.precedence > held.precedence:
            self._apply(suspect, now, quiet=quiet)
        elif held.status is Status.SUSPECT:
            self._confirm(suspect, accuser, now)
        if confirmed:
            self.suspicions.over_elsewhere(node, member.status)
            self._time_suspicion(node, now)

    def _apply(self, claim: Claim, now: float, *, quiet: bool) -> None:
        member = claim.member
        node = member.node
        held = self.membership.get(node)
        moved = held is None or not held.status.live or held.address != member.address
        former = self.membership.at(member.address) if moved and member.status.live else None
        self._put(member, now, claim.down_for_s)
        if member.status is Status.SUSPECT:
            self._suspect(claim, now)
        elif held is not None and held.status is Status.SUSPECT:
            evidence = self.suspicions.evidence(node)
            if member.status is Status.DEAD and evidence is not None:
                self._evidence_of_death[node] = evidence
            self.suspicions.end(node)
            self._wake_for_suspicions(now)
        if not member.status.live:
            self._down(member, now)
        else:
            self.recently_dead.pop(node, None)
            self._evidence_of_death.pop(node, None)
        if held is not None and moved and held.status.live and member.status.live:
            self._moved(Peer(node, held.address), now)
        if not quiet:
            self._spread(node)
        if held is None or _is_event(held, member):
            self._outbox.emit(MemberChanged(member, held.status if held else None))
        if held is None:
            self._adopt_orphan(node)
        if former is not None and former != node:
            self._replaced(former, node, now)
        self._review_suspicions(now)

    def _suspect(self, claim: Claim, now: float) -> None:
        node = claim.member.node
        self._counters["suspicions"] += 1
        self.suspicions.start(node, claim.accusers, now)
        self._explain(claim)
        self._time_suspicion(node, now)
        if self.node not in claim.accusers:
            self._doubted(node)

    def _confirm(self, claim: Claim, sender: str, now: float) -> None:
        node = claim.member.node
        if self.suspicions.accuse(node, claim.accusers):
            self._explain(claim)
            self._time_suspicion(node, now)
            if self.node in claim.accusers:
                self._spread(node)
            else:
                # Few need it in time: once one member has heard enough of them, the others hear of a death instead.
                self._outbox.membership_news.amend(node, self._outbox.view_retransmit_limit)
        else:
            self._told_again(node, sender)

    def _explain(self, claim: Claim) -> None:
        if self._health.has_silences and any(accuser != self.node for accuser in claim.accusers):
            self._health.explained(claim.member.node)

    def _down(self, member: Member, now: float) -> None:
        self._gone(member.node)
        if member.status is Status.DEAD:
            self.recently_dead[member.node] = now
        forget_at = self.membership.down_since(member.node) + self._config.forget_after_s
        if forget_at < self._reap_at:
            self._reap_at = forget_at
            self._outbox.arm(TimerKind.REAP, forget_at - now)

    def _replaced(self, former: str, successor: str, now: float) -> None:
        """Another node lives at the address of ``former``. If that is not so, or old news, ``former`` refutes."""
        held = self.membership.get(former)
        if held is not None and held.status.live:
            self._counters["members_replaced"] += 1
            self._suspect_because_of(successor, held, now, confirmed=True, quiet=False)

    def _adopt_orphan(self, node: str) -> None:
        orphan = self.directory.claim_orphan(node)
        if orphan is not None:
            self.hear_publication(orphan, node)

    # How suspicions are timed

    def _deadline(self, node: str) -> float:
        deadline = self.suspicions.deadline(node, self.membership.able_to_confirm, self.membership.size)
        return max(deadline, self._health.caught_up_at)

    def _time_suspicion(self, node: str, now: float) -> None:
        self.suspicions.time(node, self._deadline(node))
        self._wake_for_suspicions(now)

    def _wake_for_suspicions(self, now: float) -> None:
        """One timer serves all suspicions. That it may go off when the first of them is over already costs less than to
        set it anew for each of them.
        """
        ends = float("inf") if self.has_left else self.suspicions.next_end
        if ends == float("inf"):
            self._suspicions_at = ends
            self._outbox.disarm(TimerKind.SUSPICION)
        elif ends < self._suspicions_at:
            self._suspicions_at = ends
            self._outbox.arm(TimerKind.SUSPICION, ends - now)

    def _review_suspicions(self, now: float) -> None:
        """Time all suspicions anew if fewer, or more, members can confirm than before."""
        wanted = self.suspicions.wanted(self.membership.able_to_confirm)
        if wanted != self._confirmations_wanted:
            self._confirmations_wanted = wanted
            self.time_suspicions(now)

    # What others say about this node

    def _hear_about_myself(self, claim: Claim, sender: str, now: float) -> None:
        mine, said = self.membership.myself, claim.member
        teller = self.membership.get(sender)
        if self.has_left:
            # Who only doubts it can take it from us at once.
            if said.status is Status.SUSPECT and teller is not None:
                self._object(teller, now)
            return
        elsewhere = said.address != mine.address and said.incarnation.epoch == mine.incarnation.epoch
        doubted = said.status is not Status.ALIVE
        if elsewhere and said.status.live and said.incarnation >= mine.incarnation:
            # A copy of this node speaks the truth as much as this one: outbidding each other at once would never end.
            # Somebody else who says so, to have it all to itself, makes suspects of us: against that we object.
            is_news = self.conflict(said.address, now)
            doubted = doubted or is_news
            if not doubted:
                return
        if said.incarnation > mine.incarnation or (doubted and said.incarnation == mine.incarnation):
            self._counters["refutations"] += 1
            if doubted:
                self._health.worse()
            self.become(Status.ALIVE, mine.incarnation.above(said.incarnation), now)
        elif not doubted:
            return
        if teller is not None:
            self._object(teller, now)

    def _object(self, teller: Member, now: float) -> None:
        """Tell what this node is to who holds something else; once, however often it says so at one moment."""
        if now != self._objected_at:
            self._objected_at = now
            self._objected_to.clear()
        if teller.node not in self._objected_to:
            self._objected_to.add(teller.node)
            self._outbox.send(Peer(teller.node, teller.address), Lane.PROBE, self.claim_about(self.node, now))

    def _hear_own_publication(self, publication: Publication) -> None:
        """Others hold a version of ours that we do not remember, from before a restart or a restored disk.

        Before this node has published anything since, that is what it publishes; later, the present one replaces it.
        """
        own = self.directory.publication(self.node)
        if publication.version < self.directory.version(self.node) or publication == own:
            return
        self._take(publication)
        if own is not None:
            self.publish(own.advertisement)

    # What follows from every change

    def _put(self, member: Member, now: float, down_for_s: float = 0.0) -> None:
        """Hold ``member`` in place of what is held under its node."""
        held = self.membership.get(member.node)
        self.digest.change(member.node, held, member)
        self.membership.put(member, now, down_for_s)
        if member.status.live or (held is not None and held.status.live):
            self._answered_at.pop(member.node, None)
        if held is None or held.status.live is not member.status.live:
            self._outbox.resize(self.membership.size)

    def _take(self, publication: Publication) -> bool:
        """Hold what a member publishes, if it is newer than what is held."""
        held = self.directory.publication(publication.node)
        if not self.directory.publish(publication):
            return False
        self.digest.change(publication.node, held, publication)
        return True

    def _spread(self, node: str) -> None:
        self._outbox.membership_news.put(node)

    def _told_again(self, node: str, sender: str) -> None:
        """``sender`` tells what is known here: unless it speaks of itself, others hear that from it, too."""
        if self._config.tell_lacking and sender != node:
            self._outbox.membership_news.heard(node, self._outbox.view_retransmit_limit)

    def _spread_publication(self, node: str) -> None:
        if self.directory.publication(node) is not None:
            self._outbox.advertisement_news.put(node)


def _is_event(before: Member, after: Member) -> bool:
    """The application should know: another status, a restart, another address. A refutation alone is none of these."""
    return (before.status, before.incarnation.epoch, before.address) != (
        after.status,
        after.incarnation.epoch,
        after.address,
    )


def _is_elsewhere(held: Member, said: Member) -> bool:
    """The same incarnation of a live member, at two addresses."""
    both_live = held.status.live and said.status.live
    return both_live and held.incarnation == said.incarnation and held.address != said.address
