"""Which payments wait for a person, as a table; and what a till can count."""

import pytest

from schemas.quantities import in_coins
from store.suspicion import Earlier, suspicion

MINUTE = 60_000
NOW = 100 * MINUTE

# ours: what came before, newest first, as "CHANNEL AMOUNT MINUTES_AGO"
CASES = """
 payment     | came before                               | waits as
 bank 500    |                                           | -
 bank 500    | bank 50 9000, bank 50 9900                | -
 bank 500    | bank 50 9000, bank 50 9900, bank 50 9990  | unusual_amount
 bank 400    | bank 50 9000, bank 40 9900, bank 60 9990  | unusual_amount
 bank 399    | bank 50 9000, bank 40 9900, bank 60 9990  | -
 bank 50     | wallet 50 0                               | paid_twice
 bank 50     | wallet 50 10                              | paid_twice
 bank 50     | wallet 50 11                              | -
 bank 50     | wallet 51 1                               | -
 bank 50     | bank 50 1                                 | -
 bank 50     | bank 7 1, wallet 50 2                     | paid_twice
"""


def cases() -> list[tuple[str, str, str]]:
    rows = [line.split("|") for line in CASES.strip().splitlines()[1:]]
    return [(payment.strip(), before.strip(), waits.strip()) for payment, before, waits in rows]


@pytest.mark.parametrize(("payment", "before", "waits"), cases())
def test_a_payment_waits_when_something_speaks_against_it(
    payment: str, before: str, waits: str
) -> None:
    channel, amount = payment.split()
    earlier = []
    for text in filter(None, before.split(", ")):
        by, micro, minutes = text.split()
        at_ms = NOW - int(minutes) * MINUTE
        earlier.append(Earlier(by, int(micro) * 10**6, at_ms, at_ms))
    found = suspicion(channel, int(amount) * 10**6, NOW, NOW, earlier)
    assert (found.kind if found else "-") == waits
    assert found is None or "ask the payer" in found.detail


@pytest.mark.parametrize(
    ("amount", "counted"),
    [("50.00", "50.00"), ("50.09", "50.00"), ("50.10", "50.20"), ("50.13", "50.20"), ("0.05", "0")],
)
def test_a_till_counts_the_nearest_coins(amount: str, counted: str) -> None:
    micro = round(float(amount) * 100) * 10_000
    assert in_coins(micro, 200_000) == round(float(counted) * 100) * 10_000
