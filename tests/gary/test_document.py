"""The document: who may write which fact, what many copies add up to, and bytes that are no fact."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.document import SCHEMA, Draft
from gary.facts import MAPS, Fact, decode_number, encode_carried
from gary.identity import Claim, Generation
from gary.permission import author_of, permit
from gary.spec import encode
from gary.state import Grant, Membership, Promise, PromiseState, Role, State
from tests.gary.facts import G1, G2, G3, INSTANCE, A, B, C, Copy, merge_all, promise, service, spec, state

ACTOR_A = bytes.fromhex(A) + b"process1"


def invited(by: str = A) -> bytes:
    return bytes(msgpack.packb(["invited", by]))


def membership(role: str, inviter: str = A) -> bytes:
    return bytes(msgpack.packb([role, inviter]))


# Who may write what


KEY, WATCHWORD = b"k" * 32, b"w" * 16
OPERATOR = f"{INSTANCE}/{KEY.hex()}"


def grant(by: str = A) -> bytes:
    packed: bytes = msgpack.packb([True, by, WATCHWORD])
    return packed


@pytest.mark.parametrize(
    ("name", "key", "before", "after"),
    [
        ("specs", str(G1), None, b"any"),
        ("removed", INSTANCE, None, b"\xc3"),
        ("removed", INSTANCE, b"\xc3", b"\xc3"),
        ("meta", "schema", None, b"\x01"),
        ("members", A, None, membership("member")),
        ("members", A, membership("member"), membership("left")),
        ("members", B, None, invited()),
        ("members", B, membership("left", B), invited()),
        ("members", B, membership("forgotten"), invited()),
        ("members", B, membership("member", B), membership("forgotten")),
        ("promises", f"{A}/web/1", b"old", b"new"),
        ("verdicts", f"{G2}/{A}/web/1", None, b"\xc3"),
        ("calling", B, b"old", b"new"),
        ("releases", f"{B}/web/1", None, b"new"),
        ("operators", OPERATOR, None, grant()),
        ("operators", OPERATOR, grant(B), msgpack.packb([False, A, b""])),
        ("breaks", A, b"\x01", b"\x02"),
        ("carried", f"{A}/promises/{B}/web/1", None, encode_carried(Fact(0, 7, b"any"))),
        ("meta", "epoch", None, b"\x01"),
    ],
)
def test_a_node_may_state_what_is_its_own(name: str, key: str, before: bytes | None, after: bytes) -> None:
    assert permit(ACTOR_A, name, key, before, after) is None


@pytest.mark.parametrize(
    ("name", "key", "before", "after"),
    [
        ("specs", str(Generation(INSTANCE, 5, B)), None, b"any"),
        ("specs", str(G1), b"old", b"new"),
        ("specs", str(G1), b"old", b"old"),
        ("removed", INSTANCE, b"\xc3", b"\xc2"),
        ("meta", "schema", b"\x01", b"\x02"),
        ("members", B, None, membership("member")),
        ("members", B, membership("member", B), membership("left")),
        ("members", B, membership("member", B), invited()),
        ("members", B, None, b"junk"),
        ("members", B, b"junk", invited()),
        ("promises", f"{B}/web/1", None, b"new"),
        ("promises", f"{B}/web/1", b"old", b"new"),
        ("verdicts", f"{G2}/{B}/web/1", None, b"\xc3"),
        ("verdicts", f"{G2}/{A}/web/1", b"\xc3", b"\xc2"),
        ("breaks", B, None, b"\x01"),
        ("carried", f"{B}/promises/{A}/web/1", None, encode_carried(Fact(0, 7, b"any"))),
        ("carried", f"{A}/promises/{B}/web/1", None, b"any"),
        ("carried", f"{A}/carried/{B}/specs/x", None, encode_carried(Fact(0, 7, b"any"))),
        ("carried", f"{A}/meta/epoch", None, encode_carried(Fact(0, 7, b"\x05"))),
        ("carried", f"{A}/promises/", None, encode_carried(Fact(0, 7, b"any"))),
        ("carried", f"{A}/promises/{B}/web/1", None, encode_carried(Fact(2**62, 7, b"any"))),
        ("meta", "epoch", None, b"\x00"),
        ("meta", "epoch", None, b"junk"),
        ("meta", "epoch", b"\x01", b"\x02"),
        ("operators", OPERATOR, None, grant(B)),
        ("operators", OPERATOR, grant(), b"junk"),
        ("operators", f"{INSTANCE}/{KEY.hex().upper()}", None, grant()),
        ("operators", f"{INSTANCE}/{KEY.hex()[2:]}", None, grant()),
        ("operators", f"/{KEY.hex()}", None, grant()),
        ("operators", OPERATOR, None, msgpack.packb([True, A, b"short"])),
        ("operators", OPERATOR, None, msgpack.packb([False, A, b"w" * 16])),
        ("operators", OPERATOR, None, msgpack.packb(["yes", A, b"w" * 16])),
        ("nonsense", A, None, b""),
    ],
)
def test_a_node_may_not_state_what_is_anothers_or_immutable(
    name: str, key: str, before: bytes | None, after: bytes
) -> None:
    assert permit(ACTOR_A, name, key, before, after)


@given(
    st.binary(min_size=24, max_size=24),
    st.sampled_from([*MAPS, "other"]),
    st.one_of(st.text(max_size=60), st.sampled_from([A, f"{A}/web/1", str(G1), f"{G1}/{A}/web/1"])),
    st.one_of(st.none(), st.binary(max_size=60), st.just(membership("member"))),
    st.one_of(st.binary(max_size=60), st.just(membership("member"))),
)
def test_any_write_is_permitted_or_refused_with_a_reason(
    actor: bytes, name: str, key: str, before: bytes | None, after: bytes
) -> None:
    verdict = permit(actor, name, key, before, after)
    assert verdict is None or verdict
    if name in ("promises", "breaks", "carried") and key.partition("/")[0] != author_of(actor):
        assert verdict is not None


def test_a_promise_forged_for_another_is_refused_by_everyone_who_hears_it() -> None:
    liar, honest = Copy(B), Copy(C)
    change = liar.write_raw("promises", f"{A}/web/1", b"anything")
    assert honest.hear([change]) == ("a promise is written by its promiser",)
    assert honest.state.promises == ()


def test_a_draft_refuses_to_be_made_a_liar() -> None:
    draft = Draft(A)
    with pytest.raises(AssertionError):
        draft.promise(promise(B))
    with pytest.raises(AssertionError):
        draft.promise(replace(promise(A), claim=Claim(1, B)))
    with pytest.raises(AssertionError):
        draft.deploy(Generation(INSTANCE, 1, B), spec())
    assert not draft


# Every kind of fact, written by a draft, is read back and permitted by others


def everything(copy: Copy) -> Draft:
    draft = copy.draft()
    draft.found()
    draft.deploy(Generation(INSTANCE, 7, copy.node), spec(service(replicas=3)))
    draft.stay(copy.node)
    draft.invite(C)
    draft.promise(promise(copy.node, generation=Generation(INSTANCE, 7, copy.node), once_healthy=True, reason="x"))
    draft.judge(G2, "web/1")
    draft.call(C)
    draft.call("")
    draft.release(C, "web/2")
    draft.grant(INSTANCE, KEY, WATCHWORD)
    draft.revoke(INSTANCE, b"r" * 32)
    return draft


def test_what_a_draft_states_is_read_back_and_taken_in_by_others() -> None:
    mine, other = Copy(A), Copy(B)
    change = mine.write(everything(mine))
    assert other.hear([change]) == ()
    generation = Generation(INSTANCE, 7, A)
    said = other.state
    assert said == mine.state
    assert said.specs == {generation: spec(service(replicas=3))}
    assert said.members == {A: Membership(Role.MEMBER, A), C: Membership(Role.INVITED, A)}
    assert said.promises == (promise(A, generation=generation, once_healthy=True, reason="x"),)
    assert said.verdicts == {(G2, A, "web/1")}
    assert said.calling == {C: A, "": A}
    assert said.releases == {(C, "web/2")}
    assert said.operators == {KEY: Grant(True, A, WATCHWORD)}
    assert said.grants[INSTANCE, b"r" * 32] == Grant(False, A, b"")
    assert said.malformed == 0


def test_who_may_command_is_who_was_granted_a_life_that_goes_on() -> None:
    copy = Copy(A)
    for instance, key in (("life1", KEY), ("life2", b"2" * 32), ("life3", b"3" * 32)):
        draft = copy.draft()
        draft.deploy(Generation(instance, 7, A), spec())
        draft.grant(instance, key, WATCHWORD)
        copy.write(draft)
    draft = copy.draft()
    draft.remove("life2")
    draft.revoke("life3", b"3" * 32)
    copy.write(draft)
    assert set(copy.state.operators) == {KEY}


def test_a_grant_and_a_revocation_at_the_same_time_leave_all_with_the_same() -> None:
    copies = [Copy(A), Copy(B)]
    copies[0].write(everything(copies[0]))
    merge_all(copies)
    for copy, is_granted in zip(copies, (True, False), strict=True):
        draft = copy.draft()
        if is_granted:
            draft.grant(INSTANCE, KEY, b"W" * 16)
        else:
            draft.revoke(INSTANCE, KEY)
        copy.write(draft)
    merge_all(copies)
    assert copies[0].state == copies[1].state


def test_stating_the_same_again_writes_nothing() -> None:
    copy = Copy(A)
    assert copy.write(everything(copy))
    assert copy.write(everything(copy)) == b""


def test_a_long_reason_is_cut() -> None:
    copy = Copy(A)
    draft = copy.draft()
    draft.promise(promise(A, reason="r" * 10_000))
    copy.write(draft)
    assert len(copy.state.promises[0].reason) == 300


def test_documents_that_were_founded_independently_merge() -> None:
    copies = [Copy(node) for node in (A, B, C)]
    for copy in copies:
        copy.write(everything(copy))
    merge_all(copies)
    assert copies[0].state == copies[1].state == copies[2].state
    assert len(copies[0].state.promises) == 3
    assert copies[0].state.effective == Generation(INSTANCE, 7, C)
    assert copies[0].document.replica.get("meta", "schema") == msgpack.packb(SCHEMA)


@given(st.randoms(use_true_random=False), st.lists(st.sampled_from([0, 1, 2]), min_size=2, max_size=12))
def test_the_state_is_the_same_for_the_same_changes_in_any_order(rng: random.Random, steps: list[int]) -> None:
    copies = [Copy(node) for node in (A, B, C)]
    everything_said: list[bytes] = []
    for number, place in enumerate(steps):
        copy = copies[place]
        copy.hear(rng.sample(everything_said, rng.randint(0, len(everything_said))))
        draft = copy.draft()
        draft.promise(promise(copy.node, "web/1", lamport=number + 1, state=rng.choice(list(PromiseState))))
        match rng.randrange(5):
            case 0:
                draft.stay(A)
            case 1:
                draft.leave()
            case 2:
                draft.call(B)
            case 3:
                draft.forget(B)
        everything_said.append(copy.write(draft))
    readers = [Copy(node) for node in (A, B)]
    for reader in readers:
        heard = [*everything_said, *rng.sample(everything_said, rng.randint(0, len(everything_said)))]
        rng.shuffle(heard)
        for start in range(0, len(heard), 3):
            reader.hear(heard[start : start + 3])
            assert isinstance(reader.state, State)
    assert readers[0].state == readers[1].state


# Bytes that are no fact

PROMISE_FIELDS = [3, str(G1), 1, "healthy", True, False, [B], "why"]
plain = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=5), st.binary(max_size=5)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4)),
    ),
    max_leaves=8,
)


@st.composite
def nearly_a_promise(draw: st.DrawFn) -> bytes:
    fields = list(PROMISE_FIELDS)
    fields[draw(st.integers(0, len(fields) - 1))] = draw(plain)
    return bytes(msgpack.packb(fields[: draw(st.integers(5, 8))]))


values = st.one_of(st.binary(max_size=40), plain.map(lambda value: bytes(msgpack.packb(value))), nearly_a_promise())
keys = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.sampled_from([A, f"{A}/web/1", str(G1), f"{G1}/{A}/web/1", "-", f"{A}/", "/", f"{G1}/{A}"]),
)


@given(st.lists(st.tuples(st.sampled_from(sorted({*MAPS} - {"breaks"})), keys, values), min_size=1, max_size=6))
def test_any_bytes_in_any_register_are_a_fact_or_counted(writes: list[tuple[str, str, bytes]]) -> None:
    copy = Copy(A)
    draft = copy.draft()
    draft.stay(A)
    draft.promise(promise(A, "db/7"))
    copy.write(draft)
    for name, key, value in writes:
        copy.document.replica.put({(name, key): value})
    said = copy.state
    assert promise(A, "db/7") in said.promises
    kinds = (said.specs, said.removed, said.members, said.promises, said.verdicts, said.calling, said.releases)
    facts = sum(map(len, (*kinds, said.grants)))
    registers = sum(len(copy.document.replica.items(name)) for name in MAPS if name != "meta")
    assert facts + said.malformed == registers


@given(st.sampled_from([A, B, "-", "x"]), st.one_of(values, st.integers(1, 9).map(msgpack.packb)))
def test_only_a_number_breaks_with_promises_and_anything_else_is_counted(key: str, value: bytes) -> None:
    copy = Copy(A)
    draft = copy.draft()
    draft.promise(promise(A))
    copy.write(draft)
    copy.write_raw("breaks", key, value)
    is_number = decode_number(value) is not None
    assert copy.state.malformed == (not is_number)
    assert bool(copy.state.promises) == (not is_number or key != A)


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("wrong", [None, -1, 2**63, b"\xff", [], {}, {"a": [1]}, msgpack.Timestamp(1)], ids=repr)
def test_a_promise_with_a_wrong_field_does_not_raise(place: int, wrong: object) -> None:
    fields = [*PROMISE_FIELDS[:place], wrong, *PROMISE_FIELDS[place + 1 :]]
    copy = Copy(A)
    copy.write_raw("promises", f"{A}/web/1", msgpack.packb(fields))
    assert len(copy.state.promises) + copy.state.malformed == 1


def test_a_later_version_may_add_fields_to_a_spec_only_by_a_generation_that_this_one_counts_as_malformed() -> None:
    copy = Copy(A)
    copy.write_raw("specs", str(G1), encode(spec()) + b"more")
    assert copy.state.malformed == 1
    assert copy.state.spec is None


# What the facts add up to


def test_the_highest_generation_of_an_instance_that_lives_is_effective() -> None:
    other = Generation("other", 99 << 16, B)
    specs = {G1: spec(), G3: spec(resilience=5), G2: spec(), other: spec()}
    assert state(specs=specs).effective == other
    assert state(specs=specs, removed=frozenset({"other"})).effective == G3
    assert state(specs=specs, removed=frozenset({"other", INSTANCE})).is_removed
    assert state(specs=specs).number(G2) == 2


def test_an_empty_document_is_not_a_removed_one() -> None:
    assert not State().is_removed
    assert State().effective is None


def test_removal_kills_an_instance_whatever_generation_follows() -> None:
    copies = [Copy(A), Copy(B)]
    draft = copies[0].draft()
    draft.deploy(G1, spec())
    copies[1].hear([copies[0].write(draft)])
    removal, update = copies[0].draft(), copies[1].draft()
    removal.remove(INSTANCE)
    update.deploy(Generation(INSTANCE, G3.clock, B), spec(service(replicas=9)))
    copies[0].write(removal)
    copies[1].write(update)
    merge_all(copies)
    assert copies[0].state.is_removed
    assert copies[1].state.is_removed


def test_a_promise_of_an_earlier_generation_is_current_when_its_container_is_the_same() -> None:
    same, changed = spec(service(replicas=5)), spec(service(image="shop/web:2"))
    old = promise(A)
    assert state(old, specs={G1: spec(), G2: same}).is_current(old)
    assert not state(old, specs={G1: spec(), G2: changed}).is_current(old)
    assert not state(old, specs={}).is_current(old)


def test_verdicts_count_for_the_container_that_failed_and_not_for_another() -> None:
    verdicts = frozenset({(G1, A, "web/1"), (G2, B, "web/1"), (G2, C, "web/2")})
    updated = {G1: spec(), G2: spec(service(image="shop/web:2"))}
    assert state(specs=updated, verdicts=verdicts).failed_at("web/1") == {B}
    assert state(specs={G1: spec(), G2: spec(resilience=5)}, verdicts=verdicts).failed_at("web/1") == {A, B}


def test_who_left_or_was_forgotten_holds_the_document_no_more() -> None:
    roles = {A: Role.MEMBER, B: Role.LEFT, C: Role.INVITED, G1.author[:-1] + "9": Role.FORGOTTEN}
    said = state(members={node: Membership(role, A) for node, role in roles.items()})
    assert said.holders == (A, C)


def test_withdrawn_promises_are_nobodys() -> None:
    said = state(promise(A, state=PromiseState.WITHDRAWN), promise(A, "web/2"))
    assert [p.slot for p in said.promises_of(A)] == ["web/2"]
    assert said.promise(A, "web/1") == promise(A, state=PromiseState.WITHDRAWN)
    assert said.promise(B, "web/1") is None


def test_a_promise_is_a_value() -> None:
    assert isinstance(hash(promise(A)), int)
    assert promise(A) == Promise(A, "web/1", Claim(1, A), G1, 1, PromiseState.HEALTHY)


def test_a_promise_of_who_has_left_counts_for_nobody_until_it_is_a_member_again() -> None:
    copies = [Copy(node) for node in (A, B)]
    acts: list[Callable[[Draft], None]] = [lambda draft: draft.stay(B), lambda draft: draft.leave()]
    acts.append(lambda draft: draft.promise(promise(B, "web/1", lamport=1)))
    for act in acts:
        draft = copies[1].draft()
        act(draft)
        copies[0].hear([copies[1].write(draft)])
    assert [copy.state.promises for copy in copies] == [(), ()]
    draft = copies[1].draft()
    draft.stay(B)
    copies[0].hear([copies[1].write(draft)])
    assert [copy.state.promises for copy in copies] == [(promise(B, "web/1", lamport=1),)] * 2
