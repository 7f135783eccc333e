"""What must hold after readings of a whole fleet: stored, debited, and as expected twice."""

from typing import Any

from psycopg import Connection

from benchmarks import population
from benchmarks.report import Report
from benchmarks.sql import statement
from store import books
from store.settlement import read_account
from store.terms import TermsCache

# Accounts that are rated again from their first fact on.
RATED_AGAIN = 200


def count(conn: Connection[Any], name: str) -> int:
    """The one number that a statement answers."""
    row = conn.execute(statement(name)).fetchone()
    return 0 if row is None else int(row[0])


def check_fleet(report: Report, conn: Connection[Any], meters: int, slot: int, when: str) -> None:
    """Every meter has said every slot up to this one, and nothing else was said."""
    stored, refused = count(conn, "count_readings"), count(conn, "count_quarantined")
    sent = meters * slot
    wrong = [] if (stored, refused) == (sent, 0) else [
        f"{sent} sent, {stored} stored, {refused} refused"
    ]  # fmt: skip
    report.check(f"{when}: stored = sent", wrong)
    expected = population.expected_balance_micro(slot)
    report.check(
        f"{when}: every balance is the independent expectation",
        [
            f"{accounts} accounts have {balance}, not {expected}"
            for balance, accounts in conn.execute(statement("balances"))
            if balance != expected
        ],
    )
    differing = count(conn, "count_differing")
    report.check(
        f"{when}: every balance is the sum of its entries",
        [f"{differing} are not"] if differing else [],
    )
    report.check(f"{when}: {min(RATED_AGAIN, meters)} accounts rated again", _rated(conn))


def _rated(conn: Connection[Any]) -> list[str]:
    """Accounts whose balance is not what the engine says of all their facts."""
    terms, wrong = TermsCache(), []
    for (account,) in conn.execute(statement("sample_accounts"), {"limit": RATED_AGAIN}).fetchall():
        state = read_account(conn, account)
        assert state is not None
        whole = books.outcome_at(conn, terms, account, state.settled_until_ms, from_genesis=True)
        if whole.status.balance_micro != state.balance_micro:
            wrong.append(f"{account}: {state.balance_micro}, not {whole.status.balance_micro}")
    return wrong
