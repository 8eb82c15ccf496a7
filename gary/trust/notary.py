"""X.509 for TLS, made in a process of its own: ``python -m gary.trust.notary``.

Certificates are needed when a node is founded, let in or a root is changed, and never in between. The library that
makes them takes more memory than all the rest of trust together, so it is loaded in a child that ends when it has
nothing to do. A request is one msgpack array behind its length (4 bytes), the answer likewise: ``[true, fields...]``,
or ``[false, reason]``. Keys travel in these pipes only, never in arguments or the environment.

All keys are on P-256, all texts PEM. A certificate names the node in its common name and its alternative names.
Certificates are good for ten years: a cluster must not die because nobody renewed. Who is out is said by the ledger.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, BinaryIO

import msgpack

from gossip.transport import server_names

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

YEARS = 10
BACKDATED_DAYS = 2
"""Certificates begin before they are made, for hosts whose clocks are behind."""
NUMBER_SIZE_BYTES = 32
MESSAGE_SIZE_BYTES_MAX = 1 << 20
_LENGTH_SIZE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Found:
    """Make a root called ``root`` and a certificate of it for ``node``. Answered by ``Founded``."""

    root: str
    node: str


@dataclass(frozen=True, slots=True)
class Founded:
    root_certificate: str
    root_key: str = field(repr=False)
    tls_key: str = field(repr=False)
    certificate: str


@dataclass(frozen=True, slots=True)
class MakeKeys:
    """Make a key for this node's next certificate, and one of ``number`` for a guest. Answered by ``Keys``."""

    number: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keys:
    """``tls_public``: the public half of ``tls_key``, DER."""

    tls_key: str = field(repr=False)
    tls_public: bytes
    guest_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Certify:
    """Certify that ``public`` (DER) is the key of ``name``, in the name of a root. Answered by ``Certified``."""

    root_certificate: str
    root_key: str = field(repr=False)
    public: bytes
    name: str


@dataclass(frozen=True, slots=True)
class CertifyGuest:
    """Make a secret number and certify that its key is the key of ``name``. Answered by ``GuestCertified``."""

    root_certificate: str
    root_key: str = field(repr=False)
    name: str


@dataclass(frozen=True, slots=True)
class Examine:
    """Is ``certificate`` one of ``public`` (DER) for ``name``, signed by that root? Answered by ``Certified``."""

    root_certificate: str
    certificate: str
    public: bytes
    name: str


@dataclass(frozen=True, slots=True)
class Certified:
    certificate: str


@dataclass(frozen=True, slots=True)
class GuestCertified:
    """``number``: 32 bytes that make the guest's key."""

    certificate: str
    number: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Succeed:
    """Make a root called ``root``, certified by the one before it as well. Answered by ``Succeeded``."""

    root_certificate: str
    root_key: str = field(repr=False)
    root: str


@dataclass(frozen=True, slots=True)
class Succeeded:
    """``cross_certificate``: the new root in the name of the old one, for who trusts only that."""

    root_certificate: str
    root_key: str = field(repr=False)
    cross_certificate: str


Request = Found | MakeKeys | Certify | CertifyGuest | Examine | Succeed
Answer = Founded | Keys | Certified | GuestCertified | Succeeded
_REQUESTS: dict[str, type[Request]] = {
    kind.__name__: kind for kind in (Found, MakeKeys, Certify, CertifyGuest, Examine, Succeed)
}
_ANSWERS: dict[type[Request], type[Answer]] = {
    Found: Founded,
    MakeKeys: Keys,
    Certify: Certified,
    CertifyGuest: GuestCertified,
    Examine: Certified,
    Succeed: Succeeded,
}


def encode(request: Request) -> bytes:
    """``request`` as it goes to the child."""
    return _packed([type(request).__name__, *_values(request)])


def decode_answer(request: Request, answer: bytes) -> Answer:
    """What the child said to ``request``; raises ``ValueError`` with its reason if it could not do it."""
    done, *values = msgpack.unpackb(answer)
    if not done:
        raise ValueError(str(values[0]))
    return _ANSWERS[type(request)](*values)


def _values(message: Request | Answer) -> list[Any]:
    return [getattr(message, one.name) for one in fields(message)]


def _packed(values: list[Any]) -> bytes:
    body: bytes = msgpack.packb(values)
    return len(body).to_bytes(_LENGTH_SIZE_BYTES, "big") + body


# In the child


def main() -> int:
    """Answer requests from standard input on standard output until it is closed."""
    while (request := _read(sys.stdin.buffer)) is not None:
        sys.stdout.buffer.write(_answer(request))
        sys.stdout.buffer.flush()
    return 0


def _read(stream: BinaryIO) -> bytes | None:
    head = stream.read(_LENGTH_SIZE_BYTES)
    return stream.read(int.from_bytes(head, "big")) if len(head) == _LENGTH_SIZE_BYTES else None


def _answer(request: bytes) -> bytes:
    name, *values = msgpack.unpackb(request)
    try:
        return _packed([True, *_values(answer(_REQUESTS[name](*values)))])
    except (ValueError, TypeError) as error:
        return _packed([False, f"{type(error).__name__}: {error}"])


def answer(request: Request) -> Answer:
    """Do what is asked. Raises ``ValueError`` or ``TypeError`` for what is no PEM, no key or no certificate."""
    from cryptography.hazmat.primitives.asymmetric import ec

    match request:
        case Found(root, node):
            root_key, key = _new_key(), _new_key()
            certificate = _certificate(root, root_key.public_key(), root, root_key, is_root=True)
            leaf = _certificate(node, key.public_key(), root, root_key, is_root=False)
            return Founded(_pem(certificate), _key_pem(root_key), _key_pem(key), _pem(leaf))
        case MakeKeys(number):
            key, guest = _new_key(), ec.derive_private_key(int.from_bytes(number, "big"), ec.SECP256R1())
            return Keys(_key_pem(key), _public_der(key.public_key()), _key_pem(guest))
        case Certify(root_certificate, root_key_pem, public, name):
            issuer, issuer_key = _issuer(root_certificate, root_key_pem)
            return Certified(_pem(_certificate(name, _public(public), issuer, issuer_key, is_root=False)))
        case CertifyGuest(root_certificate, root_key_pem, name):
            issuer, issuer_key = _issuer(root_certificate, root_key_pem)
            key = _new_key()
            leaf = _certificate(name, key.public_key(), issuer, issuer_key, is_root=False)
            number = key.private_numbers().private_value.to_bytes(NUMBER_SIZE_BYTES, "big")
            return GuestCertified(_pem(leaf), number)
        case Examine(root_certificate, certificate_pem, public, name):
            _examine(root_certificate, certificate_pem, public, name)
            return Certified(certificate_pem)
        case Succeed(root_certificate, root_key_pem, root):
            issuer, issuer_key = _issuer(root_certificate, root_key_pem)
            key = _new_key()
            itself = _certificate(root, key.public_key(), root, key, is_root=True)
            cross = _certificate(root, key.public_key(), issuer, issuer_key, is_root=True)
            return Succeeded(_pem(itself), _key_pem(key), _pem(cross))


def _certificate(
    subject: str, public: ec.EllipticCurvePublicKey, issuer: str, key: ec.EllipticCurvePrivateKey, *, is_root: bool
) -> x509.Certificate:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=BACKDATED_DAYS)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=YEARS * 365.25))
        .add_extension(x509.BasicConstraints(is_root, None), critical=True)
    )
    if not is_root:
        names = x509.SubjectAlternativeName([x509.DNSName(name) for name in server_names(subject)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _issuer(certificate: str, key: str) -> tuple[str, ec.EllipticCurvePrivateKey]:
    """The name in a root's certificate, and its key. Raises ``ValueError`` if they are not of one root."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    loaded = load_pem_private_key(key.encode(), None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise TypeError("the root's key is of another kind")
    root = x509.load_pem_x509_certificate(certificate.encode())
    if root.public_key() != loaded.public_key():
        raise ValueError("the key is not that of the root's certificate")
    return _common_name(root), loaded


def _examine(root_certificate: str, certificate: str, public: bytes, name: str) -> None:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    root = x509.load_pem_x509_certificate(root_certificate.encode())
    leaf = x509.load_pem_x509_certificates(certificate.encode())[0]
    try:
        leaf.verify_directly_issued_by(root)
    except InvalidSignature as error:
        raise ValueError("the certificate is not signed by the root") from error
    if leaf.public_key() != _public(public) or _common_name(leaf) != name:
        raise ValueError("the certificate is that of another")


def _common_name(certificate: x509.Certificate) -> str:
    from cryptography.x509.oid import NameOID

    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _new_key() -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _public(der: bytes) -> ec.EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    public = load_der_public_key(der)
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise TypeError("a key that is not on P-256")
    return public


def _public_der(public: ec.EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


if __name__ == "__main__":
    sys.exit(main())
