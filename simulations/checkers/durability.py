"""Rule 3: a promise, a spec, a removal is on disk before any other node or the user hears of it."""

from __future__ import annotations

from gary.effects import Effect, StartContainer
from gary.identity import DeploymentId, Slot
from gary.messages import Invitation, LedgerStatements, Message, Snapshot, Sync
from gary.state import PromiseState
from gary.storage import Table
from gossip import Lane, Send
from gossip.transport import GUEST
from simulations.checkers.base import Checker
from simulations.checkers.books import Books
from simulations.checkers.frames import carried, messages
from simulations.cluster import Cluster
from simulations.host import Host


class Durability(Checker):
    """No change leaves a host whose disk does not have it; no container starts for a promise that is not on it."""

    name = "durability"
    about = "what is told, or acted upon, is on the teller's disk"
    watches = (Send, StartContainer)

    def __init__(self, books: Books) -> None:
        super().__init__()
        self._books = books

    def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
        if isinstance(effect, Send):
            if effect.lane is Lane.BULK and not effect.peer.node.startswith(GUEST):
                for message in messages(effect.frame):
                    self._tells(cluster, host, message)
        elif isinstance(effect, StartContainer):
            self._starts(cluster, host, effect.request.labels.deployment, effect.request.labels.slot)

    def _tells(self, cluster: Cluster, host: Host, message: Message) -> None:
        match message:
            case Invitation(_, id) | Snapshot(id) | Sync(id):
                durable = self._books.durable.get((host.name, id), set())
                unwritten = sum(change not in durable for change in carried(message))
                if unwritten:
                    self.found(cluster, f"{host.name} tells {unwritten} changes that are not on its disk")
            case LedgerStatements(statements):
                untold = set(statements) - set(host.storage.load().records[Table.TRUST].values())
                if untold:
                    self.found(cluster, f"{host.name} tells {len(untold)} statements that are not on its disk")
            case _:
                pass

    def _starts(self, cluster: Cluster, host: Host, id: DeploymentId, slot: Slot) -> None:
        state = self._books.on_disk(host, id)
        mine = None if state is None else state.promise(host.node, slot)
        if mine is None or mine.state is PromiseState.WITHDRAWN:
            self.found(cluster, f"{host.name} starts {slot} without a promise on its disk")
