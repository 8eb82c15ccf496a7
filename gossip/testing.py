"""What every transport promises, as tests that an outside author runs against their own.

Subclass ``SecureTransportContract``, say how a transport is built, and let pytest collect the subclass, with an asyncio
plugin that runs ``async def`` tests (pytest-asyncio in auto mode does)::

    class TestCarrierPigeon(SecureTransportContract):
        def create(self, config: TransportConfig) -> Transport:
            return CarrierPigeon(config)

``TransportContract`` is what a transport keeps that has no credentials, or is not yet as far.

Each test breaks one promise of ``gossip.transport`` if the transport does. They wait for events, never for time to
pass; ``timeout_s`` only bounds a failure.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from gossip.certificates import Authority
from gossip.errors import TransportError
from gossip.transport import GUEST, HUNG_UP, NOT_TRUSTED, Credentials, Lane, Peer, Transport, TransportConfig

REASONS_LOST_MAX = 5


@dataclass(frozen=True, slots=True)
class Received:
    """One call of ``Receiver.received``."""

    sender: str
    lane: Lane
    frame: bytes


@dataclass(frozen=True, slots=True)
class Unreachable:
    """One call of ``Receiver.unreachable``."""

    peer: Peer
    reason: str


class Recorder:
    """A ``Receiver`` that remembers what it was told and wakes whoever waits for it. Who hung up is no failure."""

    def __init__(self, timeout_s: float) -> None:
        self.frames: list[Received] = []
        self.failures: list[Unreachable] = []
        self.hang_ups: list[Unreachable] = []
        self._timeout_s = timeout_s
        self._told = asyncio.Event()

    def received(self, sender: str, lane: Lane, frame: bytes) -> None:
        self.frames.append(Received(sender, lane, frame))
        self._told.set()

    def unreachable(self, peer: Peer, reason: str) -> None:
        told = self.hang_ups if reason.startswith(HUNG_UP) else self.failures
        told.append(Unreachable(peer, reason))
        self._told.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds after something was told; ``AssertionError`` if it does not come to that."""
        try:
            async with asyncio.timeout(self._timeout_s):
                while not condition():
                    self._told.clear()
                    await self._told.wait()
        except TimeoutError:
            heard = f"{len(self.frames)} frames, the last {self.frames[-1:]!r:.200}; {self.failures!r:.500}"
            raise AssertionError(f"waited {self._timeout_s} s in vain, having heard {heard}") from None

    async def frame(self, frame: bytes) -> Received:
        """Wait for ``frame``."""
        await self.until(lambda: any(received.frame == frame for received in self.frames))
        return next(received for received in self.frames if received.frame == frame)

    async def all_of(self, wanted: Iterable[Received]) -> None:
        """Wait for each of ``wanted``."""
        missing = set(wanted)
        await self.until(lambda: missing <= set(self.frames))

    async def failure(self, peer: Peer) -> Unreachable:
        """Wait to be told that ``peer`` is unreachable."""
        await self.until(lambda: any(failure.peer == peer for failure in self.failures))
        return next(failure for failure in self.failures if failure.peer == peer)


@dataclass(frozen=True, slots=True)
class Node:
    """A started transport and what it heard. ``peer`` is how others address it."""

    id: str
    transport: Transport
    heard: Recorder

    @property
    def peer(self) -> Peer:
        return Peer(self.id, self.transport.address)

    def tell(self, other: Node, frame: bytes, lane: Lane = Lane.PROBE) -> None:
        """Send ``frame`` to ``other``."""
        self.transport.send(other.peer, lane, frame)


def node_id(number: int) -> str:
    """A node id for tests."""
    return f"{number:032x}"


class TransportContract(ABC):
    """The promises, but for those about credentials: here there are none.

    ``bind`` is an address at which any number of transports can be started, each at one of its own.
    """

    bind = "127.0.0.1:0"
    timeout_s = 10.0

    @abstractmethod
    def create(self, config: TransportConfig) -> Transport:
        """A transport that is not started yet."""

    async def start(self, config: TransportConfig) -> Node:
        """A started transport; whoever calls this closes it."""
        transport = self.create(self.completed(config))
        heard = Recorder(self.timeout_s)
        await transport.start(heard)
        return Node(config.node, transport, heard)

    def completed(self, config: TransportConfig) -> TransportConfig:
        """``config`` with what every transport of a test has to have."""
        return config

    @asynccontextmanager
    async def nodes(self, *configs: TransportConfig) -> AsyncIterator[list[Node]]:
        """Started transports, closed at the end; by default two."""
        async with AsyncExitStack() as stack:
            started = []
            for config in configs or (TransportConfig(node_id(1), self.bind), TransportConfig(node_id(2), self.bind)):
                started.append(await self.start(config))
                stack.push_async_callback(started[-1].transport.close)
            yield started

    async def vacant_address(self) -> str:
        """An address at which nobody listens any more."""
        async with self.nodes(TransportConfig(node_id(99), self.bind)) as (node,):
            return node.transport.address

    # -- arriving

    async def test_frames_arrive_whole_and_with_their_sender_on_both_lanes(self) -> None:
        async with self.nodes() as (alice, bob):
            for lane in Lane:
                for size in (0, 1, 1_000, 300_000):
                    frame = bytes([lane + 1]) * size
                    alice.tell(bob, frame, lane)
                    await bob.heard.all_of([Received(alice.id, lane, frame)])
            assert len(bob.heard.frames) == 2 * 4

    async def test_the_largest_allowed_frame_arrives(self) -> None:
        configs = [TransportConfig(node_id(n), self.bind, frame_size_bytes_max=2_000_000) for n in (1, 2)]
        async with self.nodes(*configs) as (alice, bob):
            alice.tell(bob, b"x" * 2_000_000, Lane.BULK)
            assert (await bob.heard.frame(b"x" * 2_000_000)).sender == alice.id

    async def test_an_address_is_enough_to_reach_whoever_lives_there(self) -> None:
        async with self.nodes() as (alice, bob):
            alice.transport.send(Peer("", bob.transport.address), Lane.PROBE, b"who are you?")
            assert await bob.heard.frame(b"who are you?") == Received(alice.id, Lane.PROBE, b"who are you?")

    async def test_a_frame_is_not_given_to_another_node_than_the_one_meant(self) -> None:
        async with self.nodes() as (alice, bob):
            moved = Peer(node_id(77), bob.transport.address)
            alice.transport.send(moved, Lane.PROBE, b"for somebody else")
            await alice.heard.failure(moved)
            alice.tell(bob, b"for bob")
            await bob.heard.frame(b"for bob")
            assert [received.frame for received in bob.heard.frames] == [b"for bob"]

    async def test_a_reply_needs_no_address_that_can_be_dialled(self) -> None:
        vacant = await self.vacant_address()
        configs = (TransportConfig(node_id(1), self.bind, advertise=vacant), TransportConfig(node_id(2), self.bind))
        async with self.nodes(*configs) as (alice, bob):
            for lane in Lane:
                alice.tell(bob, b"question", lane)
                await bob.heard.all_of([Received(alice.id, lane, b"question")])
                bob.tell(alice, b"answer", lane)
                await alice.heard.all_of([Received(bob.id, lane, b"answer")])

    async def test_a_reply_needs_no_address_at_all(self) -> None:
        async with self.nodes() as (alice, bob):
            for lane in Lane:
                alice.tell(bob, b"question", lane)
                await bob.heard.all_of([Received(alice.id, lane, b"question")])
                bob.transport.send(Peer(alice.id, ""), lane, b"answer")
                await alice.heard.all_of([Received(bob.id, lane, b"answer")])
            assert len(alice.heard.frames) == len(Lane)

    async def test_a_burst_that_fits_the_queue_arrives(self) -> None:
        async with self.nodes() as (alice, bob):
            for burst in (b"cold", b"warm"):
                sent = {Received(alice.id, lane, burst + b" %d" % number) for lane in Lane for number in range(200)}
                for received in sent:
                    alice.tell(bob, received.frame, received.lane)
                await bob.heard.all_of(sent)

    async def test_nodes_that_call_each_other_at_once_both_get_through_and_stay_connected(self) -> None:
        async with self.nodes() as (alice, bob):
            for number in range(20):
                frame = b"%d" % number
                for lane in Lane:
                    alice.tell(bob, frame, lane)
                    bob.tell(alice, frame, lane)
                for lane in Lane:
                    await bob.heard.all_of([Received(alice.id, lane, frame)])
                    await alice.heard.all_of([Received(bob.id, lane, frame)])

    async def test_a_saturated_bulk_lane_does_not_hold_up_the_probe_lane(self) -> None:
        async with self.nodes() as (alice, bob):
            for lane in Lane:
                alice.tell(bob, b"hello", lane)
                await bob.heard.all_of([Received(alice.id, lane, b"hello")])
            for _ in range(200):
                alice.tell(bob, b"x" * 200_000, Lane.BULK)
            alice.tell(bob, b"ping", Lane.PROBE)
            await bob.heard.frame(b"ping")
            assert sum(received.lane is Lane.BULK for received in bob.heard.frames) < 201
            await bob.heard.until(lambda: sum(received.lane is Lane.BULK for received in bob.heard.frames) == 201)

    # -- not arriving

    async def test_a_vacant_address_is_reported_with_a_reason_at_every_attempt(self) -> None:
        vacant = Peer(node_id(3), await self.vacant_address())
        async with self.nodes() as (alice, bob):
            alice.transport.send(vacant, Lane.PROBE, b"anybody there?")
            await alice.heard.until(lambda: len(alice.heard.failures) == 1)
            alice.transport.send(vacant, Lane.PROBE, b"anybody now?")
            await alice.heard.until(lambda: len(alice.heard.failures) == 2)
            alice.tell(bob, b"still here")
            await bob.heard.frame(b"still here")
            assert {failure.peer for failure in alice.heard.failures} == {vacant}
            assert len(alice.heard.failures) == 2
            assert all(failure.reason for failure in alice.heard.failures)
            assert alice.transport.counters()["dropped_unreachable"] == 2

    async def test_send_accepts_any_address_and_reports_those_that_make_no_sense(self) -> None:
        async with self.nodes() as (alice, _):
            for address in ("", "nonsense", "127.0.0.1", "127.0.0.1:port", "[::1:7", ":0"):
                peer = Peer(node_id(3), address)
                alice.transport.send(peer, Lane.BULK, b"?")
                assert (await alice.heard.failure(peer)).reason

    async def test_nothing_is_reported_before_send_has_returned(self) -> None:
        async with self.nodes() as (alice, _):
            alice.transport.send(Peer("", "nonsense"), Lane.PROBE, b"?")
            assert alice.heard.failures == []
            await alice.heard.failure(Peer("", "nonsense"))

    async def test_reaching_oneself_does_not_pass_in_silence(self) -> None:
        async with self.nodes() as (alice, _):
            alice.transport.send(Peer("", alice.transport.address), Lane.PROBE, b"me?")
            await alice.heard.until(
                lambda: alice.heard.failures != [] or Received(alice.id, Lane.PROBE, b"me?") in alice.heard.frames
            )

    async def test_a_full_queue_drops_its_oldest_frames_and_counts_them(self) -> None:
        configs = (TransportConfig(node_id(1), self.bind, queue_frames_max=10), TransportConfig(node_id(2), self.bind))
        async with self.nodes(*configs) as (alice, bob):
            for number in range(25):
                alice.tell(bob, b"%d" % number)
            await bob.heard.frame(b"24")
            assert [received.frame for received in bob.heard.frames] == [b"%d" % number for number in range(15, 25)]
            assert alice.transport.counters()["dropped_overflow"] == 15

    async def test_an_oversized_frame_is_dropped_and_counted_by_its_sender(self) -> None:
        configs = [TransportConfig(node_id(n), self.bind, frame_size_bytes_max=1_000) for n in (1, 2)]
        async with self.nodes(*configs) as (alice, bob):
            alice.tell(bob, b"x" * 1_001)
            alice.tell(bob, b"x" * 1_000)
            await bob.heard.frame(b"x" * 1_000)
            assert len(bob.heard.frames) == 1
            assert alice.transport.counters()["dropped_oversized"] == 1

    async def test_an_oversized_frame_is_not_accepted_and_does_not_cut_off_its_sender(self) -> None:
        configs = (
            TransportConfig(node_id(1), self.bind, frame_size_bytes_max=2_000_000),
            TransportConfig(node_id(2), self.bind, frame_size_bytes_max=1_000),
        )
        for size in (1_001, 2_000_000):
            async with self.nodes(*configs) as (alice, bob):
                alice.tell(bob, b"x" * size)
                await self.gets_through(alice, bob)
                assert {received.frame for received in bob.heard.frames} == {b"through"}

    async def gets_through(self, alice: Node, bob: Node) -> None:
        """Repeat a frame until it arrives, as protocols do."""
        for _ in range(200):
            alice.tell(bob, b"through")
            try:
                async with asyncio.timeout(self.timeout_s / 200):
                    await bob.heard.frame(b"through")
            except TimeoutError:
                continue
            return
        raise AssertionError("nothing got through")

    async def test_an_unreachable_peer_holds_up_nobody_else(self) -> None:
        vacant = Peer(node_id(3), await self.vacant_address())
        async with self.nodes() as (alice, bob):
            for number in range(50):
                alice.transport.send(vacant, Lane.PROBE, b"anybody?")
                alice.tell(bob, b"%d" % number)
                await bob.heard.frame(b"%d" % number)
            await alice.heard.failure(vacant)

    # -- the expelled

    async def test_the_expelled_get_nothing_and_are_not_heard_and_nobody_else_notices(self) -> None:
        configs = [TransportConfig(node_id(number), self.bind) for number in (1, 2, 3)]
        async with self.nodes(*configs) as (alice, bob, eve):
            for lane in Lane:
                for other in (bob, eve):
                    other.tell(alice, b"before", lane)
                    await alice.heard.all_of([Received(other.id, lane, b"before")])
            for lane in Lane:
                alice.tell(eve, b"waiting", lane)
            alice.transport.expel(eve.id)
            for lane in Lane:
                alice.tell(eve, b"after", lane)
            await self.fails(eve, alice.peer)
            for lane in Lane:
                bob.tell(alice, b"after", lane)
                await alice.heard.all_of([Received(bob.id, lane, b"after")])
            assert eve.heard.frames == []
            assert not {Received(eve.id, lane, b"after") for lane in Lane} & set(alice.heard.frames)
            assert b"still there?" not in {received.frame for received in alice.heard.frames}
            assert alice.heard.failures == []
            assert alice.transport.counters()["dropped_expelled"] >= 2 * len(Lane) + 1
            assert bob.transport.counters()["dropped_expelled"] == 0

    async def test_a_node_starts_with_the_expulsions_that_it_knows(self) -> None:
        alice = self.create(self.completed(TransportConfig(node_id(1), self.bind)))
        alice.expel(node_id(2))
        heard = Recorder(self.timeout_s)
        await alice.start(heard)
        async with AsyncExitStack() as stack, self.nodes(TransportConfig(node_id(2), self.bind)) as (eve,):
            stack.push_async_callback(alice.close)
            await self.fails(eve, Peer(node_id(1), alice.address))
            assert heard.frames == []
            assert alice.counters()["dropped_expelled"] > 0

    async def test_whoever_expels_a_node_does_not_talk_to_it_by_its_address_either(self) -> None:
        async with self.nodes() as (alice, eve):
            alice.transport.expel(eve.id)
            alice.transport.send(Peer("", eve.transport.address), Lane.PROBE, b"who are you?")
            assert (await alice.heard.failure(Peer("", eve.transport.address))).reason
            assert eve.heard.frames == []

    # -- guests

    async def test_a_guest_that_only_dials_is_heard_by_its_name_and_answered(self) -> None:
        async with self.nodes(TransportConfig(node_id(1), self.bind), self.guest(9)) as (alice, guest):
            assert guest.transport.address == ""
            for lane in Lane:
                guest.transport.send(Peer("", alice.transport.address), lane, b"may I join?")
                await alice.heard.all_of([Received(guest.id, lane, b"may I join?")])
                alice.transport.send(Peer(guest.id, "somewhere:1"), lane, b"you may")
                await guest.heard.all_of([Received(alice.id, lane, b"you may")])
            alice.transport.send(Peer("", ""), Lane.PROBE, b"to nobody")
            assert (await alice.heard.failure(Peer("", ""))).reason
            assert len(guest.heard.frames) == len(Lane)

    async def test_all_guests_of_one_name_get_what_is_sent_to_it(self) -> None:
        configs = (TransportConfig(node_id(1), self.bind), self.guest(9), self.guest(9), self.guest(8))
        async with self.nodes(*configs) as (alice, *guests):
            for number, guest in enumerate(guests):
                guest.tell(alice, b"%d" % number)
                await alice.heard.frame(b"%d" % number)
            for word in (b"to the first two", b"again"):
                alice.transport.send(Peer(guests[0].id, ""), Lane.PROBE, word)
                for guest in guests[:2]:
                    await guest.heard.frame(word)
            alice.transport.send(Peer(guests[2].id, ""), Lane.PROBE, b"to the third")
            await guests[2].heard.frame(b"to the third")
            assert [len(guest.heard.frames) for guest in guests] == [2, 2, 1]

    async def test_a_guest_is_not_dialled(self) -> None:
        async with self.nodes() as (alice, bob):
            async with self.nodes(self.guest(9)) as (guest,):
                guest.tell(alice, b"may I join?")
                await alice.heard.frame(b"may I join?")
            for name in (guest.id, GUEST + node_id(8)):
                alice.transport.send(Peer(name, bob.transport.address), Lane.BULK, b"?")
                await self.fails(alice, Peer(name, ""))
            assert bob.heard.frames == []

    async def test_a_guest_can_be_expelled(self) -> None:
        async with self.nodes(TransportConfig(node_id(1), self.bind), self.guest(9)) as (alice, guest):
            guest.tell(alice, b"may I join?")
            await alice.heard.frame(b"may I join?")
            alice.transport.expel(guest.id)
            await self.fails(guest, alice.peer)
            assert len(alice.heard.frames) == 1

    def guest(self, number: int) -> TransportConfig:
        """What a guest's transport is made from."""
        return TransportConfig(GUEST + node_id(number), bind="")

    # -- credentials

    async def test_without_credentials_there_are_none_to_renew(self) -> None:
        credentials = Authority().credentials(node_id(1))
        transport = self.create(TransportConfig(node_id(1), self.bind))
        await self.refuses(transport.renew(credentials))
        await transport.start(Recorder(self.timeout_s))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(transport.close)
            await self.refuses(transport.renew(credentials))

    async def refuses(self, doing: Awaitable[object]) -> str:
        """What ``TransportError`` says that ``doing`` raises."""
        try:
            await doing
        except TransportError as error:
            return str(error)
        raise AssertionError("no TransportError was raised")

    # -- coming and going

    async def test_an_address_that_is_taken_is_an_error(self) -> None:
        async with self.nodes() as (alice, _):
            complaint = await self.refuses(self.start(TransportConfig(node_id(3), alice.transport.address)))
            assert alice.transport.address in complaint, (
                "a second transport listens at the address, or does not say why not"
            )

    async def test_forgetting_a_peer_drops_what_waits_for_it_and_nothing_else(self) -> None:
        async with self.nodes() as (alice, bob):
            for lane in Lane:
                alice.tell(bob, b"forgotten", lane)
            alice.transport.forget(bob.peer)
            for lane in Lane:
                alice.tell(bob, b"later", lane)
                await bob.heard.all_of([Received(alice.id, lane, b"later")])
            assert {received.frame for received in bob.heard.frames} == {b"later"}

    async def test_a_node_that_went_away_is_reported_and_reached_again_when_it_is_back(self) -> None:
        async with self.nodes(TransportConfig(node_id(1), self.bind)) as (alice,):
            bob = await self.start(TransportConfig(node_id(2), self.bind))
            config = TransportConfig(node_id(2), bob.transport.address)
            alice.tell(bob, b"before")
            await bob.heard.frame(b"before")
            await bob.transport.close()
            await self.fails(alice, bob.peer)
            async with self.nodes(config) as (bob,):
                await self.gets_through(alice, bob)

    async def test_an_address_can_get_a_new_tenant(self) -> None:
        async with self.nodes(TransportConfig(node_id(1), self.bind)) as (alice,):
            old = await self.start(TransportConfig(node_id(2), self.bind))
            config = TransportConfig(node_id(3), old.transport.address)
            alice.tell(old, b"before")
            await old.heard.frame(b"before")
            await old.transport.close()
            async with self.nodes(config) as (new,):
                await self.gets_through(alice, new)
                await self.fails(alice, old.peer)
                assert {received.frame for received in new.heard.frames} == {b"through"}
                new.tell(alice, b"pleased to meet you")
                assert (await alice.heard.frame(b"pleased to meet you")).sender == new.id

    async def fails(self, alice: Node, peer: Peer) -> None:
        """Repeat a frame until ``peer`` is reported unreachable, as protocols do."""
        for _ in range(200):
            alice.transport.send(peer, Lane.PROBE, b"still there?")
            try:
                async with asyncio.timeout(self.timeout_s / 200):
                    await alice.heard.failure(peer)
            except TimeoutError:
                continue
            return
        raise AssertionError("a peer that is gone was not reported")

    async def test_nothing_is_delivered_after_close(self) -> None:
        async with self.nodes() as (alice, bob):
            alice.tell(bob, b"before")
            await bob.heard.frame(b"before")
            await bob.transport.close()
            for lane in Lane:
                bob.tell(alice, b"from the grave", lane)
            bob.transport.forget(alice.peer)
            await self.fails(alice, bob.peer)
            assert [received.frame for received in bob.heard.frames] == [b"before"]
            assert b"from the grave" not in [received.frame for received in alice.heard.frames]
            assert bob.heard.failures == []

    async def test_close_leaves_no_tasks_and_can_be_repeated(self) -> None:
        before = asyncio.all_tasks()
        vacant = Peer(node_id(3), await self.vacant_address())
        async with self.nodes() as (alice, bob):
            alice.tell(bob, b"hello")
            await bob.heard.frame(b"hello")
            alice.transport.send(vacant, Lane.PROBE, b"still dialling when closed")
            await alice.transport.close()
            await alice.transport.close()
        # A library's own may take a few turns of the loop to end.
        if remaining := asyncio.all_tasks() - before:
            _, remaining = await asyncio.wait(remaining, timeout=self.timeout_s)
        assert not remaining

    async def test_counters_are_numbers_by_name_that_follow_what_happens(self) -> None:
        async with self.nodes() as (alice, bob):
            for word in (b"four", b"eight888"):
                alice.tell(bob, word)
                await bob.heard.frame(word)
            sent, received = alice.transport.counters(), bob.transport.counters()
            assert all(isinstance(value, int) and value >= 0 for value in (*sent.values(), *received.values()))
            # The last frame may be counted a moment after it has arrived.
            assert (sent["frames_sent"], sent["bytes_sent"]) in ((1, 4), (2, 12))
            assert (received["frames_received"], received["bytes_received"]) == (2, 12)


class SecureTransportContract(TransportContract):
    """All promises, with credentials: those of ``TransportContract``, and who gets no frame through.

    Only a transport that keeps them can run a cluster, since agents always have credentials.
    """

    @cached_property
    def authority(self) -> Authority:
        """The root whose certificates the nodes of a test show each other."""
        return Authority()

    def completed(self, config: TransportConfig) -> TransportConfig:
        """``config`` with credentials of ``authority``, if it has none."""
        if config.credentials is not None:
            return config
        return replace(config, credentials=self.authority.credentials(config.node))

    def node(self, number: int, credentials: Credentials | None = None) -> TransportConfig:
        """What node ``number`` is made from; by default with credentials of ``authority``."""
        return TransportConfig(node_id(number), self.bind, credentials=credentials)

    # -- strangers

    def strangers(self) -> dict[str, Credentials]:
        """Credentials of node 2 that no node of ``authority`` accepts."""
        mine, elsewhere = self.authority, Authority()
        return {
            "another root": elsewhere.credentials(node_id(2)),
            "a certificate of another root": elsewhere.credentials(node_id(2), trusts=(mine.root,)),
            "one of the same name": Authority("root").credentials(node_id(2), trusts=(mine.root,)),
            "an expired certificate": mine.credentials(node_id(2), age_days=2, days=1),
            "one that is not valid yet": mine.credentials(node_id(2), age_days=-1),
            "one without a name": mine.credentials(""),
        }

    async def test_a_stranger_gets_no_frame_through_and_is_told_nothing(self) -> None:
        for kind, shown in self.strangers().items():
            async with self.nodes(self.node(1), self.node(2, shown)) as (alice, stranger):
                await self.have_nothing_to_say_to_each_other(alice, stranger, kind)

    async def test_without_credentials_nobody_gets_a_frame_through(self) -> None:
        async with self.nodes(self.node(1)) as (alice,):
            transport, heard = self.create(self.node(2)), Recorder(self.timeout_s)
            await transport.start(heard)
            async with AsyncExitStack() as stack:
                stack.push_async_callback(transport.close)
                stranger = Node(node_id(2), transport, heard)
                await self.have_nothing_to_say_to_each_other(alice, stranger, "no credentials")

    async def have_nothing_to_say_to_each_other(self, alice: Node, stranger: Node, kind: str) -> None:
        """Both try; that somebody else is heard afterwards shows that the stranger's frame is not only late."""
        for one, other in ((stranger, alice), (alice, stranger)):
            one.tell(other, b"let me in")
            assert (await one.heard.failure(other.peer)).reason, kind
        async with self.nodes(self.node(3)) as (bob,):
            bob.tell(alice, b"I am expected")
            await alice.heard.frame(b"I am expected")
        assert {received.sender for received in alice.heard.frames} == {node_id(3)}, kind
        assert stranger.heard.frames == [], kind

    async def test_a_certificate_that_does_not_fit_is_given_as_the_reason(self) -> None:
        stranger = Authority().credentials(node_id(2), trusts=(self.authority.root,))
        async with self.nodes(self.node(1), self.node(2, stranger)) as (alice, bob):
            for one, other in ((bob, alice), (alice, bob)):
                reasons: list[str] = []
                # Who turns a stranger away hangs up, and now and then that overtakes the reason.
                while len(reasons) < REASONS_LOST_MAX and not any(why.startswith(NOT_TRUSTED) for why in reasons):
                    one.heard.failures.clear()
                    one.tell(other, b"let me in")
                    reasons.append((await one.heard.failure(other.peer)).reason)
                assert reasons[-1].startswith(NOT_TRUSTED), reasons

    async def test_nobody_is_taken_for_another_than_the_certificate_names(self) -> None:
        async with self.nodes(self.node(1), self.node(2, self.authority.credentials(node_id(3)))) as (alice, impostor):
            impostor.tell(alice, b"I am the second")
            alice.tell(impostor, b"a secret")
            await alice.heard.failure(impostor.peer)
            async with self.nodes(self.node(4)) as (bob,):
                bob.tell(alice, b"I am the fourth")
                await alice.heard.frame(b"I am the fourth")
            assert node_id(2) not in {received.sender for received in alice.heard.frames}
            assert impostor.heard.frames == []

    async def test_a_guest_that_listens_is_nobody_to_be_dialled(self) -> None:
        guest = TransportConfig(GUEST + node_id(2), self.bind)
        async with self.nodes(self.node(1), guest) as (alice, listening):
            for peer in (Peer("", listening.transport.address), Peer(node_id(2), listening.transport.address)):
                alice.transport.send(peer, Lane.PROBE, b"a secret")
                assert (await alice.heard.failure(peer)).reason
            assert listening.heard.frames == []

    # -- what can be used

    def unusable(self) -> Iterator[Credentials]:
        """Credentials of node 1 of which one part is none."""
        sound = self.authority.credentials(node_id(1))
        yield replace(sound, certificate="no certificate")
        yield replace(sound, key="no key")
        yield replace(sound, roots=("no root",))

    async def test_credentials_that_are_none_are_refused_at_the_start(self) -> None:
        for bad in self.unusable():
            assert await self.refuses(self.start(self.node(1, bad)))

    async def test_new_credentials_that_are_none_change_nothing(self) -> None:
        async with self.nodes() as (alice, bob):
            for number, bad in enumerate(self.unusable()):
                assert await self.refuses(alice.transport.renew(bad))
                bob.tell(alice, b"%d" % number)
                await alice.heard.frame(b"%d" % number)

    # -- new credentials

    async def renew(self, node: Node) -> None:
        """Give ``node`` new credentials of the same root."""
        await node.transport.renew(self.authority.credentials(node.id))

    async def test_who_trusts_another_root_as_well_is_heard_by_both(self) -> None:
        new = Authority("new root")
        both = (self.authority.root, new.root)
        old_node = replace(self.authority.credentials(node_id(1)), roots=both)
        new_node = new.credentials(node_id(2), trusts=both)
        async with self.nodes(self.node(1, old_node), self.node(2, new_node)) as (alice, bob):
            for one, other in ((alice, bob), (bob, alice)):
                one.tell(other, b"hello")
                assert (await other.heard.frame(b"hello")).sender == one.id

    async def test_a_node_that_changes_its_root_leaves_those_of_the_old_one(self) -> None:
        new = Authority("new root")
        async with self.nodes(self.node(1), self.node(2), self.node(3, new.credentials(node_id(3)))) as nodes:
            alice, bob, eve = nodes
            for one, other in ((alice, bob), (bob, alice)):
                one.tell(other, b"hello")
                await other.heard.frame(b"hello")
            await alice.transport.renew(new.credentials(alice.id))
            for one, other in ((alice, bob), (bob, alice)):
                await self.fails(one, other.peer)
                assert {received.frame for received in other.heard.frames} == {b"hello"}
            for one, other in ((eve, alice), (alice, eve)):
                one.tell(other, b"of the new root")
                assert (await other.heard.frame(b"of the new root")).sender == one.id

    async def test_the_expelled_are_refused_with_new_credentials_too(self) -> None:
        async with self.nodes() as (alice, eve):
            alice.transport.expel(eve.id)
            for node in (alice, eve):
                await self.renew(node)
            eve.tell(alice, b"let me in")
            assert (await eve.heard.failure(alice.peer)).reason
            assert alice.heard.frames == []

    async def test_new_credentials_change_neither_the_address_nor_who_is_reached(self) -> None:
        async with self.nodes() as (alice, bob):
            for word in (b"before", b"after", b"after the second time"):
                address = alice.transport.address
                for lane in Lane:
                    alice.tell(bob, word, lane)
                    await bob.heard.all_of([Received(alice.id, lane, word)])
                    bob.tell(alice, word, lane)
                    await alice.heard.all_of([Received(bob.id, lane, word)])
                await self.renew(alice)
                assert alice.transport.address == address
            assert alice.heard.failures == bob.heard.failures == []

    async def test_what_waits_outlives_new_credentials(self) -> None:
        for turns in (0, 1, 2, 5):
            async with self.nodes() as (alice, bob):
                for word in (b"for a connection", b"for the end of this turn"):
                    for lane in Lane:
                        alice.tell(bob, word, lane)
                    for _ in range(0 if bob.heard.frames else turns):
                        await asyncio.sleep(0)
                    await self.renew(alice)
                    await bob.heard.all_of(Received(alice.id, lane, word) for lane in Lane)
                assert alice.heard.failures == []

    async def test_what_is_sent_while_credentials_change_arrives(self) -> None:
        async with self.nodes() as (alice, bob):
            for number in range(5):
                renewal = asyncio.ensure_future(self.renew(alice))
                while not renewal.done():
                    alice.tell(bob, b"%d" % number)
                    await asyncio.sleep(0)
                await renewal
                await bob.heard.frame(b"%d" % number)
            assert alice.heard.failures == []

    async def test_new_credentials_are_for_a_transport_that_runs(self) -> None:
        transport = self.create(self.completed(self.node(1)))
        for _ in range(2):
            await self.refuses(transport.renew(self.authority.credentials(node_id(1))))
            await transport.start(Recorder(self.timeout_s))
            await transport.close()
