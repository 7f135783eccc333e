"""Payments that a channel has, or may have, and that are not credited yet.

While one waits its account's supply is not cut, for so long as the centre's settings say. Whoever
takes payments from a channel that answers late notes them here, and settles them when they are
credited (`store.vending` does that itself) or will never be.
"""

from typing import Literal

from psycopg import Connection

from store import decisions
from store.settlement import lock_accounts, settle_account
from store.sql import query
from store.terms import TermsCache

# received: the channel has the money; pending: it is asked; suspect: asked, and nobody answered.
State = Literal["received", "pending", "suspect"]


def note(
    conn: Connection,
    account_id: int,
    channel: str,
    partner_txn_id: str,
    state: State,
    *,
    amount_micro: int,
    received_ms: int,
) -> None:
    """Money is on its way to an account; the same payment again moves its state only."""
    conn.execute(
        query("note_unsettled_payment"),
        {
            "channel": channel,
            "partner_txn_id": partner_txn_id,
            "account": account_id,
            "state": state,
            "amount_micro": amount_micro,
            "received_ms": received_ms,
        },
    )


def credited(conn: Connection, channel: str, partner_txn_id: str, now_ms: int) -> None:
    """The payment has just been credited; its settlement decides about the supply."""
    of = {"channel": channel, "partner_txn_id": partner_txn_id, "now_ms": now_ms}
    conn.execute(query("settle_unsettled_payment"), of)


def settle(
    conn: Connection, terms: TermsCache, channel: str, partner_txn_id: str, now_ms: int
) -> bool:
    """The payment will never come: decide about the supply again; False when none waited."""
    of = {"channel": channel, "partner_txn_id": partner_txn_id}
    with conn.transaction():
        row = conn.execute(query("account_of_unsettled"), of).fetchone()
        if row is None:
            return False
        state = lock_accounts(conn, [row[0]])[row[0]]
        if conn.execute(query("settle_unsettled_payment"), of | {"now_ms": now_ms}).fetchone():
            settled = settle_account(conn, terms, state, (), now_ms)
            decisions.record(conn, [settled], now_ms)
            return True
        return False
