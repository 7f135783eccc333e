"""Which token somebody may have meant who made one slip while typing.

The 16-bit check lets about one wrong row in 65 536 pass, and some 200 rows are tried: a finding is
a good question to ask the customer, not a proof.
"""

from collections.abc import Callable, Iterator

from tokens import numbers
from tokens.apdu import Apdu
from tokens.codec import TOKEN_DIGITS
from tokens.errors import TokenError

# Refusals that say nothing but that these digits are no token of this meter.
UNREADABLE = frozenset({"crc_error", "format_error", "unsupported_class", "unsupported_subclass"})


def likely_slips(digits: str, read: Callable[[str], Apdu]) -> tuple[tuple[str, Apdu], ...]:
    """Rows of 20 digits, one slip away from `digits`, that `read` authenticates.

    Tried: one wrong digit, two neighbours swapped, one digit missing, one too many. Errors: what
    `read` refuses for another reason than the digits (a key, a limit, a module that is away).
    """
    if not numbers.is_digits(digits):
        return ()
    found: dict[str, Apdu] = {}
    for candidate in _candidates(digits):
        try:
            found[candidate] = read(candidate)
        except TokenError as error:
            if error.code not in UNREADABLE:
                raise
    return tuple(sorted(found.items()))


def _candidates(digits: str) -> Iterator[str]:
    if len(digits) == TOKEN_DIGITS - 1:
        for at in range(TOKEN_DIGITS):
            yield from (digits[:at] + digit + digits[at:] for digit in "0123456789")
    elif len(digits) == TOKEN_DIGITS + 1:
        yield from (digits[:at] + digits[at + 1 :] for at in range(len(digits)))
    elif len(digits) == TOKEN_DIGITS:
        for at, was in enumerate(digits):
            others = (digit for digit in "0123456789" if digit != was)
            yield from (digits[:at] + digit + digits[at + 1 :] for digit in others)
        for at in range(TOKEN_DIGITS - 1):
            if digits[at] != digits[at + 1]:
                yield digits[:at] + digits[at + 1] + digits[at] + digits[at + 2 :]
