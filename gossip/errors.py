"""What can go wrong in gossip, told apart by whose mistake it is.

The protocol core raises nothing for what the network says: bad input is a counted drop. ``BadFrame`` is how a decoder
tells the core of such a drop, and never leaves it.
"""

from __future__ import annotations

from collections.abc import Sequence


class GossipError(Exception):
    """Everything that this package raises on purpose. State is as it was before the call, unless said otherwise."""


class UnknownTransport(GossipError):
    """Our mistake: the configured transport is not installed."""

    def __init__(self, name: str, installed: Sequence[str]) -> None:
        self.name = name
        self.installed = tuple(installed)
        super().__init__(f"no transport is called {name!r}; installed: {', '.join(self.installed) or 'none'}")


class TransportError(GossipError):
    """The world failed: the network cannot be used as asked (for example: the address is taken)."""


class PeerUnreachable(GossipError):
    """The world failed, or the peer did: why there is no connection to it."""


class InvalidConfig(GossipError):
    """Our mistake: a field of ``SwimConfig`` lies outside its bounds."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        super().__init__(f"{field}: {problem}")


class BadFrame(GossipError):
    """The peer's mistake: bytes that are no frame of ours. ``cause`` is the name under which the drop is counted."""

    def __init__(self, cause: str, detail: str = "") -> None:
        self.cause = cause
        super().__init__(f"{cause}: {detail}" if detail else cause)


class NewsTooLarge(GossipError):
    """Our mistake: a piece of news that other nodes would not pass on."""

    def __init__(self, size_bytes: int, size_bytes_max: int) -> None:
        self.size_bytes = size_bytes
        super().__init__(f"the news has {size_bytes} bytes, at most {size_bytes_max} are allowed")


class AdvertisementTooLarge(GossipError):
    """Our mistake: an advertisement that not every node of the cluster could be asked to hold."""

    def __init__(self, size_bytes: int, size_bytes_max: int) -> None:
        self.size_bytes = size_bytes
        super().__init__(f"the advertisement has {size_bytes} bytes, at most {size_bytes_max} are allowed")
