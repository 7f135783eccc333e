"""Certificates as devices and brokers read them, and requests that are refused."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from prepaid.trust.authority import (
    CRL_DAYS,
    DAYS,
    Authority,
    new_key,
    public_key_octets,
    read_request,
    revocations_end_ms,
)
from prepaid.trust.desk import role_of
from schemas.errors import DomainError

METER = "37000000017"
NOW_MS = 1_772_323_200_000  # 2026-03-01T00:00:00Z
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("prepaid devices", NOW_MS)


def request(name: str, key: object) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    )
    made = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]  # the case: any key
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_a_device_gets_a_certificate_for_its_name_and_nothing_more(authority: Authority) -> None:
    key = new_key()
    issued = authority.issue(key.public_key(), "meter", METER, NOW_MS)
    found = x509.load_pem_x509_certificate(issued.pem)
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pem))
    assert found.subject.rfc4514_string() == f"CN={METER}"
    assert f"{found.serial_number:x}" == issued.serial
    assert issued.not_after_ms == NOW_MS + DAYS["meter"] * DAY_MS
    extensions = found.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usage == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_server_is_named_by_hosts_and_addresses(authority: Authority) -> None:
    issued = authority.issue(
        new_key().public_key(), "server", "server", NOW_MS, hosts=("b.example", "10.0.0.1")
    )
    found = x509.load_pem_x509_certificate(issued.pem).extensions
    names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["b.example"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    usage = list(found.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usage == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_the_list_of_revocations_names_serials_and_ends(authority: Authority) -> None:
    pem = authority.revocations({"ab12": NOW_MS, "1f": NOW_MS}, 7, NOW_MS)
    found = x509.load_pem_x509_crl(pem)
    assert {each.serial_number for each in found} == {0xAB12, 0x1F}
    assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7
    assert revocations_end_ms(pem) == NOW_MS + CRL_DAYS * DAY_MS


def test_the_authority_is_kept_under_its_passphrase(authority: Authority, tmp_path: Path) -> None:
    authority.save(tmp_path, b"right")
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in (tmp_path / "ca.key").read_bytes()
    assert Authority.load(tmp_path, b"right").pem == authority.pem
    assert "KEY" not in repr(authority)
    for code, refused in (
        ("ca_locked", lambda: Authority.load(tmp_path, b"wrong")),
        ("ca_missing", lambda: Authority.load(tmp_path / "none", b"right")),
        ("ca_exists", lambda: authority.save(tmp_path, b"right")),
    ):
        with pytest.raises(DomainError) as caught:
            refused()
        assert caught.value.code == code


def test_a_request_gives_the_key_that_made_it() -> None:
    key = new_key()
    found = read_request(request(METER, key), METER)
    assert public_key_octets(found) == public_key_octets(key.public_key())


@pytest.mark.parametrize(
    ("pem", "code"),
    [
        ("", "bad_request"),
        (
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----",
            "bad_request",
        ),
        (request("37000000025", new_key()), "request_name"),
        (request("", new_key()), "request_name"),
        (request(METER, ec.generate_private_key(ec.SECP384R1())), "request_key"),
        (request(METER, rsa.generate_private_key(65537, 2048)), "request_key"),
    ],
)
def test_a_request_that_is_not_the_devices_own_is_refused(pem: str, code: str) -> None:
    with pytest.raises(DomainError) as caught:
        read_request(pem, METER)
    assert caught.value.code == code


def test_a_request_that_somebody_changed_is_refused() -> None:
    der = bytearray(x509.load_pem_x509_csr(request(METER, new_key()).encode()).public_bytes(
        serialization.Encoding.DER))  # fmt: skip
    at = bytes(der).index(METER.encode())
    der[at : at + len(METER)] = b"37000000025"
    changed = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(DomainError) as caught:
        read_request(changed, "37000000025")
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize(
    ("name", "role"),
    [(METER, "meter"), ("600727000000000009", "meter"), ("DCU-7", "gateway"), ("server", "server"),
     ("claim.a", "claim"), ("part.ingest", "part")],
)  # fmt: skip
def test_a_name_says_what_it_is(name: str, role: str) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize("name", ["", "part.root", "claim.", "a/b", "#", "claim.a+", "a.b"])
def test_a_name_that_is_nobodys_is_refused(name: str) -> None:
    with pytest.raises(DomainError) as caught:
        role_of(name)
    assert caught.value.code == "bad_name"
