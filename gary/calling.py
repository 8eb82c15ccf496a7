"""One member's part in finding keepers for slots that nobody keeps.

Every member sees the same needs. Who acts is decided by rank, not by talk: the first live member by rendezvous hash of
the missing node calls; the others wait longer, each by its rank, and step in if nothing came of it. Before acting on
somebody's death a member asks its fellows. A recent contact of theirs vetoes, and it takes two that have each found the
missing one silent, if there are two (``gary.assignment.Confidence``): nobody replaces anything on its own word alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from gary.assignment import (
    Confidence,
    Keeping,
    View,
    callers,
    live_members,
    live_promises,
    patience_s,
    resilience,
    staying_members,
    witnesses_needed,
)
from gary.document import Draft
from gary.host import Host
from gary.identity import DeploymentId, NodeId, Slot
from gary.messages import Acceptance, CallForVolunteers, ContactAnswer, ContactQuery, Invitation, Offer
from gary.state import State
from gary.volunteering import Call, Room, Vacancy, distribute, refusal, requirement, sample

STRANGERS_ASKED_MAX = 3
"""Where no fellow is left, so many others are asked instead."""
BACKOFF_S_MIN = 0.5
BACKOFF_S_MAX = 300.0
WITNESSES = "witness"


@dataclass(frozen=True, slots=True)
class Waits:
    """For how long what is waited for, in seconds, where messages take a few milliseconds.

    ``hearsay_s``: how long word of a node that is back may take longer than word of what was withdrawn in its favour.
    """

    answers_wait_s: float = 0.4
    invitation_wait_s: float = 2.0
    step_in_s: float = 3.0
    query_lead_s: float = 0.3
    hearsay_s: float = 1.5
    veto_age_s: float = 1.5
    ask_again_s: float = 0.5

    def at(self, pace: float) -> Waits:
        """The same where everything takes ``pace`` times as long."""
        return Waits(**{wait.name: getattr(self, wait.name) * pace for wait in fields(self)})


@dataclass(slots=True)
class _Absence:
    """What was learned about one node that is missing."""

    first_seen: float
    asked_at: float = -1e9
    asked: tuple[NodeId, ...] = ()
    answers: dict[NodeId, bool] = field(default_factory=dict)
    contact_at: float = -1e9
    caller: NodeId = ""
    caller_seen: float = -1e9


@dataclass(frozen=True, slots=True)
class Placement:
    """What came of a call: slots this node takes itself, and whom to invite for what (nothing: as a witness)."""

    own: tuple[Slot, ...] = ()
    invited: Mapping[NodeId, tuple[Slot, ...]] = field(default_factory=dict)


class Calling:
    """Which calls this member has open for one deployment, and what it waits for."""

    def __init__(self, deployment: DeploymentId, host: Host) -> None:
        self._deployment = deployment
        self._host = host
        self._waits = Waits().at(host.pace)
        self._absences: dict[NodeId, _Absence] = {}
        self._vacant_since: dict[Slot, float] = {}
        self._call: Call | None = None
        self._call_until = 0.0
        self._asked: set[NodeId] = set()
        self._rounds = 0
        self._attempts = 0
        self._not_before = 0.0
        self._slots_out: dict[Slot, tuple[NodeId, float]] = {}
        self._invited: dict[NodeId, float] = {}
        self._turned_down: dict[Slot, dict[NodeId, str]] = {}
        self.declined: dict[Slot, dict[NodeId, str]] = {}

    # What comes in

    def offer(self, sender: NodeId, offer: Offer) -> None:
        if self._call is not None and self._call.id == offer.id and offer.room.node == sender:
            self._call.offer(offer.room)

    def acceptance(self, sender: NodeId, answer: Acceptance) -> None:
        """An invited node has answered; what it declined is vacant again."""
        self._invited.pop(sender, None)
        for slot, reason in answer.declined:
            if self._slots_out.get(slot, ("", 0.0))[0] == sender:
                del self._slots_out[slot]
            self._turned_down.setdefault(slot, {})[sender] = reason

    def contact(self, sender: NodeId, answer: ContactAnswer, now: float) -> None:
        absence = self._absences.get(answer.node)
        if absence is None or sender not in absence.asked:
            return
        if answer.age_s >= 0:
            absence.contact_at = max(absence.contact_at, now - answer.age_s)
        absence.answers[sender] = answer.is_missed

    @property
    def is_looking(self) -> bool:
        """It looks for somebody, or waits for its turn to look."""
        return self._call is not None or bool(self._vacant_since)

    def encourage(self) -> None:
        """Somebody came, or offers something else: what nobody wanted before may be wanted now."""
        if self._call is None:
            if self._attempts:
                # All have given up for now, and all hear of the change at once: let them take turns again.
                self._vacant_since.clear()
            self._not_before = 0.0
            self._attempts = 0

    # What follows from it

    def step(
        self, state: State, view: View, keepings: Mapping[Slot, Keeping], draft: Draft, now: float
    ) -> tuple[Placement, float]:
        """Do what is due. Returns what was placed, and when to look again."""
        wake: list[float] = []
        self._forget_what_passed(view, keepings, now)
        if self._call is not None:
            if not self._call.is_answered and now < self._call_until:
                return Placement(), self._call_until
            return self._close(state, view, keepings, draft, now), now
        due = self._due(state, view, keepings, now, wake)
        short = self._witnesses_due(state, view, now, wake)
        if not due and not short:
            return Placement(), min(wake, default=now + 3600.0)
        if now < self._not_before:
            return Placement(), min([*wake, self._not_before])
        for missing in dict.fromkeys(missing for _, missing in due):
            if missing and len(live_members(state, view)) > 1:
                draft.call(missing)
        vacancies = tuple(self._vacancy(state, view, slot) for slot, _ in due)
        call = self._open(state, view, vacancies, short, now)
        if call.is_answered:
            return self._close(state, view, keepings, draft, now), now
        return Placement(), self._call_until

    def _forget_what_passed(self, view: View, keepings: Mapping[Slot, Keeping], now: float) -> None:
        for node in [node for node in self._absences if node in view.alive]:
            del self._absences[node]
        self._slots_out = {
            slot: (node, until)
            for slot, (node, until) in self._slots_out.items()
            if until > now and node in view.alive and slot in keepings and keepings[slot].is_needed
        }
        self._invited = {node: until for node, until in self._invited.items() if until > now and node in view.alive}
        needed = {slot for slot, keeping in keepings.items() if keeping.is_needed}
        for slot in [slot for slot in self._vacant_since if slot not in needed and slot != WITNESSES]:
            del self._vacant_since[slot]
        for memory in (self.declined, self._turned_down):
            for slot in [slot for slot in memory if slot not in needed]:
                del memory[slot]
        if not needed and self._call is None:
            self._attempts = 0

    def _due(
        self, state: State, view: View, keepings: Mapping[Slot, Keeping], now: float, wake: list[float]
    ) -> list[tuple[Slot, NodeId]]:
        due: list[tuple[Slot, NodeId]] = []
        times: dict[NodeId, float] = {}
        turn = self._rank(state, view, "") * self._waits.step_in_s
        for slot, keeping in keepings.items():
            if not keeping.is_needed or slot in self._slots_out:
                if slot in self._slots_out:
                    wake.append(self._slots_out[slot][1])
                continue
            # Of several that were lost, the last one tells whose turn it is: the others' turns passed long ago.
            missing = max(keeping.lost, key=self._host.missing_since_s, default="")
            vacant_since = self._vacant_since.setdefault(slot, now)
            if not missing:
                at = vacant_since + turn
            else:
                if missing not in times:
                    times[missing] = self._due_at(state, view, missing, now, wake)
                at = times[missing]
                if missing not in view.left:
                    # Whoever kept it instead may just have withdrawn, having seen what is still missing from here.
                    at = max(at, vacant_since + self._waits.hearsay_s)
            if at <= now:
                due.append((slot, missing))
            else:
                wake.append(at)
        return due

    def _witnesses_due(self, state: State, view: View, now: float, wake: list[float]) -> int:
        needed = len(witnesses_needed(state, view))
        if not needed:
            self._vacant_since.pop(WITNESSES, None)
        short = needed - len(self._invited)
        if short <= 0:
            wake.extend(self._invited.values())
            return 0
        absent = [node for node in state.holders if node not in view.alive]
        latest = max(absent, key=self._host.missing_since_s, default="")
        at = self._vacant_since.setdefault(WITNESSES, now) + self._rank(state, view, latest) * self._waits.step_in_s
        if latest:
            at = max(at, self._due_at(state, view, latest, now, wake))
        if at > now:
            wake.append(at)
            return 0
        return short

    def _due_at(self, state: State, view: View, missing: NodeId, now: float, wake: list[float]) -> float:
        """When this member acts on the slots of ``missing``: by its patience, its rank, and what the others say."""
        # Whoever called when this node was last away has nothing to do with this time.
        absence = self._absences.setdefault(missing, _Absence(now, caller=state.calling.get(missing, "")))
        rank = self._rank(state, view, missing)
        if missing in view.left:
            at = absence.first_seen + rank * self._waits.step_in_s
        else:
            # Those that have come back count, too: when a cut heals, the others return one after the other.
            vanished = self._host.vanished_with(missing)
            others = len(view.alive) - 1 + sum(node not in view.alive for node in vanished)
            patience = self._host.pace * patience_s(len(vanished), others)
            at = self._host.missing_since_s(missing) + patience + rank * self._waits.step_in_s
        caller = state.calling.get(missing, "")
        if caller in view.alive and caller != view.node:
            if absence.caller != caller:
                absence.caller, absence.caller_seen = caller, now
            at = max(at, absence.caller_seen + 2 * self._waits.step_in_s)
        if missing not in view.left:
            at = self._vetoed(view, state, missing, absence, at, now, wake)
        return at

    def _rank(self, state: State, view: View, missing: NodeId) -> int:
        order = callers(state, view, missing)
        return order.index(view.node) if view.node in order else len(order)

    def _vetoed(
        self, view: View, state: State, missing: NodeId, absence: _Absence, at: float, now: float, wake: list[float]
    ) -> float:
        """Ask the fellows shortly before acting; a recent direct contact of theirs postpones it, as do doubts."""
        if absence.contact_at > at - self._waits.veto_age_s:
            at = absence.contact_at + 2 * self._waits.veto_age_s
        if now < at - self._waits.query_lead_s:
            wake.append(at - self._waits.query_lead_s)
        elif absence.asked_at < at - 2 * self._waits.veto_age_s:
            self._ask(view, state, missing, absence, now)
            if absence.asked:
                at = max(at, now + self._waits.query_lead_s)
        elif now >= at and not self._confidence(view, missing, absence, now).suffices:
            if now >= absence.asked_at + self._waits.ask_again_s:
                self._ask(view, state, missing, absence, now)
            at = absence.asked_at + self._waits.ask_again_s
        return at

    def _ask(self, view: View, state: State, missing: NodeId, absence: _Absence, now: float) -> None:
        fellows = [node for node in live_members(state, view) if node != view.node]
        absence.asked = tuple(fellows or sorted(set(view.alive) - {view.node})[:STRANGERS_ASKED_MAX])
        absence.answers.clear()
        absence.asked_at = now
        for fellow in absence.asked:
            self._host.send(fellow, ContactQuery(self._host.next_number(), missing))

    def _confidence(self, view: View, missing: NodeId, absence: _Absence, now: float) -> Confidence:
        is_well = self._host.is_well
        missed_by = {node for node, is_missed in absence.answers.items() if is_missed}
        observers = {node for node in self._host.observers(missing) | missed_by if node in view.alive}
        asked = {node for node in absence.asked if node in view.alive}
        return Confidence(
            frozenset(observers if is_well else observers - {view.node}),
            doubters=frozenset(asked & absence.answers.keys() - missed_by),
            unheard=frozenset(asked - absence.answers.keys()),
            missing_for_s=(now - self._host.missing_since_s(missing)) / self._host.pace,
            is_well=is_well,
        )

    def _vacancy(self, state: State, view: View, slot: Slot) -> Vacancy:
        service = state.service(slot)
        assert service is not None
        yielding = [p.node for p in live_promises(state, view, slot)]
        barred = frozenset(yielding) | state.failed_at(slot) | frozenset(self._turned_down.get(slot, ()))
        return Vacancy(slot, service, barred)

    def _open(self, state: State, view: View, vacancies: tuple[Vacancy, ...], witnesses: int, now: float) -> Call:
        """Ask a sample of nodes, larger each time; everybody that could help when there are few."""
        requirements = tuple(dict.fromkeys(requirement(vacancy.service) for vacancy in vacancies))
        weights: dict[NodeId, float] = {}
        for node in sorted(view.alive):
            if node == view.node or node in self._asked:
                continue
            room = self._host.advertised(node)
            reasons = {vacancy.slot: _unfit(vacancy, node, room) for vacancy in vacancies}
            if all(reasons.values()) and not (witnesses and (room is None or room.accepting)):
                self._asked.add(node)
                for slot, reason in reasons.items():
                    self.declined.setdefault(slot, {})[node] = str(reason)
                continue
            weights[node] = 1.0 if room is None else 1.0 + max(0, room.free_containers)
        only = {vacancy.only() for vacancy in vacancies}
        wide = None in only or witnesses
        count = (2 * (len(vacancies) + witnesses) + 3) * 2**self._rounds
        asked = sample(weights, count, self._host.rng) if wide else []
        asked += [node for node in weights if node in only and node not in asked]
        self._rounds += 1
        self._asked.update(asked)
        call = self._call = Call(self._host.next_number(), vacancies, witnesses, tuple(asked))
        self._call_until = now + self._waits.answers_wait_s
        for node in asked:
            self._host.send(node, CallForVolunteers(call.id, self._deployment, requirements))
        return call

    def _close(self, state: State, view: View, keepings: Mapping[Slot, Keeping], draft: Draft, now: float) -> Placement:
        """Choose among the offers, and decide what to do about what is left over."""
        call = self._call
        assert call is not None
        self._call = None
        vacancies = [
            self._vacancy(state, view, vacancy.slot)
            for vacancy in call.vacancies
            if vacancy.slot in keepings and keepings[vacancy.slot].is_needed
        ]
        rooms = [self._host.room(), *(room for node, room in sorted(call.offers.items()) if node in view.alive)]
        kept: dict[NodeId, list[Slot]] = {}
        for promise in state.promises:
            if promise in live_promises(state, view, promise.slot):
                kept.setdefault(promise.node, []).append(promise.slot)
        for slot, (node, _) in self._slots_out.items():
            kept.setdefault(node, []).append(slot)
        members = frozenset(live_members(state, view))
        distribution = distribute(vacancies, rooms, kept, members)
        invited = dict(distribution.invited)
        own = invited.pop(view.node, ())
        coming = {*staying_members(state, view), *invited, *self._invited}
        short = resilience(state, view) - len(coming)
        spare = [room for room in rooms if room.node not in coming and room.accepting]
        for room in sorted(spare, key=lambda room: (-room.free_containers, room.node))[: max(0, short)]:
            invited[room.node] = ()
        for slot, reasons in distribution.declined.items():
            self.declined.setdefault(slot, {}).update(reasons)
        for node, slots in invited.items():
            if node not in state.holders:
                draft.invite(node)
            self._invited[node] = now + self._waits.invitation_wait_s
            self._slots_out.update(dict.fromkeys(slots, (node, now + self._waits.invitation_wait_s)))
        self._continue_or_rest(view, bool(distribution.declined) or len(spare) < short, now)
        return Placement(tuple(own), invited)

    def _continue_or_rest(self, view: View, is_unsatisfied: bool, now: float) -> None:
        has_more = any(node != view.node and node not in self._asked for node in view.alive)
        if is_unsatisfied and has_more:
            return
        self._asked.clear()
        self._rounds = 0
        self._turned_down.clear()
        if is_unsatisfied:
            backoff = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2**self._attempts)
            self._attempts = min(self._attempts + 1, 20)
            self._not_before = now + backoff * self._host.rng.uniform(0.75, 1.25)

    def invitations(
        self, placement: Placement, keepings: Mapping[Slot, Keeping], state: State, view: View, snapshot: bytes
    ) -> list[tuple[NodeId, Invitation]]:
        """The messages for a placement; the document goes to those that do not hold it yet.

        To make a placement durable takes a while. What is kept or not wanted by now is left out.
        """
        holding = frozenset(live_members(state, view))
        messages: list[tuple[NodeId, Invitation]] = []
        for node, placed in sorted(placement.invited.items()):
            slots = tuple(slot for slot in placed if slot in keepings and keepings[slot].is_needed)
            if slots or not placed:
                given = b"" if node in holding else snapshot
                messages.append((node, Invitation(self._host.next_number(), self._deployment, slots, given)))
        return messages

    def missing_report(self, slots: Iterable[Slot]) -> dict[Slot, dict[str, int]]:
        """For each slot that found no keeper: how many nodes declined, by reason."""
        report: dict[Slot, dict[str, int]] = {}
        for slot in slots:
            counts: dict[str, int] = {}
            for reason in {**self.declined.get(slot, {}), **self._turned_down.get(slot, {})}.values():
                counts[reason] = counts.get(reason, 0) + 1
            if counts:
                report[slot] = counts
        return report


def _unfit(vacancy: Vacancy, node: NodeId, room: Room | None) -> str | None:
    if vacancy.only() not in (None, node):
        return "the slot belongs to another node"
    if node in vacancy.barred:
        return "it failed there before"
    return None if room is None else refusal(requirement(vacancy.service), room)
