"""How many may stand at the door: connections that were accepted and have not shaken hands.

Whoever reaches a port can open connections and say nothing. nng gives each of them 10 s and about 50 KB, any number at
one time, and tells nobody. So this counts them where they can be seen, in the table of open files of this process, and
hangs up on those who are too many: nng takes that for a peer who did. While they arrive faster than nng can see them
out, the kernel drops what comes from the same sources before it is a connection at all.

Nothing ticks. The kernel wakes ``Doorkeeper`` when somebody arrives, and the lowest free descriptor says whether so
many have come since the last count that another is due. All of this is Linux's; elsewhere the limit of open files is
the only one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import os
import select
import socket
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from gossip.dialling import join_address, split_address

WAITING_MAX: Final = 256
"""How many may wait before some have to go; raising it costs memory, lowering it the slow when many come at once."""
SHUT_OUT_S: Final = 0.1
"""After this time it is looked again whether the door may be opened for those for whom it was shut."""
_SOURCES_SHUT_OUT_MAX: Final = 32
_OPEN_FILES: Final = Path("/proc/self/fd")
_RECOUNT_AFTER_MIN: Final = 16
_IPV6_PREFIX_BITS: Final = 64
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_INSTRUCTION_BYTES: Final = 8
# linux/bpf_common.h, and from linux/filter.h the place of the IP header, whatever else the kernel has consumed.
_LOAD_WORD, _LOAD_BYTE, _AND, _JUMP_IF, _RETURN = 0x20, 0x30, 0x54, 0x15, 0x06
_IP_HEADER: Final = 0xFFF00000
_IPV4_SOURCE: Final = _IP_HEADER + 12
_IPV6_SOURCE: Final = _IP_HEADER + 8

Source = ipaddress.IPv4Network | ipaddress.IPv6Network


def surplus(arrived: Sequence[str], stay_max: int) -> list[str]:
    """Which of the connections in ``arrived`` have to go, so that at most ``stay_max`` stay.

    They are known by their remote addresses (``host:port``), the oldest first. As many as fit stay of each source, the
    same number of all that have more, and of each the youngest: an honest handshake is over soon. A source is a host,
    or with IPv6 a network of 64 bits.
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


def source(remote: str) -> Source:
    """Who is at ``remote`` (``host:port``), as far as that is one who may have many addresses."""
    address = ipaddress.ip_address(split_address(remote)[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return ipaddress.ip_network((address, _IPV6_PREFIX_BITS), strict=False)
        address = address.ipv4_mapped
    return ipaddress.ip_network(address)


def _instructions(sources: Iterable[Source]) -> bytes:
    """A program for the kernel (classic BPF) that drops packets from ``sources`` and lets pass all others."""
    program = []
    for network in sources:
        words = struct.unpack(f"!{network.prefixlen // 32}I", network.network_address.packed[: network.prefixlen // 8])
        first = _IPV4_SOURCE if network.version == 4 else _IPV6_SOURCE
        checks = [(_LOAD_WORD, first + 4 * number, word) for number, word in enumerate(words)]
        # Of each check: load, and go on if it holds, or else to the next network.
        left = 2 * len(checks) + 1
        program += [(_LOAD_BYTE, 0, 0, _IP_HEADER), (_AND, 0, 0, 0xF0), (_JUMP_IF, 0, left, network.version << 4)]
        for load, offset, value in checks:
            left -= 2
            program += [(load, 0, 0, offset), (_JUMP_IF, 0, left, value)]
        program.append((_RETURN, 0, 0, 0))
    program.append((_RETURN, 0, 0, 0xFFFFFFFF))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


class Doorkeeper:
    """Watches listening sockets of this process. ``settled`` tells the remote addresses of those who are inside."""

    def __init__(self, waiting_max: int, settled: Callable[[], Collection[str]]) -> None:
        self._waiting_max = waiting_max
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._loop.add_reader(self._epoll.fileno(), self._knocked)
        self._doors: frozenset[str] = frozenset()
        self._waiting: dict[str, int] = {}
        self._leaving: frozenset[str] = frozenset()
        self._listening: list[socket.socket] = []
        self._reopening: asyncio.TimerHandle | None = None
        self._count_at = 0
        self.turned_away = 0

    @staticmethod
    def works_here() -> bool:
        """Whether this system has what it takes."""
        return hasattr(select, "epoll") and _OPEN_FILES.is_dir()

    def watch(self, doors: Collection[str]) -> None:
        """Watch the sockets that listen at the addresses ``doors`` (``host:port``, numeric), in place of earlier ones.

        To be called before any of them is closed, too, without it.
        """
        self._doors = frozenset(doors)
        for sock in self._listening:
            sock.close()
        self._listening = [
            _as_socket(os.dup(descriptor))
            for descriptor, sock in _open_sockets()
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and self._is_ours(sock)
        ]
        for sock in self._listening:
            self._epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLET)
        self._count()

    def close(self) -> None:
        """Watch nobody any more."""
        self.watch(())
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        if self._reopening is not None:
            self._reopening.cancel()

    def _knocked(self) -> None:
        self._epoll.poll(0)
        if self._lowest_free() >= self._count_at:
            self._count()

    def _lowest_free(self) -> int:
        try:
            descriptor = os.dup(self._epoll.fileno())
        except OSError:
            return self._count_at  # None is free.
        os.close(descriptor)
        return descriptor

    def _count(self) -> None:
        """Look who waits, and if they are too many let half of the limit stay."""
        found = dict(self._accepted())
        self._leaving &= found.keys()
        inside = {*self._settled(), *self._leaving}
        known = {remote: found[remote] for remote in self._waiting if remote in found}
        self._waiting = {remote: fd for remote, fd in {**known, **found}.items() if remote not in inside}
        if len(self._waiting) > self._waiting_max:
            for remote in surplus(tuple(self._waiting), self._waiting_max // 2):
                self._turn_away(remote, self._waiting.pop(remote))
        if len(self._leaving) > self._waiting_max:
            self._shut_out(Counter(map(source, self._leaving)))
        room = self._waiting_max - len(self._waiting) - len(self._leaving)
        self._count_at = self._lowest_free() + max(_RECOUNT_AFTER_MIN, room)

    def _shut_out(self, sources: Counter[Source]) -> None:
        """Let the kernel drop what comes from those of ``sources`` who are most, until nng has seen them out."""
        instructions = _instructions(network for network, _ in sources.most_common(_SOURCES_SHUT_OUT_MAX))
        buffer = ctypes.create_string_buffer(instructions, len(instructions))
        program = struct.pack("@HP", len(instructions) // _INSTRUCTION_BYTES, ctypes.addressof(buffer))
        self._set_filter(_SO_ATTACH_FILTER, program)
        if self._reopening is not None:
            self._reopening.cancel()
        self._reopening = self._loop.call_later(SHUT_OUT_S, self._reopen)

    def _reopen(self) -> None:
        self._reopening = None
        self._count()
        if self._reopening is None:
            self._set_filter(_SO_DETACH_FILTER, bytes(4))

    def _set_filter(self, option: int, value: bytes) -> None:
        for sock in self._listening:
            # Where the kernel has no such filters, hanging up has to do.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, value)

    def _accepted(self) -> Iterator[tuple[str, int]]:
        for descriptor, sock in _open_sockets():
            # What is no connected socket, or is none any more, is nobody who waits.
            with contextlib.suppress(OSError):
                if self._is_ours(sock):
                    yield _address(sock.getpeername()), descriptor

    def _is_ours(self, sock: socket.socket) -> bool:
        name = sock.getsockname()
        if not isinstance(name, tuple):
            return False
        return not self._doors.isdisjoint(
            (_address(name), join_address("0.0.0.0", name[1]), join_address("::", name[1]))
        )

    def _turn_away(self, remote: str, descriptor: int) -> None:
        """Hang up, unless ``descriptor`` is somebody else by now: a copy of it cannot change any more."""
        with contextlib.suppress(OSError), _as_socket(os.dup(descriptor)) as sock:
            if self._is_ours(sock) and _address(sock.getpeername()) == remote:
                sock.shutdown(socket.SHUT_RDWR)
                self._leaving |= {remote}
                self.turned_away += 1


def _open_sockets() -> Iterator[tuple[int, socket.socket]]:
    """The sockets of this process, each only until the next is asked for."""
    for entry in _OPEN_FILES.iterdir():
        # What is no socket, or was closed a moment ago, is passed over.
        with contextlib.suppress(OSError):
            sock = _as_socket(int(entry.name))
            try:
                yield int(entry.name), sock
            finally:
                sock.detach()


def _as_socket(descriptor: int) -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)


def _address(name: tuple[str, int]) -> str:
    return join_address(name[0].partition("%")[0], name[1])
