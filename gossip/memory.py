"""A network inside one process: the ``Transport`` for tests and simulations.

Frames are delivered by the event loop, in the order in which they were sent, one after the other. What goes wrong is up
to the hook ``MemoryNetwork.lose``; by itself nothing does.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Final

from gossip.errors import TransportError
from gossip.transport import Credentials, Lane, Peer, Receiver, TransportConfig

_PORT_FIRST: Final = 49152
_PORT_LAST: Final = 65535

COUNTERS: Final = (
    "frames_sent",
    "frames_received",
    "bytes_sent",
    "bytes_received",
    "dropped_overflow",
    "dropped_oversized",
    "dropped_unreachable",
    "dropped_closed",
    "dropped_lost",
)

Lose = Callable[[str, str, Lane, bytes], bool]


def _lose_nothing(sender: str, receiver: str, lane: Lane, frame: bytes) -> bool:
    return False


class MemoryNetwork:
    """Everyone who can be reached, by address, and by node for replies.

    ``lose(sender address, receiver address, lane, frame)`` is asked before each delivery; True makes the frame vanish,
    as a cut link or loss does. It may be replaced at any time.
    """

    def __init__(self, lose: Lose = _lose_nothing) -> None:
        self.lose = lose
        self._ends: dict[str, MemoryTransport] = {}
        self._next_port = _PORT_FIRST

    def transport(self, config: TransportConfig) -> MemoryTransport:
        """A ``TransportFactory``: one more node's end of this network."""
        return MemoryTransport(self, config)

    def cut(self, *addresses: str) -> None:
        """Let everything from and to these addresses vanish, and nothing else; without any, heal."""
        gone = frozenset(addresses)
        self.lose = lambda sender, receiver, lane, frame: sender in gone or receiver in gone

    def listen(self, end: MemoryTransport, bind: str) -> str:
        """Register ``end`` at ``bind``; port 0 means any free one. Returns the address that was taken."""
        host, _, port = bind.rpartition(":")
        if not host or not port.isdigit():
            raise TransportError(f"{bind!r} is not host:port")
        address = self._free_address(host) if port == "0" else bind
        if address in self._ends:
            raise TransportError(f"{address} is taken")
        self._ends[address] = end
        return address

    def silence(self, address: str) -> None:
        """Nobody listens at ``address`` any more."""
        self._ends.pop(address, None)

    def find(self, address: str) -> MemoryTransport | None:
        """Who listens at ``address``."""
        return self._ends.get(address)

    def _free_address(self, host: str) -> str:
        for _ in range(_PORT_FIRST, _PORT_LAST):
            port = self._next_port
            self._next_port = port + 1 if port < _PORT_LAST else _PORT_FIRST
            if f"{host}:{port}" not in self._ends:
                return f"{host}:{port}"
        raise TransportError(f"no port is free at {host}")


class MemoryTransport:
    """One node's end of a ``MemoryNetwork``."""

    def __init__(self, network: MemoryNetwork, config: TransportConfig) -> None:
        self._network = network
        self._config = config
        self._bound = ""
        self._address = ""
        self._receiver: Receiver | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Where each node is that this one has talked with: replies go there, whatever address the caller remembers.
        self._connections: dict[str, str] = {}
        self._queues: dict[Peer, tuple[deque[bytes], deque[bytes]]] = {}
        self._count: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))

    @property
    def node(self) -> str:
        """Who this end belongs to."""
        return self._config.node

    @property
    def address(self) -> str:
        """``host:port`` at which peers reach this node."""
        return self._address

    async def start(self, receiver: Receiver) -> None:
        """Listen. Raises ``TransportError`` when the address is taken or is none."""
        self._bound = self._network.listen(self, self._config.bind)
        self._address = self._config.advertise or self._bound
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()

    def send(self, peer: Peer, lane: Lane, frame: bytes) -> None:
        """Queue ``frame`` for ``peer``; the oldest one makes room."""
        if self._receiver is None or self._loop is None:
            self._count["dropped_closed"] += 1
            return
        if len(frame) > self._config.frame_size_bytes_max:
            self._count["dropped_oversized"] += 1
            return
        if peer not in self._queues:
            self._queues[peer] = (deque(), deque())
            self._loop.call_soon(self._pump, peer)
        queue = self._queues[peer][lane]
        if len(queue) >= self._config.queue_frames_max:
            queue.popleft()
            self._count["dropped_overflow"] += 1
        queue.append(frame)

    def forget(self, peer: Peer) -> None:
        """Drop the connection to ``peer`` and what is queued for it."""
        self._connections.pop(peer.node, None)
        for lane in self._queues.get(peer, ()):
            lane.clear()

    def counters(self) -> Mapping[str, int]:
        """Totals since the start, by name; ``connections`` is how many there are."""
        return {**self._count, "connections": len(self._connections)}

    async def renew(self, credentials: Credentials) -> None:
        """Nothing changes: here nobody has to prove who they are. Raises ``TransportError`` unless it runs."""
        if self._receiver is None:
            raise TransportError("a transport that does not run can be given no credentials")

    async def close(self) -> None:
        """Stop listening; nothing is delivered afterwards."""
        if self._receiver is not None:
            self._network.silence(self._bound)
        self._receiver = None
        self._queues.clear()
        self._connections.clear()

    def _pump(self, peer: Peer) -> None:
        """Deliver what waits for ``peer`` on the probe lane and one frame of the bulk lane; then let others run."""
        probe, bulk = self._queues.get(peer, ((), ()))
        if self._loop is None or not (probe or bulk):
            self._queues.pop(peer, None)
            return
        where, target = self._route(peer)
        if target is None and not self._network.lose(self._bound, where, Lane.PROBE, b""):
            del self._queues[peer]
            self._count["dropped_unreachable"] += len(probe) + len(bulk)
            self._report(peer, where)
            return
        while probe and self._receiver is not None:
            self._deliver(target, where, Lane.PROBE, probe.popleft())
        if bulk and self._receiver is not None:
            self._deliver(target, where, Lane.BULK, bulk.popleft())
        self._loop.call_soon(self._pump, peer)

    def _route(self, peer: Peer) -> tuple[str, MemoryTransport | None]:
        for where in (self._connections.get(peer.node, ""), peer.address):
            target = self._network.find(where)
            if target is not None and peer.node in ("", target.node):
                return where, target
        self._connections.pop(peer.node, None)
        return peer.address, None

    def _report(self, peer: Peer, where: str) -> None:
        assert self._receiver is not None, "a closed end has no queues"
        vacant = self._network.find(where) is None
        self._receiver.unreachable(peer, "connection refused" if vacant else "another node lives there")

    def _deliver(self, target: MemoryTransport | None, where: str, lane: Lane, frame: bytes) -> None:
        if target is None or self._network.lose(self._bound, where, lane, frame):
            self._count["dropped_lost"] += 1
            return
        self._connections[target.node] = where
        self._count["frames_sent"] += 1
        self._count["bytes_sent"] += len(frame)
        target._arrive(self, lane, frame)

    def _arrive(self, sender: MemoryTransport, lane: Lane, frame: bytes) -> None:
        if self._receiver is None:
            return
        if len(frame) > self._config.frame_size_bytes_max:
            self._count["dropped_oversized"] += 1
            return
        self._connections[sender.node] = sender._bound
        self._count["frames_received"] += 1
        self._count["bytes_received"] += len(frame)
        self._receiver.received(sender.node, lane, frame)
