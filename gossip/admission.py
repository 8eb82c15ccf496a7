"""Who stands at the door: connections that were accepted and have not shaken hands.

Whoever reaches a port can open connections and say nothing. nng takes in any number of them, with TLS keeps each for
ever and about 50 KB for it, and tells nobody. So they are counted here where they can be seen, in the table of open
files of this process. Those who are too many or take too long are hung up on: nng takes that for a peer who did. Until
it has seen them out, the kernel drops what comes from the same sources before it is a connection at all.

The kernel wakes ``Doorkeeper`` when somebody waits to be accepted, and the lowest free descriptor says whether so many
have come since the last count that another is due. nng is often faster than that, when they come one by one; so there
is a count every ``PATIENCE_S`` in any case. All of this is Linux's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import select
import socket
import struct
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from gossip.dialling import join_address, split_address

WAITING_MAX: Final = 256
"""How many may wait before half of that have to go. Raising it costs memory; too low and many honest ones that come at
once get into each other's way.
"""
PATIENCE_S: Final = 10.0
"""Who has not shaken hands in this time is hung up on, within as much again. A count takes less than a millisecond."""
SECOND_LOOK_S: Final = 0.05
"""This long after the kernel told of somebody, nng has accepted who came with them."""
SHUT_OUT_S: Final = 0.1
"""How long, at least, the door is shut for the sources of whom some were too many."""
_SOURCES_SHUT_OUT_MAX: Final = 32
_RECOUNT_AFTER_MIN: Final = 16
OPEN_FILES: Final = Path("/proc/self/fd")
_IPV6_PREFIX_BITS: Final = 64
# From linux/socket.h, linux/bpf_common.h and linux/filter.h; the IP header is found there, however much of the packet
# the kernel has consumed.
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_LOAD_WORD, _LOAD_BYTE, _AND, _JUMP_IF, _RETURN = 0x20, 0x30, 0x54, 0x15, 0x06
_INSTRUCTION: Final = struct.Struct("=HBBI")
_IP_HEADER: Final = 0xFFF00000
_SOURCE_IN_HEADER: Final = {4: _IP_HEADER + 12, 6: _IP_HEADER + 8}

Source = ipaddress.IPv4Network | ipaddress.IPv6Network
"""A host, or with IPv6 the network of 64 bits in which one host may have any address."""


def source(remote: str) -> Source:
    """Who is at ``remote`` (``host:port``)."""
    address = ipaddress.ip_address(split_address(remote)[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return ipaddress.ip_network((address, _IPV6_PREFIX_BITS), strict=False)
        address = address.ipv4_mapped
    return ipaddress.ip_network(address)


def surplus(arrived: Sequence[str], stay_max: int) -> list[str]:
    """Which of the connections in ``arrived`` have to go, so that at most ``stay_max`` stay.

    They are known by their remote addresses (``host:port``), the oldest first. As many of each source stay as fit, the
    same number of all that have more, and of each the youngest: an honest handshake is over soon.
    """
    by_source: defaultdict[Source, list[str]] = defaultdict(list)
    for remote in arrived:
        by_source[source(remote)].append(remote)
    share = stay_max
    while share and sum(min(len(remotes), share) for remotes in by_source.values()) > stay_max:
        share -= 1
    if not share:
        return list(arrived[: len(arrived) - stay_max])
    return [remote for remotes in by_source.values() for remote in remotes[:-share]]


class Doorkeeper:
    """Watches listening sockets of this process. ``settled`` tells the remote addresses of those who are inside."""

    def __init__(self, settled: Callable[[], Collection[str]], waiting_max: int = WAITING_MAX) -> None:
        self._settled = settled
        self._waiting_max = waiting_max
        self._loop = asyncio.get_running_loop()
        self._arrivals = select.epoll()
        self._loop.add_reader(self._arrivals.fileno(), self._knocked)
        self._doors: frozenset[str] = frozenset()
        self._listening: list[socket.socket] = []
        # Remote addresses in order of arrival, and their descriptors.
        self._waiting: dict[str, int] = {}
        self._waited: frozenset[str] = frozenset()
        self._leaving: frozenset[str] = frozenset()
        self._count_at = 0
        self._inspection = self._loop.call_later(PATIENCE_S, self._inspect)
        self._second_look: asyncio.TimerHandle | None = None
        self._reopening: asyncio.TimerHandle | None = None
        self.turned_away = 0

    @staticmethod
    def works_here() -> bool:
        """Whether this system has what it takes."""
        return hasattr(select, "epoll") and OPEN_FILES.is_dir()

    def watch(self, doors: Collection[str]) -> None:
        """Watch the sockets that listen at ``doors`` (``host:port``, numeric) in place of earlier ones.

        They stay open as long as they are watched, so another call has to come before they are closed.
        """
        for sock in self._listening:
            sock.close()
        self._doors = frozenset(doors)
        self._listening = []
        for descriptor, sock in open_sockets():
            with contextlib.suppress(OSError):
                if self._is_ours(sock) and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    self._listening.append(as_socket(os.dup(descriptor)))
        for sock in self._listening:
            self._arrivals.register(sock.fileno(), select.EPOLLIN | select.EPOLLET)
        self._count()

    def close(self) -> None:
        """Watch nobody any more."""
        self.watch(())
        self._loop.remove_reader(self._arrivals.fileno())
        self._arrivals.close()
        for timer in (self._inspection, self._second_look, self._reopening):
            if timer is not None:
                timer.cancel()

    def _knocked(self) -> None:
        self._arrivals.poll(0)
        self._look()
        if self._second_look is None:
            self._second_look = self._loop.call_later(SECOND_LOOK_S, self._look_again)

    def _look_again(self) -> None:
        self._second_look = None
        self._look()

    def _look(self) -> None:
        if self._lowest_free() >= self._count_at:
            self._count()

    def _inspect(self) -> None:
        """Turn away who was here at the last inspection already."""
        self._inspection = self._loop.call_later(PATIENCE_S, self._inspect)
        self._count()
        for remote in self._waited & self._waiting.keys():
            self._turn_away(remote)
        self._waited = frozenset(self._waiting)

    def _lowest_free(self) -> int:
        """Not fewer files than this are open."""
        try:
            descriptor = os.dup(self._arrivals.fileno())
        except OSError:
            return self._count_at  # As many as may be.
        os.close(descriptor)
        return descriptor

    def _count(self) -> None:
        """Look who waits; if they are too many let half of the limit stay."""
        found = dict(self._accepted())
        self._leaving &= found.keys()
        inside = {*self._settled(), *self._leaving}
        before = {remote: found[remote] for remote in self._waiting if remote in found}
        self._waiting = {remote: fd for remote, fd in {**before, **found}.items() if remote not in inside}
        is_crowded = len(self._waiting) > self._waiting_max
        if is_crowded:
            for remote in surplus(tuple(self._waiting), self._waiting_max // 2):
                self._turn_away(remote)
        if is_crowded or len(self._leaving) > self._waiting_max // 2:
            self._shut_out(Counter(map(source, self._leaving)))
        room = self._waiting_max - len(self._waiting) - len(self._leaving)
        self._count_at = self._lowest_free() + max(_RECOUNT_AFTER_MIN, room)

    def _accepted(self) -> Iterator[tuple[str, int]]:
        for descriptor, sock in open_sockets():
            # Who has no peer listens, or was hung up on; and nng closes files at any time.
            with contextlib.suppress(OSError):
                if self._is_ours(sock):
                    yield address_of(sock.getpeername()), descriptor

    def _is_ours(self, sock: socket.socket) -> bool:
        name = sock.getsockname()
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        anywhere = (join_address("0.0.0.0", name[1]), join_address("::", name[1]))
        return not self._doors.isdisjoint((address_of(name), *anywhere))

    def _turn_away(self, remote: str) -> None:
        """Hang up, unless the descriptor is somebody else's by now: a copy of it cannot become that."""
        with contextlib.suppress(OSError), as_socket(os.dup(self._waiting.pop(remote))) as sock:
            if self._is_ours(sock) and address_of(sock.getpeername()) == remote:
                sock.shutdown(socket.SHUT_RDWR)
                self._leaving |= {remote}
                self.turned_away += 1

    def _shut_out(self, sources: Counter[Source]) -> None:
        """Let the kernel drop what comes from those of ``sources`` who are most, until nng has seen them out."""
        self._filter(_SO_ATTACH_FILTER, _dropping(who for who, _ in sources.most_common(_SOURCES_SHUT_OUT_MAX)))
        if self._reopening is not None:
            self._reopening.cancel()
        self._reopening = self._loop.call_later(SHUT_OUT_S, self._reopen)

    def _reopen(self) -> None:
        self._reopening = None
        self._count()
        if self._reopening is None:
            self._filter(_SO_DETACH_FILTER)

    def _filter(self, option: int, instructions: bytes = b"") -> None:
        buffer = array("B", instructions)
        program = struct.pack("@HP", len(instructions) // _INSTRUCTION.size, buffer.buffer_info()[0])
        for sock in self._listening:
            # Where the kernel has no such filters, hanging up has to do.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, program)


def _dropping(sources: Iterable[Source]) -> bytes:
    """A program for the kernel (classic BPF) that drops packets from ``sources`` and lets pass all others."""
    program = []
    for network in sources:
        words = struct.iter_unpack("!I", network.network_address.packed[: network.prefixlen // 8])
        tests = [(_LOAD_BYTE, _IP_HEADER, network.version << 4)]
        tests += [(_LOAD_WORD, _SOURCE_IN_HEADER[network.version] + 4 * n, word) for n, (word,) in enumerate(words)]
        left = 3 * len(tests) + 1
        for load, offset, value in tests:
            left -= 3
            mask = 0xF0 if load == _LOAD_BYTE else 0xFFFFFFFF
            # If the test fails, go on with the next network.
            program += [(load, 0, 0, offset), (_AND, 0, 0, mask), (_JUMP_IF, 0, left, value)]
        program.append((_RETURN, 0, 0, 0))
    program.append((_RETURN, 0, 0, 0xFFFFFFFF))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def open_sockets() -> Iterator[tuple[int, socket.socket]]:
    """The sockets of this process, each only until the next is asked for."""
    for entry in OPEN_FILES.iterdir():
        # What is no socket, or was closed a moment ago, is passed over.
        with contextlib.suppress(OSError):
            sock = as_socket(int(entry.name))
            try:
                yield int(entry.name), sock
            finally:
                sock.detach()


def as_socket(descriptor: int) -> socket.socket:
    """Of the file with this number, which the result closes unless it is detached. Raises ``OSError`` for no socket."""
    return socket.socket(fileno=descriptor)


def address_of(name: tuple[str, int]) -> str:
    """``host:port`` of a socket's name."""
    return join_address(name[0].partition("%")[0], name[1])
