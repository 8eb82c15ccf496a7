"""Frames and messages for Hypothesis: any that are well formed, and some that once were."""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import strategies as st

from gossip import Advertisement, Claim, Incarnation, Member, Status
from gossip.directory import NEVER, Publication
from gossip.member import DOWN_FOR_S_MAX, INCARNATION_MAX
from gossip.messages import (
    Ack,
    Buckets,
    Join,
    Message,
    Nack,
    News,
    Payload,
    Ping,
    PingRequest,
    Records,
    Refuse,
    Version,
    Versions,
    Wanted,
    Welcome,
    encode,
    frame,
    frame_head,
)
from tests.gossip.harness import CLUSTER, address_of, node_id

integers = st.integers(0, 2**63 - 1)
hashes = st.integers(0, 2**64 - 1)
marks = st.just(0) | hashes
any_nodes = st.binary(min_size=16, max_size=16).map(bytes.hex)
any_addresses = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
any_parts = st.integers(0, INCARNATION_MAX)
any_incarnations = st.builds(Incarnation, any_parts, any_parts)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=20) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def messages_about(
    nodes: st.SearchStrategy[str],
    addresses: st.SearchStrategy[str],
    incarnations: st.SearchStrategy[Incarnation],
) -> st.SearchStrategy[Message]:
    """Any message about these nodes, at these addresses, in these incarnations."""
    members = st.builds(Member, nodes, addresses, incarnations, st.sampled_from(Status))
    claims = st.builds(Claim, members, st.lists(nodes, max_size=8).map(tuple), st.integers(0, DOWN_FOR_S_MAX))
    advertisements = st.builds(Advertisement, st.lists(addresses, max_size=4).map(tuple), st.binary(max_size=60))
    publications = st.builds(Publication, nodes, incarnations, advertisements)
    versions = st.builds(Version, nodes, incarnations, st.integers(0, 3), incarnations | st.just(NEVER))
    return st.one_of(
        claims,
        publications,
        st.builds(Ping, integers, hashes, addresses, incarnations, marks),
        st.builds(Ack, integers, hashes, marks),
        st.builds(PingRequest, integers, nodes),
        st.builds(Nack, integers),
        st.builds(Buckets, st.lists(hashes, max_size=8).map(tuple)),
        st.builds(Versions, st.lists(integers, max_size=4).map(tuple), st.lists(versions, max_size=4).map(tuple)),
        st.builds(Wanted, st.lists(nodes, max_size=4).map(tuple)),
        st.builds(Records, st.lists(claims, max_size=3).map(tuple), st.lists(publications, max_size=3).map(tuple)),
        st.builds(Join, integers, addresses, incarnations),
        st.builds(Welcome, integers, st.binary(max_size=40)),
        st.builds(Refuse, integers, addresses, addresses),
        st.builds(Payload, st.binary(max_size=60)),
        st.builds(News, st.binary(max_size=60)),
    )


messages = messages_about(any_nodes, any_addresses, any_incarnations)


def messages_of_a_cluster(count: int) -> st.SearchStrategy[Message]:
    """Messages about the nodes 1 to ``count`` and one that nobody knows, with what may deceive others about them."""
    numbers = st.integers(1, count + 1)
    counts = st.integers(0, 9) | st.sampled_from([2**16, 2**32, 2**33, INCARNATION_MAX])
    return messages_about(
        numbers.map(node_id),
        numbers.map(address_of) | st.just("10.6.6.6:1"),
        st.builds(Incarnation, st.integers(0, 3) | counts, counts),
    )


@st.composite
def hostile_frames(draw: st.DrawFn, sender: int, said: st.SearchStrategy[Message]) -> bytes:
    """What a member may send: frames that are well formed, and such in which something was changed."""
    cluster = draw(st.sampled_from([CLUSTER, CLUSTER, CLUSTER, b"", bytes(16)]))
    parts = [encode(message) for message in draw(st.lists(said, min_size=1, max_size=6))]
    data = frame(frame_head(cluster, node_id(sender)), parts)
    for _ in range(draw(st.integers(0, 2))):
        data = draw(st.one_of(_changed_fields(data), _changed_bytes(data)))
    return data


@st.composite
def _changed_fields(draw: st.DrawFn, data: bytes) -> bytes:
    """A value at any depth below the messages is exchanged, left out or doubled."""
    try:
        tree = msgpack.unpackb(data)
    except ValueError:
        return data
    place: Any = tree
    while isinstance(place, list) and any(isinstance(item, list) and item for item in place) and draw(st.booleans()):
        place = draw(st.sampled_from([item for item in place if isinstance(item, list) and item]))
    if not isinstance(place, list) or not place:
        return data
    index = draw(st.integers(0, len(place) - 1))
    match draw(st.sampled_from(["exchange", "leave out", "double", "swap"])):
        case "exchange":
            place[index] = draw(plain)
        case "leave out":
            del place[index]
        case "double":
            place.insert(index, place[index])
        case "swap":
            place[index], place[0] = place[0], place[index]
    packed: bytes = msgpack.packb(tree)
    return packed


@st.composite
def _changed_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Some bytes are overwritten, left out or put in."""
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 8)))
    return data[:start] + draw(st.binary(max_size=8)) + data[end:]
