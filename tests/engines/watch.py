"""Watches engines by their event streams: what ran where and when, to the nanosecond and at next to no cost."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from tests.engines.engines import UnixConnection
from tests.engines.hosts import Host

Running = Mapping[str, frozenset[str]]
"""The ids of the running containers, by name of the host."""


@dataclass(frozen=True, slots=True)
class Happening:
    """A container of a slot started (``runs``) or ended on a host. ``at_ns``: the engine's clock, the same for all."""

    at_ns: int
    host: str
    slot: str
    id: str
    runs: bool


class Watch:
    """Follows the containers of some hosts that were not there when it began."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._changed = threading.Condition()
        self._running: dict[str, set[str]] = {host.name: set() for host in hosts}
        self._history: list[Happening] = []
        self._sockets: list[socket.socket] = []
        self._threads = [self._follow(host) for host in hosts]

    def close(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):  # the engine was killed
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def wait_until(self, reached: Callable[[Running], bool], timeout_s: float) -> float | None:
        """The monotonic time at which what the engines had reported satisfied ``reached``; None: not in time."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not reached(self._snapshot()):
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() > deadline:
                    return None
            return time.monotonic()

    def history(self) -> list[Happening]:
        """What happened so far, in the order in which it did."""
        with self._changed:
            return sorted(self._history, key=lambda happening: happening.at_ns)

    def _snapshot(self) -> Running:
        return {name: frozenset(containers) for name, containers in self._running.items()}

    def _follow(self, host: Host) -> threading.Thread:
        connection = UnixConnection(host.engine.socket, timeout_s=None)
        filters = {"type": ["container"], "event": ["start", "die"]}
        connection.request("GET", "/events?" + urlencode({"filters": json.dumps(filters)}))
        stream = connection.sock
        answer = connection.getresponse()
        self._sockets.append(stream)
        thread = threading.Thread(target=self._read, args=(host.name, connection, answer), daemon=True)
        thread.start()
        return thread

    def _read(self, name: str, connection: UnixConnection, answer: http.client.HTTPResponse) -> None:
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            for line in answer:
                self._note(name, json.loads(line))
        with self._changed:  # the stream ended with the engine, and the containers of a killed host with it
            self._running[name].clear()
            self._changed.notify_all()

    def _note(self, name: str, event: Mapping[str, object]) -> None:
        actor, at_ns, container = event["Actor"], event["timeNano"], event["id"]
        assert isinstance(actor, dict)
        assert isinstance(at_ns, int)
        assert isinstance(container, str)
        runs = event["Action"] == "start"
        with self._changed:
            self._history.append(Happening(at_ns, name, actor["Attributes"].get("gary.slot", ""), container, runs))
            if runs:
                self._running[name].add(container)
            else:
                self._running[name].discard(container)
            self._changed.notify_all()


@contextlib.contextmanager
def watching(hosts: Sequence[Host]) -> Iterator[Watch]:
    """Watch these hosts meanwhile."""
    watch = Watch(hosts)
    try:
        yield watch
    finally:
        watch.close()


def at_least(count: int, hosts: Sequence[Host]) -> Callable[[Running], bool]:
    """Whether at least ``count`` containers run on these hosts together."""
    names = [host.name for host in hosts]
    return lambda running: sum(len(running[name]) for name in names) >= count


def most_down_at_once(history: Sequence[Happening], running: Sequence[tuple[str, str]], slots: Sequence[str]) -> int:
    """How many of ``slots`` had no running container, at the worst instant of ``history``.

    ``running``: (slot, container id) of all that ran when the history began.
    """
    now: dict[str, set[str]] = {slot: set() for slot in slots}
    for slot, container in running:
        now.get(slot, set()).add(container)
    worst = sum(not containers for containers in now.values())
    for happening in history:
        containers = now.get(happening.slot)
        if containers is not None:
            if happening.runs:
                containers.add(happening.id)
            else:
                containers.discard(happening.id)
            worst = max(worst, sum(not each for each in now.values()))
    return worst
