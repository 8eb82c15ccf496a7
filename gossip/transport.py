"""What gossip asks of a network: one-way, best-effort frames between nodes.

A transport never makes its caller wait. ``send`` queues a frame and returns; a full queue drops its oldest frame, a
peer that cannot be reached is reported through ``Receiver.unreachable``, and everything else that goes wrong is a
counted drop. Delivery, order and uniqueness are not promised: the protocols above are built for their absence.

Two lanes lead to every peer, so that an ack never waits behind a document: frames of one lane never queue behind
frames of the other.

An implementation is found by name through the entry point group ``gary.transports``. ``gossip.testing`` holds the
contract suite that every implementation passes, ``gossip.streams`` what most of them have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Protocol

from gossip.errors import UnknownTransport

ENTRY_POINT_GROUP = "gary.transports"
SERVER_NAME = "gary"
"""An alternative name in everybody's certificate: TLS wants a server to have a name that the client knows before it
connects, even where it does not know which node lives there."""

NOT_TRUSTED = "not trusted"
"""How the reason begins for which a peer is unreachable when certificates do not fit."""
HUNG_UP = "it hung up"
"""How the reason begins for which a peer may be unreachable without having been sent anything: its process has closed
the last connection, on the probe lane, or the host has closed it for a process that ended."""
GUEST = "guest:"
"""What the common name of a guest begins with, before 32 hexadecimal digits. A guest is about to join: it dials and is
never dialled, and several at a time may show one certificate."""
GUEST_GONE = "a guest, which is never dialled, has no connection"
"""Why a guest is unreachable."""


def server_names(node: str) -> tuple[str, ...]:
    """The alternative names in the certificate of ``node``. A client that knows whom it means can ask TLS to check its
    id. A guest has none: it is never dialled.
    """
    return (SERVER_NAME, node) if node and not node.startswith(GUEST) else (SERVER_NAME,)


class Lane(IntEnum):
    """Which of the two queues to a peer a frame travels in."""

    PROBE = 0
    BULK = 1


@dataclass(slots=True, init=False, unsafe_hash=True)
class Peer:
    """Where to send: the node that is meant, and the address (``host:port``) at which it was last known.

    ``node`` is empty as long as nobody knows who lives at the address (the first message of a join). ``address`` is
    empty when nobody knows where the node lives: then a frame reaches it only on a connection that is there. The
    address of a guest says nothing; a frame to one goes to all who show its certificate and are connected.
    """

    node: Final[str]
    address: Final[str]

    def __init__(self, node: str, address: str) -> None:
        self.node = node
        self.address = address


class Receiver(Protocol):
    """Who is told what the transport hears. Both methods run on the event loop's thread and return at once."""

    def received(self, sender: str, lane: Lane, frame: bytes) -> None:
        """A whole frame arrived from ``sender``, the node id that the connection vouches for."""

    def unreachable(self, peer: Peer, reason: str) -> None:
        """A frame to ``peer`` could not be delivered, and that is certain (for example: connection refused).

        A transport that notices when a peer hangs up says so, too (``HUNG_UP``): of a process that ends, its peers then
        know at once, and not when they next have something to say to it.
        """


class Transport(Protocol):
    """One node's end of the network."""

    @property
    def address(self) -> str:
        """``host:port`` at which peers reach this node; empty if it does not listen, or ``start`` has not returned."""

    @property
    def ports(self) -> int:
        """At how many neighbouring ports, from that of its address on, a node listens: all have to be open to peers."""

    async def start(self, receiver: Receiver) -> None:
        """Listen. Raises ``gossip.errors.TransportError`` when the address cannot be bound, or the credentials cannot
        be used.
        """

    def send(self, peer: Peer, lane: Lane, frame: bytes) -> None:
        """Queue ``frame`` for ``peer`` and return at once; the receiver is never called before it has returned.

        Replies travel on the connection that is there. A frame reaches the node that is meant or nobody: if another one
        lives at the address by now, the peer is unreachable.
        """

    def forget(self, peer: Peer) -> None:
        """Drop the connections to ``peer`` and what is queued for it; it is gone for good."""

    def expel(self, node: str) -> None:
        """Send nothing to ``node`` and take nothing from it, from now on and whatever it shows.

        Its connections are cut, those that it makes are refused before any of their frames is looked at, and frames to
        it are dropped; nobody is told. May be called before ``start``, by a node that knows whom to refuse.
        """

    def counters(self) -> Mapping[str, int]:
        """Totals since the start, by name: frames and bytes each way, drops by cause, and what else there is to count.

        Every transport has ``frames_sent``, ``frames_received``, ``bytes_sent``, ``bytes_received``,
        ``dropped_overflow`` (the oldest of a full queue), ``dropped_oversized``, ``dropped_unreachable`` and
        ``dropped_expelled`` (frames to the expelled, and what they tried).
        """

    async def renew(self, credentials: Credentials) -> None:
        """Show and trust ``credentials`` from now on; the address stays.

        Connections are made anew, and what waits, or is sent meanwhile, leaves on the new ones. Peers may notice that a
        connection is gone, as happens at any time. Raises ``gossip.errors.TransportError``: for credentials that cannot
        be used, and everything stays as it was; from a transport that does not run, or runs without any; and if the
        address cannot be had again, when it is worth another try.
        """

    async def close(self) -> None:
        """Stop listening and let go of every connection. Nothing is delivered afterwards."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a node shows its peers, and what it wants to be shown by them; PEM.

    ``certificate``: its common name is the node id, its alternative names are ``server_names``. ``roots``: whose
    signature under a certificate is trusted.
    """

    certificate: str
    key: str = field(repr=False)
    roots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TransportConfig:
    """What any transport is built from.

    ``node``: 32 hexadecimal digits, with ``GUEST`` before them if it is one. ``bind``: ``host:port`` to listen on (port
    0: any free one); empty: do not listen, only dial. ``advertise``: ``host:port`` for peers to dial, when it
    differs from ``bind``. ``frame_size_bytes_max``: larger frames are neither sent nor accepted.
    ``queue_frames_max``: frames that may wait per peer and lane; raising it costs memory per unreachable peer.
    ``connections_max``: connections that stay open on each lane; the least recently used one goes first.
    ``dials_max``: connections being made at one time. ``credentials``: certificates are required on both sides of each
    connection, and the sender of a frame is who its certificate names; None: nothing is encrypted, and the peer's word
    is taken for who it is. A transport that cannot do as they ask raises ``TransportError`` when it starts.
    """

    node: str
    bind: str
    advertise: str = ""
    frame_size_bytes_max: int = 4 * 1024 * 1024
    queue_frames_max: int = 256
    connections_max: int = 64
    dials_max: int = 16
    credentials: Credentials | None = None


TransportFactory = Callable[[TransportConfig], Transport]


def load_transport(name: str) -> TransportFactory:
    """Find the installed transport called ``name``; raises ``UnknownTransport`` naming those that are installed."""
    # Imported here: an application that names its transport itself does without three megabytes.
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise UnknownTransport(name, sorted(found))
    factory: TransportFactory = found[name].load()
    return factory
