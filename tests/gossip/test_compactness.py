"""What members cost in memory, and what cores in one process share."""

import gc
import random
import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip import Advertisement, Claim, Incarnation, Member, Publication, Roll, Status, SwimConfig
from gossip.membership import Roster
from gossip.messages import Join, Records, Welcome
from tests.gossip.harness import CONFIG, Network, Solo, address_of, alive, left, make_swim, member, node_id

MEMBER_BYTES_MAX = 512
ENTRY_BYTES_MAX = 8
# So many claims and publications the decoder remembers, whatever they are about.
REMEMBERED = 2048


def everybody(count: int) -> list[Member]:
    """Members as they come from afar: their ids and addresses are like no others."""
    rng = random.Random(count)
    return [
        Member(
            f"{rng.getrandbits(128):032x}",
            f"10.{n // 65536}.{n // 256 % 256}.{n % 256}:7946",
            Incarnation(1, 0),
            Status.ALIVE,
        )
        for n in range(count)
    ]


def allocated_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.fixture
def traced() -> Iterable[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def learn(solo: Solo, members: Sequence[Member]) -> None:
    """A node of the cluster that is being joined tells of all its members, in pieces."""
    for start in range(0, len(members), 500):
        piece = members[start : start + 500]
        solo.hears(2, Records(tuple(Claim(known) for known in piece), ()))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("count", [2000, pytest.param(8000, marks=pytest.mark.long)])
def test_a_member_costs_a_node_less_than_half_a_kilobyte_however_many_there_are(count: int) -> None:
    solo = Solo()
    learn(solo, everybody(REMEMBERED + 1))
    solo = Solo()
    members = everybody(count)
    before = allocated_bytes()
    solo.perform(solo.swim.join(address_of(2), solo.now))
    attempt = next(message.attempt for _, message in solo.sent if isinstance(message, Join))
    solo.hears(2, Welcome(attempt, b""))
    learn(solo, members)
    # Each of them speaks and refutes a suspicion, in frames of its own.
    learn(solo, [replace(known, incarnation=Incarnation(1, 1)) for known in members])
    for n, known in enumerate(members):
        solo.swim._membership.heard(known, solo.now + n)
    assert len(solo.swim.alive()) == len(solo.swim.members()) == count + 1
    solo.forget()
    assert (allocated_bytes() - before) / count < MEMBER_BYTES_MAX


def test_a_member_that_changes_keeps_the_strings_that_stay_the_same() -> None:
    solo = Solo(knows=[2, 3])
    before = solo.swim.member(node_id(2))
    solo.hears(3, alive(2, counter=1))
    after = solo.swim.member(node_id(2))
    assert before
    assert after
    assert after.incarnation == Incarnation(1, 1)
    assert after.node is before.node
    assert after.address is before.address


@pytest.mark.long
@pytest.mark.usefixtures("traced")
def test_of_thousands_of_members_that_come_and_go_no_bytes_are_left() -> None:
    solo = Solo(config=SwimConfig(forget_after_s=600.0), knows=[2])
    solo.answering = (2,)

    def come_and_go(count: int) -> None:
        learn(solo, [alive(number).member for number in range(10, 10 + count)])
        for number in range(10, 10 + count):
            solo.hears(number, left(number))
            solo.forget()
        solo.passes(700.0)
        solo.forget()
        assert len(solo.swim.members()) == 2

    come_and_go(REMEMBERED + 1)
    before = allocated_bytes()
    come_and_go(5000)
    assert allocated_bytes() - before < 16 * 1024


@pytest.mark.usefixtures("traced")
def test_cores_of_one_process_share_what_they_know_of_a_formed_cluster() -> None:
    members = everybody(5000)
    roll = Roll(members)
    swims = [make_swim(address=known.address, node=known.node) for known in members[:10]]
    before = allocated_bytes()
    for swim in swims:
        swim.adopt(roll, 1.0)
    assert (allocated_bytes() - before) / (len(swims) * len(members)) < ENTRY_BYTES_MAX
    assert swims[0].member(members[7].node) is swims[1].member(members[7].node)


def test_who_adopts_a_roll_knows_what_it_would_have_heard() -> None:
    members = [member(number, Status.ALIVE) for number in range(1, 41)]
    published = Publication(node_id(5), Incarnation(1, 1), Advertisement(("app",), b"body"))
    told = Solo(knows=range(2, 41))
    told.hears(5, published)
    swim = make_swim(1)
    swim.adopt(Roll(members, [published]), 1.0)
    assert swim.members() == told.swim.members()
    assert swim.alive() == told.swim.alive()
    assert swim.directory.responsible("app") == (node_id(5),)
    assert swim._view.digest.total == told.swim._view.digest.total
    assert swim._view.digest.buckets == told.swim._view.digest.buckets


def test_a_cluster_that_begins_formed_has_nothing_to_tell_and_finds_who_dies() -> None:
    network = Network(seed=1)
    hosts = network.formed(40)
    network.run(10)
    assert network.frames == pytest.approx(40 * 2 * 10 / CONFIG.probe_interval_s, rel=0.01)
    assert not any(host.events for host in hosts)
    network.kill(hosts[3])
    network.wait(lambda: all(network.died_at(host, hosts[3]) for host in hosts if host.is_up), 8)
    assert hosts[3].node in hosts[3].swim.alive(), "what one of them learns changes no other"


@pytest.mark.parametrize(
    "members",
    [
        [member(2, Status.ALIVE)],
        [member(1, Status.ALIVE, epoch=2)],
        [member(1, Status.ALIVE), member(2, Status.DEAD)],
        [member(1, Status.ALIVE), member(1, Status.ALIVE)],
        [member(1, Status.ALIVE), member(2, Status.ALIVE, address=address_of(1))],
    ],
    ids=["without itself", "itself in another life", "somebody dead", "a node twice", "an address twice"],
)
def test_a_roll_that_no_cluster_could_have_is_refused(members: list[Member]) -> None:
    swim = make_swim(1)
    with pytest.raises(ValueError, match=r"roll|not alive"):
        swim.adopt(Roll(members), 1.0)
    assert swim.alive() == (node_id(1),)


def test_an_advertisement_of_somebody_who_is_not_in_the_roll_is_refused() -> None:
    with pytest.raises(ValueError, match="not a member"):
        Roll([member(1, Status.ALIVE)], [Publication(node_id(2), Incarnation(1, 0), Advertisement())])


# Rosters


class Model:
    """A roster, and what should be in it."""

    def __init__(self) -> None:
        self.nodes: set[str] = set()
        self.roster = Roster(self.nodes.__contains__)

    def toggle(self, node: str) -> None:
        if node in self.nodes:
            self.nodes.remove(node)
            self.roster.remove(node)
        else:
            self.nodes.add(node)
            self.roster.add(node)


@given(st.lists(st.integers(0, 12)), st.integers(0, 6), st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_roster_draws_different_nodes_that_are_in_it(
    steps: list[int], count: int, excluded: int, rng: random.Random
) -> None:
    model = Model()
    for step in steps:
        model.toggle(str(step))
        without = [str(number) for number in range(excluded)]
        drawn = model.roster.sample(rng, count, without=without)
        eligible = model.nodes - set(without)
        assert len(model.roster) == len(model.nodes)
        assert len(drawn) == len(set(drawn)) == min(count, len(eligible))
        assert set(drawn) <= eligible
        assert not model.nodes or model.roster.first() in model.nodes


def test_a_roster_draws_each_of_its_nodes_about_as_often() -> None:
    model, rng = Model(), random.Random(1)
    for number in [*range(30), *range(0, 30, 3), *range(0, 30, 6)]:
        model.toggle(str(number))
    drawn = [node for _ in range(5000) for node in model.roster.sample(rng, 5)]
    expected = len(drawn) / len(model.nodes)
    assert [drawn.count(node) for node in model.nodes] == pytest.approx([expected] * len(model.nodes), rel=0.15)
