"""The certificate authority of one utility: ECDSA P-256, one level, one list of revocations.

A certificate's common name is the device's number: its MQTT client id, its user name at the broker
and its level in every topic are the same word (MQTT contract, clause 1). What is issued is told to
the caller, who records it; nothing here reads a clock or a database.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from prepaid.secrets_files import read_secret, write_secret
from schemas.errors import DomainError

# A device, our own parts towards the broker, the broker itself, and what may only ask for another.
Role = Literal["meter", "gateway", "part", "server", "claim"]
ROLES: tuple[Role, ...] = get_args(Role)

CA_FILE, CA_KEY_FILE, CRL_FILE = "ca.pem", "ca.key", "crl.pem"
CA_DAYS = 20 * 365
# A meter's working life is longer, its certificate is renewed in time; a claim is for one roll-out.
DAYS: Mapping[Role, int] = {"meter": 3650, "gateway": 1095, "part": 365, "server": 365, "claim": 90}
# A broker refuses every client once its list is older than this: `prepaid certs crl` renews it.
CRL_DAYS = 30
# A device whose clock is a little behind takes a certificate that was made just now.
CLOCK_SKEW = timedelta(minutes=10)

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate as it was signed: `serial` in hex, instants in UTC ms."""

    serial: str
    role: Role
    name: str
    pem: bytes
    public_key: bytes
    not_before_ms: int
    not_after_ms: int


class Authority:
    """The authority's certificate and its private key."""

    def __init__(self, certificate: x509.Certificate, key: PrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    def __repr__(self) -> str:
        return f"<Authority {self._certificate.subject.rfc4514_string()}>"

    @classmethod
    def create(cls, name: str, now_ms: int) -> "Authority":
        """A new self-signed authority for `name`, which devices see as the issuer."""
        key = new_key()
        usage = _usage(key_cert_sign=True, crl_sign=True)
        builder = _builder(name, _name(name), key.public_key(), now_ms, CA_DAYS)
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, folder: Path, passphrase: bytes) -> "Authority":
        """Errors: DomainError `secret_file`, `ca_locked`, `ca_missing`."""
        try:
            certificate = x509.load_pem_x509_certificate((folder / CA_FILE).read_bytes())
        except (OSError, ValueError):
            raise DomainError(
                "ca_missing", f"No authority in {folder}: make one with `prepaid certs ca`."
            ) from None
        try:
            key = serialization.load_pem_private_key(
                read_secret(folder / CA_KEY_FILE), password=passphrase
            )
        except (ValueError, TypeError):
            raise DomainError(
                "ca_locked", f"The passphrase does not open {folder / CA_KEY_FILE}: name its file."
            ) from None
        assert isinstance(key, ec.EllipticCurvePrivateKey), "we write no other"
        return cls(certificate, key)

    def save(self, folder: Path, passphrase: bytes) -> None:
        """Its key encrypted under the passphrase. Errors: DomainError `ca_exists`."""
        if (folder / CA_KEY_FILE).exists():
            raise DomainError("ca_exists", f"{folder} holds an authority: name another folder.")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        locked = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase),
        )
        write_secret(folder / CA_KEY_FILE, locked)
        (folder / CA_FILE).write_bytes(self.pem)

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        public_key: PublicKey,
        role: Role,
        name: str,
        now_ms: int,
        days: int | None = None,
        hosts: Sequence[str] = (),
    ) -> Issued:
        """A certificate for `name`; `hosts` are the names and addresses of a server."""
        days = DAYS[role] if days is None else days
        serial = x509.random_serial_number()
        purpose = (
            ExtendedKeyUsageOID.SERVER_AUTH if role == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
        )
        builder = _builder(name, self._certificate.subject, public_key, now_ms, days, serial)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(self._issuer_key(), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return Issued(
            serial=f"{serial:x}",
            role=role,
            name=name,
            pem=signed.public_bytes(serialization.Encoding.PEM),
            public_key=public_key_octets(public_key),
            not_before_ms=_ms(signed.not_valid_before_utc),
            not_after_ms=_ms(signed.not_valid_after_utc),
        )

    def revocations(self, revoked: Mapping[str, int], number: int, now_ms: int) -> bytes:
        """The list (RFC 5280 section 5) of revoked serials with their instants in UTC ms, as PEM.

        `number` grows from list to list.
        """
        now = _instant(now_ms)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - CLOCK_SKEW)
            .next_update(now + timedelta(days=CRL_DAYS))
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._issuer_key(), critical=False)
        )
        for serial, revoked_ms in sorted(revoked.items()):
            entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16))
            builder = builder.add_revoked_certificate(
                entry.revocation_date(_instant(revoked_ms)).build()
            )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _issuer_key(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())


def new_key() -> PrivateKey:
    """A P-256 key: small, in every TLS stack, in every secure element of a meter."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    """PKCS #8, unencrypted: for a file that only its owner can read."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_key_octets(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo, DER: to tell whether two requests are for one key."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def read_request(pem: str, name: str) -> PublicKey:
    """The key of a PKCS #10 request that `name` made with that key's private half.

    Errors: DomainError `bad_request`, `request_key`, `request_name`.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        proven = request.is_signature_valid
        key = request.public_key()
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except Exception:  # a stranger's bytes: whatever the parser makes of them, they are refused
        raise DomainError("bad_request", "Send a certificate request as PEM (PKCS #10).") from None
    if not proven:
        raise DomainError("bad_request", "Sign the request with the key it asks for.")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise DomainError("request_key", "Ask for a certificate of a P-256 key.")
    if [each.value for each in names] != [name]:
        raise DomainError("request_name", "Ask with the device's own number as common name.")
    return key


def certificate_end_ms(pem: bytes) -> int:
    """UTC ms at which the (first) certificate of a PEM file ends. Raises ValueError."""
    return _ms(x509.load_pem_x509_certificate(pem).not_valid_after_utc)


def revocations_end_ms(pem: bytes) -> int:
    """UTC ms until which a list of revocations counts. Raises ValueError."""
    end = x509.load_pem_x509_crl(pem).next_update_utc
    if end is None:
        raise ValueError("a list of revocations without an end")
    return _ms(end)


def _builder(
    name: str,
    issuer: x509.Name,
    public_key: PublicKey,
    now_ms: int,
    days: int,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    now = _instant(now_ms)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, UTC)


def _ms(instant: datetime) -> int:
    return int(instant.timestamp()) * 1000
