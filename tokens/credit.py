"""TransferCredit tokens: from an amount to an APDU and back (IEC 62055-41 6.2.2)."""

from dataclasses import dataclass

from tokens import amount, apdu
from tokens.apdu import Apdu
from tokens.errors import TokenError


@dataclass(frozen=True, slots=True)
class Credit:
    """`amount` smallest units (`apdu.AMOUNT_UNITS`) of class 0, subclass `subclass`.

    Units count up from zero; currency (subclass 4 to 7) is hundred-thousandths and may be negative.
    """

    subclass: int
    amount: int


def transfer_credit(credit: Credit, *, tid: int, rnd: int) -> Apdu:
    """The APDU that carries at least `credit`. Currency has no RND: its place holds S&E."""
    if credit.subclass not in apdu.AMOUNT_UNITS:
        raise TokenError(
            "unsupported_subclass", f"Credit subclass {credit.subclass} is reserved; use 0 to 7."
        )
    if apdu.is_currency(apdu.CREDIT, credit.subclass):
        coded = amount.encode_currency(credit.amount)
        fields = {"s_and_e": coded.s_and_e, "tid": tid, "amount": coded.amount}
    else:
        fields = {"rnd": rnd, "tid": tid, "amount": amount.encode_amount(credit.amount)}
    return Apdu(apdu.CREDIT, credit.subclass, fields)


def credit_of(token: Apdu) -> Credit:
    """What a TransferCredit token is worth."""
    fields = token.fields
    if apdu.is_currency(token.cls, token.subclass):
        return Credit(token.subclass, amount.decode_currency(fields["s_and_e"], fields["amount"]))
    return Credit(token.subclass, amount.decode_amount(fields["amount"]))
