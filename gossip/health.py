"""How well this node itself is, by its own judgement.

A node that is starved or cut off gets no answers, and would accuse everybody. It can notice: its probes fail, relays
that it asks say nothing at all, others suspect it, its timers go off late. The more of that, the longer it waits before
it accuses anybody (Lifeguard, Dadgar, Phillips and Currey 2018, section IV-A: Local Health Aware Probe).
"""

from __future__ import annotations

from collections import defaultdict

from gossip.config import SwimConfig


class LocalHealth:
    """A counter that saturates: 0 is well, and ``awareness_max - 1`` as bad as can be (of 0 and 1: always well).

    Better by 1: a probe succeeded. Worse by 1: a probe failed without any relay to ask, a relay did not even say that
    it has no answer, this node had to refute a suspicion, or it stood still for ``stall_s``. A relay's silence is taken
    back when somebody else finds that relay silent, too: where many vanish at once, those that are left are not unwell.
    """

    def __init__(self, config: SwimConfig, counters: defaultdict[str, int]) -> None:
        self._config = config
        self._score_max = max(0, config.awareness_max - 1)
        self._counters = counters
        self._stalled_at = float("-inf")
        self._silences: defaultdict[str, int] = defaultdict(int)
        self.score = 0

    @property
    def caught_up_at(self) -> float:
        """When everything has been read that arrived while this node last stood still: no silence counts before."""
        return self._stalled_at + self._config.probe_window_s

    def better(self, by: int = 1) -> None:
        """Something went as it should."""
        if self.score:
            self.score = max(0, self.score - by)
            if not self.score:
                self._silences.clear()

    def worse(self) -> None:
        """Something went wrong that may well be this node's own fault."""
        self.score = min(self._score_max, self.score + 1)

    def silence(self, relay: str) -> None:
        """``relay`` said nothing, and nobody else has found it silent so far."""
        if self.score < self._score_max:
            self._silences[relay] += 1
            self.worse()

    @property
    def has_silences(self) -> bool:
        """There is something that could be explained."""
        return bool(self._silences)

    def explained(self, relay: str) -> None:
        """Somebody else gets no answer from ``relay`` either."""
        silences = self._silences.pop(relay, 0)
        if silences:
            self.better(silences)

    def scaled(self, duration_s: float) -> float:
        """``duration_s`` for a node of this health."""
        return duration_s * (self.score + 1)

    def stalled_s(self, due: float, now: float) -> float:
        """How long this node stood still, if a timer that was due at ``due`` and goes off now is the first to tell."""
        late_s = now - due
        if not self._config.stall_s or late_s < self._config.stall_s or due <= self._stalled_at:
            return 0.0
        self._stalled_at = now
        self._counters["stalls"] += 1
        self.worse()
        return late_s
