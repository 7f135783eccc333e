"""Meter identity: DRN and MeterPAN with their check digits (IEC 62055-41 6.1.2).

>>> drn("07", "12345678")
'07123456787'
>>> meter_pan("600727", "07123456787")
'600727071234567873'
>>> validate_meter_pan("6007 2707 1234 5678 73")
'600727071234567873'
>>> format_meter_pan("600727071234567873")
'6007 2707 1234 5678 73'
>>> parts(validate_meter_pan("000001000000000082"))
('0000', '0100000000008')
>>> validate_drn("12345678904")
Traceback (most recent call last):
    ...
tokens.errors.TokenError: DRN 12345678904 has check digit 4 where 3 is due; type it again.
"""

from tokens.errors import TokenError

# ISO 7812: 600727 is the STS Association's issuer number for meters with a two-digit maker code,
# 0000 stands for meters with a four-digit one. Nothing else may precede a DRN.
DRN_DIGITS_BY_IIN = {"600727": 11, "0000": 13}
MAKER_DIGITS_BY_DRN = {11: 2, 13: 4}
SERIAL_DIGITS = 8
PAN_DIGITS = 18
# People group digits with blanks and hyphens, and type the digits of their own keyboard.
KEYBOARD_DIGITS = str.maketrans("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹", "0123456789" * 2)
TYPED = KEYBOARD_DIGITS | dict.fromkeys(map(ord, " -\u00a0\u202f\t\r\n"))


def compact(text: str) -> str:
    """The digits alone, in ASCII; what is no digit, blank or hyphen stays and is refused later."""
    return text.translate(TYPED)


def is_digits(text: str) -> bool:
    """ASCII digits only: `str.isdigit` alone would let other scripts' digits through."""
    return text.isascii() and text.isdigit()


def check_digit(payload: str) -> str:
    """The digit that completes `payload`: Luhn's, modulo 10, doubling from the right."""
    if not is_digits(payload):
        raise TokenError("number_invalid", f"{payload!r} is not a row of digits; use 0 to 9 only.")
    total = 0
    for place, digit in enumerate(reversed(payload)):
        weighted = int(digit) * (2 if place % 2 == 0 else 1)
        total += weighted - 9 if weighted > 9 else weighted
    return str(-total % 10)


def has_valid_check_digit(number: str) -> bool:
    return len(number) > 1 and is_digits(number) and check_digit(number[:-1]) == number[-1]


def drn(maker: str, serial: str) -> str:
    """The decoder reference number of `maker` (2 or 4 digits) and `serial` (up to 8 digits)."""
    if len(maker) not in MAKER_DIGITS_BY_DRN.values() or not is_digits(maker):
        raise TokenError("number_invalid", f"Maker code {maker!r} is not 2 or 4 digits.")
    if not is_digits(serial) or len(serial) > SERIAL_DIGITS:
        raise TokenError("number_invalid", f"Serial number {serial!r} is not 1 to 8 digits.")
    payload = maker + serial.zfill(SERIAL_DIGITS)
    return payload + check_digit(payload)


def validate_drn(text: str) -> str:
    """`text` without separators, if it is a DRN of 11 or 13 digits."""
    number = compact(text)
    if not is_digits(number) or len(number) not in MAKER_DIGITS_BY_DRN:
        raise TokenError("number_invalid", f"DRN {text!r} is not 11 or 13 digits.")
    _demand_check_digit("DRN", number)
    return number


def meter_pan(iin: str, drn: str) -> str:
    """The 18-digit MeterPAN of an issuer number and a DRN."""
    number = validate_drn(drn)
    if DRN_DIGITS_BY_IIN.get(iin) != len(number):
        raise TokenError(
            "number_invalid",
            f"IIN {iin!r} does not go with a DRN of {len(number)} digits; "
            "600727 takes 11 digits, 0000 takes 13.",
        )
    return iin + number + check_digit(iin + number)


def validate_meter_pan(text: str) -> str:
    """`text` without separators, if it is a MeterPAN: 18 digits, known IIN, both check digits."""
    number = compact(text)
    if not is_digits(number) or len(number) != PAN_DIGITS:
        raise TokenError("number_invalid", f"MeterPAN {text!r} is not 18 digits.")
    _demand_check_digit("MeterPAN", number)
    validate_drn(parts(number)[1])
    return number


def to_meter_pan(text: str) -> str:
    """The MeterPAN of a meter given by its MeterPAN or its DRN, as people give it."""
    number = compact(text)
    for iin, size in DRN_DIGITS_BY_IIN.items():
        if len(number) == size:
            return meter_pan(iin, number)
    return validate_meter_pan(number)


def parts(meter_pan: str) -> tuple[str, str]:
    """IIN and DRN of a MeterPAN."""
    for iin in DRN_DIGITS_BY_IIN:
        if meter_pan.startswith(iin):
            return iin, meter_pan[len(iin) : -1]
    raise TokenError(
        "number_invalid", f"MeterPAN {meter_pan} starts with neither 600727 nor 0000; check it."
    )


def format_meter_pan(meter_pan: str) -> str:
    return grouped(validate_meter_pan(meter_pan))


def grouped(digits: str) -> str:
    """Groups of four, as tokens and meter numbers are printed and typed."""
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def _demand_check_digit(what: str, number: str) -> None:
    due = check_digit(number[:-1])
    if number[-1] != due:
        raise TokenError(
            "number_invalid",
            f"{what} {number} has check digit {number[-1]} where {due} is due; type it again.",
        )
