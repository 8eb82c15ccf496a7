"""The notary: what it makes, and what it refuses; the real child process."""

from __future__ import annotations

import asyncio

import pytest
from cryptography import x509

from gary.trust.consulting import Notary, NotaryFailed
from gary.trust.notary import (
    Certified,
    Certify,
    CertifyGuest,
    Examine,
    Found,
    Founded,
    GuestCertified,
    Keys,
    MakeKeys,
    Succeed,
    Succeeded,
    answer,
    decode_answer,
    encode,
)

NODE, OTHER = "a" * 32, "b" * 32
NUMBER = (7).to_bytes(32, "big")


@pytest.fixture(scope="module")
def root() -> Founded:
    made = answer(Found("gary root 1", NODE))
    assert isinstance(made, Founded)
    return made


@pytest.fixture(scope="module")
def keys() -> Keys:
    made = answer(MakeKeys(NUMBER))
    assert isinstance(made, Keys)
    return made


def load(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def test_a_founded_node_has_a_certificate_of_a_root_of_its_own(root: Founded) -> None:
    leaf, itself = load(root.certificate), load(root.root_certificate)
    leaf.verify_directly_issued_by(itself)
    itself.verify_directly_issued_by(itself)
    assert leaf.subject.rfc4514_string() == f"CN={NODE}"
    assert itself.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gary", NODE]


def test_certificates_are_good_for_ten_years_and_since_the_day_before_yesterday(root: Founded) -> None:
    leaf = load(root.certificate)
    assert 3650 <= (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days <= 3653


def test_a_guest_s_key_is_made_of_the_number_that_came_with_its_certificate(root: Founded) -> None:
    made = answer(CertifyGuest(root.root_certificate, root.root_key, f"guest:{OTHER}"))
    assert isinstance(made, GuestCertified)
    keys = answer(MakeKeys(made.number))
    assert isinstance(keys, Keys)
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(keys.guest_key.encode(), None)
    assert load(made.certificate).public_key() == key.public_key()


def test_a_root_that_succeeds_another_is_known_to_who_trusts_only_that(root: Founded, keys: Keys) -> None:
    new = answer(Succeed(root.root_certificate, root.root_key, "gary root 2"))
    assert isinstance(new, Succeeded)
    load(new.cross_certificate).verify_directly_issued_by(load(root.root_certificate))
    made = answer(Certify(new.root_certificate, new.root_key, keys.tls_public, NODE))
    assert isinstance(made, Certified)
    leaf = load(made.certificate)
    leaf.verify_directly_issued_by(load(new.root_certificate))
    leaf.verify_directly_issued_by(load(new.cross_certificate))


def test_what_another_node_certified_is_looked_at_before_it_is_used(root: Founded, keys: Keys) -> None:
    made = answer(Certify(root.root_certificate, root.root_key, keys.tls_public, NODE))
    assert isinstance(made, Certified)
    assert answer(Examine(root.root_certificate, made.certificate, keys.tls_public, NODE)) == made
    stranger, others = answer(Found("gary root 1", NODE)), answer(MakeKeys(NUMBER))
    assert isinstance(stranger, Founded)
    assert isinstance(others, Keys)
    for bad in (
        Examine(root.root_certificate, made.certificate, keys.tls_public, OTHER),
        Examine(root.root_certificate, made.certificate, others.tls_public, NODE),
        Examine(stranger.root_certificate, made.certificate, keys.tls_public, NODE),
        Examine(root.root_certificate, "no certificate", keys.tls_public, NODE),
        Certify(root.root_certificate, stranger.root_key, keys.tls_public, NODE),
        Certify(root.root_certificate, root.root_key, b"no key", NODE),
        Certify("", "", keys.tls_public, NODE),
    ):
        with pytest.raises((ValueError, TypeError)):
            answer(bad)


def test_secrets_are_not_shown_where_requests_and_answers_are(root: Founded, keys: Keys) -> None:
    shown = repr([root, keys, Certify(root.root_certificate, root.root_key, b"", NODE), MakeKeys(NUMBER)])
    assert "PRIVATE KEY" not in shown
    assert repr(NUMBER)[2:20] not in shown


async def test_the_child_answers_many_at_once_says_what_it_cannot_do_and_comes_back_after_its_death() -> None:
    notary = Notary()
    try:
        founded = await notary.ask(Found("gary root 1", NODE))
        assert isinstance(founded, Founded)
        made = await asyncio.gather(*(notary.ask(MakeKeys(NUMBER)) for _ in range(20)))
        assert len({keys.tls_key for keys in made if isinstance(keys, Keys)}) == 20
        with pytest.raises(NotaryFailed, match="no certificate can be made"):
            await notary.ask(Certify("", "", b"", NODE))
        child = notary._child
        assert child is not None
        child.kill()
        await child.wait()
        assert isinstance(await notary.ask(MakeKeys(NUMBER)), Keys)
    finally:
        await notary.close()


def test_requests_and_answers_are_read_back() -> None:
    assert encode(Found("r", NODE))[:4] == (len(encode(Found("r", NODE))) - 4).to_bytes(4, "big")
    with pytest.raises(ValueError, match="because"):
        decode_answer(Found("r", NODE), b"\x92\xc2\xa7because")
