"""Where everything that leaves the core is collected: effects, frames and armed timers.

A timer is known by its kind and key; arming it again cancels the earlier one. Only armed timers are remembered.

A frame is written in the highest version of the protocol that both ends are known to speak. Of a peer that has not
spoken yet, nothing is known: it gets the lowest that this node speaks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from gossip.config import SwimConfig
from gossip.dissemination import Broadcasts
from gossip.effects import CancelTimer, Effect, Send, SetTimer, Timer, TimerKind
from gossip.messages import Message, VersionRange, encode, frame, frame_head
from gossip.transport import Lane, Peer


class Outbox:
    """The effects of the input that is being handled, in order.

    ``claim_about(node)`` and ``publication_of(node)`` give what is news about a node, encoded.
    """

    def __init__(
        self,
        node: str,
        cluster: bytes,
        config: SwimConfig,
        counters: defaultdict[str, int],
        versions: VersionRange,
        *,
        claim_about: Callable[[str], bytes],
        publication_of: Callable[[str], bytes],
    ) -> None:
        self.membership_news = Broadcasts(encoded=claim_about)
        self.advertisement_news = Broadcasts(encoded=publication_of)
        self.application_news = Broadcasts(config.gossip_news_max)
        self.now = float("-inf")
        """When the input that is being handled came."""
        self.frames_sent = 0
        self.bytes_sent = 0
        self._node = node
        self._config = config
        self._counters = counters
        self._versions = versions
        self._higher: dict[str, int] = {}
        self._effects: list[Effect] = []
        self._armed: dict[tuple[TimerKind, str], tuple[Timer, float]] = {}
        self._tokens = 0
        self._cluster = cluster
        self._head = frame_head(cluster, node, versions.lowest)
        self.resize(1)
        self._joining_head = frame_head(b"", node, versions.lowest)

    @property
    def cluster(self) -> bytes:
        """The cluster that frames are for."""
        return self._cluster

    @cluster.setter
    def cluster(self, cluster: bytes) -> None:
        self._cluster = cluster
        self._head = frame_head(cluster, self._node, self._versions.lowest)
        self.application_news = Broadcasts(self._config.gossip_news_max)  # it was for the cluster before

    @property
    def has_news(self) -> bool:
        """Anything is left to spread."""
        return self.has_view_news or bool(len(self.application_news))

    @property
    def has_view_news(self) -> bool:
        """Anything is left to spread of what the views of nodes consist of."""
        return bool(len(self.membership_news) or len(self.advertisement_news))

    def resize(self, members: int) -> None:
        """The cluster has so many members: news is sent as often as that needs."""
        self.view_retransmit_limit = self._config.view_retransmit_limit(members)
        self._news_retransmit_limit = self._config.retransmit_limit(members)

    def drain(self) -> list[Effect]:
        """All effects since the last call."""
        effects, self._effects = self._effects, []
        return effects

    def emit(self, effect: Effect) -> None:
        """Add one effect."""
        self._effects.append(effect)

    def arm(self, kind: TimerKind, delay_s: float, key: str = "") -> None:
        """Set the timer, in place of the one that is armed under the same kind and key."""
        place = kind, key
        armed = self._armed.get(place)
        if armed is not None:
            self._effects.append(CancelTimer(armed[0]))
        self._tokens += 1
        timer, delay_s = Timer(kind, key, self._tokens), max(0.0, delay_s)
        self._armed[place] = (timer, self.now + delay_s)
        self._effects.append(SetTimer(timer, delay_s))

    def disarm(self, kind: TimerKind, key: str = "") -> None:
        """Cancel the armed timer, if there is one."""
        place = kind, key
        armed = self._armed.get(place)
        if armed is not None:
            del self._armed[place]
            self._effects.append(CancelTimer(armed[0]))

    def is_armed(self, kind: TimerKind, key: str = "") -> bool:
        """Such a timer is armed."""
        return (kind, key) in self._armed

    def fired(self, timer: Timer) -> float | None:
        """Take note that ``timer`` went off; returns when it was due, None if it is stale."""
        place = timer.kind, timer.key
        armed = self._armed.get(place)
        if armed is None or armed[0].token != timer.token:
            return None
        del self._armed[place]
        return armed[1]

    def speaks(self, node: str, highest: int) -> None:
        """``node`` has said up to which version it understands frames."""
        common = min(highest, self._versions.highest)
        if common > self._versions.lowest:
            self._higher[node] = common
        else:
            self.forget(node)

    def forget(self, node: str) -> None:
        """Nothing is known of what ``node`` understands any more."""
        if node in self._higher:
            del self._higher[node]

    def send(self, peer: Peer, lane: Lane, *messages: Message) -> None:
        """Send one frame with exactly these messages. One that is too large is dropped and counted."""
        self._send(peer, lane, [encode(message) for message in messages])

    def send_joining(self, peer: Peer, message: Message) -> None:
        """Send one message in a frame of no cluster."""
        self._put(peer, Lane.PROBE, frame(self._joining_head, [encode(message)], self._versions.highest))

    def send_with_news(
        self, peer: Peer, messages: list[Message], *, view_news: bool = True, counts: bool = True
    ) -> None:
        """Send one frame on the probe lane with these messages and as much news as its budgets hold.

        Without messages and news nothing is sent. ``view_news``: also what the views of nodes consist of. ``counts``:
        towards how often the news is sent.
        """
        config, limit = self._config, self.view_retransmit_limit
        parts = [encode(message) for message in messages]
        if view_news and self.has_view_news:
            parts += self.membership_news.take(config.gossip_membership_bytes, limit, counts=counts)
            parts += self.advertisement_news.take(config.gossip_advertisement_bytes, limit, counts=counts)
        if len(self.application_news):
            parts += self.application_news.take(config.gossip_news_bytes, self._news_retransmit_limit, counts=counts)
        if parts:
            self._send(peer, Lane.PROBE, parts)

    def _send(self, peer: Peer, lane: Lane, messages: list[bytes]) -> None:
        head = self._head
        if self._higher:
            version = self._higher.get(peer.node, self._versions.lowest)
            if version > self._versions.lowest:
                head = frame_head(self._cluster, self._node, version)
        self._put(peer, lane, frame(head, messages, self._versions.highest))

    def _put(self, peer: Peer, lane: Lane, data: bytes) -> None:
        if len(data) > self._config.frame_size_bytes_max:
            self._counters["drop_too_large_to_send"] += 1
            return
        self.frames_sent += 1
        self.bytes_sent += len(data)
        self._effects.append(Send(peer, lane, data))
