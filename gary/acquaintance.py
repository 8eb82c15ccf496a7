"""Acquaintance: how a node shows another that it knows a deployment, and tells nobody anything by it.

Whoever is named by a document may have it. But two members need not name each other: one was away while the other was
invited, or they founded the deployment on two sides of a broken network. And a node that lost its document still runs
the containers. Anybody can *say* so of itself, since every node can advertise any id that it has heard or guessed.

So it has to be shown. A document has secrets that only those learn who get it, or run its containers: the names of its
instances, 16 random bytes each, and its operators' watchwords. A proof is a keyed hash (BLAKE2, RFC 7693) of who shows
it to whom. Who does not know the secret cannot make it, and who receives it can neither find the secret nor use the
proof elsewhere. Who *was* a member knows the secrets, too. It is told that it is gone; it may show that it holds the
deployment all the same, since it stayed as the last one, or deployed that name anew where nobody knew of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from gary.identity import NodeId
from gary.state import State

PROOF_SIZE_BYTES = 16
_PERSON = b"gary knows"


def proof(secret: bytes, prover: NodeId, judge: NodeId) -> bytes:
    """What shows ``judge`` that ``prover`` knows ``secret``."""
    about = f"{prover}{judge}".encode()
    return hashlib.blake2b(about, key=secret, digest_size=PROOF_SIZE_BYTES, person=_PERSON).digest()


def proof_of_instance(instance: str, prover: NodeId, judge: NodeId) -> bytes:
    return proof(instance.encode(), prover, judge)


def proofs(state: State, prover: NodeId, judge: NodeId) -> tuple[bytes, ...]:
    """What shows ``judge`` that ``prover`` knows the deployment as it lives now, one for each of its secrets."""
    instances = sorted({generation.instance for generation in state.specs} - state.removed)
    secrets = [instance.encode() for instance in instances]
    secrets += sorted({grant.watchword for grant in state.operators.values()})
    return tuple(proof(secret, prover, judge) for secret in secrets)


def proofs_of_instances(state: State, prover: NodeId, judge: NodeId) -> tuple[bytes, ...]:
    """What shows ``judge`` of which instances ``prover`` knows, living and removed."""
    instances = {generation.instance for generation in state.specs} | state.removed
    return tuple(proof_of_instance(instance, prover, judge) for instance in sorted(instances))


def knows_all(state: State, given: Collection[bytes], prover: NodeId, judge: NodeId) -> bool:
    """Whether ``prover`` has shown that it knows of each instance that lives by ``state``."""
    living = {generation.instance for generation in state.specs} - state.removed
    return {proof_of_instance(instance, prover, judge) for instance in living} <= set(given)


def is_proven(state: State, given: Collection[bytes], prover: NodeId, judge: NodeId) -> bool:
    """Whether ``prover`` has shown that it shares one of the secrets."""
    return not set(proofs(state, prover, judge)).isdisjoint(given)


def digest(instance: str) -> str:
    """The name by which an instance is spoken of to those that may not know it."""
    return hashlib.blake2b(instance.encode(), digest_size=PROOF_SIZE_BYTES, person=_PERSON).hexdigest()
