"""Rule 2: no bytes of a document come to a node that is not its member."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gary.effects import Effect, Notify, Reply
from gary.identity import DeploymentId
from gary.messages import Invitation, Snapshot, Sync
from gary.storage import AppendChanges, DropDocument, PutSnapshot, Write
from gossip import Lane, Send
from gossip.transport import GUEST
from simulations.checkers.base import Checker
from simulations.checkers.books import Books
from simulations.checkers.frames import carried, messages
from simulations.cluster import Cluster
from simulations.host import Host

START_SIZE = 4


class Canaries:
    """Words that are looked for in everything. Nearly always none is there, and most begin alike: so how they begin is
    looked for first, which is much faster in large frames.
    """

    def __init__(self, words: Iterable[bytes]) -> None:
        self.words = sorted(set(words))
        self._starts = sorted({word[:START_SIZE] for word in self.words})
        self._pattern = re.compile(b"|".join(map(re.escape, self.words)) if self.words else b"(?!)")

    def found_in(self, data: bytes) -> set[bytes]:
        for start in self._starts:
            if start in data:
                return set(self._pattern.findall(data))
        return set()


class Scope(Checker):
    """``canaries``: bytes of documents, which are looked for in every message, on every disk, in every answer."""

    name = "scope"
    about = "no bytes of a document come to a node that no member has named"
    watches = (Send, Reply, Notify)

    def __init__(self, books: Books, canaries: Iterable[bytes]) -> None:
        super().__init__()
        self._books = books
        self._canaries = Canaries(canaries)
        self._documents: dict[bytes, set[DeploymentId]] = {word: set() for word in self._canaries.words}

    def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
        if isinstance(effect, Send):  # Nearly all are that, and patterns are slow.
            for word in self._canaries.found_in(effect.frame):
                self._shows(cluster, host, effect.peer.node, word)
            if effect.lane is Lane.BULK and self._books.durable and not effect.peer.node.startswith(GUEST):
                self._sends(cluster, host, effect.peer.node, effect.frame)
            return
        match effect:
            case Reply(item=item, error=error):
                self._tells(cluster, host, "answers at its socket", f"{item} {error}")
            case Notify(event):
                self._tells(cluster, host, "says in an event", repr(event))
            case _:
                pass

    def wrote(self, cluster: Cluster, host: Host, writes: Sequence[Write]) -> None:
        for write in writes:
            match write:
                case AppendChanges(id, _) | PutSnapshot(id, _):
                    self._keeps(cluster, host, id)
                case DropDocument():
                    pass
                case _:
                    for word in self._canaries.found_in(repr(write).encode()):
                        self.found(cluster, f"{host.name} keeps {word!r} outside of any document")

    def _shows(self, cluster: Cluster, host: Host, to: str, word: bytes) -> None:
        if to.startswith(GUEST):
            self.found(cluster, f"{host.name} tells a guest of a deployment")
        elif not self._may_see(host, to, word):
            self.found(cluster, f"a frame from {host.name} shows {word!r} to {to[:6]}, a node that is no member")

    def _may_see(self, host: Host, node: str, word: bytes) -> bool:
        """Whether a member of a document that has ``word`` has named ``node``; ``host`` may hold some of them."""
        documents = self._documents[word]
        for id, deployment in host.agent.deployments.items() if host.agent is not None else ():
            if id not in documents and word in repr(deployment.state.specs).encode():
                documents.add(id)
            self._books.name_members(host, id)
        return any(node in self._books.named.get(id, ()) for id in documents)

    def _sends(self, cluster: Cluster, host: Host, to: str, frame: bytes) -> None:
        for message in messages(frame):
            match message:
                case Invitation(_, id) | Snapshot(id) | Sync(id):
                    self._books.name_members(host, id)
                    if to not in self._books.named.get(id, ()) and carried(message):
                        self.found(
                            cluster, f"{host.name} sends document {id[:6]} to {to[:6]}, whom no member has named"
                        )

    def _keeps(self, cluster: Cluster, host: Host, id: DeploymentId) -> None:
        if host.agent is None or id not in host.agent.deployments:
            return
        founder = id not in self._books.named
        self._books.name_members(host, id)
        if not founder and host.node not in self._books.named[id]:
            self.found(cluster, f"{host.name} holds document {id[:6]} and no member has named it")

    def _tells(self, cluster: Cluster, host: Host, how: str, said: str) -> None:
        for word in self._canaries.found_in(said.encode()):
            if not self._may_see(host, host.node, word):
                self.found(cluster, f"what {host.name} {how} shows {word!r}, and it is no member")
