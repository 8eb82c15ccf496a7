"""Certificates on both sides of every connection: who gets no frame through, and what it costs everybody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pynng as untyped_pynng
import pytest

from gossip.dialling import split_address
from gossip.errors import TransportError
from gossip.nng import NngTransport, persevere
from gossip.testing import Node, Recorder, node_id
from gossip.transport import Credentials, Lane, Peer, TransportConfig
from tests.gossip.certificates import Authority

pynng: Any = untyped_pynng
TIMEOUT_S = 10.0
ONE, OTHER, THIRD = node_id(1), node_id(2), node_id(3)


@contextlib.asynccontextmanager
async def started(node: str, credentials: Credentials | None) -> AsyncIterator[Node]:
    transport = NngTransport(TransportConfig(node, "127.0.0.1:0", credentials=credentials))
    heard = Recorder(TIMEOUT_S)
    await transport.start(heard)
    try:
        yield Node(node, transport, heard)
    finally:
        await transport.close()


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
        async with asyncio.timeout(TIMEOUT_S):
            while not counted(one):  # nng counts on a thread of its own  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        async with started(THIRD, authority.credentials(THIRD)) as third:
            third.tell(one, b"I am expected")
            await one.heard.frame(b"I am expected")
        assert {frame.sender for frame in one.heard.frames} == {THIRD}


@pytest.mark.parametrize("stranger", [name for name in strangers(Authority()) if "named as the node" not in name])
async def test_nothing_is_said_to_a_stranger_that_lives_at_a_known_address(stranger: str) -> None:
    authority = Authority()
    shown = strangers(authority)[stranger]
    async with started(ONE, authority.credentials(ONE)) as one, started(OTHER, shown) as other:
        one.tell(other, b"a secret")
        assert (await one.heard.failure(other.peer)).reason
        assert other.heard.frames == []


async def test_who_trusts_another_root_as_well_is_heard_by_both(authority: Authority) -> None:
    """While a cluster changes its root, each node trusts the old one and the new."""
    new = Authority("new root")
    both = (authority.root, new.root)
    old_node = replace(authority.credentials(ONE), roots=both)
    new_node = new.credentials(OTHER, trusts=both)
    async with started(ONE, old_node) as one, started(OTHER, new_node) as other:
        one.tell(other, b"old to new")
        assert (await other.heard.frame(b"old to new")).sender == ONE
        other.tell(one, b"new to old")
        assert (await one.heard.frame(b"new to old")).sender == OTHER


async def test_a_node_changes_over_to_another_root_and_is_heard_by_those_who_trust_that(authority: Authority) -> None:
    new = Authority("new root")
    old_node = authority.credentials(OTHER)
    async with (
        started(ONE, authority.credentials(ONE)) as one,
        started(OTHER, old_node) as other,
        started(THIRD, new.credentials(THIRD)) as third,
    ):
        other.tell(one, b"of one root")
        await one.heard.frame(b"of one root")

        await one.transport.renew(new.credentials(ONE))
        third.tell(one, b"of the new root")
        assert (await one.heard.frame(b"of the new root")).sender == THIRD
        one.tell(third, b"likewise")
        assert (await third.heard.frame(b"likewise")).sender == ONE
        other.tell(one, b"of the old root")
        assert (await other.heard.failure(one.peer)).reason
        one.tell(other, b"of the old root")
        assert (await one.heard.failure(other.peer)).reason
        assert b"of the old root" not in [received.frame for node in (one, other) for received in node.heard.frames]


async def test_connections_that_only_the_old_roots_allow_end_with_them(authority: Authority) -> None:
    new = Authority("new root")
    async with started(ONE, authority.credentials(ONE)) as one, started(OTHER, authority.credentials(OTHER)) as other:
        for asking, asked in ((one, other), (other, one)):
            asking.tell(asked, b"hello")
            await asked.heard.frame(b"hello")
        await one.transport.renew(new.credentials(ONE))
        async with asyncio.timeout(TIMEOUT_S):
            while one.transport.counters()["connections"] or other.transport.counters()["connections"]:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


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
        async with asyncio.timeout(TIMEOUT_S):
            while not counted(one):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        before = counted(one)
        await one.transport.renew(authority.credentials(ONE))
        assert counted(one) >= before


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
