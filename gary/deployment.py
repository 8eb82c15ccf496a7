"""One deployment on one of its members: its document, its promises and its calls, held together.

``evaluate`` is level-triggered: whatever happened, it looks at the state anew, decides with the pure functions of
``assignment``, ``rollout`` and ``reconciler``, writes what this node now has to state, and asks for what follows. It
can be called at any time, and twice has the effect of once. ``Replication`` has the document, ``Keeper`` this node's
promises and containers, ``Calling`` the search for others who keep what nobody keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gary import spec as specs
from gary.acquaintance import digest, is_proven, proof_of_instance, proofs
from gary.assignment import (
    Keeping,
    View,
    depends_on_all,
    is_believed_healthy,
    is_dispensable,
    keepings,
    live_members,
    live_promises,
    resilience,
    staying_members,
)
from gary.calling import Calling, Placement
from gary.document import Document, Draft
from gary.effects import Alarm, SetAlarm
from gary.host import Change, Host
from gary.identity import DeploymentId, Generation, NodeId, Slot, rendezvous
from gary.keeper import Keeper
from gary.messages import (
    Acceptance,
    Acquaintance,
    Behind,
    Dismissed,
    Gone,
    Invitation,
    Orphans,
    Released,
    Snapshot,
    Sync,
    Without,
)
from gary.outbox import After
from gary.reconciler import Containers, Slate
from gary.replication import Replication
from gary.runtime.base import Container
from gary.state import GONE, Role, State

IDLE_MEMBER_S = 30.0
LOOK_S = 60.0
"""A deployment looks at everything anew when something has changed or is due, and after so long in any case."""
FORGET_AFTER_S = 7 * 24 * 3600.0
CLOCK_TOLERANCE_S = 60.0
GIVE_AGAIN_S = 5.0
"""A member that says that it holds nothing is given the document once in so long."""
UNHEARD_S = 30.0
"""Who has left has told others, and they all others, by then; and who was invited anew has got the document."""


class Deployment:
    """What one member does for one deployment. All inputs take ``now`` (monotonic seconds)."""

    def __init__(self, id: DeploymentId, document: Document, host: Host, now: float, *, is_restored: bool) -> None:
        self.id = id
        self.calling = Calling(id, host)
        self._host = host
        self._keeper = Keeper(id, host)
        self._replication = Replication(
            id, document, host, lambda: self._keeper.slots_here(self.state), now, is_restored=is_restored
        )
        self._alarm_at = 0.0
        self._alarm_token = 0
        self._look_at = now
        self._idle_since: float | None = None
        self._announced = document.state.effective
        self._timed: Generation | None = None
        self._given_at: dict[NodeId, float] = {}
        self._without_since: dict[NodeId, float] = {}

    @property
    def document(self) -> Document:
        return self._replication.document

    @property
    def state(self) -> State:
        return self.document.state

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def slates(self) -> dict[Slot, Slate]:
        return self._keeper.slates

    @property
    def storage_failure(self) -> str:
        """Why nothing can be written at the moment; empty if all is well."""
        return self._replication.failure

    @property
    def unwritten(self) -> int:
        """How many writes are not durable yet."""
        return self._replication.unwritten

    def _view(self) -> View:
        return self._host.view(self.state)

    # Writing

    def write(self, draft: Draft, now: float, after: After | None = None) -> bytes:
        """Commit, make durable, then tell the fellows and call ``after``. Returns the change's hash, or nothing."""
        return self._replication.write(draft, now, after)

    def save(self, now: float) -> None:
        """Write the document whole, as is due when it is new here."""
        self._replication.save(now)

    def persisted(self, token: int, now: float) -> bool:
        return self._replication.persisted(token, now)

    def persist_failed(self, token: int, reason: str) -> bool:
        return self._replication.persist_failed(token, reason)

    def rewrite(self) -> None:
        """Try again what the disk did not take."""
        self._replication.rewrite()

    def when_durable(
        self, change: bytes, enough: Callable[[], int], done: Callable[[tuple[NodeId, ...]], None]
    ) -> None:
        """Call ``done(nodes)`` once ``change`` is on the disks of ``enough()`` live members, this one among them."""
        self._replication.when_durable(change, enough, done)

    # What comes in

    def received(self, sender: NodeId, sync: Sync, now: float) -> None:
        """A message of the exchange, from a node that holds the document or says so."""
        if self._replication.received(sender, sync, now):
            self.evaluate(now)

    def behind(self, sender: NodeId, asked: Behind, now: float) -> None:
        """A fellow asks for the document of this epoch."""
        self._replication.behind(sender, asked, now)

    def overtaken(self, sender: NodeId, told: Snapshot, now: float) -> None:
        """The document of a later epoch, from a fellow that is there."""
        if self._replication.overtaken(sender, told, now):
            self.evaluate(now)

    def accepted(self, sender: NodeId, answer: Acceptance, now: float) -> None:
        self.calling.acceptance(sender, answer)
        self._replication.accepted(sender, answer)
        self.evaluate(now)

    def acquainted(self, sender: NodeId, told: Acquaintance, now: float) -> None:
        """Somebody shows that it holds the document, or would like to see the same."""
        self._replication.acquainted(sender, told, now)

    def dismissed(self, sender: NodeId, told: Dismissed, now: float) -> None:
        """A fellow knows that this node is no member any more."""
        if self._replication.is_dismissed(sender, told):
            self._host.part_with(self.id)
        else:
            self.evaluate(now)

    def invited(self, sender: NodeId, invitation: Invitation, now: float) -> None:
        """Take on what can be taken on, say so in the document, and answer once that is durable."""
        if not self._replication.is_fellow(sender):
            self._replication.stranger(sender, now)
            self.evaluate(now)
            return
        state, view, draft = self.state, self._view(), self.document.draft()
        accepted: list[Slot] = []
        declined: list[tuple[Slot, str]] = []
        room = self._host.room()
        membership = state.members.get(self._host.node)
        if membership is None or membership.role is not Role.MEMBER:
            draft.stay(sender)
        for slot in invitation.slots:
            reason, room = self._keeper.consider(state, view, slot, room, len(accepted))
            if reason is None:
                accepted.append(slot)
                self._keeper.claim(draft, state, view, slot)
            else:
                declined.append((slot, reason))
        answer = Acceptance(invitation.id, self.id, tuple(accepted), tuple(declined))
        self._idle_since = None
        self._replication.left = ()
        self.write(draft, now, lambda at: self._host.send(sender, answer))
        self._host.changed(self.id)
        self.evaluate(now)

    def told_gone(self, sender: NodeId, told: Gone, now: float) -> None:
        """``sender`` knows some instances to be removed.

        A fellow may say so; and whoever is not named here, of those that it shows to know itself: it was a fellow when
        the document was newer than what is held here. Who says so holds no document: it cannot know that there is one
        of a later instance.
        """
        own = sorted({generation.instance for generation in self.state.specs})
        removed = [instance for instance in own if digest(instance) in told.digests]
        if not self._replication.is_fellow(sender):
            is_named, here = sender in self.state.members, self._host.node
            known = [one for one in removed if not is_named and proof_of_instance(one, sender, here) in told.proofs]
            if not known:
                self._replication.stranger(sender, now)
                return
            removed = known
        self.gone(removed, now)
        if not self.state.is_removed:
            self.without(sender, Without(self.id, has_left=False), now)

    def gone(self, instances: Sequence[str], now: float) -> None:
        """These instances are known to be removed; positive knowledge, so this node removes them, too."""
        draft = self.document.draft()
        for instance in sorted({generation.instance for generation in self.state.specs} & set(instances)):
            if instance not in self.state.removed:
                draft.remove(instance)
        if draft:
            self.write(draft, now)
            self.evaluate(now)

    def orphans(self, sender: NodeId, asked: Orphans, now: float) -> None:
        """``sender`` runs containers without the document: tell it to stop, or give it the document, perhaps again."""
        state, view, slots = self.state, self._view(), asked.slots
        if sender in live_members(state, view):
            self.without(sender, Without(self.id, has_left=False), now)
            return
        if not is_proven(state, asked.proofs, sender, self._host.node):
            self._host.count("strangers_refused")
            return
        open_slots = [
            slot
            for slot in slots
            if state.wants(slot)
            and not any(is_believed_healthy(promise, view) for promise in live_promises(state, view, slot))
        ]
        released = tuple(slot for slot in slots if slot not in open_slots)
        if released:
            self._host.send(sender, Released(self.id, released, proofs(state, self._host.node, sender)))
        if not open_slots or self.unwritten:
            return
        draft = self.document.draft()
        if sender not in state.holders:
            draft.invite(sender)
        self._write_and_invite(draft, Placement(invited={sender: ()}), now)

    def without(self, sender: NodeId, told: Without, now: float) -> None:
        """``sender`` does not hold the document. A member has lost it: its disk is one of earlier days.

        Or it has left, and others know. If none of them tells of it for long, their disks have lost that: who is given
        the document leaves once more. So does who was invited, and does not know what it has promised.
        """
        self._replication.holds_nothing(sender)
        state, view = self.state, self._view()
        members = live_members(state, view)
        invited = [node for node in state.holders if node in view.alive and state.promises_of(node)]
        self._without_since = {node: at for node, at in self._without_since.items() if node in (*members, *invited)}
        if sender not in members and sender not in invited:
            return
        if told.has_left or self._replication.left:
            self._replication.empty_handed.add(sender)
            self.evaluate(now)
        if self._replication.left:
            return
        has_lost_it = sender in members and not told.has_left
        if has_lost_it or now >= self._without_since.setdefault(sender, now) + UNHEARD_S:
            self._give_again(sender, now)

    def _give_again(self, member: NodeId, now: float) -> None:
        """The document, in which ``member`` reads what it promised."""
        if now - self._given_at.get(member, -math.inf) < GIVE_AGAIN_S:
            self._host.count("given_again_refused")
        elif not self.unwritten:
            self._given_at[member] = now
            snapshot, asks = self._replication.snapshot()
            invitation = Invitation(self._host.next_number(), self.id, (), snapshot)
            self._replication.goes_with(invitation.id, member, asks)
            self._host.send(member, invitation)

    def operated(self, slot: Slot, container: Container | None, error: str, now: float) -> None:
        """An operation on ``slot`` has ended. ``error`` empty: it worked."""
        self._keeper.operated(self.state, slot, error, now)
        self.evaluate(now)

    def members_changed(self, node: NodeId, change: Change, now: float) -> bool:
        """The cluster has changed. Whether that may make a difference here; then ``evaluate`` is to follow.

        A fellow that came (back) is asked what it knows.
        """
        state = self.state
        if change is Change.CAME:
            self._replication.meet(node, now)
        is_wanted = change is not Change.WENT and self.calling.is_looking
        if is_wanted:
            self.calling.encourage()
        return is_wanted or node in state.members or depends_on_all(state, self._host.alive)

    def compare(self, now: float) -> None:
        """Ask some fellows what they know."""
        self._replication.compare(now)

    def alarm(self, token: int, now: float) -> None:
        if token != self._alarm_token:
            return
        self._alarm_at = 0.0
        if now < self._look_at:
            self._set_alarm(min(self._replication.compare_if_due(now), self._look_at), now)
        else:
            self.evaluate(now)

    # Deciding

    def evaluate(self, now: float) -> None:
        """Look at everything anew and do what is due."""
        wake = [now + LOOK_S]
        state = self.state
        self._announce(state)
        compare_at = self._replication.compare_if_due(now)
        if state.is_removed:
            self._wind_up(state)
        elif self._replication.left or self._is_gone(state):
            self.leave(now)
            self._part(now)
        elif state.spec is not None:
            self._keep_house(state, now, wake)
            self._replication.consider_next_epoch(live_members(state, self._view()), now)
        self._replication.check_waiting()
        self._look_at = min(wake)
        self._set_alarm(min(self._look_at, compare_at), now)

    def _set_alarm(self, at: float, now: float) -> None:
        at = max(at, now + 0.01)
        if not self._alarm_at or at < self._alarm_at - 0.005 or self._alarm_at <= now:
            self._alarm_at = at
            self._alarm_token += 1
            self._host.emit([SetAlarm(Alarm("deployment", self.id, self._alarm_token), at - now)])

    def _keep_house(self, state: State, now: float, wake: list[float]) -> None:
        view, keeper = self._view(), self._keeper
        self._replication.check_synced(now, wake)
        draft = self.document.draft()
        membership = state.members.get(self._host.node)
        if membership is None:
            # It was named under another id: this host has a new one since its disk lost the former.
            draft.stay(self._host.node)
        elif membership.role is Role.INVITED:
            # Two invited this node, and the later word of one came over its own.
            draft.stay(membership.inviter)
        containers = keeper.containers()
        keeper.look(state, containers, now, wake)
        if self._replication.is_synced:
            keeper.restate(state, view, containers, draft, now, wake)
            for slot in keeper.adoptable(state, view, containers):
                keeper.claim(draft, state, view, slot)
        self._forget_the_long_gone(state, view, draft, now)
        situation = keepings(state, view)
        placement = Placement()
        if not (self._host.is_expelled or self.storage_failure):
            placement, at = self.calling.step(state, view, situation, draft, now)
            wake.append(at)
        for slot in placement.own:
            keeper.claim(draft, state, view, slot)
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
            if state.is_removed or self.document.epoch != epoch:
                return
            view = self._view()
            for node, invitation in self.calling.invitations(placement, keepings(state, view), state, view, snapshot):
                if invitation.snapshot:
                    self._replication.goes_with(invitation.id, node, asks)
                self._host.send(node, invitation)

        self.write(draft, now, invite)
        # As it is now: by the time that this is durable there may be changes that are not.
        snapshot, asks = self._replication.snapshot()
        epoch = self.document.epoch
        self._host.changed(self.id)

    def _operate(self, containers: Containers, now: float) -> None:
        state, view = self.state, self._view()
        unwanted: frozenset[Slot] = frozenset()
        if self._replication.is_synced:
            unwanted = frozenset(slot for slot in containers if self._keeper.is_elsewhere(state, view, slot))
        self._keeper.operate(state, containers, self._replication.settled, unwanted, now)

    def _forget_the_long_gone(self, state: State, view: View, draft: Draft, now: float) -> None:
        for node in state.holders:
            is_long_gone = node not in view.alive and now - self._host.missing_since_s(node) >= FORGET_AFTER_S
            if not is_long_gone and node not in self._host.expelled:
                continue
            if rendezvous(node, live_members(state, view))[:1] == [self._host.node]:
                draft.forget(node)
        for node in self._host.former:
            if node in state.holders:  # Nobody else knows that it never comes back.
                draft.forget(node)

    # What operators should know

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

    # Endings

    def _wind_up(self, state: State) -> None:
        """Removed: stop what runs, then leave nothing but a tombstone."""
        nothing_is_left = self._keeper.stop_all(state)
        self._replication.end_waiting()
        if nothing_is_left and not self.unwritten:
            self._host.bury(self.id, sorted({g.instance for g in state.specs} | set(state.removed)))

    def _consider_leaving(self, view: View, containers: Containers, now: float, wake: list[float]) -> None:
        """A member that keeps nothing and guards nothing that others do not guard better leaves, after a while."""
        state, replication = self.state, self._replication
        keeps = bool(containers) or self._keeper.is_busy
        idle = is_dispensable(state, view) and not keeps and not replication.is_awaited
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
        keeps = bool(state.promises_of(self._host.node)) or bool(self._keeper.containers()) or self._keeper.is_busy
        return not keeps and len(others) >= max(1, resilience(state, view))

    def leave(self, now: float) -> None:
        """Say that this node holds the document no longer; drop it once the others know."""
        if not self._replication.left:
            draft = self.document.draft()
            draft.leave()
            self.write(draft, now)
            self._replication.say_goodbye(now)

    def _is_gone(self, state: State) -> bool:
        """Whether others know this node as one that has left or was struck off. It deployed that name anew where it
        heard nobody who knew of it, or came back, and now they have what it knew. The expelled have nobody to ask.
        """
        membership = state.members.get(self._host.node)
        return membership is not None and membership.role in GONE and not self._host.is_expelled

    def _part(self, now: float) -> None:
        """Drop the document once enough of those that stay hold all that this node knew; stay if nobody is left."""
        state, view, replication = self.state, self._view(), self._replication
        staying = (node for node in staying_members(state, view) if node != self._host.node)
        others = [node for node in staying if node not in replication.empty_handed]
        if not others and not self._host.is_draining:
            draft = self.document.draft()
            draft.stay(self._host.node)
            replication.left, self._idle_since = (), None
            self.write(draft, now)
            return
        knowing = (replication.confirmed(replication.left) | replication.farewelled).intersection(others)
        if not self.unwritten and others and len(knowing) >= min(len(others), max(1, resilience(state, view))):
            self._host.part_with(self.id)

    # What others are told

    def services_kept(self) -> list[specs.Service]:
        """The service of every slot that this node promises, once for each slot."""
        kept = (self.state.promised(promise) for promise in self.state.promises_of(self._host.node))
        return [service for service in kept if service is not None]

    def situation(self) -> dict[Slot, Keeping]:
        return keepings(self.state, self._view())
