"""From settings to the values that the parts below take: TLS files, keys, the authority."""

from pathlib import Path

from meter_gateway.tls import TlsFiles
from prepaid.secrets_files import read_secret
from prepaid.settings import Broker, Trust
from prepaid.trust.authority import Authority
from schemas.errors import DomainError
from schemas.signing import SigningKey


def broker_tls(broker: Broker) -> TlsFiles:
    """What the receiving side shows and believes. Errors: DomainError `secret_file`."""
    return _files(broker, broker.certificate, broker.private_key)


def dispatch_tls(broker: Broker) -> TlsFiles | None:
    """The sending side's own, where it has a certificate of its own."""
    if broker.dispatch_certificate is None:
        return None
    return _files(broker, broker.dispatch_certificate, broker.dispatch_private_key)


def dispatch_url(broker: Broker) -> str | None:
    return broker.dispatch_url.get_secret_value() if broker.dispatch_url is not None else None


def ingest_url(broker: Broker) -> str | None:
    return broker.ingest_url.get_secret_value() if broker.ingest_url is not None else None


def load_signing_key(trust: Trust) -> SigningKey | None:
    """Errors: DomainError `secret_file`, `bad_signing_key`."""
    if trust.signing_key is None:
        return None
    return SigningKey.from_pem(read_secret(trust.signing_key))


def load_authority(trust: Trust) -> Authority:
    """Errors: DomainError `not_configured`, and those of `Authority.load`."""
    if trust.ca is None or trust.ca_passphrase_file is None:
        raise DomainError(
            "not_configured",
            "no certificate authority: set PREPAID_TRUST__CA to its folder and "
            "PREPAID_TRUST__CA_PASSPHRASE_FILE; make one with `prepaid certs ca`",
        )
    return Authority.load(trust.ca, passphrase(trust.ca_passphrase_file))


def passphrase(path: Path) -> bytes:
    """The first line of a passphrase file. Errors: DomainError `secret_file`."""
    lines = read_secret(path).splitlines()
    if not lines or not lines[0]:
        raise DomainError("secret_file", f"{path} is empty: write a passphrase into it")
    return lines[0]


def _files(broker: Broker, certificate: Path | None, key: Path | None) -> TlsFiles:
    if certificate is not None and key is not None:
        # Refuses a key that others can read before anything is sent under it.
        read_secret(key)
    return TlsFiles(broker.ca, certificate, key, broker.server_name)
