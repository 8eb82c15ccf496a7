"""One lane of a transport that is made of connections: who is connected, who is being dialled, and what waits.

What a connection is underneath stays behind ``Link``; ``gossip.framing`` says what travels on one. A frame waits in the
queue of its peer until the connection to it has room, or until there is one: whichever side dialled it, a connection
serves both directions. All of this runs on the event loop's thread, but for ``Link.dial``, which blocks a thread of
``Dialler``. Nothing ticks: timers exist only while a dial or a handshake is under way, while the second of two
connections retires, or while something waits for room.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Set
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from gossip import framing
from gossip.dialling import DIAL_TIMEOUT_S, Dial, Dialler, split_address
from gossip.errors import BadFrame, TransportError
from gossip.framing import Flow, Hello
from gossip.traffic import Traffic
from gossip.transport import GUEST, GUEST_GONE, HUNG_UP, Lane, Peer, Receiver, TransportConfig

RETIRE_DELAY_S = 1.0
"""How long the second of two connections to one peer stays, for what is on its way."""
STALL_LIMIT_S = {Lane.PROBE: 5.0, Lane.BULK: 30.0}
"""A connection whose window has been full for this long is replaced by the next send: TCP itself needs minutes to
notice that a peer vanished, and after a partition up to two more to try again.
"""
ACCEPTED_OF_NODE_MAX = 4
"""Connections on one lane that one node may have made; the oldest goes. It needs one, and two for a moment."""
STRANGERS_MAX = 64
"""Accepted connections that have not said hello; the oldest goes."""
GUESTS_MAX = 64
"""Connections of guests at one time on one lane; more are refused, and no guest takes a node's place."""
GUESTS_OF_NAME_MAX = 32
"""The same of those who show one certificate."""
GUEST_STAY_S = 10.0
"""How long a guest may stay, many times what a join takes."""
RETRY_DELAY_S = 0.001
BATCH_BYTES = 256 * 1024
DRAIN_MESSAGES_MAX = 32
DRAIN_BYTES_MAX = 1024 * 1024
"""What one wake-up takes in at most, so that the loop's other work gets its turn."""
_GONE_MAX = 1024
_SILENT = "not a Gary node: it did not say hello"
_HUNG_UP = "not a Gary node: it hung up before its hello"


@dataclass(slots=True, eq=False)
class Pipe:
    """One connection. ``proven`` is who its certificate names; it has a ``peer`` once its hello has come."""

    id: int
    dialer: int
    dial: Dial | None
    heard: float
    used: float
    proven: str | None
    peer: Peer | None = None
    instance: bytes = b""
    keys: tuple[Peer, ...] = ()
    flow: Flow = field(default_factory=Flow)
    full_since: float | None = None
    timer: asyncio.TimerHandle | None = None
    retiring: bool = False

    @property
    def name(self) -> str | None:
        """Who is at the other end, as far as anybody has said."""
        return self.proven if self.peer is None else self.peer.node


class Link(Protocol):
    """What a lane needs of the socket below. Connections and dialers are numbers, a dialer's above zero."""

    def receive(self) -> tuple[int, bytes] | None:
        """The next message and its connection, or None if there is none."""

    def transmit(self, pipe: int, data: bytes) -> bool:
        """Send ``data`` on ``pipe``; False when there is no room now. On a connection that is gone it is dropped."""

    def close_pipe(self, pipe: int) -> None:
        """Close a connection, if it is there."""

    def dialer_of(self, pipe: int) -> int:
        """The dialer that made ``pipe``; -1 if the peer dialled, or nobody knows any more."""

    def peer_name(self, pipe: int) -> str | None:
        """The node that the other end of ``pipe`` has proven to be; None where connections prove nothing."""

    def create_dialer(self, host: str, port: int) -> int:
        """Prepare a dial. Raises ``TransportError``."""

    def dial(self, dial: Dial) -> str | None:
        """Block until the connection is made (None) or is not to be had, or the dialer is closed (the reason)."""

    def close_dialer(self, dialer: int) -> None:
        """Give up a dial, or close its connection; it is never dialled again."""


class LaneEnd:
    """This node's end of one lane.

    Both lanes share ``traffic``; ``expel`` tells of additions to the nodes that it refuses.
    """

    def __init__(
        self,
        lane: Lane,
        config: TransportConfig,
        link: Link,
        dialler: Dialler,
        receiver: Receiver,
        traffic: Traffic,
    ) -> None:
        self._lane = lane
        self._config = config
        self._link = link
        self._dialler = dialler
        self._receiver = receiver
        self._traffic = traffic
        self._count = traffic.count
        self._expelled: Set[str] = traffic.expelled
        self._loop = asyncio.get_running_loop()
        self._hello = Hello(config.node, bytes(framing.INSTANCE_BYTES), "", lane)
        self._pipes: dict[int, Pipe] = {}
        self._gone: OrderedDict[int, None] = OrderedDict()
        self._routes: dict[Peer, list[Pipe]] = {}
        self._queues: dict[Peer, deque[bytes]] = {}
        self._dials: dict[str, Dial] = {}
        self._dirty: dict[Peer, None] = {}
        self._owing: dict[int, Pipe] = {}
        self._flush_handle: asyncio.Handle | None = None
        self._draining = False
        self._held = False
        self._closed = False

    def open(self, hello: Hello) -> None:
        """Begin, in the same turn of the loop in which ``Link`` does; every connection starts with ``hello``."""
        self._hello = hello

    @property
    def connections(self) -> int:
        """How many connections are in use."""
        return sum(pipe.peer is not None for pipe in self._pipes.values())

    def hold(self) -> None:
        """Send nothing until ``reconnect``."""
        self._held = True

    def reconnect(self) -> None:
        """Let go of every connection and every dial under way; what waits leaves on new ones."""
        self._drain()
        self._held = False
        for dial in tuple(self._dials.values()):
            self._give_up(dial)
        for pipe in tuple(self._pipes.values()):
            self._drop(pipe)
        self._dirty.update(dict.fromkeys(self._queues))
        self._flush_soon()

    def close(self) -> None:
        """Nothing is delivered from here on. The connections are left to whoever closes the link."""
        self._closed = True
        for handle in (self._flush_handle, *(pipe.timer for pipe in self._pipes.values())):
            if handle is not None:
                handle.cancel()
        for dial in tuple(self._dials.values()):
            self._give_up(dial)

    # -- sending

    def send(self, peer: Peer, frame: bytes) -> None:
        """Queue ``frame``; what waits at the end of this turn of the loop leaves together."""
        if peer.node.startswith(GUEST):
            for guest in self._connected(peer.node) or [Peer(peer.node, "")]:
                self._enqueue(guest, frame)
        elif peer.node and not peer.address:
            liveliest = max(self._connected(peer.node), key=lambda one: _liveliness(self._best(one)), default=peer)
            self._enqueue(liveliest, frame)
        else:
            self._enqueue(peer, frame)

    def _connected(self, node: str) -> list[Peer]:
        """All who are connected by this name. Each guest has a queue of its own: here its address is its instance."""
        return [peer for peer in self._routes if peer.node == node]

    def _enqueue(self, peer: Peer, frame: bytes) -> None:
        if len(self._queues.get(peer, ())) >= self._config.queue_frames_max:
            self._pump(peer)
        self._traffic.enqueue(self._queues.setdefault(peer, deque()), frame)
        self._dirty[peer] = None
        self._flush_soon()

    def forget(self, peer: Peer) -> None:
        """Drop what waits for ``peer``, its connections, and the dial if nobody else lives at its address."""
        for known in self._connected(peer.node) if peer.node.startswith(GUEST) else [peer]:
            self._discard(known, "dropped_forgotten")

    def expel(self, node: str) -> None:
        """Drop what waits for ``node``, and its connections."""
        for peer in [waiting for waiting in self._queues if waiting.node == node]:
            self._discard(peer, "dropped_expelled")
        for pipe in tuple(self._pipes.values()):
            if pipe.name == node:
                self._drop(pipe)

    def _discard(self, peer: Peer, cause: str) -> None:
        self._count[cause] += len(self._queues.pop(peer, ()))
        for pipe in tuple(self._routes.get(peer, ())):
            self._drop(pipe)
        dial = self._dials.get(peer.address)
        if dial is not None and not any(waiting.address == peer.address for waiting in self._queues):
            self._give_up(dial)

    def _flush_soon(self, delay_s: float = 0.0) -> None:
        if self._flush_handle is None and not (self._draining and not delay_s):
            later = partial(self._loop.call_later, delay_s) if delay_s else self._loop.call_soon
            self._flush_handle = later(self._flush)

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        if self._held:
            return
        dirty, self._dirty = self._dirty, {}
        for peer in dirty:
            self._pump(peer)
        owing, self._owing = self._owing, {}
        for pipe in owing.values():
            if pipe.id in self._pipes and pipe.flow.owes and not self._transmit(pipe, ()):
                self._owing[pipe.id] = pipe
                self._flush_soon(RETRY_DELAY_S)

    def _pump(self, peer: Peer) -> None:
        """Move what waits for ``peer`` as far as it goes: onto its connection, or towards a new one."""
        queue = self._queues.get(peer)
        if not queue or self._held:
            return
        pipe = self._best(peer)
        if pipe is not None and self._stalled(pipe):
            self._count["connections_stalled"] += 1
            self._drop(pipe)
            pipe = self._best(peer)
        if pipe is None:
            self._dial(peer)
            return
        while queue and pipe.flow.open:
            frames = _take(queue)
            if not self._transmit(pipe, frames):
                queue.extendleft(reversed(frames))
                self._dirty[peer] = None
                self._flush_soon(RETRY_DELAY_S)
                return
        if not queue:
            del self._queues[peer]

    def _transmit(self, pipe: Pipe, frames: tuple[bytes, ...]) -> bool:
        batch = pipe.flow.compose(frames)
        if not self._link.transmit(pipe.id, framing.encode_batch(batch)):
            return False
        pipe.flow.left(batch)
        if frames:
            now = pipe.used = self._loop.time()
            self._traffic.sent(*frames)
            if not pipe.flow.open:
                pipe.full_since = now
        return True

    def _best(self, peer: Peer) -> Pipe | None:
        return max(self._routes.get(peer, ()), key=_liveliness, default=None)

    def _stalled(self, pipe: Pipe) -> bool:
        return pipe.full_since is not None and self._loop.time() - pipe.full_since > STALL_LIMIT_S[self._lane]

    # -- dialling

    def _dial(self, peer: Peer) -> None:
        address = peer.address
        if address in self._dials:
            return
        try:
            if peer.node.startswith(GUEST):
                raise ValueError(GUEST_GONE)
            host, port = split_address(address)
        except ValueError as error:
            dial = self._dials[address] = Dial(address, "", 0)
            self._loop.call_soon(self._failed, dial, str(error))
            return
        dial = self._dials[address] = Dial(address, host, port + self._lane)
        self._dialler.submit(partial(self._begin, dial), partial(self._link.dial, dial), partial(self._dialled, dial))

    def _begin(self, dial: Dial) -> bool:
        if dial.over or self._closed:
            return False
        try:
            dial.dialer = self._link.create_dialer(dial.host, dial.port)
        except TransportError as error:
            self._failed(dial, str(error))
            return False
        self._count["dials"] += 1
        dial.timer = self._loop.call_later(DIAL_TIMEOUT_S, self._expired, dial)
        return True

    def _dialled(self, dial: Dial, reason: str | None) -> None:
        dial.connected = reason is None
        if reason is not None:
            self._failed(dial, reason)
        elif dial.expired:
            self._failed(dial, _SILENT)

    def _expired(self, dial: Dial) -> None:
        dial.expired = True
        self._link.close_dialer(dial.dialer)
        if dial.connected:
            self._failed(dial, _SILENT)

    def _failed(self, dial: Dial, reason: str) -> None:
        """Tell everybody who waited for ``dial``, once; not those who meanwhile were dialled by the peer."""
        if self._closed or not self._give_up(dial):
            return
        self._count["dials_failed"] += 1
        for peer in [waiting for waiting in self._queues if waiting.address == dial.address]:
            if peer not in self._routes:
                self._unreachable(peer, reason)

    def _give_up(self, dial: Dial) -> bool:
        """End ``dial``; False if it was over."""
        if dial.over:
            return False
        self._settle(dial)
        if dial.dialer:
            self._link.close_dialer(dial.dialer)
        return True

    def _settle(self, dial: Dial) -> None:
        dial.over = True
        del self._dials[dial.address]
        if dial.timer is not None:
            dial.timer.cancel()

    def _unreachable(self, peer: Peer, reason: str) -> None:
        self._count["dropped_unreachable"] += len(self._queues.pop(peer, ()))
        self._receiver.unreachable(Peer(peer.node, "") if peer.node.startswith(GUEST) else peer, reason)

    # -- connections

    def added(self, pipe_id: int, dialer: int) -> None:
        """A connection was made, by our ``dialer`` or (-1) by the peer."""
        if self._closed or pipe_id in self._pipes or pipe_id in self._gone:
            return
        dial = self._dial_by(dialer)
        now = self._loop.time()
        proven = self._link.peer_name(pipe_id)
        pipe = self._pipes[pipe_id] = Pipe(pipe_id, dialer, dial, heard=now, used=now, proven=proven)
        if dial is None:
            self._count["connections_accepted"] += 1
            pipe.timer = self._loop.call_later(DIAL_TIMEOUT_S, self._drop, pipe)
            self._limit_strangers()
        if dialer > 0 and dial is None:
            self._drop(pipe)  # Its dial was given up.
        elif (proven is None or self._admit(pipe, proven)) and dial is not None:
            self._say_hello(pipe)

    def _limit_strangers(self) -> None:
        strangers = [pipe for pipe in self._pipes.values() if pipe.dial is None and pipe.peer is None]
        if len(strangers) > STRANGERS_MAX:
            self._count["connections_surplus"] += 1
            self._drop(strangers[0])

    def _admit(self, pipe: Pipe, name: str) -> bool:
        """Whether ``name`` may have ``pipe``, which is turned away if not. Of one node's the oldest makes room."""
        if name in self._expelled:
            self._turn_away(pipe, "dropped_expelled", f"the node {name} was expelled")
            return False
        others = [other for other in self._pipes.values() if other is not pipe and other.dialer <= 0]
        same = [other for other in others if other.name == name]
        if name.startswith(GUEST):
            guests = sum(other.name is not None and other.name.startswith(GUEST) for other in others)
            if guests >= GUESTS_MAX or len(same) >= GUESTS_OF_NAME_MAX:
                self._turn_away(pipe, "guests_refused", "there are too many guests")
                return False
        elif pipe.dialer <= 0 and len(same) >= ACCEPTED_OF_NODE_MAX:
            self._count["connections_surplus"] += 1
            self._drop(same[0])
        return True

    def _say_hello(self, pipe: Pipe) -> bool:
        """The dialler speaks first: who is called says nothing of itself before it knows by whom."""
        if self._link.transmit(pipe.id, framing.encode_hello(self._hello)):
            return True
        # Room is lacking only if hundreds of messages to others wait in this very moment; the dialler tries again.
        self._drop(pipe)
        return False

    def removed(self, pipe_id: int, dialer: int) -> None:
        """A connection is gone, be it that ``added`` told of it or not. The news may have overtaken the last that came
        from it; what comes later is dropped.
        """
        self.readable()
        self._bury(pipe_id)
        pipe, dial = self._pipes.get(pipe_id), self._dial_by(dialer)
        if pipe is not None and not self._closed:
            self._drop(pipe)
            self._tell_of_hang_up(pipe)
        elif dial is not None:
            self._failed(dial, _HUNG_UP)

    def _tell_of_hang_up(self, pipe: Pipe) -> None:
        """A connection ended that this node did not end. What waits for the peer is sent on a new one, if it can be."""
        peer = pipe.peer
        if self._lane is not Lane.PROBE or peer is None or pipe.retiring or peer.node.startswith(GUEST):
            return
        if peer.node not in self._expelled and not any(known.node == peer.node for known in self._routes):
            self._count["hang_ups"] += 1
            self._receiver.unreachable(peer, HUNG_UP)

    def _dial_by(self, dialer: int) -> Dial | None:
        return next((dial for dial in self._dials.values() if dialer > 0 and dial.dialer == dialer), None)

    def _bury(self, pipe_id: int) -> None:
        self._gone[pipe_id] = None
        if len(self._gone) > _GONE_MAX:
            self._gone.popitem(last=False)

    def _drop(self, pipe: Pipe) -> None:
        """Close ``pipe`` and find another way for what still waits for its peer."""
        if self._pipes.pop(pipe.id, None) is None:
            return
        self._bury(pipe.id)
        if pipe.timer is not None:
            pipe.timer.cancel()
        self._link.close_pipe(pipe.id)
        if pipe.dialer > 0:
            self._link.close_dialer(pipe.dialer)
        if pipe.dial is not None and not pipe.dial.over:
            self._failed(pipe.dial, _HUNG_UP)
        for key in pipe.keys:
            self._routes[key].remove(pipe)
            if not self._routes[key]:
                del self._routes[key]
            if key in self._queues:
                self._dirty[key] = None
                self._flush_soon()

    def _identify(self, pipe: Pipe, hello: Hello) -> tuple[Peer, str | None]:
        """Who is at the other end of ``pipe``, and why it is refused, if it is. What a hello claims is believed."""
        is_guest = hello.node.startswith(GUEST)
        peer = Peer(hello.node, hello.instance.hex() if is_guest else hello.address)
        if is_guest and pipe.dial is not None:
            return peer, "a guest answers there, which is nobody to be dialled"
        if hello.instance == self._hello.instance:
            return peer, "that is this node itself"
        if hello.lane != self._lane:
            return peer, f"that is the {hello.lane.name.lower()} port of the node at {hello.address}"
        return peer, None

    def _greeted(self, pipe: Pipe, message: bytes) -> None:
        """Take a connection into use, or refuse it."""
        try:
            hello = framing.decode_hello(message)
        except BadFrame as error:
            self._count[f"dropped_{error.cause}"] += 1
            self._refuse(pipe, f"not a Gary node of this kind: {error}")
            return
        if pipe.proven is not None and pipe.proven != hello.node:
            shown = pipe.proven or "nothing"
            self._turn_away(pipe, "dropped_impostor", f"it calls itself {hello.node}, and its certificate {shown}")
            return
        if pipe.proven is None and not self._admit(pipe, hello.node):
            return
        peer, refusal = self._identify(pipe, hello)
        if refusal is not None:
            self._refuse(pipe, refusal)
            return
        if pipe.dial is None and not self._say_hello(pipe):
            return
        if pipe.timer is not None:
            pipe.timer.cancel()
        pipe.peer, pipe.instance, pipe.flow.taken = peer, hello.instance, 1
        pipe.keys = _keys(peer, pipe.dial)
        if hello.node.startswith(GUEST):
            pipe.timer = self._loop.call_later(GUEST_STAY_S, self._drop, pipe)
        self._settle_duplicates(pipe)
        for key in pipe.keys:
            self._routes.setdefault(key, []).append(pipe)
            self._pump(key)
        if pipe.dial is not None and not pipe.dial.over:
            self._settle(pipe.dial)
            for waiting in [peer for peer in self._queues if peer.address == pipe.dial.address]:
                if waiting not in self._routes:
                    self._unreachable(waiting, f"another node answers there: {hello.node}")
        if not hello.node.startswith(GUEST):
            self._evict(pipe)

    def _refuse(self, pipe: Pipe, reason: str) -> None:
        """Refuse ``pipe``: its dialler hangs up, who needs our hello to see why; until then it goes on without one."""
        if pipe.dial is None:
            self._say_hello(pipe)
        else:
            self._failed(pipe.dial, reason)
            self._drop(pipe)

    def _turn_away(self, pipe: Pipe, cause: str, reason: str) -> None:
        """Refuse ``pipe`` to somebody to whom nothing is said."""
        self._count[cause] += 1
        if pipe.dial is not None:
            self._failed(pipe.dial, reason)
        self._drop(pipe)

    def _settle_duplicates(self, new: Pipe) -> None:
        """Of connections to one peer keep one: of those to an earlier start of it none, of two dialled by one side the
        newer, of two dialled by both the one that the lower node dialled. The others stay a moment for what is on its
        way, and are closed by their dialler, who alone knows that it has another.
        """
        assert new.peer is not None
        for old in tuple(self._routes.get(new.peer, ())):
            if old.instance != new.instance:
                self._drop(old)
                continue
            if (old.dialer > 0) == (new.dialer > 0):
                surplus = old
            else:
                ours, theirs = (old, new) if old.dialer > 0 else (new, old)
                surplus = theirs if self._config.node < new.peer.node else ours
            if surplus.dialer > 0 and not surplus.retiring:
                surplus.retiring = True
                surplus.timer = self._loop.call_later(RETIRE_DELAY_S, self._drop, surplus)

    def _evict(self, newest: Pipe) -> None:
        """Let the least recently used connection make room for ``newest``. Guests are counted by themselves."""
        pipes = [
            pipe
            for pipe in self._pipes.values()
            if pipe.peer is not None and pipe is not newest and not pipe.peer.node.startswith(GUEST)
        ]
        if len(pipes) >= self._config.connections_max:
            self._count["connections_evicted"] += 1
            self._drop(min(pipes, key=lambda pipe: max(pipe.used, pipe.heard)))

    # -- receiving

    def readable(self) -> None:
        """Take in some of the messages that are there; to be called again while there are more."""
        self._draining = True
        try:
            self._drain()
        finally:
            self._draining = False
            # Answers leave here and now: another turn of the loop would cost more than they do.
            if not self._closed and (self._dirty or self._owing):
                self._flush()

    def _drain(self) -> None:
        size = 0
        for _ in range(DRAIN_MESSAGES_MAX):
            received = self._link.receive() if size < DRAIN_BYTES_MAX and not self._closed else None
            if received is None:
                return
            size += len(received[1])
            self._message(*received)

    def _message(self, pipe_id: int, message: bytes) -> None:
        pipe = self._pipes.get(pipe_id)
        if pipe is not None and pipe.peer is not None:
            self._batch(pipe, pipe.peer, message)
        elif framing.is_hello(message) and pipe_id not in self._gone:
            # It may have overtaken the news of its connection, which nng tells on a thread of its own.
            self.added(pipe_id, self._link.dialer_of(pipe_id))
            if pipe_id in self._pipes:
                self._greeted(self._pipes[pipe_id], message)
        else:
            self._count["dropped_before_hello"] += 1

    def _batch(self, pipe: Pipe, sender: Peer, message: bytes) -> None:
        try:
            batch = framing.decode_batch(message)
            pipe.flow.receive(batch)
        except BadFrame as error:
            self._count[f"dropped_{error.cause}"] += 1
            self._drop(pipe)
            return
        pipe.heard = self._loop.time()
        if pipe.flow.open:
            pipe.full_since = None
        if pipe.flow.owes:
            self._owing[pipe.id] = pipe
            self._flush_soon()
        for key in pipe.keys:
            if key in self._queues:
                self._dirty[key] = None
                self._flush_soon()
        for frame in batch.frames:
            if self._closed or sender.node in self._expelled:
                return
            if self._traffic.accepts(frame):
                self._receiver.received(sender.node, self._lane, frame)


def _keys(peer: Peer, dial: Dial | None) -> tuple[Peer, ...]:
    """Those under which a connection to ``peer``, made by ``dial`` or by the peer, is found by who sends."""
    if dial is None:
        return (peer,)
    return tuple(dict.fromkeys((peer, Peer(peer.node, dial.address), Peer("", dial.address))))


def _liveliness(pipe: Pipe | None) -> tuple[bool, float]:
    """Of several connections, the one that was heard from last is surely alive."""
    return (False, 0.0) if pipe is None else (not pipe.retiring, pipe.heard)


def _take(queue: deque[bytes]) -> tuple[bytes, ...]:
    """Remove from ``queue`` what goes into one message: as much as fits, and one frame in any case."""
    frames = [queue.popleft()]
    size = len(frames[0])
    while queue and size + len(queue[0]) + framing.FRAME_OVERHEAD_BYTES <= BATCH_BYTES:
        size += len(queue[0]) + framing.FRAME_OVERHEAD_BYTES
        frames.append(queue.popleft())
    return tuple(frames)
