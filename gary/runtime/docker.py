"""Containers on a Docker engine, or on anything that speaks its API (Podman does).

A fresh start costs three requests (create, start, inspect); an image is looked at only when the engine has said that it
lacks it, a name only when the engine has said that it is in use. A list costs one request, and one inspection for each
container that has changed since the last list.

Every request has a time limit, and whatever goes wrong leaves here as one of ``gary.runtime.errors``. Logs and events
are read from the engine's raw streams: aiodocker's own readers drop which stream a line was written to, and how the
stream ended.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Final

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError

from gary.runtime import docker_api as api
from gary.runtime.base import Capacity, Container, ContainerState, LogChunk, StartRequest
from gary.runtime.errors import (
    ContainerMissing,
    EngineUnavailable,
    ImageMissing,
    NameTaken,
    PortTaken,
    StartRefused,
    StopFailed,
)
from gary.runtime.host import listening_ports

CONNECT_S_MAX: Final = 5.0
REQUEST_S_MAX: Final = 30.0
START_S_MAX: Final = 120.0
"""Creating and starting copies no image, but a busy disk or a slow name server has been seen to take a minute."""
PULL_S_MAX: Final = 1800.0
PULL_SILENCE_S_MAX: Final = 60.0
"""A pull that reports no progress for this long is given up: an unreachable registry must not hold a slot for ever."""
LINE_BYTES_MAX: Final = 1 << 20
"""Of an event or a line of progress; an engine that sends a longer one is not an engine."""
START_ATTEMPTS: Final = 5
"""Creating, and once more after a pull, after a container of the same name has gone or has been replaced."""

_EVENTS: Final = {
    "type": ["container"],
    "event": ["start", "die", "oom", "pause", "unpause", "destroy", "health_status"],
    "label": ["gary.deployment"],
}
_NO_CONNECTION: Final = 900
"""The status that aiodocker gives an error when there was no answer to have a status."""


class DockerRuntime:
    """The engine at ``url``: ``unix:///run/docker.sock``, ``tcp://HOST:PORT`` or ``ssh://USER@HOST``.

    Nothing is connected before the first call; all calls come from one event loop.
    """

    def __init__(self, url: str, *, pull_silence_s_max: float = PULL_SILENCE_S_MAX) -> None:
        self._url = url
        self._pull_silence_s_max = pull_silence_s_max
        self._docker: aiodocker.Docker | None = None
        self._greeting = asyncio.Lock()
        self._details: dict[str, api.Detail] = {}
        self._pulls: dict[str, asyncio.Task[None]] = {}

    @property
    def name(self) -> str:
        return "docker"

    async def capacity(self) -> Capacity:
        try:
            async with self._engine(REQUEST_S_MAX) as docker:
                info = await docker.system.info()
                running = await docker.containers.list(filters={"status": ["running"]})
                published = [port.get("PublicPort", 0) for entry in running for port in entry["Ports"] or ()]
                # An engine behind a unix socket is on this host, whose other programs hold ports too.
                local = listening_ports() if self._url.startswith("unix:") else frozenset()
                return Capacity(
                    cpus=float(info["NCPU"]),
                    memory_bytes=int(info["MemTotal"]),
                    architecture=str(info["Architecture"]),
                    ports_in_use=local.union(port for port in published if port),
                )
        except DockerError as error:
            raise EngineUnavailable(self.name, error.message) from error

    async def containers(self, node: str | None) -> Sequence[Container]:
        label = "gary.deployment" if node is None else f"{api.LABEL_NODE}={node}"
        try:
            async with self._engine(REQUEST_S_MAX) as docker:
                entries = await docker.containers.list(all=True, filters={"label": [label]})
                read = [api.summary_of(entry._container) for entry in entries]
        except DockerError as error:
            raise EngineUnavailable(self.name, error.message) from error
        listed = [summary for summary in read if summary is not None]
        present = {summary.id for summary in listed}
        self._details = {key: detail for key, detail in self._details.items() if key in present}
        seen = [await self._container(summary) for summary in listed]
        return sorted((container for container in seen if container is not None), key=lambda c: (c.name, c.id))

    async def _container(self, summary: api.Summary) -> Container | None:
        """The listed container with what only an inspection tells; None when it has gone meanwhile."""
        detail = self._details.get(summary.id)
        if detail is not None and detail.sign == summary.sign:
            return summary.container(detail)
        try:
            return await self._inspect(summary.id)
        except ContainerMissing:
            return None

    async def _inspect(self, id_or_name: str) -> Container | None:
        """None: it is not Gary's. Raises ``ContainerMissing``."""
        try:
            async with self._engine(REQUEST_S_MAX) as docker:
                read = api.inspected(await docker.containers.container(id_or_name).show())
        except DockerError as error:
            if error.status == 404:
                raise ContainerMissing(id_or_name) from error
            raise EngineUnavailable(self.name, error.message) from error
        if read is None:
            return None
        summary, detail = read
        self._details[summary.id] = detail
        return summary.container(detail)

    async def start(self, request: StartRequest) -> Container:
        pulled = False
        for _ in range(START_ATTEMPTS):
            try:
                container_id = await self._create(request)
            except DockerError as error:
                if api.says_name_taken(error.message):
                    present = await self._present(request)
                    if present is not None:
                        return present
                elif not api.says_image_missing(error.message):
                    raise StartRefused(error.message) from error
                elif pulled:
                    raise ImageMissing(request.service.image, error.message) from error
                else:
                    await self._pull(request.service.image)
                    pulled = True
            else:
                return await self._run(container_id)
        raise StartRefused(f"somebody else keeps making and removing containers called {request.name!r}")

    async def _create(self, request: StartRequest) -> str:
        async with self._engine(START_S_MAX) as docker:
            body = api.configuration(request, api.version_of(docker.api_version))
            return (await docker.containers.create(body, name=request.name)).id

    async def _present(self, request: StartRequest) -> Container | None:
        """The container that has the name, running and as requested; None when the name is free now."""
        try:
            container = await self._inspect(request.name)
        except ContainerMissing:
            return None
        if container is None or not request.labels.owns(container.labels):
            raise NameTaken(request.name)
        if not request.labels.satisfied_by(container.labels):
            await self.stop(container.id, request.service.stop_grace_period_s)
            return None
        if container.state is ContainerState.RUNNING:
            return container
        try:
            return await self._run(container.id)
        except StartRefused:
            return None  # it is gone now; a new one gets its chance, and has its say if it is refused too

    async def _run(self, container_id: str) -> Container:
        """Start a container that stands still. When the engine refuses, nothing of it is left."""
        try:
            async with self._engine(START_S_MAX) as docker:
                await docker.containers.container(container_id).start()
        except DockerError as error:
            await self.stop(container_id, 0)
            raise (PortTaken if api.says_port_taken(error.message) else StartRefused)(error.message) from error
        try:
            container = await self._inspect(container_id)
        except ContainerMissing as error:
            raise StartRefused("somebody else removed the container while it was being started") from error
        assert container is not None, "it was created with Gary's labels, and an engine never changes labels"
        return container

    async def _pull(self, image: str) -> None:
        """Pull it, or wait for the pull of it that is under way. Raises ``ImageMissing``."""
        pull = self._pulls.get(image)
        if pull is None:
            pull = asyncio.create_task(self._pull_now(image))
            self._pulls[image] = pull
            pull.add_done_callback(lambda done: self._pulled(image, done))
        await asyncio.wait([pull])
        if pull.cancelled():
            raise EngineUnavailable(self.name, "the runtime was closed")
        pull.result()

    def _pulled(self, image: str, pull: asyncio.Task[None]) -> None:
        self._pulls.pop(image, None)
        if not pull.cancelled():
            pull.exception()  # taken note of, even if nobody waits for it any more

    async def _pull_now(self, image: str) -> None:
        try:
            async with asyncio.timeout(PULL_S_MAX), asyncio.timeout(self._pull_silence_s_max) as silence:
                loop = asyncio.get_running_loop()
                parameters = {"fromImage": api.tagged(image)}
                async with self._stream("images/create", parameters, "POST", math.inf) as content:
                    async for line in self._lines(content):
                        silence.reschedule(loop.time() + self._pull_silence_s_max)
                        error = api.progress_error(line)
                        if error:
                            raise ImageMissing(image, error)
        except TimeoutError as error:
            raise ImageMissing(image, f"the registry sent nothing for {self._pull_silence_s_max:g} s") from error
        except DockerError as error:
            raise ImageMissing(image, error.message) from error

    async def stop(self, container_id: str, grace_s: float) -> None:
        grace = math.ceil(grace_s)
        try:
            async with self._engine(grace + START_S_MAX) as docker:
                container = docker.containers.container(container_id)
                if grace:
                    await container.stop(t=grace)
                await container.delete(force=True, v=True)
        except DockerError as error:
            if error.status != 404 and not api.says_being_removed(error.message):
                raise StopFailed(error.message) from error
        self._details.pop(container_id, None)

    async def logs(self, container_id: str, *, follow: bool, tail: int | None) -> AsyncGenerator[LogChunk, None]:
        parameters = {"stdout": 1, "stderr": 1, "follow": int(follow), "tail": "all" if tail is None else tail}
        frames = api.LogFrames()
        try:
            async with self._stream(f"containers/{container_id}/logs", parameters) as content:
                while data := await self._read(content):
                    for chunk in frames.feed(data):
                        yield chunk
        except DockerError as error:
            if error.status == 404:
                raise ContainerMissing(container_id) from error
            raise EngineUnavailable(self.name, error.message) from error

    async def changes(self) -> AsyncGenerator[None, None]:
        try:
            async with self._stream("events", {"filters": json.dumps(_EVENTS)}) as content:
                yield None
                async for line in self._lines(content):
                    ended = api.container_that_ended(line)
                    if ended:
                        # It may run again before the next list, which would then look as if nothing had happened.
                        self._details.pop(ended, None)
                    yield None
                raise EngineUnavailable(self.name, "it closed the stream of events")
        except DockerError as error:
            raise EngineUnavailable(self.name, error.message) from error
        except EngineUnavailable:
            if self._docker is not None:
                self._docker.api_version = "auto"  # what comes back may be another version of the engine
            raise

    async def close(self) -> None:
        pulls = list(self._pulls.values())
        for pull in pulls:
            pull.cancel()
        if pulls:
            await asyncio.wait(pulls)
        docker, self._docker = self._docker, None
        if docker is not None:
            await docker.close()

    # The connection. A DockerError that passes through here carries the engine's own words.

    @asynccontextmanager
    async def _engine(self, limit_s: float) -> AsyncIterator[aiodocker.Docker]:
        """The client, for as long as ``limit_s``."""
        with self._translated():
            try:
                async with asyncio.timeout(None if math.isinf(limit_s) else limit_s):
                    yield await self._greeted()
            except TimeoutError as error:
                raise EngineUnavailable(self.name, f"no answer within {limit_s:g} s") from error

    @asynccontextmanager
    async def _stream(
        self, path: str, parameters: Mapping[str, Any], method: str = "GET", limit_s: float = REQUEST_S_MAX
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """An answer that has no end yet; ``limit_s`` is for its beginning."""
        async with AsyncExitStack() as stack:
            async with self._engine(limit_s) as docker:
                endless = aiohttp.ClientTimeout(sock_connect=CONNECT_S_MAX)
                query = docker._query(path, method, params=dict(parameters), timeout=endless)
                response = await stack.enter_async_context(query)
                stack.callback(response.close)
            yield response.content

    async def _read(self, content: aiohttp.StreamReader) -> bytes:
        with self._translated():
            return await content.readany()

    async def _lines(self, content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        rest = b""
        while data := await self._read(content):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > LINE_BYTES_MAX:
                raise EngineUnavailable(self.name, "it sends a line without end")
            for line in lines:
                yield line

    async def _greeted(self) -> aiodocker.Docker:
        """The client, once the engine has said which API it speaks."""
        async with self._greeting:
            if self._docker is None:
                try:
                    timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_S_MAX)
                    self._docker = aiodocker.Docker(url=self._url, timeout=timeout)
                except (ValueError, ImportError) as error:
                    raise EngineUnavailable(self.name, f"{self._url!r} is no address of an engine: {error}") from error
            if self._docker.api_version == "auto":
                try:
                    await self._docker.version()
                except DockerError as error:
                    if error.status == _NO_CONNECTION:
                        raise
                    raise EngineUnavailable(self.name, f"it does not tell its version: {error.message}") from error
            return self._docker

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DockerError as error:
            if error.status != _NO_CONNECTION:
                raise
            raise EngineUnavailable(self.name, error.message) from error
        except aiohttp.ClientPayloadError as error:
            raise EngineUnavailable(self.name, "it broke off in the middle of an answer") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnavailable(self.name, str(error) or type(error).__name__) from error
        except api.MALFORMED as error:
            raise EngineUnavailable(self.name, f"what answers does not speak the engine API ({error!r})") from error
