"""What the demo asks of the things that run containers: can they serve, and take this dead node's containers away.

A host that dies takes its containers with it. On one machine nothing does that by itself, so the demo does it here,
from outside and without the agents' help.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from gary.cli.client import UnixConnection
from gary.errors import GaryError

IMAGE = "busybox"
"""The image of ``samples/demo.yaml``."""
REQUEST_TIMEOUT_S = 30.0
PULL_TIMEOUT_S = 90.0


class Engine(Protocol):
    """``runtime`` is the name by which agents know it; ``sample`` the file of ``gary/samples`` that it can run."""

    runtime: str
    sample: str

    def arguments(self) -> list[str]:
        """What an agent is told to use it."""

    def count(self, node: str, state_dir: Path) -> int:
        """How many containers of ``node`` are there, running or not."""

    def destroy(self, node: str, state_dir: Path) -> None:
        """Kill and remove the containers of ``node``; the node's agent must be dead."""

    def restore(self) -> None:
        """Take away what the demo itself brought to the engine."""


class Unusable(GaryError):
    """This engine cannot run the demo; the sentence says why."""


class DockerEngine:
    """The Docker engine at a unix socket, asked over its API with the standard library."""

    runtime = "docker"
    sample = "demo.yaml"

    def __init__(self, socket_path: Path) -> None:
        """Raises ``Unusable`` unless the engine answers and has the image or can pull it."""
        self._socket_path = socket_path
        self._pulled = False
        if self._ask("GET", "/_ping")[0] != 200:
            raise Unusable(f"no engine answers at {socket_path}")
        if self._ask("GET", f"/images/{IMAGE}/json")[0] != 200:
            status, _ = self._ask("POST", f"/images/create?fromImage={IMAGE}&tag=latest", PULL_TIMEOUT_S)
            if status != 200 or self._ask("GET", f"/images/{IMAGE}/json")[0] != 200:
                raise Unusable(f"the engine at {socket_path} can neither find nor pull the image {IMAGE}")
            self._pulled = True

    def arguments(self) -> list[str]:
        return ["--runtime", "docker", "--docker-host", f"unix://{self._socket_path}"]

    def count(self, node: str, state_dir: Path) -> int:
        return len(self._containers(node))

    def destroy(self, node: str, state_dir: Path) -> None:
        for container in self._containers(node):
            self._ask("DELETE", f"/containers/{container}?force=1&v=1")

    def restore(self) -> None:
        if self._pulled:
            self._ask("DELETE", f"/images/{IMAGE}")

    def _containers(self, node: str) -> list[str]:
        filters = quote(json.dumps({"label": [f"gary.node={node}"]}))
        status, body = self._ask("GET", f"/containers/json?all=1&filters={filters}")
        return [entry["Id"] for entry in json.loads(body)] if status == 200 else []

    def _ask(self, method: str, path: str, timeout_s: float = REQUEST_TIMEOUT_S) -> tuple[int, bytes]:
        connection = UnixConnection(self._socket_path, timeout_s)
        try:
            connection.request(method, path, headers={"Host": "docker"})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise Unusable(f"no engine answers at {self._socket_path}: {reason}") from error
        finally:
            connection.close()


class ProcessEngine:
    """Plain programs of this machine, under each agent's own state directory."""

    runtime = "process"
    sample = "demo-process.yaml"

    def arguments(self) -> list[str]:
        return ["--runtime", "process"]

    def count(self, node: str, state_dir: Path) -> int:
        from gary.runtime import records

        return len(records.ids(_processes_dir(state_dir)))

    def destroy(self, node: str, state_dir: Path) -> None:
        asyncio.run(_stop_processes(_processes_dir(state_dir)))

    def restore(self) -> None:
        """Nothing was brought."""


def _processes_dir(state_dir: Path) -> Path:
    from gary.config import AgentConfig

    return AgentConfig(state_dir).processes_dir


async def _stop_processes(directory: Path) -> None:
    from gary.runtime.process import ProcessRuntime

    runtime = ProcessRuntime(directory)
    try:
        containers = await runtime.containers(None)
        await asyncio.gather(*(runtime.stop(container.id, 0.0) for container in containers))
    finally:
        await runtime.close()


def choose(wanted: str | None, docker_host: str) -> tuple[Engine, str]:
    """The engine for the demo and why it is that one. Raises ``Unusable`` when ``wanted`` cannot be had."""
    if wanted == ProcessEngine.runtime:
        return ProcessEngine(), "as asked"
    scheme, _, path = docker_host.partition("://")
    try:
        if scheme != "unix":
            raise Unusable(f"the demo only uses engines at a unix socket, not {docker_host}")
        return DockerEngine(Path(path)), f"the engine at {path} answers and has the image"
    except Unusable as reason:
        if wanted == DockerEngine.runtime:
            raise
        return ProcessEngine(), str(reason)
