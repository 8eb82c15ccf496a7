"""The contract of ``gary.runtime.base`` as tests that the author of a runtime runs against their own.

Subclass ``RuntimeContract``, and ``ExecutionContract`` and ``ImageContract`` as far as they apply, and give each a
fixture ``bench``::

    class TestMine(RuntimeContract, ExecutionContract):
        @pytest.fixture
        async def bench(self) -> AsyncIterator[Bench]:
            bench = Bench(connect=lambda: MyRuntime("…"), service=Service(name="web", command=("sleep", "600")))
            yield bench
            await bench.clean()

The tests are asynchronous, for pytest-asyncio in its automatic mode. They wait for the runtime's own changes, for at
most ``PATIENCE_S``.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from gary.runtime.base import (
    Container,
    ContainerRuntime,
    ContainerState,
    Health,
    Labels,
    LogChunk,
    PublishedPort,
    StartRequest,
)
from gary.runtime.errors import ContainerMissing, ImageMissing, NameTaken, PortTaken, StartRefused
from gary.spec import Healthcheck, Port, Service

PATIENCE_S: Final = 20.0


@dataclass
class Bench:
    """One engine to test on, and what the tests need to know about it.

    ``connect``: a new runtime on that engine. ``service``: something that runs until it is stopped. ``crash``: make a
    container of it end by itself with a code that is not 0. ``ports``: one port that can be published. ``fixed_port``:
    a port of the host that is free. ``listener`` (for ``ExecutionContract``): a service that listens on a port of the
    host when it is published, and has then written ``ready``.
    """

    connect: Callable[[], ContainerRuntime]
    service: Service
    crash: Callable[[Container], Awaitable[None]]
    ports: tuple[Port, ...] = (Port(8080),)
    fixed_port: int = 18080
    listener: Callable[[int], Service] | None = None
    node: str = field(default_factory=lambda: secrets.token_hex(16))
    deployment: str = field(default_factory=lambda: secrets.token_hex(8))
    _opened: list[ContainerRuntime] = field(default_factory=list)

    def open(self) -> ContainerRuntime:
        runtime = self.connect()
        self._opened.append(runtime)
        return runtime

    def request(
        self,
        service: Service | None = None,
        *,
        index: int = 0,
        generation: str = "1",
        fingerprint: str = "a",
        node: str = "",
        **changes: Any,
    ) -> StartRequest:
        """A request for a slot of this test's deployment; ``changes`` are made to the service."""
        wanted = replace(service or self.service, **changes)
        labels = Labels(self.deployment, f"web/{index}", generation, fingerprint, node or self.node)
        return StartRequest(f"gary-{self.deployment}-{index}", f"app{self.deployment}", labels, wanted, str(index))

    def shell(self, line: str, **changes: Any) -> Service:
        """A service that runs one line of shell."""
        return replace(self.service, entrypoint=None, command=("sh", "-c", line), **changes)

    async def clean(self) -> None:
        """Stop what the test has left and close what it has opened."""
        last = self.open()
        for container in await last.containers(None):
            if container.labels.deployment == self.deployment:
                await last.stop(container.id, 0)
        for runtime in self._opened:
            await runtime.close()


async def until(
    runtime: ContainerRuntime, node: str, is_so: Callable[[Sequence[Container]], bool]
) -> Sequence[Container]:
    """The node's containers as soon as ``is_so`` of them, looking again at every change."""
    seen: Sequence[Container] = ()
    try:
        async with asyncio.timeout(PATIENCE_S), aclosing(runtime.changes()) as changes:
            async for _ in changes:
                seen = await runtime.containers(node)
                if is_so(seen):
                    return seen
    except TimeoutError:
        pass  # said below, with what was seen instead
    raise AssertionError(f"it did not come about within {PATIENCE_S:g} s; last seen: {seen}")


def exited(containers: Sequence[Container]) -> bool:
    return bool(containers) and all(container.state is ContainerState.EXITED for container in containers)


def is_found(health: Health) -> Callable[[Sequence[Container]], bool]:
    return lambda containers: bool(containers) and all(container.health is health for container in containers)


async def written(
    runtime: ContainerRuntime, container: Container, *, follow: bool = True, tail: int | None = None
) -> dict[str, bytes]:
    """Everything in the log, by stream; with ``follow`` until the container ends."""
    chunks: list[LogChunk] = []
    async with asyncio.timeout(PATIENCE_S), aclosing(runtime.logs(container.id, follow=follow, tail=tail)) as log:
        async for chunk in log:
            chunks.append(chunk)  # noqa: PERF401 - an asynchronous comprehension would not survive a timeout
    return {
        stream: b"".join(chunk.data for chunk in chunks if chunk.stream == stream) for stream in ("stdout", "stderr")
    }


class RuntimeContract:
    """What every runtime does."""

    async def test_it_says_what_the_host_has(self, bench: Bench) -> None:
        capacity = await bench.open().capacity()
        assert capacity.cpus > 0
        assert capacity.memory_bytes > 0
        assert capacity.architecture

    async def test_a_started_container_runs_and_is_listed_with_its_labels(self, bench: Bench) -> None:
        runtime, request = bench.open(), bench.request()
        started = await runtime.start(request)
        assert (started.name, started.labels, started.state) == (request.name, request.labels, ContainerState.RUNNING)
        assert started.started_at_s > 0
        assert started.exit_code is None
        assert list(await runtime.containers(bench.node)) == [started]

    async def test_starting_twice_is_starting_once(self, bench: Bench) -> None:
        runtime = bench.open()
        first = await runtime.start(bench.request())
        assert await runtime.start(bench.request()) == first
        assert list(await runtime.containers(bench.node)) == [first]

    async def test_a_later_runtime_adopts_the_containers_of_an_earlier_one(self, bench: Bench) -> None:
        earlier = bench.open()
        started = await earlier.start(bench.request())
        await earlier.close()
        later = bench.open()
        assert list(await later.containers(bench.node)) == [started]
        assert await later.start(bench.request()) == started
        await later.stop(started.id, 0)
        assert list(await later.containers(bench.node)) == []

    async def test_a_later_runtime_hears_of_the_end_of_an_adopted_container(self, bench: Bench) -> None:
        earlier = bench.open()
        started = await earlier.start(bench.request())
        await earlier.close()
        later = bench.open()
        await later.containers(bench.node)
        waiting = asyncio.create_task(until(later, bench.node, exited))
        await bench.crash(started)
        assert [container.id for container in await waiting] == [started.id]

    async def test_a_list_has_the_containers_of_one_node_or_of_all(self, bench: Bench) -> None:
        runtime, other = bench.open(), secrets.token_hex(16)
        ours = await runtime.start(bench.request(index=0))
        theirs = await runtime.start(bench.request(index=1, node=other))
        assert list(await runtime.containers(bench.node)) == [ours]
        assert list(await runtime.containers(other)) == [theirs]
        assert {ours, theirs} <= set(await runtime.containers(None))

    async def test_a_list_is_sorted_by_name(self, bench: Bench) -> None:
        runtime = bench.open()
        for index in (2, 0, 1):
            await runtime.start(bench.request(index=index))
        names = [container.name for container in await runtime.containers(bench.node)]
        assert names == [bench.request(index=index).name for index in range(3)]

    async def test_a_container_of_an_older_generation_stays_when_its_service_is_the_same(self, bench: Bench) -> None:
        runtime = bench.open()
        older = await runtime.start(bench.request(generation="1", fingerprint="a"))
        assert await runtime.start(bench.request(generation="2", fingerprint="a")) == older

    async def test_a_container_of_an_older_generation_is_replaced_when_its_service_differs(self, bench: Bench) -> None:
        runtime = bench.open()
        older = await runtime.start(bench.request(generation="1", fingerprint="a"))
        newer = await runtime.start(bench.request(generation="2", fingerprint="b", stop_grace_period_s=0.0))
        assert newer.id != older.id
        assert list(await runtime.containers(bench.node)) == [newer]

    async def test_a_name_that_another_node_has_taken_is_left_alone(self, bench: Bench) -> None:
        runtime, other = bench.open(), secrets.token_hex(16)
        theirs = await runtime.start(bench.request(node=other))
        with pytest.raises(NameTaken, match=theirs.name):
            await runtime.start(bench.request())
        assert list(await runtime.containers(other)) == [theirs]
        assert list(await runtime.containers(bench.node)) == []

    async def test_a_stopped_container_is_gone_and_stopping_it_again_does_no_harm(self, bench: Bench) -> None:
        runtime = bench.open()
        started = await runtime.start(bench.request())
        await asyncio.gather(runtime.stop(started.id, 0), runtime.stop(started.id, 0))
        assert list(await runtime.containers(bench.node)) == []
        await runtime.stop(started.id, 0)
        assert (await runtime.start(bench.request())).state is ContainerState.RUNNING

    async def test_a_container_that_ends_is_seen_to_have_ended(self, bench: Bench) -> None:
        runtime = bench.open()
        started = await runtime.start(bench.request())
        waiting = asyncio.create_task(until(runtime, bench.node, exited))
        await bench.crash(started)
        (ended,) = await waiting
        assert (ended.id, ended.started_at_s) == (started.id, started.started_at_s)
        assert ended.exit_code
        assert ended.finished_at_s >= ended.started_at_s

    async def test_a_container_that_has_ended_is_started_again(self, bench: Bench) -> None:
        runtime = bench.open()
        first = await runtime.start(bench.request())
        waiting = asyncio.create_task(until(runtime, bench.node, exited))
        await bench.crash(first)
        await waiting
        second = await runtime.start(bench.request())
        assert second.state is ContainerState.RUNNING
        assert (second.id, second.started_at_s) != (first.id, first.started_at_s)
        assert list(await runtime.containers(bench.node)) == [second]

    async def test_a_published_port_is_reported(self, bench: Bench) -> None:
        runtime = bench.open()
        started = await runtime.start(bench.request(ports=bench.ports))
        (port,) = started.ports
        assert (port.container_port, port.protocol) == (bench.ports[0].container, "tcp")
        assert 0 < port.host_port < 65536
        assert list(await runtime.containers(bench.node)) == [started]

    async def test_a_fixed_port_is_published_where_it_was_asked_for(self, bench: Bench) -> None:
        port = Port(bench.fixed_port, host=bench.fixed_port)
        started = await bench.open().start(bench.request(ports=(port,)))
        assert started.ports == (PublishedPort(bench.fixed_port, "tcp", "0.0.0.0", bench.fixed_port),)

    async def test_the_log_of_a_container_that_is_not_there_is_an_error(self, bench: Bench) -> None:
        with pytest.raises(ContainerMissing):
            async for _ in bench.open().logs("0" * 16, follow=False, tail=None):
                pass

    async def test_closing_twice_does_no_harm(self, bench: Bench) -> None:
        runtime = bench.open()
        await runtime.containers(bench.node)
        await runtime.close()
        await runtime.close()


class ExecutionContract:
    """What a runtime does whose containers run programs; ``bench.service`` has a shell."""

    async def test_the_exit_code_is_the_programs(self, bench: Bench) -> None:
        runtime = bench.open()
        await runtime.start(bench.request(bench.shell("exit 7")))
        (ended,) = await until(runtime, bench.node, exited)
        assert ended.exit_code == 7

    async def test_both_streams_of_the_log_are_told_apart(self, bench: Bench) -> None:
        runtime = bench.open()
        started = await runtime.start(bench.request(bench.shell("echo out; echo err >&2")))
        assert await written(runtime, started) == {"stdout": b"out\n", "stderr": b"err\n"}

    async def test_the_log_of_a_container_that_has_ended_is_there(self, bench: Bench) -> None:
        runtime = bench.open()
        started = await runtime.start(bench.request(bench.shell("echo gone")))
        await until(runtime, bench.node, exited)
        assert (await written(runtime, started, follow=False))["stdout"] == b"gone\n"

    async def test_the_tail_of_the_log_is_its_last_lines(self, bench: Bench) -> None:
        runtime = bench.open()
        started = await runtime.start(bench.request(bench.shell("for i in 1 2 3 4 5; do echo $i; done")))
        await until(runtime, bench.node, exited)
        assert (await written(runtime, started, tail=2))["stdout"] == b"4\n5\n"
        assert (await written(runtime, started, tail=0))["stdout"] == b""
        assert (await written(runtime, started, tail=9))["stdout"] == b"1\n2\n3\n4\n5\n"

    async def test_a_followed_log_brings_what_is_written_later(self, bench: Bench) -> None:
        runtime = bench.open()
        service = bench.shell("echo first; trap 'echo last; exit 0' TERM; while :; do sleep 0.05; done")
        started = await runtime.start(bench.request(service))
        read: list[bytes] = []
        async with asyncio.timeout(PATIENCE_S), aclosing(runtime.logs(started.id, follow=True, tail=None)) as log:
            async for chunk in log:
                read.append(chunk.data)
                if b"".join(read) == b"first\n":
                    stopping = asyncio.create_task(runtime.stop(started.id, PATIENCE_S))
                if b"".join(read) == b"first\nlast\n":
                    break
        await stopping

    async def test_environment_command_entrypoint_and_directory_are_honoured(self, bench: Bench) -> None:
        runtime = bench.open()
        service = replace(
            bench.service,
            entrypoint=("sh", "-c"),
            command=('pwd; echo "$COLOUR"; echo "$0" "$1"', "a b", "*"),
            environment=(("COLOUR", "dark $blue 'green'"), ("PATH", "/usr/bin:/bin")),
            working_dir="/tmp",
        )
        started = await runtime.start(bench.request(service))
        assert (await written(runtime, started))["stdout"] == b"/tmp\ndark $blue 'green'\na b *\n"

    async def test_a_stopped_program_gets_the_signal_that_it_asked_for(self, bench: Bench) -> None:
        runtime = bench.open()
        line = "trap 'echo usr1; exit 0' USR1; echo ready; while :; do sleep 0.05; done"
        started = await runtime.start(bench.request(bench.shell(line, stop_signal="SIGUSR1")))
        read: list[bytes] = []
        async with asyncio.timeout(PATIENCE_S), aclosing(runtime.logs(started.id, follow=True, tail=None)) as log:
            async for chunk in log:
                read.append(chunk.data)
                if b"".join(read) == b"ready\n":
                    stopping = asyncio.create_task(runtime.stop(started.id, PATIENCE_S))
                if b"".join(read) == b"ready\nusr1\n":
                    break
        await stopping

    async def test_a_program_that_does_not_want_to_end_is_killed_after_its_grace(self, bench: Bench) -> None:
        runtime = bench.open()
        service = bench.shell("trap '' TERM; echo deaf; while :; do sleep 0.05; done")
        started = await runtime.start(bench.request(service))
        async with asyncio.timeout(PATIENCE_S), aclosing(runtime.logs(started.id, follow=True, tail=None)) as log:
            async for _ in log:
                break
        async with asyncio.timeout(PATIENCE_S):
            await runtime.stop(started.id, 1)
        assert list(await runtime.containers(bench.node)) == []

    async def test_a_program_that_is_not_there_is_refused_and_leaves_nothing(self, bench: Bench) -> None:
        runtime = bench.open()
        with pytest.raises(StartRefused, match="no-such-program"):
            await runtime.start(bench.request(entrypoint=None, command=("no-such-program",)))
        assert list(await runtime.containers(bench.node)) == []

    async def test_a_port_that_is_taken_is_refused_and_leaves_nothing(self, bench: Bench) -> None:
        runtime = bench.open()
        port = Port(bench.fixed_port, host=bench.fixed_port)
        assert bench.listener is not None
        first = await runtime.start(bench.request(bench.listener(bench.fixed_port), index=0, ports=(port,)))
        async with asyncio.timeout(PATIENCE_S), aclosing(runtime.logs(first.id, follow=True, tail=None)) as log:
            async for chunk in log:
                if b"ready" in chunk.data:
                    break
        with pytest.raises(PortTaken, match=str(bench.fixed_port)):
            await runtime.start(bench.request(bench.listener(bench.fixed_port), index=1, ports=(port,)))
        assert list(await runtime.containers(bench.node)) == [first]

    async def test_a_check_that_passes_makes_it_healthy(self, bench: Bench) -> None:
        runtime = bench.open()
        check = Healthcheck(("CMD-SHELL", 'test "$COLOUR" = blue'), interval_s=0.1)
        started = await runtime.start(bench.request(healthcheck=check, environment=(("COLOUR", "blue"),)))
        assert started.health is Health.STARTING
        await until(runtime, bench.node, is_found(Health.HEALTHY))

    async def test_checks_that_fail_make_it_unhealthy_and_say_why(self, bench: Bench) -> None:
        runtime = bench.open()
        check = Healthcheck(("CMD", "sh", "-c", "echo no water; exit 1"), interval_s=0.1, retries=2)
        await runtime.start(bench.request(healthcheck=check))
        (container,) = await until(runtime, bench.node, is_found(Health.UNHEALTHY))
        assert container.state is ContainerState.RUNNING
        assert "no water" in container.reason

    async def test_a_check_that_takes_too_long_has_failed(self, bench: Bench) -> None:
        runtime = bench.open()
        check = Healthcheck(("CMD", "sleep", "60"), interval_s=0.1, timeout_s=0.2, retries=1)
        await runtime.start(bench.request(healthcheck=check))
        await until(runtime, bench.node, is_found(Health.UNHEALTHY))

    async def test_failures_in_the_start_period_do_not_count(self, bench: Bench) -> None:
        runtime = bench.open()
        check = Healthcheck(
            ("CMD-SHELL", "test -e /tmp/$MARK || { touch /tmp/$MARK; exit 1; }"),
            interval_s=0.1,
            retries=1,
            start_period_s=60,
        )
        mark = (("MARK", f"gary-test-{secrets.token_hex(8)}"),)
        line = "trap 'rm -f /tmp/$MARK; exit 0' TERM; while :; do sleep 0.05; done"
        started = await runtime.start(bench.request(bench.shell(line), healthcheck=check, environment=mark))
        await until(runtime, bench.node, is_found(Health.HEALTHY))
        await runtime.stop(started.id, PATIENCE_S)

    async def test_the_check_none_is_no_check(self, bench: Bench) -> None:
        started = await bench.open().start(bench.request(healthcheck=Healthcheck(("NONE",))))
        assert started.health is Health.NONE


class ImageContract:
    """What a runtime does whose containers come from images."""

    async def test_an_image_that_is_nowhere_is_missing_in_the_engines_words(self, bench: Bench) -> None:
        runtime, image = bench.open(), "gary.invalid/no-such-image:1"
        with pytest.raises(ImageMissing) as failure:
            await runtime.start(bench.request(image=image))
        assert image in str(failure.value)
        assert failure.value.detail
        assert list(await runtime.containers(bench.node)) == []
