"""Comparing whole views, so that what gossip lost is found.

Every ping and ack carries one hash of all that its sender knows, kept up to date at no cost; so an idle cluster checks
itself with the probes it sends anyway. The hash is a sum of one for each fact, so from how two of them differ it can be
seen whether it is just the latest changes here that the other lacks: these it is told at once, and nothing else is. So
gossip need not reach everybody. Where that does not explain the difference for a while, the views are compared:

    who noticed            the other
    Buckets           ->                 a hash for each bucket of node ids
                      <-   Versions      how new the knowledge in the buckets that differ is
    Records, Wanted   ->                 what is newer here; what is newer there
                      <-   Records

Every step is stateless, capped and may be lost. What does not fit is found again by the next comparison.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Final

from gossip.config import SwimConfig
from gossip.digest import BUCKETS, Digest, Fact
from gossip.directory import Directory, Publication
from gossip.member import Claim, Incarnation, Member
from gossip.membership import Membership
from gossip.messages import Buckets, Records, Version, Versions, Wanted
from gossip.outbox import Outbox
from gossip.pace import Pace
from gossip.transport import Lane, Peer

_VERSIONS_MAX: Final = 1024
_WANTED_MAX: Final = 4096
# Sizes on the wire, for cutting answers into pieces; rounded up.
_CLAIM_SIZE_BYTES: Final = 128
_PUBLICATION_SIZE_BYTES: Final = 64
# A node hears about two digests in each interval of probes. While news spreads many of them differ.
_PATIENCE_INTERVALS: Final = 2


def version_of(member: Member, published: Incarnation) -> Version:
    """How new this knowledge is. Who accuses a suspect does not count: news takes care of that."""
    return Version(member.node, member.incarnation, member.status.rank, published)


class Reconciliation:
    """When to compare views with whom, and the answers to each step."""

    def __init__(
        self,
        *,
        config: SwimConfig,
        membership: Membership,
        directory: Directory,
        digest: Digest,
        outbox: Outbox,
        counters: defaultdict[str, int],
        expelled: Container[str],
        claim_about: Callable[[str, float], Claim],
    ) -> None:
        self._config = config
        self._membership = membership
        self._directory = directory
        self._digest = digest
        self._outbox = outbox
        self._counters = counters
        self._expelled = expelled
        self._claim_about = claim_about
        self._interval_s = config.sync_interval_s
        self._not_before = float("-inf")
        self._started_at = float("-inf")
        self._understood_at = float("-inf")
        self._tellings = Pace(1.0, each=config.sync_answers_per_member, all_=config.sync_answers_max)
        self._paces = {
            step: Pace(1.0, each=config.sync_answers_per_member, all_=config.sync_answers_max)
            for step in (Buckets, Versions, Wanted)
        }

    def lacking(self, peer: Peer, digest: int, now: float) -> list[Claim | Publication]:
        """A ping or ack told what ``peer`` knows: what it should be told, if it just lacks the latest changes."""
        if not self._config.tell_lacking or digest == self._digest.total:
            return []
        lacking = self._digest.lacking(digest)
        if not lacking or not self._tellings.allows(peer.node, now):
            return []
        self._understood_at = now
        latest = {(type(known), known.node): self._fact(known, now) for known in lacking}
        told = self._as_fits_one_frame(fact for fact in latest.values() if fact is not None)
        self._counters["told_lacking"] += len(told)
        return told

    def refute(self, peer: Peer, nodes: Iterable[str], now: float) -> None:
        """``peer`` told as news that these are suspect or down, and they have refuted that: it would soon believe it,
        and which change it lacks then no digest shows.
        """
        if self._tellings.allows(peer.node, now):
            told = self._as_fits_one_frame(self._claim_about(node, now) for node in dict.fromkeys(nodes))
            self._counters["told_refuted"] += len(told)
            self._outbox.send(peer, Lane.PROBE, *told)

    def _as_fits_one_frame(self, facts: Iterable[Claim | Publication]) -> list[Claim | Publication]:
        left_bytes = self._config.gossip_membership_bytes + self._config.gossip_advertisement_bytes
        chosen: list[Claim | Publication] = []
        for fact in facts:
            if left_bytes > 0:
                chosen.append(fact)
                left_bytes -= _size_bytes(fact)
        return chosen

    def heard(self, peer: Peer, digest: int, now: float) -> None:
        """Likewise: start a comparison if there is a difference that lasts, and that news won't heal."""
        if digest == self._digest.total:
            self._interval_s = self._config.sync_interval_s
            self._understood_at = now
            return
        if now < max(self._not_before, self._understood_at + self._config.probe_interval_s * _PATIENCE_INTERVALS):
            return
        if self._outbox.has_view_news and now < self._started_at + self._config.sync_interval_max_s:
            return
        self._started_at = now
        self._not_before = now + self._interval_s
        self._interval_s = min(self._interval_s * 2, self._config.sync_interval_max_s)
        self._counters["syncs_started"] += 1
        self._outbox.send(peer, Lane.BULK, Buckets(self._digest.buckets))

    def brought_news(self) -> None:
        """Records changed what is known here: a comparison was of use, so the next one need not wait long."""
        self._interval_s = self._config.sync_interval_s
        self._not_before = min(self._not_before, self._started_at + self._interval_s)

    def buckets(self, peer: Peer, message: Buckets, now: float) -> None:
        """Step one arrived: answer with versions from the buckets that differ."""
        if len(message.hashes) != BUCKETS or not self._may_answer(peer, message, now):
            self._counters["drop_sync"] += 1
            return
        chosen: list[int] = []
        versions: list[Version] = []
        hashes = zip(self._digest.buckets, message.hashes, strict=True)
        for bucket, nodes in self._nodes_in([n for n, (own, theirs) in enumerate(hashes) if own != theirs]).items():
            if versions and len(versions) + len(nodes) > _VERSIONS_MAX:
                break
            chosen.append(bucket)
            versions += [self._version(node) for node in nodes[:_VERSIONS_MAX]]
        if chosen:
            self._outbox.send(peer, Lane.BULK, Versions(tuple(chosen), tuple(versions)))

    def versions(self, peer: Peer, message: Versions, now: float) -> None:
        """Step two arrived: send what is newer here, ask for what is newer there."""
        if not self._may_answer(peer, message, now):
            self._counters["drop_sync"] += 1
            return
        theirs = {version.node: version for version in message.versions}
        wanted = [version.node for version in message.versions if self._is_newer(version)]
        chosen = [bucket for bucket in dict.fromkeys(message.buckets) if bucket < BUCKETS]
        newer = [
            node
            for nodes in self._nodes_in(chosen).values()
            for node in nodes
            if node not in theirs or _newer(self._version(node), theirs[node])
        ]
        self.send_records(peer, newer, now)
        if wanted:
            self._outbox.send(peer, Lane.BULK, Wanted(tuple(wanted[:_WANTED_MAX])))

    def wanted(self, peer: Peer, message: Wanted, now: float) -> None:
        """Step three arrived: send what was asked for."""
        if not self._may_answer(peer, message, now):
            self._counters["drop_sync"] += 1
            return
        nodes = [node for node in dict.fromkeys(message.nodes) if self._membership.get(node) is not None]
        self.send_records(peer, nodes, now)

    def send_records(self, peer: Peer, nodes: Iterable[str], now: float) -> None:
        """Send all that is known about ``nodes``, in pieces, as many as are allowed."""
        for count, piece in enumerate(self.pieces(nodes, now)):
            if count == self._config.sync_pieces_max:
                self._counters["drop_sync_piece"] += 1
                return
            self._outbox.send(peer, Lane.BULK, piece)

    def pieces(self, nodes: Iterable[str], now: float) -> Iterator[Records]:
        """All that is known about ``nodes``, cut into messages of a moderate size."""
        claims: list[Claim] = []
        publications: list[Publication] = []
        size_bytes = 0
        for node in nodes:
            if size_bytes >= self._config.sync_piece_bytes:
                yield Records(tuple(claims), tuple(publications))
                claims, publications, size_bytes = [], [], 0
            claims.append(self._claim_about(node, now))
            size_bytes += _size_bytes(claims[-1])
            publication = self._directory.publication(node)
            if publication is not None:
                publications.append(publication)
                size_bytes += _size_bytes(publication)
        if claims:
            yield Records(tuple(claims), tuple(publications))

    def _fact(self, known: Fact, now: float) -> Claim | Publication | None:
        """What is known now of what has been known since some change; None if it is forgotten."""
        if isinstance(known, Publication):
            return self._directory.publication(known.node)
        return self._claim_about(known.node, now) if self._membership.get(known.node) is not None else None

    def _may_answer(self, peer: Peer, message: Buckets | Versions | Wanted, now: float) -> bool:
        return self._paces[type(message)].allows(peer.node, now)

    def _nodes_in(self, buckets: Iterable[int]) -> dict[int, list[str]]:
        """Who falls into each of ``buckets``. All members are looked at, since a table of it would cost more."""
        found: dict[int, list[str]] = {bucket: [] for bucket in buckets}
        nodes_of = {f"{byte:02x}": found[byte % BUCKETS] for byte in range(256) if byte % BUCKETS in found}
        if nodes_of:
            for node in self._membership.nodes():
                nodes = nodes_of.get(node[:2])
                if nodes is not None:
                    nodes.append(node)
        return found

    def _version(self, node: str) -> Version:
        member = self._membership.get(node)
        assert member is not None, "only members are compared"
        return version_of(member, self._directory.version(node))

    def _is_newer(self, theirs: Version) -> bool:
        if theirs.node in self._expelled:
            return False
        if self._membership.get(theirs.node) is None:
            return True
        return _newer(theirs, self._version(theirs.node))


def _size_bytes(fact: Claim | Publication) -> int:
    if isinstance(fact, Claim):
        return _CLAIM_SIZE_BYTES
    return _PUBLICATION_SIZE_BYTES + fact.advertisement.size_bytes


def _newer(one: Version, other: Version) -> bool:
    """``one`` knows something that ``other`` does not; both may, of each other."""
    return (one.incarnation, one.rank) > (other.incarnation, other.rank) or one.published > other.published
