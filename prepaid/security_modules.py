"""Which security module this installation has, by its settings."""

from pydantic import SecretStr

from prepaid.clock import wall_ms
from prepaid.hsm import Pkcs11Token, Pkcs11WrappingKey, WrappedSecurityModule
from prepaid.secrets_files import load_vending_keys, read_secret
from prepaid.security_process.client import RemoteSecurityModule
from prepaid.security_process.limits import LimitedSecurityModule, Limits
from prepaid.settings import Sts
from schemas.errors import DomainError
from tokens.security_module import SecurityModule, SoftwareSecurityModule
from tokens.sta import SAMPLE_TABLES, SubstitutionTables


def open_security_module(sts: Sts) -> SecurityModule:
    """What PREPAID_STS__SOCKET names, where it is set (nothing is asked yet); else our own keys.

    Errors: as `open_own_security_module`.
    """
    if sts.socket is not None:
        return RemoteSecurityModule(sts.socket)
    # Vends are counted where the keys are alone; guessing is bounded everywhere.
    return LimitedSecurityModule(open_own_security_module(sts), Limits(), None, wall_ms)


def open_own_security_module(sts: Sts) -> SecurityModule:
    """The vending keys in this process: the wrapped ones with their PKCS#11 token where they are
    set, else the sealed key file. Whoever names tables sells to real meters: with another set than
    the production one, nothing is made for an EA07 meter.

    Errors: DomainError `not_configured`, `secret_file`; TokenError; SecurityModuleAway.
    """
    for_real = sts.tables is not None
    if sts.wrapped_keys is not None:
        return WrappedSecurityModule(
            read_secret(sts.wrapped_keys), wrapping_key(sts), ea07_tables(sts), production=for_real
        )
    if sts.key_file is None or sts.key_passphrase is None:
        raise DomainError(
            "not_configured",
            "no vending keys: set PREPAID_STS__KEY_FILE and PREPAID_STS__KEY_PASSPHRASE (make a "
            "key file with `prepaid token new-key-file`), or PREPAID_STS__WRAPPED_KEYS and its "
            "token, or PREPAID_STS__SOCKET of `prepaid security-module`",
        )
    vending_keys = load_vending_keys(sts.key_file, sts.key_passphrase)
    return SoftwareSecurityModule(vending_keys, ea07_tables(sts), production=for_real)


def ea07_tables(sts: Sts) -> SubstitutionTables:
    """The operator's tables, else the sample set. Errors: DomainError `secret_file`; TokenError
    `tables_invalid`.
    """
    return SAMPLE_TABLES if sts.tables is None else SubstitutionTables.load(read_secret(sts.tables))


def told(tables: SubstitutionTables) -> str:
    """Which set it is, for people and logs: the name and what it is checked by."""
    name = "production" if tables.is_production else "sample"
    return f"{name} set, SHA-256 {tables.fingerprint}"


def wrapping_key(sts: Sts) -> Pkcs11WrappingKey:
    """The key inside the token. Errors: DomainError `not_configured`; SecurityModuleAway."""
    if sts.pkcs11_library is None or not sts.pkcs11_token:
        raise DomainError(
            "not_configured",
            "no PKCS#11 token: set PREPAID_STS__PKCS11_LIBRARY, PREPAID_STS__PKCS11_TOKEN and "
            "PREPAID_STS__PKCS11_PIN",
        )
    pin = sts.pkcs11_pin or SecretStr("")
    return Pkcs11WrappingKey(Pkcs11Token(sts.pkcs11_library, sts.pkcs11_token, pin))
