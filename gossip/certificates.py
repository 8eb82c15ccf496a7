"""Certificates for the tests of transports: a root, and what it signs for nodes. Needs ``cryptography``."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gossip.transport import Credentials, server_names

_DAY = datetime.timedelta(days=1)


class Authority:
    """A root of its own, new with each object."""

    def __init__(self, name: str = "root") -> None:
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.root = _pem(self._sign(name, self._key.public_key(), is_root=True, age_days=1, days=3650))
        self.key = _pem_of_key(self._key)

    def credentials(
        self, node: str, *, trusts: tuple[str, ...] = (), age_days: float = 1, days: float = 3650
    ) -> Credentials:
        """For ``node``; ``trusts``: other roots than this one. Valid since ``age_days`` and for ``days`` from then."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(node, key.public_key(), is_root=False, age_days=age_days, days=days)
        return Credentials(_pem(certificate), _pem_of_key(key), trusts or (self.root,))

    def _sign(
        self, name: str, key: ec.EllipticCurvePublicKey, *, is_root: bool, age_days: float, days: float
    ) -> x509.Certificate:
        begin = datetime.datetime.now(datetime.UTC) - age_days * _DAY
        return (
            x509.CertificateBuilder()
            .subject_name(_common_name(name))
            .issuer_name(_common_name(self._name))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + days * _DAY)
            .add_extension(x509.BasicConstraints(is_root, None), critical=True)
            .add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, server_names(name)))), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> str:
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret.decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
