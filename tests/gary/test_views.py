"""What people are shown, from a state, a view and what members reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gary import views
from gary.identity import NodeId
from gary.reconciler import Slate
from gary.runtime.base import Container, ContainerState, Labels, PublishedPort
from gary.spec import Partition
from gary.state import Membership, PromiseState, Role
from tests.gary.facts import G1, G2, A, B, C, D, members, promise, service, spec, state, view

STARTING, FAILING, WITHDRAWN = PromiseState.STARTING, PromiseState.FAILING, PromiseState.WITHDRAWN
TWO = {G1: spec(service(replicas=2))}


def names(node: NodeId) -> str:
    return f"host-{int(node, 16)}"


def report(node: NodeId, *slots: str, **more: Any) -> views.Json:
    ports = (PublishedPort(80, "tcp", "0.0.0.0", 32768),)
    containers = [
        Container(f"c-{slot}", slot, Labels("d", slot, str(G1), "f", node), ContainerState.RUNNING, ports=ports)
        for slot in slots
    ]
    said = views.report(state(), view(node), containers, {}, {}, f"10.0.0.{int(node, 16)}", "")
    return {**said, **more}


@pytest.mark.parametrize(
    ("promised", "expected"),
    [
        (promise(B), "kept"),
        (promise(B, epoch=9), "unknown"),
        (promise(B, state=STARTING), "unknown"),
        (promise(B, state=FAILING), "not kept"),
        (promise(D), "not kept"),
    ],
    ids=["healthy", "of another start", "starting", "failing", "away"],
)
def test_an_assessment_is_what_one_node_concludes(promised: Any, expected: str) -> None:
    assert views.assessment(promised, view(A)) == expected


def test_a_deployment_is_whole_when_each_slot_has_one_healthy_current_keeper_and_members_are_enough() -> None:
    said = state(promise(A), promise(B, "web/2"), specs=TWO)
    assert views.condition(said, view()) == "whole"
    for other in (
        state(promise(A), promise(B, "web/2", state=STARTING), specs=TWO),
        state(promise(A), promise(B, "web/2"), promise(C, "web/2", lamport=2), specs=TWO),
        state(promise(A), promise(B, "web/2"), promise(C, "web/3"), specs=TWO),
        state(promise(A), promise(B, "web/2", yielding=True), specs=TWO),
        state(promise(A), promise(B, "web/2", epoch=3), specs=TWO),
        state(promise(A), promise(B, "web/2"), specs=TWO, members=members(A, B)),
        state(promise(A), promise(B, "web/2"), specs={**TWO, G2: spec(service(image="other:1", replicas=2))}),
    ):
        assert views.condition(other, view()) == "converging"
    for broken in (
        state(promise(A), specs=TWO),
        state(promise(A), promise(D, "web/2"), specs=TWO),
        state(promise(A), promise(B, "web/2", state=FAILING), specs=TWO),
    ):
        assert views.condition(broken, view()) == "degraded"


def test_a_summary_is_one_line() -> None:
    said = state(promise(A), promise(B, "web/2", state=STARTING), specs=TWO)
    assert views.summary(said, view(), "id1", names) == {
        "name": "shop",
        "id": "id1",
        "generation": 1,
        "services": 1,
        "wanted": 2,
        "healthy": 1,
        "state": "converging",
        "members": ["host-1", "host-2", "host-3"],
    }


def test_a_status_shows_each_slot_with_its_container_and_what_nobody_reported_as_unknown() -> None:
    holders = {**members(A, B, D), C: Membership(Role.INVITED, A)}
    said = state(promise(A), promise(B, "web/2"), specs=TWO, members=holders)
    shown = views.status(said, view(left=frozenset()), "id1", names, {A: report(A, "web/1")})
    first, second = shown["slots"]
    assert (first["slot"], first["state"], first["node_name"], first["container"]) == (
        "web/1",
        "healthy",
        "host-1",
        "c-web/1",
    )
    assert first["ports"][0]["host_port"] == 32768
    assert (second["slot"], second["container"], second["ports"]) == ("web/2", None, [])
    assert [(member["name"], member["role"], member["status"]) for member in shown["members"]] == [
        ("host-1", "runner", "alive"),
        ("host-2", "runner", "alive"),
        ("host-3", "invited", "alive"),
        ("host-4", "witness", "down"),
    ]
    assert shown["services"][0]["healthy"] == shown["services"][0]["updated"] == 2
    assert shown["missing"] == []
    assert shown["resilience"] == {"wanted": 3, "have": 2}


def test_a_status_shows_surplus_promises_and_unkept_slots() -> None:
    said = state(promise(A), promise(B, lamport=2), promise(C, "db/1"), promise(D, "web/2"), specs=TWO)
    shown = [(s["slot"], s["state"], s["node"]) for s in views.status(said, view(), "id1", names, {})["slots"]]
    assert shown == [
        ("web/1", "healthy", A),
        ("web/2", "unkept", None),
        ("web/1", "healthy", B),
        ("db/1", "healthy", C),
    ]


def test_a_missing_slot_says_how_many_nodes_declined_and_why() -> None:
    reports = {
        A: report(A, declined={"web/1": {"not enough memory": 2, "no docker runtime": 1}}),
        B: report(B, declined={"web/1": {"not enough memory": 3}}),
    }
    (slot,) = views.status(state(), view(), "id1", names, reports)["missing"]
    assert slot == {
        "slot": "web/1",
        "asked": 4,
        "declined": {"not enough memory": 3, "no docker runtime": 1},
        "detail": "no node could take it",
    }


def test_a_missing_slot_says_what_it_waits_for() -> None:
    def detail(said: Any) -> str:
        return str(views.status(said, view(), "id1", names, {})["missing"][0]["detail"])

    assert detail(state(promise(A, state=FAILING, reason="the container ended with code 1"))) == (
        "the container ended with code 1"
    )
    assert detail(state()) == "a keeper is being looked for"
    hold = {G1: spec(service(partition=Partition.HOLD))}
    reserved = state(promise(D), specs=hold, members=members(A, D))
    assert "gary release" in detail(reserved)
    assert views.status(reserved, view(), "id1", names, {})["slots"][0]["state"] == "held"


def test_promises_show_the_assessment_of_every_member_and_unknown_for_the_silent() -> None:
    said = state(promise(B), promise(C, state=WITHDRAWN))
    reports = {A: report(A, assessments={f"{B}/web/1": "kept"})}
    (shown,) = views.promises(said, names, reports, [A, B])["promises"]
    assert (shown["node_name"], shown["state"], shown["claim"]) == ("host-2", "healthy", "1")
    assert shown["assessments"] == {"host-1": "kept", "host-2": "unknown"}


def test_endpoints_are_where_healthy_slots_of_live_nodes_answer() -> None:
    said = state(promise(A), promise(B, "web/2"), specs=TWO)
    reports = {A: report(A, "web/1"), B: report(B, "web/2")}
    shown = views.endpoints(said, view(), names, reports)["endpoints"]
    assert [(e["slot"], e["address"], e["port"]) for e in shown] == [
        ("web/1", "10.0.0.1", 32768),
        ("web/2", "10.0.0.2", 32768),
    ]
    dead = views.endpoints(said, view(A, alive=[A]), names, reports)["endpoints"]
    assert [e["slot"] for e in dead] == ["web/1"]
    failing = replace(said, promises=(promise(A, state=FAILING), promise(B, "web/2")))
    assert [e["slot"] for e in views.endpoints(failing, view(), names, reports)["endpoints"]] == ["web/2"]


def test_an_endpoint_of_one_host_address_keeps_it() -> None:
    own = report(A, "web/1")
    own["containers"][0]["ports"][0]["host_ip"] = "127.0.0.1"
    (shown,) = views.endpoints(state(promise(A)), view(), names, {A: own})["endpoints"]
    assert shown["address"] == "127.0.0.1"


def test_a_report_has_what_only_its_node_knows() -> None:
    slates = {"web/1": Slate(restarts=3, reason="the container ended with code 1"), "web/2": Slate()}
    said = views.report(
        state(promise(B)), view(A), [], slates, {"web/3": {"not enough CPU": 1}}, "10.0.0.1", "disk full"
    )
    assert said == {
        "containers": [],
        "restarts": {"web/1": 3},
        "reasons": {"web/1": "the container ended with code 1"},
        "assessments": {f"{B}/web/1": "kept"},
        "declined": {"web/3": {"not enough CPU": 1}},
        "address": "10.0.0.1",
        "trouble": "disk full",
    }


def test_reports_that_say_nothing_do_no_harm() -> None:
    said = state(promise(A), promise(B, "web/2"), specs=TWO)
    nothing: dict[NodeId, views.Json] = {A: {}, B: {}}
    assert views.endpoints(said, view(), names, nothing) == {"endpoints": []}
    assert len(views.status(said, view(), "id1", names, nothing)["slots"]) == 2
