"""Corks on real connections of this process; time is what the test lets pass."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from gossip.admission import address_of
from gossip.corking import CORKED_S, Corks

pytestmark = pytest.mark.skipif(not Corks.work_here(), reason="TCP_CORK is Linux's")


class Clock:
    """Keeps what is to be called later."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[..., object], tuple[int, ...]]] = []

    def call_later(self, delay_s: float, call: Callable[..., object], *arguments: int) -> None:
        self.later.append((delay_s, call, arguments))

    def pass_by(self) -> None:
        due, self.later = self.later, []
        for _, call, arguments in due:
            call(*arguments)


@pytest.fixture
def connections() -> Iterator[list[socket.socket]]:
    """Two connections to one and the same address."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        yield [stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(2)]


def _is_corked(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))


def _find(corks: Corks, pipe: int, sock: socket.socket) -> None:
    corks.found(pipe, address_of(sock.getsockname()), address_of(sock.getpeername()))


def test_a_connection_is_corked_for_a_moment_and_only_the_one_that_is_meant(connections: list[socket.socket]) -> None:
    clock = Clock()
    corks = Corks(clock.call_later)
    _find(corks, 7, connections[1])
    corks.cork(7)
    corks.cork(7)
    assert [_is_corked(sock) for sock in connections] == [False, True]
    assert [delay_s for delay_s, _, _ in clock.later] == [CORKED_S]
    clock.pass_by()
    assert not _is_corked(connections[1])
    corks.cork(7)
    assert _is_corked(connections[1])
    corks.close()


def test_a_connection_that_was_never_found_or_is_gone_is_let_be(connections: list[socket.socket]) -> None:
    clock = Clock()
    corks = Corks(clock.call_later)
    corks.found(1, "127.0.0.1:1", "127.0.0.1:2")
    corks.cork(1)
    _find(corks, 2, connections[0])
    corks.cork(2)
    corks.gone(2)
    clock.pass_by()
    corks.cork(2)
    assert clock.later == []
