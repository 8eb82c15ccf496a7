"""What the tests of replicas share: small documents, authors, and changes with a repaired checksum."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from crdt import Applied, Replica
from crdt.chunks import Limits, open_change, seal_change

MAPS = ("members", "promises", "specs")


def author(number: int) -> bytes:
    return bytes([number]) * 16 + bytes(8)


def replica(number: int) -> Replica:
    return Replica(author(number), MAPS)


def permit_all(actor: bytes, map: str, key: str, before: bytes | None, after: bytes) -> str | None:
    return None


def permit_own(actor: bytes, map: str, key: str, before: bytes | None, after: bytes) -> str | None:
    """A register belongs to the author whose number its key begins with."""
    return None if key.startswith(f"{actor[0]}/") else f"{key} belongs to somebody else"


def bring(source: Replica, target: Replica) -> Applied:
    return target.apply(source.changes_since(target.heads()), permit_all)


def state(of: Replica) -> tuple[tuple[bytes, ...], dict[str, dict[str, bytes]], int]:
    """All that a refused input must leave as it was."""
    return of.heads(), {name: of.items(name) for name in MAPS}, of.change_count


def contents(raw: bytes) -> bytes:
    return open_change(raw, Limits()).contents


def forged(original: bytes, at: int, byte: int) -> bytes:
    """``original`` with one byte of its contents replaced, and a checksum that says that this is right."""
    body = bytearray(contents(original))
    body[at % len(body)] = byte
    return seal_change(bytes(body))


keys = st.sampled_from(["a", "b", "c", "a longer key", "ключ"])
values = st.one_of(st.binary(max_size=4), st.just(b"long" * 100))
writes: st.SearchStrategy[Mapping[tuple[str, str], bytes]] = st.dictionaries(
    st.tuples(st.sampled_from(MAPS), keys), values, min_size=1, max_size=5
)
