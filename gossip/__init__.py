"""Membership by gossip: who is there, what they publish about themselves, and bytes from node to node.

``Swim`` is the protocol without IO: inputs in, effects out. ``gossip.transport`` is what it asks of a network;
``gossip.nng`` and ``gossip.memory`` are networks, and ``gossip.testing`` is the contract suite for writing another.
"""

from gossip.config import PROFILES, SwimConfig
from gossip.directory import Advertisement, Directory, Publication
from gossip.effects import (
    AdvertisementChanged,
    CancelTimer,
    Deliver,
    Effect,
    EpochRaised,
    Forgotten,
    Heard,
    IdentityConflict,
    Joined,
    JoinFailed,
    JoinFailure,
    MarkDiffers,
    MemberChanged,
    Send,
    SetTimer,
    Timer,
    TimerKind,
)
from gossip.errors import (
    AdvertisementTooLarge,
    BadFrame,
    GossipError,
    InvalidConfig,
    NewsTooLarge,
    TransportError,
    UnknownTransport,
)
from gossip.layered import Layered
from gossip.member import Claim, Incarnation, Member, Status
from gossip.messages import VERSIONS, VersionRange
from gossip.roll import Roll
from gossip.suspicion import Evidence
from gossip.swim import Swim
from gossip.transport import Lane, Peer, Receiver, Transport, TransportConfig, TransportFactory, load_transport

__all__ = [
    "PROFILES",
    "VERSIONS",
    "Advertisement",
    "AdvertisementChanged",
    "AdvertisementTooLarge",
    "BadFrame",
    "CancelTimer",
    "Claim",
    "Deliver",
    "Directory",
    "Effect",
    "EpochRaised",
    "Evidence",
    "Forgotten",
    "GossipError",
    "Heard",
    "IdentityConflict",
    "Incarnation",
    "InvalidConfig",
    "JoinFailed",
    "JoinFailure",
    "Joined",
    "Lane",
    "Layered",
    "MarkDiffers",
    "Member",
    "MemberChanged",
    "NewsTooLarge",
    "Peer",
    "Publication",
    "Receiver",
    "Roll",
    "Send",
    "SetTimer",
    "Status",
    "Swim",
    "SwimConfig",
    "Timer",
    "TimerKind",
    "Transport",
    "TransportConfig",
    "TransportError",
    "TransportFactory",
    "UnknownTransport",
    "VersionRange",
    "load_transport",
]
