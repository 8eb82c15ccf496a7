"""Frames and messages: how the protocol looks on the wire.

A frame is msgpack ``[version, cluster, sender, [message, ...], highest]`` and a message is ``[kind, field, ...]``. This
outer shape holds for every version to come: also who cannot read a frame learns up to which version its sender speaks.
Within a version fields are only ever added at the end: unknown trailing fields and unknown kinds are skipped. Node ids
travel as 16 raw bytes, incarnations as two integers. Whatever is not of this shape is a ``BadFrame``; nothing else
leaves the decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple

import msgpack

from gossip.directory import NEVER, Advertisement, Publication
from gossip.errors import BadFrame
from gossip.member import DOWN_FOR_S_MAX, INCARNATION_MAX, STATUS_BY_RANK, Claim, Incarnation, Member


class VersionRange(NamedTuple):
    """The versions of the protocol that a node speaks, both included."""

    lowest: int
    highest: int


VERSIONS: Final = VersionRange(1, 1)
VERSION_MAX: Final = 127
CLUSTER_SIZE_BYTES: Final = 16
NODE_SIZE_BYTES: Final = 16
HASH_SIZE_BYTES: Final = 8
ADDRESS_LENGTH_MAX: Final = 300
ACCUSERS_MAX: Final = 8
NAMES_MAX: Final = 4096
# The decoder reserves room for an array as soon as it reads its length, at every depth: this bounds the sum.
ARRAY_LENGTH_MAX: Final = 8192
_INTEGER_MAX: Final = 2**63 - 1
_NEWS_REMEMBERED_MAX: Final = 2048
_INCARNATIONS_REMEMBERED_MAX: Final = 1024
_REMEMBERED_NAMES_MAX: Final = 4
_REMEMBERED_BODY_SIZE_BYTES_MAX: Final = 512


@dataclass(slots=True, init=False, unsafe_hash=True)
class Ping:
    """Are you there? Carries who asks (address and incarnation) and the hash of all that it knows.

    ``mark``: what the application shows in every ping and ack (``Swim``); 0 takes no bytes.
    """

    sequence: Final[int]
    digest: Final[int]
    address: Final[str]
    incarnation: Final[Incarnation]
    mark: Final[int]

    def __init__(self, sequence: int, digest: int, address: str, incarnation: Incarnation, mark: int = 0) -> None:
        self.sequence = sequence
        self.digest = digest
        self.address = address
        self.incarnation = incarnation
        self.mark = mark


@dataclass(slots=True, init=False, unsafe_hash=True)
class Ack:
    """Yes, or: the one you asked me to ping is. ``digest`` and ``mark`` are the sender's own, as in a ping."""

    sequence: Final[int]
    digest: Final[int]
    mark: Final[int]

    def __init__(self, sequence: int, digest: int, mark: int = 0) -> None:
        self.sequence = sequence
        self.digest = digest
        self.mark = mark


@dataclass(frozen=True, slots=True)
class PingRequest:
    """Ping ``target`` for me."""

    sequence: int
    target: str


@dataclass(frozen=True, slots=True)
class Nack:
    """I am here, and the one you asked me to ping has not answered."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Buckets:
    """Anti-entropy, first: one hash for every bucket of node ids."""

    hashes: tuple[int, ...]


@dataclass(slots=True, init=False, unsafe_hash=True)
class Version:
    """How new the knowledge about one node is. ``rank`` is that of its status."""

    node: Final[str]
    incarnation: Final[Incarnation]
    rank: Final[int]
    published: Final[Incarnation]

    def __init__(self, node: str, incarnation: Incarnation, rank: int, published: Incarnation) -> None:
        self.node = node
        self.incarnation = incarnation
        self.rank = rank
        self.published = published


@dataclass(frozen=True, slots=True)
class Versions:
    """Anti-entropy, second: all that is known in the buckets that differ, as versions."""

    buckets: tuple[int, ...]
    versions: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Anti-entropy, third: send me what you know about these."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Records:
    """Anti-entropy, last: knowledge as it is held, not news. Another's "dead" in it only raises a suspicion."""

    claims: tuple[Claim, ...]
    publications: tuple[Publication, ...]


@dataclass(frozen=True, slots=True)
class Join:
    """Let me in. ``attempt`` is random, and comes back with the answer."""

    attempt: int
    address: str
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class Welcome:
    """You are in; the cluster is the one in the frame's head."""

    attempt: int
    welcome: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    """You cannot come in. ``reason`` is one of ``version``, ``identity``, ``leaving``, ``full``."""

    attempt: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes of the application."""

    body: bytes


@dataclass(frozen=True, slots=True)
class News:
    """Bytes of the application for every node of the cluster, passed on by each to whom they are new."""

    body: bytes


Message = (
    Ping
    | Ack
    | PingRequest
    | Nack
    | Claim
    | Publication
    | Buckets
    | Versions
    | Wanted
    | Records
    | Join
    | Welcome
    | Refuse
    | Payload
    | News
)


@dataclass(slots=True, init=False, unsafe_hash=True)
class Frame:
    """A decoded frame. ``highest``: the highest version that its sender speaks.

    Of a ``version`` that is not spoken here, no messages are known. ``skipped`` counts messages of unknown kinds.
    """

    version: Final[int]
    cluster: Final[bytes]
    sender: Final[str]
    messages: Final[tuple[Message, ...]]
    highest: Final[int]
    skipped: Final[int]

    def __init__(
        self, version: int, cluster: bytes, sender: str, messages: tuple[Message, ...], highest: int, skipped: int = 0
    ) -> None:
        self.version = version
        self.cluster = cluster
        self.sender = sender
        self.messages = messages
        self.highest = highest
        self.skipped = skipped


# Encoding. Messages are encoded one by one, so that news is encoded once however often it is sent. One packer serves
# all: it keeps nothing from one message to the next, and making one takes longer than packing.
_pack: Final = msgpack.Packer().pack
_unpack: Final = msgpack.unpackb
_BYTES: Final = tuple(bytes((value,)) for value in range(256))
_HASH: Final = Struct(">Q")
_pack_hash: Final = _HASH.pack
_unpack_hash: Final = _HASH.unpack


def encode(message: Message) -> bytes:
    """One message as it stands in a frame."""
    kind, fields_of = _ENCODERS[type(message)]
    fields = fields_of(message)
    fields.insert(0, kind)
    packed: bytes = _pack(fields)
    return packed


def frame_head(cluster: bytes, sender: str, version: int = VERSIONS.highest) -> bytes:
    """Everything of a frame that comes before its messages."""
    head: bytes = msgpack.packb([version, cluster, bytes.fromhex(sender), None, None])
    return head[:-2]


def frame(head: bytes, messages: Sequence[bytes], highest: int = VERSIONS.highest) -> bytes:
    """A frame from its head and encoded messages, at most ``ARRAY_LENGTH_MAX``."""
    count = len(messages)
    assert count <= ARRAY_LENGTH_MAX
    prefix = _BYTES[0x90 | count] if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return b"".join([head, prefix, *messages, _BYTES[highest]])


def _encode_ping(ping: Ping) -> list[Any]:
    epoch, counter = ping.incarnation
    fields = [ping.sequence, _encode_hash(ping.digest), ping.address, epoch, counter]
    if ping.mark:
        fields.append(_encode_hash(ping.mark))
    return fields


def _encode_ack(ack: Ack) -> list[Any]:
    fields: list[Any] = [ack.sequence, _encode_hash(ack.digest)]
    if ack.mark:
        fields.append(_encode_hash(ack.mark))
    return fields


def _encode_claim(claim: Claim) -> list[Any]:
    member = claim.member
    return [
        bytes.fromhex(member.node),
        member.address,
        *member.incarnation,
        member.status.rank,
        [bytes.fromhex(node) for node in claim.accusers],
        claim.down_for_s,
    ]


def _encode_publication(publication: Publication) -> list[Any]:
    advertisement = publication.advertisement
    return [bytes.fromhex(publication.node), *publication.version, list(advertisement.names), advertisement.body]


def _encode_version(version: Version) -> list[Any]:
    return [bytes.fromhex(version.node), *version.incarnation, version.rank, *version.published]


def _encode_hash(value: int) -> bytes:
    return _pack_hash(value)


# Decoding. A reader takes the fields of one message and raises ``BadFrame`` for anything out of shape.


def decode(data: bytes, size_bytes_max: int, versions: VersionRange = VERSIONS) -> Frame:
    """Read a frame, its messages if it is in one of ``versions``.

    Raises ``BadFrame`` with cause ``oversized`` or ``malformed``, and nothing else.
    """
    if len(data) > size_bytes_max:
        raise BadFrame("oversized", f"{len(data)} bytes")
    try:
        parts = _unpack(data, use_list=False, max_array_len=ARRAY_LENGTH_MAX, max_map_len=ARRAY_LENGTH_MAX)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise BadFrame("malformed", type(error).__name__) from error
    if type(parts) is not tuple or len(parts) < 4:
        raise BadFrame("malformed", "not a frame")
    version = _integer(parts[0])
    cluster = _bytes(parts[1])
    if len(cluster) not in (0, CLUSTER_SIZE_BYTES):
        raise BadFrame("malformed", "cluster id")
    sender = _node(parts[2])
    highest = _integer(parts[4], VERSION_MAX) if len(parts) > 4 else version
    if not versions.lowest <= version <= versions.highest:
        return Frame(version, cluster, sender, (), highest)
    messages: list[Message] = []
    skipped = asked = 0
    for item in _sequence(parts[3]):
        if type(item) is not tuple or not item:
            raise BadFrame("malformed", "not a message")
        reader = _READERS.get(item[0]) if type(item[0]) is int else None
        if reader is None:
            skipped += 1
            continue
        kind: int = item[0]
        question = _ONCE & 1 << kind
        if asked & question:
            raise BadFrame("malformed", "a question twice")
        asked |= question
        try:
            messages.append(reader(item))
        except IndexError as error:
            raise BadFrame("malformed", "missing field") from error
        except TypeError as error:
            raise BadFrame("malformed", "a map") from error  # nothing else cannot be hashed, and none is expected
    return Frame(version, cluster, sender, tuple(messages), highest, skipped)


def _integer(value: object, most: int = _INTEGER_MAX) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise BadFrame("malformed", "integer")
    return value


def _bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise BadFrame("malformed", "bytes")
    return value


def _text(value: object, length_max: int) -> str:
    if type(value) is not str or len(value) > length_max:
        raise BadFrame("malformed", "text")
    return value


def _address(value: object) -> str:
    if not value:
        raise BadFrame("malformed", "address")
    return _text(value, ADDRESS_LENGTH_MAX)


def _sequence(value: object, length_max: int = ARRAY_LENGTH_MAX) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) > length_max:
        raise BadFrame("malformed", "array")
    return value


def _node(value: object) -> str:
    if type(value) is not bytes or len(value) != NODE_SIZE_BYTES:
        raise BadFrame("malformed", "node id")
    return value.hex()


def _nodes(value: object, length_max: int = ARRAY_LENGTH_MAX) -> tuple[str, ...]:
    return tuple([_node(item) for item in _sequence(value, length_max)])


def _hash(value: object) -> int:
    if type(value) is not bytes or len(value) != HASH_SIZE_BYTES:
        raise BadFrame("malformed", "hash")
    number: int = _unpack_hash(value)[0]
    return number


# Most members are at one of a few incarnations: those are kept once.
@lru_cache(_INCARNATIONS_REMEMBERED_MAX, typed=True)
def _incarnation(epoch: object, counter: object) -> Incarnation:
    return Incarnation(_integer(epoch, INCARNATION_MAX), _integer(counter, INCARNATION_MAX))


def _published(epoch: object, counter: object) -> Incarnation:
    return NEVER if epoch == NEVER.epoch else _incarnation(epoch, counter)


def _read_ping(item: tuple[Any, ...]) -> Ping:
    mark = _hash(item[6]) if len(item) > 6 else 0
    return Ping(_integer(item[1]), _hash(item[2]), _address(item[3]), _incarnation(item[4], item[5]), mark)


def _read_ack(item: tuple[Any, ...]) -> Ack:
    return Ack(_integer(item[1]), _hash(item[2]), _hash(item[3]) if len(item) > 3 else 0)


def _read_claim(item: tuple[Any, ...]) -> Claim:
    # 1 and True are equal, and one of them is out of shape: what is remembered of one must not serve the other.
    if not (type(item[3]) is type(item[4]) is type(item[5]) is type(item[7]) is int):
        raise BadFrame("malformed", "integer")
    return _claim(item[1:8])


# The same piece of news comes from many nodes.
@lru_cache(_NEWS_REMEMBERED_MAX)
def _claim(fields: tuple[Any, ...]) -> Claim:
    node, address, epoch, counter, rank, accusers, down_for_s = fields
    status = STATUS_BY_RANK[_integer(rank, len(STATUS_BY_RANK) - 1)]
    member = Member(_node(node), _address(address), _incarnation(epoch, counter), status)
    return Claim(member, _nodes(accusers, ACCUSERS_MAX), _integer(down_for_s, DOWN_FOR_S_MAX))


def _read_publication(item: tuple[Any, ...]) -> Publication:
    names, body = _sequence(item[4], NAMES_MAX), _bytes(item[5])
    is_small = len(names) <= _REMEMBERED_NAMES_MAX and len(body) <= _REMEMBERED_BODY_SIZE_BYTES_MAX
    return (_publication if is_small else _publication.__wrapped__)(item[1], item[2], item[3], names, body)


@lru_cache(_NEWS_REMEMBERED_MAX, typed=True)
def _publication(node: object, epoch: object, counter: object, names: tuple[object, ...], body: bytes) -> Publication:
    texts = tuple(_text(name, ADDRESS_LENGTH_MAX) for name in names)
    return Publication(_node(node), _incarnation(epoch, counter), Advertisement(texts, body))


def _read_version(value: object) -> Version:
    item = _sequence(value)
    rank = _integer(item[3], len(STATUS_BY_RANK) - 1)
    return Version(_node(item[0]), _incarnation(item[1], item[2]), rank, _published(item[4], item[5]))


def _each(value: object, read: Callable[[tuple[Any, ...]], Any]) -> Iterable[Any]:
    """Nested records have the fields of the message of their kind, without the kind."""
    return (read((None, *_sequence(item))) for item in _sequence(value))


_ENCODERS: dict[type, tuple[int, Callable[[Any], list[Any]]]] = {
    Ping: (1, _encode_ping),
    Ack: (2, _encode_ack),
    PingRequest: (3, lambda m: [m.sequence, bytes.fromhex(m.target)]),
    Nack: (4, lambda m: [m.sequence]),
    Claim: (5, _encode_claim),
    Publication: (6, _encode_publication),
    Buckets: (7, lambda m: [[_encode_hash(value) for value in m.hashes]]),
    Versions: (8, lambda m: [list(m.buckets), [_encode_version(version) for version in m.versions]]),
    Wanted: (9, lambda m: [[bytes.fromhex(node) for node in m.nodes]]),
    Records: (
        10,
        lambda m: [[_encode_claim(c) for c in m.claims], [_encode_publication(p) for p in m.publications]],
    ),
    Join: (11, lambda m: [m.attempt, m.address, *m.incarnation]),
    Welcome: (12, lambda m: [m.attempt, m.welcome]),
    Refuse: (13, lambda m: [m.attempt, m.reason, m.detail]),
    Payload: (14, lambda m: [m.body]),
    News: (15, lambda m: [m.body]),
}

_READERS: dict[int, Callable[[tuple[Any, ...]], Message]] = {
    1: _read_ping,
    2: _read_ack,
    3: lambda f: PingRequest(_integer(f[1]), _node(f[2])),
    4: lambda f: Nack(_integer(f[1])),
    5: _read_claim,
    6: _read_publication,
    7: lambda f: Buckets(tuple(_hash(value) for value in _sequence(f[1]))),
    8: lambda f: Versions(
        tuple(_integer(bucket) for bucket in _sequence(f[1])),
        tuple(_read_version(version) for version in _sequence(f[2])),
    ),
    9: lambda f: Wanted(_nodes(f[1])),
    10: lambda f: Records(tuple(_each(f[1], _read_claim)), tuple(_each(f[2], _read_publication))),
    11: lambda f: Join(_integer(f[1]), _address(f[2]), _incarnation(f[3], f[4])),
    12: lambda f: Welcome(_integer(f[1]), _bytes(f[2])),
    13: lambda f: Refuse(_integer(f[1]), _text(f[2], ADDRESS_LENGTH_MAX), _text(f[3], ADDRESS_LENGTH_MAX)),
    14: lambda f: Payload(_bytes(f[1])),
    15: lambda f: News(_bytes(f[1])),
}

# What others say may come many times in one frame. What they ask, or answer, comes once: a frame is never worth more
# than one answer of each kind. As bits, by their kinds.
_ONCE: Final[int] = sum(1 << kind for kind in _READERS) - sum(
    1 << _ENCODERS[said][0] for said in (Claim, Publication, Payload, News)
)
