"""The transport on nng: one polyamorous pair socket per lane, TCP below.

The probe lane listens at the configured port P, the bulk lane at P + 1; addresses name P. One socket serves any number
of peers, and each connection (nng's word is pipe) both directions. ``gossip.connections`` decides who is connected to
whom; here is what is nng's own.

nng calls back on its own threads when a connection comes or goes: those callbacks only hand over to the event loop. A
dial blocks a worker thread, since only a blocking dial tells that it was refused; the loop bounds it by closing the
dialer, and nng's own redialling is never used.

With credentials the sockets speak TLS, and nng has checked both certificates before it tells of a connection. Who was
turned away in a handshake is known to nng's statistics alone. What a listener shows and trusts is fixed when it starts,
so new credentials need a new listener at the old port.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pynng as untyped_pynng

from gossip import framing
from gossip.admission import Doorkeeper
from gossip.connections import BATCH_BYTES, LaneEnd
from gossip.corking import Corks
from gossip.dialling import Dial, Dialler, advertised_address, join_address, split_address
from gossip.errors import TransportError
from gossip.framing import Hello
from gossip.traffic import Traffic
from gossip.transport import NOT_TRUSTED, SERVER_NAME, Credentials, Lane, Peer, Receiver, TransportConfig

pynng: Any = untyped_pynng
ffi: Any = pynng.ffi
lib: Any = pynng.lib

DIAGNOSIS_TIMEOUT_S = 0.5
PORT_PAIR_ATTEMPTS = 64
RELISTEN_ATTEMPTS = 100
RELISTEN_DELAY_S = 0.01
SETTLE_S = 0.01
"""Between the last message on a connection and its end. nng sends on a thread of its own, and drops what is not sent
by then; and over TLS it may miss, at the other side, an end that comes in the very moment after a message.
"""
COUNTERS = (
    "dials",
    "hang_ups",
    "dials_failed",
    "connections_accepted",
    "connections_evicted",
    "connections_surplus",
    "connections_stalled",
    "guests_refused",
    "dropped_forgotten",
    "dropped_before_hello",
    "dropped_impostor",
    "dropped_malformed",
    "dropped_version",
    "dropped_closed",
)
_NNG_THREADS = {
    lib.NNG_INIT_NUM_TASK_THREADS: 2,
    lib.NNG_INIT_NUM_EXPIRE_THREADS: 1,
    lib.NNG_INIT_NUM_POLLER_THREADS: 1,
    lib.NNG_INIT_NUM_RESOLVER_THREADS: 2,
}
_HEADER_BYTES = 4
_TLS_VERSION = lib.NNG_TLS_1_2
"""Not 1.3: for that Mbed TLS keeps keys in a table of its own, which this build does not lock. Of handshakes that run
on several of nng's threads at once about one in a hundred then fails.
"""
_HANDSHAKES = {
    b"auth": "handshakes_refused",
    b"proto": "handshakes_foreign",
    b"timeout": "handshakes_abandoned",
    b"disconnect": "handshakes_abandoned",
    b"other": "handshakes_abandoned",
}
"""Under which names this counts what nng's listeners count of handshakes that came to nothing: the certificate would
not do, or it was no TLS; it was no node; the other side went away."""
_NEVER_MS = 2**31 - 1
_RECEIVE_BUFFER_MESSAGES = {Lane.PROBE: 64, Lane.BULK: 8}
_SEND_BUFFER_MESSAGES = 128

_REFUSED = f"{NOT_TRUSTED}: its certificate or this node's own is refused, or it does not speak TLS"

_REASONS = {
    lib.NNG_ECRYPTO: _REFUSED,
    lib.NNG_EPEERAUTH: _REFUSED,
    lib.NNG_ECONNREFUSED: "connection refused",
    lib.NNG_ETIMEDOUT: "timed out",
    lib.NNG_EADDRINVAL: "no such host",
    lib.NNG_EUNREACHABLE: "no route to host",
    lib.NNG_EPROTO: "not a Gary node: handshake failed",
    lib.NNG_ECONNRESET: "not a Gary node: it hung up during the handshake",
    lib.NNG_ECONNSHUT: "not a Gary node: it hung up during the handshake",
}


def _limit_threads() -> None:
    """By default nng starts several threads per core, for a process that does nothing else. Counts once per process,
    before the first socket.
    """
    for parameter, threads in _NNG_THREADS.items():
        lib.nng_init_set_parameter(parameter, threads)


@dataclass(frozen=True, slots=True)
class _Tls:
    """nng's form of credentials, for what listens and for what dials."""

    server: Any
    client: Any


class _Socket:
    """What is used of an nng pair socket, in Python's terms: a ``gossip.connections.Link``."""

    def __init__(self, lane: Lane, frame_size_bytes_max: int, tls: _Tls | None) -> None:
        self._pynng = pynng.Pair1(
            polyamorous=True,
            recv_buffer_size=_RECEIVE_BUFFER_MESSAGES[lane],
            send_buffer_size=_SEND_BUFFER_MESSAGES,
            recv_max_size=max(frame_size_bytes_max, BATCH_BYTES) + framing.MESSAGE_OVERHEAD_BYTES + _HEADER_BYTES,
            reconnect_time_min=_NEVER_MS,
            reconnect_time_max=_NEVER_MS,
        )
        self._id = self._pynng.socket
        self._scheme = "tcp" if tls is None else "tls+tcp"
        self._tls = tls
        self._listener: Any = None
        self._bound = ("", 0)
        self._door = ""
        self._handshakes_before: Counter[str] = Counter(dict.fromkeys(_HANDSHAKES.values(), 0))
        # By connection: our dialer, or -1, and the remote address. Written on nng's threads.
        self._present: dict[int, tuple[int, str]] = {}
        self._message = ffi.new("nng_msg **")
        self._attached = True
        # On the bulk lane, which is silent at rest, what counts is how soon the next message can leave.
        self._is_corked = tls is not None and lane == Lane.PROBE and Corks.work_here()

    def attach(self, end: LaneEnd) -> None:
        """Tell ``end``, on the running loop, of what comes and goes and can be received."""
        self._loop = asyncio.get_running_loop()
        self._corks = Corks(self._loop.call_later)
        self._receive_fd = int(self._pynng.recv_fd)
        self._loop.add_reader(self._receive_fd, end.readable)
        self._pynng.add_pre_pipe_connect_cb(self._come)
        self._pynng.add_post_pipe_connect_cb(lambda pipe: self._hand_over(end.added, pipe.id, self._dialer(pipe.id)))
        self._pynng.add_post_pipe_remove_cb(lambda pipe: self._gone(end, pipe.id))

    def detach(self) -> None:
        """Tell nobody from now on."""
        self._attached = False
        self._loop.remove_reader(self._receive_fd)

    def _come(self, pipe: Any) -> None:
        """Remember what nng has forgotten by the time when it tells the end of a connection. Of one that breaks at once
        it may tell that before the beginning, or tell no beginning at all.
        """
        remote = _end_of(pipe.pipe, b"remote-address")
        self._present[pipe.id] = _dialer_of(pipe.pipe), remote
        if self._is_corked and remote:
            self._corks.found(pipe.id, _end_of(pipe.pipe, b"local-address"), remote)

    def _gone(self, end: LaneEnd, pipe: int) -> None:
        dialer = self._dialer(pipe)
        self._present.pop(pipe, None)
        self._corks.gone(pipe)
        self._hand_over(end.removed, pipe, dialer)

    def _dialer(self, pipe: int) -> int:
        return self._present.get(pipe, (-1, ""))[0]

    def remotes(self) -> list[str]:
        """The addresses (``host:port``) at the other ends of the connections that were made."""
        return [address for _, address in tuple(self._present.values())]

    def _hand_over(self, tell: Callable[..., None], *arguments: int) -> None:
        """Runs on nng's threads, also while the socket closes."""
        if self._attached:
            self._loop.call_soon_threadsafe(tell, *arguments)

    def listen(self, host: str, port: int) -> int:
        """Listen, and return the port."""
        address = join_address(host, port)
        listener, bound = ffi.new("nng_listener *"), ffi.new("nng_sockaddr *")
        error = lib.nng_listener_create(listener, self._id, f"{self._scheme}://{address}".encode())
        if not error and self._tls is not None:
            error = lib.nng_listener_set_ptr(listener[0], b"tls-config", self._tls.server._tls_config)
        error = error or lib.nng_listener_start(listener[0], 0)
        error = error or lib.nng_listener_get_addr(listener[0], b"local-address", bound)
        if error:
            lib.nng_listener_close(listener[0])
            raise TransportError(f"cannot listen at {address}: {_reason(error)}")
        self._door = _address(bound)
        self._listener, self._bound = listener[0], (host, split_address(self._door)[1])
        return self._bound[1]

    def door(self) -> str:
        """The numeric address (``host:port``) at which it listens or did."""
        return self._door

    def renew(self, tls: _Tls) -> None:
        """Show and trust ``tls`` from now on. Who listened does so again only after ``relisten``."""
        self._tls = tls
        if self._listener is not None:
            self._handshakes_before = self.handshakes_failed()
            lib.nng_listener_close(self._listener)
            self._listener = None

    def relisten(self) -> None:
        """Listen again where it did, if it did. Raises ``TransportError``."""
        if self._listener is None and self._door:
            self.listen(*self._bound)

    def transmit(self, pipe: int, data: bytes) -> bool:
        pynng.check_err(lib.nng_msg_alloc(self._message, 0))
        message = self._message[0]
        pynng.check_err(lib.nng_msg_append(message, data, len(data)))
        lib.nng_msg_set_pipe(message, ffi.new("nng_pipe *", (pipe,))[0])
        self._corks.cork(pipe)
        error = lib.nng_sendmsg(self._id, message, lib.NNG_FLAG_NONBLOCK)
        if error == 0:
            return True
        lib.nng_msg_free(message)
        if error != lib.NNG_EAGAIN:
            pynng.check_err(error)
        return False

    def receive(self) -> tuple[int, bytes] | None:
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
        return _dialer_of(ffi.new("nng_pipe *", (pipe,))[0])

    def peer_name(self, pipe: int) -> str | None:
        if self._tls is None:
            return None
        name = ffi.new("char **")
        if lib.nng_pipe_get_string(ffi.new("nng_pipe *", (pipe,))[0], b"tls-peer-cn", name) or name[0] == ffi.NULL:
            return ""
        try:
            return bytes(ffi.string(name[0])).decode(errors="replace")
        finally:
            lib.nng_strfree(name[0])

    def create_dialer(self, host: str, port: int) -> int:
        dialer = ffi.new("nng_dialer *")
        error = lib.nng_dialer_create(dialer, self._id, f"{self._scheme}://{join_address(host, port)}".encode())
        if not error and self._tls is not None:
            error = lib.nng_dialer_set_ptr(dialer[0], b"tls-config", self._tls.client._tls_config)
        if error:
            raise TransportError(_reason(error))
        return int(dialer.id)

    def handshakes_failed(self) -> Counter[str]:
        """Handshakes of others with this node that came to nothing, by reason; of many nng counts ten a second."""
        failed = self._handshakes_before.copy()
        if self._listener is None:
            return failed
        root = ffi.new("nng_stat **")
        pynng.check_err(lib.nng_stats_get(root))
        try:
            stat = lib.nng_stat_child(lib.nng_stat_find_listener(root[0], self._listener))
            while stat != ffi.NULL:
                reason = _HANDSHAKES.get(bytes(ffi.string(lib.nng_stat_name(stat))))
                if reason is not None:
                    failed[reason] += int(lib.nng_stat_value(stat))
                stat = lib.nng_stat_next(stat)
            return failed
        finally:
            lib.nng_stats_free(root[0])

    def dial(self, dial: Dial) -> str | None:
        error = lib.nng_dialer_start(ffi.new("nng_dialer *", (dial.dialer,))[0], 0)
        if not error:
            return None
        return _diagnosis(dial) if dial.expired else _reason(error)

    def close_dialer(self, dialer: int) -> None:
        lib.nng_dialer_close(ffi.new("nng_dialer *", (dialer,))[0])

    def close_pipe(self, pipe: int) -> None:
        lib.nng_pipe_close(ffi.new("nng_pipe *", (pipe,))[0])

    def close(self) -> None:
        """No callback comes after this has returned."""
        self._pynng.close()
        self._corks.close()


def _tls(credentials: Credentials) -> _Tls:
    """Raises ``TransportError`` for credentials that cannot be used."""
    server, client = pynng.TLSConfig.MODE_SERVER, pynng.TLSConfig.MODE_CLIENT
    shown = {
        "ca_string": "".join(credentials.roots),
        "own_key_string": credentials.key,
        "own_cert_string": credentials.certificate,
        "auth_mode": pynng.TLSConfig.AUTH_MODE_REQUIRED,
    }
    try:
        tls = _Tls(pynng.TLSConfig(server, **shown), pynng.TLSConfig(client, server_name=SERVER_NAME, **shown))
        for config in (tls.server, tls.client):
            pynng.check_err(lib.nng_tls_config_version(config._tls_config, _TLS_VERSION, _TLS_VERSION))
        return tls
    except pynng.NNGException as error:
        raise TransportError(f"the credentials cannot be used: {str(error).lower()}") from error


def _dialer_of(pipe: object) -> int:
    return int(lib.nng_dialer_id(lib.nng_pipe_dialer(pipe)))


def _end_of(pipe: object, which: bytes) -> str:
    """``host:port`` of one end of a connection; empty if nng does not know."""
    address = ffi.new("nng_sockaddr *")
    return "" if lib.nng_pipe_get_addr(pipe, which, address) else _address(address)


def _address(address: Any) -> str:
    """``host:port`` of a socket address of nng's."""
    if address.s_family == lib.NNG_AF_INET6:
        host = socket.inet_ntop(socket.AF_INET6, bytes(address.s_in6.sa_addr))
        return join_address(host, socket.ntohs(address.s_in6.sa_port))
    host = socket.inet_ntop(socket.AF_INET, struct.pack("=I", address.s_in.sa_addr))
    return join_address(host, socket.ntohs(address.s_in.sa_port))


def _reason(error: int) -> str:
    return _REASONS.get(error) or ffi.string(lib.nng_strerror(error)).decode().lower()


def _diagnosis(dial: Dial) -> str:
    """Why nothing came of ``dial`` in its time: nobody there, or somebody who does not speak as we do."""
    try:
        socket.create_connection((dial.host, dial.port), DIAGNOSIS_TIMEOUT_S).close()
    except OSError:
        return "timed out"
    return "not a Gary node, or one that hangs: it accepts connections and does not shake hands"


async def persevere(attempt: Callable[[], None], attempts: int, delay_s: float) -> None:
    """Call ``attempt`` until it raises no ``TransportError``; that of the last of ``attempts`` is raised on."""
    for left in reversed(range(attempts)):
        try:
            attempt()
        except TransportError:
            if not left:
                raise
            await asyncio.sleep(delay_s)
        else:
            return


_limit_threads()


class NngTransport:
    """``gossip.transport.Transport`` on nng."""

    def __init__(self, config: TransportConfig) -> None:
        self._config = config
        self._traffic = Traffic(config, COUNTERS)
        self._ends: dict[Lane, LaneEnd] = {}
        self._sockets: dict[Lane, _Socket] = {}
        self._address = ""
        self._renewing = asyncio.Lock()
        self._doorkeeper: Doorkeeper | None = None

    @property
    def address(self) -> str:
        """``host:port`` of the probe lane, the bulk lane being at the next port; empty if it only dials."""
        return self._address

    @property
    def ports(self) -> int:
        """One for each lane."""
        return len(Lane)

    async def start(self, receiver: Receiver) -> None:
        """Listen at both ports, or at none without an address to bind. Raises ``TransportError`` if one is taken, an
        address cannot be understood, or the credentials cannot be used.
        """
        tls = None if self._config.credentials is None else _tls(self._config.credentials)
        self._dialler = Dialler(asyncio.get_running_loop(), self._config.dials_max)
        if self._config.bind:
            self._address = self._listen(receiver, tls)
            if Doorkeeper.works_here():
                self._doorkeeper = Doorkeeper(self._remotes)
                self._doorkeeper.watch([sock.door() for sock in self._sockets.values()])
        else:
            self._attach(receiver, tls)
        instance = os.urandom(framing.INSTANCE_BYTES)
        for lane, end in self._ends.items():
            end.open(Hello(self._config.node, instance, self._address, lane))

    def _listen(self, receiver: Receiver, tls: _Tls | None) -> str:
        """Listen at the port to bind and the next, or for port 0 at the first free pair of neighbours that comes along.
        Returns the address to advertise.
        """
        try:
            host, port = split_address(self._config.bind)
            advertised_address(self._config, port)
        except ValueError as error:
            raise TransportError(str(error)) from error
        attempts = PORT_PAIR_ATTEMPTS if port == 0 else 1
        while True:
            attempts -= 1
            self._attach(receiver, tls)
            try:
                bound = self._sockets[Lane.PROBE].listen(host, port)
                self._sockets[Lane.BULK].listen(host, bound + 1)
            except TransportError:
                for sock in self._detach():
                    sock.close()
                if attempts == 0:
                    raise
            else:
                return advertised_address(self._config, bound)

    def _attach(self, receiver: Receiver, tls: _Tls | None) -> None:
        self._sockets = {lane: _Socket(lane, self._config.frame_size_bytes_max, tls) for lane in Lane}
        for lane, sock in self._sockets.items():
            self._ends[lane] = LaneEnd(lane, self._config, sock, self._dialler, receiver, self._traffic)
            sock.attach(self._ends[lane])

    def _detach(self) -> list[_Socket]:
        sockets = list(self._sockets.values())
        if self._doorkeeper is not None:
            self._doorkeeper.close()
            self._doorkeeper = None
        for end in self._ends.values():
            end.close()
        for sock in sockets:
            sock.detach()
        self._ends, self._sockets = {}, {}
        return sockets

    def send(self, peer: Peer, lane: Lane, frame: bytes) -> None:
        """Queue ``frame``; before ``start`` and after ``close`` it is dropped."""
        end = self._ends.get(lane)
        if end is None:
            self._traffic.count["dropped_closed"] += 1
        elif self._traffic.admits(peer, frame):
            end.send(peer, frame)

    def forget(self, peer: Peer) -> None:
        """Drop the connections to ``peer`` and what is queued for it, on both lanes."""
        for end in self._ends.values():
            end.forget(peer)

    def expel(self, node: str) -> None:
        """Cut off ``node`` on both lanes, and refuse it from now on."""
        self._traffic.expelled.add(node)
        for end in self._ends.values():
            end.expel(node)

    def _remotes(self) -> list[str]:
        return [remote for sock in self._sockets.values() for remote in sock.remotes()]

    def counters(self) -> Mapping[str, int]:
        """What ``Traffic`` counts, ``COUNTERS`` included, the handshakes that came to nothing, of which
        ``handshakes_shed`` were too many or too slow, and ``connections``: how many there are now.
        """
        handshakes = [sock.handshakes_failed() for sock in self._sockets.values()]
        return {
            **self._traffic.count,
            **{reason: sum(failed[reason] for failed in handshakes) for reason in _HANDSHAKES.values()},
            "handshakes_shed": 0 if self._doorkeeper is None else self._doorkeeper.turned_away,
            "connections": sum(end.connections for end in self._ends.values()),
        }

    async def renew(self, credentials: Credentials) -> None:
        """Show and trust ``credentials`` from now on, and make every connection anew.

        Raises ``TransportError``: for credentials that cannot be used and if this transport does not run with any, in
        both cases without a change; and if a port cannot be had again, when nobody can dial this node until another
        ``renew`` succeeds.
        """
        if self._config.credentials is None or not self._sockets:
            raise TransportError("only a transport that was started with credentials can be given new ones")
        tls = _tls(credentials)
        async with self._renewing:
            for end in self._ends.values():
                end.hold()
            await asyncio.sleep(SETTLE_S)
            if self._doorkeeper is not None:
                self._doorkeeper.watch(())
            for lane in Lane:
                if lane not in self._sockets:
                    raise TransportError("the transport was closed while it was given new credentials")
                self._sockets[lane].renew(tls)
                self._ends[lane].reconnect()
                # The kernel gives the port back at once, as far as anybody has seen.
                await persevere(self._sockets[lane].relisten, RELISTEN_ATTEMPTS, RELISTEN_DELAY_S)
            if self._doorkeeper is not None:
                self._doorkeeper.watch([sock.door() for sock in self._sockets.values()])

    async def close(self) -> None:
        """Close both sockets and end the threads that dial."""
        sockets = self._detach()
        if sockets:
            await asyncio.sleep(SETTLE_S)
            await asyncio.to_thread(self._let_go, sockets)

    def _let_go(self, sockets: list[_Socket]) -> None:
        for sock in sockets:
            sock.close()
        self._dialler.close()
