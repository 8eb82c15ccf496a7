"""One deployment on one of its members: document, exchange, promises, containers and calls, held together.

``evaluate`` is level-triggered: whatever happened, it looks at the state anew, decides with the pure functions of
``assignment``, ``rollout`` and ``reconciler``, writes what this node now has to state, and asks for what follows. It
can be called at any time, and twice has the effect of once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from crdt import CorruptReplica, Exchange, ExchangeConfig, Outgoing
from gary import spec as specs
from gary.assignment import (
    Keeping,
    View,
    is_believed_healthy,
    is_dispensable,
    keeping,
    keepings,
    live_members,
    live_promises,
    reason_to_withdraw,
    relieved,
    resilience,
    staying_members,
)
from gary.calling import Calling, Placement
from gary.document import Document, Draft, Promise, PromiseState, Role, State, permit_in
from gary.effects import Alarm, SetAlarm
from gary.epochs import changes_until, is_reachable, taken_along
from gary.host import Host
from gary.identity import Claim, DeploymentId, Generation, NodeId, Slot, index_of, rendezvous, service_of
from gary.messages import Acceptance, Behind, Invitation, Released, Snapshot, Sync
from gary.outbox import After, Outbox
from gary.reconciler import (
    Containers,
    Slate,
    Start,
    Stop,
    Wanted,
    by_slot,
    failed,
    observe,
    operations,
    outcome,
    settles_at_s,
)
from gary.rollout import waits_for
from gary.runtime.base import Container, ContainerState, Labels, StartRequest
from gary.storage import AppendChanges, PutSnapshot, Write
from gary.volunteering import Room, after, per_node_max, refusal, requirement

BOOT_GRACE_S = 3.0
"""How long a restarted node waits for a fellow's news before it trusts what its own disk says."""
ENGINE_NOTICE_S = 3.0
"""After this long without its engine a node says that it cannot know whether it keeps what it promised."""
ENGINE_PATIENCE_S = 30.0
"""After this long without its engine a node lets others take over what it cannot keep."""
ASK_AGAIN_S = 2.0
"""How soon a fellow in a later epoch is asked again for its document."""
COMPARE_S = 20.0
PARTING_COMPARE_S = 1.0
IDLE_MEMBER_S = 30.0
FORGET_AFTER_S = 7 * 24 * 3600.0
CHANGES_PER_SNAPSHOT = 400
RETRY_WRITE_S = 2.0
DEFAULT_GRACE_S = 10.0
CLOCK_TOLERANCE_S = 60.0


@dataclass(slots=True)
class _Waiting:
    """Somebody wants to know when what ``heads`` stand for is durable on enough members."""

    heads: tuple[bytes, ...]
    enough: Callable[[], int]
    done: Callable[[tuple[NodeId, ...]], None]


class Deployment:
    """What one member does for one deployment. All inputs take ``now`` (monotonic seconds)."""

    def __init__(self, id: DeploymentId, document: Document, host: Host, now: float, *, is_restored: bool) -> None:
        self.id = id
        self.document = document
        self.calling = Calling(id, host)
        self.slates: dict[Slot, Slate] = {}
        self._host = host
        self._exchange = Exchange(document.replica, host.rng, ExchangeConfig())
        self._ask_at = now
        self._behind: set[NodeId] = set()
        self._outbox = Outbox(host.next_number)
        self._busy: dict[Slot, str] = {}
        self._unsettled: set[Slot] = set()
        self._is_synced = not is_restored
        self._synced_by = now + BOOT_GRACE_S
        self._appended = 0
        self._compare_at = now + COMPARE_S * host.rng.uniform(0.5, 1.0)
        self._alarm_at = 0.0
        self._alarm_token = 0
        self._idle_since: float | None = None
        self._left: tuple[bytes, ...] = ()
        self._waiting: list[_Waiting] = []
        self._announced = document.state.effective
        self._timed: Generation | None = None
        self._asks = 0
        self._vouching: set[int] = set()
        self._vouched: set[NodeId] = set()

    @property
    def state(self) -> State:
        return self.document.state

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def storage_failure(self) -> str:
        """Why nothing can be written at the moment; empty if all is well."""
        return self._outbox.failure

    @property
    def unwritten(self) -> int:
        """How many writes are not durable yet."""
        return len(self._outbox)

    def _view(self) -> View:
        return self._host.view(self.state)

    def fellows(self) -> list[NodeId]:
        """The live nodes to exchange with: the document's holders, and whoever advertises to hold one of this name."""
        alive = self._host.alive
        known = {*self.state.holders, *self._host.responsible(self.id)}
        return sorted(node for node in known if node in alive and node != self._host.node)

    # Writing

    def write(self, draft: Draft, now: float, after: After | None = None) -> bytes:
        """Commit, make durable, then tell the fellows and call ``after``. Returns the change's hash, or nothing.

        A change depends on all heads that there were, so its hash is the one head afterwards.
        """
        change = self.document.commit(draft)
        if change:
            outgoing = self._exchange.publish(change, self.fellows())
            self._persist((AppendChanges(self.id, (change,)),), outgoing, now, after)
            return self.document.replica.heads()[0]
        if after is not None:
            self._persist((), (), now, after)
        return b""

    def save(self, now: float, after: After | None = None) -> None:
        """Write the document whole: the first time, and when many changes were appended."""
        self._appended = 0
        self._persist((PutSnapshot(self.id, self.document.replica.save()),), (), now, after)

    def _persist(self, writes: Sequence[Write], outgoing: Iterable[Outgoing], now: float, after: After | None) -> None:
        epoch = self.document.epoch
        messages = [(message.to, Sync(self.id, epoch, message.message)) for message in outgoing]

        def durable(at: float) -> None:
            for to, message in messages:
                self._host.send(to, message)
            if after is not None:
                after(at)

        self._appended += len(writes)
        self._host.emit(self._outbox.add(writes, durable))
        if self._appended >= CHANGES_PER_SNAPSHOT:
            self.save(now)

    def _tell(self, outgoing: Sequence[Outgoing], now: float) -> None:
        """Send once all that is here is durable."""
        if outgoing and self._outbox:
            self._persist((), outgoing, now, None)
            return
        for message in outgoing:
            self._host.send(message.to, Sync(self.id, self.document.epoch, message.message))

    def persisted(self, token: int, now: float) -> bool:
        if not self._outbox.persisted(token, now):
            return False
        if not self._outbox:
            self._unsettled.clear()
            self._answer_who_is_behind()
        return True

    def persist_failed(self, token: int, reason: str, now: float) -> bool:
        if not self._outbox.holds(token):
            return False
        has_to_retry, is_news = self._outbox.persist_failed(reason)
        if is_news:
            self._host.tell(
                "storage", f"nothing can be written: {reason}; held back until it can", deployment=self.name
            )
        if has_to_retry:
            self._host.emit([SetAlarm(Alarm("rewrite", self.id, 0), RETRY_WRITE_S)])
        return True

    def rewrite(self) -> None:
        """Try again what the disk did not take."""
        self._host.emit(self._outbox.retry())

    def when_durable(
        self, change: bytes, enough: Callable[[], int], done: Callable[[tuple[NodeId, ...]], None]
    ) -> None:
        """Call ``done(nodes)`` once ``change`` is on the disks of ``enough()`` live members, this one among them."""
        self._asks += 1
        self._vouching.clear()
        self._vouched.clear()
        self._waiting.append(_Waiting((change,), enough, done))

    def _check_waiting(self) -> None:
        if not self._waiting or self._outbox:
            return
        view = self._view()
        for waiting in list(self._waiting):
            known = {self._host.node, *self._confirmed(waiting.heads), *self._vouched}
            holding = tuple(sorted(node for node in known if node in view.alive))
            if len(holding) >= waiting.enough():
                self._waiting.remove(waiting)
                waiting.done(holding)

    def _confirmed(self, heads: Sequence[bytes]) -> set[NodeId]:
        """The fellows that hold all that ``heads`` stand for."""
        return set(self.fellows()).intersection(*(self._exchange.confirmed(head) for head in heads))

    # What comes in

    def received(self, sender: NodeId, sync: Sync, now: float) -> None:
        """A message of the exchange, from a node that holds the document or says so."""
        epoch = self.document.epoch
        if sync.epoch != epoch:
            self._hear_of(sender, sync.epoch, now)
            return
        fellows = self.fellows()
        received = self._exchange.receive(sender, sync.body, fellows, permit_in(epoch))
        was_synced = self._is_synced
        if received.changes:
            self._persist((AppendChanges(self.id, received.changes),), received.outgoing, now, None)
            self._is_synced = True
        else:
            if sender in fellows:
                self._is_synced = was_synced or self._exchange.is_level_with(sender)
            self._tell(received.outgoing, now)
        is_awaited = self._waiting or self._left  # whoever waits for acknowledgements may have waited for this one
        if received.changes or self._is_synced is not was_synced or is_awaited:
            self.evaluate(now)

    def accepted(self, sender: NodeId, answer: Acceptance, now: float) -> None:
        self.calling.acceptance(sender, answer)
        if answer.id in self._vouching and (answer.accepted or not answer.declined):
            self._vouched.add(sender)
        self.evaluate(now)

    def invited(self, sender: NodeId, invitation: Invitation, now: float) -> None:
        """Take on what can be taken on, say so in the document, and answer once that is durable."""
        state, view, draft = self.state, self._view(), self.document.draft()
        accepted: list[Slot] = []
        declined: list[tuple[Slot, str]] = []
        room = self._host.room()
        membership = state.members.get(self._host.node)
        if membership is None or membership.role is not Role.MEMBER:
            draft.stay(sender)
        for slot in invitation.slots:
            reason, room = self._consider(state, view, slot, room, len(accepted))
            if reason is None:
                accepted.append(slot)
                self._claim(draft, state, view, slot)
            else:
                declined.append((slot, reason))
        answer = Acceptance(invitation.id, self.id, tuple(accepted), tuple(declined))
        self._idle_since = None
        self._left = ()
        self.write(draft, now, lambda at: self._host.send(sender, answer))
        self._host.changed(self.id)
        self.evaluate(now)

    def _consider(self, state: State, view: View, slot: Slot, room: Room, taken: int) -> tuple[str | None, Room]:
        """Why this node does not take ``slot``, or None and the room that is left."""
        service = state.service(slot)
        if service is None:
            return "the slot is not wanted any more", room
        mine = state.promise(self._host.node, slot)
        if mine is not None and mine.state is not PromiseState.WITHDRAWN:
            return None, room
        holder = keeping(state, view, slot).holder
        if holder is not None and not holder.yielding:
            return f"it is kept by {self._host.display_name(holder.node)}", room
        limit = per_node_max(service)
        here = [p for p in state.promises_of(self._host.node) if state.service(p.slot) is service]
        if limit and len(here) + taken >= limit:
            return f"at most {limit} per node", room
        needed = requirement(service)
        reason = refusal(needed, room)
        return (reason, room) if reason else (None, after(room, needed))

    def _claim(self, draft: Draft, state: State, view: View, slot: Slot) -> None:
        assert state.effective is not None
        yielding = tuple(p.node for p in live_promises(state, view, slot) if p.yielding)
        promise = Promise(
            node=self._host.node,
            slot=slot,
            claim=Claim(state.lamport + 1, self._host.node),
            generation=state.effective,
            epoch=self._host.epoch,
            state=PromiseState.STARTING,
            instead_of=yielding,
        )
        mine = state.promise(self._host.node, slot)
        if mine is None or mine.state is PromiseState.WITHDRAWN:
            draft.promise(promise)
            self._unsettled.add(slot)
            self.slates.pop(slot, None)

    def gone(self, instances: Sequence[str], now: float) -> None:
        """A node knows these instances to be removed; positive knowledge, so this one removes them, too."""
        draft = self.document.draft()
        for instance in sorted({generation.instance for generation in self.state.specs} & set(instances)):
            if instance not in self.state.removed:
                draft.remove(instance)
        if draft:
            self.write(draft, now)
            self.evaluate(now)

    def operated(self, slot: Slot, container: Container | None, error: str, now: float) -> None:
        """An operation on ``slot`` has ended. ``error`` empty: it worked."""
        self._busy.pop(slot, None)
        if error:
            promise = self.state.promise(self._host.node, slot)
            service = None if promise is None else self.state.promised(promise)
            slate = self.slates.get(slot, Slate())
            if service is not None:
                self.slates[slot] = failed(slate, service.restart, error, now)
            if slate.reason != error:
                self._host.tell("container", error, deployment=self.name, slot=slot)
        self.evaluate(now)

    def members_changed(self, now: float, came: NodeId = "") -> None:
        """The cluster has changed; ``evaluate`` is to follow. A fellow that came (back) is asked what it knows."""
        self.calling.encourage()
        if came and came in self.fellows():
            self._tell([self._exchange.probe(came)], now)

    def compare(self, now: float) -> None:
        """Ask some fellows what they know: the slow repair of whatever was lost on the way."""
        self._tell(self._exchange.compare(self.fellows()), now)

    def alarm(self, token: int, now: float) -> None:
        if token == self._alarm_token:
            self._alarm_at = 0.0
            self.evaluate(now)

    # Deciding

    def evaluate(self, now: float) -> None:
        """Look at everything anew and do what is due."""
        wake = [now + 3600.0]
        state = self.state
        self._announce(state)
        if now >= self._compare_at:
            pause_s = PARTING_COMPARE_S if self._left else COMPARE_S
            self._compare_at = now + pause_s * self._host.rng.uniform(0.75, 1.25)
            self.compare(now)
        wake.append(self._compare_at)
        if state.is_removed:
            self._wind_up(state, now)
        elif self._has_left(state):
            self._part(now)
        elif state.spec is not None:
            self._keep_house(state, now, wake)
            self._consider_next_epoch(state, now)
        self._check_waiting()
        self._set_alarm(min(wake), now)

    def _set_alarm(self, at: float, now: float) -> None:
        at = max(at, now + 0.01)
        if not self._alarm_at or at < self._alarm_at - 0.005 or self._alarm_at <= now:
            self._alarm_at = at
            self._alarm_token += 1
            self._host.emit([SetAlarm(Alarm("deployment", self.id, self._alarm_token), at - now)])

    def _keep_house(self, state: State, now: float, wake: list[float]) -> None:
        view = self._view()
        self._check_synced(now, wake)
        draft = self.document.draft()
        membership = state.members.get(self._host.node)
        if membership is not None and membership.role is Role.INVITED:
            # Two invited this node, and the later word of one came over its own.
            draft.stay(membership.inviter)
        containers = self._containers()
        self._look_at_containers(state, containers, now, wake)
        for promise in state.promises_of(self._host.node):
            stated = self._restate(state, view, promise, _container(state, containers, promise), now, wake)
            if stated != promise:
                draft.promise(stated)
                self._tell_of(promise, stated)
                if self._has_failed_for_good(state, promise, stated):
                    draft.judge(stated.generation, stated.slot)
        self._adopt(state, view, containers, draft)
        self._forget_the_long_gone(state, view, draft, now)
        situation = keepings(state, view)
        placement, at = self.calling.step(state, view, situation, draft, now)
        wake.append(at)
        for slot in placement.own:
            self._claim(draft, state, view, slot)
        self._write_and_invite(draft, placement, now)
        self._operate(containers, now)
        self._consider_leaving(view, containers, now, wake)

    def _write_and_invite(self, draft: Draft, placement: Placement, now: float) -> None:
        if not placement.invited:
            if draft and self.write(draft, now):
                self._host.changed(self.id)
            return

        def invite(at: float) -> None:
            state = self.state
            if state.is_removed:
                return
            for node, invitation in self.calling.invitations(placement, state, self._view(), snapshot):
                if invitation.snapshot and asks == self._asks:
                    # Who accepts it holds all that somebody waits for; an older or no document vouches for nothing.
                    self._vouching.add(invitation.id)
                self._host.send(node, invitation)

        self.write(draft, now, invite)
        # As it is now: by the time that this is durable there may be changes that are not.
        snapshot, asks = self.document.replica.save(), self._asks
        self._host.changed(self.id)

    def _check_synced(self, now: float, wake: list[float]) -> None:
        if self._is_synced:
            return
        fellows = self.fellows()
        if now >= self._synced_by and (not fellows or now >= self._synced_by + BOOT_GRACE_S):
            self._is_synced = True
            return
        wake.append(self._synced_by if now < self._synced_by else self._synced_by + BOOT_GRACE_S)

    def _containers(self) -> Containers:
        return by_slot(self._host.containers(self.id))

    def _look_at_containers(self, state: State, containers: Containers, now: float, wake: list[float]) -> None:
        kept = set()
        for promise in state.promises_of(self._host.node):
            kept.add(promise.slot)
            service = state.promised(promise)
            if service is None or promise.slot in self._busy:
                continue
            slate = self.slates.get(promise.slot, Slate())
            seen = observe(slate, _container(state, containers, promise), service.restart, now)
            if seen != slate:
                self.slates[promise.slot] = seen
            if seen.running:
                wake.extend(at for at in (settles_at_s(seen), seen.since_s + 300.0) if at > now)
            if seen.retry_at_s > now:
                wake.append(seen.retry_at_s)
        for slot in [slot for slot in self.slates if slot not in kept]:
            del self.slates[slot]

    def _restate(
        self, state: State, view: View, promise: Promise, container: Container | None, now: float, wake: list[float]
    ) -> Promise:
        """``promise``, which ``container`` keeps, as this node now has to state it."""
        if not self._is_synced:
            return promise
        withdrawal = reason_to_withdraw(state, view, promise)
        if withdrawal is not None:
            keeper = f", now by {self._host.display_name(withdrawal.keeper)}" if withdrawal.keeper else ""
            return replace(promise, state=PromiseState.WITHDRAWN, reason=withdrawal.reason + keeper)
        if promise.epoch != self._host.epoch:
            return self._affirm(state, view, promise, container)
        if not state.is_current(promise) and not waits_for(state, view, promise):
            assert state.effective is not None
            self.slates.pop(promise.slot, None)
            return replace(
                promise,
                generation=state.effective,
                state=PromiseState.STARTING,
                once_healthy=False,
                yielding=self._host.is_draining,
                reason="",
            )
        away_since = self._host.away_since_s(self._runtime(state, promise))
        if away_since is not None:
            away_s = now - away_since
            wake.extend(away_since + limit for limit in (ENGINE_NOTICE_S, ENGINE_PATIENCE_S) if limit > away_s)
            if away_s < ENGINE_NOTICE_S:
                return promise
            yielding = promise.yielding or away_s >= ENGINE_PATIENCE_S
            reason = "the container engine does not answer"
            return replace(promise, state=PromiseState.FAILING, yielding=yielding, reason=reason)
        stated = promise
        if promise.slot not in self._busy:
            stated = outcome(promise, container, self.slates.get(promise.slot, Slate()), now)
        if self._host.is_draining:
            return replace(stated, yielding=True)
        instead_of = relieved(state, view, stated)
        return stated if instead_of == stated.instead_of else replace(stated, instead_of=instead_of)

    def _affirm(self, state: State, view: View, promise: Promise, container: Container | None) -> Promise:
        """After a restart: keep what still runs; yield what does not and is kept elsewhere; start the rest again."""
        epoch = self._host.epoch
        if container is not None and container.state is ContainerState.RUNNING:
            return replace(promise, epoch=epoch)
        if self._host.away_since_s(self._runtime(state, promise)) is not None:
            return promise
        for rival in live_promises(state, view, promise.slot):
            if rival.node != promise.node and is_believed_healthy(rival, view):
                name = self._host.display_name(rival.node)
                return replace(promise, state=PromiseState.WITHDRAWN, reason=f"kept by {name} since this node was away")
        return replace(promise, epoch=epoch, state=PromiseState.STARTING, reason="")

    def _adopt(self, state: State, view: View, containers: Containers, draft: Draft) -> None:
        """A container that runs here on a slot that nobody keeps: this node keeps it from now on."""
        if not self._is_synced:
            return
        for slot, present in containers.items():
            service = state.service(slot)
            if service is None or state.promise(self._host.node, slot) is not None:
                continue
            fits = any(
                c.state is ContainerState.RUNNING and c.labels.fingerprint == specs.fingerprint(service)
                for c in present
            )
            if fits and keeping(state, view, slot).holder is None:
                self._claim(draft, state, view, slot)

    def _forget_the_long_gone(self, state: State, view: View, draft: Draft, now: float) -> None:
        for node in state.holders:
            if node in view.alive or now - self._host.missing_since_s(node) < FORGET_AFTER_S:
                continue
            if rendezvous(node, live_members(state, view))[0] == self._host.node:
                draft.forget(node)

    def _tell_of(self, before: Promise, stated: Promise) -> None:
        if stated.state is not before.state:
            words = f"{stated.state}" + (f": {stated.reason}" if stated.reason else "")
            self._host.tell("promise", words, deployment=self.name, slot=stated.slot)

    def _has_failed_for_good(self, state: State, before: Promise, stated: Promise) -> bool:
        """Whether it is the container that failed, and not the node that leaves or its engine that is away."""
        if stated.state is not PromiseState.FAILING or not stated.yielding or before.yielding:
            return False
        return not self._host.is_draining and self._host.away_since_s(self._runtime(state, stated)) is None

    def _compare_clocks(self, state: State) -> None:
        """A generation from the future harms nobody, since the next one goes beyond it, but a clock is off."""
        if state.effective is None or state.effective == self._timed:
            return
        self._timed = state.effective
        ahead_s = (state.effective.clock >> 16) / 1000 - self._host.wall_s()
        if ahead_s > CLOCK_TOLERANCE_S:
            number = state.number(state.effective)
            words = f"generation {number} is dated {ahead_s / 60:.0f} minutes ahead of this host's clock"
            self._host.tell("clock", f"{words}: the clock of some host is wrong", deployment=self.name)

    def _announce(self, state: State) -> None:
        """Say so when what this node's operators asked for was superseded by somebody else's word."""
        self._compare_clocks(state)
        before, self._announced = self._announced, state.effective
        if before is None or before == state.effective:
            return
        number = state.number(before)
        if state.effective is None:
            self._host.tell(
                "superseded", f"generation {number} ended: the deployment was removed", deployment=self.name
            )
        elif before.author == self._host.node and state.effective.author != self._host.node:
            by = self._host.display_name(state.effective.author)
            words = (
                f"generation {number} was superseded by generation {state.number(state.effective)}, deployed on {by}"
            )
            self._host.tell("superseded", words, deployment=self.name)

    # Epochs

    def _consider_next_epoch(self, state: State, now: float) -> None:
        """Begin the next epoch if it is time, and nothing is known that is missing here or not durable."""
        replica, members = self.document.replica, live_members(state, self._view())
        if not self._is_synced or self._outbox or replica.waiting or self._left or self._host.node not in members:
            return
        limit = changes_until(self.document.epoch, self._host.node, members, self._host.changes_per_epoch)
        if replica.change_count >= limit:
            self._host.count("epochs_begun")
            self._go_on_in(self._host.blank_document(), now)

    def _hear_of(self, sender: NodeId, epoch: int, now: float) -> None:
        """``sender`` is in another epoch: the one that is behind gets the other's document."""
        if sender not in self.fellows():
            self._host.count("epochs_refused")
        elif epoch < self.document.epoch:
            self._tell([self._exchange.probe(sender)], now)
        elif not is_reachable(epoch, self.document.epoch):
            self._host.count("epochs_refused")
        elif now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN_S
            self._host.send(sender, Behind(self.id, self.document.epoch))
            # The question or its answer may get lost; whoever is compared with then says again that this is behind.
            self._compare_at = min(self._compare_at, self._ask_at)
            self.evaluate(now)

    def behind(self, sender: NodeId, asked: Behind) -> None:
        """A fellow asks for the document of this epoch."""
        if sender not in self.fellows():
            self._host.count("epochs_refused")
        elif asked.epoch < self.document.epoch:
            self._behind.add(sender)
            self._answer_who_is_behind()

    def _answer_who_is_behind(self) -> None:
        """Send this epoch's document to who asked for it, as soon as all of it is durable."""
        if self._behind and not self._outbox:
            snapshot = Snapshot(self.id, self.document.epoch, self.document.replica.save())
            for fellow in sorted(self._behind):
                self._host.send(fellow, snapshot)
            self._behind.clear()

    def overtaken(self, sender: NodeId, told: Snapshot, now: float) -> None:
        """The document of a later epoch, from a fellow that is there."""
        if told.epoch <= self.document.epoch:
            return
        try:
            if sender not in self.fellows() or not is_reachable(told.epoch, self.document.epoch):
                raise CorruptReplica("it comes from nobody who could have it")
            document = self._host.open_document(told.snapshot, told.epoch)
            if document.epoch != told.epoch or document.state.name != self.name:
                raise CorruptReplica("it is another document than it was said to be")
        except CorruptReplica:
            self._host.count("epochs_refused")
            return
        self._host.count("epochs_followed")
        self._go_on_in(document, now)
        self._is_synced = True
        self.evaluate(now)

    def _slots_here(self) -> set[Slot]:
        """Where this node's containers are, or may be: an engine that does not answer cannot tell."""
        state = self.state
        own = [promise for promise in state.promises if promise.node == self._host.node]
        unseen = (p.slot for p in own if self._host.away_since_s(self._runtime(state, p)) is not None)
        return {*self._containers(), *self._busy, *unseen}

    def _go_on_in(self, document: Document, now: float) -> None:
        """Put this one's document in the place of the present one, with all that is known here and not there."""
        changes = document.commit_all(taken_along(self.document, document, self._slots_here()))
        self.document = document
        self._exchange = Exchange(document.replica, self._host.rng, ExchangeConfig())
        heads = document.replica.heads()
        for waiting in self._waiting:
            waiting.heads = heads
        self._left = heads if self._left else ()
        pushed = [message for change in changes[-1:] for message in self._exchange.publish(change, self.fellows())]
        self._appended = 0
        self._persist((PutSnapshot(self.id, document.replica.save()),), pushed, now, None)

    # Containers

    def _runtime(self, state: State, promise: Promise) -> str | None:
        service = state.promised(promise)
        return None if service is None else self._host.runtime_for(service)

    def _operate(self, containers: Containers, now: float) -> None:
        """Bring the containers to what was promised, as far as that is durable and known."""
        state, view = self.state, self._view()
        wanted: dict[Slot, Wanted] = {}
        for promise in state.promises_of(self._host.node):
            service = state.promised(promise)
            ready = promise.epoch == self._host.epoch and promise.slot not in self._unsettled
            if service is not None and ready and self._host.away_since_s(self._host.runtime_for(service)) is None:
                wanted[promise.slot] = Wanted(promise.slot, service, specs.fingerprint(service))
        unwanted = frozenset(slot for slot in containers if self._is_synced and self._is_elsewhere(state, view, slot))
        for operation in operations(wanted, unwanted, containers, self.slates, frozenset(self._busy), now):
            self._perform(state, operation)

    def _is_elsewhere(self, state: State, view: View, slot: Slot) -> bool:
        """Positive knowledge that ``slot`` is not this node's to keep."""
        mine = state.promise(self._host.node, slot)
        if mine is not None:
            return mine.state is PromiseState.WITHDRAWN
        if state.service(slot) is None:
            return True
        return any(is_believed_healthy(promise, view) for promise in live_promises(state, view, slot))

    def _perform(self, state: State, operation: Start | Stop) -> None:
        match operation:
            case Start(slot, service):
                promise = state.promise(self._host.node, slot)
                runtime = self._host.runtime_for(service)
                if promise is None or runtime is None:
                    return
                fingerprint = specs.fingerprint(service)
                labels = Labels(self.id, slot, str(promise.generation), fingerprint, self._host.node)
                name = f"{state.name}-{service.name}-{index_of(slot)[:12]}-{self._host.node[:6]}-{fingerprint[:6]}"
                self._busy[slot] = "start"
                self._host.start_container(runtime, StartRequest(name, state.name, labels, service, index_of(slot)))
            case Stop(container):
                self._busy[container.labels.slot] = "stop"
                self._host.stop_container(self.id, container.labels.slot, container, _grace_s(state, container))

    # Endings

    def _wind_up(self, state: State, now: float) -> None:
        """Removed: stop what runs, then leave nothing but a tombstone."""
        containers = self._host.containers(self.id)
        for container in containers:
            if container.labels.slot not in self._busy:
                self._perform(state, Stop(container, "the deployment was removed"))
        for waiting in self._waiting:
            waiting.done((self._host.node,))
        self._waiting.clear()
        if not containers and not self._busy and not self._outbox:
            self._host.bury(self.id, sorted({g.instance for g in state.specs} | set(state.removed)))

    def _consider_leaving(self, view: View, containers: Containers, now: float, wake: list[float]) -> None:
        """A member that keeps nothing and guards nothing that others do not guard better leaves, after a while."""
        state = self.state
        idle = is_dispensable(state, view) and not containers and not self._busy and not self._waiting
        if not idle and not (self._host.is_draining and self.is_handed_over(view)):
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since = now
        if self._host.is_draining or now - self._idle_since >= IDLE_MEMBER_S:
            self.leave(now)
        else:
            wake.append(self._idle_since + IDLE_MEMBER_S)

    def is_handed_over(self, view: View | None = None) -> bool:
        """Nothing is kept here, and enough others hold the document."""
        state, view = self.state, view or self._view()
        others = [node for node in staying_members(state, view) if node != self._host.node]
        keeps = bool(state.promises_of(self._host.node)) or bool(self._containers()) or bool(self._busy)
        return not keeps and len(others) >= max(1, resilience(state, view))

    def leave(self, now: float) -> None:
        """Say that this node holds the document no longer; drop it once the others know."""
        if not self._left:
            draft = self.document.draft()
            draft.leave()
            self.write(draft, now)
            self._left = self.document.replica.heads()
            self._compare_at = now + PARTING_COMPARE_S

    def _has_left(self, state: State) -> bool:
        """Whether this node has said that it leaves; after a restart its own document says so."""
        membership = state.members.get(self._host.node)
        if not self._left and membership is not None and membership.role is Role.LEFT:
            self._left = self.document.replica.heads()
        return bool(self._left)

    def _part(self, now: float) -> None:
        """Drop the document once enough of those that stay hold all that this node knew; stay if nobody is left."""
        state, view = self.state, self._view()
        others = [node for node in staying_members(state, view) if node != self._host.node]
        if not others and not self._host.is_draining:
            draft = self.document.draft()
            draft.stay(self._host.node)
            self._left, self._idle_since = (), None
            self.write(draft, now)
            return
        knowing = self._confirmed(self._left).intersection(others)
        if not self._outbox and others and len(knowing) >= min(len(others), max(1, resilience(state, view))):
            self._host.part_with(self.id)

    def orphans(self, sender: NodeId, slots: Sequence[Slot], now: float) -> None:
        """``sender`` runs containers of this deployment without its document: tell it to stop, or invite it again."""
        state, view = self.state, self._view()
        if sender in live_members(state, view):
            return
        open_slots = [
            slot
            for slot in slots
            if state.service(slot) is not None
            and not any(is_believed_healthy(promise, view) for promise in live_promises(state, view, slot))
        ]
        released = tuple(slot for slot in slots if slot not in open_slots)
        if released:
            self._host.send(sender, Released(self.id, released))
        if not open_slots or self._outbox:
            return
        draft = self.document.draft()
        if sender not in state.holders:
            draft.invite(sender)
        self._write_and_invite(draft, Placement(invited={sender: ()}), now)

    # What others are told

    def services_kept(self) -> list[specs.Service]:
        """The service of every slot that this node promises, once for each slot."""
        kept = (self.state.promised(promise) for promise in self.state.promises_of(self._host.node))
        return [service for service in kept if service is not None]

    def situation(self) -> dict[Slot, Keeping]:
        return keepings(self.state, self._view())


def _container(state: State, containers: Containers, promise: Promise) -> Container | None:
    """The container that keeps ``promise``, the running one if there are several."""
    wanted = state.fingerprints.get((promise.generation, service_of(promise.slot)))
    matching = [c for c in containers.get(promise.slot, ()) if c.labels.fingerprint == wanted]
    return next((c for c in matching if c.state is ContainerState.RUNNING), next(iter(matching), None))


def _grace_s(state: State, container: Container) -> float:
    """How long a container may take to end, by the spec that it was started from; Compose's default if that is lost."""
    for generation, spec in state.specs.items():
        if str(generation) == container.labels.generation:
            service = spec.service(service_of(container.labels.slot))
            if service is not None:
                return service.stop_grace_period_s
    return DEFAULT_GRACE_S
