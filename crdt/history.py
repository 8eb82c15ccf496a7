"""History: which changes are here, and what they make of the registers. Pure Python, no library.

A register is one key of one map of the skeleton. Every write has an id ``(counter, actor)``; a write replaces those
that its author saw; of those that nobody replaced, the one with the highest id is the register's value. That is
Automerge's rule for maps, so that values read here are those that Automerge shows (a test compares the two).

``judge`` admits only changes that an honest replica could have made after what it depends on: the next sequence number
of its author, the next free counter, replacing writes that exist. A counter that jumps ahead would win every later
conflict, and a replaced write that does not exist is lost when Automerge saves, which spoils the saved document.

Source: Automerge binary document format, section "Operations"; Lamport, "Time, Clocks, and the Ordering of Events in a
Distributed System" (1978).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from crdt.changes import Change, OpId

Permit = Callable[[bytes, str, str, bytes | None, bytes], str | None]
"""``permit(actor, map, key, before, after)``: a reason to refuse this write, or None.

``before`` is the value that the *author* saw in the register when it wrote ``after`` (None: no value yet), not what
this replica shows at the moment. So the question is the same on every replica, in whatever order changes arrive, and
replicas that use one pure function as their permit accept the same changes.
"""


@dataclass(slots=True)
class Register:
    """All writes to one key; ``live`` are the ids of those that nobody has seen and overwritten."""

    writes: dict[OpId, bytes] = field(default_factory=dict)
    live: set[OpId] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of a change that is here."""

    deps: tuple[bytes, ...]
    max_op: int
    raw: bytes


class History:
    """The graph of changes of one replica and the registers that they add up to."""

    __slots__ = ("_heads", "_known", "_last", "_maps", "_order", "_registers", "shown", "size_bytes")

    def __init__(self, maps: Sequence[str], skeleton: bytes) -> None:
        """``maps[i]`` is the map that operation ``i + 1`` of the change with hash ``skeleton`` created."""
        self._maps = tuple(maps)
        self._known: dict[bytes, Known] = {skeleton: Known((), len(self._maps), b"")}
        self._order: list[bytes] = [skeleton]
        self._heads: tuple[bytes, ...] = (skeleton,)
        self._last: dict[bytes, tuple[int, bytes]] = {}
        self._registers: dict[tuple[int, str], Register] = {}
        self.shown: dict[str, dict[str, tuple[int, bytes]]] = {name: {} for name in self._maps}
        """Of each register of each map, counter and value of the write that shows."""
        self.size_bytes = 0
        """Size of the values and their keys."""

    def __len__(self) -> int:
        return len(self._order) - 1

    def __contains__(self, change_hash: bytes) -> bool:
        return change_hash in self._known

    def heads(self) -> tuple[bytes, ...]:
        """Changes that no other change here depends on, sorted."""
        return self._heads

    def recent(self, count: int) -> tuple[bytes, ...]:
        """The newest ``count`` hashes and after them ever sparser ones (1, 2, 4 ... steps apart), newest first."""
        newest = self._order[: -count - 1 : -1]
        sparse, place, step = [], len(self._order) - count - 1, 1
        while place >= 0:
            sparse.append(self._order[place])
            place, step = place - step, step * 2
        return (*newest, *sparse)

    def missing(self, change: Change) -> bytes | None:
        """A dependency of ``change`` that is not here."""
        return next((dep for dep in change.deps if dep not in self._known), None)

    def covers(self, heads: Iterable[bytes], change_hash: bytes) -> bool:
        """Whether ``change_hash`` is one of ``heads`` or before one. Unknown heads stand only for themselves."""
        heads = list(heads)
        if change_hash in heads:
            return True
        target = self._known.get(change_hash)
        if target is None:
            return False
        seen: set[bytes] = set()
        while heads:
            current = heads.pop()
            known = self._known.get(current)
            if current == change_hash:
                return True
            if known is None or current in seen or known.max_op <= target.max_op:
                continue
            seen.add(current)
            heads.extend(known.deps)
        return False

    def judge(self, change: Change, permit: Permit) -> str | None:
        """Why ``change``, whose dependencies are all here, must not be integrated; None if it may be."""
        if not change.deps:
            return "does not depend on the skeleton"
        seq, last = self._last.get(change.actor, (0, b""))
        if change.seq != seq + 1:
            return f"has sequence number {change.seq} where its author's next is {seq + 1}"
        if last and not self.covers(change.deps, last):
            return "does not depend on its author's previous change"
        if change.start_op != 1 + max(self._known[dep].max_op for dep in change.deps):
            return "does not count its operations from those that it depends on"
        for write in change.writes:
            if not 1 <= write.object_counter <= len(self._maps):
                return "writes to something that is no map of the skeleton"
            writes = self._writes(write.object_counter, write.key)
            if any(op not in writes or op[0] >= change.start_op for op in write.predecessors):
                return "replaces a write that is not there"
            name = self._maps[write.object_counter - 1]
            before = writes[write.predecessors[-1]] if write.predecessors else None
            refusal = permit(change.actor, name, write.key, before, write.value)
            if refusal is not None:
                return refusal
        return None

    def since(self, heads: Iterable[bytes]) -> list[bytes]:
        """Raw changes that are neither among ``heads`` nor before one of them, in the order in which they came here."""
        shared = {head for head in heads if head in self._known}
        shared.add(self._order[0])
        wanted = {head for head in self._heads if head not in shared}
        lacking = []
        for change_hash in reversed(self._order):
            if not wanted:
                break
            known = self._known[change_hash]
            if change_hash in shared:
                shared.update(known.deps)
                wanted.difference_update(known.deps)
            else:
                wanted.remove(change_hash)
                wanted.update(dep for dep in known.deps if dep not in shared)
                lacking.append(known.raw)
        lacking.reverse()
        return lacking

    def integrate(self, change: Change, raw: bytes) -> None:
        """Take in a change that ``judge`` let pass, and the bytes in which it came."""
        for place, write in enumerate(change.writes):
            register = self._registers.setdefault((write.object_counter, write.key), Register())
            op = change.start_op + place, change.actor
            register.writes[op] = write.value
            register.live.difference_update(write.predecessors)
            register.live.add(op)
            shown, shows = self.shown[self._maps[write.object_counter - 1]], max(register.live)
            before, value = shown.get(write.key), register.writes[shows]
            self.size_bytes += len(value) + (len(write.key.encode()) if before is None else -len(before[1]))
            shown[write.key] = shows[0], value
        self._known[change.hash] = Known(change.deps, change.max_op, raw)
        self._order.append(change.hash)
        self._last[change.actor] = (change.seq, change.hash)
        self._heads = tuple(sorted({*self._heads, change.hash}.difference(change.deps)))

    def _writes(self, object_counter: int, key: str) -> dict[OpId, bytes]:
        register = self._registers.get((object_counter, key))
        return register.writes if register else {}
