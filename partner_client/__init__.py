"""A bank's or wallet's side of the partner API: typed, signed, safe to repeat (docs/partners.md).

Stands apart from the server: the standard library and httpx, nothing of ours.
"""

from partner_client.client import Client
from partner_client.daily_file import DailyFile, Line
from partner_client.errors import OutcomeUnknown, PartnerError, Refused, Unexpected, Unusable
from partner_client.forms import (
    Change,
    Item,
    Lookup,
    Money,
    Moved,
    NamedQuote,
    Payment,
    Quote,
    QuoteLine,
    Standing,
    Step,
)
from partner_client.signing import Keys

__all__ = [
    "Change",
    "Client",
    "DailyFile",
    "Item",
    "Keys",
    "Line",
    "Lookup",
    "Money",
    "Moved",
    "NamedQuote",
    "OutcomeUnknown",
    "PartnerError",
    "Payment",
    "Quote",
    "QuoteLine",
    "Refused",
    "Standing",
    "Step",
    "Unexpected",
    "Unusable",
]
