"""The canonical spec: what a Compose file comes down to once everything in it has been resolved.

Immutable, plain values (``model``). Two files that mean the same give equal specs. ``encode`` gives the one byte string
of a spec (msgpack, sorted keys, defaults left out), ``decode`` accepts any bytes and gives a spec or ``SpecError``. The
same holds for the JSON form of the API (``to_json``, ``from_json``). ``changes``, ``fingerprint`` and ``scaled``
compare and vary specs.
"""

from gary.spec.changes import Action, Change, changes, scaled
from gary.spec.codec import decode, encode, fingerprint, from_json, to_json
from gary.spec.limits import REPLICAS_MAX, RESILIENCE_MAX, SERVICES_MAX, SIZE_BYTES_MAX
from gary.spec.model import (
    Constraint,
    Healthcheck,
    Mode,
    Mount,
    MountType,
    Partition,
    Port,
    Resources,
    RestartCondition,
    RestartPolicy,
    RuntimeName,
    Service,
    Spec,
    SpecError,
)

__all__ = [
    "REPLICAS_MAX",
    "RESILIENCE_MAX",
    "SERVICES_MAX",
    "SIZE_BYTES_MAX",
    "Action",
    "Change",
    "Constraint",
    "Healthcheck",
    "Mode",
    "Mount",
    "MountType",
    "Partition",
    "Port",
    "Resources",
    "RestartCondition",
    "RestartPolicy",
    "RuntimeName",
    "Service",
    "Spec",
    "SpecError",
    "changes",
    "decode",
    "encode",
    "fingerprint",
    "from_json",
    "scaled",
    "to_json",
]
