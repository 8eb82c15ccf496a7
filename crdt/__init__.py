"""A replicated document of byte registers on top of Automerge, and the exchange that keeps replicas equal.

Useful alone: it knows nothing of clocks, sockets or disks, and of peers no more than their names.
"""

from crdt.changes import ACTOR_SIZE_BYTES
from crdt.chunks import Limits
from crdt.errors import CorruptReplica, CrdtError, LibraryFailed, MalformedChange, MalformedMessage, WriteRefused
from crdt.exchange import Exchange, ExchangeConfig, Outgoing, Received
from crdt.history import Permit
from crdt.messages import MessageLimits
from crdt.replica import Applied, Refusal, Replica

__all__ = [
    "ACTOR_SIZE_BYTES",
    "Applied",
    "CorruptReplica",
    "CrdtError",
    "Exchange",
    "ExchangeConfig",
    "LibraryFailed",
    "Limits",
    "MalformedChange",
    "MalformedMessage",
    "MessageLimits",
    "Outgoing",
    "Permit",
    "Received",
    "Refusal",
    "Replica",
    "WriteRefused",
]
