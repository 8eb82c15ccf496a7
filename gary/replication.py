"""One member's copy of a deployment's document: durable before told, level with its fellows', from epoch to epoch.

What is written or received goes to the disk first; only then do fellows hear of it, and whoever asked how many members
hold it gets an answer (rule 3). Nothing here decides what the document ought to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from crdt import CorruptReplica, Exchange, ExchangeConfig, Outgoing
from gary.acquaintance import is_proven, knows_all, proofs, proofs_of_instances
from gary.document import Document, Draft
from gary.effects import Alarm, SetAlarm
from gary.epochs import changes_until, is_reachable, taken_along
from gary.facts import MEMBERS, Fact
from gary.host import Host
from gary.identity import DeploymentId, NodeId, Slot
from gary.messages import Acceptance, Acquaintance, Behind, Dismissed, Snapshot, Sync
from gary.outbox import After, Outbox
from gary.permission import permit_in
from gary.state import GONE, Role, State
from gary.storage import AppendChanges, PutSnapshot, Write

BOOT_GRACE_S = 3.0
"""How long a restarted node waits for a fellow's news before it trusts what its own disk says."""
NEWS_S = 0.5
"""How soon fellows are asked about a node that they may have invited meanwhile."""
ASK_AGAIN_S = 2.0
"""How soon a fellow in a later epoch is asked again for its document."""
COMPARE_S = 20.0
AWAITED_COMPARE_S = 1.0
"""How often, while somebody waits for what fellows hold: pushes and acknowledgements get lost, and whoever goes on in
another epoch has yet to say what it holds there."""
CHANGES_PER_SNAPSHOT = 400
RETRY_WRITE_S = 2.0


@dataclass(slots=True)
class _Waiting:
    """Somebody wants to know when what ``heads`` stand for is durable on enough members."""

    heads: tuple[bytes, ...]
    enough: Callable[[], int]
    done: Callable[[tuple[NodeId, ...]], None]


class Replication:
    """``slots_here()``: where this node's containers are or may be. ``left``: the heads with which it said goodbye, or
    those that its disk had; ``farewelled``: who knows that it left, ``empty_handed``: who has told it since that they
    hold no document.

    ``is_synced``: what is known here is not just what this node's own disk said when it started. ``settled``: the slots
    that this node keeps by what is on its disk, too, wherever its promise came from: its own claim, or a document that
    somebody sent.
    """

    def __init__(
        self,
        id: DeploymentId,
        document: Document,
        host: Host,
        slots_here: Callable[[], AbstractSet[Slot]],
        now: float,
        *,
        is_restored: bool,
    ) -> None:
        self.document = document
        self.is_synced = not is_restored
        self._id = id
        self._host = host
        self._slots_here = slots_here
        self._exchange = Exchange(document.replica, host.rng, ExchangeConfig())
        self._outbox = Outbox(host.next_number)
        self._synced_by = now + BOOT_GRACE_S
        self._compare_at = now + COMPARE_S * host.rng.uniform(0.5, 1.0)
        self._ask_at = now
        self._behind: set[NodeId] = set()
        self._appended = 0
        self._waiting: list[_Waiting] = []
        self._asks = 0
        self._vouching: dict[int, NodeId] = {}
        self._vouched: set[NodeId] = set()
        self.settled = self._promised() if is_restored else frozenset()
        membership = document.state.members.get(host.node)
        has_left = is_restored and membership is not None and membership.role is Role.LEFT
        self.left: tuple[bytes, ...] = document.replica.heads() if has_left else ()
        self._proven: dict[NodeId, Fact | None] = {}
        self._told_of: set[NodeId] = set()
        self._news_at = now
        self.farewelled: set[NodeId] = set()
        self.empty_handed: set[NodeId] = set()

    @property
    def state(self) -> State:
        return self.document.state

    @property
    def failure(self) -> str:
        """Why nothing can be written at the moment; empty if all is well."""
        return self._outbox.failure

    @property
    def unwritten(self) -> int:
        """How many writes are not durable yet."""
        return len(self._outbox)

    @property
    def is_awaited(self) -> bool:
        """Somebody waits for members to hold something."""
        return bool(self._waiting)

    def fellows(self) -> list[NodeId]:
        """The live nodes to exchange with, in the order of their ids."""
        alive, state = self._host.alive, self.state
        permitted = {*state.holders, *filter(self.is_fellow, self._proven)}
        return sorted(node for node in permitted if node in alive and node != self._host.node)

    def is_fellow(self, node: NodeId) -> bool:
        """Whether ``node`` may have the document: it is named as a holder, or has shown that it is one, and nothing has
        been said of it since.
        """
        membership = self.state.members.get(node)
        if membership is not None and membership.role not in GONE:
            return True
        return node in self._proven and self._proven[node] == self._stated_of(node)

    def _stated_of(self, node: NodeId) -> Fact | None:
        return self.document.facts.get((MEMBERS, node))

    # Writing

    def write(self, draft: Draft, now: float, after: After | None = None) -> bytes:
        """Commit, make durable, then tell the fellows and call ``after``. Returns the change's hash, or nothing.

        A change depends on all heads that there were, so its hash is the one head afterwards.
        """
        change = self.document.commit(draft)
        if change:
            outgoing = self._exchange.publish(change, self.fellows())
            self._persist((AppendChanges(self._id, (change,)),), outgoing, now, after)
            return self.document.replica.heads()[0]
        if after is not None:
            self._persist((), (), now, after)
        return b""

    def save(self, now: float) -> None:
        """Write the document whole: the first time, and when many changes were appended."""
        self._appended = 0
        self._persist((PutSnapshot(self._id, self.document.replica.save()),), (), now, None)

    def _persist(self, writes: Sequence[Write], outgoing: Iterable[Outgoing], now: float, after: After | None) -> None:
        epoch = self.document.epoch
        messages = [(message.to, Sync(self._id, epoch, message.message)) for message in outgoing]

        def durable(at: float) -> None:
            for to, message in messages:
                self._host.send(to, message)
            if after is not None:
                after(at)

        self._appended += len(writes)
        self.settled &= self._promised()
        self._host.emit(self._outbox.add(writes, durable))
        if self._appended >= CHANGES_PER_SNAPSHOT:
            self.save(now)

    def _tell(self, outgoing: Sequence[Outgoing], now: float) -> None:
        """Send once all that is here is durable; nothing while the disk fails, for all are asked again later."""
        if self.failure:
            return
        if outgoing and self._outbox:
            self._persist((), outgoing, now, None)
            return
        for message in outgoing:
            self._host.send(message.to, Sync(self._id, self.document.epoch, message.message))

    def persisted(self, token: int, now: float) -> bool:
        if not self._outbox.persisted(token, now):
            return False
        if not self._outbox:
            self.settled = self._promised()
            self._answer_who_is_behind()
        return True

    def persist_failed(self, token: int, reason: str) -> bool:
        if not self._outbox.holds(token):
            return False
        has_to_retry, is_news = self._outbox.persist_failed(reason)
        if is_news:
            words = f"nothing can be written: {reason}; held back until it can"
            self._host.tell("storage", words, deployment=self.state.name)
        if has_to_retry:
            self._host.emit([SetAlarm(Alarm("rewrite", self._id, 0), RETRY_WRITE_S)])
        return True

    def rewrite(self) -> None:
        """Try again what the disk did not take."""
        self._host.emit(self._outbox.retry())

    def _promised(self) -> frozenset[Slot]:
        return frozenset(promise.slot for promise in self.state.promises_of(self._host.node))

    # Who holds what was written

    def when_durable(
        self, change: bytes, enough: Callable[[], int], done: Callable[[tuple[NodeId, ...]], None]
    ) -> None:
        """Call ``done(nodes)`` once ``change`` is on the disks of ``enough()`` live members, this one among them."""
        self._asks += 1
        self._vouching.clear()
        self._vouched.clear()
        self._waiting.append(_Waiting((change,), enough, done))

    def snapshot(self) -> tuple[bytes, int]:
        """The document as it is now, and which of the questions that were asked so far it has the answer to."""
        return self.document.replica.save(), self._asks

    def goes_with(self, invitation: int, node: NodeId, asks: int) -> None:
        """If ``node`` accepts ``invitation`` it holds the snapshot of ``asks``: all that is waited for, or older."""
        if asks == self._asks:
            self._vouching[invitation] = node

    def accepted(self, sender: NodeId, answer: Acceptance) -> None:
        if self._vouching.get(answer.id) == sender and (answer.accepted or not answer.declined):
            self._vouched.add(sender)

    def check_waiting(self) -> None:
        """Answer whoever waits for members to hold something, if enough do."""
        if not self._waiting or self._outbox:
            return
        alive = self._host.alive
        for waiting in list(self._waiting):
            known = {self._host.node, *self.confirmed(waiting.heads), *self._vouched}
            holding = tuple(sorted(node for node in known if node in alive))
            if len(holding) >= waiting.enough():
                self._waiting.remove(waiting)
                waiting.done(holding)

    def end_waiting(self) -> None:
        """The deployment was removed: nobody waits any longer."""
        for waiting in self._waiting:
            waiting.done((self._host.node,))
        self._waiting.clear()

    def confirmed(self, heads: Sequence[bytes]) -> set[NodeId]:
        """The fellows that hold all that ``heads`` stand for."""
        return set(self.fellows()).intersection(*(self._exchange.confirmed(head) for head in heads))

    def say_goodbye(self, now: float) -> None:
        """What was just written says that this node leaves: others are asked more often whether they know."""
        self.left = self.document.replica.heads()
        self._compare_at = now + AWAITED_COMPARE_S

    # Keeping level

    def received(self, sender: NodeId, sync: Sync, now: float) -> bool:
        """A message of the exchange, from a node that holds the document or says so. Whether anything follows here."""
        if not self.is_fellow(sender):
            return self.stranger(sender, now)
        epoch = self.document.epoch
        if sync.epoch != epoch:
            return self._hear_of(sender, sync.epoch, now)
        fellows = self.fellows()
        received = self._exchange.receive(sender, sync.body, fellows, permit_in(epoch))
        was_synced = self.is_synced
        if received.changes:
            self._persist((AppendChanges(self._id, received.changes),), received.outgoing, now, None)
            self.is_synced = True
        else:
            self.is_synced = was_synced or self._exchange.is_level_with(sender)
            self._tell(received.outgoing, now)
        # Whoever waits for acknowledgements may have waited for this one.
        is_awaited = bool(self._waiting or self.left)
        return bool(received.changes) or self.is_synced is not was_synced or is_awaited

    def probe(self, fellow: NodeId, now: float) -> None:
        """Ask one fellow what it knows."""
        self._tell([self._exchange.probe(fellow)], now)

    def compare(self, now: float) -> None:
        """Ask some fellows what they know: the slow repair of whatever was lost on the way."""
        fellows = self.fellows()
        self._tell(self._exchange.compare(fellows), now)
        self._introduce()

    def compare_if_due(self, now: float) -> float:
        """Compare now if it is time. Returns when it is time next."""
        if self._waiting:
            self._compare_at = min(self._compare_at, now + AWAITED_COMPARE_S)
        if now >= self._compare_at:
            pause_s = AWAITED_COMPARE_S if self.left or self._waiting else COMPARE_S
            self._compare_at = now + pause_s * self._host.rng.uniform(0.75, 1.25)
            self.compare(now)
        return self._compare_at

    def check_synced(self, now: float, wake: list[float]) -> None:
        """After a while without an answer this node goes by what it has."""
        if self.is_synced:
            return
        fellows = self.fellows()
        if now >= self._synced_by and (not fellows or now >= self._synced_by + BOOT_GRACE_S):
            self.is_synced = True
            return
        wake.append(self._synced_by if now < self._synced_by else self._synced_by + BOOT_GRACE_S)

    # Who may have the document

    def stranger(self, sender: NodeId, now: float) -> bool:
        """``sender`` speaks like a member and is none as far as is known here. Whether anything follows here.

        It gets nothing but word that it is gone, or the question what it knows. It may have been invited meanwhile, so
        fellows are asked for news.
        """
        self._host.count("strangers_refused")
        is_named = sender in self.state.members
        if is_named:
            gone = self.document.facts[MEMBERS, sender]
            known = proofs_of_instances(self.state, self._host.node, sender)
            self._host.send(sender, Dismissed(self._id, gone.epoch, gone.counter, known))
        if now < self._news_at:
            return False
        self._news_at = now + ASK_AGAIN_S
        self._compare_at = min(self._compare_at, now + NEWS_S)
        if not is_named:
            self._host.send(sender, self._acquaintance(sender, asks=True))
        return True

    def meet(self, node: NodeId, now: float) -> None:
        """``node`` has come, or come back: ask what it knows, if it may be asked."""
        if self.is_fellow(node):
            self.probe(node, now)
        elif node in self._host.responsible(self._id):
            self._introduce_to(node)

    def _introduce(self) -> None:
        """Ask those to show that they hold the document who say so and are not named in it."""
        for node in self._host.responsible(self._id):
            if node in self._host.alive and node != self._host.node and not self.is_fellow(node):
                self._introduce_to(node)

    def _introduce_to(self, node: NodeId) -> None:
        membership = self.state.members.get(node)
        if membership is None:
            self._host.send(node, self._acquaintance(node, asks=True))
        elif membership.role is Role.FORGOTTEN:
            self._tell_of(node, "was struck off here and says that it holds it")

    def _acquaintance(self, node: NodeId, *, asks: bool) -> Acquaintance:
        return Acquaintance(self._id, proofs(self.state, self._host.node, node), asks)

    def acquainted(self, sender: NodeId, told: Acquaintance, now: float) -> None:
        """Exchange with ``sender`` from now on, if it has shown that it holds what is held here."""
        if not self.is_fellow(sender):
            if is_proven(self.state, told.proofs, sender, self._host.node):
                self._proven[sender] = self._stated_of(sender)
                self.probe(sender, now)
            else:
                self._host.count("strangers_refused")
                self._tell_of(sender, "holds another one of this name, or says so")
        if told.asks and not self.left:
            self._host.send(sender, self._acquaintance(sender, asks=False))

    def holds_nothing(self, node: NodeId) -> None:
        """``node`` says that it does not hold the document: what it has shown is over."""
        self._proven.pop(node, None)

    def _tell_of(self, node: NodeId, what: str) -> None:
        if node not in self._told_of:
            self._told_of.add(node)
            words = f"{self._host.display_name(node)} {what}: nothing is exchanged with it"
            self._host.tell("stranger", words, deployment=self.state.name)

    def is_dismissed(self, sender: NodeId, told: Dismissed) -> bool:
        """Whether this node has to go because others have struck it off; that it left by itself is noted.

        Whom it had told that it leaves has not heard that it stayed after all, as a node does that believes itself the
        last one. And who does not know of all that lives here means an earlier deployment of that name. Both are shown
        that this node holds the document.
        """
        mine = self._stated_of(self._host.node)
        if mine is None or not self.is_fellow(sender):
            self._host.count("strangers_refused")
            return False
        knows_what_lives = knows_all(self.state, told.proofs, sender, self._host.node)
        if self.left and knows_what_lives:
            self.farewelled.add(sender)
            return False
        if knows_what_lives and (told.epoch, told.counter) > (mine.epoch, mine.counter):
            return True
        self._host.send(sender, self._acquaintance(sender, asks=True))
        return False

    # Epochs

    def consider_next_epoch(self, members: Sequence[NodeId], now: float) -> None:
        """Begin the next epoch if it is time, and nothing is known that is missing here or not durable."""
        replica, node = self.document.replica, self._host.node
        if not self.is_synced or self._outbox or replica.waiting or self.left or node not in members:
            return
        limit = changes_until(self.document.epoch, node, members, self._host.changes_per_epoch)
        if replica.change_count >= limit:
            self._host.count("epochs_begun")
            self._go_on_in(self._host.blank_document(), now)

    def _hear_of(self, sender: NodeId, epoch: int, now: float) -> bool:
        """``sender`` is in another epoch: the one that is behind gets the other's document."""
        if epoch < self.document.epoch:
            self.probe(sender, now)
        elif not is_reachable(epoch, self.document.epoch):
            self._host.count("epochs_refused")
        elif now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN_S
            self._host.send(sender, Behind(self._id, self.document.epoch))
            # The question or its answer may get lost; whoever is compared with then says again that this is behind.
            self._compare_at = min(self._compare_at, self._ask_at)
            return True
        return False

    def behind(self, sender: NodeId, asked: Behind, now: float) -> None:
        """A fellow asks for the document of this epoch."""
        if not self.is_fellow(sender):
            self.stranger(sender, now)
        elif asked.epoch < self.document.epoch:
            self._behind.add(sender)
            self._answer_who_is_behind()

    def _answer_who_is_behind(self) -> None:
        """Send this epoch's document to who asked for it, as soon as all of it is durable."""
        if self._behind and not self._outbox:
            snapshot = Snapshot(self._id, self.document.epoch, self.document.replica.save())
            for fellow in sorted(self._behind):
                self._host.send(fellow, snapshot)
            self._behind.clear()

    def overtaken(self, sender: NodeId, told: Snapshot, now: float) -> bool:
        """The document of a later epoch, from a fellow that is there. Whether this node goes on in it."""
        if not self.is_fellow(sender):
            return self.stranger(sender, now)
        if told.epoch <= self.document.epoch:
            return False
        try:
            if not is_reachable(told.epoch, self.document.epoch):
                raise CorruptReplica("it comes from nobody who could have it")
            document = self._host.open_document(told.snapshot, told.epoch)
            if document.epoch != told.epoch or document.state.name != self.state.name:
                raise CorruptReplica("it is another document than it was said to be")
        except CorruptReplica:
            self._host.count("epochs_refused")
            return False
        self._host.count("epochs_followed")
        self._go_on_in(document, now)
        self.is_synced = True
        return True

    def _go_on_in(self, document: Document, now: float) -> None:
        """Put this one's document in the place of the present one, with all that is known here and not there."""
        changes = document.commit_all(taken_along(self.document, document, self._slots_here()))
        self.document = document
        self._exchange = Exchange(document.replica, self._host.rng, ExchangeConfig())
        heads = document.replica.heads()
        for waiting in self._waiting:
            waiting.heads = heads
        self.left = heads if self.left else ()
        pushed = [message for change in changes[-1:] for message in self._exchange.publish(change, self.fellows())]
        self._appended = 0
        self._persist((PutSnapshot(self._id, document.replica.save()),), pushed, now, None)
