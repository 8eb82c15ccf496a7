"""What a node publishes about itself to the whole cluster. Coarse: it changes seldom, and offers are exact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import msgpack

from gary.messages import bytes_from, room_fields, room_from
from gary.volunteering import Room

MEMORY_STEP_BYTES = 256 * 1024 * 1024
CPU_STEP = 0.5
EXACT_CONTAINERS = 8
PROTOCOL = 1
_PROFILES_REMEMBERED_MAX = 2048


@dataclass(frozen=True, slots=True)
class Profile:
    """``key``: the public key of the node, of which its id is a hash. ``cell`` is for clusters above about 10,000
    nodes; empty until then. ``vouches``: it holds the secret half of the cluster's root, or of one before that gets it
    the new one.
    """

    name: str
    key: bytes
    room: Room
    cpus: float
    memory_bytes: int
    containers: int
    containers_max: int
    version: str
    cell: str = ""
    vouches: bool = False
    protocol: int = PROTOCOL


def encode_profile(profile: Profile) -> bytes:
    packed: bytes = msgpack.packb(
        [
            profile.protocol,
            profile.name,
            profile.key,
            room_fields(_coarse(profile.room)),
            profile.cpus,
            profile.memory_bytes,
            _step(profile.containers),
            profile.containers_max,
            profile.version,
            profile.cell,
            profile.vouches,
        ]
    )
    return packed


@lru_cache(_PROFILES_REMEMBERED_MAX)
def decode_profile(body: bytes) -> Profile | None:
    """The profile in ``body``; None for anything that is none."""
    try:
        fields = msgpack.unpackb(body)
        protocol, name, key, room, cpus, memory, containers, containers_max, version, cell, vouches = fields[:11]
        return Profile(
            str(name)[:64],
            bytes_from(key),
            room_from(room),
            float(cpus),
            int(memory),
            int(containers),
            int(containers_max),
            str(version)[:64],
            str(cell)[:64],
            bool(vouches),
            int(protocol),
        )
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, msgpack.UnpackException):
        return None


def _coarse(room: Room) -> Room:
    return replace(
        room,
        free_cpus=room.free_cpus // CPU_STEP * CPU_STEP,
        free_memory_bytes=room.free_memory_bytes // MEMORY_STEP_BYTES * MEMORY_STEP_BYTES,
        free_containers=_step(room.free_containers),
        ports=frozenset(),
    )


def _step(count: int) -> int:
    """Exact while small, then in steps of about a quarter."""
    if count <= EXACT_CONTAINERS:
        return count
    step = 1 << (count.bit_length() - 3)
    return count // step * step
