"""The runtimes that come with Gary keep the contract: memory, process, and docker on a real engine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gary.cli.demo.cluster import free_ports
from gary.runtime import linux
from gary.runtime.base import Container
from gary.runtime.docker import DockerRuntime
from gary.runtime.memory import MemoryEngine, MemoryRuntime
from gary.runtime.process import ProcessRuntime, live_processes
from gary.runtime.testing import Bench, ExecutionContract, ImageContract, RuntimeContract
from gary.spec import Port, RuntimeName, Service
from tests.engines.engines import IMAGE, Engine


class Clock:
    """Each look is a moment later, so that no two runs start at the same time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class TestMemory(RuntimeContract, ImageContract):
    @pytest.fixture
    async def bench(self) -> AsyncIterator[Bench]:
        engine, clock = MemoryEngine(), Clock()
        engine.lose_image("gary.invalid/no-such-image:1")

        async def crash(container: Container) -> None:
            engine.crash(container.id, clock())

        bench = Bench(lambda: MemoryRuntime(engine, clock), Service(name="web", image="web:1"), crash)
        yield bench
        await bench.clean()


LISTEN = """
import socket, sys
server = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
server.accept()
"""


class TestProcess(RuntimeContract, ExecutionContract):
    @pytest.fixture
    async def bench(self, tmp_path: Path) -> AsyncIterator[Bench]:
        async def crash(container: Container) -> None:
            # The program, as soon as there is one, and not the shell that leads its session.
            while len(processes := linux.marked(container.id)) < 2:  # noqa: ASYNC110 - /proc tells nobody anything
                await asyncio.sleep(0.005)
            linux.send(processes[-1], signal.SIGKILL)

        def listener(port: int) -> Service:
            command = (sys.executable, "-c", LISTEN, str(port))
            return Service(name="web", runtime=RuntimeName.PROCESS, command=command)

        [port] = free_ports(1)  # None of those that the kernel gives to connections of other tests meanwhile.
        bench = Bench(
            lambda: ProcessRuntime(tmp_path),
            Service(name="web", runtime=RuntimeName.PROCESS, command=("sleep", "600")),
            crash,
            ports=(Port(port, host=port),),
            fixed_port=port,
            listener=listener,
        )
        yield bench
        await bench.clean()
        assert live_processes(tmp_path) == []
        assert os.listdir(tmp_path) == []  # noqa: PTH208 - names are all that is needed


@pytest.mark.engine
class TestDocker(RuntimeContract, ExecutionContract, ImageContract):
    @pytest.fixture
    async def bench(self, engine: Engine) -> AsyncIterator[Bench]:
        async def crash(container: Container) -> None:
            engine.ask("POST", f"/containers/{container.id}/kill")

        service = Service(name="web", image=IMAGE, command=("sleep", "600"), network_mode="host")
        listener = replace(service, command=("sh", "-c", "echo ready; exec sleep 600"), network_mode="bridge")
        bench = Bench(lambda: DockerRuntime(engine.url), service, crash, listener=lambda port: listener)
        yield bench
        await bench.clean()
        assert engine.containers(f"gary.deployment={bench.deployment}", running=False) == []
