"""The cluster as one node sees it: what is told of whom, when, and who counts as alive, missing or draining."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from gary.advertisements import Profile
from gary.advertising import Advertising, Settings
from gary.cluster import Cluster
from gary.engines import Engines
from gary.host import Change
from gary.identity import NodeId
from gary.spec import Mode
from gary.trust.keys import KeyPair
from gossip import Status
from tests.gary.facts import G1, A, B, C, room, service, spec, state
from tests.gary.trust.standings import standing_of

ALIVE, SUSPECT, DEAD, LEFT = Status.ALIVE, Status.SUSPECT, Status.DEAD, Status.LEFT


def profile(node: NodeId, name: str, **fields: object) -> Profile:
    return Profile(name, b"", room(node, **fields), 4.0, 1 << 30, 0, 100, "")


@dataclass
class Seen:
    """What node A sees; ``advertising`` is its own."""

    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        engines = Engines((), lambda: 1, lambda kind, message: None)
        settings, standing = Settings("a", "host-a", {}), standing_of(KeyPair(b"a" * 32))
        self.advertising = Advertising(
            A, b"", standing, settings, engines, {}, lambda advertisement: None, lambda effects: None
        )
        self.cluster = Cluster(A, 1, engines, self.advertising, lambda kind, message: self.told.append(message))
        self.cluster.start((B,), (), 10.0)
        self._statuses: dict[NodeId, Status] = {}

    def news(self, node: NodeId, status: Status, now: float, epoch: int = 1) -> Change:
        change = self.cluster.update(node, status, epoch, now)
        self.cluster.tell_of(node, status, self._statuses.get(node))
        self._statuses[node] = status
        return change


def test_only_coming_going_and_restarting_are_a_change() -> None:
    seen = Seen()
    assert seen.news(B, ALIVE, 11.0) is Change.CAME
    assert seen.news(B, SUSPECT, 12.0) is Change.NONE
    assert seen.news(B, ALIVE, 13.0) is Change.NONE
    assert seen.news(B, ALIVE, 14.0, epoch=2) is Change.CAME
    assert dict(seen.cluster.alive.items()) == {A: 1, B: 2}
    assert seen.news(B, DEAD, 15.0) is Change.WENT
    assert seen.news(B, LEFT, 16.0) is Change.NONE
    assert dict(seen.cluster.alive.items()) == {A: 1}


def test_a_node_is_missing_since_it_went_or_since_this_one_started() -> None:
    seen = Seen()
    assert seen.cluster.missing_since_s(B) == seen.cluster.missing_since_s(C) == 10.0
    seen.news(B, ALIVE, 11.0)
    seen.news(B, DEAD, 20.0)
    seen.news(B, DEAD, 30.0)
    assert seen.cluster.missing_since_s(B) == 20.0


@pytest.mark.parametrize("is_introduced_first", [True, False])
def test_a_node_that_came_is_told_of_once_and_by_its_name(is_introduced_first: bool) -> None:
    seen = Seen()
    if is_introduced_first:
        seen.cluster.introduced(B, profile(B, "rack1-b"))
    seen.news(B, ALIVE, 11.0)
    seen.cluster.introduced(B, profile(B, "rack1-b"))
    seen.news(B, SUSPECT, 12.0)
    seen.news(B, ALIVE, 13.0)
    seen.news(B, DEAD, 14.0)
    assert seen.told == ["rack1-b is alive", "rack1-b is dead"]


def test_a_node_that_went_before_it_introduced_itself_is_told_of_by_its_id() -> None:
    seen = Seen()
    seen.news(B, ALIVE, 11.0)
    seen.news(B, DEAD, 12.0)
    seen.cluster.introduced(B, profile(B, "rack1-b"))
    assert seen.told == [f"{B[:8]} is dead"]


def test_only_another_room_is_news_and_draining_is_seen_by_both_sides() -> None:
    seen = Seen()
    seen.news(B, ALIVE, 11.0)
    assert seen.cluster.introduced(B, profile(B, "b"))
    assert not seen.cluster.introduced(B, replace(profile(B, "b"), containers=7))
    assert seen.cluster.introduced(B, profile(B, "b", accepting=False))
    assert seen.cluster.view(state()).draining == {B}
    seen.advertising.is_draining = True
    assert seen.cluster.view(state()).draining == {A, B}
    seen.cluster.introduced(B, profile(B, "b"))
    assert seen.cluster.view(state()).draining == {A}
    seen.cluster.introduced(B, profile(B, "b", accepting=False))
    seen.cluster.forget(B)
    assert seen.cluster.view(state()).draining == {A}
    assert seen.cluster.advertised(B) is None


def test_a_global_service_is_for_nodes_that_introduced_themselves_and_have_an_engine_for_it() -> None:
    seen = Seen()
    everywhere = state(specs={G1: spec(service(mode=Mode.GLOBAL))})
    for node in (B, C):
        seen.news(node, ALIVE, 11.0)
    assert seen.cluster.view(everywhere).eligible == {"web": ()}
    seen.cluster.introduced(B, profile(B, "b"))
    seen.cluster.introduced(C, profile(C, "c", runtimes=("process",)))
    assert seen.cluster.view(everywhere).eligible == {"web": (B,)}
