"""The one place that calls Automerge: its exceptions end here, and so do its panics.

The binding raises plain ``Exception``, and on some crafted input pyo3's ``PanicException``, which is a
``BaseException`` and leaves the document that it happened in locked for ever. So a document is never changed in place:
each change happens in a fork, which takes the document's place when it worked and is dropped when it did not.

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
    """One state of an Automerge document. Changing it gives another one and leaves this one as it is."""

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

    def changes_since(self, heads: Sequence[bytes]) -> list[bytes]:
        """Raw changes that are not among ``heads`` (all of which are here) nor before them, in causal order."""
        return guarded(lambda: [change.bytes for change in self._document.get_changes(list(heads))])

    def objects(self, maps: Sequence[str]) -> dict[str, bytes]:
        """The binding's ids of the maps of the skeleton."""

        def find() -> dict[str, bytes]:
            found = {name: self._document.get(core.ROOT, name) for name in maps}
            return {name: value[1] for name, value in found.items() if value is not None}

        return guarded(find)

    def apply(self, changes: Sequence[bytes], heads: Sequence[bytes]) -> AutomergeDocument:
        """The document with these raw changes, given in causal order, after which its heads are ``heads``."""
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

        def receive() -> core.Document:
            fork = self._document.fork()
            fork.receive_sync_message(core.SyncState(), core.Message.decode(message))
            if sorted(fork.get_heads()) != sorted(heads):
                raise LibraryFailed("changes were applied and the heads are others than expected")
            return fork

        return AutomergeDocument(guarded(receive))

    def put(self, actor: bytes, writes: Mapping[tuple[bytes, str], bytes]) -> tuple[AutomergeDocument, bytes]:
        """The document with keys of objects written in one transaction, and the raw change."""

        def write() -> tuple[core.Document, bytes]:
            before = self._document.get_heads()
            fork = self._document.fork()
            fork.set_actor(actor)
            with fork.transaction() as transaction:
                for (object_id, key), value in writes.items():
                    transaction.put(object_id, key, core.ScalarType.Bytes, value)
            return fork, fork.get_changes(before)[0].bytes

        document, change = guarded(write)
        return AutomergeDocument(document), change
