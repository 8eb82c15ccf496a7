"""What the benchmarks ask of processes, and how they wait."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

LOOK_S = 0.01


def cpu_s(pid: int) -> float:
    """What the threads of a process have used, from the scheduler: clock ticks are too coarse for who is idle."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def resident_mb(pid: int) -> float:
    """How much of a process is in memory, in 10^6 bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Look again and again; raises ``TimeoutError`` when it does not become so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain until {what}")
        time.sleep(LOOK_S)
