"""Where everything that leaves the core is collected: effects, frames and armed timers.

A timer is known by its kind and key; arming it again makes the earlier one stale. Only armed timers are remembered.
"""

from __future__ import annotations

from collections import Counter

from gossip.config import SwimConfig
from gossip.dissemination import Broadcasts
from gossip.effects import Effect, Send, SetTimer, Timer, TimerKind
from gossip.messages import Message, encode, frame, frame_head
from gossip.transport import Lane, Peer


class Outbox:
    """The effects of the input that is being handled, in order."""

    def __init__(self, node: str, cluster: bytes, config: SwimConfig, counters: Counter[str]) -> None:
        self.membership_news = Broadcasts()
        self.advertisement_news = Broadcasts()
        self.application_news = Broadcasts(config.gossip_news_max)
        self.retransmit_limit = config.retransmit_limit(1)
        self._node = node
        self._config = config
        self._counters = counters
        self._effects: list[Effect] = []
        self._armed: dict[tuple[TimerKind, str], int] = {}
        self._tokens = 0
        self._cluster = cluster
        self._head = frame_head(cluster, node)
        self._joining_head = frame_head(b"", node)

    @property
    def cluster(self) -> bytes:
        """The cluster that frames are for."""
        return self._cluster

    @cluster.setter
    def cluster(self, cluster: bytes) -> None:
        self._cluster = cluster
        self._head = frame_head(cluster, self._node)
        self.application_news = Broadcasts(self._config.gossip_news_max)  # it was for the cluster before

    @property
    def has_news(self) -> bool:
        """Anything is left to spread."""
        return self.has_view_news or bool(len(self.application_news))

    @property
    def has_view_news(self) -> bool:
        """Anything is left to spread of what the views of nodes consist of."""
        return bool(len(self.membership_news) or len(self.advertisement_news))

    def drain(self) -> list[Effect]:
        """All effects since the last call."""
        effects, self._effects = self._effects, []
        return effects

    def emit(self, effect: Effect) -> None:
        """Add one effect."""
        self._effects.append(effect)

    def arm(self, kind: TimerKind, delay_s: float, key: str = "") -> None:
        """Set the timer, in place of the one that is armed under the same kind and key."""
        self._tokens += 1
        self._armed[kind, key] = self._tokens
        self._effects.append(SetTimer(Timer(kind, key, self._tokens), max(0.0, delay_s)))

    def disarm(self, kind: TimerKind, key: str = "") -> None:
        """Make the armed timer stale, if there is one."""
        self._armed.pop((kind, key), None)

    def is_armed(self, kind: TimerKind, key: str = "") -> bool:
        """Such a timer is armed."""
        return (kind, key) in self._armed

    def fired(self, timer: Timer) -> bool:
        """Take note that ``timer`` went off; False if it is stale."""
        key = (timer.kind, timer.key)
        if self._armed.get(key) != timer.token:
            return False
        del self._armed[key]
        return True

    def send(self, peer: Peer, lane: Lane, *messages: Message) -> None:
        """Send one frame with exactly these messages. One that is too large is dropped and counted."""
        self._send(peer, lane, frame(self._head, [encode(message) for message in messages]))

    def send_joining(self, peer: Peer, message: Message) -> None:
        """Send one message in a frame of no cluster."""
        self._send(peer, Lane.PROBE, frame(self._joining_head, [encode(message)]))

    def send_with_news(self, peer: Peer, *messages: Message) -> None:
        """Send one frame on the probe lane with these messages and as much news as its budgets hold.

        Without messages and news nothing is sent.
        """
        limit = self.retransmit_limit
        parts = [encode(message) for message in messages]
        parts += self.membership_news.take(self._config.gossip_membership_bytes, limit)
        parts += self.advertisement_news.take(self._config.gossip_advertisement_bytes, limit)
        parts += self.application_news.take(self._config.gossip_news_bytes, limit)
        if parts:
            self._send(peer, Lane.PROBE, frame(self._head, parts))

    def _send(self, peer: Peer, lane: Lane, data: bytes) -> None:
        if len(data) > self._config.frame_size_bytes_max:
            self._counters["drop_too_large_to_send"] += 1
            return
        self._counters["frames_sent"] += 1
        self._counters["bytes_sent"] += len(data)
        self._effects.append(Send(peer, lane, data))
