"""What a node remembers of removed deployments: which instances are dead for ever, and nothing else of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgpack

from gary.identity import DeploymentId
from gary.storage import PutRecord, Table


class Tombstones:
    """``records``: those that were durable when the agent started."""

    def __init__(self, records: Mapping[str, bytes]) -> None:
        self._instances = {id: _decode(raw) for id, raw in records.items()}

    def __contains__(self, deployment: object) -> bool:
        return deployment in self._instances

    def instances(self, deployment: DeploymentId) -> tuple[str, ...]:
        """The instances of that deployment that are known to be removed."""
        return self._instances.get(deployment, ())

    def add(self, deployment: DeploymentId, instances: Iterable[str]) -> PutRecord:
        """Remember these, too. Returns what makes it durable."""
        known = sorted({*self.instances(deployment), *instances})
        self._instances[deployment] = tuple(known)
        return PutRecord(Table.TOMBSTONE, deployment, msgpack.packb(known))


def _decode(raw: bytes) -> tuple[str, ...]:
    try:
        value = msgpack.unpackb(raw)
    except (ValueError, msgpack.UnpackException):
        return ()
    return tuple(str(one) for one in value) if isinstance(value, list) else ()
