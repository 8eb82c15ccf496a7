"""What nodes publish about themselves, and the directory that follows from it.

An advertisement has one writer, the node it is about, and a version that only grows. The directory (name -> responsible
nodes) is the union of all advertisements, kept as they change. Members that are down stay listed until forgotten: who
was responsible is worth most when the responsible are gone.
"""

from __future__ import annotations

from dataclasses import dataclass

from gossip.layered import Layered
from gossip.member import Incarnation

NEVER = Incarnation(-1, 0)
"""The version of an advertisement that was never published."""


@dataclass(frozen=True, slots=True)
class Advertisement:
    """``names`` feed the directory; ``body`` is opaque to gossip."""

    names: tuple[str, ...] = ()
    body: bytes = b""

    @property
    def size_bytes(self) -> int:
        """About what it takes in a frame, and in memory."""
        return len(self.body) + sum(len(name.encode()) + 3 for name in self.names)


@dataclass(frozen=True, slots=True)
class Publication:
    """An advertisement as it travels: who wrote it, and which version it is."""

    node: str
    version: Incarnation
    advertisement: Advertisement


class Directory:
    """All advertisements of known members, and the index from names to nodes."""

    def __init__(self, orphans_max: int) -> None:
        self._publications: Layered[str, Publication] = Layered()
        self._nodes_by_name: Layered[str, tuple[str, ...]] = Layered()
        self._orphans: dict[str, Publication] = {}
        self._orphans_max = orphans_max
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """The size of all advertisements of known members."""
        return self._size_bytes

    def responsible(self, name: str) -> tuple[str, ...]:
        """The nodes that list ``name``, down ones included, sorted."""
        return self._nodes_by_name.get(name) or ()

    def names(self) -> tuple[str, ...]:
        """Every name that any node lists, sorted."""
        return tuple(sorted(self._nodes_by_name))

    def publication(self, node: str) -> Publication | None:
        """The newest known advertisement of ``node`` with its version."""
        return self._publications.get(node)

    def version(self, node: str) -> Incarnation:
        """The version of what ``node`` has published, ``NEVER`` if nothing."""
        held = self._publications.get(node)
        return held.version if held else NEVER

    def publish(self, publication: Publication) -> bool:
        """Take a newer version; False if it is not newer than what is held."""
        node = publication.node
        held = self._publications.get(node)
        if held and publication.version <= held.version:
            return False
        self._publications[node] = publication
        self._size_bytes += publication.advertisement.size_bytes - (held.advertisement.size_bytes if held else 0)
        self._unlist(node, held.advertisement.names if held else (), keep=publication.advertisement.names)
        for name in publication.advertisement.names:
            nodes = self.responsible(name)
            if node not in nodes:
                self._nodes_by_name[name] = tuple(sorted((*nodes, node)))
        return True

    def forget(self, node: str) -> None:
        """Drop everything that ``node`` published."""
        held = self._publications.pop(node)
        if held:
            self._size_bytes -= held.advertisement.size_bytes
            self._unlist(node, held.advertisement.names, keep=())

    def adopt(self, other: Directory) -> None:
        """Hold the same advertisements as ``other``, which must not change from now on."""
        self._publications = Layered(other._publications.as_base())
        self._nodes_by_name = Layered(other._nodes_by_name.as_base())
        self._size_bytes = other._size_bytes

    def set_aside(self, publication: Publication) -> None:
        """Keep an advertisement that came before its node is known; the oldest one makes room."""
        held = self._orphans.pop(publication.node, None)
        if held and held.version > publication.version:
            publication = held
        elif not held and len(self._orphans) >= self._orphans_max:
            del self._orphans[next(iter(self._orphans))]
        self._orphans[publication.node] = publication

    def claim_orphan(self, node: str) -> Publication | None:
        """What was set aside for ``node``, which is known from now on."""
        return self._orphans.pop(node, None)

    def _unlist(self, node: str, names: tuple[str, ...], *, keep: tuple[str, ...]) -> None:
        for name in names:
            nodes = self.responsible(name)
            if name in keep or node not in nodes:
                continue
            left = tuple(other for other in nodes if other != node)
            if left:
                self._nodes_by_name[name] = left
            else:
                self._nodes_by_name.pop(name)
