"""What a client of the API cannot do: take its time, send too much, take nothing, or be a web page.

Each test speaks to the real API as a client does that follows no rules. Where time is up, what is waited for is the end
of the connection, not the clock.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gary.api import BODY_SIZE_BYTES_MAX, METRICS_CONNECTIONS_MAX
from gary.connections import HEADERS_MAX, LINE_SIZE_BYTES_MAX, Limits
from tests.gary.agent_double import AgentDouble, PreparedCommands
from tests.gary.raw_client import WAIT_S, Raw

PATIENT = Limits()
HASTY = Limits(head_s=0.5, farewell_s=0.2)
GET = b"GET /v1/version HTTP/1.1\r\nHost: gary\r\n\r\n"
FOLLOW = b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: gary\r\n\r\n"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., AgentDouble]]:
    """Makes agents that answer to ``version``, with limits of one's own."""
    with contextlib.ExitStack() as running:

        def start(limits: Limits, metrics_bind: str = "", **prepared: Any) -> AgentDouble:
            commands = PreparedCommands(**{"answers": {"version": {"version": "1"}}, **prepared})
            return running.enter_context(AgentDouble(tmp_path / "s", commands, metrics_bind, limits))

        yield start


@pytest.fixture
def client() -> Iterator[Callable[[AgentDouble], Raw]]:
    with contextlib.ExitStack() as running:
        yield lambda agent: running.enter_context(contextlib.closing(Raw(agent.socket_path)))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _words(status: int, answer: Any) -> tuple[int, str]:
    return status, answer["error"]["message"]


Serve = Callable[..., AgentDouble]
Client = Callable[[AgentDouble], Raw]


@pytest.mark.parametrize("said", [b"", b"GET /v1/ver", GET[:-2]], ids=["nothing", "half a line", "all but the end"])
def test_whoever_does_not_come_to_the_end_of_its_head_is_cut_off_with_the_reason(
    serve: Serve, client: Client, said: bytes
) -> None:
    agent = serve(HASTY)
    slow = client(agent).say(said)
    assert client(agent).say(GET).answer() == (200, {"version": "1"})
    assert _words(*slow.answer()) == (408, "no request came within 0.5 s")
    assert agent.api.counters()["requests_late"] == 1


def test_a_head_that_comes_byte_by_byte_has_no_more_time_than_another(serve: Serve, client: Client) -> None:
    agent = serve(HASTY)
    slow = client(agent)
    endless = GET[:-4] + b"\r\nX: " + b"x" * 1000
    sent = next(count for count, byte in enumerate(endless) if slow.say(bytes([byte])).is_answered(0.02))
    assert sent < 100
    assert slow.answer()[0] == 408


def test_a_body_that_does_not_come_is_not_waited_for(serve: Serve, client: Client) -> None:
    agent = serve(Limits(body_s=0.2, farewell_s=0.2))
    head = b"POST /v1/leave HTTP/1.1\r\nHost: gary\r\nContent-Length: 100\r\n\r\n"
    slow = client(agent).say(head, b"{")
    assert client(agent).say(GET).answer()[0] == 200
    assert _words(*slow.answer()) == (408, "the body did not come within 0.2 s")
    assert agent.commands.asked == [("version", {})]


def test_an_answer_that_nobody_takes_is_given_up(serve: Serve, client: Client) -> None:
    agent = serve(Limits(reader_s=0.2), answers={"nodes": {"nodes": "x" * 4_000_000}, "version": {"version": "1"}})
    greedy = client(agent).say(b"GET /v1/nodes HTTP/1.1\r\nHost: gary\r\n\r\n")
    _until(lambda: agent.api.counters().get("readers_too_slow", 0) == 1)
    assert client(agent).say(GET).answer()[0] == 200
    assert len(greedy.hear()) < 1_000_000


class _Drawn(Sequence[dict[str, str]]):
    """A long stream that counts how much of it was asked for."""

    def __init__(self, length: int) -> None:
        self._length = length
        self.drawn = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if index >= self._length:
            raise IndexError
        self.drawn = index + 1
        return {"line": "x" * 10_000}


def test_a_stream_that_nobody_takes_ends_and_its_last_line_says_so(serve: Serve, client: Client) -> None:
    items = _Drawn(100_000)
    agent = serve(Limits(reader_s=0.2), answers={"events": items})
    reader = client(agent).say(FOLLOW)
    _until(lambda: agent.commands.closed == ["events"])
    assert items.drawn < 100, "what nobody takes is not even made"
    heard = reader.hear()
    assert heard.endswith(b"\r\n0\r\n\r\n"), "the end of a whole answer"
    last = heard.removesuffix(b"\r\n0\r\n\r\n").splitlines()[-1]
    error = json.loads(last)["error"]
    assert (error["code"], "for 0.2 s its reader did not take" in error["message"]) == ("timeout", True)
    _until(lambda: agent.api.counters()["streams_open"] == 0)


def test_a_stream_is_read_at_leisure_as_long_as_it_is_read(serve: Serve, client: Client) -> None:
    agent = serve(Limits(reader_s=5.0), answers={"events": _Drawn(300)})
    reader = client(agent).say(FOLLOW)
    assert reader.is_answered(WAIT_S)
    assert reader.hear().count(b'"line"') == 300


def test_one_too_many_is_told_so_until_somebody_goes(serve: Serve, client: Client) -> None:
    agent = serve(Limits(connections_max=3))
    idle = [client(agent) for _ in range(3)]
    assert _words(*client(agent).say(GET).answer()) == (503, "3 connections are open already")
    idle[0].close()
    _until(lambda: client(agent).say(GET).answer()[0] == 200)
    assert agent.api.counters()["connections_refused"] >= 1


def test_a_crowd_does_not_outlast_its_time(serve: Serve, client: Client) -> None:
    agent = serve(Limits(head_s=0.5, farewell_s=0.2, connections_max=20))
    crowd = [client(agent) for _ in range(200)]
    for one in crowd:
        one.hear()
    assert client(agent).say(GET).answer() == (200, {"version": "1"})


def test_a_connection_carries_one_request(serve: Serve, client: Client) -> None:
    agent = serve(PATIENT)
    leave = b"POST /v1/join HTTP/1.1\r\nHost: gary\r\nContent-Length: 25\r\n\r\n" + b'{"peer": "10.0.0.1:7946"}'
    heard = client(agent).say(GET + leave * 5000).hear()
    assert heard.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in heard
    assert agent.commands.asked == [("version", {})]


@pytest.mark.parametrize("separately", [False, True])
def test_what_is_sent_ahead_does_not_hide_that_the_client_has_gone(
    serve: Serve, client: Client, separately: bool
) -> None:
    agent = serve(PATIENT, answers={"events": [{"n": 1}]}, endless=frozenset({"events"}))
    flooding = client(agent)
    if separately:
        flooding.say(FOLLOW)
        assert flooding.is_answered(WAIT_S)
        flooding.say(*[GET * 1000] * 20)
    else:
        flooding.say(FOLLOW + GET * 1000)
        assert flooding.is_answered(WAIT_S)
    flooding.close()
    _until(lambda: agent.commands.closed == ["events"])


def _post(*headers: bytes, body: bytes = b"{}") -> bytes:
    return b"\r\n".join((b"POST /v1/leave HTTP/1.1", b"Host: gary", *headers, b"", body))


def _get(*headers: bytes, target: bytes = b"/v1/version") -> bytes:
    return b"\r\n".join((b"GET %b HTTP/1.1" % target, *headers, b"", b""))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (_get(b"Host: gary", target=b"/" + b"a" * LINE_SIZE_BYTES_MAX), 431),
        (_get(b"Host: gary", b"X: " + b"a" * (LINE_SIZE_BYTES_MAX + 1)), 431),
        (_get(b"Host: gary", b"X" * LINE_SIZE_BYTES_MAX + b": a"), 431),
        (_get(b"Host: gary", *[b"X: a"] * (HEADERS_MAX + 1)), 431),
        (b"GET /" + b"a" * 1_000_000, 431),
        (_post(b"Content-Length: %d" % (BODY_SIZE_BYTES_MAX + 1), body=b" " * (BODY_SIZE_BYTES_MAX + 1)), 413),
    ],
    ids=lambda value: ascii(value[:70]) if isinstance(value, bytes) else str(value),
)
def test_what_is_too_large_is_refused(serve: Serve, client: Client, request_: bytes, status: int) -> None:
    agent = serve(Limits(farewell_s=0.2))
    found, answer = client(agent).say(request_).answer()
    assert (found, answer["error"]["code"]) == (status, "bad_request")
    assert agent.commands.asked == []


def test_whoever_is_turned_away_is_told_why_and_counted(serve: Serve, client: Client) -> None:
    agent = serve(PATIENT)
    foreign = client(agent).say(_get(b"Host: gary", b"Origin: http://evil.example")).answer()
    assert _words(*foreign) == (403, "requests of web pages are refused, and this one has an origin")
    assert foreign[1]["error"]["hint"] == "ask with gary, or with curl"
    assert client(agent).say(b"\0").answer()[0] == 400
    counted = agent.api.counters()
    assert (counted["requests_foreign"], counted["requests_malformed"]) == (1, 1)
    assert agent.commands.asked == []


@pytest.fixture
def metrics(serve: Serve) -> Iterator[Callable[..., tuple[AgentDouble, Callable[[], Raw]]]]:
    """An agent that serves metrics over TCP, and what makes clients of that."""
    with contextlib.ExitStack() as running:

        def start(limits: Limits) -> tuple[AgentDouble, Callable[[], Raw]]:
            with socket.create_server(("127.0.0.1", 0)) as free:
                address = free.getsockname()
            agent = serve(limits, f"{address[0]}:{address[1]}")
            return agent, lambda: running.enter_context(contextlib.closing(Raw(address)))

        yield start


def test_over_tcp_there_are_metrics_and_nothing_else(
    metrics: Callable[..., tuple[AgentDouble, Callable[[], Raw]]],
) -> None:
    agent, client = metrics(PATIENT)
    scraped = client().say(_get(b"Host: rack1-a:9464", target=b"/metrics")).hear()
    assert scraped.startswith(b"HTTP/1.1 200")
    assert scraped.endswith(b"gary_test_metric 1\n")
    for target in (b"/v1/version", b"/v1/deployments", b"/", b"/metrics/"):
        assert client().say(_get(b"Host: rack1-a:9464", target=target)).answer()[0] == 404
    assert client().say(_post(b"Content-Length: 2")).answer()[0] == 404
    assert client().say(_get(b"Host: a", b"Origin: http://a", target=b"/metrics")).answer()[0] == 403
    assert agent.commands.asked == []


def test_a_crowd_over_tcp_does_not_touch_the_socket(
    metrics: Callable[..., tuple[AgentDouble, Callable[[], Raw]]], client: Client
) -> None:
    agent, scraper = metrics(PATIENT)
    crowd = [scraper() for _ in range(METRICS_CONNECTIONS_MAX)]
    assert scraper().answer()[0] == 503
    assert client(agent).say(GET).answer()[0] == 200
    for one in crowd:
        one.close()
    _until(lambda: scraper().say(_get(b"Host: a", target=b"/metrics")).hear().startswith(b"HTTP/1.1 200"))
