"""The engine for simulations: all in the caller's time."""

from __future__ import annotations

import pytest

from gary.runtime.base import ContainerState, Health, Labels, StartRequest, load_runtime
from gary.runtime.errors import EngineUnavailable, ImageMissing, PortTaken, StartRefused, UnknownRuntime
from gary.runtime.memory import Behaviour, MemoryEngine
from gary.spec import Healthcheck, Port, Service

CHECKED = Service(name="web", image="web:1", healthcheck=Healthcheck(("CMD", "x")))


def request(service: Service = CHECKED, index: int = 0) -> StartRequest:
    return StartRequest(f"web-{index}", "app", Labels("d", f"web/{index}", "1", "a", "n"), service, str(index))


def test_health_comes_with_time_and_the_engine_says_when() -> None:
    engine = MemoryEngine()
    engine.behave("web:1", Behaviour(healthy_after_s=2))
    assert engine.start(request(), now=10).health is Health.STARTING
    assert engine.next_change_s(10) == 12
    assert engine.containers("n", 11.9)[0].health is Health.STARTING
    assert engine.containers("n", 12)[0].health is Health.HEALTHY
    assert engine.next_change_s(12) is None


def test_a_container_that_ends_by_itself_ends_at_its_time() -> None:
    engine = MemoryEngine()
    engine.behave("web:1", Behaviour(ends_after_s=1, exit_code=3))
    engine.start(request(), now=10)
    (ended,) = engine.containers("n", 15)
    assert (ended.state, ended.exit_code, ended.finished_at_s) == (ContainerState.EXITED, 3, 11)


def test_health_that_is_set_stays_until_the_container_is_started_again() -> None:
    engine = MemoryEngine()
    started = engine.start(request(), now=10)
    engine.set_health(started.id, Health.UNHEALTHY)
    assert engine.containers("n", 50)[0].health is Health.UNHEALTHY
    engine.set_health(started.id, None)
    assert engine.containers("n", 50)[0].health is started.health
    engine.set_health(started.id, Health.UNHEALTHY)
    engine.crash(started.id, 51)
    engine.start(request(), now=52)
    assert engine.containers("n", 53)[0].health is started.health


def test_an_engine_that_is_down_answers_nothing_and_its_containers_run_on() -> None:
    engine = MemoryEngine()
    started = engine.start(request(), now=10)
    engine.go_down()
    for ask in (
        lambda: engine.containers("n", 11),
        lambda: engine.start(request(index=1), 11),
        lambda: engine.stop(started.id, 1, 11),
        lambda: engine.capacity(11),
    ):
        with pytest.raises(EngineUnavailable):
            ask()
    engine.come_up()
    assert [container.id for container in engine.containers("n", 12)] == [started.id]


def test_a_host_that_loses_power_ends_its_containers() -> None:
    engine = MemoryEngine()
    engine.start(request(), now=10)
    engine.lose_power(11)
    (ended,) = engine.containers("n", 12)
    assert (ended.state, ended.exit_code) == (ContainerState.EXITED, None)


def test_images_ports_and_refusals() -> None:
    engine = MemoryEngine()
    engine.lose_image("gone")
    with pytest.raises(ImageMissing):
        engine.start(request(Service("web", image="gone")), 1)
    engine.gain_image("gone")
    fixed = Service("web", image="gone", ports=(Port(80, host=8080),))
    engine.start(request(fixed, 0), 1)
    with pytest.raises(PortTaken):
        engine.start(request(fixed, 1), 1)
    engine.behave("bad", Behaviour(refusal="no"))
    with pytest.raises(StartRefused, match="no"):
        engine.start(request(Service("web", image="bad"), 2), 1)
    assert len(engine.containers("n", 2)) == 1


def test_the_same_calls_give_the_same_containers() -> None:
    def run() -> object:
        engine = MemoryEngine(host="h")
        for index in range(5):
            engine.start(request(Service("web", image="i", ports=(Port(80), Port(81))), index), index)
        return engine.containers(None, 9)

    assert run() == run()


def test_a_runtime_that_is_not_installed_is_named_with_those_that_are() -> None:
    with pytest.raises(UnknownRuntime, match="no-such-runtime"):
        load_runtime("no-such-runtime")
