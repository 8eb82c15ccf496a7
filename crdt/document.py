"""The one place that calls Automerge: its exceptions end here, and so do its panics.

The binding raises plain ``Exception``, and on some crafted input pyo3's ``PanicException``, which is a
``BaseException`` and leaves the document that it happened in locked for ever. Whoever gets ``LibraryFailed`` throws the
document away and builds it again from the changes that it had. (Trying each change on a fork first costs a millisecond
per thousand changes of history; what gets here has been checked so closely that a failure is a defect, not an input.)

Automerge has no function to apply raw changes in this binding; a hand-made sync message carries them. Its format:
``0x42``, heads, empty list of needed hashes, empty list of bloom filters, changes (each with its length).

Source: https://automerge.org/automerge/automerge/sync/ and ``Message::encode`` of automerge-rs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from automerge import core

from crdt.changes import SKELETON_ACTOR
from crdt.chunks import unsigned
from crdt.errors import LibraryFailed

T = TypeVar("T")

_SYNC_MESSAGE = b"\x42"
_PANIC = "PanicException"


def guarded(call: Callable[[], T]) -> T:
    """The result of ``call``; whatever the binding raises or panics with becomes ``LibraryFailed``."""
    try:
        return call()
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == _PANIC:
            raise LibraryFailed(f"{type(error).__name__}: {error}") from error
        raise


class AutomergeDocument:
    """An Automerge document. After a ``LibraryFailed`` from a method that changes it, it is of no use any more."""

    __slots__ = ("_document",)

    def __init__(self, document: core.Document) -> None:
        self._document = document

    @classmethod
    def skeleton(cls, maps: Sequence[str]) -> AutomergeDocument:
        """The document of one change that creates ``maps``: the same bytes whoever makes it."""

        def create() -> core.Document:
            document = core.Document(SKELETON_ACTOR)
            with document.transaction() as transaction:
                for name in maps:
                    transaction.put_object(core.ROOT, name, core.ObjType.Map)
            return document

        return cls(guarded(create))

    @classmethod
    def load(cls, snapshot: bytes) -> AutomergeDocument:
        return cls(guarded(lambda: core.Document.load(snapshot)))

    def save(self) -> bytes:
        return guarded(self._document.save)

    def heads(self) -> tuple[bytes, ...]:
        return tuple(sorted(guarded(self._document.get_heads)))

    def changes(self) -> list[bytes]:
        """All raw changes in causal order."""
        return guarded(lambda: [change.bytes for change in self._document.get_changes([])])

    def objects(self, maps: Sequence[str]) -> dict[str, bytes]:
        """The binding's ids of the maps of the skeleton."""

        def find() -> dict[str, bytes]:
            found = {name: self._document.get(core.ROOT, name) for name in maps}
            return {name: value[1] for name, value in found.items() if value is not None}

        return guarded(find)

    def apply(self, changes: Sequence[bytes], heads: Sequence[bytes]) -> None:
        """Take in raw changes, uncompressed and in causal order, after which the heads are ``heads``."""
        message = b"".join(
            (
                _SYNC_MESSAGE,
                unsigned(len(heads)),
                *heads,
                unsigned(0),
                unsigned(0),
                unsigned(len(changes)),
                *(unsigned(len(change)) + change for change in changes),
            )
        )

        guarded(lambda: self._document.receive_sync_message(core.SyncState(), core.Message.decode(message)))
        if self.heads() != tuple(sorted(heads)):
            raise LibraryFailed("took in changes and has other heads than they add up to")

    def put(self, actor: bytes, writes: Mapping[tuple[bytes, str], bytes]) -> bytes:
        """Write keys of objects in one transaction; the raw change."""

        def write() -> bytes:
            before = self._document.get_heads()
            self._document.set_actor(actor)
            with self._document.transaction() as transaction:
                for (object_id, key), value in writes.items():
                    transaction.put(object_id, key, core.ScalarType.Bytes, value)
            (change,) = self._document.get_changes(before)
            return change.bytes

        return guarded(write)
