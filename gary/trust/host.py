"""What the parts of trust ask of the node that they live on. Each says what it alone needs besides."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from gary.clock import Clock
from gary.identity import NodeId
from gary.outbox import After
from gary.storage import Write
from gary.trust.keys import KeyPair
from gary.trust.notary import Answer, Request
from gary.trust.standing import Standing

Answered = Callable[[Answer], None]
Failed = Callable[[str], None]


class Host(Protocol):
    """A node with a standing in a cluster."""

    node: NodeId
    key: KeyPair
    standing: Standing
    clock: Clock
    rng: random.Random
    counters: Counter[str]

    def consult(self, request: Request, answered: Answered, failed: Failed) -> None:
        """Ask the notary; one of the two is called later."""

    def persist(self, writes: Sequence[Write], after: After = ...) -> None:
        """Make it durable, then call ``after``."""

    def tell(self, kind: str, message: str) -> None:
        """Record an event."""

    def random_bytes(self, size_bytes: int) -> bytes: ...
