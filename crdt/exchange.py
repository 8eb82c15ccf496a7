"""Exchange: keeps the replicas of one document equal, over a network that loses, repeats and reorders.

Automerge's own sync protocol is not used: its state machine stalls for ever after one lost message, and in a full mesh
one change costs n(n-1) messages. Instead:

- An author *pushes* its new change to all fellows; when they are many, to about log2 n of them, and each one to whom it
  is new relays it once to as many.
- On a slow timer each replica *compares* heads with two fellows. The one behind requests, the one ahead sends what is
  missing. Equal heads are answered with silence, so a quiet document costs those comparisons and nothing else.

Nothing about a peer needs to be remembered for this to converge: every message may be lost or come twice. Every
conversation ends, because each kind of message is answered by lower kinds only (see ``HeadsPurpose``):

    compare, probe -> repair + acknowledge | request        push -> acknowledge, relays | request (if changes wait)
    request -> repair, counter-request                      repair -> acknowledge
    counter-request -> repair                               acknowledge -> nothing

Heads are also an acknowledgement. They are told after the caller has made them durable, so a fellow whose heads cover a
change holds it safely: ``confirmed``. That is the only thing kept about peers, bounded, and it may be lost.

No IO, no clock: methods return what to send. Demers et al., "Epidemic Algorithms for Replicated Database Maintenance"
(1987), call the two halves rumor mongering and anti-entropy.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, log2

from crdt.errors import MalformedMessage
from crdt.history import Permit
from crdt.messages import Heads, HeadsPurpose, MessageLimits, Push, PushPurpose, decode_message
from crdt.replica import Applied, Refusal, Replica

_WANTS_ACKNOWLEDGEMENT = (PushPurpose.PUBLISH, PushPurpose.SPREAD, PushPurpose.REPAIR)
_IS_RELAYED = (PushPurpose.SPREAD, PushPurpose.RELAY)


@dataclass(frozen=True, slots=True)
class ExchangeConfig:
    """``push_all_max``: up to so many fellows get a new change from its author directly. ``compared_fellows``: asked on
    each slow timer. ``piece_size_bytes_max``: changes in one message, unless a single one is larger. ``pieces_max``:
    messages of one repair; the next comparison brings the rest. ``recent``: newest hashes told in a request.
    """

    push_all_max: int = 8
    compared_fellows: int = 2
    piece_size_bytes_max: int = 256 * 1024
    pieces_max: int = 16
    recent: int = 16
    limits: MessageLimits = field(default_factory=MessageLimits)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message for one fellow."""

    to: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """What a message did. ``changes`` are newly applied: make them durable, then send ``outgoing``, in order.

    ``waiting``: changes of this message that wait for others. ``refused``: those that the replica turned away.
    ``malformed``: why the message could not be read, or why its sender gets no answer; empty if all is well.
    """

    changes: tuple[bytes, ...] = ()
    outgoing: tuple[Outgoing, ...] = ()
    waiting: int = 0
    refused: tuple[Refusal, ...] = ()
    malformed: str = ""


class Exchange:
    """One replica's side of the conversation with its fellows, the other holders of the document.

    ``fellows`` is always all who may see the document, reachable or not, without oneself: nobody else gets an answer.
    """

    def __init__(self, replica: Replica, rng: random.Random, config: ExchangeConfig | None = None) -> None:
        """``replica`` may be replaced at any time by another one of the same document."""
        self.replica = replica
        self._rng = rng
        self._config = config or ExchangeConfig()
        self._held: dict[str, tuple[bytes, ...]] = {}

    def publish(self, change: bytes, fellows: Sequence[str]) -> list[Outgoing]:
        """Push one's own new change, which is durable here. Publishing it again is harmless."""
        self._forget_others(fellows)
        if len(fellows) <= self._config.push_all_max:
            return _to_each(sorted(fellows), Push(PushPurpose.PUBLISH, (change,)))
        return _to_each(self._some(fellows), Push(PushPurpose.SPREAD, (change,)))

    def compare(self, fellows: Sequence[str]) -> list[Outgoing]:
        """Tell heads to a few random fellows, first to one of those not known to hold everything, who must answer."""
        self._forget_others(fellows)
        doubtful = [fellow for fellow in sorted(fellows) if not self._holds_all(fellow)]
        asked = [self._rng.choice(doubtful)] if doubtful else []
        others = sorted(set(fellows) - set(asked))
        asked += self._rng.sample(others, min(len(others), self._config.compared_fellows - len(asked)))
        return [
            Outgoing(fellow, self._heads(HeadsPurpose.PROBE if fellow in doubtful else HeadsPurpose.COMPARE))
            for fellow in asked
        ]

    def probe(self, fellow: str) -> Outgoing:
        """Tell one fellow the heads; it must answer."""
        return Outgoing(fellow, self._heads(HeadsPurpose.PROBE))

    def receive(self, sender: str, message: bytes, fellows: Sequence[str], permit: Permit) -> Received:
        """Take in a message. Never raises for what a peer sent."""
        self._forget_others(fellows)
        try:
            decoded = decode_message(message, self._config.limits)
        except MalformedMessage as error:
            return Received(malformed=str(error))
        if isinstance(decoded, Push):
            return self._pushed(sender, decoded, fellows, permit)
        if sender not in fellows:
            return Received(malformed=f"{sender} is no fellow")
        return Received(outgoing=tuple(self._told(sender, decoded)))

    def confirmed(self, change_hash: bytes) -> tuple[str, ...]:
        """Fellows whose acknowledged heads say that they hold this change durably, sorted."""
        held = sorted(self._held.items())
        return tuple(fellow for fellow, heads in held if self.replica.covers(heads, change_hash))

    def is_level_with(self, fellow: str) -> bool:
        """Whether ``fellow`` has told its heads, and all that they stand for is here, too."""
        return fellow in self._held and self.replica.contains(self._held[fellow])

    def forget(self, fellow: str) -> None:
        """Drop what ``fellow`` acknowledged: it may have lost its disk."""
        self._held.pop(fellow, None)

    def _pushed(self, sender: str, push: Push, fellows: Sequence[str], permit: Permit) -> Received:
        applied = self.replica.apply(push.changes, permit)
        outgoing = self._relays(sender, push, applied, fellows)
        if sender in fellows:
            if applied.waiting and push.purpose is not PushPurpose.REPAIR:
                outgoing.append(Outgoing(sender, self._heads(HeadsPurpose.REQUEST)))
            elif push.purpose in _WANTS_ACKNOWLEDGEMENT:
                outgoing.append(Outgoing(sender, self._heads(HeadsPurpose.ACKNOWLEDGE)))
        return Received(applied.changes, tuple(outgoing), applied.waiting, applied.refused)

    def _relays(self, sender: str, push: Push, applied: Applied, fellows: Sequence[str]) -> list[Outgoing]:
        if push.purpose not in _IS_RELAYED or not applied.changes:
            return []
        others = [fellow for fellow in fellows if fellow != sender]
        return [
            outgoing
            for piece in self._pieces(applied.changes)
            for outgoing in _to_each(self._some(others), Push(PushPurpose.RELAY, piece))
        ]

    def _told(self, sender: str, told: Heads) -> list[Outgoing]:
        self._remember(sender, told.heads)
        own = self.replica.heads()
        behind = not self.replica.contains(told.heads)
        match told.purpose:
            case HeadsPurpose.COMPARE | HeadsPurpose.PROBE if behind:
                return [Outgoing(sender, self._heads(HeadsPurpose.REQUEST))]
            case HeadsPurpose.COMPARE | HeadsPurpose.PROBE if told.heads != own:
                acknowledgement = Outgoing(sender, self._heads(HeadsPurpose.ACKNOWLEDGE))
                return [*self._repair(sender, told), acknowledgement]
            case HeadsPurpose.PROBE:
                return [Outgoing(sender, self._heads(HeadsPurpose.ACKNOWLEDGE))]
            case HeadsPurpose.REQUEST if behind:
                counter_request = Outgoing(sender, self._heads(HeadsPurpose.COUNTER_REQUEST))
                return [*self._repair(sender, told), counter_request]
            case HeadsPurpose.REQUEST | HeadsPurpose.COUNTER_REQUEST:
                return self._repair(sender, told)
            case _:
                return []

    def _repair(self, fellow: str, told: Heads) -> list[Outgoing]:
        missing = self.replica.changes_since((*told.heads, *told.recent))
        pieces = self._pieces(missing)[: self._config.pieces_max]
        return [Outgoing(fellow, Push(PushPurpose.REPAIR, piece).encode()) for piece in pieces]

    def _pieces(self, changes: Sequence[bytes]) -> list[tuple[bytes, ...]]:
        pieces: list[list[bytes]] = []
        room = 0
        for change in changes:
            if not pieces or len(change) > room or len(pieces[-1]) >= self._config.limits.changes_max:
                pieces.append([])
                room = self._config.piece_size_bytes_max
            pieces[-1].append(change)
            room -= len(change)
        return [tuple(piece) for piece in pieces]

    def _heads(self, purpose: HeadsPurpose) -> bytes:
        asks = purpose in (HeadsPurpose.REQUEST, HeadsPurpose.COUNTER_REQUEST)
        recent = self.replica.recent(self._config.recent) if asks else ()
        hashes_max = self._config.limits.hashes_max
        return Heads(purpose, self.replica.heads()[:hashes_max], recent[:hashes_max]).encode()

    def _some(self, fellows: Sequence[str]) -> list[str]:
        count = min(len(fellows), ceil(log2(len(fellows) + 1)))
        return sorted(self._rng.sample(sorted(fellows), count))

    def _remember(self, fellow: str, heads: Iterable[bytes]) -> None:
        """Add to what ``fellow`` acknowledged; an older message that comes late takes nothing away."""
        covers = self.replica.covers
        older = [head for head in self._held.get(fellow, ()) if not covers(heads, head)]
        newer = [head for head in heads if not covers(older, head)]
        self._held[fellow] = (*newer, *older)[: self._config.limits.hashes_max]

    def _holds_all(self, fellow: str) -> bool:
        held = self._held.get(fellow, ())
        return all(self.replica.covers(held, head) for head in self.replica.heads())

    def _forget_others(self, fellows: Iterable[str]) -> None:
        for former in self._held.keys() - set(fellows):
            del self._held[former]


def _to_each(fellows: Iterable[str], push: Push) -> list[Outgoing]:
    message = push.encode()
    return [Outgoing(fellow, message) for fellow in fellows]
