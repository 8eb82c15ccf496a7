"""Epochs: when a deployment's members go on in a new document, and what they take along.

One member begins the next epoch: an empty document with what still counts, and without the changes that led to it. The
others hear of it, get that document, and add what it lacks. Both are the same pure function, ``taken_along``, of the
two documents; whatever order members move in, and whoever begins, also several at once on several sides of a partition,
in the end all hold the same. Nobody is asked first, so a member that is left alone does it alone.

What is taken along of other nodes, and why it is safe to leave out the rest:

- Specs, removals and verdicts: always.
- Memberships, and all promises of nodes that have not left, also of those that are away: a service that holds its slots
  for an absent node goes on holding them, and no slot looks vacant while its keeper has not moved yet.
- Withdrawn promises of a node are left out once it has stated in an epoch what it keeps. It states that with a break,
  which makes older copies void, so nobody can bring one back to life.
- Promises of nodes that left or were forgotten: the first have withdrawn them before, the second bring their own when
  they return. Of these nodes a membership is kept, of the ``GONE_MAX`` latest: without it, somebody with old news would
  name them members again.
- Who calls for replacements, and released reservations: while there is a promise that they are about.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from gary.document import NOBODY, Document, Draft, is_withdrawn, role_in
from gary.facts import BREAKS, IMMUTABLE, MEMBERS, PROMISES, Fact, Facts, Place, decode_number, merged
from gary.identity import NodeId, Slot, rendezvous
from gary.state import GONE, Role

CHANGES_PER_EPOCH = 1000
EPOCHS_AHEAD_MAX = 100_000
"""A node that was away for longer than that follows nobody, and a liar can push a document's number only so far."""
GONE_MAX = 256
STEP_IN_MAX = 10


def changes_until(epoch: int, node: NodeId, members: Sequence[NodeId], changes_per_epoch: int) -> int:
    """At how many changes ``node`` begins the epoch after ``epoch``: one member after the other, without clocks.

    The first by rendezvous does it at ``changes_per_epoch``, and each next one a tenth later, if nobody has. Each
    member's first word in an epoch is not counted, so that no epoch begins because the one before it did.
    """
    rank = rendezvous(str(epoch), members).index(node)
    return len(members) + changes_per_epoch + min(rank, STEP_IN_MAX) * changes_per_epoch // 10


def is_reachable(epoch: int, present: int) -> bool:
    """Whether a member at ``present`` follows somebody to ``epoch``."""
    return present < epoch <= present + EPOCHS_AHEAD_MAX


def taken_along(before: Document, present: Document, slots: Container[Slot] = ()) -> Draft:
    """What the node of ``before`` has to write into ``present``, a document of a later epoch, to go on there.

    An empty ``present`` becomes the document of the epoch after. ``slots``: where containers are, so that the node does
    not forget of them what it has withdrawn.
    """
    node, known = before.node, present.facts
    facts = merged(before.facts, known)
    raised = facts.get((BREAKS, node))
    draft = Draft(node, 0 if raised is None else decode_number(raised.value) or 0)
    if not present.epoch:
        draft.begin(before.epoch + 1)
    spoken = known.get((BREAKS, node))
    if spoken is None or spoken.epoch < present.epoch:
        draft.state_anew(facts, slots)
    role = _role(known, node)
    # Who was forgotten in the meantime, or has left and does not know it any more, has old news of everybody else.
    is_heard = role not in GONE or role is _role(before.facts, node) is Role.LEFT
    for place, fact in _lasting(facts, before.epoch).items():
        if known.get(place) == fact or _is_own(place, fact, node):
            continue
        if place[0] in IMMUTABLE or is_heard:
            draft.carry(place, fact)
    return draft


def _lasting(facts: Facts, epoch: int) -> Facts:
    """``facts`` without what need not go on beyond ``epoch``."""
    roles = {place[1]: _role(facts, place[1]) for place in facts if place[0] == MEMBERS}
    gone = sorted((node for node, role in roles.items() if role in GONE), key=lambda node: facts[MEMBERS, node])
    dropped = frozenset(gone[:-GONE_MAX])
    promised: set[str] = set()

    def is_promised(place: Place, fact: Fact) -> bool:
        role = roles.get(_owner(place))
        return role is not Role.LEFT and (role is not Role.FORGOTTEN or fact.epoch >= epoch)

    for place, fact in facts.items():
        if place[0] == PROMISES and is_promised(place, fact) and not is_withdrawn(place, fact):
            promised.update((place[1], _owner(place)))

    def lasts(place: Place, fact: Fact) -> bool:
        match place[0]:
            case "promises":
                return is_promised(place, fact)
            case "members":
                return place[1] not in dropped
            case "breaks":
                return place[1] in promised or (place[1] in roles and place[1] not in dropped)
            case "calling":
                return place[1] in promised or place[1] == NOBODY
            case "releases":
                return place[1] in promised
        return True

    return {place: fact for place, fact in facts.items() if lasts(place, fact)}


def _is_own(place: Place, fact: Fact, node: NodeId) -> bool:
    """Whether ``node`` states it itself, or else nobody does."""
    match place[0]:
        case "promises" | "breaks":
            return _owner(place) == node
        case "members":
            return place[1] == node and role_in(place[1], fact.value) in (Role.MEMBER, Role.LEFT)
    return False


def _role(facts: Facts, node: NodeId) -> Role | None:
    stated = facts.get((MEMBERS, node))
    return None if stated is None else role_in(node, stated.value)


def _owner(place: Place) -> str:
    return place[1].partition("/")[0]
