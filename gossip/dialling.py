"""Reaching an address: its notation, one attempt, and how many attempts are made at one time."""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from gossip.transport import TransportConfig

DIAL_TIMEOUT_S = 2.0
"""For the connection and both hellos; also how long an accepted connection may stay without its hello."""
DIAL_JITTER_S = 0.005
"""Per dial already under way, so that many dials do not leave at one instant."""


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


def advertised_address(config: TransportConfig, port: int) -> str:
    """Where peers reach a transport that listens at ``port``. Raises ``ValueError`` for what is no address."""
    host, advertised_port = split_address(config.advertise or config.bind)
    return join_address(host, advertised_port or port)


@dataclass(slots=True, eq=False)
class Dial:
    """An attempt to reach ``address``; it ends with the peer's hello or with a reason."""

    address: str
    host: str
    port: int
    dialer: int = 0
    timer: asyncio.TimerHandle | None = None
    expired: bool = False
    connected: bool = False
    over: bool = False


class Dialler:
    """Runs blocking dials on threads of its own, ``dials_max`` at one time and the others in order after them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, dials_max: int) -> None:
        self._loop = loop
        self._dials_max = dials_max
        self._rng = random.Random(os.urandom(16))
        self._threads = ThreadPoolExecutor(dials_max, thread_name_prefix="gary-dial")
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = 0

    def submit(
        self, begin: Callable[[], bool], dial: Callable[[], str | None], ended: Callable[[str | None], None]
    ) -> None:
        """When there is room call ``begin``; if that agrees run ``dial`` on a thread and tell ``ended`` its answer."""
        self._waiting.append(partial(self._run, begin, dial, ended))
        self._next()

    def _next(self) -> None:
        while self._waiting and self._running < self._dials_max:
            jitter_s = self._rng.uniform(0, DIAL_JITTER_S * self._running)
            self._running += 1
            self._loop.call_later(jitter_s, self._waiting.popleft())

    def _run(
        self, begin: Callable[[], bool], dial: Callable[[], str | None], ended: Callable[[str | None], None]
    ) -> None:
        if begin():
            self._loop.run_in_executor(self._threads, dial).add_done_callback(partial(self._ended, ended))
        else:
            self._release()

    def _ended(self, ended: Callable[[str | None], None], future: asyncio.Future[str | None]) -> None:
        self._release()
        ended(future.result())

    def _release(self) -> None:
        self._running -= 1
        self._next()

    def close(self) -> None:
        """Wait for the threads, whose dials the caller has given up, to end. ``begin`` has to decline from now on."""
        self._waiting.clear()
        self._threads.shutdown(wait=True)
