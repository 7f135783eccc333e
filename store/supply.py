"""From a supply state to a command, and from a meter's word to what is known (mqtt.md section 3).

One relay intention per meter: desired {relay, version} against reported. A newer one supersedes.
A queued command row is the outbox; only the meter's own answer moves the supply state.
"""

import secrets
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from credit_engine.protection import protection_of
from schemas.commands import Command, CommandType
from schemas.identity import command_id
from schemas.telemetry import Ack
from store import key_changes
from store.settlement import Settled
from store.sql import query

# Long enough for a meter that reports every quarter of an hour to be heard; a stale order is worse
# than a late one, because it is decided again.
RELAY_EXPIRY_MS = 15 * 60 * 1000
# A token stays valid for its key's life; a new command with a new counter carries it again.
TOKEN_EXPIRY_MS = 24 * 3600 * 1000
READ_EXPIRY_MS = 15 * 60 * 1000


@dataclass(frozen=True, slots=True)
class InstalledMeter:
    """The meter that serves an account now."""

    id: int
    number: str
    desired_relay: str
    reported_relay: str | None


def meter_of_account(conn: Connection, account_id: int) -> InstalledMeter | None:
    """The account's meter; its desired relay is stable while the account is locked."""
    row = conn.execute(query("meter_of_account"), {"account": account_id}).fetchone()
    return None if row is None else InstalledMeter(*row)


def decide(
    conn: Connection,
    settled: Sequence[Settled],
    held: Container[int],
    now_ms: int,
    asked: Mapping[int, str],
) -> int:
    """Queue what the supply states ask for; returns how many commands were queued.

    `connected` wants the relay closed, `disconnected` open; `protected`, and a hold on one of the
    accounts `held`, change nothing: they keep a supply from being cut and do not restore one.
    `asked`: what the meter of an account was last asked for, where the caller has read that under
    the locks; the other meters are looked up.
    """
    queued = 0
    for each in settled:
        account = each.state.account_id
        wanted = {"connected": "closed", "disconnected": "open"}.get(each.state.supply)
        if wanted is None or asked.get(account) == wanted:
            continue
        if wanted == "open" and account in held:
            continue
        meter = meter_of_account(conn, account)
        if meter is None or meter.desired_relay == wanted:
            continue
        order_relay(conn, each, meter, wanted, now_ms)
        queued += 1
    return queued


def order_relay(
    conn: Connection, settled: Settled, meter: InstalledMeter, wanted: str, now_ms: int
) -> None:
    """Make `wanted` the meter's one relay intention."""
    conn.execute(query("desire_relay"), {"meter": meter.id, "relay": wanted})
    conn.execute(query("supersede_relay_commands"), {"meter": meter.id})
    expires_ms = now_ms + RELAY_EXPIRY_MS
    if wanted == "open":
        # It must be over before the next non-disconnection window begins; then it is decided again.
        windows = settled.terms.non_disconnection
        edge_ms = protection_of(settled.terms.tariff, windows).next_edge(now_ms)
        if edge_ms is not None:
            expires_ms = min(expires_ms, edge_ms)
        args = {"to": "open", "why": "out_of_credit"}
    else:
        args = {"to": "close", "why": "credit"}
    queue(conn, meter.id, "relay", args, now_ms, expires_ms)


def queue(
    conn: Connection,
    meter_id: int,
    kind: CommandType,
    args: Mapping[str, object],
    now_ms: int,
    expires_ms: int,
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
        },
    )
    return name


def answer(conn: Connection, ack: Ack, meter: str, now_ms: int) -> bool:
    """Take a meter's word on a command; False when it was never given that command."""
    of = {"id": ack.cmd, "meter": meter}
    if not _is_uuid(ack.cmd):
        return False
    said = {
        "state": ack.state,
        "relay": ack.relay,
        "reg": dict(ack.reg),
        "tokens": [dict(token) for token in ack.tokens],
        "why": ack.why,
    }
    row = conn.execute(
        query("answer_command"),
        of | {"state": ack.state, "now_ms": now_ms, "answer": Jsonb(said)},
    ).fetchone()
    if row is None:
        known = conn.execute(query("command_exists"), of).fetchone()
        return bool(known and known[0])
    if row[0] == "token" and ack.tokens:
        _answer_tokens(conn, ack, now_ms)
    return True


def _answer_tokens(conn: Connection, ack: Ack, now_ms: int) -> None:
    rows = conn.execute(
        query("answer_tokens"),
        {
            "command": ack.cmd,
            "results": [token["result"] for token in ack.tokens],
            "now_ms": now_ms,
        },
    ).fetchall()
    results = [
        key_changes.SetResult(change, token_class, result)
        for _, change, token_class, result in rows
        if change is not None
    ]
    key_changes.take_results(conn, results, now_ms)
    top_ups = sorted({top_up for top_up, _, _, _ in rows if top_up is not None})
    if top_ups:
        conn.execute(query("conclude_top_ups"), {"top_ups": top_ups, "now_ms": now_ms})


def queued_commands(conn: Connection, limit: int) -> list[tuple[str, str | None, Command]]:
    """The outbox, oldest first: (meter number, its gateway or None, command)."""
    rows = conn.execute(query("queued_commands"), {"limit": limit}).fetchall()
    return [
        (
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
        for cmd, number, gateway, kind, ctr, issued_ms, expires_ms, args in rows
    ]


def mark_sent(conn: Connection, ids: Sequence[str], now_ms: int) -> None:
    """The broker has these commands; nothing more is known."""
    with conn.transaction():
        of = {"ids": list(ids), "now_ms": now_ms}
        conn.execute(query("mark_sent"), of)
        conn.execute(query("mark_delivering"), of)


def _is_uuid(text: str) -> bool:
    """Whether it is a command id as we write them; anything else was never ours."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
