"""Tombstones: what was buried stays dead, whatever the disk gives back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gary.tombstones import Tombstones

INSTANCES = st.lists(st.text(alphabet="0123456789abcdef", min_size=1, max_size=16))


@given(st.binary())
def test_any_bytes_on_the_disk_give_a_tombstone(raw: bytes) -> None:
    tombstones = Tombstones({"id": raw})
    assert "id" in tombstones
    assert all(isinstance(instance, str) for instance in tombstones.instances("id"))


@given(st.lists(INSTANCES, min_size=1))
def test_what_was_ever_buried_is_dead_before_and_after_a_restart(burials: list[list[str]]) -> None:
    tombstones = Tombstones({})
    assert "id" not in tombstones
    for instances in burials:
        write = tombstones.add("id", instances)
    buried = {instance for instances in burials for instance in instances}
    assert set(tombstones.instances("id")) == buried
    assert set(Tombstones({write.key: write.value}).instances("id")) == buried
