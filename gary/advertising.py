"""What this node has to offer, and publishing it: the room that its promises leave, and which documents it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gary.advertisements import Profile, encode_profile
from gary.deployment import Deployment
from gary.effects import Alarm, SetAlarm
from gary.engines import Engines
from gary.epochs import CHANGES_PER_EPOCH
from gary.identity import DeploymentId, NodeId
from gary.trust.standing import Standing
from gary.volunteering import Room, requirement
from gossip import VERSIONS, Advertisement, VersionRange

ADVERTISE_S = 1.0
"""Changes that come within this time of each other are published once."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator says about this node. ``vouches``: it may hold the secret half of its cluster's root.
    ``speaks``: versions of the protocol between nodes.
    """

    name: str
    hostname: str
    labels: Mapping[str, str]
    containers_max: int = 100
    version: str = ""
    changes_per_epoch: int = CHANGES_PER_EPOCH
    vouches: bool = True
    speaks: VersionRange = VERSIONS


class Advertising:
    """``key``: the public one of this node. ``deployments`` are those that it holds, as they change; ``publish`` makes
    an advertisement known.
    """

    def __init__(
        self,
        node: NodeId,
        key: bytes,
        standing: Standing,
        settings: Settings,
        engines: Engines,
        deployments: Mapping[DeploymentId, Deployment],
        publish: Callable[[Advertisement], None],
        emit: Callable[[Sequence[SetAlarm]], None],
    ) -> None:
        self.is_draining = False
        self._node = node
        self._key = key
        self._standing = standing
        self._settings = settings
        self._engines = engines
        self._deployments = deployments
        self._publish = publish
        self._emit = emit
        self._published: Advertisement | None = None
        self._is_due = False

    def room(self) -> Room:
        """What this node has to offer now."""
        answering = self._engines.answering()
        cpus, memory = self._engines.capacity(answering)
        ports: set[tuple[int, str]] = set()
        count = 0
        for deployment in self._deployments.values():
            for service in deployment.services_kept():
                needed = requirement(service)
                cpus -= needed.cpus
                memory -= needed.memory_bytes
                ports.update(needed.ports)
                count += 1
        return Room(
            node=self._node,
            hostname=self._settings.hostname,
            labels=self._settings.labels,
            runtimes=tuple(answering),
            free_cpus=cpus,
            free_memory_bytes=memory,
            free_containers=self._settings.containers_max - count,
            ports=frozenset(ports),
            accepting=not self.is_draining,
        )

    def profile(self) -> Profile:
        room = self.room()
        cpus, memory = self._engines.capacity(self._engines.names)
        return Profile(
            name=self._settings.name,
            key=self._key,
            room=room,
            cpus=cpus,
            memory_bytes=memory,
            containers=self._settings.containers_max - room.free_containers,
            containers_max=self._settings.containers_max,
            version=self._settings.version,
            vouches=not self._standing.lacks_secret,
        )

    def publish_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._emit([SetAlarm(Alarm("advertise", "", 0), ADVERTISE_S)])

    def due(self) -> None:
        """The alarm of ``publish_soon`` went off."""
        self._is_due = False
        self.publish()

    def publish(self) -> None:
        """Publish what has changed since the last time."""
        advertisement = Advertisement(tuple(sorted(self._deployments)), encode_profile(self.profile()))
        if advertisement != self._published:
            self._published = advertisement
            self._publish(advertisement)

    def publish_anew(self) -> None:
        """Publish it to a cluster that has not heard of this node."""
        self._published = None
        self.publish()
