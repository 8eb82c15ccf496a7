"""This node's standing in its cluster: whom it trusts, what it shows, and for which roots it can vouch.

Pure: methods change it and return the writes that make the change durable. The table ``trust`` on disk has all of it:

    root               the founding root, public
    tls                the key and the certificate that peers are shown, and which root signed it
    secret/<root>      the secret half of a root, on nodes that vouch
    statement/<id>     a statement of the ledger
    invitation/<id>    see ``invitations``
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgpack

from gary.errors import GaryError
from gary.identity import NodeId
from gary.storage import DeleteRecord, PutRecord, Table, Write
from gary.trust.entry import Admittance
from gary.trust.keys import BadSeal, KeyPair
from gary.trust.ledger import Ledger
from gary.trust.notary import Found, Founded
from gary.trust.statements import BadStatement, Root, Signed, Statement, root_name, sign
from gossip.transport import Credentials

UNNAMED_MAX = 8
_ROOT, _TLS, _SECRET, _STATEMENT = "root", "tls", "secret/", "statement/"


class BadStanding(GaryError):
    """The world failed: what the disk says of this node's standing cannot be read or does not fit together."""


@dataclass(frozen=True, slots=True)
class Tls:
    """What peers are shown, PEM. ``issuer``: the public key of the root that signed ``certificate``. ``made_s``: when,
    in seconds since 1970 by this node's clock.
    """

    key: str = field(repr=False)
    certificate: str
    issuer: bytes
    made_s: int


@dataclass(frozen=True, slots=True)
class RootSecret:
    """The half of a root that signs: statements with ``seed``, certificates with ``tls_key`` (PEM)."""

    seed: bytes = field(repr=False)
    tls_key: str = field(repr=False)

    @property
    def key(self) -> KeyPair:
        return KeyPair(self.seed)

    def encode(self) -> bytes:
        packed: bytes = msgpack.packb([self.seed, self.tls_key])
        return packed

    @staticmethod
    def decode(data: bytes) -> RootSecret:
        """The inverse of ``encode``; raises ``ValueError``."""
        match _unpack(data):
            case [bytes(seed), str(tls_key)] if len(seed) == 32:
                return RootSecret(seed, tls_key)
        raise ValueError("not a root's secret")


def found(seed: bytes, node: NodeId) -> Found:
    """What the notary has to make so that ``node`` is a cluster of one; ``seed``: 32 random bytes for its root."""
    return Found(root_name(KeyPair(seed).public), node)


def founding_writes(seed: bytes, founded: Founded, wall_s: float) -> list[Write]:
    """What makes that cluster durable, at ``wall_s`` (seconds since 1970)."""
    public = KeyPair(seed).public
    return [
        _put_root(Root(public, founded.root_certificate)),
        _put_tls(Tls(founded.tls_key, founded.certificate, public, int(wall_s))),
        _put_secret(public, RootSecret(seed, founded.root_key)),
    ]


def is_standing(records: Mapping[str, bytes]) -> bool:
    """Whether the disk has one."""
    return {_ROOT, _TLS} <= records.keys()


class Standing:
    """``records``: the table ``trust``. Raises ``BadStanding``."""

    def __init__(self, key: KeyPair, cluster: bytes, records: Mapping[str, bytes]) -> None:
        self._key = key
        self._is_moving = False
        try:
            match _unpack(records[_ROOT]), _unpack(records[_TLS]):
                case [bytes(public), str(certificate)], [str(tls_key), str(shown), bytes(issuer), int(made_s)]:
                    founding, self.tls = Root(public, certificate), Tls(tls_key, shown, issuer, made_s)
                case _:
                    raise BadStanding("the node's certificate on the disk is none")
            statements = [raw for _, raw in _under(_STATEMENT, records)]
            self.ledger = Ledger(cluster, founding, statements)
            self._unwritten: set[bytes] = set()
            self._secrets = {bytes.fromhex(hex): RootSecret.decode(raw) for hex, raw in _under(_SECRET, records)}
        except (KeyError, ValueError, BadStatement) as error:
            raise BadStanding(f"the node's standing on the disk cannot be read: {error!r}") from error

    # What it says

    @property
    def vouches(self) -> bool:
        """It can let others in, and speak in the name of the cluster's present root."""
        return self.ledger.present.public in self._secrets

    @property
    def is_moving(self) -> bool:
        """It has left the cluster, or goes into one and that is not on the disk yet: it says nothing of any."""
        return self._is_moving

    def secret(self, root: bytes) -> RootSecret | None:
        return self._secrets.get(root)

    @property
    def present_secret(self) -> RootSecret | None:
        return self._secrets.get(self.ledger.present.public)

    @property
    def former_secret(self) -> RootSecret | None:
        """With which this node can show that it may have the secret of the present root."""
        return next((self._secrets[root] for root in self.ledger.handing_down() if root in self._secrets), None)

    @property
    def lacks_secret(self) -> bool:
        """It neither vouches nor can show that it may: only who lets it in again makes it one that does."""
        return not self.vouches and self.former_secret is None

    @property
    def is_certified(self) -> bool:
        """What it shows is signed by the present root."""
        return self.tls.issuer == self.ledger.present.public

    def credentials(self, wall_s: float) -> Credentials:
        """For the transport, at ``wall_s`` (seconds since 1970)."""
        roots = tuple(root.certificate for root in self.ledger.trusted(wall_s))
        return Credentials(self.tls.certificate, self.tls.key, roots)

    def chain(self, root: bytes, certificate: str) -> str:
        """``certificate`` of ``root`` with what leads from there to the roots before it, for who knows only those."""
        chain = [certificate]
        while (rotation := self.ledger.rotation(root)) is not None:
            chain.append(rotation.cross_certificate)
            root = self.ledger.predecessor(root)
        return "".join(chain)

    # What changes it

    def sign(self, statement: Statement) -> Signed:
        """``statement`` in the name of the present root, for which this node vouches."""
        secret = self.present_secret
        assert secret is not None, "only a voucher speaks for the cluster"
        return sign(statement, secret.key, self.ledger.cluster)

    def news(self, raw: bytes) -> Signed | None:
        """A statement that the ledger lacks and that nobody is writing down yet. Raises ``BadStatement``."""
        signed = self.ledger.news(raw)
        return None if signed is None or signed.id in self._unwritten else signed

    def write_down(self, signed: Signed) -> Write:
        """What makes it durable; then it can be taken in."""
        self._unwritten.add(signed.id)
        return PutRecord(Table.TRUST, _STATEMENT + signed.id.hex(), signed.raw)

    def take(self, signed: Signed, cluster: bytes) -> bool:
        """From now on it counts in ``cluster``, if that still is this node's. Whether it still was news."""
        self._unwritten.discard(signed.id)
        return cluster == self.ledger.cluster and self.ledger.take(signed)

    def keep_secret(self, root: bytes, secret: RootSecret) -> list[Write]:
        """Of roots that are not named yet, and may never be, few are kept."""
        self._secrets[root] = secret
        unnamed = [held for held in self._secrets if held != root and not self.ledger.knows(held)]
        gone = unnamed[:-UNNAMED_MAX]
        for held in gone:
            del self._secrets[held]
        return [_put_secret(root, secret), *(DeleteRecord(Table.TRUST, _SECRET + held.hex()) for held in gone)]

    def certified(self, tls: Tls) -> Write:
        self.tls = tls
        return _put_tls(tls)

    def renewed(self, tls_key: str, admittance: Admittance, wall_s: float) -> list[Write]:
        """Somebody who vouches for the present root has certified this node's ``tls_key``. Raises ``BadStatement``."""
        secret = self._opened(admittance)
        writes = [self.certified(Tls(tls_key, admittance.certificate, admittance.issuer, int(wall_s)))]
        return writes if secret is None else [*writes, *self.keep_secret(admittance.issuer, secret)]

    def admitted(self, tls_key: str, admittance: Admittance, wall_s: float) -> list[Write]:
        """Somebody who vouches has let this node in and certified its ``tls_key``, for the same cluster or another.

        Raises ``BadStatement`` for an admittance that does not fit together, and then nothing has changed.
        """
        ledger = Ledger(admittance.cluster, admittance.founding, admittance.statements)
        is_known = admittance.issuer in {root.public for root in ledger.trusted(0.0)}
        secret = self._opened(admittance)
        if not is_known:
            raise BadStatement("the certificate is of a root that nobody has named")
        tls = Tls(tls_key, admittance.certificate, admittance.issuer, int(wall_s))
        is_same = (ledger.cluster, ledger.founding) == (self.ledger.cluster, self.ledger.founding)
        writes = [] if is_same else self._forget()
        for raw in self.ledger.raws if is_same else ():
            ledger.hear(raw)
        self.ledger, self.tls, self._is_moving = ledger, tls, True
        writes += [_put_root(ledger.founding), _put_tls(tls)]
        writes += [PutRecord(Table.TRUST, _STATEMENT + id.hex(), raw) for id, raw in ledger.items()]
        if secret is not None:
            writes += self.keep_secret(admittance.issuer, secret)
        return writes

    def arrived(self) -> None:
        """The writes of ``admitted`` are durable."""
        self._is_moving = False

    def left(self) -> list[Write]:
        """What makes the next start found a cluster of one."""
        self._is_moving = True
        return [*self._forget(), DeleteRecord(Table.TRUST, _ROOT), DeleteRecord(Table.TRUST, _TLS)]

    def _opened(self, admittance: Admittance) -> RootSecret | None:
        """The root's secret, if it was given away with it."""
        if not admittance.root_secret:
            return None
        try:
            secret = RootSecret.decode(self._key.open(admittance.root_secret))
        except (BadSeal, ValueError) as error:
            raise BadStatement(f"the root's secret cannot be read: {error}") from error
        if secret.key.public != admittance.issuer:
            raise BadStatement("the secret is that of another root")
        return secret

    def _forget(self) -> list[Write]:
        """Give up what binds this node to its cluster."""
        names = [_SECRET + root.hex() for root in sorted(self._secrets)]
        names += [_STATEMENT + id.hex() for id in sorted({*self.ledger.ids, *self._unwritten})]
        self._secrets = {}
        return [DeleteRecord(Table.TRUST, name) for name in names]


def _under(prefix: str, records: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    return ((name[len(prefix) :], raw) for name, raw in sorted(records.items()) if name.startswith(prefix))


def _put_root(root: Root) -> Write:
    return PutRecord(Table.TRUST, _ROOT, msgpack.packb([root.public, root.certificate]))


def _put_tls(tls: Tls) -> Write:
    return PutRecord(Table.TRUST, _TLS, msgpack.packb([tls.key, tls.certificate, tls.issuer, tls.made_s]))


def _put_secret(root: bytes, secret: RootSecret) -> Write:
    return PutRecord(Table.TRUST, _SECRET + root.hex(), secret.encode())


def _unpack(data: bytes) -> object:
    try:
        return msgpack.unpackb(data)
    except (TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ValueError("not msgpack") from error
