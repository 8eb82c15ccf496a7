"""What a Linux host says about itself, for every runtime that works on it."""

from __future__ import annotations

from pathlib import Path

_LISTENING = "0A"
_TABLES = ("tcp", "tcp6")


def listening_ports(proc: Path = Path("/proc/net")) -> frozenset[int]:
    """TCP ports on which anything listens in this network namespace; empty where the kernel does not tell."""
    ports: set[int] = set()
    for table in _TABLES:
        try:
            ports |= ports_in(proc.joinpath(table).read_text())
        except OSError:
            continue  # no IPv6, or not Linux: the kernel has nothing to tell
    return frozenset(ports)


def ports_in(table: str) -> set[int]:
    """Listening ports in the text of ``/proc/net/tcp``; lines of any other shape are passed over."""
    ports: set[int] = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTENING:
            _, _, port = fields[1].rpartition(":")
            try:
                ports.add(int(port, 16))
            except ValueError:
                continue
    return ports


def memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """All of the host's memory. Raises ``OSError`` or ``ValueError`` where the kernel does not tell."""
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{meminfo} has no MemTotal")
