"""How sure a member must be that another one is gone before it replaces what that one kept."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.assignment import ALONE_S, OBSERVERS_MIN, Confidence
from gary.host import Change
from gary.messages import CallForVolunteers, ContactAnswer, ContactQuery
from tests.gary.facts import NODES
from tests.gary.members import Member, group

ME, FELLOW, OTHER, GONE = NODES[:4]
LONG_AGO_S = 20.0

nodes = st.frozensets(st.sampled_from(NODES))
confidences = st.builds(Confidence, nodes, nodes, nodes, st.floats(0, 1000), st.booleans())


@given(confidences)
def test_two_observers_suffice_and_one_never_does_against_somebody_who_holds_it_alive(confidence: Confidence) -> None:
    if len(confidence.observers) >= OBSERVERS_MIN:
        assert confidence.suffices
    elif confidence.doubters:
        assert not confidence.suffices
    elif confidence.unheard:
        assert confidence.suffices == (confidence.is_well and confidence.missing_for_s >= ALONE_S)
    else:
        assert confidence.suffices


@given(confidences, st.floats(0, 1000), nodes)
def test_more_evidence_and_more_time_never_make_it_less_sure(
    confidence: Confidence, more_s: float, by: frozenset[str]
) -> None:
    later = Confidence(
        confidence.observers | by,
        confidence.doubters - by,
        confidence.unheard - by,
        confidence.missing_for_s + more_s,
        confidence.is_well,
    )
    assert later.suffices or not confidence.suffices


def left_alone_with(*fellows: str) -> Member:
    """A member of four that holds one of them dead, and to whom only ``fellows`` and itself are left."""
    member = group(ME, FELLOW, OTHER, GONE)[ME]
    passes(member, 5.0, {})  # what it looked for while the group came together is found
    member.sent.clear()
    member.present = [ME, *fellows]
    member.missing_since = member.now
    member.observed_by = frozenset({ME})
    member.deployment.members_changed(GONE, Change.WENT, member.now)
    return member


def passes(member: Member, seconds: float, is_missed: Mapping[str, bool]) -> None:
    """Time passes. Asked about the one that is gone, fellows say whether they miss it, those that say anything."""
    end = member.now + seconds
    while member.now < end:
        member.now += 0.1
        member.deployment.evaluate(member.now)
        member.flush()
        asked = [fellow for fellow, message in member.sent if isinstance(message, ContactQuery)]
        member.sent = [one for one in member.sent if not isinstance(one[1], ContactQuery)]
        for fellow in asked:
            if fellow in is_missed:
                answer = ContactAnswer(1, GONE, LONG_AGO_S, is_missed[fellow])
                member.deployment.calling.contact(fellow, answer, member.now)


def acts(member: Member) -> bool:
    """It has asked for volunteers, or taken over the slot."""
    called = any(isinstance(message, CallForVolunteers) for _, message in member.sent)
    return called or len(member.deployment.state.promises_of(ME)) > 1


def test_a_fellow_that_misses_it_too_is_evidence_enough() -> None:
    member = left_alone_with(FELLOW, OTHER)
    passes(member, 12.0, {FELLOW: True})
    assert acts(member)


def test_the_word_of_one_is_not_enough_while_fellows_hold_it_alive_however_long_ago_they_heard_it() -> None:
    member = left_alone_with(FELLOW, OTHER)
    passes(member, 2 * ALONE_S, {FELLOW: False, OTHER: False})
    assert not acts(member)


def test_fellows_that_do_not_answer_are_waited_for_and_longer_by_one_that_is_not_well() -> None:
    member = left_alone_with(FELLOW, OTHER)
    passes(member, ALONE_S - 1.0, {})
    assert not acts(member)
    passes(member, 10.0, {})
    assert acts(member)

    member = left_alone_with(FELLOW, OTHER)
    member.is_well = False
    passes(member, 2 * ALONE_S, {})
    assert not acts(member)


@pytest.mark.parametrize("is_well", [True, False])
def test_whoever_is_left_alone_acts_on_its_own_word(is_well: bool) -> None:
    member = left_alone_with()
    member.is_well = is_well
    passes(member, 12.0, {})
    assert acts(member)


def test_what_gossip_knows_of_two_observers_needs_no_answers() -> None:
    member = left_alone_with(FELLOW, OTHER)
    member.observed_by = frozenset({ME, OTHER})
    passes(member, 12.0, {})
    assert acts(member)


@pytest.mark.parametrize("is_well", [True, False])
def test_what_a_member_that_is_not_well_has_observed_itself_is_not_evidence(is_well: bool) -> None:
    member = left_alone_with(FELLOW, OTHER)
    member.is_well = is_well
    passes(member, 12.0, {FELLOW: True, OTHER: False})
    assert acts(member) is is_well
