"""What a service needs, who can give it, and how slots are spread over those who offered."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.messages import CallForVolunteers, encode
from gary.spec import Constraint, Healthcheck, Mode, Mount, MountType, Port, Resources, RuntimeName, Service
from gary.volunteering import (
    DEFAULT_CPUS,
    DEFAULT_MEMORY_BYTES,
    Call,
    Requirement,
    Room,
    Vacancy,
    after,
    distribute,
    per_node_max,
    refusal,
    requirement,
    sample,
    unmet_constraint,
)
from tests.gary.facts import NODES, A, B, C, room, service

NEEDED = Requirement(RuntimeName.DOCKER, 1.0, 100, ((80, "tcp"),), (Constraint("node.labels.disk", True, "ssd"),))
FITTING = room(labels={"disk": "ssd"}, free_cpus=1.0, free_memory_bytes=100, free_containers=1)


def vacancies(count: int, one: Service, barred: frozenset[str] = frozenset()) -> list[Vacancy]:
    return [Vacancy(f"{one.name}/{number}", one, barred) for number in range(1, count + 1)]


# Requirements


def test_a_container_without_resources_counts_with_a_default_and_never_more_than_its_limit() -> None:
    assert requirement(service()) == Requirement(RuntimeName.DOCKER, DEFAULT_CPUS, DEFAULT_MEMORY_BYTES)
    small = requirement(service(resources=Resources(limit_cpus=0.01, limit_memory_bytes=1000)))
    assert (small.cpus, small.memory_bytes) == (0.01, 1000)
    reserved = requirement(service(resources=Resources(reserve_cpus=2.0, reserve_memory_bytes=5, limit_cpus=4.0)))
    assert (reserved.cpus, reserved.memory_bytes) == (2.0, 5)


def test_only_fixed_host_ports_are_required() -> None:
    ports = (Port(443, host=443), Port(80), Port(53, "udp", host=53))
    assert requirement(service(ports=ports)).ports == ((53, "udp"), (443, "tcp"))


CANARY = "canary-7f3a"


def test_a_call_shows_requirements_and_nothing_else() -> None:
    secretive = Service(
        name=CANARY,
        image=CANARY,
        command=(CANARY,),
        entrypoint=(CANARY,),
        environment=((CANARY, CANARY),),
        labels=((CANARY, CANARY),),
        mounts=(Mount(MountType.BIND, f"/{CANARY}", f"/{CANARY}"),),
        user=CANARY,
        working_dir=CANARY,
        healthcheck=Healthcheck(("CMD", CANARY)),
        constraints=(Constraint("node.labels.disk", True, "ssd"),),
        ports=(Port(80, host=8080),),
    )
    payload = encode(CallForVolunteers(1, A, (requirement(secretive),)))
    assert CANARY.encode() not in payload
    said = msgpack.unpackb(payload)
    assert said == [
        3,
        1,
        A,
        [["docker", DEFAULT_CPUS, DEFAULT_MEMORY_BYTES, [[8080, "tcp"]], [["node.labels.disk", True, "ssd"]]]],
    ]


# Refusals


def test_a_node_with_just_enough_room_takes_it() -> None:
    assert refusal(NEEDED, FITTING) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"accepting": False}, "the node is draining"),
        ({"runtimes": ("process",)}, "no docker runtime"),
        ({"labels": {"disk": "hdd"}}, "constraint node.labels.disk == ssd is not satisfied"),
        ({"labels": {}}, "constraint node.labels.disk == ssd is not satisfied"),
        ({"free_containers": 0}, "no room for another container"),
        ({"free_cpus": 0.99}, "not enough CPU"),
        ({"free_memory_bytes": 99}, "not enough memory"),
        ({"ports": frozenset({(80, "tcp")})}, "host port 80/tcp is taken"),
    ],
)
def test_a_node_that_cannot_take_it_says_why(change: dict[str, object], reason: str) -> None:
    given_room: dict[str, Any] = {"labels": {"disk": "ssd"}, **change}
    assert refusal(NEEDED, room(**given_room)) == reason


def test_a_port_of_another_protocol_is_free() -> None:
    assert refusal(NEEDED, room(labels={"disk": "ssd"}, ports=frozenset({(80, "udp")}))) is None


def test_any_runtime_will_do_where_the_service_does_not_care() -> None:
    anywhere = Requirement(RuntimeName.ANY, 0.1, 1)
    assert refusal(anywhere, room(runtimes=("process",))) is None
    assert refusal(anywhere, room(runtimes=())) == "no runtime answers there"


@pytest.mark.parametrize(
    ("attribute", "value", "is_so"),
    [
        ("node.id", A, True),
        ("node.id", B, False),
        ("node.hostname", "host-a", True),
        ("node.hostname", "host-b", False),
        ("node.labels.zone.east", "1", True),
        ("node.labels.nothing", "1", False),
        ("node.labels.nothing", "", True),
    ],
)
def test_constraints_compare_what_the_node_says_of_itself(attribute: str, value: str, is_so: bool) -> None:
    here = room(A, hostname="host-a", labels={"zone.east": "1"})
    assert (unmet_constraint([Constraint(attribute, True, value)], here) is None) is is_so
    assert (unmet_constraint([Constraint(attribute, False, value)], here) is None) is not is_so


# Spreading


@pytest.mark.parametrize(("slots", "nodes"), [(20, 5), (8, 8), (21, 5), (3, 5)])
def test_slots_are_spread_evenly(slots: int, nodes: int) -> None:
    rooms = [room(node, free_containers=100 - place) for place, node in enumerate(NODES[:nodes])]
    found = distribute(vacancies(slots, service()), rooms, {}, frozenset({A}))
    counts = sorted(len(found.invited.get(node, ())) for node in NODES[:nodes])
    assert sum(counts) == slots
    assert counts[-1] - counts[0] <= 1


def test_what_nodes_keep_already_counts() -> None:
    kept = {A: ["web/1", "web/2"], B: ["db/1", "db/2"], C: ["web/3"]}
    one = [Vacancy("web/9", service())]
    rooms = [room(node) for node in (A, B, C)]
    assert distribute(one, rooms, kept, frozenset()).invited == {B: ("web/9",)}
    assert distribute(one, rooms[::2], kept, frozenset()).invited == {C: ("web/9",)}


def test_a_member_comes_first_where_spread_allows() -> None:
    rooms = [room(A), room(B), room(C)]
    assert distribute([Vacancy("web/1", service())], rooms, {}, frozenset({B})).invited == {B: ("web/1",)}


def test_a_fixed_host_port_and_the_limit_per_node_bound_the_replicas_of_a_node() -> None:
    fixed = service(ports=(Port(80, host=80),))
    assert per_node_max(service()) == 0
    assert per_node_max(fixed) == 1
    assert per_node_max(service(replicas_per_node_max=2)) == 2
    assert per_node_max(service(replicas_per_node_max=2, ports=(Port(80, host=80),))) == 1
    rooms = [room(A), room(B), room(C)]
    found = distribute(vacancies(7, service(replicas_per_node_max=2)), rooms, {}, frozenset())
    assert sorted(len(slots) for slots in found.invited.values()) == [2, 2, 2]
    assert found.declined == {"web/7": dict.fromkeys((A, B, C), "at most 2 per node")}


def test_two_services_with_one_host_port_do_not_share_a_node() -> None:
    both = [Vacancy(f"{name}/1", service(name, ports=(Port(80, host=80),))) for name in ("one", "two", "three")]
    found = distribute(both, [room(A), room(B)], {}, frozenset())
    assert sorted(len(slots) for slots in found.invited.values()) == [1, 1]
    assert found.declined == {"three/1": {A: "host port 80/tcp is taken", B: "host port 80/tcp is taken"}}


def test_a_slot_does_not_go_where_it_failed_before() -> None:
    found = distribute(vacancies(1, service(), frozenset({A})), [room(A)], {}, frozenset())
    assert found.declined == {"web/1": {A: "it failed there before"}}


def test_a_global_slot_goes_to_its_own_node_or_to_none() -> None:
    everywhere = service("log", mode=Mode.GLOBAL)
    wanted = [Vacancy(f"log/{node}", everywhere) for node in (A, B, C)]
    found = distribute(wanted, [room(A), room(B)], {}, frozenset())
    assert found.invited == {A: (f"log/{A}",), B: (f"log/{B}",)}
    assert found.declined == {f"log/{C}": dict.fromkeys((A, B), "the slot belongs to another node")}


rooms_offered = st.lists(
    st.builds(
        lambda node, containers, cpus, memory: room(
            node, free_containers=containers, free_cpus=cpus / 10, free_memory_bytes=memory
        ),
        st.sampled_from(NODES),
        st.integers(-2, 6),
        st.integers(0, 20),
        st.integers(0, 100),
    ),
    max_size=6,
    unique_by=lambda r: r.node,
)


@given(rooms_offered, st.integers(0, 15), st.integers(0, 4), st.randoms(use_true_random=False))
def test_nobody_is_invited_beyond_its_room_and_every_slot_is_given_or_explained(
    rooms: list[Room], count: int, limit: int, rng: random.Random
) -> None:
    needs = service(resources=Resources(reserve_cpus=0.3, reserve_memory_bytes=10), replicas_per_node_max=limit)
    wanted = vacancies(count, needs)
    found = distribute(wanted, rooms, {}, frozenset())
    given_out = [slot for slots in found.invited.values() for slot in slots]
    assert sorted([*given_out, *found.declined]) == sorted(vacancy.slot for vacancy in wanted)
    left = {r.node: r for r in rooms}
    for node, slots in found.invited.items():
        assert not limit or len(slots) <= limit
        for _ in slots:
            assert refusal(requirement(needs), left[node]) is None
            left[node] = after(left[node], requirement(needs))
    for reasons in found.declined.values():
        assert set(reasons) == {r.node for r in rooms}
        assert all(reasons.values())
    shuffled = list(rooms)
    rng.shuffle(shuffled)
    assert distribute(wanted, shuffled, {}, frozenset()).invited == found.invited


# Asking


def test_a_sample_is_of_that_size_and_prefers_the_heavy() -> None:
    weights = {A: 50.0, **dict.fromkeys(NODES[1:], 1.0)}
    first = Counter(sample(weights, 1, random.Random(seed))[0] for seed in range(200))
    assert first[A] > 120
    assert sorted(sample(weights, 99, random.Random(1))) == sorted(weights)
    assert sample({}, 3, random.Random(1)) == []
    assert len(sample(dict.fromkeys(NODES, 0.0), 3, random.Random(1))) == 3


def test_a_call_is_answered_when_all_that_were_asked_have_and_strangers_do_not_count() -> None:
    call = Call(1, (), 0, (A, B))
    answered = []
    for node in (C, A, A, B):
        call.offer(room(node))
        answered.append(call.is_answered)
    assert answered == [False, False, False, True]
    assert set(call.offers) == {A, B}
