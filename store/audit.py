"""Proves the laws on the whole database: what is stored against what the facts give.

Account by account (`store.account_audit`), each in one snapshot, so that it runs beside everything
else and its memory is bounded by one account; then the laws about readings, payments, tokens,
commands and relays, one query each.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from psycopg import Connection

from store.account_audit import LAWS, Finding, audit_account
from store.pool import snapshot
from store.sql import query
from store.terms import TermsCache

ACCOUNTS_AT_ONCE = 500
# Of a broken law this many cases are told and kept; all are counted up to the limit of its query.
CASES_TOLD = 20
CASES_COUNTED = 10_000
# Two processes may read their clocks this long before they meet at the row of the meter.
ISSUE_SKEW_MS = 15 * 60 * 1000


@dataclass(frozen=True, slots=True)
class _Law:
    """One law as a query for what breaks it: (object, expected, found) per case."""

    name: str
    things: str
    counted_by: str
    broken_by: str


DATABASE_LAWS = (
    _Law("ledger_has_its_accounts", "transactions", "count_transactions", "transactions_of_nobody"),
    _Law("debits_explained", "debits of steady readings", "count_debits", "debits_not_explained"),
    _Law("unbilled_readings_charge_nothing", "readings", "count_readings", "misjudged_readings"),
    _Law("top_ups_posted_once", "top-ups", "count_top_ups", "top_ups_not_posted_once"),
    _Law("cash_in_coins", "payments in cash", "count_cash", "cash_not_in_coins"),
    _Law("reversals_posted_once", "reversals", "count_reversals", "reversals_not_posted_once"),
    _Law("attempts_accounted", "attempts", "count_payment_attempts", "attempts_not_accounted"),
    _Law("suspense_explained", "suspect payments", "count_suspects", "suspense_not_explained"),
    _Law(
        "moved_payments_in_one_place",
        "moved payments",
        "count_moved",
        "moved_payments_in_two_places",
    ),
    _Law("top_ups_have_tokens", "top-ups", "count_top_ups", "top_ups_without_their_tokens"),
    _Law("tids_used_once", "tokens", "count_tokens", "tids_used_twice_or_reserved"),
    _Law("credit_taken_once", "tokens", "count_tokens", "credit_taken_twice"),
    _Law("counters_grow", "commands", "count_commands", "counters_out_of_order"),
    _Law("one_open_relay_order", "meters", "count_meters", "meters_with_two_relay_orders"),
    _Law("relays_follow_supply", "meters", "count_meters", "relays_against_supply"),
    _Law("append_only_in_force", "triggers", "count_guards", "guards_not_in_force"),
)


@dataclass(slots=True)
class Check:
    """One law over the whole database. `failed` counts all cases, `failures` keeps the first."""

    name: str
    things: str
    checked: int = 0
    failed: int = 0
    failures: list[Finding] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.failed == 0

    def fail(self, finding: Finding) -> None:
        self.failed += 1
        if len(self.failures) < CASES_TOLD:
            self.failures.append(finding)


def audit(
    conn: Connection,
    report: Callable[[str], None] = lambda _: None,
    *,
    kept_from_ms: int | None = None,
) -> tuple[Check, ...]:
    """Every law with what it was checked on and where it is broken; nothing is written.

    `conn` is in autocommit mode. `kept_from_ms`: readings before it may have been dropped
    (retention), so accounts are rated from their first stored position not before it; None: from
    their opening.
    """
    checks = {name: Check(name, things) for name, things in LAWS.items()}
    _audit_accounts(conn, checks, report, kept_from_ms)
    of = {"limit": CASES_COUNTED, "skew_ms": ISSUE_SKEW_MS}
    for law in DATABASE_LAWS:
        report(law.name)
        checks[law.name] = _audit_database(conn, law, of)
    return tuple(checks.values())


def _audit_accounts(
    conn: Connection,
    checks: Mapping[str, Check],
    report: Callable[[str], None],
    kept_from_ms: int | None,
) -> None:
    terms = TermsCache(limit=ACCOUNTS_AT_ONCE)
    done = 0
    for account_id, number in _accounts(conn):
        with snapshot(conn):
            audited = audit_account(conn, terms, account_id, kept_from_ms)
        for name, count in audited.checked.items():
            checks[name].checked += count
        for name, finding in audited.findings:
            checks[name].fail(finding.of(f"account {number}"))
        done += 1
        if done % ACCOUNTS_AT_ONCE == 0:
            report(f"{done} accounts")
    report(f"{done} accounts, all")


def _accounts(conn: Connection) -> Iterator[tuple[int, str]]:
    after = 0
    while True:
        of = {"after": after, "limit": ACCOUNTS_AT_ONCE}
        page = conn.execute(query("audited_accounts"), of).fetchall()
        if not page:
            return
        yield from page
        after = page[-1][0]


def _audit_database(conn: Connection, law: _Law, of: Mapping[str, object]) -> Check:
    with snapshot(conn):
        counted = conn.execute(query(law.counted_by)).fetchone()
        check = Check(law.name, law.things, 0 if counted is None else counted[0])
        for where, expected, found in conn.execute(query(law.broken_by), of):
            check.fail(Finding(where, expected, found))
    return check
