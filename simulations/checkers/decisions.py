"""Rule 4: decisions are pure functions of the document and of who is alive."""

from __future__ import annotations

from collections.abc import Mapping

from gary.assignment import View, callers, keepings, live_members, wanted_slots, witnesses_needed
from gary.identity import DeploymentId
from gary.state import State
from simulations.checkers.base import Checker
from simulations.cluster import Cluster
from simulations.host import Host
from simulations.sight import Edition

Known = tuple[object, ...]
"""All that a decision may depend on, but who decides."""


class Decisions(Checker):
    """Members that hold equal documents and see the same nodes have to conclude the same, whatever else they know."""

    name = "decisions"
    about = "members that know the same decide the same"

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[str, tuple[Edition, int]] = {}
        self._decided: dict[tuple[str, DeploymentId], tuple[Known, object]] = {}

    def look(self, cluster: Cluster) -> None:
        decided: dict[Known, tuple[str, object]] = {}
        for host in cluster.live():
            assert host.agent is not None
            for id, deployment in host.agent.deployments.items():
                state = deployment.state
                if state.spec is None:
                    continue
                view = host.agent.view(state)
                document = deployment.document
                known = (id, document.epoch, document.replica.heads(), self._seen_by(host), *_else(view))
                decision = self._decision_of(host, id, known, state, view)
                other, theirs = decided.setdefault(known, (host.name, decision))
                if theirs != decision:
                    self.found(cluster, f"{host.name} and {other} know the same of {state.name} and decide differently")

    def _decision_of(self, host: Host, id: DeploymentId, known: Known, state: State, view: View) -> object:
        """What follows there from what is known; found out anew when that has changed."""
        decided = self._decided.get((host.name, id))
        if decided is None or decided[0] != known:
            decided = self._decided[host.name, id] = known, _decision(state, view)
        return decided[1]

    def _seen_by(self, host: Host) -> int:
        """A number for who is alive, as ``host`` sees it; found out anew when that has changed."""
        assert host.agent is not None
        edition, seen = Edition.of(host.agent.alive), self._alive.get(host.name)
        if seen is None or seen[0] != edition:
            seen = self._alive[host.name] = edition, hash(frozenset(edition.table.items()))
        return seen[1]


def _else(view: View) -> Known:
    """What else there is in it."""
    return view.left, _items(view.eligible), view.draining


def _items(mapping: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple(sorted(mapping.items()))


def _decision(state: State, view: View) -> object:
    return (
        wanted_slots(state, view),
        keepings(state, view),
        live_members(state, view),
        witnesses_needed(state, view),
        tuple(tuple(callers(state, view, node)) for node in ("", *state.members)),
    )
