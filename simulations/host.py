"""A virtual machine: its disk and its engine outlive its agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gary.agent import Agent
from gary.effects import Reply
from gary.identity import NodeId
from gary.runtime.memory import MemoryEngine
from gary.storage import MemoryStorage, Write
from gossip import VERSIONS, VersionRange
from gossip.transport import Credentials
from simulations.timing import Timing

WALL_S = 1_700_000_000.0
"""When virtual time began, in seconds since 1970."""
NOTHING = Credentials("", "", ())


@dataclass(eq=False)
class Request:
    """What an engine that hangs has taken and not answered. ``go_on`` is told whether the answer ``is_awaited``."""

    go_on: Callable[[bool], None]
    is_awaited: bool = True


@dataclass(eq=False)
class Host:
    """``life`` grows with each start of the agent.

    Of its disk: ``storage.failing`` makes it refuse; ``backup`` is an old copy of it; ``unwritten``: what it was given
    and does not have yet, which it will at ``written_at``. Of its engine: ``engine.go_down`` stops it; while it
    ``engine_hangs``, what it is asked waits in ``hanging``; ``engine_lies``: the chance that an answer is not true.
    ``wall_skew_s``: by how much its clock is wrong; ``drift`` lets it run fast or slow. ``credentials``: what its
    transport shows. While it ``stands_still`` its agent does nothing; ``late_s`` is how late it does everything, and
    ``late_at`` when it will have got to what has come so far. ``timers``: the tokens of those of gossip that are set.
    ``mark``: its name in a trace.
    """

    name: str
    address: str
    engine: MemoryEngine
    storage: MemoryStorage
    timing: Timing
    # What every input touches lies together: with thousands of hosts, each line of cache counts.
    agent: Agent | None = None
    life: int = 0
    stands_still: bool = False
    late_s: float = 0.0
    late_at: float = 0.0
    wall_skew_s: float = 0.0
    clock_rate: float = 1.0
    clock_ahead_s: float = 0.0
    timers: set[int] = field(default_factory=set)
    mark: bytes = field(init=False, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    version: str = "simulated"
    speaks: VersionRange = VERSIONS
    containers_max: int = 100
    vouches: bool = True
    credentials: Credentials = NOTHING
    backup: MemoryStorage | None = None
    engine_hangs: bool = False
    engine_lies: float = 0.0
    overdue: list[Callable[[], None]] = field(default_factory=list)
    waiting: list[Callable[[], None]] = field(default_factory=list)
    look_at: float | None = None
    written_at: float = 0.0
    unwritten: list[Sequence[Write]] = field(default_factory=list)
    hanging: list[Request] = field(default_factory=list)
    replies: dict[int, list[Reply]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mark = self.name.encode()

    @property
    def wall_offset_s(self) -> float:
        """What its wall clock adds to its own time to get seconds since 1970."""
        return WALL_S + self.wall_skew_s

    def local_s(self, now: float) -> float:
        """What its agent takes for ``now``: its clock may run fast or slow, and never goes back."""
        return now * self.clock_rate + self.clock_ahead_s

    def drift(self, rate: float, now: float) -> None:
        """From ``now`` on its clock does ``rate`` seconds in each."""
        self.clock_ahead_s = self.local_s(now) - now * rate
        self.clock_rate = rate

    @property
    def node(self) -> NodeId:
        assert self.agent is not None
        return self.agent.node
