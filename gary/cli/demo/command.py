"""The story that ``gary demo`` tells, from five new agents to an empty machine."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gary.cli.exits import AgentUnreachable, BadInput, ends_well
from gary.cli.options import Json, example
from gary.cli.terminal import print_json, say
from gary.errors import CommandError, ErrorCode

if TYPE_CHECKING:
    from gary.cli.client import Answer
    from gary.cli.demo.cluster import DemoAgent, DemoCluster
    from gary.cli.demo.engines import Engine
    from gary.cli.demo.view import View

NODES = 5
STAGE_TIMEOUT_S = 60.0
LOOK_INTERVAL_S = 0.1

_PASSING = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT, ErrorCode.NOT_FOUND})


def add_to(app: typer.Typer) -> None:
    app.command(epilog=example("gary demo", "gary demo --runtime process"))(demo)


@ends_well
def demo(
    runtime: Annotated[
        str | None, typer.Option(metavar="docker|process", help="Default: docker if it can be used, otherwise process.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show on this machine how a cluster survives the death of a node."""
    from gary.cli.demo.engines import Unusable, choose

    if runtime not in (None, "docker", "process"):
        raise BadInput(f"{runtime!r} is no runtime of the demo: docker or process")
    docker_host = os.environ.get("GARY_DOCKER_HOST") or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    try:
        engine, why = choose(runtime, docker_host)
    except Unusable as error:
        raise BadInput(str(error), hint="gary demo --runtime process needs no engine") from error
    say(f"Runtime: {engine.runtime} ({why}).")
    with _termination_as_interrupt():
        times = _tell(engine)
    if as_json:
        print_json({"runtime": engine.runtime, "times_s": {name: round(value, 3) for name, value in times.items()}})
        return
    print(f"{'':<44}seconds")
    for name, value in times.items():
        print(f"{name:<44}{value:7.2f}")


def _tell(engine: Engine) -> dict[str, float]:
    """The whole story. Whatever happens in it, nothing is left behind."""
    from gary.cli.demo.cluster import DemoCluster
    from gary.cli.demo.view import view_for

    started = time.monotonic()
    say(f"Starting {NODES} agents …")
    cluster: DemoCluster | None = None
    view: View | None = None
    left_over = 0
    try:
        with _interrupts_put_off():  # An agent that is started is one that will be ended.
            cluster = DemoCluster(engine, NODES)
        cluster.wait_until_up()
        times = {f"{NODES} agents started": time.monotonic() - started}
        view = view_for([agent.name for agent in cluster.agents])
        times |= _form(cluster, view)
        times |= _deploy(cluster, engine, view)
        times |= _lose_a_node(cluster, view)
        times |= _remove(cluster, view)
    except KeyboardInterrupt:
        say("Interrupted; clearing away …")
        raise
    finally:
        if view is not None:
            view.close()
        if cluster is not None:
            with _interrupts_put_off():
                left_over = cluster.close()
    if left_over:
        from gary.cli.demo.cluster import DemoFailed

        raise DemoFailed(f"{left_over} containers were still there after the removal; the demo removed them itself")
    say("Nothing is left behind.")
    return times


def _form(cluster: DemoCluster, view: View) -> Mapping[str, float]:
    first, *others = cluster.agents
    started = time.monotonic()
    view.tell(f"Joining {len(others)} of them to {first.name} …")
    invitation = first.client.call("invite", uses=len(others))
    for agent in others:
        agent.client.call("join", token=invitation["token"])
    for agent in cluster.agents:
        _until(lambda agent=agent: _alive(agent) == len(cluster.agents), f"{agent.name} did not see all others")  # type: ignore[misc]
    return {f"{len(cluster.agents)} nodes know each other": time.monotonic() - started}


def _deploy(cluster: DemoCluster, engine: Engine, view: View) -> Mapping[str, float]:
    from gary.compose import load
    from gary.spec import to_json

    with as_file(files("gary") / "samples" / engine.sample) as sample:
        spec = load(sample, {})
    wanted = sum(service.replicas for service in spec.services)
    sponsor = cluster.agents[0]
    view.tell(f"Deploying {wanted} replicas by way of {sponsor.name} …")
    started = time.monotonic()
    sponsor.client.call("deploy", spec=to_json(spec))
    status = _watch(sponsor, spec.name, view, started, lambda status: _healthy(status) == wanted)
    elapsed_s = time.monotonic() - started
    view.tell(f"  {wanted} are healthy after {elapsed_s:.1f} s: {_holders(status)}.")
    return {f"{wanted} replicas healthy": elapsed_s}


def _lose_a_node(cluster: DemoCluster, view: View) -> Mapping[str, float]:
    """Kill the node that took the deployment: if any node were special, it would be this one."""
    victim, witness = cluster.agents[0], cluster.agents[1]
    before = _status(witness, "demo") or _status(victim, "demo") or {}
    lost = [slot.get("slot") for slot in before.get("slots", ()) if slot.get("node") == victim.node]
    wanted = _healthy(before)
    view.tell(f"Killing {victim.name} with its {len(lost)} containers …")
    started = time.monotonic()
    cluster.kill(victim)
    noticed: list[float] = []

    def whole_without_it(status: Answer) -> bool:
        holders = [slot for slot in status.get("slots", ()) if slot.get("state") == "healthy"]
        if not noticed and _says_dead(status, victim):
            noticed.append(time.monotonic() - started)
        elsewhere = all(slot.get("node") != victim.node for slot in holders)
        return bool(noticed) and elsewhere and len(holders) == wanted

    status = _watch(witness, "demo", view, started, whole_without_it)
    elapsed_s = time.monotonic() - started
    view.tell(f"  {wanted} are healthy again after {elapsed_s:.1f} s: {_holders(status, lost)} took over.")
    return {f"{victim.name} known to be dead": noticed[0], "whole again without it": elapsed_s}


def _remove(cluster: DemoCluster, view: View) -> Mapping[str, float]:
    view.tell("Removing the deployment …")
    started = time.monotonic()
    cluster.agents[1].client.call("remove", app="demo")
    _until(lambda: cluster.containers_count() == 0, "containers are still there after the removal")
    return {"removed everywhere": time.monotonic() - started}


def _holders(status: Answer, slots: Container[object] | None = None) -> str:
    """Each node with how many slots it keeps; only those in ``slots`` are counted if these are given."""
    counted = [slot for slot in status.get("slots", ()) if slots is None or slot.get("slot") in slots]
    counts = Counter(str(slot.get("node_name")) for slot in counted)
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def _watch(agent: DemoAgent, app: str, view: View, started: float, done: Callable[[Answer], bool]) -> Answer:
    """Show the deployment until ``done``; the last status. Raises ``DemoFailed`` with what is missing."""
    from gary.cli import render
    from gary.cli.demo.cluster import DemoFailed

    status: Answer | None = None
    while time.monotonic() - started < STAGE_TIMEOUT_S:
        status = _status(agent, app) or status
        if status is not None:
            view.update(status, time.monotonic() - started)
            if done(status):
                return status
        time.sleep(LOOK_INTERVAL_S)
    missing = "\n".join(f"  {line}" for line in render.missing(status or {}))
    raise DemoFailed(f"{app} did not become whole within {STAGE_TIMEOUT_S:.0f} s:\n{missing}")


def _status(agent: DemoAgent, app: str) -> Answer | None:
    try:
        return agent.client.call("status", app=app)
    except CommandError as error:
        if error.code in _PASSING:
            return None
        raise


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    from gary.cli.demo.cluster import DemoFailed

    deadline = time.monotonic() + STAGE_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise DemoFailed(f"{otherwise} within {STAGE_TIMEOUT_S:.0f} s")
        time.sleep(LOOK_INTERVAL_S)


def _alive(agent: DemoAgent) -> int:
    try:
        return sum(node.get("status") == "alive" for node in agent.client.call("nodes")["nodes"])
    except AgentUnreachable:
        return 0


def _healthy(status: Mapping[str, Any]) -> int:
    return sum(slot.get("state") == "healthy" for slot in status.get("slots", ()))


def _says_dead(status: Answer, victim: DemoAgent) -> bool:
    seen = [member.get("status") for member in status.get("members", ()) if member.get("node") == victim.node]
    return not seen or seen[0] not in ("alive", "suspect")


@contextmanager
def _interrupts_put_off() -> Iterator[None]:
    """What is begun in here is finished, and only then does an interrupt that came meanwhile have its effect."""
    came: list[int] = []
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, _frame: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does, with everything cleared away."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
