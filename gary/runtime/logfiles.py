"""Log files that other processes append to: reading their end, and giving back the disk space of their beginning.

The beginning is given back as a hole, so every byte keeps its offset: nothing is lost between a look and the next, and
who follows the file need not know. Where the file system knows no holes, the file is emptied instead.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_FALLOC_FL_KEEP_SIZE: Final = 1
_FALLOC_FL_PUNCH_HOLE: Final = 2
_BLOCK_BYTES: Final = 4096
_STEP_BYTES: Final = 64 * 1024


def size_bytes(path: Path) -> int:
    """0 for a file that is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def read(path: Path, offset: int) -> bytes:
    """Some bytes from ``offset`` on; none at the end, or when the file is gone."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(_STEP_BYTES)
    except FileNotFoundError:
        return b""


def beginning(path: Path) -> int:
    """The offset of the first whole line that is still there."""
    try:
        with path.open("rb") as file:
            try:
                first = os.lseek(file.fileno(), 0, os.SEEK_DATA)
            except OSError:
                return size_bytes(path)  # there is nothing but a hole
            if first == 0:
                return 0
            file.seek(first)
            return first + len(file.readline())
    except FileNotFoundError:
        return 0


def last_lines(path: Path, count: int) -> int:
    """The offset at which the last ``count`` lines begin. A last line without an end counts."""
    first, end = beginning(path), size_bytes(path)
    if count <= 0:
        return end
    position, missing = end, count
    with path.open("rb") as file:
        while position > first:
            start = max(first, position - _STEP_BYTES)
            file.seek(start)
            block = file.read(position - start)
            # The newline at the very end closes the last line; it does not begin another.
            searched = len(block) - 1 if position == end and block.endswith(b"\n") else len(block)
            while (found := block.rfind(b"\n", 0, searched)) >= 0:
                missing -= 1
                if not missing:
                    return start + found + 1
                searched = found
            position = start
    return first


def trim(path: Path, size_bytes_max: int) -> None:
    """Give back what is older than the last half of ``size_bytes_max`` when more than all of it is in use."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    if found.st_blocks * 512 <= size_bytes_max:
        return
    cut = (found.st_size - size_bytes_max // 2) // _BLOCK_BYTES * _BLOCK_BYTES
    if cut > 0 and not _punch(path, cut):
        os.truncate(path, 0)


def _punch(path: Path, length: int) -> bool:
    import ctypes  # 1 MB that only a host with long logs needs.

    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    with path.open("r+b") as file:
        outcome: int = fallocate(file.fileno(), _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, 0, length)
    return outcome == 0
