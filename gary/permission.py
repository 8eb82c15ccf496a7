"""Who may write which fact of a document: what an author claims is judged before it is taken in (rule 1)."""

from __future__ import annotations

from crdt import Permit
from gary.document import granter_of, role_in
from gary.facts import (
    CARRIED,
    EPOCH,
    META,
    decode_carried,
    decode_number,
)
from gary.identity import NODE_ID_SIZE_BYTES, NodeId
from gary.state import Role


def author_of(actor: bytes) -> NodeId:
    """The node behind an actor: its id and 8 bytes that are new at every start."""
    return actor[:NODE_ID_SIZE_BYTES].hex()


def permit(actor: bytes, name: str, key: str, before: bytes | None, after: bytes) -> str | None:
    """Why the author of a change may not write this register so; None when it may (rule 1)."""
    author = author_of(actor)
    owner = key.partition("/")[0]
    match name:
        case "specs":
            if before is not None:
                return "a spec is immutable"
            return None if key.endswith("." + author) else "a generation is written by its author"
        case "meta" if key == EPOCH and decode_number(after) is None:
            return "not an epoch"
        case "removed" | "meta":
            return None if before is None or before == after else f"{name} is immutable"
        case "members":
            return _permit_membership(author, owner, before, after)
        case "promises":
            return None if owner == author else "a promise is written by its promiser"
        case "breaks":
            return None if owner == author else "a node breaks only with what it promised itself"
        case "carried" if decode_carried(key, after) is None:
            return "not a fact that was taken along"
        case "carried":
            return None if owner == author else "who takes a fact along says so itself"
        case "verdicts":
            if before is not None:
                return "a verdict is immutable"
            return None if key.split("/")[1:2] == [author] else "a verdict is written by the node that it is about"
        case "calling" | "releases":
            return None
        case "operators":
            return None if granter_of(key, after) == author else "who grants or revokes says so itself"
    return "no such kind of fact"


def permit_in(epoch: int) -> Permit:
    """``permit`` for the document of ``epoch``: it can be of no other, and what is carried into it is older."""

    def judge(actor: bytes, name: str, key: str, before: bytes | None, after: bytes) -> str | None:
        if name == META and key == EPOCH and decode_number(after) != epoch:
            return "a document is of one epoch"
        if name == CARRIED:
            carried = decode_carried(key, after)
            if carried is not None and carried[1].epoch >= epoch:
                return "what is carried into an epoch was stated before it"
        return permit(actor, name, key, before, after)

    return judge


def _permit_membership(author: NodeId, subject: NodeId, before: bytes | None, after: bytes) -> str | None:
    if author == subject:
        return None
    role, was = role_in(subject, after), None if before is None else role_in(subject, before)
    if role is None or (before is not None and was is None):
        return "not a membership"
    if role is Role.FORGOTTEN or (role is Role.INVITED and was is not Role.MEMBER):
        return None
    return "a node speaks for its own membership"
