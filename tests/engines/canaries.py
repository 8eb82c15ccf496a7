"""Where a secret may have come to rest: an agent's memory, its files, what it says, and what its host received."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import secrets
import shutil
import socket
import sqlite3
import struct
import tempfile
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.engines.agents import Agent
from tests.engines.namespaces import Machine

_ALL_PROTOCOLS = 0x0003  # ETH_P_ALL, linux/if_ether.h
_TCP = 6
_CHUNK_MAGIC = bytes.fromhex("856f4a83")  # Automerge, "Binary Document Format", chunk header
_CHUNK_HEADER_BYTES = 10
_CHUNK_BYTES_MAX = 16384
_INFLATED_BYTES_MIN = 16
_INFLATED_BYTES_MAX = 1 << 18
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_RECEIVE_BUFFER_BYTES = 32 << 20
_FORCE_RECEIVE_BUFFER = 33  # SO_RCVBUFFORCE


def canary(where: str) -> str:
    """A word that nobody else uses, fit for every place where a name may stand; ``where`` tells it from others."""
    return f"canary{where}{secrets.token_hex(8)}"


def found(canaries: Mapping[str, str], data: bytes) -> list[str]:
    """Which canaries, by where they were planted, occur in ``data``.

    They are sought plain, in UTF-16, in hexadecimal and in base64, and in what the Automerge chunks in it inflate to.
    """
    haystack = b"\n".join([data, *_inflated(data)])
    return [where for where, word in sorted(canaries.items()) if any(form in haystack for form in _forms(word))]


def _inflated(data: bytes) -> Iterator[bytes]:
    """What is compressed in Automerge's chunks. Where a stream begins depends on what precedes it: try all places."""
    position = data.find(_CHUNK_MAGIC)
    while position >= 0:
        end = min(position + _CHUNK_BYTES_MAX, len(data))
        for begin in range(position + _CHUNK_HEADER_BYTES, end):
            with contextlib.suppress(zlib.error):  # no stream begins here
                inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[begin:end], _INFLATED_BYTES_MAX)
                if len(inflated) >= _INFLATED_BYTES_MIN:
                    yield inflated
        position = data.find(_CHUNK_MAGIC, position + 1)


def _forms(word: str) -> Iterator[bytes]:
    plain = word.encode()
    yield plain
    yield word.encode("utf-16-le")
    yield plain.hex().encode()
    for offset in range(3):  # base64 of a word depends on its place in the whole
        yield base64.b64encode(bytes(offset) + plain)[4:-4]


def memory(pid: int) -> bytes:
    """All writable memory of a process, as a core dump would have it; the process goes on and does not notice."""
    return b"".join(_memory(pid))


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
    """Contents and names of all files below a directory, and each value in a database, whose pages may divide it."""
    parts = []
    for path in sorted(directory.rglob("*")):
        parts.append(str(path.relative_to(directory)).encode())
        if path.is_file():
            parts.append(path.read_bytes())
        if path.suffix == ".sqlite":
            parts.extend(_values(path))
    return b"\n".join(parts)


def _values(database: Path) -> Iterator[bytes]:
    with copied(database) as disk:
        tables = [name for (name,) in disk.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in disk.execute(f'SELECT * FROM "{table}"'):
                yield from (value if isinstance(value, bytes) else str(value).encode() for value in row)


@contextlib.contextmanager
def copied(database: Path) -> Iterator[sqlite3.Connection]:
    """A copy of a database that its agent keeps locked, its write-ahead log included."""
    with tempfile.TemporaryDirectory() as directory:
        for path in sorted(database.parent.glob(f"{database.name}*")):
            shutil.copy(path, directory)
        with contextlib.closing(sqlite3.connect(Path(directory) / database.name)) as copy:
            yield copy


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
            pieces = self._streams[flow]
            if packet[9] == _TCP and len(segment) >= 20:
                (sequence,) = struct.unpack_from("!I", segment, 4)
                payload = segment[(segment[12] >> 4) * 4 :]
                # an empty acknowledgement has the number of what follows, and a repeat may be the longer one
                if len(payload) > len(pieces.get(sequence, b"")):
                    pieces[sequence] = payload
            else:
                pieces[len(pieces)] = segment


def _packet_socket(machine: Machine) -> socket.socket:
    """A packet socket in the machine's network: it stays in that network, whatever its maker does next."""
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
