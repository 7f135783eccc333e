"""Prices change by two people and from a local date on: drafts, approvals, assignments.

Nothing here re-rates what is past: a version or an assignment begins after today, so that it only
prices what nobody has used yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from psycopg import Connection
from psycopg.types.json import Jsonb

from credit_engine.days import local_time, midnight_ms
from credit_engine.errors import CreditError
from credit_engine.form import Form
from credit_engine.tariff import parse_tariff
from credit_engine.terms import Tariff
from store import audit_log, registry
from store.errors import Conflict, NotFound
from store.settlement import lock_accounts
from store.sql import query
from store.terms import TermsCache


@dataclass(frozen=True, slots=True)
class _Draft:
    tariff: int
    valid_from: str
    body: Mapping[str, object]
    state: str
    drafted_by: str
    decided_by: str | None
    code: str

    @property
    def version(self) -> dict[str, object]:
        return {"valid_from": self.valid_from, **self.body}


def find(conn: Connection, code: str) -> int:
    """A tariff by its code. Errors: NotFound."""
    row = conn.execute(query("find_tariff"), {"code": code}).fetchone()
    if row is None:
        raise NotFound(f"Tariff {code}")
    return int(row[0])


def draft(
    conn: Connection, code: str, version: Mapping[str, object], *, note: str, who: str, now_ms: int
) -> int:
    """Propose a version (rating.md section 10); returns the draft's number.

    Errors: NotFound; CreditError bad_input; Conflict `draft_refused` (no note or person),
    `version_in_past`.
    """
    if not note.strip() or not who.strip():
        raise Conflict("draft_refused", "say who drafts the version and why")
    with conn.transaction():
        tariff = find(conn, code)
        parsed = with_version(registry.tariff_form(conn, tariff), version)
        _refuse_past(conn, tariff, parsed, _date(version), now_ms)
        body = {key: value for key, value in version.items() if key != "valid_from"}
        row = conn.execute(
            query("insert_tariff_draft"),
            {
                "tariff": tariff,
                "valid_from": version["valid_from"],
                "body": Jsonb(body),
                "note": note,
                "who": who,
                "now_ms": now_ms,
            },
        ).fetchone()
        assert row is not None, "an insert returns its row"
        subject = f"tariff:{code}/draft:{row[0]}"
        audit_log.record(
            conn, who, "tariff.draft", subject, now_ms, reason=note, after=dict(version)
        )
        return int(row[0])


def approve(
    conn: Connection, number: int, *, who: str, now_ms: int, reason: str | None = None
) -> bool:
    """Make a draft a version, from its date on; False when it is one already.

    Errors: NotFound; Conflict `second_person_needed`, `draft_withdrawn`, `version_in_past`;
    CreditError bad_input (another version took its date).
    """
    with conn.transaction():
        found = _lock(conn, number)
        if found.state == "approved":
            return False
        if found.state == "withdrawn":
            raise Conflict("draft_withdrawn", "the draft was withdrawn: draft the version again")
        if not who.strip() or who == found.drafted_by:
            raise Conflict("second_person_needed", "let another person than the drafter approve")
        conn.execute(query("lock_tariff"), {"tariff": found.tariff})
        parsed = with_version(registry.tariff_form(conn, found.tariff), found.version)
        _refuse_past(conn, found.tariff, parsed, _date(found.version), now_ms)
        registry.add_tariff_version(conn, found.tariff, found.version)
        _record_decision(conn, number, found, "approved", who, reason, now_ms)
        return True


def withdraw(
    conn: Connection, number: int, *, who: str, now_ms: int, reason: str | None = None
) -> bool:
    """Take a draft back, also by its drafter; False when it is withdrawn already.

    Errors: NotFound; Conflict `draft_approved` (a version is never edited: draft the next one).
    """
    with conn.transaction():
        found = _lock(conn, number)
        if found.state == "withdrawn":
            return False
        if found.state == "approved":
            raise Conflict("draft_approved", "it is a version already: draft the next one")
        _record_decision(conn, number, found, "withdrawn", who, reason, now_ms)
        return True


def _record_decision(
    conn: Connection,
    number: int,
    found: _Draft,
    state: Literal["approved", "withdrawn"],
    who: str,
    reason: str | None,
    now_ms: int,
) -> None:
    decided = {"draft": number, "state": state, "who": who, "now_ms": now_ms}
    conn.execute(query("decide_tariff_draft"), decided)
    action = "tariff.approve" if state == "approved" else "tariff.withdraw"
    audit_log.record(
        conn,
        who,
        action,
        f"tariff:{found.code}/draft:{number}",
        now_ms,
        reason=reason,
        before={"state": found.state},
        after={"state": state, "valid_from": found.valid_from},
    )


def assign(
    conn: Connection,
    account_id: int,
    code: str,
    valid_from: date,
    *,
    who: str,
    reason: str,
    now_ms: int,
) -> bool:
    """Price an account by another tariff from a local date on; False when that is recorded.

    One account has one zone, currency and calendar of holidays (rating.md section 10), so a
    tariff that differs in them is refused. The energy that a band had consumed in its period goes
    on to count under the same band name (section 4). Errors: NotFound; Conflict
    `assignment_in_past`, `assignment_conflict`, `assignment_refused`, `tariff_incompatible`;
    CreditError bad_input (no version of the tariff is in force at that date).
    """
    if not who.strip() or not reason.strip():
        raise Conflict("assignment_refused", "say who assigns the tariff and why")
    with conn.transaction():
        tariff = find(conn, code)
        conn.execute(query("lock_tariff"), {"tariff": tariff})
        if not lock_accounts(conn, [account_id]):
            raise NotFound("The account")
        place = {"account": account_id, "valid_from": valid_from}
        known = conn.execute(query("tariff_assignment_at"), place).fetchone()
        if known is not None:
            if known[0] == tariff:
                return False
            raise Conflict("assignment_conflict", "another tariff is assigned from that date")
        form = registry.tariff_form(conn, tariff)
        _refuse_incompatible(conn, account_id, form)
        parsed = parse_tariff(form)
        if valid_from <= local_time(parsed.zone, now_ms).date():
            raise Conflict("assignment_in_past", "assign a tariff from tomorrow on or later")
        if parsed.versions[0].valid_from > valid_from:
            raise CreditError(
                "bad_input",
                f"valid_from: tariff {code} has no version in force at {valid_from}: "
                "assign it from a later date",
            )
        before = conn.execute(query("tariff_of_account_at"), place).fetchone()
        assert before is not None, "every account has a tariff"
        conn.execute(
            query("insert_tariff_assignment"),
            place | {"tariff": tariff, "who": who, "reason": reason, "now_ms": now_ms},
        )
        registry.reprice(conn, [account_id], midnight_ms(parsed.zone, valid_from))
        # What was put together from both must be what the engine takes.
        state = lock_accounts(conn, [account_id])[account_id]
        TermsCache().get(conn, account_id, state.terms_revision)
        audit_log.record(
            conn,
            who,
            "tariff.assign",
            audit_log.account_subject(conn, account_id),
            now_ms,
            reason=reason,
            before={"tariff": before[0]},
            after={"tariff": code, "valid_from": valid_from.isoformat()},
            account=account_id,
        )
        return True


def with_version(form: Mapping[str, Any], version: Mapping[str, object]) -> Tariff:
    """A tariff with one more version, parsed. Errors: CreditError bad_input."""
    return parse_tariff({**form, "tariff": {"versions": [*form["tariff"]["versions"], version]}})


def _lock(conn: Connection, number: int) -> _Draft:
    row = conn.execute(query("lock_tariff_draft"), {"draft": number}).fetchone()
    if row is None:
        raise NotFound("The draft")
    return _Draft(*row)


def _date(version: Mapping[str, object]) -> date:
    return Form("valid_from", version["valid_from"]).day()


def _refuse_past(
    conn: Connection, tariff: int, parsed: Tariff, valid_from: date, now_ms: int
) -> None:
    if valid_from > local_time(parsed.zone, now_ms).date():
        return
    row = conn.execute(query("tariff_is_used"), {"tariff": tariff}).fetchone()
    if row is not None and row[0]:
        raise Conflict(
            "version_in_past",
            f"a version from {valid_from} would price what is charged already: "
            "let it begin tomorrow or later, and adjust what is past",
        )


def _refuse_incompatible(conn: Connection, account_id: int, form: Mapping[str, Any]) -> None:
    row = conn.execute(query("calendar_of_account"), {"account": account_id}).fetchone()
    assert row is not None, "locked by the caller"
    timezone, currency, holidays = row
    for name, same in (
        ("timezone", timezone == form["timezone"]),
        ("currency", currency == form["currency"]),
        ("calendar of holidays", sorted(holidays) == sorted(form["holidays"])),
    ):
        if not same:
            raise Conflict(
                "tariff_incompatible",
                f"the tariff has another {name} than the account, which can have only one: "
                "open a new account, or give the tariff the same",
            )
