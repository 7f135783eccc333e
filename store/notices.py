"""Notice before a cut: told to the customer as the credit runs low, over as the credit is back.

Where a centre asks for notice, the meter's display carries it: a `display` command counts from the
moment that the broker has it, unless the meter would not show it. Other channels write their own
rows with the instant of delivery.
"""

from collections.abc import Mapping, Sequence

from psycopg import Connection

from store import centres, supply
from store.sql import query
from store.supply import InstalledMeter

# A notice that the meter did not take is said again after this long.
AGAIN_MS = 24 * 3600 * 1000
TEXT = "Credit low: supply may be cut"


def announce(
    conn: Connection, accounts: Sequence[int], meters: Mapping[int, InstalledMeter], now_ms: int
) -> int:
    """Give notice to accounts whose credit ran low and that have none yet, where their centre asks
    for it. Returns how many were told.
    """
    served = [account for account in accounts if account in meters]
    if not served:
        return 0
    settings = centres.settings_of(conn, (meters[account].centre_id for account in served))
    asking = [
        account
        for account in served
        if settings[meters[account].centre_id].notice_hours is not None
    ]
    if not asking:
        return 0
    found = conn.execute(query("accounts_with_notice"), {"accounts": asking})
    told = {account for (account,) in found}
    for account in asking:
        if account not in told:
            say(conn, account, meters[account].id, now_ms)
    return len(asking) - len(told)


def say(conn: Connection, account: int, meter_id: int, now_ms: int) -> None:
    """Put the notice on the meter's display."""
    command = supply.queue(conn, meter_id, "display", {"text": TEXT}, now_ms, now_ms + AGAIN_MS)
    conn.execute(
        query("insert_cut_notice"), {"account": account, "command": command, "now_ms": now_ms}
    )


def lapse(conn: Connection, accounts: Sequence[int], now_ms: int) -> None:
    """The credit of these accounts is back: the next cut needs a notice of its own."""
    conn.execute(query("lapse_cut_notices"), {"accounts": list(accounts), "now_ms": now_ms})
