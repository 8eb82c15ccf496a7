"""What can be seen of a host from outside of the agent: its disk, and whether an address answers."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from gary.config import join_address, split_address
from gary.control import MODE
from gary.doctor import DiskFacts

DIAL_TIMEOUT_S = 2.0
ENTRIES_MAX = 10_000
"""Of a state directory; what is beyond them is not looked at."""


def inspect_disk(state_dir: Path) -> DiskFacts:
    """The state directory and its file system."""
    try:
        system = os.statvfs(state_dir)
        exposed = tuple(f"{path} ({mode:04o})" for path, mode in _exposed(state_dir))
    except OSError as error:
        return DiskFacts(str(state_dir), failure=error.strerror or str(error))
    files = system.f_favail if system.f_files else None
    return DiskFacts(str(state_dir), system.f_bavail * system.f_frsize, files, exposed)


def _exposed(state_dir: Path) -> Iterator[tuple[Path, int]]:
    """What others than its owner may use, with its mode. The socket may be for a group."""
    for number, path in enumerate(_entries(state_dir)):
        if number == ENTRIES_MAX:
            return
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue  # An agent that runs makes and removes files.
        mode = stat.S_IMODE(found.st_mode)
        allowed = MODE if stat.S_ISSOCK(found.st_mode) else 0o700
        if not stat.S_ISLNK(found.st_mode) and mode & ~allowed:
            yield path, mode


def _entries(directory: Path) -> Iterator[Path]:
    yield directory
    for parent, directories, files in os.walk(directory):
        yield from (Path(parent) / name for name in (*directories, *files))


async def dial(address: str, ports: int) -> list[str]:
    """Connect to all ``ports`` of a node, from that of its ``address`` on; why that failed, for each where it did."""
    host, port = split_address(address)
    reasons = await asyncio.gather(*(_connect(host, number) for number in range(port, port + ports)))
    return [reason for reason in reasons if reason]


async def _connect(host: str, port: int) -> str:
    """Empty if it worked."""
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        reason = f"no answer within {DIAL_TIMEOUT_S:g} s"
    except (OSError, UnicodeError, OverflowError) as error:
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
    else:
        writer.close()
        return ""
    return f"{join_address(host, port)}: {reason}"
