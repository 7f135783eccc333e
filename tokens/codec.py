"""Twenty digits to an APDU and back (IEC 62055-41 6.4).

decode(encode(apdu, cipher), cipher) is apdu, for every layout and both algorithms.
"""

import hmac
from typing import Protocol

from tokens import apdu as data_unit
from tokens import crc, misty1, numbers, sta
from tokens.apdu import CONTENT_BITS, NON_METER_SPECIFIC, RESERVED_CLASS, Apdu
from tokens.errors import TokenError
from tokens.keys import DecoderKey

TOKEN_DIGITS = 20
TOKEN_BITS = 66
TOKEN_LAST = (1 << TOKEN_BITS) - 1
CRC_BITS = 16
BLOCK_MASK = (1 << 64) - 1


class BlockCipher(Protocol):
    """A 64-bit block cipher under one key."""

    def encrypt(self, block: int) -> int: ...

    def decrypt(self, block: int) -> int: ...


def block_cipher(
    key: DecoderKey, tables: sta.SubstitutionTables = sta.SAMPLE_TABLES
) -> BlockCipher:
    """The cipher that `key` belongs to; `tables` matter to EA07 only."""
    if key.ea == data_unit.STA:
        return sta.Sta(key.reveal(), tables)
    return misty1.Misty1(key.reveal())


def clear_block(apdu: Apdu, ea: int) -> int:
    """64 bits: SubClass, content, CRC."""
    row = data_unit.layout(apdu.cls, apdu.subclass, ea)
    values = {name: value for name, value in apdu.fields.items() if name != "pad"}
    if apdu.fields.get("pad", 0):
        raise TokenError("field_out_of_range", f"The padding of {row.name} is zero; leave it out.")
    body = apdu.subclass << CONTENT_BITS | data_unit.pack(row, values)
    currency = data_unit.is_currency(apdu.cls, apdu.subclass)
    return body << CRC_BITS | crc.token_crc(apdu.cls << 48 | body, currency=currency)


def encode(apdu: Apdu, key: DecoderKey, tables: sta.SubstitutionTables = sta.SAMPLE_TABLES) -> str:
    """The 20 digits of a token of class 0 or 2 under the meter's key."""
    if apdu.cls == NON_METER_SPECIFIC:
        return encode_clear(apdu)
    block = block_cipher(key, tables).encrypt(clear_block(apdu, key.ea))
    return join(apdu.cls, block)


def encode_clear(apdu: Apdu) -> str:
    """The 20 digits of a token of class 1, which is the same for every meter."""
    if apdu.cls != NON_METER_SPECIFIC:
        raise TokenError(
            "key_unknown", f"A token of class {apdu.cls} is encrypted; name the meter's key."
        )
    # Class 1 layouts do not depend on the algorithm.
    return join(apdu.cls, clear_block(apdu, data_unit.STA))


def decode(
    digits: str, key: DecoderKey, tables: sta.SubstitutionTables = sta.SAMPLE_TABLES
) -> Apdu:
    """The token in `digits`, read with the meter's key."""
    cls, block = split(digits)
    if cls == NON_METER_SPECIFIC:
        return decode_clear(digits)
    return read_clear_block(cls, block_cipher(key, tables).decrypt(block), key.ea)


def decode_clear(digits: str) -> Apdu:
    """The token of class 1 in `digits`; no key is needed."""
    cls, block = split(digits)
    if cls != NON_METER_SPECIFIC:
        raise TokenError(
            "key_unknown",
            f"This token is of class {cls} and encrypted; name the meter to read more of it.",
        )
    return read_clear_block(cls, block, data_unit.STA)


def read_clear_block(cls: int, block: int, ea: int) -> Apdu:
    """Authenticate a decrypted block, then name its fields.

    The CRC comes first: under a wrong key the subclass is noise, and "unknown subclass" would
    send people looking in the wrong place.
    """
    body = block >> CRC_BITS
    subclass = body >> CONTENT_BITS
    due = crc.token_crc(cls << 48 | body, currency=data_unit.is_currency(cls, subclass))
    came = block & 0xFFFF
    # How long the comparison takes says nothing about how near a guess was.
    if not hmac.compare_digest(came.to_bytes(2, "big"), due.to_bytes(2, "big")):
        raise TokenError(
            "crc_error",
            "The token does not authenticate: it is for another meter or another key, "
            "or it was mistyped.",
        )
    row = data_unit.layout(cls, subclass, ea)
    return Apdu(cls, subclass, data_unit.unpack(row, body & (1 << CONTENT_BITS) - 1))


def join(cls: int, block: int) -> str:
    """The printed form: Class takes bits 28 and 27, whose two bits move to the top."""
    displaced = block >> 27 & 0b11
    value = displaced << 64 | block & ~(0b11 << 27) | cls << 27
    return f"{value:0{TOKEN_DIGITS}}"


def split(digits: str) -> tuple[int, int]:
    """Class and 64-bit block of a printed token; class 3 is refused before any decryption."""
    if len(digits) != TOKEN_DIGITS or not numbers.is_digits(digits):
        raise TokenError("format_error", "A token is 20 digits; count and type them again.")
    value = int(digits)
    if value > TOKEN_LAST:
        raise TokenError(
            "format_error",
            f"A token is at most {TOKEN_LAST}; these digits are no STS token.",
        )
    cls = value >> 27 & 0b11
    if cls == RESERVED_CLASS:
        raise TokenError(
            "unsupported_class", "Class 3 is reserved, so no meter takes this token; type it again."
        )
    return cls, value & BLOCK_MASK & ~(0b11 << 27) | value >> 64 << 27
