"""Whose clock is wrong, by how much, and what becomes of readings that it dated.

A clock is measured where a device says what time it is now: its hello, its time request, and a
reading from the future (a late reading is late, not wrong: its instant is the end of an interval).
Where a clock was lost, a live reading of just now measures it, too: what was wrong may have been
our own clock for a moment, and no device says hello because of that. Within a minute it is right
(`sync`); within a quarter of an hour its readings are taken and it is told the time (`drift`);
beyond that it is `lost`: from then on its readings are stored with the verdict `clock_lost` and
charge nothing until a person resolves each, or all of a meter at once: at a corrected instant,
which makes it a reading like any other, or discarded. What came stays as it came; corrected, it is
a second row, whose clock is `edited`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg import Connection

from credit_engine.facts import Reading
from schemas.errors import DomainError
from schemas.identity import ACTIVE_IMPORT
from schemas.judging import RIGHT_WITHIN_MS
from schemas.quantities import format_instant
from schemas.wire import TimeQuality
from store import audit_log, batch_meter, decisions
from store.binary import Texts
from store.errors import Conflict, NotFound
from store.settlement import lock_accounts, settle_account
from store.sql import query
from store.terms import TermsCache

TAKEN_WITHIN_MS = 15 * 60_000
EDITED = "edited"


class Measure(NamedTuple):
    """What one message said of a clock; `kind` set: the device put it right itself."""

    meter_id: int
    kind: str
    judged: TimeQuality
    offset_ms: int


@dataclass(frozen=True, slots=True)
class LostReading:
    """A reading whose clock was lost. `proposed_ms`: its instant by what is known of that clock,
    None where nothing is.
    """

    meter: str
    register: str
    ts_ms: int
    value_wh: int
    boot: int
    seq: int
    received_ms: int
    proposed_ms: int | None


def judge(offset_ms: int) -> TimeQuality:
    """How good a clock is that is ahead of ours by `offset_ms` (behind: below zero)."""
    if abs(offset_ms) <= RIGHT_WITHIN_MS:
        return "sync"
    return "drift" if abs(offset_ms) <= TAKEN_WITHIN_MS else "lost"


def write(conn: Connection, measures: Sequence[Measure], now_ms: int) -> None:
    """Keep measures that changed a judgement, and the last judgement with each meter."""
    if not measures:
        return
    columns = {name: [getattr(each, name) for each in measures] for name in Measure._fields}
    conn.execute(query("insert_clock_changes"), {"now_ms": now_ms} | columns)
    last = {each.meter_id: each.judged for each in measures}
    of = {"meter_id": sorted(last), "judged": [last[meter] for meter in sorted(last)]}
    conn.execute(query("judge_clocks"), of)


# --- what a person decides --------------------------------------------------------------------


def lost_readings(
    conn: Connection, *, meter: str | None = None, limit: int = 1000
) -> list[LostReading]:
    """Readings that wait for a decision, oldest first."""
    of = {"meter": meter, "limit": limit}
    return [LostReading(*row) for row in conn.execute(query("lost_readings"), of)]


def accept(
    conn: Connection,
    terms: TermsCache,
    lost: LostReading,
    corrected_ms: int | None,
    who: str,
    note: str,
    now_ms: int,
) -> None:
    """Take a reading at its corrected instant (None: the proposed one), and settle its account.

    Errors: DomainError `no_reason`, `no_instant` (nothing is proposed and none given), `future`;
    NotFound; Conflict `resolved` (decided already), `conflict` (another value at that instant).
    """
    _reasoned(who, note)
    at_ms = lost.proposed_ms if corrected_ms is None else corrected_ms
    if at_ms is None:
        raise DomainError("no_instant", "Give the instant: nothing is known of that clock.")
    if at_ms > now_ms:
        raise DomainError("future", f"{format_instant(at_ms)} is yet to come: give a past instant.")
    with conn.transaction():
        accounts = [row[0] for row in conn.execute(query("accounts_of_meters"), _of(lost))]
        states = lock_accounts(conn, accounts)
        meter = _resolve(conn, lost, "accepted", at_ms, who, note, now_ms)
        values = {"meter": meter.id, "register": lost.register, "corrected_ms": at_ms}
        known = conn.execute(query("value_at"), values).fetchone()
        if known is not None:
            if known[0] != lost.value_wh:
                raise Conflict(
                    "conflict", f"{lost.register} was {known[0]} Wh at {format_instant(at_ms)}"
                )
            return
        account = meter.account_at(at_ms)
        verdict: str | None = None
        settled = []
        if lost.register == ACTIVE_IMPORT and account is not None:
            fact = Reading(at_ms, lost.value_wh, lost.meter)
            if at_ms > states[account].opened_ms:
                settled = [settle_account(conn, terms, states[account], [fact], now_ms)]
                verdict = settled[0].verdicts.get((lost.meter, at_ms))
            else:
                verdict = "before_installation"
        elif lost.register == ACTIVE_IMPORT:
            verdict = "not_installed"
        conn.execute(
            query("insert_corrected_reading"),
            values | {"ts_ms": lost.ts_ms, "clock": EDITED, "verdict": verdict, "now_ms": now_ms},
        )
        # Like a replayed reading it is billed, and never by itself the cause of a cut.
        decisions.record(conn, settled, now_ms, live=())


def discard(conn: Connection, lost: LostReading, who: str, note: str, now_ms: int) -> None:
    """Decide that a reading counts for nothing. Errors: as `accept`."""
    _reasoned(who, note)
    with conn.transaction():
        _resolve(conn, lost, "discarded", None, who, note, now_ms)


def _reasoned(who: str, note: str) -> None:
    if not who.strip() or not note.strip():
        raise DomainError("no_reason", "Say who decides, and why.")


def _of(lost: LostReading) -> dict[str, Texts]:
    return {"numbers": Texts([lost.meter])}


def _resolve(
    conn: Connection,
    lost: LostReading,
    decision: str,
    corrected_ms: int | None,
    who: str,
    note: str,
    now_ms: int,
) -> batch_meter.BatchMeter:
    meter = batch_meter.load(conn, Texts([lost.meter])).get(lost.meter)
    if meter is None:
        raise NotFound(f"Meter {lost.meter}")
    new = conn.execute(
        query("resolve_lost_reading"),
        {
            "meter": meter.id,
            "register": lost.register,
            "ts_ms": lost.ts_ms,
            "decision": decision,
            "corrected_ms": corrected_ms,
            "who": who,
            "note": note,
            "now_ms": now_ms,
        },
    ).rowcount
    if not new:
        raise Conflict("resolved", "that reading is decided already, or has no lost clock")
    audit_log.record(
        conn,
        who,
        f"clock.{decision}",
        f"meter:{lost.meter}",
        now_ms,
        reason=note,
        before={"register": lost.register, "ts_ms": lost.ts_ms, "value_wh": lost.value_wh},
        after={"corrected_ms": corrected_ms},
        meter=lost.meter,
    )
    return meter
