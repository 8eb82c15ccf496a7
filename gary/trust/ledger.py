"""The ledger: every statement that a cluster's roots have signed. It only grows, and the order of hearing is no matter.

All who hold the same statements trust the same roots, hold the same nodes expelled and obey the same operators:

- Roots form a tree: each but the founding one was stated by another. The *present* one is the deepest, and of several
  at one depth the one with the lowest key. Concurrent rotations therefore merge without anybody's decision.
- Every other root is trusted until the time that the rotation says with which the present one's line left it. Before
  that, nodes get certificates of the present root, and nobody is shut out on the way.
- An expulsion stands whatever else was said, also by whom was expelled: two sides that expel each other are both out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from gary.identity import NodeId
from gary.trust.statements import Admission, BadStatement, Expulsion, Root, Rotation, Signed, read

STATEMENTS_MAX = 4096
UNSUPPORTED_MAX = 64
"""Anybody can make statements of roots that nobody knows: so many wait for the rotation that names theirs."""
DIGEST_SIZE_BYTES = 8


class Ledger:
    """What is known of the cluster called ``cluster`` that ``founding`` began. ``known``: statements as they travel."""

    def __init__(self, cluster: bytes, founding: Root, known: Iterable[bytes] = ()) -> None:
        self.cluster = cluster
        self.founding = founding
        self._by_id: dict[bytes, Signed] = {}
        self._parents: dict[bytes, tuple[bytes, Rotation]] = {}
        self._unsupported: dict[bytes, Signed] = {}
        self._digest: int | None = 0
        for raw in known:
            self.hear(raw)

    # What comes in

    def news(self, raw: bytes) -> Signed | None:
        """The statement, if it is new and of a root that is known: what is to be written down before it is taken in.

        One of a root that is not known yet waits for the rotation that names it. Raises ``BadStatement``, also when
        there are too many; the ledger is as it was.
        """
        signed = read(raw, self.cluster)
        if signed.id in self._by_id:
            return None
        if len(self._by_id) >= STATEMENTS_MAX:
            raise BadStatement("the ledger is full")
        if self.knows(signed.signer):
            return signed
        self._unsupported[signed.id] = signed
        if len(self._unsupported) > UNSUPPORTED_MAX:
            del self._unsupported[next(iter(self._unsupported))]
        return None

    def take(self, signed: Signed) -> bool:
        """From now on this news counts. Whether it still was news."""
        is_new = signed.id not in self._by_id
        self._by_id[signed.id] = signed
        if is_new and isinstance(signed.statement, Rotation):
            new = signed.statement.root.public
            if not self.knows(new):
                self._parents[new] = (signed.signer, signed.statement)
        self._digest = None
        return is_new

    def ready(self) -> list[bytes]:
        """The statements that waited for a root which is known by now; they wait no longer, and are news."""
        ready = [signed for signed in self._unsupported.values() if self.knows(signed.signer)]
        for signed in ready:
            del self._unsupported[signed.id]
        return [signed.raw for signed in ready]

    def hear(self, raw: bytes) -> None:
        """Take in a statement, and all that had waited for it. Raises ``BadStatement``."""
        heard = [raw]
        while heard:
            signed = self.news(heard.pop())
            if signed is not None:
                self.take(signed)
                heard += self.ready()

    # Comparing

    @property
    def digest(self) -> int:
        """Equal for two ledgers exactly if they hold the same; 0 of an empty one."""
        if self._digest is None:
            hashed = hashlib.sha256(b"".join(sorted(self._by_id))).digest()
            self._digest = int.from_bytes(hashed[:DIGEST_SIZE_BYTES], "big")
        return self._digest

    @property
    def ids(self) -> tuple[bytes, ...]:
        return tuple(sorted(self._by_id))

    def without(self, ids: Iterable[bytes]) -> list[bytes]:
        """The statements that somebody lacks who holds those with ``ids``."""
        known = set(ids)
        return [signed.raw for id, signed in sorted(self._by_id.items()) if id not in known]

    @property
    def raws(self) -> list[bytes]:
        return self.without(())

    def items(self) -> list[tuple[bytes, bytes]]:
        """Every statement with its id, as it travels."""
        return [(id, signed.raw) for id, signed in sorted(self._by_id.items())]

    # What it says

    @property
    def present(self) -> Root:
        """The root that certificates ought to be of."""
        return self._roots()[min(self._roots(), key=lambda public: (-len(self._line(public)), public))]

    def trusted(self, wall_s: float) -> tuple[Root, ...]:
        """The present root, then the others that are still trusted at ``wall_s`` (seconds since 1970)."""
        present = self.present
        others = sorted(public for public in self._roots() if public != present.public)
        return (present, *(self._roots()[public] for public in others if wall_s < self._until_s(public)))

    def until_s(self) -> tuple[float, ...]:
        """When roots cease to be trusted, sorted."""
        return tuple(sorted(self._until_s(public) for public in self._roots() if public != self.present.public))

    def rotation(self, public: bytes) -> Rotation | None:
        """The statement that named this root; None for the founding one and unknown ones."""
        found = self._parents.get(public)
        return None if found is None else found[1]

    def predecessor(self, public: bytes) -> bytes:
        """The root that named this one; empty for the founding one."""
        found = self._parents.get(public)
        return b"" if found is None else found[0]

    def handing_down(self) -> tuple[bytes, ...]:
        """The roots of which a voucher may have the present one's secret half, too, the latest first.

        They are the one before it, and what was named before that, back to a root that was named in haste: secrets
        that are older may be in the wrong hands. A node may have been away while several were named.
        """
        line = self._line(self.present.public)
        oldest = len(line) - 2
        while oldest > 0 and not self._parents[line[oldest]][1].is_urgent:
            oldest -= 1
        others = {public: self._line(public) for public in self._roots() if public != line[-1]}
        known = [public for public, other in others.items() if oldest >= 0 and line[oldest] in other]
        return tuple(sorted(known, key=lambda public: (-len(others[public]), public)))

    @property
    def expulsions(self) -> Mapping[NodeId, Sequence[Expulsion]]:
        """Who is out, and every statement that says so."""
        found: dict[NodeId, list[Expulsion]] = {}
        for _, signed in sorted(self._by_id.items()):
            if isinstance(signed.statement, Expulsion):
                found.setdefault(signed.statement.node, []).append(signed.statement)
        return found

    @property
    def operators(self) -> frozenset[bytes]:
        """The keys that may command the cluster."""
        statements = (signed.statement for signed in self._by_id.values())
        return frozenset(statement.operator for statement in statements if isinstance(statement, Admission))

    def opponents(self, node: NodeId) -> tuple[NodeId, ...]:
        """The expelled nodes that ``node``, expelled itself, had expelled, while they expelled it."""
        against = {statement.by for statement in self.expulsions.get(node, ())}
        return tuple(
            sorted(
                other
                for other, statements in self.expulsions.items()
                if other in against and any(statement.by == node for statement in statements)
            )
        )

    def knows(self, public: bytes) -> bool:
        """Whether it is a root of this cluster, be it a former one."""
        return public == self.founding.public or public in self._parents

    def _roots(self) -> dict[bytes, Root]:
        return {self.founding.public: self.founding} | {new: named[1].root for new, named in self._parents.items()}

    def _line(self, public: bytes) -> list[bytes]:
        """From the founding root to this one."""
        line = [public]
        while line[-1] in self._parents:
            line.append(self._parents[line[-1]][0])
        return line[::-1]

    def _until_s(self, public: bytes) -> float:
        """When the present root's line has left ``public``."""
        line, other = self._line(self.present.public), self._line(public)
        shared = sum(mine == theirs for mine, theirs in zip(line, other, strict=False))
        rotation = self._parents[line[shared]][1]
        return rotation.until_s
