"""Tokens for one locked meter: a TID of their own, stored, and queued to be carried.

Ordinals count 1 to n in the order of entry. Whoever calls holds the meter's lock (`TokenMeter`).
"""

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from psycopg import Connection

from store import audit_log, supply
from store.errors import Conflict, NotFound
from store.key_changes import OpenKeyChange, TokenMeter, issue_key_change, lock_token_meter
from store.sql import query
from tokens import apdu
from tokens.keys import KeyAttributes
from tokens.security_module import SecurityModule
from tokens.tid import next_tid, tid_minutes

# Class 0 subclass 0 counts in 0.1 kWh (sts.md section 3).
CREDIT_SUBCLASS = 0
WH_PER_UNIT = 100
# Vends to one meter in one minute take the minutes after it; a customer never needs more, and a
# clock that stands this far behind the newest TID is wrong.
LOOK_AHEAD_MINUTES = 120
# Unanswered credit that goes once more before a key change ends its key.
CREDIT_BEFORE_SET = 10


@dataclass(frozen=True, slots=True)
class Owner:
    """What a token is for; a credit token behind an open key change has both of the first two."""

    top_up: str | None = None
    key_change: int | None = None
    engineering: int | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """One token before it is stored. `key` is what it is encrypted under; None for class 1.

    `amount` is in the unit of the subclass, 0 where a token carries none. `shares_tid`: its TID is
    that of a token of this meter that it replaces.
    """

    digits: str
    cls: int
    subclass: int
    owner: Owner
    key: KeyAttributes | None
    tid: int | None = None
    amount: int = 0
    shares_tid: bool = False


@dataclass(frozen=True, slots=True)
class Issued:
    """One time that some digits left us; `receipt_number` for those of a top-up. `replaced_ms`:
    when another token took their place.
    """

    issued_ms: int
    meter: str
    cls: int
    subclass: int
    receipt_number: int | None
    result: str | None
    answered_ms: int | None
    replaced_ms: int | None


def issue_credit(
    conn: Connection,
    module: SecurityModule,
    meter: TokenMeter,
    top_up: str,
    energy_wh: int,
    now_ms: int,
) -> None:
    """The tokens of a top-up: a key change set first where the meter's key is not the current one,
    then the credit, under the key that is in force after it.

    Errors: Conflict `clock_behind`; TokenError.
    """
    change = issue_key_change(conn, module, meter, now_ms)
    key = meter.held if change is None else change.to
    tid = allocate_tid(conn, meter.id, key, now_ms)
    amount = energy_wh // WH_PER_UNIT
    digits = module.issue_credit(
        meter.meter_pan,
        key,
        subclass=CREDIT_SUBCLASS,
        amount=amount,
        tid_minutes=tid,
        rnd=secrets.randbelow(16),
    )
    owner = Owner(top_up=top_up, key_change=None if change is None else change.id)
    credit = Made(digits, apdu.CREDIT, CREDIT_SUBCLASS, owner, key, tid, amount)
    before = [] if change is None else sections(meter, change, owner)
    store_tokens(conn, meter, [*before, credit], now_ms, carry=True)
    conn.execute(query("mark_token_issued"), {"top_up": top_up, "now_ms": now_ms})


def sections(meter: TokenMeter, change: OpenKeyChange, owner: Owner) -> list[Made]:
    """The tokens of a set; they are encrypted under the key that the meter held at its issue."""
    return [
        Made(digits, apdu.METER_SPECIFIC, subclass, owner, meter.held)
        for digits, subclass in zip(change.digits, change.subclasses, strict=True)
    ]


def issue_set(
    conn: Connection, module: SecurityModule, meter: TokenMeter, now_ms: int
) -> OpenKeyChange | None:
    """The set that a locked meter needs without a purchase, sent if it was ever online; the open
    one again, as it is; None when it holds what it should. Errors: TokenError.
    """
    change = issue_key_change(conn, module, meter, now_ms)
    if change is not None and meter.open is None:
        made = sections(meter, change, Owner(key_change=change.id))
        store_tokens(conn, meter, made, now_ms, carry=meter.online)
    return change


def issue_set_of(
    conn: Connection, module: SecurityModule, meter: str, by: str, now_ms: int
) -> OpenKeyChange:
    """The same for a meter by its number. Errors: NotFound; Conflict `nothing_to_change`."""
    with conn.transaction():
        row = conn.execute(query("find_meter"), {"number": meter}).fetchone()
        if row is None:
            raise NotFound(f"Meter {meter}")
        found = lock_token_meter(conn, row[0], now_ms)
        change = issue_set(conn, module, found, now_ms)
        if change is None:
            raise Conflict(
                "nothing_to_change",
                f"meter {meter} holds the key that it should: record a newer vending key, or say "
                "what it should hold instead",
            )
        if found.open is None:
            audit_log.record(
                conn,
                by,
                "key_change.issue",
                f"meter:{meter}",
                now_ms,
                before=asdict(found.held),
                after=asdict(change.to),
                meter=meter,
            )
        return change


def store_tokens(
    conn: Connection,
    meter: TokenMeter,
    made: Sequence[Made],
    now_ms: int,
    *,
    carry: bool,
    first_ordinal: int = 1,
) -> None:
    """Store tokens of one owner; with `carry`, one command takes them to the meter."""
    command = None
    if carry:
        changes_key = any(
            each.owner.key_change and each.cls == apdu.METER_SPECIFIC for each in made
        )
        before = _unanswered_credit(conn, meter.id) if changes_key else []
        command = _queue(
            conn,
            meter.id,
            [*before, *(each.digits for each in made)],
            max((each.tid for each in made if each.tid is not None), default=None),
            now_ms,
        )
    for ordinal, each in enumerate(made, start=first_ordinal):
        conn.execute(
            query("insert_token"),
            {
                "meter": meter.id,
                "top_up": each.owner.top_up,
                "key_change": each.owner.key_change,
                "engineering": each.owner.engineering,
                "ordinal": ordinal,
                "digits": each.digits,
                "class": each.cls,
                "subclass": each.subclass,
                "amount": each.amount,
                "sgc": None if each.key is None else each.key.sgc,
                "krn": None if each.key is None else each.key.krn,
                "base_date": None if each.key is None else each.key.base_date,
                "kt": None if each.key is None else each.key.kt,
                "ti": None if each.key is None else each.key.ti,
                "shares_tid": each.shares_tid,
                "tid": each.tid,
                "now_ms": now_ms,
                "command": command,
            },
        )


def _unanswered_credit(conn: Connection, meter_id: int) -> list[str]:
    """What must reach a meter before its key changes: after that, nobody can read it.

    A meter that has it answers UsedError, which is success.
    """
    of = {"meter": meter_id, "limit": CREDIT_BEFORE_SET}
    return [digits for (digits,) in conn.execute(query("unanswered_credit"), of)]


def _queue(
    conn: Connection,
    meter_id: int,
    digits: Sequence[str],
    tid: int | None,
    now_ms: int,
    attempt: supply.Attempt | None = None,
) -> str:
    args: dict[str, object] = {"tokens": list(digits)}
    if tid is not None:
        args["tid"] = tid
    expires_ms = now_ms + supply.TOKEN_EXPIRY_MS
    return supply.queue(conn, meter_id, "token", args, now_ms, expires_ms, attempt)


def allocate_tid(conn: Connection, meter_id: int, key: KeyAttributes, now_ms: int) -> int:
    """The minute of now, or the next free one; the meter's lock keeps others from taking it.

    Errors: Conflict `clock_behind`; TokenError `tid_out_of_range`.
    """
    minute = tid_minutes(now_ms, key.base_date)
    of = {"meter": meter_id, "base_date": key.base_date}
    row = conn.execute(query("newest_tid"), of).fetchone()
    newest = None if row is None else row[0]
    tid = minute if newest is None or newest < minute else next_tid(newest, key.base_date)
    if tid - minute > LOOK_AHEAD_MINUTES:
        raise Conflict(
            "clock_behind",
            f"the newest token of this meter is {tid - minute} minutes ahead of the clock: "
            "set the server's clock, or wait",
        )
    return tid


def deliver_again(conn: Connection, commands: list[str], now_ms: int, *, anew: bool = False) -> int:
    """Carry tokens by new commands where the old ones ended unanswered; a meter that has them
    answers UsedError, which is success. `anew`: a person wants it, the count of tries begins again.
    """
    rows = conn.execute(query("tokens_to_deliver_again"), {"commands": commands}).fetchall()
    for number, first_issued_ms, meter_id, digits, tokens, tid, changes_key in rows:
        before = _unanswered_credit(conn, meter_id) if changes_key else []
        attempt = None if anew else supply.Attempt(number + 1, first_issued_ms)
        command = _queue(conn, meter_id, [*before, *digits], tid, now_ms, attempt)
        conn.execute(query("reissue_command"), {"command": command, "tokens": tokens})
    return len(rows)


def reprint(conn: Connection, top_up: str, by: str, reason: str, now_ms: int) -> tuple[str, ...]:
    """The stored tokens of a top-up in their order, and a record of who asked and why.

    Errors: NotFound; Conflict `no_tokens` (nothing was issued), `reason_missing`.
    """
    if not by.strip() or not reason.strip():
        raise Conflict("reason_missing", "say who reprints and why: both are kept")
    with conn.transaction():
        found = conn.execute(query("find_top_up"), {"top_up": top_up}).fetchone()
        if found is None:
            raise NotFound("The top-up")
        rows = conn.execute(query("tokens_of_top_up"), {"top_up": top_up}).fetchall()
        if not rows:
            raise Conflict("no_tokens", "no token was issued for this top-up: nothing to reprint")
        conn.execute(
            query("insert_reprint"),
            {"top_up": top_up, "by": by, "reason": reason, "now_ms": now_ms},
        )
        audit_log.record(
            conn,
            by,
            "token.reprint",
            f"top_up:{top_up}",
            now_ms,
            reason=reason,
            after={"tokens": len(rows)},
            account=found[0],
        )
    return tuple(digits for (digits,) in rows)


def top_up_of_receipt(conn: Connection, receipt_number: int) -> str:
    """The top-up that a receipt is of. Errors: NotFound."""
    row = conn.execute(query("top_up_of_receipt"), {"receipt": receipt_number}).fetchone()
    if row is None:
        raise NotFound(f"Receipt {receipt_number}")
    return str(row[0])


def find_issued(conn: Connection, digits: str) -> list[Issued]:
    """Each time that we issued these digits, oldest first; empty when they are not ours."""
    return [Issued(*row) for row in conn.execute(query("tokens_with_digits"), {"digits": digits})]
