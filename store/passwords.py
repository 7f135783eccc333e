"""Passwords, second factors and one-time codes: argon2id hashes and TOTP codes (RFC 6238)."""

import secrets
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pyotp import random_base32
from pyotp.totp import TOTP

from schemas.errors import DomainError

# OWASP's least for argon2id: 19 MiB and two passes, some tens of milliseconds a sign-in.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
LEAST_CHARACTERS = 12
# A longer text is no password and is not hashed.
MOST_CHARACTERS = 256
TOTP_STEP_S = 30
# One step before and one after: clocks of telephones are a little off.
TOTP_STEPS = (-1, 0, 1)
ISSUER = "prepaid"


def hashed(password: str) -> str:
    """The argon2id hash to keep. Errors: DomainError `password_refused`."""
    if not LEAST_CHARACTERS <= len(password) <= MOST_CHARACTERS:
        raise DomainError(
            "password_refused",
            f"choose a password of {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters",
        )
    return _HASHER.hash(password)


def hashed_code(code: str) -> str:
    """The argon2id hash of a one-time code: short, and slow to guess for as long as it lives."""
    return _HASHER.hash(code)


def matches(password_hash: str | None, password: str) -> bool:
    """Whether it is the password; without a hash the same work is done, and the answer is no."""
    try:
        right = _HASHER.verify(password_hash or _nobodys_hash(), password)
    except (VerificationError, InvalidHashError):
        return False
    return right and password_hash is not None


@cache
def _nobodys_hash() -> str:
    return _HASHER.hash(secrets.token_urlsafe(32))


def new_totp_secret() -> str:
    """A second factor's secret, base32."""
    return random_base32()


def provisioning_uri(secret: str, name: str) -> str:
    """What an authenticator on a telephone takes in, as text or as a QR code."""
    return TOTP(secret).provisioning_uri(name=name, issuer_name=ISSUER)


def totp_step(secret: str, code: str, wall_ms: int) -> int | None:
    """The step whose code this is, around now; None where it is none."""
    given = "".join(code.split())
    now = wall_ms // 1000 // TOTP_STEP_S
    totp = TOTP(secret)
    found = None
    # Every step is compared, so that the time tells nothing.
    for step in (now + each for each in TOTP_STEPS):
        if secrets.compare_digest(totp.at(step * TOTP_STEP_S).encode(), given.encode()):
            found = step
    return found
