"""Compares the credit that meters count for themselves with the tokens that they took.

The clockwork does it beside the ingest, some minutes behind, so that answers that are on their way
have arrived. What does not agree is an exception, one open per meter, until a person closes it with
a note or later readings agree. The ledger is never touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg import Connection

from credit_engine.meter_credit import CreditClass, CreditFacts, compare
from store import audit_log
from store.centres import MINUTE_MS, CentreSettings, settings_of
from store.errors import Conflict, NotFound
from store.sql import query

# Answers and readings of one moment arrive in any order; after this long both are here.
LAG_MS = 2 * MINUTE_MS
# At most so much is caught up in one transaction after a pause.
WINDOW_MS = 15 * MINUTE_MS
# Between two looks: the comparison hurries nobody.
PAUSE_MS = MINUTE_MS
# Who closes an exception whose meter agrees again.
TIME = "time"


@dataclass(frozen=True, slots=True)
class CreditException:
    """`gap_wh`: the meter's credit above (+) or below (-) its tokens and register. The last three
    are None while it is open.
    """

    id: int
    meter: str
    verdict: CreditClass
    gap_wh: int
    credit_wh: int
    read_ms: int
    first_seen_ms: int
    closed_ms: int | None
    closed_by: str | None
    note: str | None


class _Read(NamedTuple):
    """A reading that says what credit the meter has."""

    meter: int
    at_ms: int
    boot: int
    seq: int
    register_wh: int
    credit_wh: int
    centre: int


class _Base(NamedTuple):
    """Where a meter last agreed; `set_since`: something else than a token changed its credit."""

    at_ms: int
    boot: int
    seq: int
    base_wh: int
    set_since: bool


def compare_credit(conn: Connection, now_ms: int) -> int:
    """Compare what has come since the last time; returns how many meters were compared. One worker
    at a time; the others return at once.
    """
    with conn.transaction():
        row = conn.execute(query("lock_credit_compared")).fetchone()
        if row is None:
            return 0
        from_ms = now_ms - LAG_MS - WINDOW_MS if row[0] is None else row[0]
        until_ms = min(now_ms - LAG_MS, from_ms + WINDOW_MS)
        if until_ms - from_ms < PAUSE_MS:
            return 0
        of = {"from_ms": from_ms, "until_ms": until_ms}
        rows = conn.execute(query("readings_with_credit"), of)
        # What a meter sends as its credit is its own; only a number can be compared.
        read = [_Read(*each) for each in rows if type(each[5]) is int]
        if read:
            _compare(conn, read, now_ms)
        conn.execute(query("set_credit_compared"), of)
        return len(read)


def _compare(conn: Connection, read: Sequence[_Read], now_ms: int) -> None:
    rows = conn.execute(query("credit_bases"), {"meters": [each.meter for each in read]})
    bases = {meter: _Base(*rest) for meter, *rest in rows}
    settings = settings_of(conn, (each.centre for each in read))
    of = {
        "meters": [each.meter for each in read],
        "at": [each.at_ms for each in read],
        "since": [bases[each.meter].at_ms if each.meter in bases else each.at_ms for each in read],
        "margins": [settings[each.centre].clock_margin_minutes * MINUTE_MS for each in read],
    }
    tokens = {meter: rest for meter, *rest in conn.execute(query("tokens_around"), of)}
    for each in read:
        base = bases.get(each.meter)
        accepted_wh, near, unanswered, lately = tokens[each.meter]
        if base is None or base.set_since:
            if not near:
                begin_wh = each.credit_wh + each.register_wh - accepted_wh
                _keep(conn, each, begin_wh)
            continue
        facts = CreditFacts(
            credit_wh=each.credit_wh,
            register_wh=each.register_wh,
            base_wh=base.base_wh,
            accepted_wh=accepted_wh,
            near_wh=near,
            unanswered_wh=unanswered,
            lately_accepted_wh=lately,
            tolerance_wh=settings[each.centre].credit_tolerance_wh,
        )
        _judge(conn, each, base, facts, settings[each.centre], now_ms)


def _judge(
    conn: Connection,
    read: _Read,
    base: _Base,
    facts: CreditFacts,
    rules: CentreSettings,
    now_ms: int,
) -> None:
    found = compare(facts)
    if found.verdict == "matched":
        # The base stays as it is, or small differences would add up unseen. Only a credit that has
        # run out begins anew: what was used without it is not in it.
        begin_wh = base.base_wh + (found.gap_wh if read.credit_wh == 0 else 0)
        _keep(conn, read, begin_wh)
        of = {"meter": read.meter, "by": TIME, "note": "later readings agree", "now_ms": now_ms}
        conn.execute(query("end_credit_exception"), of)
        return
    verdict = found.verdict
    if verdict == "tamper_suspect" and _rows_missing(conn, read, base):
        verdict = "missed_reading"
    conn.execute(
        query("note_credit_exception"),
        {
            "meter": read.meter,
            "class": verdict,
            "gap_wh": found.gap_wh,
            "credit_wh": read.credit_wh,
            "at_ms": read.at_ms,
            "now_ms": now_ms,
        },
    )


def _rows_missing(conn: Connection, read: _Read, base: _Base) -> bool:
    """Whether readings between the two did not come; over a reboot nobody can tell."""
    if read.boot != base.boot:
        return True
    row = conn.execute(
        query("rows_since"),
        {
            "meter": read.meter,
            "from_ms": base.at_ms,
            "until_ms": read.at_ms,
            "boot": read.boot,
            "after": base.seq,
            "upto": read.seq,
        },
    ).fetchone()
    assert row is not None, "a count always comes"
    return int(row[0]) < read.seq - base.seq


def _keep(conn: Connection, read: _Read, base_wh: int) -> None:
    of = {"meter": read.meter, "at_ms": read.at_ms, "boot": read.boot, "seq": read.seq}
    conn.execute(query("keep_credit_base"), of | {"base_wh": base_wh})


def exceptions(conn: Connection, *, all_states: bool, limit: int) -> Sequence[CreditException]:
    """The open exceptions, or all of them, newest first."""
    rows = conn.execute(query("credit_exceptions"), {"all": all_states, "limit": limit})
    return [CreditException(*row) for row in rows]


def close(conn: Connection, exception: int, *, by: str, note: str, now_ms: int) -> None:
    """Close an exception with what was found; both sides begin anew at the meter's next reading.

    Errors: NotFound; Conflict `exception_closed`, `reason_missing`.
    """
    if not by.strip() or not note.strip():
        raise Conflict("reason_missing", "say who closes the exception and what was found")
    of = {"exception": exception, "by": by, "note": note, "now_ms": now_ms}
    with conn.transaction():
        row = conn.execute(query("close_credit_exception"), of).fetchone()
        if row is None:
            found = conn.execute(query("credit_exception_exists"), of).fetchone()
            if found is None or not found[0]:
                raise NotFound("The exception")
            raise Conflict("exception_closed", f"exception {exception} was closed before")
        conn.execute(query("drop_credit_base"), {"meter": row[0]})
        subject = f"credit_exception:{exception}"
        audit_log.record(conn, by, "credit_exception.close", subject, now_ms, reason=note)
