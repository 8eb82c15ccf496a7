"""Compaction: the same registers without their history, for a document that moves on to its next epoch.

Pure function of the state at given heads. Replicas with equal heads make byte-identical documents, each for itself and
without talking; replicas with different heads make documents that merge, since each is just one more set of changes on
the same skeleton. When to compact, and which registers their authors write again themselves, is the caller's decision.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from crdt.changes import ACTOR_SIZE_BYTES
from crdt.replica import Replica

_WRITES_PER_CHANGE = 512


def compaction_actor(heads: tuple[bytes, ...]) -> bytes:
    """The author of the compaction of the state at ``heads``."""
    return sha256(b"crdt/compaction" + b"".join(heads)).digest()[:ACTOR_SIZE_BYTES]


def compacted(source: Replica, actor: bytes, keep: Callable[[str, str], bool]) -> Replica:
    """A replica that writes as ``actor`` and holds those registers ``(map, key)`` of ``source`` that ``keep`` names.

    Raises ``WriteRefused`` if 512 neighbouring registers together are larger than a change may be.
    """
    scribe = Replica(compaction_actor(source.heads()), source.maps, source.limits)
    registers = [
        ((name, key), value) for name in source.maps for key, value in source.items(name).items() if keep(name, key)
    ]
    for start in range(0, len(registers), _WRITES_PER_CHANGE):
        scribe.put(dict(registers[start : start + _WRITES_PER_CHANGE]))
    return Replica.load(actor, source.maps, b"", scribe.changes_since(()), source.limits)
