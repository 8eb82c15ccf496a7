"""What a new spec does to each service, told in words; and scaling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gary.spec import (
    Action,
    Change,
    Constraint,
    Mode,
    Mount,
    MountType,
    Partition,
    Port,
    Resources,
    Service,
    Spec,
    SpecError,
    changes,
    scaled,
)

WEB = Service("web", image="nginx:1", replicas=2, environment=(("TOKEN", "s3cret"), ("OLD", "x")))
APP = Spec("app", (WEB,))


def change(**fields: Any) -> Change:
    (only,) = changes(APP, Spec("app", (replace(WEB, **fields),)))
    return only


def test_a_first_deployment_adds_every_service() -> None:
    agent = Service("agent", image="node-exporter", mode=Mode.GLOBAL)
    assert changes(None, Spec("app", (agent, WEB))) == (
        Change("agent", Action.ADD, "node-exporter, one on every node"),
        Change("web", Action.ADD, "nginx:1, 2 replicas"),
    )


def test_the_same_spec_keeps_everything() -> None:
    assert changes(APP, APP) == (Change("web", Action.KEEP, ""),)


def test_a_service_that_is_gone_is_removed() -> None:
    worker = Service("worker", image="job", replicas=1)
    assert changes(Spec("app", (WEB, worker)), APP)[1] == Change("worker", Action.REMOVE, "job, 1 replica")


def test_resilience_concerns_the_whole_application() -> None:
    assert changes(APP, replace(APP, resilience=5))[0] == Change("", Action.UPDATE, "resilience 3 -> 5")


@pytest.mark.parametrize(
    ("fields", "action", "detail"),
    [
        ({"image": "nginx:2", "replicas": 3}, Action.REPLACE, "image nginx:1 -> nginx:2; replicas 2 -> 3"),
        ({"replicas": 3}, Action.SCALE, "replicas 2 -> 3"),
        ({"partition": Partition.HOLD}, Action.UPDATE, "partition heal -> hold"),
        ({"mode": Mode.GLOBAL}, Action.REPLACE, "mode replicated -> global"),
        ({"command": ("--password", "s3cret")}, Action.REPLACE, "command added"),
        ({"ports": (Port(80, host=8080), Port(53, "udp"))}, Action.REPLACE, "ports +53/udp +8080:80/tcp"),
        ({"mounts": (Mount(MountType.BIND, "/a", "/b", True),)}, Action.REPLACE, "volumes +/a:/b:ro"),
        ({"constraints": (Constraint("node.id", False, "x"),)}, Action.UPDATE, "constraints +node.id!=x"),
        ({"resources": Resources(limit_cpus=0.5)}, Action.REPLACE, "limit cpus none -> 0.5"),
        ({"user": "root", "init": True}, Action.REPLACE, "user none -> root; init no -> yes"),
    ],
)
def test_a_difference_is_told_in_words(fields: dict[str, Any], action: Action, detail: str) -> None:
    assert change(**fields) == Change("web", action, detail)


def test_values_of_variables_are_never_told() -> None:
    told = change(environment=(("NEW", "hidden"), ("TOKEN", "0ther")))
    assert told.detail == "environment +NEW -OLD ~TOKEN"


def test_scaling_changes_only_the_number() -> None:
    assert scaled(APP, {"web": 7}) == Spec("app", (replace(WEB, replicas=7),))
    assert scaled(APP, {}) == APP


@pytest.mark.parametrize(
    ("replicas", "words"),
    [({"db": 1}, "no such service"), ({"all": 1}, "global"), ({"web": -1}, "from 0"), ({"web": 10_001}, "from 0")],
)
def test_what_cannot_be_scaled_is_refused(replicas: dict[str, int], words: str) -> None:
    spec = Spec("app", (Service("all", image="x", mode=Mode.GLOBAL), WEB))
    with pytest.raises(SpecError, match=words):
        scaled(spec, replicas)
