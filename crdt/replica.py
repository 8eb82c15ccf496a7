"""Replica: one node's copy of a document of registers, merged with others' by exchanging changes.

A document is a fixed set of maps whose keys are registers holding bytes. The maps are created by one change that is the
same for everyone, so replicas that were started independently merge, and no object is ever created later. Automerge
stores, saves and makes the changes; this class decides which ones get that far.

What arrives goes through: the shell (``chunks``), the contents (``changes``), the history (``history``: is this what
an honest author would have written next?), the caller's ``permit``, and only then into the Automerge document. So a
refused change has touched nothing. Should Automerge fail after all that, the document is built again from the changes
that were in it, and the batch is refused. Changes that depend on a refused one wait, in a bounded buffer.

A replica knows one author per process start: ``actor`` must never have been used before (a node restored from an old
disk would repeat sequence numbers, which every replica refuses).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from crdt.changes import ACTOR_SIZE_BYTES, Change, decode_change
from crdt.chunks import ChangeChunk, Limits, open_change, plain_change
from crdt.document import AutomergeDocument
from crdt.errors import CorruptReplica, LibraryFailed, MalformedChange, WriteRefused
from crdt.history import History, Permit
from crdt.snapshots import check_snapshot
from crdt.waiting import Arrived, Waiting


@dataclass(frozen=True, slots=True)
class Refusal:
    """A change that was not taken in; ``hash`` and ``actor`` are empty if it could not even be read."""

    hash: bytes
    actor: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch.

    ``changes``: raw changes that are new here, in causal order (also those that had waited for this batch).
    ``waiting``: how many changes of this batch wait for others. ``refused``: those that were turned away.
    """

    changes: tuple[bytes, ...] = ()
    waiting: int = 0
    refused: tuple[Refusal, ...] = ()


class Replica:
    """Registers of bytes in the maps ``maps``, the same set for all replicas of a document."""

    __slots__ = ("_actor", "_document", "_history", "_limits", "_maps", "_objects", "_skeleton", "_waiting")

    def __init__(self, actor: bytes, maps: Sequence[str], limits: Limits | None = None) -> None:
        """An empty replica that writes as ``actor`` (24 bytes, never used before)."""
        if len(actor) != ACTOR_SIZE_BYTES:
            raise WriteRefused(f"an actor has {ACTOR_SIZE_BYTES} bytes, not {len(actor)}")
        self._actor = actor
        self._limits = limits or Limits()
        self._maps = tuple(sorted(set(maps)))
        self._document = AutomergeDocument.skeleton(self._maps)
        (self._skeleton,) = self._document.heads()
        self._objects = self._document.objects(self._maps)
        self._history = History(self._maps, self._skeleton)
        self._waiting = Waiting(self._limits)

    @classmethod
    def load(
        cls,
        actor: bytes,
        maps: Sequence[str],
        snapshot: bytes,
        changes: Sequence[bytes] = (),
        limits: Limits | None = None,
        permit: Permit | None = None,
    ) -> Replica:
        """A replica from ``save()`` (or ``b""``) and the changes appended since; ``CorruptReplica`` for other bytes.

        ``permit`` judges each change in it, for a snapshot that comes from a peer; without it, all are trusted.
        """
        replica = cls(actor, maps, limits)
        judge = permit or _permit_all
        if snapshot:
            replica._restore(snapshot, judge)
        applied = replica.apply(changes, judge)
        if applied.refused:
            raise CorruptReplica(f"an appended change {applied.refused[0].reason}")
        if len(replica._waiting):
            raise CorruptReplica(f"{len(replica._waiting)} appended changes depend on changes that are not there")
        return replica

    @property
    def actor(self) -> bytes:
        return self._actor

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the skeleton's maps, sorted."""
        return self._maps

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def change_count(self) -> int:
        """Changes in the history, without the one that made the maps."""
        return len(self._history)

    @property
    def waiting(self) -> int:
        """Changes that wait for their dependencies."""
        return len(self._waiting)

    @property
    def waiting_dropped(self) -> int:
        """Changes that had to make room for others while they waited, since the start."""
        return self._waiting.dropped

    @property
    def size_bytes(self) -> int:
        """Size of the current values and their keys: what the document says, not what its history occupies."""
        return self._history.size_bytes

    def get(self, map: str, key: str) -> bytes | None:
        """The value of one register. Of concurrent writes all replicas show the same one."""
        shown = self._history.shown[map].get(key)
        return None if shown is None else shown[1]

    def items(self, map: str) -> dict[str, bytes]:
        """All registers of one map, sorted by key."""
        return {key: value for key, (_, value) in sorted(self._history.shown[map].items())}

    def stamped(self, map: str) -> Mapping[str, tuple[int, bytes]]:
        """All registers of one map, in no order: counter and value of the write that shows. Changes with the replica.

        Counters of one author's writes only rise, in all replicas alike.
        """
        return self._history.shown[map]

    def heads(self) -> tuple[bytes, ...]:
        """Hashes of the newest changes, sorted: equal heads mean equal replicas."""
        return self._history.heads()

    def contains(self, heads: Iterable[bytes]) -> bool:
        """Whether all those changes are here."""
        return all(head in self._history for head in heads)

    def covers(self, heads: Iterable[bytes], change_hash: bytes) -> bool:
        """Whether who has ``heads`` also has ``change_hash``, as far as the history here can tell."""
        return self._history.covers(heads, change_hash)

    def recent(self, count: int) -> tuple[bytes, ...]:
        """The newest ``count`` hashes and ever sparser ones behind them: enough to find what two replicas share."""
        return self._history.recent(count)

    def put(self, writes: Mapping[tuple[str, str], bytes]) -> bytes:
        """Write registers ``(map, key)`` in one transaction; the raw change, or ``b""`` if all have these values.

        Raises ``WriteRefused`` (nothing written) for what other replicas would refuse, ``LibraryFailed`` (nothing
        written) if Automerge fails.
        """
        news = {place: value for place, value in sorted(writes.items()) if self._checked_get(*place) != value}
        if not news:
            return b""
        try:
            raw = self._document.put(self._actor, {(self._objects[name], key): news[name, key] for name, key in news})
            change = self._decode(open_change(raw, self._limits))
            refusal = self._history.judge(change, _permit_all)
        except (LibraryFailed, MalformedChange) as error:
            self._rebuild()
            if isinstance(error, LibraryFailed):
                raise
            raise WriteRefused(f"the change {error}") from error
        if refusal is not None:
            self._rebuild()
            raise LibraryFailed(f"Automerge wrote a change that {refusal}")
        self._history.integrate(change, raw)
        return raw

    def apply(self, changes: Sequence[bytes], permit: Permit) -> Applied:
        """Take in raw changes in any order. Never raises for bad input; what is refused alters nothing."""
        refused: list[Refusal] = []
        ready: list[Arrived] = []
        batch: set[bytes] = set()
        for raw in changes:
            try:
                chunk = open_change(raw, self._limits)
                if chunk.hash in self._history or chunk.hash in batch:
                    continue
                if chunk.hash not in self._waiting:
                    ready.append(Arrived(self._decode(chunk), raw))
                batch.add(chunk.hash)
            except MalformedChange as error:
                refused.append(Refusal(b"", b"", str(error)))
        accepted = self._integrate(ready, permit, refused)
        waiting = sum(change_hash in self._waiting for change_hash in batch)
        return Applied(tuple(arrived.raw for arrived in accepted), waiting, tuple(refused))

    def changes_since(self, heads: Iterable[bytes]) -> list[bytes]:
        """Raw changes, in causal order, that who has ``heads`` may lack. Heads that are not here are passed over."""
        return self._history.since(heads)

    def save(self) -> bytes:
        """All of it in Automerge's compact form, for ``load``."""
        return self._document.save()

    def _checked_get(self, name: str, key: str) -> bytes | None:
        if name not in self._objects:
            raise WriteRefused(f"there is no map {name!r} in this document")
        try:
            size = len(key.encode())
        except UnicodeEncodeError as error:
            raise WriteRefused(f"key {key!r} is not Unicode text") from error
        if not 0 < size <= self._limits.key_size_bytes_max:
            raise WriteRefused(f"a key has 1 to {self._limits.key_size_bytes_max} bytes, not {size}")
        return self.get(name, key)

    def _decode(self, chunk: ChangeChunk) -> Change:
        return decode_change(chunk, self._limits)

    def _integrate(self, ready: Sequence[Arrived], permit: Permit, refused: list[Refusal]) -> list[Arrived]:
        """Take in changes as far as their dependencies are there; those that got in, in that order."""
        accepted: list[Arrived] = []
        try:
            for arrived in self._admissible(ready, permit, refused):
                self._history.integrate(arrived.change, arrived.raw)
                accepted.append(arrived)
            if accepted:
                self._document.apply([plain_change(arrived.raw, self._limits) for arrived in accepted], self.heads())
        except LibraryFailed as error:
            self._rebuild(without=accepted)
            refused.extend(Refusal(arrived.change.hash, arrived.change.actor, str(error)) for arrived in accepted)
            return []
        except BaseException:  # the caller's permit failed, in the middle of the batch
            self._rebuild(without=accepted)
            raise
        return accepted

    def _admissible(self, ready: Sequence[Arrived], permit: Permit, refused: list[Refusal]) -> Iterator[Arrived]:
        """Yield changes that may be integrated; each must be, before the next is asked for."""
        queue = deque(ready)
        while queue:
            arrived = queue.popleft()
            change = arrived.change
            missing = self._history.missing(change)
            if missing is not None:
                self._waiting.add(arrived, missing)
                continue
            refusal = self._history.judge(change, permit)
            if refusal is not None:
                refused.append(Refusal(change.hash, change.actor, refusal))
                continue
            yield arrived
            queue.extend(self._waiting.release(change.hash))

    def _rebuild(self, without: Sequence[Arrived] = ()) -> None:
        """Make document and history again from the changes that are here, except those of a batch that failed."""
        failed = {arrived.raw for arrived in without}
        self._begin([raw for raw in self._history.since(()) if raw not in failed], _permit_all)

    def _restore(self, snapshot: bytes, permit: Permit) -> None:
        """Take the changes out of a snapshot. The document that Automerge loaded is dropped: only one that is made from
        checked changes is known to contain those and nothing else."""
        try:
            check_snapshot(snapshot, self._limits)
            loaded = AutomergeDocument.load(snapshot)
            self._begin(loaded.changes(), permit)
            heads = loaded.heads()
        except (MalformedChange, LibraryFailed) as error:
            raise CorruptReplica(f"the snapshot {error}") from error
        if heads != self.heads():
            raise CorruptReplica("the snapshot has other heads than its changes add up to")

    def _begin(self, raws: Iterable[bytes], permit: Permit) -> None:
        """Make history and document from changes in causal order."""
        self._history = self._read(raws, permit)
        self._document = AutomergeDocument.skeleton(self._maps)
        if len(self._history):
            self._document.apply([plain_change(raw, self._limits) for raw in self._history.since(())], self.heads())

    def _read(self, raws: Iterable[bytes], permit: Permit) -> History:
        """The history of these changes, in causal order, each checked as if it had just arrived."""
        history = History(self._maps, self._skeleton)
        for raw in raws:
            chunk = open_change(raw, self._limits)
            if chunk.hash in history:
                continue
            change = self._decode(chunk)
            refusal = "depends on a change that is not there" if history.missing(change) else None
            refusal = refusal or history.judge(change, permit)
            if refusal is not None:
                raise MalformedChange(f"has a change that {refusal}")
            history.integrate(change, raw)
        return history


def _permit_all(actor: bytes, map: str, key: str, before: bytes | None, after: bytes) -> str | None:
    return None
