"""Processes that outlive whoever started them: making them, knowing them again, ending them. Linux only.

A process is known by its pid together with the tick at which it started and the boot it started in, so that a pid that
was used again is never mistaken for it. Its end is awaited through a pidfd, which works for children and for others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MARKER: Final = "GARY_CONTAINER"
"""The variable that all processes of a container inherit; by it they are found after their first process has gone."""

_PROC: Final = Path("/proc")
_RESET_SIGNALS: Final = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
"""Python, and whoever started the agent, ignore some; a program expects all of them as they are by default."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, for ever."""

    pid: int
    started_ticks: int
    boot: str


@dataclass(frozen=True, slots=True)
class Status:
    """What ``/proc/<pid>/stat`` says, as far as it is needed here."""

    state: str
    parent: int
    session: int
    started_ticks: int

    @property
    def has_ended(self) -> bool:
        return self.state in ("Z", "X", "x")


def parse_status(text: str) -> Status | None:
    """Read ``/proc/<pid>/stat``. The program's name is in parentheses and may hold anything, even those."""
    fields = text.rpartition(")")[2].split()
    try:
        return Status(fields[0], int(fields[1]), int(fields[3]), int(fields[19]))
    except (IndexError, ValueError):
        return None


def status(pid: int) -> Status | None:
    """None: there is no such process."""
    try:
        return parse_status(_PROC.joinpath(str(pid), "stat").read_text(errors="replace"))
    except OSError:
        return None  # it ended, perhaps while its file was being read


def boot() -> str:
    return _PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Identity | None:
    found = status(pid)
    return None if found is None else Identity(pid, found.started_ticks, boot())


def is_alive(process: Identity) -> bool:
    found = status(process.pid)
    return (
        found is not None
        and not found.has_ended
        and found.started_ticks == process.started_ticks
        and boot() == process.boot
    )


def spawn(argv: Sequence[str], environment: Mapping[str, str], stdout: Path, stderr: Path) -> Identity:
    """Start ``argv`` as the leader of a session of its own; what it writes goes on the files. Raises ``OSError``."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions: list[tuple[int, int, str, int, int] | tuple[int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(stdout), append, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, str(stderr), append, 0o600),
        *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()),
    ]
    pid = os.posix_spawn(
        argv[0],
        list(argv),
        dict(environment),
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=_RESET_SIGNALS,
    )
    process = identify(pid)
    assert process is not None, "a child stays in /proc until it is reaped"
    # The kernel lets us go on in the midst of its exec, a moment before the new program's environment can be read.
    while MARKER in environment and not _environment(pid) and is_alive(process):
        os.sched_yield()
    return process


def _environment(pid: int) -> bytes:
    """Empty in the midst of an exec, and for what has ended or is somebody else's."""
    try:
        return _PROC.joinpath(str(pid), "environ").read_bytes()
    except OSError:
        return b""


def _inheritable() -> list[int]:
    """Files that a library left open to children: a container would hold the agent's ports beyond its death."""
    found: list[int] = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is needed
        with contextlib.suppress(OSError):  # the listing's own descriptor has gone
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


async def ended(process: Identity) -> None:
    """Return when it has ended; at once if it has already."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    try:
        if is_alive(process):  # else the descriptor may be that of a later process with the same pid
            loop.add_reader(descriptor, over.set)
            await over.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def reap(process: Identity) -> int | None:
    """Let go of a child that has ended and give its exit code; None for one that is not our child or runs on."""
    found = status(process.pid)
    if found is None or found.started_ticks != process.started_ticks or found.parent != os.getpid():
        return None
    pid, outcome = os.waitpid(process.pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(outcome) if pid else None


def marked(container_id: str) -> list[Identity]:
    """All live processes that inherited the container's mark, the oldest first."""
    wanted = f"{MARKER}={container_id}".encode()
    found: list[Identity] = []
    now = boot()
    for entry in os.scandir(_PROC):
        if not entry.name.isdecimal():
            continue
        process = status(int(entry.name)) if wanted in _environment(int(entry.name)).split(b"\0") else None
        if process is not None and not process.has_ended:
            found.append(Identity(int(entry.name), process.started_ticks, now))
    return sorted(found, key=lambda process: (process.started_ticks, process.pid))


def command_line(process: Identity) -> bytes:
    """Its arguments as the kernel keeps them; empty when it has ended."""
    try:
        return _PROC.joinpath(str(process.pid), "cmdline").read_bytes()
    except OSError:
        return b""  # it ended, perhaps while its file was being read


def send(process: Identity, number: int) -> None:
    """Send a signal to one process; one that has ended is no error."""
    if is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def send_to_group(leader: Identity, number: int) -> None:
    """Send a signal to the process group of ``leader``; nothing happens when the leader has ended."""
    if is_alive(leader):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, number)
