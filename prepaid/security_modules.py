"""Which security module this installation has, by its settings."""

from pydantic import SecretStr

from prepaid.hsm import Pkcs11Token, Pkcs11WrappingKey, WrappedSecurityModule
from prepaid.settings import Sts
from schemas.errors import DomainError
from tokens.key_file import unseal
from tokens.security_module import SecurityModule, SoftwareSecurityModule


def open_security_module(sts: Sts) -> SecurityModule:
    """The wrapped keys with their PKCS#11 token where they are set, else the sealed key file.

    Errors: DomainError `not_configured`, `file_unreadable`; TokenError; SecurityModuleAway.
    """
    try:
        if sts.wrapped_keys is not None:
            return WrappedSecurityModule(sts.wrapped_keys.read_bytes(), wrapping_key(sts))
        if sts.key_file is None or sts.key_passphrase is None:
            raise DomainError(
                "not_configured",
                "no vending keys: set PREPAID_STS__KEY_FILE and PREPAID_STS__KEY_PASSPHRASE, or "
                "PREPAID_STS__WRAPPED_KEYS and its token",
            )
        passphrase = sts.key_passphrase.get_secret_value()
        return SoftwareSecurityModule(unseal(sts.key_file.read_bytes(), passphrase))
    except OSError as error:
        raise DomainError(
            "file_unreadable", f"{error.filename}: {error.strerror}; name another"
        ) from None


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
