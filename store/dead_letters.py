"""What follows a command that ended without its effect: another try, or a dead letter.

The rules are `schemas.retries`; here they become rows. A dead letter is a command that nobody tries
any more, with the reason, until a person reopens it (`store.outbox.reopen`) or closes it with a
note.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg import Connection

from schemas.commands import CommandState, CommandType
from schemas.retries import back_off_ms, follow_up, is_too_old
from store import audit_log
from store.errors import Conflict, NotFound
from store.sql import query

Decided = Literal["reopened", "closed"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ended in `state`; `why` is the meter's reason where it gave one."""

    cmd: str
    type: CommandType
    state: CommandState
    why: str | None
    attempt: int
    first_issued_ms: int
    issued_ms: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`command_state`: as what it ended. The last three are None while it is open."""

    id: int
    meter: str
    cmd: str
    type: CommandType
    args: Mapping[str, object]
    command_state: CommandState
    attempt: int
    first_issued_ms: int
    reason: str
    recorded_ms: int
    state: Literal["open", "reopened", "closed"]
    decided_by: str | None
    decided_ms: int | None
    note: str | None


def follow(conn: Connection, ended: Iterable[Ended], now_ms: int) -> None:
    """Plan the retries of tokens and give up what is refused or too old. A relay's next order is
    not planned: it is decided again, by what the meter says (`store.clockwork.reconcile`).
    """
    for each in ended:
        follows = follow_up(each.type, each.state, each.why)
        if follows == "give_up":
            reason = each.state if each.why is None else f"{each.state}: {each.why}"
            record(conn, each.cmd, reason, now_ms)
        elif follows == "again" and each.type == "token":
            if is_too_old(each.type, each.first_issued_ms, now_ms):
                record(conn, each.cmd, "unanswered", now_ms)
            else:
                retry_ms = max(now_ms, each.issued_ms + back_off_ms(each.attempt))
                conn.execute(query("plan_retry"), {"id": each.cmd, "retry_ms": retry_ms})


def record(conn: Connection, cmd: str, reason: str, now_ms: int) -> None:
    """Give a command up; once."""
    conn.execute(query("insert_dead_letter"), {"id": cmd, "reason": reason, "now_ms": now_ms})


def dead_letters(conn: Connection, *, all_states: bool, limit: int) -> Sequence[DeadLetter]:
    """The open dead letters, or all of them, newest first."""
    rows = conn.execute(query("dead_letters"), {"all": all_states, "limit": limit})
    return [DeadLetter(*row) for row in rows]


def close(conn: Connection, letter: int, *, by: str, note: str, now_ms: int) -> None:
    """Nothing more is to be done about it. Errors: NotFound; Conflict `letter_decided`,
    `reason_missing`.
    """
    with conn.transaction():
        take(conn, letter, by=by, note=note)
        decide(conn, letter, "closed", by=by, note=note, now_ms=now_ms)


@dataclass(frozen=True, slots=True)
class Opened:
    """What it takes to issue the command of a dead letter anew; `life_ms`: issue to expiry."""

    cmd: str
    meter_id: int
    type: CommandType
    args: Mapping[str, object]
    life_ms: int


def take(conn: Connection, letter: int, *, by: str, note: str) -> Opened:
    """Lock an open dead letter for a decision. Errors as for `close`."""
    if not by.strip() or not note.strip():
        raise Conflict("reason_missing", "say who decides about the command and why: both are kept")
    row = conn.execute(query("dead_letter_to_decide"), {"letter": letter}).fetchone()
    if row is None:
        raise NotFound("The dead letter")
    state, *rest = row
    if state != "open":
        raise Conflict("letter_decided", f"dead letter {letter} was {state} before")
    return Opened(*rest)


def decide(
    conn: Connection, letter: int, state: Decided, *, by: str, note: str, now_ms: int
) -> None:
    """Write down what was decided about a letter that is taken."""
    of = {"letter": letter, "state": state, "by": by, "note": note, "now_ms": now_ms}
    conn.execute(query("decide_dead_letter"), of)
    done = {"reopened": "dead_letter.reopen", "closed": "dead_letter.close"}[state]
    audit_log.record(conn, by, done, f"dead_letter:{letter}", now_ms, reason=note)
