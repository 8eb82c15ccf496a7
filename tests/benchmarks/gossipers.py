"""Processes that do nothing but gossip, for benchmarks: some nodes each, told by lines of JSON on standard input.

start {"nodes": [...], "seeds": [...]}   every node with its own transport and ``gossip.Swim``
restart                                  all of them at once, abruptly, one epoch later and at the same addresses
report                                   what happened since the start or restart
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gossip import Effect, Lane, MemberChanged, Peer, Send, SetTimer, Status, Swim, SwimConfig
from gossip.messages import Frame, Ping, decode
from gossip.nng import NngTransport
from gossip.transport import Credentials, TransportConfig

CLUSTER = bytes(16)


@dataclass(frozen=True)
class NodeSpec:
    """One node: its id, where it listens, and what it shows (nothing: no TLS)."""

    node: str
    bind: str
    credentials: Credentials | None


def open_files() -> None:
    """As many as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Gossiper:
    """One node: the loop around a ``Swim``. Times are seconds since ``begun``, a reading of ``time.monotonic``."""

    def __init__(self, spec: NodeSpec, epoch: int, seeds: Sequence[Peer], begun: float) -> None:
        self._spec = spec
        self._epoch = epoch
        self._seeds = [seed for seed in seeds if seed.node != spec.node]
        self._begun = begun
        self._loop = asyncio.get_running_loop()
        self._transport = NngTransport(TransportConfig(spec.node, spec.bind, credentials=spec.credentials))
        self._open = False
        self.heard_at: float | None = None
        self.probed_at: float | None = None
        self.accused: list[tuple[str, str]] = []

    async def start(self) -> None:
        await self._transport.start(self)
        self._swim = Swim(
            node=self._spec.node,
            address=self._transport.address,
            cluster=CLUSTER,
            epoch=self._epoch,
            config=SwimConfig(),
            rng=random.Random(f"{self._spec.node}{self._epoch}"),
            welcome=bytes,
        )
        self._open = True
        self._perform(self._swim.start(self._loop.time(), self._seeds))

    async def close(self) -> None:
        self._open = False
        await self._transport.close()

    def alive(self) -> int:
        """How many members are alive, as this node sees it."""
        return len(self._swim.alive())

    def received(self, sender: str, lane: Lane, frame: bytes) -> None:
        if not self._open:
            return
        at = time.monotonic() - self._begun
        if self.heard_at is None:
            self.heard_at = at
        if self.probed_at is None and any(isinstance(message, Ping) for message in _messages(frame)):
            self.probed_at = at
        self._perform(self._swim.receive(sender, lane, frame, self._loop.time()))

    def unreachable(self, peer: Peer, reason: str) -> None:
        if self._open:
            self._perform(self._swim.unreachable(peer, reason, self._loop.time()))

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(peer, lane, frame):
                    self._transport.send(peer, lane, frame)
                case SetTimer(timer, delay_s):
                    self._loop.call_later(delay_s, self._timer, timer)
                case MemberChanged(member, _) if member.status in (Status.SUSPECT, Status.DEAD):
                    self.accused.append((member.node, member.status.name))

    def _timer(self, timer: Any) -> None:
        if self._open:
            self._perform(self._swim.timer(timer, self._loop.time()))


def _messages(frame: bytes) -> Sequence[object]:
    decoded = decode(frame, len(frame))
    assert isinstance(decoded, Frame)
    return decoded.messages


class Process:
    """A process of gossipers, from outside."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def tell(self, command: str, **arguments: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
        answer = await self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a process of gossipers ended while it was told to {command}")
        return json.loads(answer)

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@contextlib.asynccontextmanager
async def processes(count: int) -> AsyncIterator[list[Process]]:
    async with contextlib.AsyncExitStack() as stack:
        started = []
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", __spec__.name),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                limit=2**24,
            )
            started.append(Process(process))
            stack.push_async_callback(started[-1].end)
        yield started


def as_json(specs: Iterable[NodeSpec]) -> list[dict[str, object]]:
    """For the command ``start``."""
    return [asdict(spec) for spec in specs]


def _spec(fields: Mapping[str, Any]) -> NodeSpec:
    shown = fields["credentials"]
    credentials = shown and Credentials(shown["certificate"], shown["key"], tuple(shown["roots"]))
    return NodeSpec(fields["node"], fields["bind"], credentials)


async def _serve() -> None:
    specs: list[NodeSpec] = []
    seeds: list[Peer] = []
    gossipers: list[Gossiper] = []
    epoch = 1
    reader = asyncio.StreamReader(limit=2**24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        told = json.loads(line)
        match told["command"]:
            case "start":
                specs = [_spec(fields) for fields in told["nodes"]]
                seeds = [Peer(*seed) for seed in told["seeds"]]
            case "restart":
                epoch += 1
                await asyncio.gather(*(gossiper.close() for gossiper in gossipers))
        if told["command"] in ("start", "restart"):
            gossipers = [Gossiper(spec, epoch, seeds, told["begun"]) for spec in specs]
            await asyncio.gather(*(gossiper.start() for gossiper in gossipers))
        report = [
            {
                "alive": gossiper.alive(),
                "heard_at": gossiper.heard_at,
                "probed_at": gossiper.probed_at,
                "accused": gossiper.accused,
            }
            for gossiper in gossipers
        ]
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    open_files()
    asyncio.run(_serve())
