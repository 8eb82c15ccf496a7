"""Whatever comes in at the socket, it gets one answer, which is sound, and nothing is carried out but what was asked.

``corpus/api`` has requests that were of interest once, byte by byte; each file's name begins with the status that it
gets. They are all sent each time, and the random ones are made from them, too.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gary.api import STATUS
from gary.connections import Limits
from gary.routes import ROUTES
from tests.gary.agent_double import AgentDouble, PreparedCommands
from tests.gary.raw_client import Raw

CORPUS = sorted((Path(__file__).parent / "corpus" / "api").glob("*.http"))
STATUSES = {200, 403, 408, 413, 417, 431, *STATUS.values()} - {STATUS[code] for code in STATUS if code == "internal"}
HASTY = Limits(head_s=0.05, body_s=0.05, farewell_s=0.05)

any_request = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def agents() -> Iterator[dict[bool, AgentDouble]]:
    """A hasty one, and one that is patient enough for a busy machine."""
    with tempfile.TemporaryDirectory(prefix="g-") as directory, contextlib.ExitStack() as running:
        yield {
            is_hasty: running.enter_context(
                AgentDouble(Path(directory) / f"s{is_hasty}", PreparedCommands(), limits=limits)
            )
            for is_hasty, limits in ((True, HASTY), (False, Limits(head_s=1.0, body_s=1.0, farewell_s=0.05)))
        }


def _answered(agent: AgentDouble, said: bytes) -> tuple[int, list[str]]:
    """The status that ``said`` got, and the operations that it led to. Fails if the answer is not sound."""
    agent.commands.asked.clear()
    with contextlib.closing(Raw(agent.socket_path)) as client:
        heard = client.say(said).hear()
    while heard.startswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
        heard = heard.partition(b"\r\n\r\n")[2]
    head, end, body = heard.partition(b"\r\n\r\n")
    assert end, "there was an answer"
    first, *lines = head.decode("ascii").split("\r\n")
    version, status, _ = first.split(" ", 2)
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert version in ("HTTP/1.1", "HTTP/1.0") or (version, status) == ("HTTP/0.9", "400")
    assert headers.get("connection", "close") == "close"
    if "content-length" in headers and not said.startswith(b"HEAD"):
        assert len(body) == int(headers["content-length"]), "and nothing after it"
    if headers.get("content-type", "").startswith("application/json") and not said.startswith(b"HEAD"):
        assert isinstance(json.loads(body), dict)
    operations = [operation for operation, _ in agent.commands.asked]
    assert (len(operations) == 1) == (status == "200" and b"gary_test_metric" not in body)
    return int(status), operations


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_a_request_of_the_corpus_is_answered_as_its_name_says(agents: dict[bool, AgentDouble], file: Path) -> None:
    expected = int(file.name[:3])
    status, _ = _answered(agents[expected == 408], file.read_bytes())
    assert status == expected


@any_request
@given(st.binary(max_size=200))
def test_any_bytes_get_an_answer(agents: dict[bool, AgentDouble], said: bytes) -> None:
    assert _answered(agents[True], said)[0] in STATUSES


_BYTES = st.binary(max_size=6) | st.sampled_from([b"\r\n", b"\n", b"\0", b":", b" ", b"%", b"0", b"\r\n\r\n", b"\xff"])


@st.composite
def _mutated(draw: Any) -> bytes:
    """A request of the corpus with something put in, taken out or in place of something else."""
    said: bytes = draw(st.sampled_from(CORPUS)).read_bytes()
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(said)))
        said = said[:start] + draw(_BYTES) + said[start + draw(st.integers(0, 4)) :]
    return said


@any_request
@given(_mutated())
def test_what_is_nearly_a_request_gets_an_answer(agents: dict[bool, AgentDouble], said: bytes) -> None:
    assert _answered(agents[True], said)[0] in STATUSES


_SEGMENT = st.sampled_from(["shop", "a%20b", "%2F", "%", "%zz", "%ED%A0%80", "..", "", "ü", "a" * 300])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_HEADERS = st.sampled_from(
    [
        *("Host: gary", "Host: localhost", "Host: evil.example", "Origin: null", "Sec-Fetch-Site: none", "Accept: */*"),
        *("Expect: 100-continue", "Connection: keep-alive", "Upgrade: h2c", "Content-Type: text/plain", "Cookie: a=b"),
        *("Content-Encoding: gzip", "Content-Encoding: br", "Range: bytes=0-1", "If-Match: *", "TE: trailers"),
    ]
)


@st.composite
def _structured(draw: Any) -> bytes:
    """A request for a route with arguments of any kind, framed as clients do it, or nearly so."""
    route = draw(st.sampled_from(ROUTES))
    path = route.path
    for part in ("{app}", "{node}", "{invitation}"):
        path = path.replace(part, draw(_SEGMENT)) if part in path else path
    names = [field.name for field in (*route.query, *route.body)] or ["x"]
    query = "&".join(f"{name}={draw(_SEGMENT)}" for name in draw(st.lists(st.sampled_from(names), max_size=2)))
    value = draw(st.dictionaries(st.sampled_from(names), _JSON, max_size=3) | _JSON) if route.body else None
    body = b"" if value is None else json.dumps(value).encode()
    length = len(body) + draw(st.sampled_from([0, 0, 0, 0, -1, 1]))
    framing = draw(st.sampled_from([b"Content-Length: %d" % length, b"Transfer-Encoding: chunked", b""]))
    if framing.startswith(b"Transfer"):
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    target = path + (f"?{query}" if query else "")
    lines = [f"{route.method} {target} HTTP/1.1", *draw(st.lists(_HEADERS, max_size=3))]
    return b"\r\n".join([*(line.encode() for line in lines), *([framing] if framing else []), b"", body])


@any_request
@given(_structured())
def test_any_request_for_a_route_gets_its_answer_or_a_refusal(agents: dict[bool, AgentDouble], said: bytes) -> None:
    status, operations = _answered(agents[True], said)
    assert status in STATUSES
    assert set(operations) <= {route.op for route in ROUTES}
