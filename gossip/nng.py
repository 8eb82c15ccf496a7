"""The transport on nng: one polyamorous pair socket per lane, TCP below.

The probe lane listens at the configured port P, the bulk lane at P + 1; addresses name P. One socket serves any number
of peers, both ways on one connection (nng's word is pipe), whichever side dialled it. ``gossip.framing`` says what
travels on a connection.

Everything here runs on the event loop's thread, but for two things. nng calls back on its own threads when a
connection comes or goes; those callbacks only hand over. And a dial blocks a worker thread, since only a blocking dial
tells that it was refused; the loop bounds it by closing the dialer, and nng's own redialling is never used.

Nothing ticks: timers exist only while a dial or a handshake is under way or while something waits for room.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pynng
from pynng import ffi, lib

from gossip import framing
from gossip.errors import BadFrame, TransportError
from gossip.framing import Flow, Hello
from gossip.transport import Lane, Peer, Receiver, TransportConfig

DIAL_TIMEOUT_S = 2.0
"""Connection and both hellos; also how long an accepted connection may stay without its hello."""
DIAGNOSIS_TIMEOUT_S = 0.5
DIAL_JITTER_S = 0.005
"""Per dial already under way."""
RETIRE_DELAY_S = 1.0
"""How long the second of two connections to one peer stays, for what is on its way."""
STALL_LIMIT_S = {Lane.PROBE: 5.0, Lane.BULK: 30.0}
"""A connection whose window has been full for this long is replaced by the next send."""
RETRY_DELAY_S = 0.001
BATCH_BYTES = 256 * 1024
DRAIN_MESSAGES_MAX = 32
"""Messages taken per wake-up and lane, so that the loop's other work gets its turn."""
PORT_PAIR_ATTEMPTS = 64
_NEVER_MS = 2**31 - 1
_GONE_MAX = 1024
_RECEIVE_BUFFER_MESSAGES = {Lane.PROBE: 64, Lane.BULK: 8}
_SEND_BUFFER_MESSAGES = 128

_REASONS = {
    lib.NNG_ECONNREFUSED: "connection refused",
    lib.NNG_ETIMEDOUT: "timed out",
    lib.NNG_EADDRINVAL: "no such host",
    lib.NNG_EUNREACHABLE: "no route to host",
    lib.NNG_EPROTO: "not a Gary node: handshake failed",
    lib.NNG_ECONNRESET: "not a Gary node: it hung up during the handshake",
    lib.NNG_ECONNSHUT: "not a Gary node: it hung up during the handshake",
}


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[host]:port``; raises ``ValueError`` for anything else."""
    host, separator, port_text = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r}: an IPv6 address goes in brackets")
    if not separator or not host or not port_text.isascii() or not port_text.isdigit():
        raise ValueError(f"{address!r} is not of the form host:port")
    port = int(port_text)
    if port > 65534:
        raise ValueError(f"{address!r}: the port is at most 65534, since the next one is used too")
    return host, port


def join_address(host: str, port: int) -> str:
    """The inverse of ``split_address``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(slots=True, eq=False)
class _Dial:
    """An attempt to reach ``address``; it ends with the peer's hello or with a reason."""

    address: str
    host: str
    port: int
    dialer: int = 0
    timer: asyncio.TimerHandle | None = None
    expired: bool = False
    connected: bool = False
    over: bool = False


@dataclass(slots=True, eq=False)
class _Pipe:
    """One connection. It has a ``peer`` once its hello has come."""

    id: int
    dialer: int
    dial: _Dial | None
    active: float
    peer: Peer | None = None
    instance: bytes = b""
    keys: tuple[Peer, ...] = ()
    flow: Flow = field(default_factory=Flow)
    full_since: float | None = None
    timer: asyncio.TimerHandle | None = None
    retiring: bool = False


class _Socket:
    """What is used of an nng pair socket, in Python's terms. Only ``on_added`` and ``on_removed`` run elsewhere."""

    def __init__(self, receive_buffer: int, message_bytes_max: int) -> None:
        self._pynng = pynng.Pair1(
            polyamorous=True,
            recv_buffer_size=receive_buffer,
            send_buffer_size=_SEND_BUFFER_MESSAGES,
            # nng counts its own four bytes of header.
            recv_max_size=message_bytes_max + 4,
            reconnect_time_min=_NEVER_MS,
            reconnect_time_max=_NEVER_MS,
        )
        self._id = self._pynng.socket
        self._message = ffi.new("nng_msg **")

    @property
    def receive_fd(self) -> int:
        return int(self._pynng.recv_fd)

    def notify(self, on_added: Callable[[int, int], None], on_removed: Callable[[int], None]) -> None:
        """Have nng's threads call ``on_added(pipe, dialer or -1)`` and ``on_removed(pipe)``."""
        self._pynng.add_post_pipe_connect_cb(lambda p: on_added(p.id, lib.nng_dialer_id(lib.nng_pipe_dialer(p.pipe))))
        self._pynng.add_post_pipe_remove_cb(lambda p: on_removed(p.id))

    def listen(self, host: str, port: int) -> int:
        """Listen, and return the port."""
        try:
            listener = self._pynng.listen(f"tcp://{join_address(host, port)}")
        except pynng.NNGException as error:
            raise TransportError(f"cannot listen at {join_address(host, port)}: {str(error).lower()}") from error
        return socket.ntohs(listener.local_address.port)

    def transmit(self, pipe: int, data: bytes) -> bool:
        """Hand ``data`` to nng for ``pipe``; False when it has no room now. To a pipe that is gone it is dropped."""
        pynng.check_err(lib.nng_msg_alloc(self._message, 0))
        message = self._message[0]
        pynng.check_err(lib.nng_msg_append(message, data, len(data)))
        lib.nng_msg_set_pipe(message, ffi.new("nng_pipe *", (pipe,))[0])
        error = lib.nng_sendmsg(self._id, message, lib.NNG_FLAG_NONBLOCK)
        if error == 0:
            return True
        lib.nng_msg_free(message)
        if error != lib.NNG_EAGAIN:
            pynng.check_err(error)
        return False

    def receive(self) -> tuple[int, bytes] | None:
        """The next message and its pipe, or None if there is none."""
        error = lib.nng_recvmsg(self._id, self._message, lib.NNG_FLAG_NONBLOCK)
        if error == lib.NNG_EAGAIN:
            return None
        pynng.check_err(error)
        message = self._message[0]
        data = bytes(ffi.buffer(lib.nng_msg_body(message), lib.nng_msg_len(message)))
        pipe = lib.nng_msg_get_pipe(message).id
        lib.nng_msg_free(message)
        return pipe, data

    def dialer_of(self, pipe: int) -> int:
        """The dialer that made ``pipe``; -1 if the peer dialled, or nobody knows any more."""
        return int(lib.nng_dialer_id(lib.nng_pipe_dialer(ffi.new("nng_pipe *", (pipe,))[0])))

    def create_dialer(self, host: str, port: int) -> int:
        dialer = ffi.new("nng_dialer *")
        pynng.check_err(lib.nng_dialer_create(dialer, self._id, f"tcp://{join_address(host, port)}".encode()))
        return int(dialer.id)

    def start_dialer(self, dialer: int) -> int:
        """Dial, blocking this thread until the connection is made, has failed or the dialer is closed; nng's code."""
        return int(lib.nng_dialer_start(ffi.new("nng_dialer *", (dialer,))[0], 0))

    def close_dialer(self, dialer: int) -> None:
        """Give up a dial, or close its connection without dialling again."""
        lib.nng_dialer_close(ffi.new("nng_dialer *", (dialer,))[0])

    def close_pipe(self, pipe: int) -> None:
        lib.nng_pipe_close(ffi.new("nng_pipe *", (pipe,))[0])

    def close(self) -> None:
        """No callback comes after this has returned."""
        self._pynng.close()


def _failure(sock: _Socket, dial: _Dial) -> str | None:
    """Run ``dial`` on a worker thread: why it failed, or None."""
    code = sock.start_dialer(dial.dialer)
    if code == 0:
        return None
    if not dial.expired:
        return _REASONS.get(code) or str(ffi.string(lib.nng_strerror(code)).decode()).lower()
    try:
        socket.create_connection((dial.host, dial.port), DIAGNOSIS_TIMEOUT_S).close()
    except OSError:
        return "timed out"
    return "not a Gary node, or one that hangs: it accepts connections and does not shake hands"


class _Dialler:
    """Runs dials on worker threads, ``dials_max`` at one time, the others in order after them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, dials_max: int) -> None:
        self._loop = loop
        self._dials_max = dials_max
        self._rng = random.Random(os.urandom(16))
        self._threads = ThreadPoolExecutor(dials_max, thread_name_prefix="gary-dial")
        self._waiting: deque[Callable[[], asyncio.Future[str | None] | None]] = deque()
        self._running = 0

    def submit(self, begin: Callable[[], asyncio.Future[str | None] | None]) -> None:
        """Call ``begin`` when there is room; the future that it returns, if it does dial, marks the end."""
        self._waiting.append(begin)
        self._next()

    def in_thread(self, work: Callable[[], str | None]) -> asyncio.Future[str | None]:
        return self._loop.run_in_executor(self._threads, work)

    def _next(self) -> None:
        while self._waiting and self._running < self._dials_max:
            begin = self._waiting.popleft()
            self._running += 1
            if self._running == 1:
                self._begin(begin)
            else:
                self._loop.call_later(self._rng.uniform(0, DIAL_JITTER_S * self._running), self._begin, begin)

    def _begin(self, begin: Callable[[], asyncio.Future[str | None] | None]) -> None:
        future = begin()
        if future is None:
            self._ended()
        else:
            future.add_done_callback(self._ended)

    def _ended(self, _: object = None) -> None:
        self._running -= 1
        self._next()

    def close(self) -> None:
        self._waiting.clear()
        self._threads.shutdown(wait=True)


class _LaneEnd:
    """One lane: its socket, its connections, and the frames that wait for one."""

    def __init__(self, lane: Lane, transport: NngTransport, config: TransportConfig, sock: _Socket) -> None:
        self.lane = lane
        self.socket = sock
        self._config = config
        self._transport = transport
        self._count = transport.count
        self._loop = transport.loop
        self._pipes: dict[int, _Pipe] = {}
        self._gone: OrderedDict[int, None] = OrderedDict()
        self._routes: dict[Peer, list[_Pipe]] = {}
        self._queues: dict[Peer, deque[bytes]] = {}
        self._dials: dict[str, _Dial] = {}
        self._dirty: dict[Peer, None] = {}
        self._owing: dict[int, _Pipe] = {}
        self._flush_handle: asyncio.Handle | None = None
        self._closed = False
        sock.notify(partial(self._hand_over, self._added), partial(self._hand_over, self._removed))

    def open(self) -> None:
        self._loop.add_reader(self.socket.receive_fd, self._readable)

    @property
    def connections(self) -> int:
        return sum(pipe.peer is not None for pipe in self._pipes.values())

    # -- sending

    def send(self, peer: Peer, frame: bytes) -> None:
        queue = self._queues.setdefault(peer, deque())
        if len(queue) >= self._config.queue_frames_max:
            self._pump(peer)
            queue = self._queues.setdefault(peer, deque())
        if len(queue) >= self._config.queue_frames_max:
            queue.popleft()
            self._count["dropped_overflow"] += 1
        queue.append(frame)
        self._dirty[peer] = None
        self._flush_soon()

    def forget(self, peer: Peer) -> None:
        self._count["dropped_forgotten"] += len(self._queues.pop(peer, ()))
        for pipe in tuple(self._routes.get(peer, ())):
            self._drop(pipe)
        dial = self._dials.get(peer.address)
        if dial is not None and not any(waiting.address == peer.address for waiting in self._queues):
            self._give_up(dial)

    def _flush_soon(self, delay_s: float = 0.0) -> None:
        if self._flush_handle is None:
            later = partial(self._loop.call_later, delay_s) if delay_s else self._loop.call_soon
            self._flush_handle = later(self._flush)

    def _flush(self) -> None:
        self._flush_handle = None
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
        if not queue:
            return
        pipe = self._best(peer)
        if pipe is not None and self._stalled(pipe):
            self._count["connections_stalled"] += 1
            self._drop(pipe)
            pipe = self._best(peer)
        if pipe is None:
            self._dial(peer.address)
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

    def _transmit(self, pipe: _Pipe, frames: tuple[bytes, ...]) -> bool:
        batch = pipe.flow.compose(frames)
        if not self.socket.transmit(pipe.id, framing.encode_batch(batch)):
            return False
        pipe.flow.left(batch)
        if frames:
            now = self._loop.time()
            pipe.active = now
            self._count["frames_sent"] += len(frames)
            self._count["bytes_sent"] += sum(map(len, frames))
            if not pipe.flow.open:
                pipe.full_since = now
        return True

    def _best(self, peer: Peer) -> _Pipe | None:
        """Of several connections to one peer, the one that was heard from last is surely alive."""
        pipes = self._routes.get(peer)
        return max(pipes, key=lambda pipe: (not pipe.retiring, pipe.active)) if pipes else None

    def _stalled(self, pipe: _Pipe) -> bool:
        return pipe.full_since is not None and self._loop.time() - pipe.full_since > STALL_LIMIT_S[self.lane]

    # -- dialling

    def _dial(self, address: str) -> None:
        if address in self._dials:
            return
        try:
            host, port = split_address(address)
        except ValueError as error:
            dial = self._dials[address] = _Dial(address, "", 0)
            self._loop.call_soon(self._failed, dial, str(error))
            return
        dial = self._dials[address] = _Dial(address, host, port + self.lane)
        self._transport.dialler.submit(partial(self._begin, dial))

    def _begin(self, dial: _Dial) -> asyncio.Future[str | None] | None:
        if dial.over or self._closed:
            return None
        try:
            dial.dialer = self.socket.create_dialer(dial.host, dial.port)
        except pynng.NNGException as error:
            self._failed(dial, str(error).lower())
            return None
        self._count["dials"] += 1
        dial.timer = self._loop.call_later(DIAL_TIMEOUT_S, self._expired, dial)
        future = self._transport.dialler.in_thread(partial(_failure, self.socket, dial))
        future.add_done_callback(partial(self._dialled, dial))
        return future

    def _dialled(self, dial: _Dial, future: asyncio.Future[str | None]) -> None:
        reason = future.result()
        if reason is not None:
            self._failed(dial, reason)
        elif dial.expired:
            self._failed(dial, "not a Gary node: it did not say hello")
        else:
            dial.connected = True

    def _expired(self, dial: _Dial) -> None:
        dial.expired = True
        self.socket.close_dialer(dial.dialer)
        if dial.connected:
            self._failed(dial, "not a Gary node: it did not say hello")

    def _failed(self, dial: _Dial, reason: str) -> None:
        """Tell everybody who waited for ``dial``, once; not those who meanwhile were dialled by the peer."""
        if self._closed or not self._give_up(dial):
            return
        self._count["dials_failed"] += 1
        for peer in [waiting for waiting in self._queues if waiting.address == dial.address]:
            if peer not in self._routes:
                self._unreachable(peer, reason)

    def _give_up(self, dial: _Dial) -> bool:
        """End ``dial``; False if it was over."""
        if dial.over:
            return False
        self._settle(dial)
        if dial.dialer:
            self.socket.close_dialer(dial.dialer)
        return True

    def _settle(self, dial: _Dial) -> None:
        dial.over = True
        del self._dials[dial.address]
        if dial.timer is not None:
            dial.timer.cancel()

    def _unreachable(self, peer: Peer, reason: str) -> None:
        self._count["dropped_unreachable"] += len(self._queues.pop(peer, ()))
        self._transport.receiver.unreachable(peer, reason)

    # -- connections

    def _hand_over(self, method: Callable[..., None], *arguments: int) -> None:
        """Called on nng's threads, also while the transport closes."""
        if not self._closed:
            self._loop.call_soon_threadsafe(method, *arguments)

    def _added(self, pipe_id: int, dialer: int) -> None:
        if self._closed or pipe_id in self._pipes or pipe_id in self._gone:
            return
        dial = next((dial for dial in self._dials.values() if dialer > 0 and dial.dialer == dialer), None)
        pipe = _Pipe(pipe_id, dialer, dial, self._loop.time())
        self._pipes[pipe_id] = pipe
        if dialer > 0 and dial is None:
            self._drop(pipe)
            return
        if dial is None:
            self._count["connections_accepted"] += 1
            pipe.timer = self._loop.call_later(DIAL_TIMEOUT_S, self._drop, pipe)
        hello = Hello(self._config.node, self._transport.instance, self._transport.address, self.lane)
        # nng had no message to send on this connection yet, so only the other connections' can leave no room.
        if not self.socket.transmit(pipe_id, framing.encode_hello(hello)):
            self._drop(pipe)

    def _removed(self, pipe_id: int) -> None:
        self._gone[pipe_id] = None
        if len(self._gone) > _GONE_MAX:
            self._gone.popitem(last=False)
        pipe = self._pipes.get(pipe_id)
        if pipe is not None and not self._closed:
            self._drop(pipe)

    def _drop(self, pipe: _Pipe) -> None:
        """Close ``pipe`` and find another way for what still waits for its peer."""
        if self._pipes.pop(pipe.id, None) is None:
            return
        if pipe.timer is not None:
            pipe.timer.cancel()
        self.socket.close_pipe(pipe.id)
        if pipe.dialer > 0:
            self.socket.close_dialer(pipe.dialer)
        if pipe.dial is not None and not pipe.dial.over:
            self._failed(pipe.dial, "not a Gary node: it hung up before its hello")
        for key in pipe.keys:
            self._routes[key].remove(pipe)
            if not self._routes[key]:
                del self._routes[key]
            if key in self._queues:
                self._dirty[key] = None
                self._flush_soon()

    def _identify(self, pipe: _Pipe, hello: Hello) -> tuple[Peer, str | None]:
        """Who is at the other end of ``pipe``, and why it is refused, if it is. What a hello claims is believed."""
        peer = Peer(hello.node, hello.address)
        if hello.instance == self._transport.instance:
            return peer, "that is this node itself"
        if hello.lane != self.lane:
            return (
                peer,
                f"that is the {hello.lane.name.lower()} port of {hello.node}, which is reached at {hello.address}",
            )
        return peer, None

    def _greeted(self, pipe: _Pipe, message: bytes) -> None:
        """Take a connection into use, or refuse it."""
        try:
            hello = framing.decode_hello(message)
        except BadFrame as error:
            self._count[f"dropped_{error.cause}"] += 1
            self._refuse(pipe, f"not a Gary node of this kind: {error}")
            return
        peer, refusal = self._identify(pipe, hello)
        if refusal is not None:
            self._refuse(pipe, refusal)
            return
        if pipe.timer is not None:
            pipe.timer.cancel()
        pipe.peer, pipe.instance, pipe.flow.taken = peer, hello.instance, 1
        addresses = {hello.address: None} if pipe.dial is None else {hello.address: None, pipe.dial.address: None}
        pipe.keys = tuple(Peer(node, address) for node in (hello.node, "") for address in addresses)
        self._settle_duplicates(pipe)
        for key in pipe.keys:
            self._routes.setdefault(key, []).append(pipe)
            self._pump(key)
        if pipe.dial is not None and not pipe.dial.over:
            self._settle(pipe.dial)
            for waiting in [peer for peer in self._queues if peer.address == pipe.dial.address]:
                if waiting not in self._routes:
                    self._unreachable(waiting, f"another node answers there: {hello.node}")
        self._evict(pipe)

    def _refuse(self, pipe: _Pipe, reason: str) -> None:
        if pipe.dial is not None:
            self._failed(pipe.dial, reason)
        self._drop(pipe)

    def _settle_duplicates(self, new: _Pipe) -> None:
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

    def _evict(self, newest: _Pipe) -> None:
        pipes = [pipe for pipe in self._pipes.values() if pipe.peer is not None and pipe is not newest]
        if len(pipes) >= self._config.connections_max:
            self._count["connections_evicted"] += 1
            self._drop(min(pipes, key=lambda pipe: pipe.active))

    # -- receiving

    def _readable(self) -> None:
        for _ in range(DRAIN_MESSAGES_MAX):
            if self._closed:
                return
            received = self.socket.receive()
            if received is None:
                return
            self._message(*received)

    def _message(self, pipe_id: int, message: bytes) -> None:
        pipe = self._pipes.get(pipe_id)
        if pipe is not None and pipe.peer is not None:
            self._batch(pipe, pipe.peer, message)
        elif framing.is_hello(message):
            # It may have overtaken the news of its connection, which nng tells on a thread of its own.
            self._added(pipe_id, self.socket.dialer_of(pipe_id))
            if pipe_id in self._pipes:
                self._greeted(self._pipes[pipe_id], message)
        else:
            self._count["dropped_before_hello"] += 1

    def _batch(self, pipe: _Pipe, sender: Peer, message: bytes) -> None:
        try:
            batch = framing.decode_batch(message)
            pipe.flow.receive(batch)
        except BadFrame as error:
            self._count[f"dropped_{error.cause}"] += 1
            self._drop(pipe)
            return
        if pipe.flow.open:
            pipe.full_since = None
        if pipe.flow.owes:
            self._owing[pipe.id] = pipe
            self._flush_soon()
        for key in pipe.keys:
            if key in self._queues:
                self._dirty[key] = None
                self._flush_soon()
        if batch.frames:
            pipe.active = self._loop.time()
        for frame in batch.frames:
            if self._closed:
                return
            if len(frame) > self._config.frame_size_bytes_max:
                self._count["dropped_oversized"] += 1
                continue
            self._count["frames_received"] += 1
            self._count["bytes_received"] += len(frame)
            self._transport.receiver.received(sender.node, self.lane, frame)

    def shut(self) -> None:
        """Nothing is delivered from here on. The socket is left to close, which waits for nng's threads."""
        self._closed = True
        self._loop.remove_reader(self.socket.receive_fd)
        for handle in (self._flush_handle, *(pipe.timer for pipe in self._pipes.values())):
            if handle is not None:
                handle.cancel()
        for dial in tuple(self._dials.values()):
            self._give_up(dial)


def _take(queue: deque[bytes]) -> tuple[bytes, ...]:
    """Remove from ``queue`` what goes into one message: as much as fits, and one frame in any case."""
    frames = [queue.popleft()]
    size = len(frames[0])
    while queue and size + len(queue[0]) <= BATCH_BYTES:
        size += len(queue[0])
        frames.append(queue.popleft())
    return tuple(frames)


class NngTransport:
    """``gossip.transport.Transport`` on nng. The peer's word is taken for who it is; nothing is encrypted."""

    def __init__(self, config: TransportConfig) -> None:
        self._config = config
        self._ends: tuple[_LaneEnd, ...] = ()
        self._address = ""
        self.count: Counter[str] = Counter()
        self.instance = os.urandom(framing.INSTANCE_BYTES)

    @property
    def address(self) -> str:
        """``host:port`` of the probe lane; the bulk lane is at the next port."""
        return self._address

    async def start(self, receiver: Receiver) -> None:
        """Listen at both ports. Raises ``TransportError`` when either is taken or ``bind`` cannot be understood."""
        self.loop = asyncio.get_running_loop()
        self.receiver = receiver
        try:
            host, port = split_address(self._config.bind)
            advertised = split_address(self._config.advertise) if self._config.advertise else None
        except ValueError as error:
            raise TransportError(str(error)) from error
        sockets, port = _listen(host, port, self._config.frame_size_bytes_max + framing.OVERHEAD_BYTES)
        self._address = (
            join_address(host, port) if advertised is None else join_address(advertised[0], advertised[1] or port)
        )
        self.dialler = _Dialler(self.loop, self._config.dials_max)
        self._ends = tuple(_LaneEnd(lane, self, self._config, sockets[lane]) for lane in Lane)
        for end in self._ends:
            end.open()

    def send(self, peer: Peer, lane: Lane, frame: bytes) -> None:
        """Queue ``frame``. What waits together leaves together, at the end of this turn of the loop."""
        if not self._ends:
            self.count["dropped_closed"] += 1
        elif len(frame) > self._config.frame_size_bytes_max:
            self.count["dropped_oversized"] += 1
        else:
            self._ends[lane].send(peer, frame)

    def forget(self, peer: Peer) -> None:
        """Drop the connections to ``peer`` and what is queued for it."""
        for end in self._ends:
            end.forget(peer)

    def counters(self) -> Mapping[str, int]:
        """Totals by name, and ``connections``: how many there are now, over both lanes."""
        return {**self.count, "connections": sum(end.connections for end in self._ends)}

    async def close(self) -> None:
        """Close both sockets and end the threads that dial. Frames not yet handed to the kernel are lost."""
        ends, self._ends = self._ends, ()
        for end in ends:
            end.shut()
        if ends:
            await asyncio.to_thread(self._let_go, [end.socket for end in ends])

    def _let_go(self, sockets: list[_Socket]) -> None:
        for sock in sockets:
            sock.close()
        self.dialler.close()


def _listen(host: str, port: int, message_bytes_max: int) -> tuple[dict[Lane, _Socket], int]:
    """A socket per lane at ``port`` and the next; for port 0 the first free pair of neighbours that comes along."""
    attempts = PORT_PAIR_ATTEMPTS if port == 0 else 1
    while True:
        attempts -= 1
        sockets = {lane: _Socket(_RECEIVE_BUFFER_MESSAGES[lane], message_bytes_max) for lane in Lane}
        try:
            bound = sockets[Lane.PROBE].listen(host, port)
            sockets[Lane.BULK].listen(host, bound + 1)
        except TransportError:
            for sock in sockets.values():
                sock.close()
            if attempts == 0:
                raise
        else:
            return sockets, bound
