"""What a node takes in from its peers as a document."""

from __future__ import annotations

import random

import pytest

from crdt import CorruptReplica
from gary.advertising import Settings
from gary.boot import Boot
from gary.document import Document
from gary.epochs import taken_along
from gary.node import Node
from gary.storage import Stored
from gossip import SwimConfig
from tests.gary.facts import G1, A, B, promise, spec


def node_called(name: str) -> Node:
    return Node(
        settings=Settings("node-1", "node-1", {}),
        boot=Boot(name, 1, b"c" * 16, b"s" * 32),
        stored=Stored(),
        runtimes=("docker",),
        address="10.0.0.1:7946",
        swim_config=SwimConfig(),
        rng=random.Random(name),
        entropy=random.Random(name).randbytes,
        perform=lambda effects: None,
    )


def document_of(node: Node) -> Document:
    document = node.blank_document()
    draft = document.draft()
    draft.found()
    draft.stay(node.node)
    draft.deploy(G1, spec())
    draft.promise(promise(node.node))
    document.commit(draft)
    return document


@pytest.mark.parametrize("epoch", [None, 1], ids=["invitation", "epoch"])
def test_a_document_in_which_somebody_promises_for_another_is_refused(epoch: int | None) -> None:
    one, other = node_called(A), node_called(B)
    document = document_of(one)
    if epoch:
        document, before = one.blank_document(), document
        document.commit_all(taken_along(before, document))
    assert other.open_document(document.replica.save(), epoch).state == document.state
    document.replica.put({("promises", f"{B}/web/1"): b"forged"})
    with pytest.raises(CorruptReplica, match="a promise is written by its promiser"):
        other.open_document(document.replica.save(), epoch)
