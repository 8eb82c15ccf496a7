"""One packet for one message, where nng and TLS would make three.

nng hands a message to TLS in three parts (its length, its header, its body). Each becomes a record and, as nng rightly
has the kernel send at once, a packet with headers of its own, which cost more than what a ping says. So the connection
is corked (tcp(7), ``TCP_CORK``) while a message leaves: the kernel holds back a packet that is not full until it is
uncorked, ``CORKED_S`` later. Whatever nng is slower with than that leaves as it would without. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable
from typing import Final

from gossip.admission import OPEN_FILES, address_of, as_socket, open_sockets

CORKED_S: Final = 0.002
"""How much later a message leaves. Many times what nng needs for the three parts, and little beside a ping's time."""


class Corks:
    """The corks of one nng socket's connections, which are numbers here as there."""

    def __init__(self, call_later: Callable[..., object]) -> None:
        self._call_later = call_later
        self._corkable: dict[int, socket.socket] = {}
        self._in: set[int] = set()

    @staticmethod
    def work_here() -> bool:
        """Whether the kernel has what this needs."""
        return sys.platform == "linux" and OPEN_FILES.is_dir()

    def found(self, pipe: int, local: str, remote: str) -> None:
        """Look for the file of a connection (``host:port`` at both ends); one that is not found is never corked. May
        run on nng's threads, before the connection is used.
        """
        for descriptor, sock in open_sockets():
            # nng closes files at any time, and who has no peer is no connection.
            with contextlib.suppress(OSError):
                if _joins(sock, local, remote):
                    with as_socket(os.dup(descriptor)) as copy:
                        if _joins(copy, local, remote):
                            self._corkable[pipe] = as_socket(copy.detach())
                    return

    def gone(self, pipe: int) -> None:
        """Let go of a connection, if it was found."""
        sock = self._corkable.pop(pipe, None)
        if sock is not None:
            sock.close()

    def close(self) -> None:
        """Let go of all."""
        for pipe in tuple(self._corkable):
            self.gone(pipe)

    def cork(self, pipe: int) -> None:
        """Just before a message is handed to nng."""
        if pipe not in self._in and self._set(pipe, 1):
            self._in.add(pipe)
            self._call_later(CORKED_S, self._uncork, pipe)

    def _uncork(self, pipe: int) -> None:
        self._in.discard(pipe)
        self._set(pipe, 0)

    def _set(self, pipe: int, value: int) -> bool:
        sock = self._corkable.get(pipe)
        if sock is None:
            return False
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, value)
        except OSError:
            # It was let go of in this moment, on one of nng's threads.
            return False
        return True


def _joins(sock: socket.socket, local: str, remote: str) -> bool:
    is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
    return is_tcp and address_of(sock.getsockname()) == local and address_of(sock.getpeername()) == remote
