"""Operators and their keys: commands from anywhere, for those who may give them, and nothing to see for others."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import pytest

from gary.errors import CommandError, ErrorCode
from gary.spec import Constraint, Spec, to_json
from gary.trust.keys import KeyPair
from gary.trust.orders import WINDOW_S
from simulations.cluster import Cluster, Watcher
from simulations.host import Host
from tests.simulations.support import SEEDS, Safely, app, cluster_of, runs, settled

seeds = pytest.mark.parametrize("seed", SEEDS)
OTHER = KeyPair(b"another operator's key, 32 bytes")
CANARIES = {"name": "canaryname", "image": "canaryimage", "value": "canaryvalue", "command": "canarycommand"}

COMMANDS: list[tuple[str, Mapping[str, Any]]] = [
    ("status", {}),
    ("promises", {}),
    ("endpoints", {}),
    ("scale", {"services": {"web": 3}}),
    ("release", {"slot": "web/1"}),
    ("logs", {}),
    ("events", {}),
    ("grant", {"operator": f"{'0' * 64}:{'0' * 32}"}),
    ("remove", {}),
]


def canary_app(replicas: int = 2) -> Spec:
    return app(
        replicas,
        name=CANARIES["name"],
        resilience=2,
        image=CANARIES["image"],
        command=(CANARIES["command"],),
        environment=(("SECRET", CANARIES["value"]),),
        constraints=(Constraint("node.labels.zone", False, "z2"),),
    )


def two_members(seed: int, spec: Spec, *watchers: Watcher) -> tuple[Cluster, list[Host], list[Host]]:
    """A cluster in which two hosts of six hold ``spec``; those two, and the others."""
    cluster = cluster_of(6, seed)
    cluster.watch(*watchers)
    settled(cluster, spec)
    cluster.run(60.0)
    members = [host for host in cluster.hosts if host.agent is not None and host.agent.deployments]
    assert len(members) == 2
    return cluster, members, [host for host in cluster.hosts if host not in members]


def commands(cluster: Cluster, host: Host, key: KeyPair, operation: str, arguments: Mapping[str, Any]) -> list[Any]:
    return list(cluster.operator(host, key).command(operation, arguments))


def refusal(cluster: Cluster, host: Host, key: KeyPair, operation: str, arguments: Mapping[str, Any]) -> CommandError:
    with pytest.raises(CommandError) as refused:
        commands(cluster, host, key, operation, arguments)
    return refused.value


def documents(cluster: Cluster) -> list[object]:
    """All that is held anywhere, in memory and on disks, and what runs."""
    live = [host.agent for host in cluster.live() if host.agent is not None]
    held = [(id, d.document.replica.heads()) for agent in live for id, d in sorted(agent.deployments.items())]
    return [held, cluster.started(), [host.storage.load().documents for host in cluster.hosts]]


def counted(cluster: Cluster, what: str) -> int:
    return sum(host.agent.counters[what] for host in cluster.live() if host.agent is not None)


def told(cluster: Cluster, kind: str) -> list[str]:
    return [e.message for host in cluster.live() if host.agent for e in host.agent.events if e.kind == kind]


# What a node in between sees


@seeds
def test_a_node_in_between_sees_nothing_of_what_it_passes_on_and_keeps_nothing(seed: int) -> None:
    safety = Safely(*(word.encode() for word in CANARIES.values()))
    cluster = cluster_of(6, seed)
    cluster.watch(safety)
    settled(cluster, canary_app())
    cluster.run(60.0)
    relaying = cluster.hosts[5]
    assert relaying.labels["zone"] == "z2"
    name = CANARIES["name"]
    for operation, arguments in COMMANDS[:3]:
        assert name in str(cluster.answer(relaying, "status", {"app": name}))
        assert cluster.answer(relaying, operation, {"app": name, **arguments})
    assert [row["name"] for row in cluster.answer(relaying, "ps")["deployments"]] == [name]
    # Each time some member answers, and one that has only guarded the document so far has no event about it.
    told = [item for _ in range(8) for item in cluster.operator(relaying).command("events", {"app": name})]
    assert any(item.get("deployment") == name for item in told)
    assert cluster.answer(relaying, "deploy", {"spec": to_json(canary_app(3))})["generation"] == 2
    assert cluster.answer(relaying, "scale", {"app": name, "services": {"web": 4}})["generation"] == 3
    cluster.answer(relaying, "grant", {"app": name, "operator": cluster.operator(relaying, OTHER).credential(name)})
    assert relaying.agent is not None
    assert relaying.agent.counters["requests_refused"] == 0
    assert not relaying.agent.deployments
    assert not {word for word in CANARIES.values() if word.encode() in memory(relaying.agent)}
    member = next(host.agent for host in cluster.live() if host.agent is not None and host.agent.deployments)
    assert all(word.encode() in memory(member) for word in CANARIES.values()), "the search finds what is there"
    assert safety.violations == []


def memory(root: object) -> bytes:
    """Every text and all bytes that can be reached from an object, but for the code that it runs."""
    seen: set[int] = set()
    found: list[bytes] = []
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, ModuleType | type):
            continue
        seen.add(id(one))
        if isinstance(one, str | bytes | bytearray):
            found.append(one.encode() if isinstance(one, str) else bytes(one))
        waiting.extend(_reached(one))
    return b"\0".join(found)


def _reached(one: object) -> Iterator[object]:
    if isinstance(one, FunctionType):
        yield from (cell.cell_contents for cell in one.__closure__ or ())
        yield one.__defaults__
    else:
        yield from gc.get_referents(one)


def test_safety_sees_a_node_in_between_that_is_shown_something() -> None:
    cluster = cluster_of(3, 1)
    safety = Safely(CANARIES["name"].encode())
    cluster.watch(safety)
    with pytest.raises(CommandError):
        list(cluster.operator(cluster.hosts[0])._ask("status", {"app": CANARIES["name"]}))
    assert "answers at its socket" in safety.pop()


# Who may


@seeds
def test_who_is_not_listed_may_nothing_and_is_told_which_key_it_was(seed: int) -> None:
    cluster, members, others = two_members(seed, app(2, resilience=2))
    before = documents(cluster)
    for operation, arguments in COMMANDS:
        refused = refusal(cluster, others[0], OTHER, operation, {"app": "shop", **arguments})
        assert refused.code is ErrorCode.REFUSED
        assert OTHER.public.hex() in refused.message
        assert "gary grant" in refused.hint
        cluster.run(10.0)
    spec = to_json(app(5, resilience=2))
    assert refusal(cluster, others[0], OTHER, "deploy", {"spec": spec}).code is ErrorCode.REFUSED
    assert documents(cluster) == before
    assert counted(cluster, "orders_refused") == 2 * (len(COMMANDS) + 1)
    refusals = told(cluster, "order")
    assert refusals
    assert all(OTHER.public.hex() in words for words in refusals)
    (answer,) = commands(cluster, others[0], OTHER, "ps", {})
    assert (answer["deployments"], len(answer["withheld"])) == ([], 1)
    assert cluster.answer(members[0], "status", {"app": "shop"})["state"] == "whole"


@seeds
def test_who_is_refused_all_the_time_fills_no_log(seed: int) -> None:
    cluster, _, others = two_members(seed, app(2, resilience=2))
    for _ in range(50):
        refusal(cluster, others[0], OTHER, "status", {"app": "shop"})
    assert counted(cluster, "orders_refused") == 100
    assert len(told(cluster, "order")) <= 4


@seeds
def test_a_key_that_was_granted_may_command_until_it_is_revoked(seed: int) -> None:
    cluster, _, others = two_members(seed, app(2, resilience=2))
    credential = cluster.operator(others[0], OTHER).credential("shop")
    cluster.answer(others[1], "grant", {"app": "shop", "operator": credential})
    cluster.run(1.0)
    assert commands(cluster, others[0], OTHER, "status", {"app": "shop"})[0]["state"] == "whole"
    assert commands(cluster, others[0], OTHER, "scale", {"app": "shop", "services": {"web": 3}})
    assert cluster.run_until(lambda: runs(cluster, 3), 10.0)
    commands(cluster, others[0], OTHER, "grant", {"app": "shop", "operator": credential, "revoke": True})
    cluster.run(1.0)
    assert refusal(cluster, others[0], OTHER, "status", {"app": "shop"}).code is ErrorCode.REFUSED
    assert told(cluster, "grant")


@seeds
def test_the_only_key_is_not_revoked_from_afar_but_by_the_socket_of_a_member(seed: int) -> None:
    cluster, members, others = two_members(seed, app(2, resilience=2))
    own = {"app": "shop", "operator": cluster.operator_key.public.hex(), "revoke": True}
    refused = refusal(cluster, others[0], cluster.operator_key, "grant", own)
    assert refused.code is ErrorCode.REFUSED
    assert "only key" in refused.message
    cluster.answer(members[0], "grant", own)
    cluster.run(1.0)
    assert refusal(cluster, others[0], cluster.operator_key, "status", {"app": "shop"}).code is ErrorCode.REFUSED
    assert cluster.answer(members[1], "status", {"app": "shop"})["state"] == "whole"


@seeds
def test_a_deployment_without_operators_is_commanded_by_its_members_sockets_alone(seed: int) -> None:
    cluster = cluster_of(5, seed)
    number = cluster.post(cluster.hosts[0], "deploy", {"spec": to_json(app(2, resilience=2))})
    assert cluster.run_until(lambda: bool(cluster.hosts[0].replies[number]), 10.0)
    cluster.run(60.0)
    members = [host for host in cluster.hosts if host.storage.load().documents]
    outside = next(host for host in cluster.hosts if host not in members)
    assert refusal(cluster, outside, cluster.operator_key, "status", {"app": "shop"}).code is ErrorCode.REFUSED
    assert cluster.answer(members[0], "scale", {"app": "shop", "services": {"web": 3}})
    credential = cluster.operator(members[0]).credential("shop")
    cluster.answer(members[0], "grant", {"app": "shop", "operator": credential})
    cluster.run(1.0)
    assert cluster.answer(outside, "status", {"app": "shop"})


@pytest.mark.parametrize(
    "given", ["", "x", "0" * 64, f"{'0' * 64}:", f"{'0' * 63}g:{'0' * 32}", f"{'A' * 64}:{'0' * 32}"]
)
def test_what_is_no_credential_is_not_granted(given: str) -> None:
    cluster = settled(cluster_of(3, 1), app(2))
    reply = cluster.command(cluster.hosts[0], "grant", {"app": "shop", "operator": given})
    assert reply.error is not None
    assert reply.error["error"]["code"] == "bad_request"  # type: ignore[index]


@seeds
def test_grants_last_over_epochs_restarts_and_the_death_of_those_who_wrote_them(seed: int) -> None:
    cluster = settled(cluster_of(5, seed, changes_per_epoch=20), app(3))
    credential = cluster.operator(cluster.hosts[0], OTHER).credential("shop")
    cluster.answer(cluster.hosts[0], "grant", {"app": "shop", "operator": credential})
    for replicas in (4, 5, 6, 5, 4, 3, 4, 5):
        cluster.answer(cluster.hosts[0], "scale", {"app": "shop", "services": {"web": replicas}})
        assert cluster.run_until(lambda count=replicas: runs(cluster, count), 20.0)  # type: ignore[misc]
        cluster.run(2.0)
    assert counted(cluster, "epochs_begun")
    cluster.kill(cluster.hosts[0])
    for host in cluster.live():
        cluster.restart(host)
    assert cluster.run_until(lambda: runs(cluster, 5), 30.0)
    cluster.run(5.0)
    for host in cluster.live():
        assert commands(cluster, host, OTHER, "status", {"app": "shop"})[0]["state"] == "whole"


@seeds
def test_what_is_followed_goes_on_however_long_nothing_happens(seed: int) -> None:
    cluster, members, others = two_members(seed, app(2, resilience=2))
    number = cluster.post(members[0], "events", {"app": "shop", "follow": True})
    cluster.run(60.0)
    past = len(members[0].replies[number])
    credential = cluster.operator(others[0], OTHER).credential("shop")
    for host in members:
        cluster.answer(host, "grant", {"app": "shop", "operator": credential})
        cluster.run(1.0)
    heard = [reply.item for reply in members[0].replies[number][past:]]
    assert [item["node"] for item in heard if item.get("kind") == "grant"] == [host.node for host in members]


# Clocks and lives


@seeds
def test_an_operator_whose_clock_is_wrong_is_told_so(seed: int) -> None:
    cluster, members, others = two_members(seed, app(2, resilience=2))
    others[0].wall_skew_s = -WINDOW_S - 60
    refused = refusal(cluster, others[0], cluster.operator_key, "status", {"app": "shop"})
    assert "6 minutes ago" in refused.message
    assert "clock" in refused.hint
    others[0].wall_skew_s = WINDOW_S - 5
    assert cluster.answer(others[0], "status", {"app": "shop"})
    assert cluster.answer(members[0], "status", {"app": "shop"})


@seeds
def test_when_one_holder_is_dead_or_has_just_started_anew_another_one_answers(seed: int) -> None:
    cluster, members, others = two_members(seed, app(2, resilience=2))
    cluster.restart(members[0])
    assert cluster.answer(others[0], "status", {"app": "shop"})
    cluster.kill(members[0])
    assert cluster.answer(others[0], "status", {"app": "shop"})
