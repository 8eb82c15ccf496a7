"""After all faults: each deployment is whole, its members agree, and there are enough of them and no crowd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gary.assignment import wanted_slots
from gary.identity import DeploymentId, Slot
from gary.runtime.base import Container, ContainerState
from gary.state import PromiseState, Role, State
from simulations.checkers.base import Checker
from simulations.checkers.books import Books
from simulations.checkers.membership import expelled, staying
from simulations.cluster import Cluster
from simulations.host import Host

Held = Mapping[DeploymentId, Mapping[str, State]]
"""What the staying hosts hold of each deployment, by the hosts' names."""


def held(cluster: Cluster) -> Held:
    found: dict[DeploymentId, dict[str, State]] = {}
    for host in staying(cluster):
        assert host.agent is not None
        for id, deployment in host.agent.deployments.items():
            found.setdefault(id, {})[host.name] = deployment.state
    return dict(sorted(found.items()))


class Agreement(Checker):
    name = "agreement"
    about = "the members of a deployment hold equal documents, in mind and on disk, and none of one that was removed"

    def judge(self, cluster: Cluster) -> Iterator[str]:
        heads: dict[DeploymentId, set[tuple[bytes, ...]]] = {}
        for host in staying(cluster):
            assert host.agent is not None
            for id, deployment in host.agent.deployments.items():
                heads.setdefault(id, set()).add(deployment.document.replica.heads())
            on_disk = set(host.storage.load().documents)
            if on_disk != set(host.agent.deployments):
                yield f"{host.name} keeps {len(on_disk)} documents on disk and {len(host.agent.deployments)} in mind"
        for id, states in held(cluster).items():
            if len(heads[id]) > 1:
                yield f"the members of {id[:6]} hold {len(heads[id])} different documents"
            if next(iter(states.values())).spec is None:
                yield f"the removed deployment {id[:6]} is still held by {', '.join(states)}"


class Wholeness(Checker):
    name = "wholeness"
    about = "every wanted slot runs exactly once, and nothing else runs that anybody could know of"

    def __init__(self, books: Books | None = None) -> None:
        super().__init__()
        self._books = books

    def judge(self, cluster: Cluster) -> Iterator[str]:
        running: dict[DeploymentId, dict[Slot, list[str]]] = {}
        known: set[DeploymentId] = set()
        for host, container in _containers(cluster):
            if self._is_forgotten(host, container):
                continue
            known.add(container.labels.deployment)
            if container.state is ContainerState.RUNNING:
                where = running.setdefault(container.labels.deployment, {}).setdefault(container.labels.slot, [])
                where.append(host.name)
        of = held(cluster)
        for id, states in of.items():
            yield from _wrong_slots(_wanted(cluster, states), running.get(id, {}))
        for id in sorted(known - set(of)):
            yield f"containers of {id[:6]} run, and nobody holds its document"

    def _is_forgotten(self, host: Host, container: Container) -> bool:
        """Whether its host has lost what it knew of it, and no disk anywhere knows what it is of: it has to run on."""
        if self._books is None or not host.storage.losses_count:
            return False
        labels = container.labels
        return not self._books.remember(labels.deployment, labels.generation.partition(".")[0])


class Promises(Checker):
    name = "promises"
    about = "each wanted slot is promised by one live node, which says that it is healthy"

    def judge(self, cluster: Cluster) -> Iterator[str]:
        live = {host.node for host in staying(cluster)}
        for states in held(cluster).values():
            state = next(iter(states.values()))
            for slot in _wanted(cluster, states):
                standing = (p for p in state.standing.get(slot, ()) if p.node in live and not state.is_gone(p.node))
                said = [promise.state.value for promise in standing]
                if said != [PromiseState.HEALTHY]:
                    yield f"of {slot} the document says: {', '.join(said) or 'nothing'}"


class Members(Checker):
    name = "members"
    about = "each deployment has as many members as it needs and no more, and they are those that it names"

    def judge(self, cluster: Cluster) -> Iterator[str]:
        live = {host.node: host.name for host in staying(cluster)}
        for states in held(cluster).values():
            state = next(iter(states.values()))
            if state.spec is None:
                continue
            promisers = {p.node for p in state.promises if p.state is not PromiseState.WITHDRAWN}
            runners = {node for node in promisers if not state.is_gone(node)}
            guards = max(len(runners & set(live)), min(state.spec.resilience, len(live)))
            if len(states) != guards:
                yield f"{state.name} has {len(states)} members ({', '.join(states)}), and {guards} are enough"
            stated = {node for node, member in state.members.items() if member.role is Role.MEMBER and node in live}
            if {live[node] for node in stated} != set(states):
                yield f"{state.name} names other members than those that hold it"


def _containers(cluster: Cluster) -> Iterator[tuple[Host, Container]]:
    out = expelled(cluster)
    for host in cluster.hosts:
        if host.agent is None or host.node not in out:
            for container in host.engine.present(cluster.clock.now):
                yield host, container


def _wanted(cluster: Cluster, states: Mapping[str, State]) -> Sequence[Slot]:
    name, state = next(iter(states.items()))
    agent = next(host.agent for host in cluster.hosts if host.name == name)
    assert agent is not None
    return wanted_slots(state, agent.view(state)) if state.spec is not None else ()


def _wrong_slots(wanted: Sequence[Slot], running: Mapping[Slot, Sequence[str]]) -> Iterator[str]:
    for slot in sorted({*wanted, *running}):
        where = running.get(slot, ())
        if slot not in wanted:
            yield f"{slot} runs on {', '.join(where)} and is not wanted"
        elif len(where) != 1:
            yield f"{slot} runs {len(where)} times ({', '.join(where)})"
