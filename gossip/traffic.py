"""What every transport does with a frame before it looks for a way and after it has found one: refuse, queue, count."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from gossip.transport import Peer, TransportConfig

COUNTERS: Final = (
    "frames_sent",
    "frames_received",
    "bytes_sent",
    "bytes_received",
    "dropped_overflow",
    "dropped_oversized",
    "dropped_unreachable",
    "dropped_expelled",
)
"""Those that ``Transport.counters`` promises."""


class Traffic:
    """The counters of one transport, by name (``count``), and the nodes that it refuses (``expelled``).

    ``others``: what this transport counts besides ``COUNTERS``.
    """

    def __init__(self, config: TransportConfig, others: tuple[str, ...] = ()) -> None:
        self._frame_size_bytes_max = config.frame_size_bytes_max
        self._queue_frames_max = config.queue_frames_max
        self.count: Counter[str] = Counter(dict.fromkeys((*COUNTERS, *others), 0))
        self.expelled: set[str] = set()

    def admits(self, peer: Peer, frame: bytes) -> bool:
        """Whether ``frame`` may leave for ``peer``; if not it is counted as dropped."""
        if len(frame) > self._frame_size_bytes_max:
            self.count["dropped_oversized"] += 1
            return False
        if peer.node in self.expelled:
            self.count["dropped_expelled"] += 1
            return False
        return True

    def enqueue(self, queue: deque[bytes], frame: bytes) -> None:
        """Append ``frame``; the oldest one makes room in a queue that is full, and is counted."""
        if len(queue) >= self._queue_frames_max:
            queue.popleft()
            self.count["dropped_overflow"] += 1
        queue.append(frame)

    def drop(self, cause: str, queue: deque[bytes]) -> None:
        """Empty ``queue`` and count what was in it as ``cause``."""
        self.count[cause] += len(queue)
        queue.clear()

    def sent(self, *frames: bytes) -> None:
        """Count frames that have left."""
        self.count["frames_sent"] += len(frames)
        self.count["bytes_sent"] += sum(map(len, frames))

    def accepts(self, frame: bytes) -> bool:
        """Whether a frame that has arrived is one to deliver; it is counted either way."""
        if len(frame) > self._frame_size_bytes_max:
            self.count["dropped_oversized"] += 1
            return False
        self.count["frames_received"] += 1
        self.count["bytes_received"] += len(frame)
        return True
