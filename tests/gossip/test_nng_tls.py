"""Certificates on both sides of every connection: who gets no frame through, and what it costs everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pynng as untyped_pynng
import pytest

from gossip import connections
from gossip.certificates import Authority
from gossip.dialling import split_address
from gossip.errors import TransportError
from gossip.nng import persevere
from gossip.testing import Node, node_id
from gossip.transport import GUEST, SERVER_NAME, Credentials, Lane, Peer, TransportConfig
from tests.gossip.sockets import ClockAhead, eventually, run, run_with_clock, started

pynng: Any = untyped_pynng
ONE, OTHER, THIRD = node_id(1), node_id(2), node_id(3)


def counted(node: Node) -> int:
    return node.transport.counters()["handshakes_refused"] + node.transport.counters()["dropped_impostor"]


@pytest.fixture
def authority() -> Authority:
    return Authority()


async def test_frames_between_two_of_one_root_are_vouched_for_by_their_certificates(authority: Authority) -> None:
    async with started(ONE, authority.credentials(ONE)) as one, started(OTHER, authority.credentials(OTHER)) as other:
        for lane in Lane:
            one.tell(other, b"hello", lane)
            assert (await other.heard.frame(b"hello")).sender == ONE
            other.heard.frames.clear()
        assert counted(one) == counted(other) == 0


def strangers(authority: Authority) -> dict[str, Credentials | None]:
    elsewhere = Authority()
    return {
        "without TLS": None,
        "of another root": elsewhere.credentials(OTHER, trusts=(authority.root,)),
        "of another root of the same name": Authority("root").credentials(OTHER, trusts=(authority.root,)),
        "expired": authority.credentials(OTHER, age_days=2, days=1),
        "not valid yet": authority.credentials(OTHER, age_days=-1),
        "named as another node": authority.credentials(THIRD),
        "named as the node itself": authority.credentials(ONE),
        "without a name": authority.credentials(""),
    }


@pytest.mark.parametrize("stranger", strangers(Authority()))
async def test_a_stranger_gets_no_frame_through_and_is_counted(stranger: str) -> None:
    authority = Authority()
    shown = strangers(authority)[stranger]
    async with started(ONE, authority.credentials(ONE)) as one, started(OTHER, shown) as other:
        other.tell(one, b"let me in")
        await eventually(lambda: counted(one) > 0)
        async with started(THIRD, authority.credentials(THIRD)) as third:
            third.tell(one, b"I am expected")
            await one.heard.frame(b"I am expected")
        assert {frame.sender for frame in one.heard.frames} == {THIRD}


@pytest.mark.parametrize("part", ["certificate", "key", "roots"])
async def test_new_credentials_that_are_none_change_nothing(authority: Authority, part: str) -> None:
    bad: Any = ("no root",) if part == "roots" else "no pem"
    async with started(ONE, authority.credentials(ONE)) as one, started(OTHER, authority.credentials(OTHER)) as other:
        other.tell(one, b"before")
        await one.heard.frame(b"before")
        with pytest.raises(TransportError, match="credentials cannot be used"):
            await one.transport.renew(replace(authority.credentials(ONE), **{part: bad}))
        other.tell(one, b"after")
        await one.heard.frame(b"after")
        assert other.transport.counters()["dials"] == 1


@pytest.mark.parametrize("failures", [0, 2, 3])
async def test_a_port_is_tried_again_for_a_while_and_then_given_up_with_the_reason(failures: int) -> None:
    attempts = 0

    def attempt() -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= failures:
            raise TransportError(f"taken, {attempts}")

    with pytest.raises(TransportError, match="taken, 3") if failures == 3 else contextlib.nullcontext():
        await persevere(attempt, attempts=3, delay_s=0.0)
    assert attempts == min(failures + 1, 3)


async def test_who_was_turned_away_before_a_renewal_stays_counted(authority: Authority) -> None:
    async with started(ONE, authority.credentials(ONE)) as one, started(OTHER, Authority().credentials(OTHER)) as other:
        other.tell(one, b"let me in")
        await eventually(lambda: counted(one) > 0)
        before = counted(one)
        await one.transport.renew(authority.credentials(ONE))
        assert counted(one) >= before


async def test_tls_1_3_which_is_not_safe_on_several_threads_is_not_spoken(authority: Authority, tmp_path: Path) -> None:
    shown = authority.credentials(OTHER)
    (tmp_path / "shown.pem").write_text(shown.certificate + shown.key)
    context = ssl.create_default_context(cadata=authority.root)
    context.load_cert_chain(tmp_path / "shown.pem")
    async with started(ONE, authority.credentials(ONE)) as one:
        host, port = split_address(one.transport.address)
        _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=SERVER_NAME)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"
        writer.transport.abort()


# -- the expelled, and guests


async def test_whoever_shows_the_certificate_of_an_expelled_node_is_told_nothing(authority: Authority) -> None:
    async with started(ONE, authority.credentials(ONE)) as one, started(OTHER, authority.credentials(OTHER)) as other:
        one.transport.expel(OTHER)
        other.tell(one, b"let me in")
        # The connection is closed at once, which may be before the other end has quite made it: then it dials again.
        reasons = {f"not a Gary node: {what}" for what in ("it hung up before its hello", "it did not say hello")}
        assert (await other.heard.failure(one.peer)).reason in reasons
        assert one.transport.counters()["dropped_expelled"] >= 1
        assert one.heard.frames == []


GUEST_NAME = GUEST + OTHER


@pytest.mark.parametrize(("shown", "claimed"), [(GUEST_NAME, OTHER), (OTHER, GUEST_NAME), (GUEST + THIRD, GUEST_NAME)])
async def test_a_guest_is_nobody_else_and_nobody_else_a_guest(authority: Authority, shown: str, claimed: str) -> None:
    async with (
        started(ONE, authority.credentials(ONE)) as one,
        started(claimed, authority.credentials(shown)) as impostor,
    ):
        impostor.tell(one, b"let me in")
        assert (await impostor.heard.failure(one.peer)).reason
        assert one.transport.counters()["dropped_impostor"] == 1
        assert one.heard.frames == []


async def test_a_guest_that_listens_is_not_taken_for_the_node_that_is_called(authority: Authority) -> None:
    async with (
        started(ONE, authority.credentials(ONE)) as one,
        started(GUEST_NAME, authority.credentials(GUEST_NAME)) as guest,
    ):
        for peer in (Peer("", guest.transport.address), Peer(OTHER, guest.transport.address)):
            one.transport.send(peer, Lane.PROBE, b"a secret")
            assert (await one.heard.failure(peer)).reason == "a guest answers there, which is nobody to be dialled"
        assert guest.heard.frames == []


async def test_guests_are_few_and_take_no_members_place(authority: Authority) -> None:
    config = TransportConfig(ONE, "127.0.0.1:0", connections_max=1, credentials=authority.credentials(ONE))
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(run(config))
        other = await stack.enter_async_context(started(OTHER, authority.credentials(OTHER)))
        other.tell(one, b"a member")
        await one.heard.frame(b"a member")

        names = [GUEST + node_id(100 + number // 6) for number in range(connections.GUESTS_MAX)]
        names += [names[0]] * (connections.GUESTS_OF_NAME_MAX - 6)
        shown = {name: replace(config, node=name, bind="", credentials=authority.credentials(name)) for name in names}
        for number, name in enumerate(names):
            guest = await stack.enter_async_context(run(shown[name]))
            guest.tell(one, b"%d" % number)
            if number < connections.GUESTS_MAX:
                await one.heard.frame(b"%d" % number)
            else:
                await guest.heard.failure(one.peer)
        assert one.transport.counters()["guests_refused"] == len(names) - connections.GUESTS_MAX
        assert one.transport.counters()["connections_evicted"] == 0
        one.tell(other, b"still connected")
        await other.heard.frame(b"still connected")
        assert one.transport.counters()["dials"] == 0


async def test_guests_of_one_name_leave_room_for_others(authority: Authority) -> None:
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(started(ONE, authority.credentials(ONE)))
        config = TransportConfig(GUEST_NAME, "", credentials=authority.credentials(GUEST_NAME))
        for number in range(connections.GUESTS_OF_NAME_MAX):
            guest = await stack.enter_async_context(run(config))
            guest.tell(one, b"%d" % number)
            await one.heard.frame(b"%d" % number)
        guest = await stack.enter_async_context(run(config))
        guest.tell(one, b"one more")
        await guest.heard.failure(one.peer)
        name = GUEST + THIRD
        guest = await stack.enter_async_context(
            run(replace(config, node=name, credentials=authority.credentials(name)))
        )
        guest.tell(one, b"another name")
        await one.heard.frame(b"another name")


def test_a_guest_that_stays_for_long_is_shown_the_door() -> None:
    async def test(loop: ClockAhead) -> None:
        authority = Authority()
        config = TransportConfig(GUEST_NAME, "", credentials=authority.credentials(GUEST_NAME))
        async with started(ONE, authority.credentials(ONE)) as one, run(config) as guest:
            guest.tell(one, b"may I join?")
            await one.heard.frame(b"may I join?")
            loop.ahead_s += connections.GUEST_STAY_S
            await eventually(lambda: one.transport.counters()["connections"] == 0)

    run_with_clock(test)


# -- whoever else connects


async def test_garbage_half_handshakes_and_idle_connections_hold_up_nobody(authority: Authority) -> None:
    async with started(ONE, authority.credentials(ONE)) as one, started(OTHER, authority.credentials(OTHER)) as other:
        host, port = split_address(one.transport.address)
        idle = [await asyncio.open_connection(host, port) for _ in range(200)]
        for number, (_, writer) in enumerate(idle):
            if number % 3:
                writer.write(b"\x16\x03\x01\x02\x00\x01" if number % 3 == 1 else b"GET / HTTP/1.1\r\n\r\n")
        other.tell(one, b"through all of that")
        assert (await one.heard.frame(b"through all of that")).sender == OTHER
        for _, writer in idle:
            writer.close()
        assert all(frame.sender == OTHER for frame in one.heard.frames)


@pytest.mark.parametrize("part", ["certificate", "key", "roots"])
async def test_credentials_that_are_none_are_refused_by_name_when_the_transport_starts(
    authority: Authority, part: str
) -> None:
    bad: Any = ("no root",) if part == "roots" else "no pem"
    credentials = replace(authority.credentials(ONE), **{part: bad})
    with pytest.raises(TransportError, match="credentials cannot be used"):
        async with started(ONE, credentials):
            pass


def test_a_key_is_not_shown_where_credentials_are(authority: Authority) -> None:
    credentials = authority.credentials(ONE)
    assert "PRIVATE KEY" not in repr(TransportConfig(ONE, "127.0.0.1:0", credentials=credentials))
    assert "PRIVATE KEY" in credentials.key


async def test_a_node_that_dials_itself_is_told_so(authority: Authority) -> None:
    async with started(ONE, authority.credentials(ONE)) as one:
        one.transport.send(Peer("", one.transport.address), Lane.PROBE, b"who is there?")
        failure = await one.heard.failure(Peer("", one.transport.address))
        assert failure.reason == "that is this node itself"
