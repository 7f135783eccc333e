"""Vending keys, decoder keys, and the way from one to the other (IEC 62055-41 6.5).

DKGA02 and DKGA04 are offered. DKGA01 and 03 are withdrawn or known from one source only; EA09 is
withdrawn; a common key (KT 3) under DKGA04 is refused because sources disagree on the MeterPAN
that enters it. Each refusal says so.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import ClassVar, Never, Self, SupportsIndex

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from tokens import apdu, misty1, numbers, sta, tid
from tokens.errors import TokenError

DES_KEY_OCTETS = 8
KDF_KEY_OCTETS = 20
DECODER_KEY_OCTETS = {apdu.STA: sta.KEY_OCTETS, apdu.MISTY1: misty1.KEY_OCTETS}
KEY_CHECK_VALUE_OCTETS = 3

# Key types: the maker's initialisation key, the default key of a supply group, the unique key of
# one meter, the common key of a group.
DITK, DDTK, DUTK, DCTK = range(4)
KEY_TYPES = {DITK: "DITK", DDTK: "DDTK", DUTK: "DUTK", DCTK: "DCTK"}


class Key:
    """Octets that show themselves only when asked by name."""

    __slots__ = ("_octets",)
    what: ClassVar[str] = "key"

    def __init__(self, octets: bytes) -> None:
        self._octets = bytes(octets)

    def reveal(self) -> bytes:
        """The octets. Every call of this is a place to audit."""
        return self._octets

    def __repr__(self) -> str:
        return f"<{self.what}, {len(self._octets)} bytes, hidden>"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return hmac.compare_digest(self._octets, other._octets)

    __hash__ = None  # type: ignore[assignment]  # a key is no dictionary key: hashes leak

    def __reduce_ex__(self, protocol: SupportsIndex) -> Never:
        raise TypeError(f"A {self.what} does not pickle; carry it in a sealed key file.")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class VendingKey(Key):
    """A supply group's key: 8 bytes for DKGA02 (odd parity), 20 bytes for DKGA04.

    `ken` is its key expiry number and `base_date` the one it stands for, where they are known
    (None means that the meter's record alone decides).
    """

    __slots__ = ("base_date", "ken")
    what = "vending key"

    def __init__(
        self, octets: bytes, *, ken: int | None = None, base_date: int | None = None
    ) -> None:
        super().__init__(octets)
        if len(octets) not in (DES_KEY_OCTETS, KDF_KEY_OCTETS):
            raise TokenError(
                "key_invalid", f"A vending key is 8 or 20 bytes; this one has {len(octets)}."
            )
        if len(octets) == DES_KEY_OCTETS and any(o.bit_count() % 2 == 0 for o in octets):
            raise TokenError(
                "key_invalid",
                "This 8-byte vending key has a byte of even parity, so it was mistyped or damaged; "
                "enter it again.",
            )
        if ken is not None and not 0 <= ken <= tid.KEN_NEVER_EXPIRES:
            raise TokenError("key_invalid", f"KEN {ken} is not 0 to 255.")
        if base_date is not None:
            tid.base_date_ms(base_date)
        self.ken = ken
        self.base_date = base_date

    @property
    def dkga(self) -> int:
        return 2 if len(self._octets) == DES_KEY_OCTETS else 4

    @property
    def check_value(self) -> str:
        """Six hex digits that identify the key and say nothing about it.

        8-byte keys: DES of a zero block, the custom of the field. 20-byte keys have no custom of
        their own: HMAC-SHA-256 of a zero block here.
        """
        zeros = bytes(8)
        if self.dkga == 2:
            digest = des_encrypt(self._octets, zeros)
        else:
            digest = hmac.digest(self._octets, zeros, hashlib.sha256)
        return digest[:KEY_CHECK_VALUE_OCTETS].hex().upper()

    @classmethod
    def generate(cls, dkga: int, random_octets: bytes, *, base_date: int | None = None) -> Self:
        """A key that does not expire, from random octets (8 for DKGA02, whose parity is put right;
        20 for DKGA04).

        For demonstration and test: the keys of real meters come from a key management centre.
        """
        if len(random_octets) != (DES_KEY_OCTETS if dkga == 2 else KDF_KEY_OCTETS):
            raise TokenError(
                "key_invalid", f"DKGA{dkga:02} does not take {len(random_octets)} random bytes."
            )
        if dkga == 2:
            random_octets = bytes(o ^ (o.bit_count() + 1) % 2 for o in random_octets)
        return cls(random_octets, ken=tid.KEN_NEVER_EXPIRES, base_date=base_date)

    @classmethod
    def of_test_sheet(cls, octets: bytes) -> Self:
        """A test key as conformance sheets print it: 20-byte keys with one more byte at the end.

        For test keys only: a byte too many in any other key is a mistake to be told.
        """
        printed = len(octets) == KDF_KEY_OCTETS + 1
        return cls(octets[:KDF_KEY_OCTETS] if printed else octets)


class DecoderKey(Key):
    """The key inside one meter: 8 bytes for EA07, 16 bytes for EA11."""

    __slots__ = ()
    what = "decoder key"

    def __init__(self, octets: bytes) -> None:
        super().__init__(octets)
        if len(octets) not in DECODER_KEY_OCTETS.values():
            raise TokenError(
                "key_invalid", f"A decoder key is 8 or 16 bytes; this one has {len(octets)}."
            )

    @property
    def ea(self) -> int:
        return apdu.STA if len(self._octets) == sta.KEY_OCTETS else apdu.MISTY1


@dataclass(frozen=True, slots=True)
class KeyAttributes:
    """What belongs to a decoder key besides its octets (IEC 62055-41 6.1.4 to 6.1.10).

    sgc  supply group code, six digits      krn  key revision number, 1 to 9
    kt   key type, 0 to 3                   ken  key expiry number, 0 to 255
    ti   tariff index, two digits           ea   encryption algorithm, 7 or 11
    dkga decoder key generation algorithm, 2 or 4; base_date 1993, 2014 or 2035
    """

    sgc: str
    krn: int
    kt: int
    ken: int
    ti: str
    base_date: int
    ea: int
    dkga: int

    def __post_init__(self) -> None:
        if len(self.sgc) != 6 or not numbers.is_digits(self.sgc):
            raise TokenError("number_invalid", f"SGC {self.sgc!r} is not six digits.")
        if len(self.ti) != 2 or not numbers.is_digits(self.ti):
            raise TokenError("number_invalid", f"TI {self.ti!r} is not two digits.")
        if not 1 <= self.krn <= 9:
            raise TokenError("number_invalid", f"KRN {self.krn} is not 1 to 9.")
        if self.kt not in KEY_TYPES:
            raise TokenError("number_invalid", f"KT {self.kt} is not 0 to 3.")
        if not 0 <= self.ken <= tid.KEN_NEVER_EXPIRES:
            raise TokenError("number_invalid", f"KEN {self.ken} is not 0 to 255.")
        tid.base_date_ms(self.base_date)
        _demand_offered(self.ea, self.dkga)


def demand_vendable(attributes: KeyAttributes) -> None:
    """Refuse a key type that no vending key leads to. Errors: TokenError `key_type_refused`."""
    if attributes.kt == DITK:
        raise TokenError(
            "key_type_refused",
            "KT 0 is the maker's initialisation key, which no vending key yields; "
            "ask the maker for it or move the meter to KT 1 or 2.",
        )
    if attributes.kt == DCTK and attributes.dkga == 4:
        raise TokenError(
            "key_type_refused",
            "A common key (KT 3) under DKGA04 is not offered: sources disagree on how it is made; "
            "use a unique key (KT 2).",
        )


def decoder_key(vending_key: VendingKey, meter_pan: str, attributes: KeyAttributes) -> DecoderKey:
    """The key of the meter `meter_pan` under `vending_key`."""
    meter_pan = numbers.validate_meter_pan(meter_pan)
    demand_vendable(attributes)
    if vending_key.dkga != attributes.dkga:
        raise TokenError(
            "key_mismatch",
            f"The meter asks for DKGA{attributes.dkga:02} and the vending key of SGC "
            f"{attributes.sgc}, KRN {attributes.krn} is made for DKGA{vending_key.dkga:02}; "
            "correct the meter's record or load the other key.",
        )
    if attributes.dkga == 2:
        return _dkga02(vending_key, meter_pan, attributes)
    return _dkga04(vending_key, meter_pan, attributes)


def pan_block(meter_pan: str, kt: int) -> str:
    """16 digits: the last of the IIN, then the DRN, which is zeros for a common key."""
    iin, drn = numbers.parts(meter_pan)
    return iin[len(drn) - 16 :] + ("0" * len(drn) if kt == DCTK else drn)


def control_block(attributes: KeyAttributes) -> str:
    a = attributes
    return f"{a.kt}{a.sgc}{a.ti}{a.krn}FFFFFF"


def data_block(meter_pan: str, attributes: KeyAttributes) -> bytes:
    """What DKGA04 hashes: two counted lists of length-prefixed ASCII digits, then the key length.

    The shape is that of SP 800-108 in feedback mode: label, a zero octet, context, length.
    """
    a = attributes
    label = ("04", f"{a.base_date % 100:02}", f"{a.ea:02}", a.ti)
    context = (a.sgc, str(a.kt), str(a.krn), meter_pan)
    bits = DECODER_KEY_OCTETS[a.ea] * 8
    return _counted(label) + b"\x00" + _counted(context) + bits.to_bytes(4, "big")


def des_encrypt(key: bytes, block: bytes) -> bytes:
    """One 8-byte block under single DES: triple DES with three equal keys."""
    # Obsolete by name and in fact; DKGA02 is defined with it and millions of meters hold its keys.
    encryptor = Cipher(TripleDES(key * 3), modes.ECB()).encryptor()  # noqa: S305  (as defined)
    return encryptor.update(block) + encryptor.finalize()


def _counted(items: tuple[str, ...]) -> bytes:
    return bytes([len(items)]) + b"".join(
        bytes([len(item)]) + item.encode("ascii") for item in items
    )


def _dkga02(vending_key: VendingKey, meter_pan: str, attributes: KeyAttributes) -> DecoderKey:
    pan = bytes.fromhex(pan_block(meter_pan, attributes.kt))
    block = _xor(pan, bytes.fromhex(control_block(attributes)))
    octets = vending_key.reveal()
    return DecoderKey(_xor(_xor(des_encrypt(octets, block), block), octets))


def _dkga04(vending_key: VendingKey, meter_pan: str, attributes: KeyAttributes) -> DecoderKey:
    digest = hmac.digest(vending_key.reveal(), data_block(meter_pan, attributes), hashlib.sha256)
    return DecoderKey(digest[: DECODER_KEY_OCTETS[attributes.ea]])


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _demand_offered(ea: int, dkga: int) -> None:
    if ea not in apdu.ALGORITHMS:
        raise TokenError(
            "algorithm_refused", f"EA{ea:02} is not offered; use EA07 or EA11 (EA09 is withdrawn)."
        )
    if dkga not in (2, 4):
        raise TokenError(
            "algorithm_refused",
            f"DKGA{dkga:02} is not offered; use DKGA02 or DKGA04 (01 and 03 are withdrawn).",
        )
    if ea == apdu.MISTY1 and dkga == 2:
        raise TokenError(
            "algorithm_refused", "DKGA02 makes 8-byte keys and EA11 takes 16; use DKGA04 with EA11."
        )
