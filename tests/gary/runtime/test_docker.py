"""What only a real engine can show: that every field of a service arrives, and what happens when the engine goes."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest

from gary.runtime.base import Container, ContainerState
from gary.runtime.docker import DockerRuntime
from gary.runtime.errors import EngineUnavailable, ImageMissing, NameTaken, StartRefused
from gary.runtime.testing import PATIENCE_S, Bench, exited, until, written
from gary.spec import Healthcheck, Mount, MountType, Port, Resources, Service
from tests.engines.engines import IMAGE, Engine, single_engine
from tests.engines.requirement import require_engines

SLEEPER = Service(name="web", image=IMAGE, command=("sleep", "600"), network_mode="none")


def bench_on(engine: Engine) -> Bench:
    async def crash(container: Container) -> None:
        engine.ask("POST", f"/containers/{container.id}/kill")

    return Bench(lambda: DockerRuntime(engine.url), SLEEPER, crash)


@pytest.fixture
async def bench(engine: Engine) -> AsyncIterator[Bench]:
    bench = bench_on(engine)
    yield bench
    await bench.clean()


def inspected(engine: Engine, container: Container) -> dict[str, Any]:
    body: dict[str, Any] = engine.ask("GET", f"/containers/{container.id}/json")
    return body


@pytest.mark.engine
class TestFields:
    async def test_everything_about_the_process_arrives(self, engine: Engine, bench: Bench) -> None:
        check = Healthcheck(("CMD", "true"), interval_s=1.5, timeout_s=2, retries=4, start_period_s=3)
        started = await bench.open().start(
            bench.request(
                environment=(("A", "1"), ("B", "x=y")),
                labels=(("com.example", "yes"), ("gary.node", "forged")),
                user="nobody",
                working_dir="/tmp",
                stop_signal="SIGUSR1",
                stop_grace_period_s=2.5,
                healthcheck=check,
                init=True,
                read_only=True,
                cap_add=("NET_ADMIN",),
                cap_drop=("CHOWN",),
                expose=(Port(9000),),
                resources=Resources(limit_cpus=0.5, limit_memory_bytes=64 << 20, limit_pids=50),
            )
        )
        body = inspected(engine, started)
        config, host = body["Config"], body["HostConfig"]
        assert {"A=1", "B=x=y"} <= set(config["Env"])
        assert config["Labels"]["com.example"] == "yes"
        assert config["Labels"]["gary.node"] == bench.node
        assert (config["User"], config["WorkingDir"]) == ("nobody", "/tmp")
        assert (config["StopSignal"], config["StopTimeout"]) == ("SIGUSR1", 3)
        assert config["Healthcheck"] == {
            "Test": ["CMD", "true"],
            "Interval": 1_500_000_000,
            "Timeout": 2_000_000_000,
            "StartPeriod": 3_000_000_000,
            "Retries": 4,
        }
        assert config["ExposedPorts"] == {"9000/tcp": {}}
        assert (host["Init"], host["ReadonlyRootfs"], host["NetworkMode"]) == (True, True, "none")
        assert [name.removeprefix("CAP_") for name in host["CapAdd"] + host["CapDrop"]] == ["NET_ADMIN", "CHOWN"]
        assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (500_000_000, 64 << 20, 50)
        assert host["RestartPolicy"]["Name"] == "no"

    async def test_mounts_arrive_and_named_volumes_outlive_their_container(
        self, engine: Engine, bench: Bench, tmp_path: Path
    ) -> None:
        runtime = bench.open()
        mounts = (
            Mount(MountType.BIND, str(tmp_path), "/bound", read_only=True),
            Mount(MountType.VOLUME, "data", "/data"),
            Mount(MountType.VOLUME, "", "/anonymous"),
            Mount(MountType.VOLUME, "shared", "/shared", external_name=f"own-{bench.deployment}"),
            Mount(MountType.TMPFS, "", "/scratch", size_bytes=1 << 20),
        )
        line = "grep -E ' /(bound|data|anonymous|shared|scratch) ' /proc/mounts | while read a b c; do echo $b; done"
        started = await runtime.start(bench.request(bench.shell(line), mounts=mounts))
        lines = (await written(runtime, started))["stdout"].split()
        assert sorted(lines) == [b"/anonymous", b"/bound", b"/data", b"/scratch", b"/shared"]
        found = {mount["Destination"]: mount for mount in inspected(engine, started)["Mounts"]}
        assert found["/bound"]["RW"] is False
        named = {f"app{bench.deployment}_data", f"own-{bench.deployment}"}
        assert {found["/data"]["Name"], found["/shared"]["Name"]} == named
        anonymous = found["/anonymous"]["Name"]
        await runtime.stop(started.id, 0)
        assert named <= set(engine.volumes())
        assert anonymous not in engine.volumes()
        for name in named:
            engine.ask("DELETE", f"/volumes/{name}")

    async def test_a_port_without_a_host_port_gets_one_from_the_engine(self, engine: Engine, bench: Bench) -> None:
        runtime = bench.open()
        ports = (Port(80), Port(53, "udp"), Port(81, host=18081, host_ip="127.0.0.1"))
        started = await runtime.start(bench.request(network_mode="bridge", ports=ports))
        by_port = {(port.container_port, port.protocol): port for port in started.ports}
        assert len(started.ports) == 3
        assert by_port[80, "tcp"].host_port > 1024
        assert by_port[53, "udp"].host_ip == "0.0.0.0"
        assert (by_port[81, "tcp"].host_ip, by_port[81, "tcp"].host_port) == ("127.0.0.1", 18081)
        assert list(await runtime.containers(bench.node)) == [started]

    @pytest.mark.parametrize(
        "changes",
        [
            {"network_mode": "none", "ports": (Port(80),)},
            {"network_mode": "host", "ports": (Port(80, host=8080),)},
            {"healthcheck": Healthcheck(("CMD", "true"), start_interval_s=1)},
            {"mounts": (Mount(MountType.BIND, "/no/such/path", "/x"),)},
            {"image": ""},
            {"user": "nobody-by-that-name"},
        ],
    )
    async def test_what_the_engine_would_ignore_or_cannot_do_is_refused_and_leaves_nothing(
        self, bench: Bench, changes: dict[str, Any]
    ) -> None:
        runtime = bench.open()
        with pytest.raises(StartRefused):
            await runtime.start(bench.request(**changes))
        assert list(await runtime.containers(bench.node)) == []


@pytest.mark.engine
class TestStrangers:
    async def test_a_container_that_somebody_made_by_hand_is_left_alone(self, engine: Engine, bench: Bench) -> None:
        name = bench.request().name
        created = engine.ask("POST", f"/containers/create?name={name}", {"Image": IMAGE, "Cmd": ["sleep", "600"]})
        try:
            with pytest.raises(NameTaken, match=name):
                await bench.open().start(bench.request())
            assert inspected_state(engine, created["Id"]) == "created"
        finally:
            engine.ask("DELETE", f"/containers/{created['Id']}?force=1")

    async def test_a_container_that_was_created_but_never_started_is_started(
        self, engine: Engine, bench: Bench
    ) -> None:
        runtime = bench.open()
        started = await runtime.start(bench.request())
        config = inspected(engine, started)["Config"]
        await runtime.stop(started.id, 0)
        created = engine.ask("POST", f"/containers/create?name={started.name}", config)
        assert [c.state for c in await runtime.containers(bench.node)] == [ContainerState.CREATED]
        again = await runtime.start(bench.request())
        assert (again.id, again.state) == (created["Id"], ContainerState.RUNNING)

    async def test_one_that_was_restarted_by_hand_is_seen_as_a_new_run(self, engine: Engine, bench: Bench) -> None:
        runtime = bench.open()
        first = await runtime.start(bench.request())
        waiting = asyncio.create_task(
            until(runtime, bench.node, lambda seen: bool(seen) and seen[0].started_at_s > first.started_at_s)
        )
        await asyncio.to_thread(engine.ask, "POST", f"/containers/{first.id}/restart?t=0")
        (second,) = await waiting
        assert (second.id, second.state) == (first.id, ContainerState.RUNNING)


def inspected_state(engine: Engine, container_id: str) -> str:
    state: str = engine.ask("GET", f"/containers/{container_id}/json")["State"]["Status"]
    return state


@pytest.mark.engine
class TestReasons:
    async def test_one_that_needed_too_much_memory_says_so(self, bench: Bench) -> None:
        runtime = bench.open()
        hungry = bench.shell("tail /dev/zero", resources=Resources(limit_memory_bytes=16 << 20))
        await runtime.start(bench.request(hungry))
        (ended,) = await until(runtime, bench.node, exited)
        assert ended.exit_code
        assert "memory" in ended.reason


@pytest.mark.engine
class TestAbsence:
    async def test_an_engine_that_goes_and_comes_back_is_used_again(self) -> None:
        require_engines()
        with single_engine() as engine:
            bench = bench_on(engine)
            runtime = bench.open()
            await runtime.start(bench.request(stop_signal="SIGKILL"))
            async with asyncio.timeout(PATIENCE_S), aclosing(runtime.changes()) as changes:
                await anext(changes)
                await asyncio.to_thread(engine.stop)
                with pytest.raises(EngineUnavailable):
                    await _endless(changes)
            with pytest.raises(EngineUnavailable):
                await runtime.containers(bench.node)
            with pytest.raises(EngineUnavailable):
                await runtime.start(bench.request())
            await asyncio.to_thread(engine.start)
            assert exited(await runtime.containers(bench.node))
            started = await runtime.start(bench.request())
            assert started.state is ContainerState.RUNNING
            await bench.clean()
            engine.stop()


class TestNoEngine:
    """What happens where an engine should be and is not; needs none."""

    async def failure(self, url: str) -> str:
        runtime = DockerRuntime(url)
        try:
            with pytest.raises(EngineUnavailable) as failure:
                await runtime.containers("n")
            with pytest.raises(EngineUnavailable):
                await runtime.start(Bench(lambda: runtime, SLEEPER, _nothing).request())
            with pytest.raises(EngineUnavailable):
                async for _ in runtime.changes():
                    pass
            with pytest.raises(EngineUnavailable):
                await runtime.stop("x", 0)
        finally:
            await runtime.close()
        return str(failure.value)

    async def test_a_socket_that_is_not_there(self, tmp_path: Path) -> None:
        assert "No such file" in await self.failure(f"unix://{tmp_path}/none.sock")

    async def test_an_address_that_is_none(self) -> None:
        assert "no address of an engine" in await self.failure("no such thing")

    async def test_a_port_where_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        assert "Cannot connect" in await self.failure(f"tcp://127.0.0.1:{port}")

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"\x00\xff garbage\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]",
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{broken}}",
            b"HTTP/1.1 500 X\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\nno!",
        ],
    )
    async def test_something_else_answers(self, tmp_path: Path, answer: bytes) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
            writer.close()

        async with await asyncio.start_unix_server(talk, tmp_path / "other.sock"):
            await self.failure(f"unix://{tmp_path}/other.sock")


class FakeEngine:
    """An engine that has no image and whose registry does not answer; it counts the pulls."""

    def __init__(self) -> None:
        self.pulls = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                if b"/images/create" in head:
                    self.pulls += 1
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                elif b"/containers/create" in head:
                    self.answer(writer, b"404 Not Found", b'{"message": "No such image: nowhere:1"}')
                else:
                    self.answer(writer, b"200 OK", b'{"ApiVersion": "1.41"}')
                await writer.drain()
        writer.close()

    @staticmethod
    def answer(writer: asyncio.StreamWriter, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % (status, len(body)) + body)


async def test_a_registry_that_says_nothing_is_asked_once_and_not_for_ever(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with await asyncio.start_unix_server(engine.talk, tmp_path / "engine.sock"):
        runtime = DockerRuntime(f"unix://{tmp_path}/engine.sock", pull_silence_s_max=0.2)
        bench = Bench(lambda: runtime, SLEEPER, _nothing)
        starts = [runtime.start(bench.request(index=index, image="nowhere:1")) for index in range(3)]
        async with asyncio.timeout(PATIENCE_S):
            failures = await asyncio.gather(*starts, return_exceptions=True)
        await runtime.close()
    assert all(isinstance(failure, ImageMissing) and "sent nothing" in str(failure) for failure in failures)
    assert engine.pulls == 1


async def test_closing_ends_a_pull_and_whoever_waits_for_it(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with await asyncio.start_unix_server(engine.talk, tmp_path / "engine.sock"):
        runtime = DockerRuntime(f"unix://{tmp_path}/engine.sock")
        bench = Bench(lambda: runtime, SLEEPER, _nothing)
        start = asyncio.create_task(runtime.start(bench.request(image="nowhere:1")))
        async with asyncio.timeout(PATIENCE_S):
            while not engine.pulls:  # noqa: ASYNC110 - the fake engine tells nobody anything
                await asyncio.sleep(0.005)
            await runtime.close()
            with pytest.raises(EngineUnavailable, match="closed"):
                await start


async def _endless(changes: AsyncIterator[None]) -> None:
    async for _ in changes:
        pass


async def _nothing(_: Container) -> None:
    return None
