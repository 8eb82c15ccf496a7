"""What the virtual network does to frames, and that it does nothing of it unless told."""

import random
from collections.abc import Callable

import pytest

from gossip import Lane, Peer
from gossip.transport import Credentials
from simulations.clock import Clock
from simulations.network import (
    CONNECTIONS_MAX,
    RETRANSMIT_S,
    UPLINK_QUEUE_S,
    Endpoint,
    Impairment,
    Link,
    Network,
)

STEADY = Link(delay_s=(0.01, 0.01))
SHOWN = Credentials("<it by <root>>", "", ("<root>",))


class Wire:
    """A network with hosts that note when each frame arrives."""

    def __init__(self, link: Link = STEADY, hosts: int = 3, handshake_s: float = 0.005) -> None:
        self.clock = Clock()
        self.network = Network(self.clock, random.Random(1), link, handshake_s=handshake_s)
        self.arrived: list[tuple[float, str, bytes]] = []
        self.refused: list[str] = []
        for number in range(hosts):
            self.attach(f"h{number}")

    def attach(self, name: str) -> None:
        self.network.attach(
            name,
            Endpoint(
                f"node {name}",
                lambda: SHOWN,
                lambda sender, lane, frame: self.arrived.append((self.clock.now, name, frame)),
                lambda peer, reason: self.refused.append(reason),
            ),
        )

    def send(self, frame: bytes, source: str = "h0", to: str = "h1", lane: Lane = Lane.PROBE) -> None:
        self.network.send(source, f"node {source}", Peer(f"node {to}", to), lane, frame)

    def warm(self) -> None:
        """Let there be a connection."""
        self.send(b"hello")
        self.clock.run_until(self.clock.now + 1.0)
        self.arrived.clear()


def test_the_first_frame_waits_for_a_connection_and_the_next_ones_do_not() -> None:
    wire = Wire()
    wire.send(b"one")
    wire.clock.run_until(1.0)
    wire.send(b"two", "h1", "h0")
    wire.clock.run_until(2.0)
    (first, _, _), (second, _, _) = wire.arrived
    assert first == pytest.approx(0.01 + 4 * 0.01 + 0.005)
    assert second == pytest.approx(1.01)
    assert wire.network.counters["dials"] == 1


def test_a_restarted_process_has_to_be_dialled_again() -> None:
    wire = Wire()
    wire.warm()
    wire.network.detach("h1", host_is_up=True)
    wire.attach("h1")
    wire.send(b"two")
    wire.clock.run_until(3.0)
    assert wire.network.counters["dials"] == 2


def test_a_host_keeps_so_many_connections_and_gives_up_the_oldest() -> None:
    wire = Wire(hosts=CONNECTIONS_MAX + 3)
    for number in range(1, CONNECTIONS_MAX + 2):
        wire.send(b"x", to=f"h{number}")
        wire.clock.run_until(wire.clock.now + 1.0)
    dials = wire.network.counters["dials"]
    wire.send(b"x", to=f"h{CONNECTIONS_MAX + 1}")
    assert wire.network.counters["dials"] == dials
    wire.send(b"x", to="h1")
    assert wire.network.counters["dials"] == dials + 1


def test_frames_of_one_lane_keep_their_order_whatever_their_delays() -> None:
    wire = Wire(Link(delay_s=(0.001, 0.2)))
    wire.warm()
    for number in range(50):
        wire.send(bytes([number]))
    wire.clock.run_until(5.0)
    assert [frame[0] for _, _, frame in wire.arrived] == list(range(50))


def test_what_is_sent_again_holds_up_what_comes_after_it_on_its_lane_only() -> None:
    wire = Wire()
    wire.warm()
    began = wire.clock.now
    wire.network.link = Link(delay_s=(0.01, 0.01), stalls=0.999999)
    wire.network._random = _Numbers(0.5, 0.0, 1.0).random
    wire.send(b"late", lane=Lane.BULK)
    wire.network.link = STEADY
    wire.send(b"behind it", lane=Lane.BULK)
    wire.send(b"beside it", lane=Lane.PROBE)
    wire.clock.run_until(5.0)
    at = {frame: when - began for when, _, frame in wire.arrived}
    assert at[b"beside it"] == pytest.approx(0.01)
    assert at[b"late"] == at[b"behind it"] == pytest.approx(0.01 + RETRANSMIT_S)


@pytest.mark.parametrize(
    ("link", "counter", "count"),
    [
        (Link(delay_s=(0.01, 0.01), loss=1.0), "lost", 0),
        (Link(delay_s=(0.01, 0.01), duplication=1.0), "duplicated", 2),
        (Link(delay_s=(0.01, 0.01), reordering=1.0), "overtaken", 1),
        (Link(delay_s=(0.01, 0.01), tail=1.0, tail_s=0.1), "slowed", 1),
        (STEADY, "frames", 1),
    ],
)
def test_trouble_strikes_where_it_is_and_is_counted(link: Link, counter: str, count: int) -> None:
    wire = Wire()
    wire.warm()
    before = _counted(wire, counter)
    wire.network.link = link
    wire.send(b"frame")
    wire.clock.run_until(10.0)
    assert len(wire.arrived) == count
    assert _counted(wire, counter) == before + 1


def _counted(wire: Wire, counter: str) -> int:
    return {**wire.network.counters, **wire.network.sent}.get(counter, 0)


def test_an_uplink_takes_its_time_and_drops_what_would_wait_too_long() -> None:
    wire = Wire(Link(delay_s=(0.01, 0.01), bytes_per_s=1000.0))
    wire.warm()
    began = wire.clock.now
    for _ in range(20):
        wire.send(b"x" * 100)
    wire.clock.run_until(began + 10.0)
    times = [when - began for when, _, _ in wire.arrived]
    assert times[0] == pytest.approx(0.11)
    assert times[1] == pytest.approx(0.21)
    assert len(times) == pytest.approx(UPLINK_QUEUE_S / 0.1, abs=1)
    assert wire.network.counters["overflowed"] == 20 - len(times)


@pytest.mark.parametrize(
    ("cut", "there", "back"),
    [
        (lambda network: network.deafen("h0", "h1"), False, True),
        (lambda network: network.partition({"h0": 1}), False, False),
        (lambda network: network.impair(Impairment(lambda a, b: a == "h0", None)), False, True),
    ],
)
def test_cuts_go_one_way_or_both_and_end(cut: Callable[[Network], object], there: bool, back: bool) -> None:
    wire = Wire()
    wire.warm()
    cut(wire.network)
    assert wire.network.is_cut
    wire.send(b"there")
    wire.send(b"back", "h1", "h0")
    wire.clock.run_until(3.0)
    assert {frame for _, _, frame in wire.arrived} == {b for b, is_ in ((b"there", there), (b"back", back)) if is_}
    wire.network.heal()
    wire.send(b"again")
    wire.clock.run_until(5.0)
    assert wire.arrived[-1][2] == b"again"


def test_an_impairment_ends_when_it_is_mended_and_others_stay() -> None:
    wire = Wire()
    mend = wire.network.impair(Impairment(lambda a, b: True, None))
    wire.network.impair(Impairment(lambda a, b: b == "h2", None))
    mend()
    wire.send(b"one")
    wire.send(b"two", to="h2")
    wire.clock.run_until(1.0)
    assert [frame for _, _, frame in wire.arrived] == [b"one"]


def test_a_host_that_is_up_refuses_and_one_that_is_down_says_nothing() -> None:
    wire = Wire()
    wire.network.detach("h1", host_is_up=True)
    wire.network.detach("h2", host_is_up=False)
    wire.send(b"one")
    wire.send(b"two", to="h2")
    wire.clock.run_until(1.0)
    assert wire.refused == ["connection refused"]
    assert wire.arrived == []


class _Numbers:
    """Chance that is known: the numbers, one after the other, and 0.5 thereafter."""

    def __init__(self, *numbers: float) -> None:
        self._numbers = list(numbers)

    def random(self) -> float:
        return self._numbers.pop(0) if self._numbers else 0.5
