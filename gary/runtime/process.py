"""Containers that are plain processes of the host, for programs that need no image and where no engine answers.

Each container is one directory (``records``) and one session of processes. Its leader is a shell that does nothing but
run the program and write down the code that it ended with, so that the agent may die, be upgraded and come back: what
it finds on disk and in ``/proc`` is all that it needs to take the container up again. Under systemd that asks for
``KillMode=process`` in the agent's unit.

A process sees the host as it is: its files, its network, its users. What only a real container can give is refused by
name and never left out in silence.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final

from gary.runtime import health, linux, logfiles
from gary.runtime.base import Capacity, Container, ContainerState, Health, LogChunk, PublishedPort, StartRequest
from gary.runtime.errors import ContainerMissing, EngineUnavailable, NameTaken, StartRefused, StopFailed
from gary.runtime.host import listening_ports, memory_bytes
from gary.runtime.programs import Program, check_ports, program_of, signal_number
from gary.runtime.records import CorruptRecordError, Record, Records, Run
from gary.spec import SpecError

_log = logging.getLogger(__name__)

LOG_BYTES_MAX: Final = 10 * 1024 * 1024
"""Of each stream of each container that stays on disk; what is older goes. Kept as long as an agent runs."""
LOG_TRIM_INTERVAL_S: Final = 10.0
FOLLOW_INTERVAL_S: Final = 0.2
KILL_S_MAX: Final = 10.0
"""How long killed processes may take to disappear; those that take longer hang in the kernel."""
YOUNG_S: Final = 1.0
"""A container that is older than this has certainly got as far as running its program."""
BURIAL_S_MAX: Final = 1.0
"""How long ``close`` waits for killed health checks to disappear."""
CHECK_OUTPUT_BYTES_MAX: Final = 500


class ProcessRuntime:
    """The containers under ``directory``. One runtime at a time works on a directory; others may look."""

    def __init__(self, directory: str | Path) -> None:
        self._records = Records(Path(directory).absolute())
        self._guards: dict[str, asyncio.Task[None]] = {}
        self._settled: set[str] = set()
        self._stops: dict[str, asyncio.Task[None]] = {}
        self._burials: set[asyncio.Task[None]] = set()
        self._trimming: asyncio.Task[None] | None = None
        self._listeners: list[asyncio.Event] = []
        self._is_closed = False

    @property
    def name(self) -> str:
        return "process"

    async def capacity(self) -> Capacity:
        try:
            return Capacity(
                cpus=float(len(os.sched_getaffinity(0))),
                memory_bytes=memory_bytes(),
                architecture=platform.machine(),
                ports_in_use=listening_ports(),
            )
        except (OSError, ValueError) as error:
            raise EngineUnavailable(self.name, f"the host does not tell what it has: {error}") from error

    async def containers(self, node: str | None) -> Sequence[Container]:
        seen = self._refresh()
        return [_container(record, run) for record, run in seen if node is None or record.labels.node == node]

    async def start(self, request: StartRequest) -> Container:
        program = program_of(request.service)
        while True:
            present = next(((r, run) for r, run in self._refresh() if r.name == request.name), None)
            if present is None:
                return self._create(request, program)
            record, run = present
            if not request.labels.owns(record.labels):
                raise NameTaken(request.name)
            if record.id in self._stops:
                await asyncio.wait([self._stops[record.id]])
            elif not request.labels.satisfied_by(record.labels):
                await self.stop(record.id, request.service.stop_grace_period_s)
            elif run is not None and linux.is_alive(run.process):
                return _container(record, run)
            elif record.id in self._guards:
                await asyncio.wait([self._guards[record.id]])  # it clears away what is left of the last run
            else:
                return self._run(record, program)

    async def stop(self, container_id: str, grace_s: float) -> None:
        stop = self._stops.get(container_id)
        if stop is None:
            present = next(((r, run) for r, run in self._refresh() if r.id == container_id), None)
            if present is None:
                return
            stop = asyncio.create_task(self._stop(*present, grace_s))
            self._stops[container_id] = stop
            stop.add_done_callback(lambda done: self._stopped(container_id, done))
        await asyncio.wait([stop])
        if stop.cancelled():
            raise StopFailed("the runtime was closed")
        stop.result()

    async def logs(self, container_id: str, *, follow: bool, tail: int | None) -> AsyncGenerator[LogChunk, None]:
        """Like every runtime's; ``tail`` counts for each stream, because nobody knows what was written first."""
        record = self._records_by_id().get(container_id)
        if record is None:
            raise ContainerMissing(container_id)
        files = {"stdout": record.stdout, "stderr": record.stderr}
        offsets = {
            stream: logfiles.beginning(path) if tail is None else logfiles.last_lines(path, tail)
            for stream, path in files.items()
        }
        while True:
            # Asked before reading: what is written before the end is read in this turn.
            is_over = not follow or not _is_running(record)
            for stream, path in files.items():
                if logfiles.size_bytes(path) < offsets[stream]:
                    offsets[stream] = 0  # it was emptied, because it had grown too large
                while data := logfiles.read(path, offsets[stream]):
                    offsets[stream] += len(data)
                    yield LogChunk(stream, data)
            if is_over:
                return
            await asyncio.sleep(FOLLOW_INTERVAL_S)

    async def changes(self) -> AsyncGenerator[None, None]:
        changed = asyncio.Event()
        self._listeners.append(changed)
        try:
            self._refresh()
            while not self._is_closed:
                yield None
                await changed.wait()
                changed.clear()
        finally:
            self._listeners.remove(changed)
        raise EngineUnavailable(self.name, "the runtime was closed")

    async def close(self) -> None:
        self._is_closed = True
        tasks = [*self._guards.values(), *self._stops.values()]
        if self._trimming is not None:
            tasks.append(self._trimming)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._burials:
            _, hanging = await asyncio.wait(self._burials, timeout=BURIAL_S_MAX)
            for burial in hanging:
                burial.cancel()
        self._changed()

    # What is there

    def _records_by_id(self) -> dict[str, Record]:
        try:
            return dict(self._records.refresh())
        except OSError as error:
            raise EngineUnavailable(self.name, f"its directory cannot be read: {error}") from error

    def _refresh(self) -> list[tuple[Record, Run | None]]:
        """All containers with their last runs, each of which has its guard."""
        found: list[tuple[Record, Run | None]] = []
        for record in self._records_by_id().values():
            try:
                run = record.run() or _unrecorded(record)
            except CorruptRecordError as error:
                self._records.set_aside(record.id, str(error))
                continue
            found.append((record, run))
            if run is not None and record.id not in self._settled and not self._is_closed:
                self._watch(record, run)
        self._settled &= {record.id for record, _ in found}
        if found and self._trimming is None and not self._is_closed:
            self._trimming = asyncio.create_task(self._trim())
        return found

    def _changed(self) -> None:
        for listener in self._listeners:
            listener.set()

    # Starting and stopping

    def _create(self, request: StartRequest, program: Program) -> Container:
        check_ports(request.service)
        try:
            record = self._records.create(request)
        except SpecError as error:
            raise StartRefused(f"its spec could not be read again: {error}") from error
        except OSError as error:
            raise StartRefused(f"its directory cannot be written: {error}") from error
        try:
            return self._run(record, program)
        except StartRefused:
            self._records.remove(record)
            raise

    def _run(self, record: Record, program: Program) -> Container:
        """Start a container that stands still. Raises ``PortTaken`` or ``StartRefused``."""
        check_ports(record.service)
        argv, environment = program.supervised(record.id, record.exit, signal_number(record.service.stop_signal))
        try:
            record.forget_run()
            process = linux.spawn(argv, environment, record.stdout, record.stderr)
        except (OSError, ValueError) as error:
            raise StartRefused(f"it cannot be started: {error}") from error
        run = Run(process, time.time())
        try:
            record.started(run)
        except OSError as error:
            linux.send_to_group(process, signal.SIGKILL)
            self._bury(process)
            raise StartRefused(f"its directory cannot be written: {error}") from error
        self._settled.discard(record.id)
        self._watch(record, run)
        self._changed()
        return _container(record, run)

    async def _stop(self, record: Record, run: Run | None, grace_s: float) -> None:
        if run is not None:
            if grace_s > 0:
                await self._until_it_has_a_program(record, run)
                linux.send_to_group(run.process, signal_number(record.service.stop_signal))
                try:
                    async with asyncio.timeout(grace_s):
                        await linux.ended(run.process)
                except TimeoutError:
                    _log.info("%s did not end within %g s and is killed", record.name, grace_s)
            linux.send_to_group(run.process, signal.SIGKILL)
        try:
            await self._sweep(record, run)
            guard = self._guards.get(record.id)
            if guard is not None:
                await asyncio.wait([guard])
            self._records.remove(record)
        except TimeoutError as error:
            raise StopFailed(f"it was killed but did not disappear within {KILL_S_MAX:g} s") from error
        except OSError as error:
            raise StopFailed(f"its directory cannot be removed: {error}") from error
        self._changed()

    async def _until_it_has_a_program(self, record: Record, run: Run) -> None:
        """A signal that comes before the shell has started the program would be lost."""
        leader = linux.command_line(run.process)
        while time.time() - run.started_at_s < YOUNG_S and linux.is_alive(run.process):
            if any(linux.command_line(process) not in (b"", leader) for process in linux.marked(record.id)):
                return
            await asyncio.sleep(YOUNG_S / 100)

    def _stopped(self, container_id: str, stop: asyncio.Task[None]) -> None:
        self._stops.pop(container_id, None)
        if not stop.cancelled():
            stop.exception()  # taken note of, even if nobody waits for it any more

    async def _sweep(self, record: Record, run: Run | None) -> None:
        """Kill every process that the run has left. Raises ``TimeoutError``."""
        async with asyncio.timeout(KILL_S_MAX):
            while left := await asyncio.to_thread(linux.marked, record.id):
                if _last_run(record) != run:
                    return  # another runtime on this directory has started it again: these may be the new run's
                for process in left:
                    linux.send(process, signal.SIGKILL)
                for process in left:
                    await linux.ended(process)
                    linux.reap(process)

    # Guarding

    def _watch(self, record: Record, run: Run) -> None:
        if record.id not in self._guards:
            guard = asyncio.create_task(self._guard(record, run))
            self._guards[record.id] = guard
            guard.add_done_callback(lambda _: self._guards.pop(record.id, None))

    async def _guard(self, record: Record, run: Run) -> None:
        """From the start of a run, or from its discovery, until nothing is left of it."""
        checks = asyncio.create_task(self._check(record, run))
        try:
            await linux.ended(run.process)
        finally:
            checks.cancel()
            await asyncio.wait([checks])
        linux.reap(run.process)
        try:
            await self._sweep(record, run)
        except TimeoutError:
            _log.warning("processes that %s has left behind do not disappear", record.name)
        self._settled.add(record.id)
        self._changed()

    async def _check(self, record: Record, run: Run) -> None:
        check = record.service.healthcheck
        if check is None or not health.is_checked(check):
            return
        findings = health.Findings(record.health())
        while True:
            await asyncio.sleep(health.pause_s(findings, check, time.time() - run.started_at_s))
            try:
                passed = await self._passes(record, check.test, check.timeout_s)
                before, findings = findings, health.after(findings, check, passed, time.time() - run.started_at_s)
                if findings.health is not before.health:
                    record.found(findings.health)
                    self._changed()
            except (OSError, StartRefused) as error:
                _log.warning("the health check of %s could not be run: %s", record.name, error)

    async def _passes(self, record: Record, test: tuple[str, ...], timeout_s: float) -> bool:
        argv, environment = program_of(record.service).check(test, record.id)
        record.check_output.unlink(missing_ok=True)
        process = linux.spawn(argv, environment, record.check_output, record.check_output)
        try:
            async with asyncio.timeout(timeout_s or None):
                await linux.ended(process)
        except TimeoutError:
            record.check_output.write_text(f"it took longer than {timeout_s:g} s")
            return False
        else:
            return linux.reap(process) == 0
        finally:
            linux.send_to_group(process, signal.SIGKILL)
            self._bury(process)

    def _bury(self, process: linux.Identity) -> None:
        """Let go of a child as soon as it has ended."""
        if linux.status(process.pid) is None or linux.reap(process) is not None:
            return
        burial = asyncio.create_task(_burial(process))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)

    async def _trim(self) -> None:
        while True:
            await asyncio.sleep(LOG_TRIM_INTERVAL_S)
            try:
                for record in self._records_by_id().values():
                    for path in (record.stdout, record.stderr):
                        logfiles.trim(path, LOG_BYTES_MAX)
            except (OSError, EngineUnavailable) as error:
                _log.warning("logs of containers could not be kept short: %s", error)


def live_processes(directory: Path) -> list[linux.Identity]:
    """All that runs for the containers under ``directory``: for whoever has to end a host with all that is on it."""
    return [
        process for container_id in Records(directory.absolute()).refresh() for process in linux.marked(container_id)
    ]


async def _burial(process: linux.Identity) -> None:
    await linux.ended(process)
    linux.reap(process)


def _last_run(record: Record) -> Run | None:
    try:
        return record.run()
    except CorruptRecordError:
        return None  # the next look at the directory sets it aside


def _is_running(record: Record) -> bool:
    run = _last_run(record)
    return run is not None and linux.is_alive(run.process)


def _unrecorded(record: Record) -> Run | None:
    """The run of a container whose agent died between starting it and writing that down."""
    for process in linux.marked(record.id):
        found = linux.status(process.pid)
        if found is not None and found.session == process.pid:
            run = Run(process, record.path.stat().st_mtime)
            record.started(run)
            return run
    return None


def _container(record: Record, run: Run | None) -> Container:
    state, code, finished_at_s, reason = ContainerState.CREATED, None, 0.0, ""
    found = Health.NONE
    if run is not None and linux.is_alive(run.process):
        state = ContainerState.RUNNING
        if health.is_checked(record.service.healthcheck):
            found = record.health()
        if found is Health.UNHEALTHY:
            words = logfiles.read(record.check_output, 0)[-CHECK_OUTPUT_BYTES_MAX:].decode(errors="replace").strip()
            reason = f"its health check failed: {words}" if words else "its health check failed"
    elif run is not None:
        state = ContainerState.EXITED
        ending = record.exit_code()
        if ending is None:
            reason = "nobody saw how it ended: it was killed with its supervisor, or the host was restarted"
        else:
            code, finished_at_s = ending
    return Container(
        id=record.id,
        name=record.name,
        labels=record.labels,
        state=state,
        health=found,
        exit_code=code,
        reason=reason,
        started_at_s=run.started_at_s if run is not None else 0.0,
        finished_at_s=finished_at_s,
        ports=tuple(
            PublishedPort(port.container, port.protocol, port.host_ip or "0.0.0.0", port.container)
            for port in record.service.ports
        ),
    )
