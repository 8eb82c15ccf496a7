"""Where a secret may have come to rest: an agent's memory, its files, what it says, and what its host received."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import secrets
import signal
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.engines.agents import Agent
from tests.engines.namespaces import Machine

_ALL_PROTOCOLS = 0x0003  # ETH_P_ALL, linux/if_ether.h
_TCP = 6
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_RECEIVE_BUFFER_BYTES = 32 << 20
_FORCE_RECEIVE_BUFFER = 33  # SO_RCVBUFFORCE


def canary(where: str) -> str:
    """A word that nobody else uses, fit for every place where a name may stand; ``where`` tells it from others."""
    return f"canary{where}{secrets.token_hex(8)}"


def found(canaries: Mapping[str, str], data: bytes) -> list[str]:
    """Which canaries, by where they were planted, occur in ``data``: plain, in UTF-16, in hexadecimal or in base64."""
    return [where for where, word in sorted(canaries.items()) if any(form in data for form in _forms(word))]


def _forms(word: str) -> Iterator[bytes]:
    plain = word.encode()
    yield plain
    yield word.encode("utf-16-le")
    yield plain.hex().encode()
    for offset in range(3):  # base64 of a word depends on its place in the whole
        yield base64.b64encode(bytes(offset) + plain)[4:-4]


def memory(pid: int) -> bytes:
    """All readable memory of a process, as a core dump would have it. It is stopped for that moment, and goes on."""
    os.kill(pid, signal.SIGSTOP)
    try:
        return b"".join(_memory(pid))
    finally:
        os.kill(pid, signal.SIGCONT)


def _memory(pid: int) -> Iterator[bytes]:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as content:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, permissions, *_ = line.split()
            # what is not writable is the programs' own code and data
            if not permissions.startswith("rw"):
                continue
            start, end = (int(address, 16) for address in span.split("-"))
            with contextlib.suppress(OSError):  # [vvar] and device mappings cannot be read
                content.seek(start)
                yield content.read(end - start)


def files(directory: Path) -> bytes:
    """The contents and names of all files below a directory."""
    parts = []
    for path in sorted(directory.rglob("*")):
        parts.append(str(path).encode())
        if path.is_file():
            parts.append(path.read_bytes())
    return b"\n".join(parts)


def words_of(agent: Agent) -> bytes:
    """What an agent says without asking others about deployments: its log, its metrics, and its view of the nodes."""
    return agent.log.read_bytes() + agent.read("/metrics") + agent.read("/v1/nodes") + agent.read("/v1/version")


class Wire:
    """Everything that a machine receives from when the tap is placed, as its link delivers it."""

    def __init__(self, machine: Machine) -> None:
        self._socket = _packet_socket(machine)
        self._streams: dict[bytes, dict[int, bytes]] = defaultdict(dict)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def received(self) -> bytes:
        """The payloads so far, each stream's pieces in order, so that what two packets share is found, too."""
        with self._lock:
            return b"\n".join(
                b"".join(piece for _, piece in sorted(pieces.items())) for _, pieces in sorted(self._streams.items())
            )

    def close(self) -> None:
        self._socket.close()
        self._thread.join()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                try:
                    packet, sender = self._socket.recvfrom(65536)
                except TimeoutError:
                    continue
                if sender[2] != socket.PACKET_OUTGOING:
                    self._note(packet)

    def _note(self, packet: bytes) -> None:
        if len(packet) < 20 or packet[0] >> 4 != 4:
            return
        (length,) = struct.unpack_from("!H", packet, 2)
        header = (packet[0] & 15) * 4
        segment = packet[header:length] if length else packet[header:]
        flow = packet[12:20] + segment[:4]
        with self._lock:
            if packet[9] == _TCP and len(segment) >= 20:
                (sequence,) = struct.unpack_from("!I", segment, 4)
                self._streams[flow].setdefault(sequence, segment[(segment[12] >> 4) * 4 :])
            else:
                pieces = self._streams[flow]
                pieces[len(pieces)] = segment


def _packet_socket(machine: Machine) -> socket.socket:
    """A packet socket in the machine's network. A socket stays in the network in which it was made; a thread can leave it."""
    made: list[socket.socket] = []

    def make() -> None:
        with Path(f"/proc/{machine.first_pid}/ns/net").open("rb") as network:
            if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "cannot enter the machine's network")
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_PROTOCOLS))
        tap.setsockopt(socket.SOL_SOCKET, _FORCE_RECEIVE_BUFFER, _RECEIVE_BUFFER_BYTES)
        tap.bind(("eth0", _ALL_PROTOCOLS))
        tap.settimeout(0.2)
        made.append(tap)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not made:
        raise OSError("no packet socket could be made in the machine")
    return made[0]


@contextlib.contextmanager
def tapped(machine: Machine) -> Iterator[Wire]:
    """Listen to what a machine receives."""
    wire = Wire(machine)
    try:
        yield wire
    finally:
        wire.close()
