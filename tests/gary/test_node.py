"""What a node takes in from its peers as a document."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from crdt import CorruptReplica
from gary.advertising import Settings
from gary.boot import Boot
from gary.document import Document
from gary.epochs import taken_along
from gary.node import Node
from gary.storage import MemoryStorage
from gary.trust.keys import KeyPair
from gossip import SwimConfig
from tests.gary.facts import G1, promise, spec
from tests.gary.trust.standings import CLUSTER, founded


def node_number(number: int) -> Node:
    key, storage = KeyPair(bytes([number]) * 32), MemoryStorage()
    storage.write(founded(key))
    return Node(
        settings=Settings("node-1", "node-1", {}),
        boot=Boot(key, 1, CLUSTER, b"s" * 32),
        stored=storage.load(),
        runtimes=("docker",),
        address="10.0.0.1:7946",
        swim_config=SwimConfig(),
        rng=random.Random(number),
        entropy=random.Random(number).randbytes,
        perform=lambda effects: None,
    )


def document_of(node: Node) -> Document:
    document = node.blank_document()
    draft = document.draft()
    draft.found()
    draft.stay(node.node)
    draft.deploy(replace(G1, author=node.node), spec())
    draft.promise(promise(node.node))
    document.commit(draft)
    return document


@pytest.mark.parametrize("epoch", [None, 1], ids=["invitation", "epoch"])
def test_a_document_in_which_somebody_promises_for_another_is_refused(epoch: int | None) -> None:
    one, other = node_number(1), node_number(2)
    document = document_of(one)
    if epoch:
        document, before = one.blank_document(), document
        document.commit_all(taken_along(before, document))
    assert other.open_document(document.replica.save(), epoch).state == document.state
    document.replica.put({("promises", f"{other.node}/web/1"): b"forged"})
    with pytest.raises(CorruptReplica, match="a promise is written by its promiser"):
        other.open_document(document.replica.save(), epoch)
