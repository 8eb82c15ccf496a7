"""Engines: what this host is believed to run, and what is said of an engine that goes away and comes back."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from gary.effects import StopContainer
from gary.engines import Engines
from gary.runtime.base import Capacity, Container, ContainerState, Labels, StartRequest
from gary.spec import RuntimeName
from tests.gary.facts import A, service

CAPACITY = Capacity(4.0, 1 << 30, "x86_64")


def container(id: str, slot: str = "web/1") -> Container:
    return Container(id, id, Labels("shop", slot, "g", "f", A), ContainerState.RUNNING)


def request(slot: str = "web/1") -> StartRequest:
    return StartRequest("name", "shop", Labels("shop", slot, "g", "f", A), service(), "1")


@dataclass
class Host:
    """Two engines, and what was told of them. ``docker`` answers with one container."""

    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        numbers = itertools.count(1)
        self.engines = Engines(("docker", "process"), lambda: next(numbers), self.tell)
        self.engines.start(1.0)
        self.engines.observed("docker", [container("one")], CAPACITY, 2.0, "")

    def tell(self, kind: str, message: str) -> None:
        self.told.append(f"{kind}: {message}")


def ids(engines: Engines) -> list[str]:
    return [container.id for container in engines.containers()]


def test_an_engine_is_away_until_it_answers_and_one_that_is_not_here_always_was() -> None:
    engines = Host().engines
    assert (engines.away(), engines.answering()) == (["process"], ["docker"])
    assert engines.away_since_s("process") == engines.away_since_s("podman") == engines.away_since_s(None) == 1.0
    assert engines.away_since_s("docker") is None


def test_going_and_coming_back_is_told_once_and_the_capacity_is_remembered() -> None:
    host = Host()
    assert host.told == []
    for now in (3.0, 4.0):
        host.engines.observed("docker", None, None, now, "no socket")
    assert host.engines.away_since_s("docker") == 3.0
    assert ids(host.engines) == []
    for now in (5.0, 6.0):
        host.engines.observed("docker", [container("two")], None, now, "")
    assert ids(host.engines) == ["two"]
    assert host.engines.capacity(["docker"]) == (4.0, 1 << 30)
    assert host.told == [
        "engine: the docker runtime does not answer: no socket",
        "engine: the docker runtime answers again",
    ]


def test_what_was_started_and_stopped_counts_before_the_next_look_at_the_engine() -> None:
    engines = Host().engines
    start = engines.start_container("docker", request("web/2"))
    ended = engines.operated(start.operation, container("two", "web/2"), "")
    assert ended is not None
    assert (ended.deployment, ended.slot) == ("shop", "web/2")
    assert ids(engines) == ["one", "two"]
    stop = engines.stop_container("shop", "web/1", container("one"), 5.0)
    assert stop == StopContainer(2, "docker", "one", 5.0)
    assert engines.is_being_stopped(container("one"))
    assert engines.operated(stop.operation, None, "") is not None
    assert ids(engines) == ["two"]
    assert not engines.is_being_stopped(container("one"))


def test_an_operation_that_failed_or_is_not_known_changes_nothing() -> None:
    engines = Host().engines
    stop = engines.stop_container("shop", "web/1", container("one"), 5.0)
    assert stop is not None
    assert engines.operated(stop.operation, None, "busy") is not None
    assert engines.operated(stop.operation, None, "") is None
    assert engines.operated(99, container("two"), "") is None
    assert ids(engines) == ["one"]
    assert engines.stop_container("shop", "web/1", container("gone"), 5.0) is None


@pytest.mark.parametrize(
    ("asked", "image", "kept_by"),
    [
        (RuntimeName.DOCKER, "img", "docker"),
        (RuntimeName.PROCESS, "", "process"),
        (RuntimeName.ANY, "img", "docker"),
        (RuntimeName.ANY, "", "docker"),
    ],
)
def test_a_service_that_may_run_anywhere_goes_to_an_engine_that_answers(
    asked: RuntimeName, image: str, kept_by: str
) -> None:
    engines = Host().engines
    assert engines.runtime_for(service(runtime=asked, image=image)) == kept_by
    engines.observed("docker", None, None, 3.0, "")
    engines.observed("process", [], CAPACITY, 3.0, "")
    elsewhere = "process" if asked is RuntimeName.ANY else kept_by
    assert engines.runtime_for(service(runtime=asked, image=image)) == elsewhere
