"""Standings for tests: what a founded node has on its disk, with words in place of certificates."""

from __future__ import annotations

import random

from gary.storage import MemoryStorage, Table, Write
from gary.trust.keys import KeyPair, node_id_of
from gary.trust.notary import Founded
from gary.trust.standing import Standing, found, founding_writes
from simulations import notary

CLUSTER = b"c" * 16


def founded(key: KeyPair) -> list[Write]:
    """What makes the owner of ``key`` a cluster of one, whose root has the same key."""
    seed = key.public
    answer = notary.answer(found(seed, node_id_of(key.public)), random.Random(0))
    assert isinstance(answer, Founded)
    return founding_writes(seed, answer, 0.0)


def standing_of(key: KeyPair) -> Standing:
    storage = MemoryStorage()
    storage.write(founded(key))
    return Standing(key, CLUSTER, storage.load().records[Table.TRUST])
