"""A network inside one process: the ``Transport`` for tests and simulations.

Frames are delivered by the event loop, in the order in which they were sent, one after the other. What goes wrong is up
to the hook ``MemoryNetwork.lose``; by itself nothing does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from gossip.errors import TransportError
from gossip.traffic import Traffic
from gossip.transport import GUEST, GUEST_GONE, Credentials, Lane, Peer, Receiver, TransportConfig

_PORT_FIRST: Final = 49152
_PORT_LAST: Final = 65535

_NO_CREDENTIALS: Final = "in memory nobody can prove who they are, so credentials are of no use"

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
        # Whom this one has talked with, by node: replies go there, whatever address the caller remembers.
        self._connections: dict[str, list[MemoryTransport]] = {}
        self._queues: dict[Peer, tuple[deque[bytes], deque[bytes]]] = {}
        self._traffic = Traffic(config, ("dropped_closed", "dropped_lost"))
        self._count = self._traffic.count
        self._expelled = self._traffic.expelled

    @property
    def node(self) -> str:
        """Who this end belongs to."""
        return self._config.node

    @property
    def address(self) -> str:
        """``host:port`` at which peers reach this node."""
        return self._address

    @property
    def ports(self) -> int:
        """One."""
        return 1

    async def start(self, receiver: Receiver) -> None:
        """Listen. Raises ``TransportError`` when the address is taken or is none, and if there are credentials."""
        if self._config.credentials is not None:
            raise TransportError(_NO_CREDENTIALS)
        if self._config.bind:
            self._bound = self._network.listen(self, self._config.bind)
            self._address = self._config.advertise or self._bound
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()

    def send(self, peer: Peer, lane: Lane, frame: bytes) -> None:
        """Queue ``frame`` for ``peer``; the oldest one makes room."""
        if self._receiver is None or self._loop is None:
            self._count["dropped_closed"] += 1
            return
        if not self._traffic.admits(peer, frame):
            return
        if peer not in self._queues:
            self._queues[peer] = (deque(), deque())
            self._loop.call_soon(self._pump, peer)
        self._traffic.enqueue(self._queues[peer][lane], frame)

    def forget(self, peer: Peer) -> None:
        """Drop the connection to ``peer`` and what is queued for it."""
        self._connections.pop(peer.node, None)
        for lane in self._queues.get(peer, ()):
            lane.clear()

    def expel(self, node: str) -> None:
        """Cut off ``node``, and refuse it from now on."""
        self._expelled.add(node)
        self._connections.pop(node, None)
        for peer in [waiting for waiting in self._queues if waiting.node == node]:
            self._count["dropped_expelled"] += sum(map(len, self._queues.pop(peer)))

    def counters(self) -> Mapping[str, int]:
        """Totals since the start, by name; ``connections`` is how many there are."""
        return {**self._count, "connections": len(self._connections)}

    async def renew(self, credentials: Credentials) -> None:
        """Raises ``TransportError``: there are none to be renewed."""
        raise TransportError(_NO_CREDENTIALS)

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
        targets = self._targets(peer)
        if not targets and not self._network.lose(self._bound, peer.address, Lane.PROBE, b""):
            del self._queues[peer]
            self._count["dropped_unreachable"] += len(probe) + len(bulk)
            self._report(peer)
            return
        while probe and self._receiver is not None:
            self._deliver(targets, Lane.PROBE, probe.popleft())
        if bulk and self._receiver is not None:
            self._deliver(targets, Lane.BULK, bulk.popleft())
        self._loop.call_soon(self._pump, peer)

    def _targets(self, peer: Peer) -> list[MemoryTransport]:
        """Who gets frames for ``peer``: who is connected, of a guest's name all, or else who listens at its address."""
        ends = [end for end in self._connections.pop(peer.node, ()) if end._receiver is not None]
        if ends:
            self._connections[peer.node] = ends
        elif not peer.node.startswith(GUEST):
            tenant = self._network.find(peer.address)
            ends = [tenant] if tenant is not None and peer.node in ("", tenant.node) else []
        return [end for end in ends if end.node not in self._expelled and end._admits(self.node)]

    def _admits(self, node: str) -> bool:
        if node in self._expelled:
            self._count["dropped_expelled"] += 1
            return False
        return True

    def _report(self, peer: Peer) -> None:
        assert self._receiver is not None, "a closed end has no queues"
        tenant = self._network.find(peer.address)
        if peer.node.startswith(GUEST):
            self._receiver.unreachable(Peer(peer.node, ""), GUEST_GONE)
        elif tenant is None:
            self._receiver.unreachable(peer, "connection refused")
        elif peer.node not in ("", tenant.node):
            self._receiver.unreachable(peer, "another node lives there")
        else:
            self._receiver.unreachable(peer, "one of the two nodes has expelled the other")

    def _deliver(self, targets: list[MemoryTransport], lane: Lane, frame: bytes) -> None:
        reached = [target for target in targets if not self._network.lose(self._bound, target._bound, lane, frame)]
        if not reached:
            self._count["dropped_lost"] += 1
        for target in reached:
            self._connect(target)
            self._traffic.sent(frame)
            target._arrive(self, lane, frame)

    def _arrive(self, sender: MemoryTransport, lane: Lane, frame: bytes) -> None:
        if self._receiver is None or not self._traffic.accepts(frame):
            return
        self._connect(sender)
        self._receiver.received(sender.node, lane, frame)

    def _connect(self, end: MemoryTransport) -> None:
        known = self._connections.get(end.node, []) if end.node.startswith(GUEST) else []
        self._connections[end.node] = [*(other for other in known if other is not end), end]
