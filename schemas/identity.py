"""Who is meant: meter numbers, gateway names, OBIS register names, command ids.

Only the shape is judged here; check digits (Luhn) are judged by `tokens`.
"""

import re

from schemas.errors import DomainError

# IEC 62055-41: an 11 or 13 digit decoder reference number (DRN), or the 18 digit MeterPAN.
METER_NUMBER_LENGTHS = frozenset({11, 13, 18})
METER_NUMBER = f"^(?:{'|'.join(f'[0-9]{{{each}}}' for each in sorted(METER_NUMBER_LENGTHS))})$"
# A concentrator's own name; letters that need no escape in topics, certificates and file names.
GATEWAY_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
# IEC 62056-61 value groups C.D.E, each one byte, without leading zeros.
_GROUP = r"(?:[0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
OBIS = rf"^{_GROUP}\.{_GROUP}\.{_GROUP}$"

ACTIVE_IMPORT = "1.8.0"

# `$` in Python also stands before a final newline; fullmatch does not let one in.
is_meter_number = re.compile(METER_NUMBER[1:-1]).fullmatch
is_gateway_name = re.compile(GATEWAY_NAME[1:-1]).fullmatch
is_obis = re.compile(OBIS[1:-1]).fullmatch


def parse_meter_number(text: str) -> str:
    """The digits of a meter number, spaces and dashes removed.

    Raises DomainError `bad_meter_number`.
    """
    digits = text.replace(" ", "").replace("-", "")
    if is_meter_number(digits) is None:
        raise DomainError(
            "bad_meter_number",
            f"Write the 11 or 13 digits of the DRN or the 18 of the MeterPAN, not {text!r:.60}.",
        )
    return digits


def command_id(now_ms: int, entropy: bytes) -> str:
    """A UUIDv7 (RFC 9562): sorts by `now_ms` (48 bits), then by the 10 random bytes of `entropy`.

    Raises DomainError `bad_command_id` for other lengths or instants before 1970 or after 10889.
    """
    if len(entropy) != 10 or not 0 <= now_ms < 1 << 48:
        raise DomainError(
            "bad_command_id",
            "A command id takes 10 random bytes and UTC milliseconds from 1970 on.",
        )
    bits = int.from_bytes(entropy, "big")
    rand_a, rand_b = bits >> 68, bits & ((1 << 62) - 1)
    text = f"{now_ms << 80 | 7 << 76 | rand_a << 64 | 2 << 62 | rand_b:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
