"""Ids, generations, clocks, claims, and the hash that orders nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.identity import (
    Claim,
    Generation,
    deployment_id,
    index_of,
    is_node_id,
    next_clock,
    pseudonym,
    rendezvous,
    service_of,
    slot_order,
)
from tests.gary.facts import NODES, A, B

node_ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
generations = st.builds(
    Generation,
    instance=st.text("0123456789abcdef", min_size=1, max_size=32),
    clock=st.integers(0, 2**64 - 1),
    author=node_ids,
)


@given(generations)
def test_a_generation_is_read_back_from_its_text(generation: Generation) -> None:
    assert Generation.parse(str(generation)) == generation


@given(st.one_of(st.text(), st.text("abc019.-+_ ", max_size=90), generations.map(lambda g: f" {g}")))
def test_any_other_text_is_no_generation(text: str) -> None:
    try:
        generation = Generation.parse(text)
    except ValueError:
        return
    assert str(generation) == text


@pytest.mark.parametrize(
    "text", ["", "life.1", f"life.01.{A}", f"life.0x1.{A}", f"life.1.{A.upper()[:-1]}F", f".1.{A}", f"a/b.1.{A}"]
)
def test_only_the_canonical_text_is_a_generation(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Generation.parse(text)


@given(st.lists(st.tuples(st.sampled_from(NODES[:4]), st.integers(-3600, 3600)), min_size=1, max_size=30))
def test_a_later_generation_is_higher_whatever_the_clocks_say(deploys: list[tuple[str, int]]) -> None:
    latest = Generation("life", 0, A)
    for second, (author, skew_s) in enumerate(deploys):
        following = Generation("life", next_clock(1_700_000_000 + second * 0.001 + skew_s, latest.clock), author)
        assert following.order > latest.order
        assert Generation.parse(str(following)) == following
        latest = following


def test_a_clock_an_hour_behind_goes_on_from_what_was_seen() -> None:
    ahead = next_clock(1_700_003_600, 0)
    assert next_clock(1_700_000_000, ahead) == ahead + 1


@given(st.sets(st.sampled_from(NODES), min_size=2), st.text(max_size=20), st.data())
def test_taking_a_node_out_leaves_the_order_of_the_others(nodes: set[str], key: str, data: st.DataObject) -> None:
    order = rendezvous(key, nodes)
    assert order == rendezvous(key, sorted(nodes, reverse=True))
    gone = data.draw(st.sampled_from(sorted(nodes)))
    assert rendezvous(key, nodes - {gone}) == [node for node in order if node != gone]


def test_rendezvous_gives_each_node_about_its_share_of_the_keys() -> None:
    first = [rendezvous(f"key {number}", NODES[:4])[0] for number in range(400)]
    assert all(60 <= first.count(node) <= 140 for node in NODES[:4])


def test_a_lower_claim_is_an_earlier_one_and_the_node_breaks_ties() -> None:
    assert sorted([Claim(2, A), Claim(1, B), Claim(1, A)]) == [Claim(1, A), Claim(1, B), Claim(2, A)]


def test_slots_sort_by_number_and_global_ones_by_node() -> None:
    slots = ["web/10", "web/2", "db/1", f"log/{B}", f"log/{A}"]
    assert sorted(slots, key=slot_order) == ["db/1", f"log/{A}", f"log/{B}", "web/2", "web/10"]
    assert (service_of("web/10"), index_of("web/10")) == ("web", "10")


@given(st.text(max_size=140))
def test_any_slot_can_be_sorted(slot: str) -> None:
    assert slot_order(slot) >= ("",)


def test_a_deployments_id_depends_on_its_name_the_cluster_and_the_clusters_secret() -> None:
    pseudonyms = {pseudonym(name, cluster) for name in ("shop", "blog") for cluster in (b"c" * 16, b"d" * 16)}
    assert len(pseudonyms) == 4
    ids = {deployment_id(known, secret) for known in pseudonyms for secret in (b"1" * 32, b"2" * 32)}
    assert len(ids) == 8
    assert all(is_node_id(id) for id in ids)
    assert deployment_id(pseudonym("shop", b"c" * 16), b"1" * 32) in ids


def test_a_pseudonym_shows_nothing_of_the_name_and_no_name_is_one() -> None:
    known = pseudonym("shop", b"c" * 16)
    assert known.startswith("~")
    assert is_node_id(known[1:])
    assert pseudonym(known, b"c" * 16) != known


@pytest.mark.parametrize("value", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, b"0" * 32, 5, None, ["0"] * 32])
def test_anything_else_is_no_node_id(value: object) -> None:
    assert not is_node_id(value)
