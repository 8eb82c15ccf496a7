"""Who has to leave the door when too many stand there, and that nobody else is touched."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip import admission
from gossip.admission import Doorkeeper, source, surplus
from gossip.dialling import join_address
from tests.gossip.sockets import ClockAhead, eventually, run_with_clock

pytestmark = pytest.mark.skipif(not Doorkeeper.works_here(), reason="what is open can be seen on Linux only")

remotes = st.builds(
    join_address, st.sampled_from(["10.0.0.1", "10.0.0.2", "::1", "2001:db8::7"]), st.integers(1, 65000)
)


# -- who has to go


@given(st.lists(remotes, unique=True, max_size=60), st.integers(4, 60))
def test_as_many_stay_as_may_and_who_loses_any_has_as_many_left_as_anybody(arrived: list[str], most: int) -> None:
    gone = surplus(arrived, most)
    stay = [remote for remote in arrived if remote not in gone]
    assert len(stay) <= most
    assert len(stay) > most - 4 or not gone  # It cannot always be divided.
    came, stayed = Counter(map(source, arrived)), Counter(map(source, stay))
    assert all(stayed[who] in (came[who], max(stayed.values())) for who in came)


@given(st.lists(remotes, unique=True, max_size=60), st.integers(0, 60))
def test_of_one_source_the_oldest_go(arrived: list[str], most: int) -> None:
    gone = set(surplus(arrived, most))
    for who in set(map(source, arrived)):
        kept = [remote not in gone for remote in arrived if source(remote) == who]
        assert kept == sorted(kept)


def test_when_even_one_of_each_source_is_too_many_the_oldest_go() -> None:
    arrived = [f"10.0.0.{number}:1" for number in range(9)]
    assert surplus(arrived, 3) == arrived[:6]


@pytest.mark.parametrize(
    ("remote", "who"),
    [
        ("10.1.2.3:4", "10.1.2.3/32"),
        ("[::ffff:10.1.2.3]:4", "10.1.2.3/32"),
        ("[2001:db8:1:2:3:4:5:6]:7", "2001:db8:1:2::/64"),
        ("[::1]:4", "::/64"),
    ],
)
def test_a_source_is_a_host_or_the_network_in_which_one_may_have_any_address(remote: str, who: str) -> None:
    assert source(remote) == ip_network(who)


# -- at a door


@dataclass
class Door:
    """A listening socket whose connections are accepted and then left alone, as nng does in a handshake."""

    listening: socket.socket
    keeper: Doorkeeper
    settled: set[str] = field(default_factory=set)
    inside: dict[str, socket.socket] = field(default_factory=dict)
    outside: list[socket.socket] = field(default_factory=list)

    @property
    def address(self) -> str:
        return join_address(*self.listening.getsockname()[:2])

    async def knock(self, host: str = "127.0.0.1") -> str | None:
        """Somebody at ``host`` connects: the remote address of the connection, or None if it is not let to the door."""
        try:
            visitor = socket.create_connection(self.listening.getsockname()[:2], 0.1, source_address=(host, 0))
        except TimeoutError:
            return None
        visitor.setblocking(False)
        remote = join_address(*visitor.getsockname()[:2])
        self.outside.append(visitor)
        await asyncio.sleep(0)  # The event loop hears of it now,
        await asyncio.sleep(0)  # and the keeper.
        self.inside[remote], _ = self.listening.accept()
        return remote

    async def crowd(self, most: int, host: str = "127.0.0.1") -> list[str]:
        """``most`` connect, or fewer if the door is shut before."""
        knocked: list[str] = []
        while len(knocked) < most and (remote := await self.knock(host)) is not None:
            knocked.append(remote)
        return knocked

    def hung_up_on(self) -> list[str]:
        """The remote addresses of those who were hung up on, in order of arrival."""
        gone = []
        for visitor in self.outside:
            with contextlib.suppress(BlockingIOError):
                assert visitor.recv(1) == b""
                gone.append(join_address(*visitor.getsockname()[:2]))
        return gone

    def see_out(self) -> None:
        """Close what was hung up on, as nng does."""
        for remote in self.hung_up_on():
            if remote in self.inside:
                self.inside.pop(remote).close()


@contextlib.asynccontextmanager
async def door(waiting_max: int, host: str = "127.0.0.1") -> AsyncIterator[Door]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, backlog=256) as listening:
        settled: set[str] = set()
        keeper = Doorkeeper(lambda: settled, waiting_max)
        it = Door(listening, keeper, settled)
        keeper.watch([it.address])
        try:
            yield it
        finally:
            keeper.close()
            for sock in (*it.inside.values(), *it.outside):
                sock.close()


async def test_when_too_many_wait_the_oldest_are_hung_up_on() -> None:
    async with door(waiting_max=40) as it:
        knocked = await it.crowd(40)
        assert len(knocked) == 40
        assert it.hung_up_on() == []
        knocked += await it.crowd(40)
        gone = it.hung_up_on()
        assert gone == knocked[: len(gone)]
        assert 20 <= len(gone) == it.keeper.turned_away
        assert len(knocked) <= 40 + admission._RECOUNT_AFTER_MIN + 1


def test_a_source_that_floods_takes_no_other_s_place() -> None:
    async def test(loop: ClockAhead) -> None:
        async with door(waiting_max=40) as it:
            honest = await it.knock("127.0.0.2")
            while it.keeper.turned_away < 100:
                await it.crowd(100)
                it.see_out()
                loop.ahead_s += admission.SHUT_OUT_S
                await eventually(lambda: it.keeper._reopening is None)
            assert honest not in it.hung_up_on()
            assert len(it.inside) <= 40 + admission._RECOUNT_AFTER_MIN

    run_with_clock(test)


async def test_those_inside_are_never_touched_and_take_no_place() -> None:
    async with door(waiting_max=40) as it:
        for _ in range(5):
            it.settled.update(await it.crowd(20))
        assert it.hung_up_on() == []
        waiting = await it.crowd(100)
        gone = it.hung_up_on()
        assert gone == waiting[: len(gone)] != []


async def test_connections_of_others_in_this_process_are_left_alone() -> None:
    async with door(waiting_max=20) as it, door(waiting_max=1000) as other:
        assert len(await other.crowd(60)) == 60
        await it.crowd(60)
        assert it.keeper.turned_away > 0
        assert other.hung_up_on() == []


def test_who_takes_too_long_is_hung_up_on() -> None:
    async def test(loop: ClockAhead) -> None:
        async with door(waiting_max=20) as it:
            slow, settled = await it.knock(), await it.knock()
            assert settled is not None
            it.settled.add(settled)
            loop.ahead_s += admission.PATIENCE_S
            await eventually(lambda: it.keeper._waited != frozenset())
            late = await it.knock()
            assert it.hung_up_on() == []
            loop.ahead_s += admission.PATIENCE_S
            await eventually(lambda: it.hung_up_on() == [slow])
            loop.ahead_s += admission.PATIENCE_S
            await eventually(lambda: it.hung_up_on() == [slow, late])

    run_with_clock(test)


async def test_only_doors_that_are_watched_are_kept() -> None:
    async with door(waiting_max=20) as it:
        it.keeper.watch(())
        assert len(await it.crowd(60)) == 60
        assert it.hung_up_on() == []
        it.keeper.watch([it.address])
        assert len(it.hung_up_on()) == 50


@pytest.mark.parametrize(("at", "flooding", "honest"), [("127.0.0.1", "127.0.0.1", "127.0.0.2"), ("::1", "::1", "")])
def test_who_was_too_many_is_shut_out_until_seen_out(at: str, flooding: str, honest: str) -> None:
    async def test(loop: ClockAhead) -> None:
        async with door(waiting_max=40, host=at) as it:
            await it.crowd(100, flooding)
            assert it.keeper.turned_away > 20
            loop.ahead_s += admission.SHUT_OUT_S
            await asyncio.sleep(0)
            assert await it.knock(flooding) is None
            assert not honest or await it.knock(honest)
            it.see_out()
            loop.ahead_s += admission.SHUT_OUT_S
            await eventually(lambda: it.keeper._reopening is None)
            assert await it.knock(flooding)

    try:
        socket.create_server((at, 0), family=socket.AF_INET6 if ":" in at else socket.AF_INET).close()
    except OSError:
        pytest.skip(f"no {at} here")
    run_with_clock(test)
