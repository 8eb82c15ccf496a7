"""The cluster as this node sees it: who is alive, since when others are not, and what each says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gary.advertisements import Profile
from gary.advertising import Advertising
from gary.assignment import View
from gary.engines import Engines
from gary.host import Change
from gary.identity import NodeId
from gary.spec import Mode, Service
from gary.state import PromiseState, State
from gary.volunteering import Room, supports, unmet_constraint
from gossip import Layered, Status

VANISHED_TOGETHER_S = 15.0


class Cluster:
    """All nodes, this one (``node``) among them.

    ``alive``: the boot epoch of every node that this one holds alive, itself included, in the order in which they came.
    """

    def __init__(
        self,
        node: NodeId,
        epoch: int,
        engines: Engines,
        advertising: Advertising,
        tell: Callable[[str, str], None],
    ) -> None:
        self.alive: Layered[NodeId, int] = Layered()
        self.alive[node] = epoch
        self._node = node
        self._engines = engines
        self._advertising = advertising
        self._tell = tell
        self._started_at = 0.0
        self._left: frozenset[NodeId] = frozenset()
        self._expelled: frozenset[NodeId] = frozenset()
        self._missing: dict[NodeId, float] = {}
        self._vanished: dict[NodeId, float] = {}
        self._profiles: Layered[NodeId, Profile] = Layered()
        self._draining: frozenset[NodeId] = frozenset()
        self._unnamed: set[NodeId] = set()

    # What comes in

    def start(self, known: Iterable[NodeId], expelled: Iterable[NodeId], now: float) -> None:
        """``known``: the nodes that were there before this one's restart. They are missing until they are heard of.
        ``expelled``: those that are out for ever.
        """
        self._started_at = now
        for node in expelled:
            self.expel(node)
        self._missing = dict.fromkeys(known, now)
        self._vanished = dict(self._missing)

    def adopt(self, epochs: dict[NodeId, int], profiles: dict[NodeId, Profile]) -> None:
        """Everybody is alive and has introduced itself. Both are shared, and must not change from now on."""
        self.alive, self._profiles = Layered(epochs), Layered(profiles)

    def live_in(self, epoch: int) -> None:
        """This node's own boot epoch is another one from now on."""
        self.alive[self._node] = epoch

    def update(self, node: NodeId, status: Status, epoch: int, now: float) -> Change:
        """What gossip says of another node."""
        before = self.alive.get(node)
        if (status is Status.LEFT) is not (node in self._left):
            self._left ^= {node}
        if status in (Status.ALIVE, Status.SUSPECT):
            self._missing.pop(node, None)
            if before == epoch:
                return Change.NONE
            self.alive[node] = epoch
            return Change.CAME
        was_alive = self.alive.pop(node) is not None
        self._missing[node] = self._vanished[node] = now if was_alive else self._missing.get(node, now)
        return Change.WENT if was_alive else Change.NONE

    def introduced(self, node: NodeId, profile: Profile) -> bool:
        """What another node says of itself. Whether what it has to offer changed."""
        before = self._profiles.get(node)
        self._profiles[node] = profile
        if profile.room.accepting is (node in self._draining):
            self._draining ^= {node}
        if node in self._unnamed:
            self._unnamed.discard(node)
            self._tell("member", f"{profile.name} is {Status.ALIVE.value}")
        return before is None or before.room != profile.room

    def expel(self, node: NodeId) -> None:
        """It is out for ever; nobody waits for what it has promised."""
        self._expelled |= {node}
        self._left |= {node}

    def forget(self, node: NodeId) -> None:
        self._missing.pop(node, None)
        self._vanished.pop(node, None)
        self._profiles.pop(node)
        self._draining -= {node}

    def tell_of(self, node: NodeId, status: Status, before: Status | None) -> None:
        """Say who came and who went. A node that has not introduced itself yet is told of when it has."""
        is_news = before is not status and status is not Status.SUSPECT
        if not is_news or (before is Status.SUSPECT and status is Status.ALIVE):
            return
        if status is Status.ALIVE and node not in self._profiles:
            self._unnamed.add(node)
            return
        self._unnamed.discard(node)
        self._tell("member", f"{self.display_name(node)} is {status.value}")

    # What others ask

    @property
    def left(self) -> frozenset[NodeId]:
        """Who has gone on purpose."""
        return self._left

    @property
    def expelled(self) -> frozenset[NodeId]:
        return self._expelled

    @property
    def is_isolated(self) -> bool:
        return len(self.alive) == 1

    def missing_since_s(self, node: NodeId) -> float:
        """Since when ``node`` has not been alive; the agent's start if it was never seen."""
        return self._missing.get(node, self._started_at)

    def vanished_with(self, node: NodeId) -> frozenset[NodeId]:
        """``node`` and all that stopped being alive at about the same time, whether they have come back or not."""
        at = self._vanished.get(node, self._started_at)
        times = ((other, since) for other, since in self._vanished.items() if other not in self._left)
        return frozenset(other for other, since in times if abs(since - at) <= VANISHED_TOGETHER_S) | {node}

    def profile(self, node: NodeId) -> Profile | None:
        return self._advertising.profile() if node == self._node else self._profiles.get(node)

    def advertised(self, node: NodeId) -> Room | None:
        """What another node last advertised."""
        profile = self._profiles.get(node)
        return None if profile is None else profile.room

    def vouchers(self) -> list[NodeId]:
        """The other live nodes that say that they vouch for the cluster's root, or will soon if it is new; sorted."""
        others = ((node, self._profiles.get(node)) for node in sorted(self.alive) if node != self._node)
        return [node for node, profile in others if profile is not None and profile.vouches]

    def vouchers_away(self) -> list[NodeId]:
        """The nodes that have not left, are not alive or have not introduced themselves yet, and may vouch: those that
        did when they were there, and those of which this node, since its own start, has not heard.
        """
        unheard = (node for node in self.alive if node != self._node and node not in self._profiles)
        away = [node for node in self._missing if node not in self.alive and node not in self._left]
        profiles = ((node, self._profiles.get(node)) for node in sorted([*unheard, *away]))
        return [node for node, profile in profiles if profile is None or profile.vouches]

    def display_name(self, node: NodeId) -> str:
        profile = self.profile(node)
        return node[:8] if profile is None else profile.name

    def view(self, state: State) -> View:
        """The cluster as the decisions about one deployment see it."""
        eligible = {
            service.name: tuple(sorted(node for node in self.alive if self._is_eligible(node, service, state)))
            for service in state.services.values()
            if service.mode is Mode.GLOBAL
        }
        draining = self._draining | {self._node} if self._advertising.is_draining else self._draining
        return View(self._node, self.alive, self._left, eligible, draining)

    def _is_eligible(self, node: NodeId, service: Service, state: State) -> bool:
        """Whether ``node`` ought to run the global service. An engine that is away takes no slot from its keeper."""
        room = self._advertising.room() if node == self._node else self.advertised(node)
        if room is None or not room.accepting or unmet_constraint(service.constraints, room):
            return False
        kept = state.promise(node, f"{service.name}/{node}")
        is_kept = kept is not None and kept.state is not PromiseState.WITHDRAWN
        has_engine = node != self._node or self._engines.runtime_for(service) is not None
        return (is_kept and has_engine) or supports(service.runtime, room)
