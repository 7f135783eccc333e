"""Tokens for work on a meter: one person asks with a reason, another approves, then one is issued.

For operators alone: no customer's endpoint reaches these functions, and the customers' lists of
tokens do not show what they issue.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from psycopg import Connection
from psycopg.types.json import Jsonb

from store import audit_log
from store.errors import Conflict, NotFound
from store.issuing import Made, Owner, allocate_tid, store_tokens
from store.key_changes import TokenMeter, lock_token_meter
from store.sql import query
from tokens import apdu, codec, management
from tokens.apdu import Apdu
from tokens.numbers import parts
from tokens.security_module import SecurityModule

# Who approves should know the case; what nobody decided for a day is asked for again.
REQUEST_LIFE_MS = 24 * 3600 * 1000


class Work(StrEnum):
    """What an engineering token does, by the name of its class and subclass in the standard."""

    POWER_LIMIT = "set_maximum_power_limit"
    CLEAR_CREDIT = "clear_credit"
    CLEAR_TAMPER = "clear_tamper_condition"
    METER_TEST = "initiate_meter_test"


# Class 1 for a meter with a maker code of four digits: fewer tests, a longer code.
METER_TEST_LONG_CODE, LONG_DRN = 1, 13
# Class, subclass and the fields that the operator gives, in natural units.
FORMS: Mapping[Work, tuple[int, int, frozenset[str]]] = {
    Work.POWER_LIMIT: (apdu.METER_SPECIFIC, 0, frozenset({"mpl"})),
    Work.CLEAR_CREDIT: (apdu.METER_SPECIFIC, 1, frozenset({"register"})),
    Work.CLEAR_TAMPER: (apdu.METER_SPECIFIC, 5, frozenset()),
    Work.METER_TEST: (apdu.NON_METER_SPECIFIC, 0, frozenset({"control", "mfr_code"})),
}


@dataclass(frozen=True, slots=True)
class EngineeringToken:
    """A request and what became of it; `digits` once it is approved."""

    id: int
    meter: str
    meter_id: int
    cls: int
    subclass: int
    fields: Mapping[str, int]
    reason: str
    requested_by: str
    requested_ms: int
    decision: str | None
    decided_by: str | None
    decided_ms: int | None
    decision_reason: str | None
    digits: str | None

    @property
    def work(self) -> Work:
        if self.cls == apdu.NON_METER_SPECIFIC:
            return Work.METER_TEST
        return next(w for w, form in FORMS.items() if form[:2] == (self.cls, self.subclass))


def request_engineering_token(
    conn: Connection,
    meter: str,
    work: Work,
    fields: Mapping[str, int],
    *,
    reason: str,
    by: str,
    now_ms: int,
    daily_limit: int | None = None,
) -> int:
    """Ask for a token; returns the request's number. Nothing is issued yet.

    `daily_limit`: how many `by` may ask for in a day. Errors: NotFound; Conflict `reason_missing`,
    `bad_field` (names), `no_tokens`, `daily_limit_reached`; TokenError `field_out_of_range`,
    `amount_out_of_range` (values that no token carries).
    """
    if not by.strip() or not reason.strip():
        raise Conflict("reason_missing", "say who asks and why: both are kept with the token")
    cls, subclass, names = FORMS[work]
    if fields.keys() != names:
        wanted = ", ".join(sorted(names)) or "no field"
        raise Conflict("bad_field", f"{work.value} takes {wanted}: correct the request")
    with conn.transaction():
        if daily_limit is not None:
            _demand_within(conn, by, daily_limit, now_ms)
        row = conn.execute(query("find_meter"), {"number": meter}).fetchone()
        if row is None:
            raise NotFound(f"Meter {meter}")
        found = lock_token_meter(conn, row[0], now_ms)
        if work == Work.METER_TEST and len(parts(found.meter_pan)[1]) == LONG_DRN:
            subclass = METER_TEST_LONG_CODE
        # An approval must not fail for what could be seen at the request.
        _demand_encodable(cls, subclass, fields)
        made = conn.execute(
            query("request_engineering_token"),
            {
                "meter": row[0],
                "class": cls,
                "subclass": subclass,
                "fields": Jsonb(dict(fields)),
                "reason": reason,
                "by": by,
                "now_ms": now_ms,
            },
        ).fetchone()
        assert made is not None, "inserted above"
        audit_log.record(
            conn,
            by,
            "engineering_token.request",
            f"engineering_token:{made[0]}",
            now_ms,
            reason=reason,
            after={"meter": meter, "work": work.value, **fields},
            meter=meter,
        )
        return int(made[0])


def _demand_within(conn: Connection, by: str, daily_limit: int, now_ms: int) -> None:
    conn.execute(query("lock_operator"), {"name": by})
    of = {"by": by, "since_ms": now_ms - REQUEST_LIFE_MS}
    row = conn.execute(query("engineering_requests_since"), of).fetchone()
    assert row is not None, "a count always comes"
    if row[0] >= daily_limit:
        raise Conflict(
            "daily_limit_reached",
            f"{by} asked for {row[0]} engineering tokens in a day: let somebody else ask",
        )


def _demand_encodable(cls: int, subclass: int, fields: Mapping[str, int]) -> None:
    unit = (
        management.management(subclass, fields, tid=0, rnd=0)
        if cls == apdu.METER_SPECIFIC
        else Apdu(cls, subclass, fields)
    )
    codec.clear_block(unit, apdu.MISTY1)


def approve_engineering_token(
    conn: Connection,
    module: SecurityModule,
    request: int,
    by: str,
    now_ms: int,
    *,
    reason: str | None = None,
) -> str:
    """The second person's yes: issues, stores and returns the 20 digits, once; a repeat by the same
    person returns them again. A meter that was ever online is sent the token.

    Errors: NotFound; Conflict `same_person`, `already_decided`, `request_lapsed`,
    `key_change_open`, `clock_behind`; TokenError (an expired or unknown key).
    """
    with conn.transaction():
        asked = _lock(conn, request)
        if asked.digits is not None and asked.decided_by == by:
            return asked.digits
        _demand_open(asked, by, now_ms)
        meter = lock_token_meter(conn, asked.meter_id, now_ms)
        if meter.open is not None and asked.cls == apdu.METER_SPECIFIC:
            raise Conflict(
                "key_change_open",
                f"meter {asked.meter} may hold either of two keys: have its key change set entered "
                "and confirm it first",
            )
        _decide(conn, asked, "approved", by, reason, now_ms)
        made = _make(conn, module, meter, asked, now_ms)
        store_tokens(conn, meter, [made], now_ms, carry=meter.online)
        return made.digits


def _make(
    conn: Connection,
    module: SecurityModule,
    meter: TokenMeter,
    asked: EngineeringToken,
    now_ms: int,
) -> Made:
    owner = Owner(engineering=asked.id)
    if asked.cls == apdu.NON_METER_SPECIFIC:
        digits = codec.encode_clear(Apdu(asked.cls, asked.subclass, asked.fields))
        return Made(digits, asked.cls, asked.subclass, owner, key=None)
    tid = allocate_tid(conn, meter.id, meter.held, now_ms)
    digits = module.issue_management(
        meter.meter_pan,
        meter.held,
        subclass=asked.subclass,
        fields=asked.fields,
        tid_minutes=tid,
        rnd=secrets.randbelow(16),
    )
    return Made(digits, asked.cls, asked.subclass, owner, meter.held, tid)


def refuse_engineering_token(
    conn: Connection, request: int, by: str, reason: str, now_ms: int
) -> None:
    """A no with its reason; whoever asked may take the request back that way.

    Errors: NotFound; Conflict `already_decided`, `reason_missing`.
    """
    if not by.strip() or not reason.strip():
        raise Conflict("reason_missing", "say who refuses and why: both are kept")
    with conn.transaction():
        asked = _lock(conn, request)
        if asked.decision is not None:
            raise _already(asked)
        _decide(conn, asked, "refused", by, reason, now_ms)


def engineering_tokens(
    conn: Connection, *, waiting: bool, before_id: int | None, limit: int
) -> list[EngineeringToken]:
    """Requests newest first; one more than `limit` when there is a next page."""
    of = {"waiting": waiting, "before": before_id, "limit": limit + 1}
    return [EngineeringToken(*row) for row in conn.execute(query("engineering_tokens_newest"), of)]


def _lock(conn: Connection, request: int) -> EngineeringToken:
    row = conn.execute(query("lock_engineering_token"), {"id": request}).fetchone()
    if row is None:
        raise NotFound(f"Request {request}")
    return EngineeringToken(*row)


def _demand_open(asked: EngineeringToken, by: str, now_ms: int) -> None:
    if asked.decision is not None:
        raise _already(asked)
    if not by.strip() or by.strip().lower() == asked.requested_by.strip().lower():
        raise Conflict(
            "same_person", f"request {asked.id} needs a second person: whoever asked cannot approve"
        )
    if now_ms - asked.requested_ms > REQUEST_LIFE_MS:
        raise Conflict(
            "request_lapsed", f"request {asked.id} waited for more than a day: ask for it again"
        )


def _already(asked: EngineeringToken) -> Conflict:
    return Conflict(
        "already_decided",
        f"request {asked.id} was {asked.decision} by {asked.decided_by}: make a new request",
    )


def _decide(
    conn: Connection,
    asked: EngineeringToken,
    decision: Literal["approved", "refused"],
    by: str,
    reason: str | None,
    now_ms: int,
) -> None:
    conn.execute(
        query("decide_engineering_token"),
        {"id": asked.id, "decision": decision, "by": by, "reason": reason, "now_ms": now_ms},
    )
    audit_log.record(
        conn,
        by,
        "engineering_token.approve" if decision == "approved" else "engineering_token.refuse",
        f"engineering_token:{asked.id}",
        now_ms,
        reason=reason,
        before={"decision": None},
        after={"decision": decision, "meter": asked.meter, "work": asked.work.value},
        meter=asked.meter,
    )
