"""From a supply state to a command, and from a meter's word to what is known (mqtt.md section 3).

One relay intention per meter: desired {relay, version} against reported. A newer one supersedes.
A queued command row is the outbox; only the meter's own answer moves the supply state.
"""

import secrets
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from credit_engine.guards import cut_expiry_ms
from credit_engine.protection import protection_of
from schemas.commands import FINAL, Command, CommandState, CommandType, may_become, sources
from schemas.identity import command_id
from schemas.retries import LATE, end_of_tokens, is_too_old
from schemas.telemetry import Ack
from store import centres, dead_letters, token_answers
from store.settlement import Settled
from store.sql import query

# Long enough for a meter that reports every quarter of an hour to be heard; a stale order is worse
# than a late one, because it is decided again.
RELAY_EXPIRY_MS = 15 * 60 * 1000
# A token stays valid for its key's life; a new command with a new counter carries it again.
TOKEN_EXPIRY_MS = 24 * 3600 * 1000
READ_EXPIRY_MS = 15 * 60 * 1000
# What a supply wants of the relay; `protected` wants nothing.
RELAY_OF = {"connected": "closed", "disconnected": "open"}


@dataclass(frozen=True, slots=True)
class InstalledMeter:
    """The meter that serves an account now; `centre_id` is the account's."""

    id: int
    number: str
    desired_relay: str
    reported_relay: str | None
    centre_id: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which try of the same intention a command is, from 1, and when the first was issued."""

    number: int
    first_issued_ms: int


class Queued(NamedTuple):
    """A command on its way: to a meter, behind a gateway or not."""

    meter: str
    gateway: str | None
    command: Command


def meters_of_accounts(conn: Connection, accounts: Iterable[int]) -> dict[int, InstalledMeter]:
    """The meters of these accounts; a desired relay is stable while its account is locked."""
    of = {"accounts": list(accounts)}
    if not of["accounts"]:
        return {}
    rows = conn.execute(query("meters_of_accounts"), of)
    return {account: InstalledMeter(*rest) for account, *rest in rows}


def lock_meters(conn: Connection, rows: Iterable[tuple[int, ...]]) -> list[int]:
    """Lock the state of meters, given as rows of a query, by id: who moves commands of a meter and
    then gives it a new one takes these locks first, as ingest does before it takes the answers.
    """
    meters = sorted({meter for meter, *_ in rows})
    if meters:
        conn.execute(query("lock_meter_states"), {"meters": meters})
    return meters


def meter_of_account(conn: Connection, account_id: int) -> InstalledMeter | None:
    """The account's meter, None where it has none of its own any more."""
    return meters_of_accounts(conn, [account_id]).get(account_id)


def decide(
    conn: Connection,
    settled: Sequence[Settled],
    meters: Mapping[int, InstalledMeter],
    withheld: Container[int],
    now_ms: int,
) -> int:
    """Queue what the supply states ask for; returns how many commands were queued.

    `connected` wants the relay closed, `disconnected` open; `protected`, and guards that withhold
    the cut of one of the accounts `withheld`, change nothing: they keep a supply from being cut and
    do not restore one.
    """
    queued = 0
    for each in settled:
        account = each.state.account_id
        wanted = RELAY_OF.get(each.state.supply)
        if wanted is None or (wanted == "open" and account in withheld):
            continue
        meter = meters.get(account)
        if meter is None or meter.desired_relay == wanted:
            continue
        queued += order_relay(conn, each, meter, wanted, now_ms)
    return queued


def order_relay(
    conn: Connection,
    settled: Settled,
    meter: InstalledMeter,
    wanted: str,
    now_ms: int,
    attempt: Attempt | None = None,
) -> bool:
    """Make `wanted` the meter's one relay intention; False where no time is left before a
    non-disconnection window, after which it is decided again.
    """
    rules = centres.settings_of(conn, [meter.centre_id])[meter.centre_id]
    expires_ms: int | None = now_ms + RELAY_EXPIRY_MS
    kind: CommandType = "relay"
    if wanted == "open":
        protection = protection_of(settled.terms.tariff, settled.terms.non_disconnection)
        margin_ms = rules.cut_rules.clock_margin_ms
        expires_ms = cut_expiry_ms(protection, now_ms, RELAY_EXPIRY_MS, margin_ms)
        args = {"to": "open", "why": "out_of_credit"}
    elif rules.reconnect == "arm":
        kind, args = "arm", {}
    else:
        args = {"to": "close", "why": "credit"}
    if expires_ms is None:
        return False
    # Before its commands, also where it is desired already.
    lock_meters(conn, [(meter.id,)])
    conn.execute(query("desire_relay"), {"meter": meter.id, "relay": wanted})
    conn.execute(
        query("supersede_relay_commands"),
        {"meter": meter.id, "from_states": sources("superseded")},
    )
    queue(conn, meter.id, kind, args, now_ms, expires_ms, attempt)
    if wanted == "closed" and meter.reported_relay in {"open", "armed"}:
        conn.execute(query("mark_reconnects"), {"meter": meter.id, "now_ms": now_ms})
    return True


def repeat_order(conn: Connection, settled: Settled, meter: InstalledMeter, now_ms: int) -> bool:
    """Order again what the meter did not do; after too long it is a dead letter instead."""
    of = {"meter": meter.id}
    row = conn.execute(query("last_relay_order"), of).fetchone()
    attempt = None
    if row is not None:
        number, _, first_issued_ms, cmd, dead = row
        if dead is None and is_too_old("relay", first_issued_ms, now_ms):
            dead_letters.record(conn, cmd, "not_obeyed", now_ms)
            return False
        # One that a person has reopened begins anew.
        attempt = Attempt(number + 1, first_issued_ms) if dead is None else None
    return order_relay(conn, settled, meter, meter.desired_relay, now_ms, attempt)


def queue(
    conn: Connection,
    meter_id: int,
    kind: CommandType,
    args: Mapping[str, object],
    now_ms: int,
    expires_ms: int,
    attempt: Attempt | None = None,
) -> str:
    """Put one command into the outbox; returns its id."""
    row = conn.execute(query("next_ctr"), {"meter": meter_id}).fetchone()
    assert row is not None, "every meter has its state row"
    name = command_id(now_ms, secrets.token_bytes(10))
    conn.execute(
        query("insert_command"),
        {
            "id": name,
            "meter": meter_id,
            "ctr": row[0],
            "type": kind,
            "args": Jsonb(dict(args)),
            "issued_ms": now_ms,
            "expires_ms": expires_ms,
            "attempt": 1 if attempt is None else attempt.number,
            "first_issued_ms": None if attempt is None else attempt.first_issued_ms,
        },
    )
    return name


def answer(conn: Connection, ack: Ack, meter: str, now_ms: int) -> bool:
    """Take a meter's word on a command; False when it was never given that command.

    A word that the table of states does not allow is kept and changes nothing; the same word again
    is no word. That it came too late to act, a meter says of a repeat, too: where that overtook
    what it said of the first, how it ended counts after all, as in the other order. What it
    measured (`relay`, `reg`) is the caller's: that is true in any case.
    """
    if not _is_uuid(ack.cmd):
        return False
    row = conn.execute(query("command_to_answer"), {"id": ack.cmd, "meter": meter}).fetchone()
    if row is None:
        return False
    cmd, meter_id, kind, before, claimed, attempt, first_issued_ms, issued_ms, *more = row
    version, why, tokens = more
    results = [] if tokens is None else token_answers.results_of(conn, ack, tokens)
    said = end_of_tokens(ack.state, results)
    # A meter may answer before we have written down that the broker took the command.
    state: CommandState = "sent" if before == "queued" and claimed else before
    if (state, why) in LATE and said in FINAL and (said, ack.why) not in LATE:
        state = "sent"
    of = {"id": cmd, "before": before, "answer": _as_said(ack), "now_ms": now_ms}
    if state == said:
        return True
    if not may_become(state, said):
        conn.execute(query("ignore_answer"), of)
        return True
    conn.execute(query("answer_command"), of | {"state": said, "final": list(FINAL)})
    if said == "done" and version is not None:
        conn.execute(query("report_version"), {"meter": meter_id, "version": version})
    if any(results):
        token_answers.keep(conn, cmd, results, now_ms)
    ended = dead_letters.Ended(cmd, kind, said, ack.why, attempt, first_issued_ms, issued_ms)
    dead_letters.follow(conn, [ended], now_ms)
    return True


def _as_said(ack: Ack) -> Jsonb:
    form = {
        "state": ack.state,
        "relay": ack.relay,
        "reg": dict(ack.reg),
        "tokens": [dict(token) for token in ack.tokens],
        "why": ack.why,
        **ack.beside,
    }
    return Jsonb(form if ack.last_token is None else form | {"token": dict(ack.last_token)})


def queued_commands(conn: Connection, limit: int) -> list[Queued]:
    """The outbox, to look at."""
    return in_order(conn.execute(query("queued_commands"), {"limit": limit}).fetchall())


def in_order(rows: Sequence[Sequence[Any]]) -> list[Queued]:
    """Rows of the outbox as commands, oldest first and a meter's in the order of their counters."""
    return [
        Queued(
            number,
            gateway,
            Command(
                cmd=cmd,
                type=kind,
                ctr=ctr,
                issued_ms=issued_ms,
                expires_ms=expires_ms,
                args=args,
                meter=number if gateway else None,
            ),
        )
        for cmd, number, gateway, kind, ctr, issued_ms, expires_ms, args in sorted(
            rows, key=lambda row: (row[5], row[4])
        )
    ]


def mark_sent(conn: Connection, ids: Sequence[str], now_ms: int) -> None:
    """The broker has these commands; nothing more is known."""
    with conn.transaction():
        of: dict[str, object] = {"ids": list(ids), "now_ms": now_ms}
        # As ingest does: two that move several commands each would wait for each other.
        lock_meters(conn, conn.execute(query("meters_of_commands"), of))
        conn.execute(query("mark_sent"), of | {"from_states": sources("sent")})
        conn.execute(query("mark_delivering"), of)


def _is_uuid(text: str) -> bool:
    """Whether it is a command id as we write them; anything else was never ours."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
