"""Credit that was paid for and cannot be entered any more, once more; and never twice.

Two things end a token that nobody entered: the meter's key changes, or the meter is exchanged.
Whether a keypad meter took it before that, nobody may know. What keeps both from being credited:

    same meter, same base date   the replacement has the *same* TID under the new key. A key change
                                 leaves the meter's memory of TIDs: who entered the old token gets
                                 UsedError for the new one, which counts as accepted
    another base date, another   no memory reaches over. Somebody says, by name and with a reason,
    meter                        that the old token was never entered, and it gets a TID of its own

    issued -> replaced           the old token; only a late word of its meter changes its result
    issued -> as any token       the new one; the top-up waits again, and is accepted with the first
                                 of the two that is

The old one is under a key that its meter no longer holds, and a meter that was taken away is not
installed again while it still holds such a key (`demand_nothing_replaced`).
"""

import secrets
from dataclasses import dataclass
from typing import Literal

from psycopg import Connection

from store import audit_log
from store.errors import Conflict, NotFound
from store.issuing import Made, Owner, allocate_tid, store_tokens
from store.key_changes import TokenMeter, lock_token_meter
from store.sql import query
from tokens import apdu
from tokens.security_module import SecurityModule

Ground = Literal["same_tid", "not_entered"]


@dataclass(frozen=True, slots=True)
class Stranded:
    """A credit token that the account's meter cannot read; `amount` in units of its subclass."""

    token: int
    top_up: str
    receipt_number: int
    meter_id: int
    meter: str
    subclass: int
    amount: int
    base_date: int
    tid: int
    issued_ms: int
    result: str | None
    last_ordinal: int


@dataclass(frozen=True, slots=True)
class Replacement:
    """A new token in the place of `replaced`, to be shown or sent."""

    replaced: Stranded
    digits: str
    ground: Ground


def stranded(conn: Connection, meter: str) -> list[Stranded]:
    """What a meter's account paid for and this meter cannot read, by age. Errors: NotFound."""
    return _stranded(conn, _find(conn, meter))


def replace(
    conn: Connection,
    module: SecurityModule,
    meter: str,
    *,
    by: str,
    reason: str,
    not_entered: bool,
    now_ms: int,
) -> list[Replacement]:
    """Replace what is stranded, under the key that the meter holds, and send it.

    `not_entered`: `by` says of every token on the list that nobody entered it; without that word
    those are left out that no meter's memory protects.

    Errors: NotFound; Conflict `reason_missing`, `key_change_open` (the meter may hold either of two
    keys), `nothing_to_replace`, `entry_unknown` (the word is needed), `clock_behind`; TokenError.
    """
    if not by.strip() or not reason.strip():
        raise Conflict("reason_missing", "say who replaces and why: both are kept")
    with conn.transaction():
        found = lock_token_meter(conn, _find(conn, meter), now_ms)
        if found.open is not None:
            raise Conflict(
                "key_change_open",
                f"meter {meter} may hold either of two keys: have its key change set entered and "
                "confirm it first",
            )
        waiting = _stranded(conn, found.id)
        if not waiting:
            raise Conflict("nothing_to_replace", f"meter {meter} can read all of its credit")
        chosen = [each for each in waiting if not_entered or _remembered(each, found)]
        if not chosen:
            raise Conflict(
                "entry_unknown",
                f"no meter remembers whether {len(waiting)} tokens of meter {meter} were entered: "
                "find it out, and give your word that they were not",
            )
        word = {"by": by, "reason": reason, "now_ms": now_ms}
        return [_replace_one(conn, module, found, each, word, now_ms) for each in chosen]


def demand_nothing_replaced(conn: Connection, meter_id: int, number: str) -> None:
    """A meter that comes back must not take what was replaced elsewhere meanwhile.

    Errors: Conflict `key_change_due`.
    """
    row = conn.execute(query("replaced_and_readable"), {"meter": meter_id}).fetchone()
    if row is not None and row[0]:
        raise Conflict(
            "key_change_due",
            f"{row[0]} tokens of meter {number} were replaced on another meter and it would still "
            "take them: change its key before it is installed again",
        )


def _find(conn: Connection, meter: str) -> int:
    row = conn.execute(query("find_meter"), {"number": meter}).fetchone()
    if row is None:
        raise NotFound(f"Meter {meter}")
    return int(row[0])


def _stranded(conn: Connection, meter_id: int) -> list[Stranded]:
    return [Stranded(*row) for row in conn.execute(query("stranded_credit"), {"meter": meter_id})]


def _remembered(old: Stranded, meter: TokenMeter) -> bool:
    """Whether the meter would know the token's TID, had it taken it."""
    return old.meter_id == meter.id and old.base_date == meter.held.base_date


def _replace_one(
    conn: Connection,
    module: SecurityModule,
    meter: TokenMeter,
    old: Stranded,
    word: dict[str, object],
    now_ms: int,
) -> Replacement:
    same = _remembered(old, meter)
    ground: Ground = "same_tid" if same else "not_entered"
    tid = old.tid if same else allocate_tid(conn, meter.id, meter.held, now_ms)
    digits = module.issue_credit(
        meter.meter_pan,
        meter.held,
        subclass=old.subclass,
        amount=old.amount,
        tid_minutes=tid,
        rnd=secrets.randbelow(16),
    )
    owner = Owner(top_up=old.top_up)
    made = Made(digits, apdu.CREDIT, old.subclass, owner, meter.held, tid, old.amount, same)
    ordinal = old.last_ordinal + 1
    store_tokens(conn, meter, [made], now_ms, carry=True, first_ordinal=ordinal)
    of = {"replaced": old.token, "top_up": old.top_up, "ordinal": ordinal, "ground": ground}
    conn.execute(query("insert_replacement"), of | word)
    conn.execute(query("await_replacement"), of)
    audit_log.record(
        conn,
        str(word["by"]),
        "token.replace",
        f"top_up:{old.top_up}",
        now_ms,
        reason=str(word["reason"]),
        before={"token": old.token, "meter": old.meter},
        after={"ordinal": ordinal, "meter": meter.number, "ground": ground},
        meter=meter.number,
    )
    if old.meter_id != meter.id:
        conn.execute(query("supersede_token_commands"), {"token": old.token})
    return Replacement(old, digits, ground)
