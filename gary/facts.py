"""Facts as registers: what a document says, whether its author wrote it there or somebody took it along.

A document lives in epochs. Every 1,000 changes or so its members go on in a new, empty one (``epochs`` says how), which
drops the history. What others have stated is taken along as ``carried`` facts: in the carrier's own registers, each
with the epoch and the counter at which its author had written it. So even then nobody writes in another's name (rule
1), and of several tellings the latest one counts. An author's own word in the present epoch is later than all of them.

    carried/<carrier>/<map>/<key>    [epoch, counter, value], by the carrier alone
    breaks/<node>                    a number that only <node> raises: what it promised before that is void

A node raises its number when it enters an epoch, where it states anew what it keeps, and when it leaves. That is why a
withdrawn promise may be dropped: an old copy of it, still live, which somebody brings along late, is void.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

import msgpack

from crdt import Replica

BREAKS, CALLING, CARRIED, MEMBERS, META, OPERATORS, PROMISES, RELEASES, REMOVED, SPECS, VERDICTS = MAPS = (
    "breaks",
    "calling",
    "carried",
    "members",
    "meta",
    "operators",
    "promises",
    "releases",
    "removed",
    "specs",
    "verdicts",
)
# Replicas write in the order of the names: a node's break is before what it promises in the same change.
assert list(MAPS) == sorted(MAPS)
IMMUTABLE = (REMOVED, SPECS, VERDICTS)
STATED = tuple(name for name in MAPS if name not in (META, CARRIED))
EPOCH = "epoch"
COUNT_MAX = 2**62

Place = tuple[str, str]
"""Map and key."""


@dataclass(frozen=True, slots=True, order=True)
class Fact:
    """A register's value, and when its author wrote it: the later of two is the greater."""

    epoch: int
    counter: int
    value: bytes


Facts = Mapping[Place, Fact]


def epoch_of(replica: Replica) -> int:
    """The epoch of a document; 0 is the one that it was founded in."""
    raw = replica.get(META, EPOCH)
    return 0 if raw is None else decode_number(raw) or 0


def decode_number(raw: bytes) -> int | None:
    """The number of an epoch, or of a node's breaks, from 1; None for bytes that are none."""
    number = _unpack(raw)
    return number if _is_count(number) and number > 0 else None


def encode_carried(fact: Fact) -> bytes:
    packed: bytes = msgpack.packb([fact.epoch, fact.counter, fact.value])
    return packed


def decode_carried(key: str, raw: bytes) -> tuple[Place, Fact] | None:
    """What somebody took along; None for bytes that say nothing of the kind."""
    _, _, place = key.partition("/")
    name, _, about = place.partition("/")
    match _unpack(raw):
        case [epoch, counter, bytes(value)] if _is_count(epoch) and _is_count(counter) and name in STATED and about:
            return (name, about), Fact(epoch, counter, value)
    return None


def read(replica: Replica) -> tuple[dict[Place, Fact], int]:
    """What the document says, sorted by place, and how many of its carried facts cannot be read."""
    epoch = epoch_of(replica)
    facts: dict[Place, Fact] = {}
    malformed = 0
    for key, (_, raw) in replica.stamped(CARRIED).items():
        carried = decode_carried(key, raw)
        if carried is None or carried[1].epoch >= epoch:
            malformed += 1
            continue
        place, fact = carried
        facts[place] = max(fact, facts.get(place, fact))
    for name in STATED:
        for key, (counter, value) in replica.stamped(name).items():
            facts[name, key] = Fact(epoch, counter, value)
    unreadable = [place for place, fact in facts.items() if place[0] == BREAKS and decode_number(fact.value) is None]
    for place in unreadable:
        del facts[place]
    return valid(facts), malformed + len(unreadable)


def merged(before: Facts, present: Facts) -> dict[Place, Fact]:
    """What two documents say together: of each fact the latest word. ``present`` is the one of the later epoch."""
    facts = dict(before)
    for place, fact in present.items():
        facts[place] = fact if place[0] in IMMUTABLE else max(fact, facts.get(place, fact))
    return valid(facts)


def valid(facts: Facts) -> dict[Place, Fact]:
    """``facts`` without the promises that their promisers have broken with, sorted by place."""
    return {place: facts[place] for place in sorted(facts) if not _is_void(facts, place)}


def _is_void(facts: Facts, place: Place) -> bool:
    if place[0] != PROMISES:
        return False
    since = facts.get((BREAKS, place[1].partition("/")[0]))
    fact = facts[place]
    return since is not None and (fact.epoch, fact.counter) < (since.epoch, since.counter)


def _unpack(raw: bytes) -> object:
    try:
        return msgpack.unpackb(raw)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < COUNT_MAX
