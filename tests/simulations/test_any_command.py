"""Whatever an agent is asked, by whomever: no exception, one last answer or an open stream, no change if refused."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gary.agent import PEERS_S, Agent
from gary.effects import Effect
from gary.errors import CommandError, ErrorCode, error_in
from gary.routes import ROUTES
from gary.storage import Stored
from gary.trust.operator import Holder
from simulations.cluster import Cluster
from tests.simulations.support import app, cluster_of, settled

ANSWER_WAIT_S = 45.0
STREAMS = ("logs", "events", "local_logs", "local_events")
OF_NODES = ("version", "clock", "dial_back", "local_events", "report", "local_logs", "order", "summary", "hello")
KEYS_OF_NODES = {
    "report": ("deployment",),
    "local_logs": ("deployment", "slots", "follow", "tail"),
    "local_events": ("app", "follow"),
    "order": ("envelope",),
}
PATH_KEYS = ("app", "node", "invitation")


def _keys(operation: str) -> tuple[str, ...]:
    """The arguments that the operation knows."""
    fields = [field.name for route in ROUTES if route.op == operation for field in (*route.query, *route.body)]
    return (*fields, *KEYS_OF_NODES.get(operation, ()), *PATH_KEYS, "watchword")


OPERATIONS = {operation: _keys(operation) for operation in sorted({*(route.op for route in ROUTES), *OF_NODES, "none"})}

_cluster: list[Cluster] = []


def _at_rest() -> Cluster:
    """Two nodes that keep a deployment between them; the same ones again as long as nothing has changed."""
    if not _cluster:
        _cluster.append(settled(cluster_of(2, seed=1), app(2)))
        _cluster[0].run(PEERS_S)  # Until the peers are written down.
    return _cluster[0]


def _disks(cluster: Cluster) -> list[Stored]:
    return [host.storage.load() for host in cluster.hosts]


@cache
def _plausible() -> tuple[object, ...]:
    """What would make sense somewhere."""
    cluster = _at_rest()
    agents = [host.agent for host in cluster.hosts if host.agent is not None]
    nodes, addresses = [agent.node for agent in agents], [host.address for host in cluster.hosts]
    deployments = [id for agent in agents for id in agent.deployments]
    return (*nodes, *addresses, *deployments, "shop", "web", "web/1", "1", ["web/1"], {"web": 2}, 1, 60.0, 3600, True)


_WILD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["x" * 600, "0" * 64, "0" * 32, "gary1.", "\ud800", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(0, 3), inner),
    max_leaves=6,
)
_VALUES = st.deferred(lambda: st.sampled_from(_plausible())) | _WILD
_QUESTIONS = st.sampled_from(sorted(OPERATIONS)).flatmap(
    lambda operation: st.tuples(
        st.just(operation), st.dictionaries(st.sampled_from(OPERATIONS[operation]), _VALUES, max_size=5)
    )
)
"""Operations with arguments that they know, of values that they may not."""


def _check(cluster: Cluster, operation: str, before: list[Stored], finals: list[CommandError | None]) -> None:
    """``finals``: the final answers that came; None for one that is no error."""
    is_open = operation in STREAMS and not finals
    assert is_open or len(finals) == 1
    failed = finals[0] if finals else None
    if _disks(cluster) != before:
        assert failed is None or failed.code is ErrorCode.TIMEOUT, f"it was refused, and something changed: {failed}"
        _cluster.clear()


def _ask_as_operator(operation: str, arguments: Mapping[str, Any]) -> None:
    """At the node's own socket."""
    cluster = _at_rest()
    host, before = cluster.hosts[0], _disks(cluster)
    number = cluster.post(host, operation, arguments)
    cluster.run_until(lambda: any(reply.last for reply in host.replies[number]), ANSWER_WAIT_S)
    finals = [None if reply.error is None else error_in(reply.error) for reply in host.replies[number] if reply.last]
    cluster.act(host, lambda agent, now: agent.cancel(number, now))
    cluster.run(0.5)
    _check(cluster, operation, before, finals)


def _ask_as_node(operation: str, arguments: Mapping[str, Any]) -> None:
    cluster = _at_rest()
    (host, asker), before = cluster.hosts, _disks(cluster)
    finals: list[CommandError | None] = []

    def heard(item: Mapping[str, Any], last: bool) -> None:
        if last:
            finals.append(None)

    def ask(agent: Agent, now: float) -> list[Effect]:
        requests = agent._here.requests
        requests.ask(host.node, operation, arguments, now, timeout_s=20.0, heard=heard, failed=finals.append)
        return agent._finish()

    cluster.act(asker, ask)
    cluster.run_until(lambda: bool(finals), ANSWER_WAIT_S)
    _check(cluster, operation, before, finals)
    assert operation in OF_NODES or None not in finals, "it was answered what is not for other nodes"


def _order(operation: str, arguments: Mapping[str, Any]) -> None:
    """By way of another node, sealed, of a member of a deployment that lists the operator."""
    cluster = _at_rest()
    (host, relaying), before = cluster.hosts, _disks(cluster)
    assert host.agent is not None
    [deployment] = host.agent.deployments
    holder = Holder(host.node, host.agent._here.key.public, host.agent._here.epoch, host.name)
    finals: list[CommandError | None] = [None]
    try:
        list(cluster.operator(relaying)._send(holder, operation, deployment, arguments, ANSWER_WAIT_S))
    except CommandError as error:
        finals = [error]
    except TimeoutError:
        finals = []
    cluster.run(0.5)
    _check(cluster, operation, before, finals)
    if not finals:
        _cluster.clear()  # Nobody ends this stream.


@settings(max_examples=150)
@given(_QUESTIONS)
def test_whatever_an_operator_asks(question: tuple[str, Mapping[str, Any]]) -> None:
    _ask_as_operator(*question)


@settings(max_examples=150)
@given(_QUESTIONS.filter(lambda question: _can_be_said(question[1])))
def test_whatever_another_node_asks(question: tuple[str, Mapping[str, Any]]) -> None:
    _ask_as_node(*question)


@settings(max_examples=100)
@given(_QUESTIONS.filter(lambda question: _can_be_said(question[1])))
def test_whatever_an_operator_orders_of_a_member(question: tuple[str, Mapping[str, Any]]) -> None:
    _order(*question)


def _can_be_said(arguments: Mapping[str, Any]) -> bool:
    """Whether it can be sent to another node at all."""
    try:
        msgpack.packb(arguments)
    except (ValueError, OverflowError):
        return False
    return True


@pytest.mark.parametrize(
    ("ask", "operation", "arguments"),
    [
        (_ask_as_operator, "release", {"app": "\ud800", "slot": "web/1"}),
        (_ask_as_node, "local_logs", {"slots": 1}),
        (_ask_as_node, "local_logs", {"slots": [1, None, {}]}),
        (_order, "scale", {"services": {"web": 1, 0: 1}}),
        (_order, "logs", {"tail": -1, "service": {}, "index": [0]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_gone_wrong_before(ask: Any, operation: str, arguments: Mapping[str, Any]) -> None:
    agent = _at_rest().hosts[0].agent
    assert agent is not None
    ask(operation, {"app": "shop", "deployment": next(iter(agent.deployments)), **arguments})
