"""What can come instead of an answer.

PartnerError
├── Unusable         what was given to the client cannot be used: an address, a key, an amount
├── Refused          the utility said no; nothing was done; `code` is stable
└── OutcomeUnknown   nobody answered: neither done nor failed, ask by the payment's number
    └── Unexpected   something answered that is not this contract's
"""

from collections.abc import Sequence


class PartnerError(Exception):
    """Root of this client's errors; no message holds a key, a signature or a body."""


class Unusable(PartnerError):  # noqa: N818 - a state of the world
    """Mend the program or its settings."""


class Refused(PartnerError):  # noqa: N818 - a state of the world
    """Nothing was done: `code` for programs, the message for people, `pointers` to the fields."""

    def __init__(self, status: int, code: str, detail: str, pointers: Sequence[str] = ()) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        self.code = code
        self.pointers = tuple(pointers)


class OutcomeUnknown(PartnerError):  # noqa: N818 - a state of the world
    """The request may have been done. Ask for the payment by its number, or send the same again; do
    not give the money back before the answer is known.
    """


class Unexpected(OutcomeUnknown):
    """An answer without the fields of the contract: something else stands at this address."""
