"""The API on a real unix socket, in front of prepared commands."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gary.api import BODY_SIZE_BYTES_MAX, STATUS, STREAMS_MAX
from gary.errors import CommandError, ErrorCode, SocketUnusable
from gary.metrics import Metrics
from tests.gary.agent_double import AgentDouble, PreparedCommands


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentDouble]:
    with AgentDouble(tmp_path_factory.mktemp("agent") / "agent.sock", PreparedCommands()) as agent:
        yield agent


@pytest.fixture
def commands(agent: AgentDouble) -> PreparedCommands:
    agent.commands.answers = {}
    agent.commands.endless = frozenset()
    agent.commands.asked.clear()
    agent.commands.closed.clear()
    return agent.commands


def _ask(agent: AgentDouble, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = _Connection(agent.socket_path)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _ask_json(agent: AgentDouble, method: str, path: str, body: object = None) -> tuple[int, Any]:
    status, answer = _ask(agent, method, path, None if body is None else json.dumps(body).encode())
    return status, json.loads(answer)


@pytest.mark.parametrize(
    ("method", "path", "body", "op", "args"),
    [
        ("GET", "/v1/version", None, "version", {}),
        ("GET", "/v1/nodes", None, "nodes", {}),
        ("GET", "/v1/deployments", None, "ps", {}),
        (
            "POST",
            "/v1/deployments",
            {"spec": {"name": "a"}, "dry_run": True},
            "deploy",
            {"spec": {"name": "a"}, "dry_run": True, "replace": False, "operator": None},
        ),
        ("GET", "/v1/deployments/a%20b", None, "status", {"app": "a b"}),
        ("DELETE", "/v1/deployments/app", None, "remove", {"app": "app"}),
        ("GET", "/v1/deployments/app/promises", None, "promises", {"app": "app"}),
        ("GET", "/v1/deployments/app/endpoints", None, "endpoints", {"app": "app"}),
        (
            "POST",
            "/v1/deployments/app/scale",
            {"services": {"web": 3}},
            "scale",
            {"app": "app", "services": {"web": 3}},
        ),
        ("POST", "/v1/deployments/app/release", {"slot": "web/1"}, "release", {"app": "app", "slot": "web/1"}),
        ("GET", "/v1/deployments/~0f/holders", None, "holders", {"app": "~0f"}),
        (
            "POST",
            "/v1/deployments/app/grant",
            {"operator": "k:w"},
            "grant",
            {"app": "app", "operator": "k:w", "revoke": False},
        ),
        ("POST", "/v1/join", {"peer": "10.0.0.1:7946"}, "join", {"peer": "10.0.0.1:7946", "token": None}),
        ("POST", "/v1/join", {"token": "gary1.abc"}, "join", {"peer": None, "token": "gary1.abc"}),
        ("GET", "/v1/invitations", None, "invitations", {}),
        ("POST", "/v1/invitations", {"uses": 2}, "invite", {"uses": 2, "expires_s": 3600, "vouch": True}),
        ("DELETE", "/v1/invitations/3f9a", None, "revoke", {"invitation": "3f9a"}),
        ("POST", "/v1/nodes/node-b/expel", None, "expel", {"node": "node-b"}),
        ("POST", "/v1/rotate", {"urgent": True}, "rotate", {"overlap_s": 604_800.0, "urgent": True}),
        ("POST", "/v1/operators", {"key": "ab" * 32}, "admit", {"key": "ab" * 32}),
    ],
)
def test_each_route_calls_its_operation_with_checked_arguments(
    agent: AgentDouble,
    commands: PreparedCommands,
    method: str,
    path: str,
    body: object,
    op: str,
    args: dict[str, object],
) -> None:
    commands.answers = {op: {"answer": op}}
    assert _ask_json(agent, method, path, body) == (200, {"answer": op})
    assert commands.asked == [(op, args)]


@pytest.mark.parametrize(
    ("method", "path", "op", "args"),
    [
        (
            "GET",
            "/v1/deployments/app/logs?service=web&index=2&follow=1&tail=5",
            "logs",
            {"app": "app", "service": "web", "index": "2", "follow": True, "tail": 5},
        ),
        (
            "GET",
            "/v1/deployments/app/logs",
            "logs",
            {"app": "app", "service": None, "index": None, "follow": False, "tail": None},
        ),
        ("GET", "/v1/events?app=app", "events", {"app": "app", "follow": False}),
        ("POST", "/v1/leave", "leave", {"timeout_s": 120.0}),
    ],
)
def test_each_stream_is_one_object_a_line(
    agent: AgentDouble, commands: PreparedCommands, method: str, path: str, op: str, args: dict[str, object]
) -> None:
    commands.answers = {op: [{"n": 1}, {"n": 2}]}
    assert _ask(agent, method, path) == (200, b'{"n": 1}\n{"n": 2}\n')
    assert commands.asked == [(op, args)]
    assert commands.closed == [op]


@pytest.mark.parametrize("code", list(ErrorCode))
def test_an_error_has_the_status_of_its_code_and_says_what_to_do(
    agent: AgentDouble, commands: PreparedCommands, code: ErrorCode
) -> None:
    commands.answers = {
        "ps": CommandError(code, "why", "what to do"),
        "events": [CommandError(code, "why", "what to do")],
    }
    expected = (STATUS[code], {"error": {"code": code.value, "message": "why", "hint": "what to do"}})
    assert _ask_json(agent, "GET", "/v1/deployments") == expected
    assert _ask_json(agent, "GET", "/v1/events") == expected


def test_an_error_in_the_middle_of_a_stream_is_its_last_line(agent: AgentDouble, commands: PreparedCommands) -> None:
    commands.answers = {"events": [{"n": 1}, CommandError(ErrorCode.UNAVAILABLE, "gone")]}
    status, body = _ask(agent, "GET", "/v1/events")
    assert status == 200
    assert [json.loads(line) for line in body.splitlines()] == [
        {"n": 1},
        {"error": {"code": "unavailable", "message": "gone", "hint": ""}},
    ]


def test_a_fault_of_ours_is_an_internal_error_and_tells_no_details(
    agent: AgentDouble, commands: PreparedCommands, caplog: pytest.LogCaptureFixture
) -> None:
    commands.answers = {"ps": ZeroDivisionError("secret"), "events": [{"n": 1}, ZeroDivisionError("secret")]}
    status, body = _ask(agent, "GET", "/v1/deployments")
    assert status == 500
    assert b"secret" not in body
    status, body = _ask(agent, "GET", "/v1/events")
    assert json.loads(body.splitlines()[-1])["error"]["code"] == "internal"
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/v2/nodes"), ("PUT", "/v1/nodes"), ("POST", "/v1/nodes"), ("DELETE", "/metrics")],
)
def test_what_does_not_exist_is_a_404_in_json(
    agent: AgentDouble, commands: PreparedCommands, method: str, path: str
) -> None:
    status, body = _ask_json(agent, method, path)
    assert (status, body["error"]["code"]) == (404, "not_found")
    assert _ask(agent, "HEAD", "/v1/nodes") == (404, b"")
    assert commands.asked == []


@pytest.mark.parametrize(
    ("method", "path", "body", "says"),
    [
        ("POST", "/v1/deployments", b"{", "not JSON"),
        ("POST", "/v1/deployments", b"[]", "not a JSON object"),
        ("POST", "/v1/deployments", b"\xff", "not JSON"),
        ("POST", "/v1/deployments", b"[" * 100_000, "nested too deeply"),
        ("POST", "/v1/deployments", b'{"spec": NaN}', "NaN"),
        ("POST", "/v1/deployments", b'{"spec": {"a": "\\ud800"}}', "not JSON"),
        ("POST", "/v1/deployments", b"", "'spec' is missing"),
        (
            "POST",
            "/v1/deployments",
            b'{"spec": 1, "dryrun": true}',
            "'dryrun' is not known; body: 'spec' must be an object",
        ),
        ("POST", "/v1/deployments/a/scale", b'{"services": {"web": -1}}', "0 or more"),
        ("POST", "/v1/deployments/a/scale", b'{"services": {"web": true}}', "0 or more"),
        ("POST", "/v1/deployments/a/release", b'{"slot": ""}', "'slot' must be"),
        ("POST", "/v1/join", b'{"peer": "nowhere"}', "HOST:PORT"),
        ("POST", "/v1/leave", b'{"timeout_s": 1e9}', "at most a day"),
        ("GET", "/v1/nodes?x=1", None, "'x' is not known"),
        ("GET", "/v1/nodes", b"{}", "none is expected"),
        ("GET", "/v1/events?follow=perhaps", None, "true or false"),
        ("GET", "/v1/deployments/a/logs?tail=-1", None, "0 or more"),
        ("GET", "/v1/deployments/%00", None, "printable"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_all_that_is_wrong(
    agent: AgentDouble, commands: PreparedCommands, method: str, path: str, body: bytes | None, says: str
) -> None:
    status, answer = _ask(agent, method, path, body)
    error = json.loads(answer)["error"]
    assert (status, error["code"]) == (400, "bad_request")
    assert says in error["message"]
    assert commands.asked == []


def test_a_body_over_the_limit_is_refused(agent: AgentDouble, commands: PreparedCommands) -> None:
    body = b'{"spec": {"a": "' + b"x" * BODY_SIZE_BYTES_MAX + b'"}}'
    status, answer = _ask(agent, "POST", "/v1/deployments", body)
    assert (status, json.loads(answer)["error"]["code"]) == (413, "bad_request")
    assert commands.asked == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_BODIES = st.binary(max_size=60) | st.one_of(
    _JSON,
    st.dictionaries(st.sampled_from(["spec", "dry_run", "replace", "services", "slot", "peer", "timeout_s"]), _JSON),
).map(lambda value: json.dumps(value).encode())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(
        ["/v1/deployments", "/v1/deployments/a/scale", "/v1/deployments/a/release", "/v1/join", "/v1/leave"]
    ),
    _BODIES,
)
def test_any_body_is_carried_out_or_refused_in_json(
    agent: AgentDouble, commands: PreparedCommands, path: str, body: bytes
) -> None:
    status, answer = _ask(agent, "POST", path, body)
    assert status in (200, 400)
    for line in answer.splitlines():
        assert isinstance(json.loads(line), dict)


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_followed_stream_ends_when_its_client_goes_away(agent: AgentDouble, commands: PreparedCommands) -> None:
    commands.answers = {"events": [{"n": 1}]}
    commands.endless = frozenset({"events"})
    connection = _Connection(agent.socket_path)
    connection.request("GET", "/v1/events?follow=1")
    response = connection.getresponse()
    assert response.readline() == b'{"n": 1}\n'
    response.close()
    connection.close()
    _wait_for(lambda: commands.closed == ["events"])


def test_a_stream_with_nothing_to_say_yet_answers_all_the_same(agent: AgentDouble, commands: PreparedCommands) -> None:
    commands.endless = frozenset({"events"})
    connection = _Connection(agent.socket_path)
    connection.request("GET", "/v1/events?follow=1")
    response = connection.getresponse()
    assert (response.status, commands.closed) == (200, [])
    response.close()
    _wait_for(lambda: commands.closed == ["events"])


def test_streams_are_bounded(agent: AgentDouble, commands: PreparedCommands) -> None:
    commands.answers = {"events": [{"n": 1}]}
    commands.endless = frozenset({"events"})
    open_ = []
    for _ in range(STREAMS_MAX):
        connection = _Connection(agent.socket_path)
        connection.request("GET", "/v1/events?follow=1")
        open_.append(connection.getresponse())
        assert open_[-1].status == 200
    assert _ask(agent, "GET", "/v1/events")[0] == 503
    for response in open_:
        response.close()
    _wait_for(lambda: agent.api.counters()["streams_open"] == 0)


def test_metrics_are_served_on_the_socket_and_over_tcp_when_asked(tmp_path: Path, agent: AgentDouble) -> None:
    assert _ask(agent, "GET", "/metrics") == (200, b"gary_test_metric 1\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with AgentDouble(tmp_path / "s", PreparedCommands(), f"127.0.0.1:{port}"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/metrics")
        assert connection.getresponse().read() == b"gary_test_metric 1\n"
        connection.request("GET", "/v1/version")
        assert connection.getresponse().status == 404
        connection.close()


def test_the_socket_is_for_its_owner_and_group_and_goes_with_the_agent(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with AgentDouble(path, PreparedCommands()):
        assert path.stat().st_mode & 0o777 == 0o660
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with AgentDouble(path, PreparedCommands(answers={"version": {"version": "1"}})) as first:
        with pytest.raises(SocketUnusable, match="answers"), AgentDouble(path, PreparedCommands()):
            pass
        assert _ask(first, "GET", "/v1/version")[0] == 200


def test_a_file_in_the_socket_s_place_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    path.write_text("precious")
    with pytest.raises(SocketUnusable, match="not a socket"), AgentDouble(path, PreparedCommands()):
        pass
    assert path.read_text() == "precious"


def test_metrics_are_read_from_the_subsystems_when_scraped() -> None:
    metrics = Metrics()
    counts = {"frames_dropped": 1}
    metrics.add_counters("gossip", lambda: counts)
    metrics.add_gauges("gossip", lambda: {"members": 5, "queue.bytes": 2.5})
    counts["frames_dropped"] = 7
    text = metrics.render().decode()
    assert "\ngary_gossip_frames_dropped_total 7.0\n" in text
    assert "\ngary_gossip_members 5.0\n" in text
    assert "\ngary_gossip_queue_bytes 2.5\n" in text
    assert "process_resident_memory_bytes" in text
