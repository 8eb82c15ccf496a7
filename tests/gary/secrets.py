"""That secrets are seen nowhere: what has to be looked for, and where.

A secret is bytes; it is looked for as it is, in hexadecimal, in base64 at any offset, and as Python and JSON would show
it. What is found is reported by the names of the secret and of the place, never by its value.
"""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgpack

from gary.runtime import linux
from gary.storage import FILE_NAME

LENGTH_MIN = 12
"""Anything shorter is found by chance."""
LOOK_INTERVAL_S = 0.05

Secrets = Mapping[str, bytes]
Places = Mapping[str, bytes]


def assert_unseen(secrets: Secrets, places: Places) -> None:
    """That no place has any secret in any form."""
    assert secrets
    assert places
    names = {secret: name for name, secret in reversed(list(secrets.items()))}
    everything = b"\n".join(places.values())
    found = [
        f"{name} as {form} in {place}"
        for secret, name in names.items()
        for form, pattern in forms(secret).items()
        if pattern in everything
        for place, content in places.items()
        if pattern in content
    ]
    assert not found, "; ".join(found)


def forms(secret: bytes) -> dict[str, bytes]:
    """All ways in which a secret might be written somewhere."""
    assert len(secret) >= LENGTH_MIN
    found = {
        "it is": secret,
        "hexadecimal": secret.hex().encode(),
        "HEXADECIMAL": secret.hex().upper().encode(),
        "Python bytes": repr(secret)[2:-1].encode(),
        "Python text": repr(secret.decode("latin-1"))[1:-1].encode("ascii", "backslashreplace"),
        "JSON text": json.dumps(secret.decode("latin-1"))[1:-1].encode(),
    }
    for offset in range(3):
        # The characters that hold nothing of what stands before and after it.
        coded = base64.b64encode(b"\0" * offset + secret + b"\0\0")
        whole = coded[(offset * 8 + 5) // 6 : (offset + len(secret)) * 8 // 6]
        found[f"base64 at {offset}"] = whole
        found[f"base64 for URLs at {offset}"] = whole.replace(b"+", b"-").replace(b"/", b"_")
    return found


def of_pem(name: str, pem: str) -> dict[str, bytes]:
    """What is secret in a PEM: each of its whole lines, and what they mean."""
    lines = [line for line in pem.strip().splitlines() if not line.startswith("-----")]
    coded = {f"{name}, line {number}": line.encode() for number, line in enumerate(lines) if len(line) >= LENGTH_MIN}
    return coded | {name: base64.b64decode("".join(lines))}


def records(state_dir: Path, table: str) -> dict[str, bytes]:
    """What an agent's database has in ``table``, while the agent runs or when it has ended."""
    with tempfile.TemporaryDirectory() as copy:  # The agent holds the lock of its own.
        for file in state_dir.glob(f"{FILE_NAME}*"):
            shutil.copy(file, copy)
        with closing(sqlite3.connect(Path(copy) / FILE_NAME)) as database:
            return dict(database.execute("SELECT key, value FROM record WHERE kind = ?", (table,)).fetchall())


def unpacked(value: bytes) -> list[str]:
    """A record that is a list."""
    found: list[str] = msgpack.unpackb(value)
    return found


def files_under(*directories: Path, but: Path) -> dict[str, bytes]:
    """All files with their names, apart from those under ``but``."""
    return {
        str(file): str(file).encode() + b"\n" + file.read_bytes()
        for directory in directories
        for file in sorted(directory.rglob("*"))
        if file.is_file() and not file.is_relative_to(but)
    }


def processes(pid: int) -> dict[str, bytes]:
    """The arguments and the environment of ``pid`` and of its descendants, as every other process might read them."""
    found = {}
    for each in [pid, *_descendants(pid)]:
        for name in ("cmdline", "environ"):
            with suppress(OSError):  # It has ended.
                found[f"{name} of {each}"] = Path(f"/proc/{each}/{name}").read_bytes()
    return found


def _descendants(pid: int) -> list[int]:
    """All children of ``pid``, and theirs."""
    everybody = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    parents = {each: status.parent for each in everybody if (status := linux.status(each)) is not None}
    found = [pid]
    for ancestor in found:  # It grows meanwhile.
        found += [each for each, parent in parents.items() if parent == ancestor]
    return found[1:]


@contextmanager
def watched(*pids: int) -> Iterator[dict[str, bytes]]:
    """``processes`` of all ``pids``, gathered again and again while the body runs."""
    seen: dict[str, bytes] = {}
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(LOOK_INTERVAL_S):
            for pid in pids:
                for place, content in processes(pid).items():
                    if content not in seen.get(place, b""):
                        seen[place] = seen.get(place, b"") + content

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield seen
    finally:
        is_over.set()
        watching.join()
