"""Watches engines by their event streams: what runs where, known within a millisecond and at next to no cost."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import urlencode

from tests.engines.engines import UnixConnection
from tests.engines.hosts import Host

Running = Mapping[str, frozenset[str]]
"""The ids of the running containers, by name of the host."""


class Watch:
    """Follows the containers of some hosts that were not there when it began."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._changed = threading.Condition()
        self._running: dict[str, set[str]] = {host.name: set() for host in hosts}
        self._sockets: list[socket.socket] = []
        self._threads = [self._follow(host) for host in hosts]

    def close(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):  # the engine was killed
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def wait_until(self, reached: Callable[[Running], bool], timeout_s: float) -> float | None:
        """The monotonic time at which the engines had reported a state that satisfies ``reached``; None: not in time."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not reached(self._snapshot()):
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() > deadline:
                    return None
            return time.monotonic()

    def running(self) -> Running:
        with self._changed:
            return self._snapshot()

    def _snapshot(self) -> Running:
        return {name: frozenset(containers) for name, containers in self._running.items()}

    def _follow(self, host: Host) -> threading.Thread:
        connection = UnixConnection(host.engine.socket, timeout_s=None)
        filters = {"type": ["container"], "event": ["start", "die"]}
        connection.request("GET", "/events?" + urlencode({"filters": json.dumps(filters)}))
        answer = connection.getresponse()
        self._sockets.append(connection.sock)
        thread = threading.Thread(target=self._read, args=(host.name, connection, answer), daemon=True)
        thread.start()
        return thread

    def _read(self, name: str, connection: UnixConnection, answer: http.client.HTTPResponse) -> None:
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            for line in answer:
                event = json.loads(line)
                with self._changed:
                    containers = self._running[name]
                    if event["Action"] == "start":
                        containers.add(event["id"])
                    else:
                        containers.discard(event["id"])
                    self._changed.notify_all()
        with self._changed:  # the stream ended with the engine, and the containers of a killed host with it
            self._running[name].clear()
            self._changed.notify_all()


@contextlib.contextmanager
def watching(hosts: Sequence[Host]) -> Iterator[Watch]:
    watch = Watch(hosts)
    try:
        yield watch
    finally:
        watch.close()


def at_least(count: int, hosts: Sequence[Host]) -> Callable[[Running], bool]:
    """Whether at least ``count`` containers run on these hosts together."""
    names = [host.name for host in hosts]
    return lambda running: sum(len(running[name]) for name in names) >= count
