"""Vending keys wrapped by a key that never leaves a PKCS#11 token.

The file of wrapped keys is useless without the token and its PIN; the wrapping key is made inside
the token and cannot be read out. The keys themselves are opened one at a time, for the length of
one call, in this process: see docs/security-module.md for what that protects and what not.
"""

import json
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from tokens.apdu import Apdu
from tokens.errors import SecurityModuleAway, TokenError
from tokens.keys import KeyAttributes, VendingKey
from tokens.security_module import SecurityModule, SoftwareSecurityModule
from tokens.sta import SAMPLE_TABLES, SubstitutionTables

WRAPPING_KEY_LABEL = "prepaid-vending-keys"
NONCE_OCTETS = 12
TAG_BITS = 128

Slot = tuple[str, int]


class WrappingKey(Protocol):
    """Authenticated encryption under one key, which nobody sees (AES-256-GCM)."""

    def seal(self, nonce: bytes, clear: bytes, about: bytes) -> bytes:
        """Ciphertext and tag; `about` is authenticated and not encrypted."""
        ...

    def unseal(self, nonce: bytes, sealed: bytes, about: bytes) -> bytes:
        """The inverse. Errors: TokenError `key_file_invalid`; SecurityModuleAway."""
        ...


class WrappedKey(BaseModel):
    """One row of the file: what is known about a vending key, and the key, sealed."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    sgc: str
    krn: int
    ken: int | None
    base_date: int | None
    check_value: str
    nonce: str = Field(pattern=r"^[0-9a-f]{24}$")
    sealed: str = Field(pattern=r"^([0-9a-f]{2}){17,}$")

    @property
    def about(self) -> bytes:
        """Bound to the key: a row cannot be given another group, revision or expiry."""
        return f"{self.sgc} {self.krn} {self.ken} {self.base_date} {self.check_value}".encode()


_ROWS = TypeAdapter(list[WrappedKey])


def wrap(vending_keys: Mapping[Slot, VendingKey], wrapping: WrappingKey) -> bytes:
    """The file of `vending_keys`, each sealed under the wrapping key with a nonce of its own."""
    rows = []
    for (sgc, krn), key in sorted(vending_keys.items()):
        nonce = secrets.token_bytes(NONCE_OCTETS)
        row = WrappedKey(
            sgc=sgc,
            krn=krn,
            ken=key.ken,
            base_date=key.base_date,
            check_value=key.check_value,
            nonce=nonce.hex(),
            sealed="00" * 17,
        )
        sealed = wrapping.seal(nonce, key.reveal(), row.about).hex()
        rows.append(row.model_copy(update={"sealed": sealed}).model_dump())
    return json.dumps(rows, indent=1).encode() + b"\n"


class WrappedSecurityModule:
    """The security module over a file of wrapped keys: a key is in clear for one call only."""

    def __init__(
        self,
        document: bytes,
        wrapping: WrappingKey,
        tables: SubstitutionTables = SAMPLE_TABLES,
        *,
        production: bool = False,
    ) -> None:
        """Errors: TokenError `key_file_invalid`."""
        try:
            rows = _ROWS.validate_json(document)
        except ValidationError:
            raise TokenError(
                "key_file_invalid",
                "This is no file of wrapped keys; name the one that `prepaid hsm wrap` wrote.",
            ) from None
        self._rows = {(row.sgc, row.krn): row for row in rows}
        self._wrapping = wrapping
        self._tables = tables
        self._production = production

    def __repr__(self) -> str:
        return f"<WrappedSecurityModule, {len(self._rows)} vending keys, {self._tables!r}>"

    @property
    def slots(self) -> list[Slot]:
        """SGC and KRN of every key of the file."""
        return sorted(self._rows)

    def issue_credit(
        self,
        meter_pan: str,
        attributes: KeyAttributes,
        *,
        subclass: int,
        amount: int,
        tid_minutes: int,
        rnd: int,
    ) -> str:
        return self._opened([attributes]).issue_credit(
            meter_pan,
            attributes,
            subclass=subclass,
            amount=amount,
            tid_minutes=tid_minutes,
            rnd=rnd,
        )

    def issue_management(
        self,
        meter_pan: str,
        attributes: KeyAttributes,
        *,
        subclass: int,
        fields: Mapping[str, int],
        tid_minutes: int,
        rnd: int,
    ) -> str:
        return self._opened([attributes]).issue_management(
            meter_pan,
            attributes,
            subclass=subclass,
            fields=fields,
            tid_minutes=tid_minutes,
            rnd=rnd,
        )

    def issue_key_change(
        self,
        meter_pan: str,
        old: KeyAttributes,
        new: KeyAttributes,
        *,
        tid_minutes: int,
        triplet: bool = False,
    ) -> tuple[str, ...]:
        return self._opened([old, new]).issue_key_change(
            meter_pan, old, new, tid_minutes=tid_minutes, triplet=triplet
        )

    def verify(self, meter_pan: str, attributes: KeyAttributes, digits: str) -> Apdu:
        return self._opened([attributes]).verify(meter_pan, attributes, digits)

    def key_check_value(self, sgc: str, krn: int) -> str:
        """Computed from the key itself, not read from the file."""
        return self._open((sgc, krn)).check_value

    def _opened(self, attributes: Iterable[KeyAttributes]) -> SecurityModule:
        slots = {(each.sgc, each.krn) for each in attributes}
        return SoftwareSecurityModule(
            {slot: self._open(slot) for slot in slots},
            self._tables,
            production=self._production,
        )

    def _open(self, slot: Slot) -> VendingKey:
        row = self._rows.get(slot)
        if row is None:
            raise TokenError(
                "key_unknown",
                f"No vending key for SGC {slot[0]}, KRN {slot[1]}; wrap it or correct both.",
            )
        octets = self._wrapping.unseal(
            bytes.fromhex(row.nonce), bytes.fromhex(row.sealed), row.about
        )
        return VendingKey(octets, ken=row.ken, base_date=row.base_date)


@dataclass(frozen=True, slots=True)
class Pkcs11Token:
    """Where the token is: the maker's library, the token's label, and the user's PIN."""

    library: Path
    label: str
    pin: SecretStr


class Pkcs11WrappingKey:
    """An AES-256 key inside a PKCS#11 token: sensitive, not extractable, never in this process.

    A lost session is opened once more before a call fails. One call at a time: a session carries
    one operation.
    """

    def __init__(self, token: Pkcs11Token) -> None:
        self._pkcs11 = _binding()
        self._token = token
        self._lock = threading.Lock()
        self._key: Any = None  # a pkcs11.SecretKey: the binding is an optional extra

    def __repr__(self) -> str:
        return f"<Pkcs11WrappingKey in token {self._token.label}>"

    def seal(self, nonce: bytes, clear: bytes, about: bytes) -> bytes:
        return self._run("encrypt", nonce, clear, about)

    def unseal(self, nonce: bytes, sealed: bytes, about: bytes) -> bytes:
        return self._run("decrypt", nonce, sealed, about)

    def create(self) -> None:
        """Make the key inside the token. Errors: TokenError `wrapping_key_exists`."""
        p = self._pkcs11
        with self._lock, _reported(p, self._token):
            session = self._session(writable=True)
            known = session.get_objects(
                {
                    p.Attribute.CLASS: p.ObjectClass.SECRET_KEY,
                    p.Attribute.LABEL: WRAPPING_KEY_LABEL,
                }
            )
            if any(known):
                raise TokenError(
                    "wrapping_key_exists",
                    f"Token {self._token.label} has its wrapping key already; leave --create out.",
                )
            session.generate_key(
                p.KeyType.AES,
                256,
                label=WRAPPING_KEY_LABEL,
                store=True,
                capabilities=p.MechanismFlag.ENCRYPT | p.MechanismFlag.DECRYPT,
                template={p.Attribute.SENSITIVE: True, p.Attribute.EXTRACTABLE: False},
            )
            session.close()

    def _run(self, operation: str, nonce: bytes, data: bytes, about: bytes) -> bytes:
        p = self._pkcs11
        refused = (p.EncryptedDataInvalid, p.EncryptedDataLenRange, p.GeneralError)
        with self._lock, _reported(p, self._token):
            for last in (False, True):
                try:
                    call = getattr(self._held_key(), operation)
                    param = p.GCMParams(nonce, about, TAG_BITS)
                    return bytes(call(data, mechanism=p.Mechanism.AES_GCM, mechanism_param=param))
                except refused:
                    # SoftHSM calls a tag that does not fit a general error.
                    raise TokenError(
                        "key_file_invalid",
                        "The token does not open this wrapped key: it was wrapped by another "
                        "token, or the file was changed; wrap the keys again.",
                    ) from None
                except p.PKCS11Error:
                    self._key = None
                    if last:
                        raise
        raise AssertionError("the second round returns or raises")

    def _held_key(self) -> Any:
        if self._key is None:
            p = self._pkcs11
            try:
                key = self._session(writable=False).get_key(
                    object_class=p.ObjectClass.SECRET_KEY, label=WRAPPING_KEY_LABEL
                )
            except p.NoSuchKey:
                raise TokenError(
                    "key_unknown",
                    f"Token {self._token.label} has no key {WRAPPING_KEY_LABEL}; "
                    "make it with `prepaid hsm wrap --create`.",
                ) from None
            if key[p.Attribute.EXTRACTABLE] or not key[p.Attribute.SENSITIVE]:
                raise TokenError(
                    "key_invalid",
                    f"The wrapping key in token {self._token.label} can be read out; "
                    "delete it and make one with `prepaid hsm wrap --create`.",
                )
            self._key = key
        return self._key

    def _session(self, *, writable: bool) -> Any:
        p = self._pkcs11
        found = p.lib(str(self._token.library)).get_token(token_label=self._token.label)
        pin = self._token.pin.get_secret_value()
        try:
            return found.open(rw=writable, user_pin=pin)
        except p.UserAlreadyLoggedIn:
            # The login belongs to the process; another session of ours has made it.
            return found.open(rw=writable)


@contextmanager
def _reported(binding: ModuleType, token: Pkcs11Token) -> Iterator[None]:
    """Turn what the token's library says into our refusals; the PIN is in none of them."""
    p = binding
    try:
        yield
    except (p.PinIncorrect, p.PinLocked, p.PinLenRange, p.PinInvalid):
        advice = "the PIN is refused; correct it before the token locks itself"
    except p.NoSuchToken:
        advice = "no token of this name is there; connect it or correct the name"
    except p.PKCS11Error as error:
        advice = f"{type(error).__name__} {error}".strip() + "; see that it is connected"
    else:
        return
    raise SecurityModuleAway(f"Token {token.label}: {advice}.")


def _binding() -> ModuleType:
    try:
        import pkcs11  # noqa: PLC0415 - an extra: only who has a token needs it
    except ImportError:
        raise SecurityModuleAway(
            "The PKCS#11 binding is not installed; install prepaid with its extra `hsm`."
        ) from None
    return pkcs11
