"""Those that are measured: the bare engine API, Docker Swarm and Gary, each driven through its local API."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import aiodocker

from gary.spec import Service, Spec, to_json
from tests.engines.engines import IMAGE, EngineError, request
from tests.engines.hosts import Cluster, Host
from tests.engines.namespaces import address

COMMAND = ("sleep", "1000000")
MANAGERS = 3
SWARM_PORT = 2377
READY_TIMEOUT_S = 30.0


class Contestant(Protocol):
    """One way to get containers to run on the hosts of a cluster."""

    name: str
    survives: bool
    """Whether it replaces what a lost host ran."""

    def prepare(self, cluster: Cluster) -> None:
        """Make a cluster of all hosts; they are as after ``Cluster.reset``."""

    def deploy(self, cluster: Cluster, count: int, network: str) -> float:
        """Ask for ``count`` containers; the monotonic time at which the request was on its way to the local API."""

    def special(self, cluster: Cluster) -> Host:
        """The host that the others might depend on: the leader, or where the application was deployed."""

    def clear(self, cluster: Cluster) -> None:
        """Leave the hosts as they were, all of them on and linked again."""


class RawApi:
    """Each container created and started through its engine's API, all at once: as fast as these engines can be."""

    name = "raw API"
    survives = False

    def prepare(self, cluster: Cluster) -> None:
        """Nothing is needed."""

    def deploy(self, cluster: Cluster, count: int, network: str) -> float:
        return asyncio.run(self._deploy(cluster.hosts, count, network))

    async def _deploy(self, hosts: Sequence[Host], count: int, network: str) -> float:
        clients = [aiodocker.Docker(url=host.engine.url) for host in hosts]
        try:
            await asyncio.gather(*(client.version() for client in clients))
            begin = time.monotonic()
            await asyncio.gather(*(self._run(clients[n % len(clients)], network) for n in range(count)))
            return begin
        finally:
            await asyncio.gather(*(client.close() for client in clients))

    async def _run(self, client: aiodocker.Docker, network: str) -> None:
        config: dict[str, Any] = {"Image": IMAGE, "Cmd": list(COMMAND), "HostConfig": {"NetworkMode": network}}
        container = await client.containers.create(config)
        await container.start()

    def special(self, cluster: Cluster) -> Host:
        return cluster.hosts[0]

    def clear(self, cluster: Cluster) -> None:
        """Nothing is left but containers."""


class Swarm:
    """Docker's own orchestrator, with three managers; the first of them is the leader."""

    name = "Swarm"
    survives = True

    def prepare(self, cluster: Cluster) -> None:
        leader, *others = cluster.hosts
        self._enter(leader, "/swarm/init", {})
        tokens = leader.engine.ask("GET", "/swarm")["JoinTokens"]
        for position, host in enumerate(others, start=1):
            token = tokens["Manager" if position < MANAGERS else "Worker"]
            self._enter(
                host, "/swarm/join", {"JoinToken": token, "RemoteAddrs": [f"{address(leader.number)}:{SWARM_PORT}"]}
            )

        def ready() -> bool:
            nodes = leader.engine.ask("GET", "/nodes")
            return len(nodes) == len(cluster.hosts) and all(node["Status"]["State"] == "ready" for node in nodes)

        cluster.eventually(ready, READY_TIMEOUT_S, "all of the swarm is ready")

    def _enter(self, host: Host, target: str, more: dict[str, object]) -> None:
        own = f"{address(host.number)}:{SWARM_PORT}"
        host.engine.ask("POST", target, {"ListenAddr": own, "AdvertiseAddr": own, **more})

    def deploy(self, cluster: Cluster, count: int, network: str) -> float:
        task: dict[str, object] = {"ContainerSpec": {"Image": IMAGE, "Command": list(COMMAND)}}
        if network == "host":
            task["Networks"] = [{"Target": "host"}]
        service = {"Name": "benchmark", "TaskTemplate": task, "Mode": {"Replicated": {"Replicas": count}}}
        begin = time.monotonic()
        cluster.hosts[0].engine.ask("POST", "/services/create", service)
        return begin

    def special(self, cluster: Cluster) -> Host:
        return cluster.hosts[0]

    def clear(self, cluster: Cluster) -> None:
        for host in reversed(cluster.hosts):  # the leader last
            try:
                host.engine.ask("POST", "/swarm/leave?force=1")
            except EngineError:
                self._start_afresh(host)

    def _start_afresh(self, host: Host) -> None:
        """A manager without a quorum may not leave in any other way."""
        host.engine.stop()
        host.engine.forget_swarm()
        host.engine.start()


class Gary:
    """An agent on each host; the application is deployed at the first one."""

    name = "Gary"
    survives = True

    def prepare(self, cluster: Cluster) -> None:
        cluster.start_agents(len(cluster.hosts))

    def deploy(self, cluster: Cluster, count: int, network: str) -> float:
        service = Service(
            name="web", image=IMAGE, command=COMMAND, network_mode=network, stop_signal="SIGKILL", replicas=count
        )
        spec = Spec("benchmark", (service,))
        body = json.dumps({"spec": to_json(spec), "dry_run": False, "replace": False}).encode()
        agent = cluster.hosts[0].agent
        begin = time.monotonic()
        status, answer = request(agent.socket, "POST", "/v1/deployments", body)
        if status != 200:
            raise RuntimeError(f"the deployment was refused: {status} {answer.decode(errors='replace')}")
        return begin

    def special(self, cluster: Cluster) -> Host:
        return cluster.hosts[0]

    def clear(self, cluster: Cluster) -> None:
        """What is left is what ``Cluster.reset`` removes."""


def daemons(host: Host, contestant: Contestant) -> list[int]:
    """The processes that the contestant's orchestration runs in: the agent, or the engine's daemons."""
    if isinstance(contestant, Gary):
        return [host.agent.pid]
    return [pid for pid in host.machine.processes() if Path(f"/proc/{pid}/comm").read_text().strip() in _ENGINE_DAEMONS]


_ENGINE_DAEMONS = ("dockerd", "containerd")
