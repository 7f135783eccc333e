"""What operators look at and enter: quarantine, commands, meters, and a new supply point."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.errors import UndefinedTable

from credit_engine.terms import Installation
from store import audit_log, migrate, registry
from store.errors import Conflict, NotFound
from store.registry import NewMeter
from store.sql import like_text, query


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A message that was refused, or a reading that charges nothing, with the reason."""

    received_ms: int
    reason: str
    detail: str
    topic: str
    meter: str | None
    reading_ms: int | None
    reading_wh: int | None
    item: str
    closed_by: str | None
    closed_ms: int | None
    note: str | None


@dataclass(frozen=True, slots=True)
class IssuedCommand:
    """A command with what the meter answered; the arguments of `token` are not shown."""

    id: str
    meter: str
    type: str
    state: str
    ctr: int
    issued_ms: int
    expires_ms: int
    sent_ms: int | None
    answered_ms: int | None
    args: Mapping[str, object] | None
    answer: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class MeterReport:
    """A meter as registered and as it last spoke; without tokens its STS attributes are None."""

    number: str
    centre: str
    gateway: str | None
    meter_pan: str | None
    sgc: str | None
    krn: int | None
    kt: int | None
    ken: int | None
    ti: str | None
    base_date: int | None
    ea: int | None
    dkga: int | None
    third_kct: bool
    online: bool | None
    seen_ms: int | None
    boot: int | None
    seq: int | None
    desired_relay: str
    reported_relay: str | None
    reported_ms: int | None
    account: str | None
    # (OBIS register, instant, Wh) of the newest value of each
    registers: Sequence[tuple[str, int, int]] | None


@dataclass(frozen=True, slots=True)
class ListedMeter:
    """A meter among others; `account`: the one that it serves now."""

    id: int
    number: str
    centre: str
    gateway: str | None
    takes_tokens: bool
    online: bool | None
    seen_ms: int | None
    desired_relay: str
    reported_relay: str | None
    reported_ms: int | None
    account: str | None


@dataclass(frozen=True, slots=True)
class NewSupply:
    """A meter and, with `account`, the supply point that it opens."""

    meter: NewMeter
    centre: str
    account: str | None = None
    holder: str = ""
    tariff: str = ""
    terms: Mapping[str, object] | None = None
    installation: Installation | None = None


def listed(centres: Sequence[int] | None) -> list[int] | None:
    """Centres as the queries take them; None for every one."""
    return None if centres is None else list(centres)


def open_centre(
    conn: Connection,
    code: str,
    name: str,
    *,
    who: str,
    now_ms: int,
    reason: str | None = None,
) -> None:
    """A new centre. Errors: Conflict `centre_exists`."""
    with conn.transaction():
        if conn.execute(query("find_centre"), {"code": code}).fetchone() is not None:
            raise Conflict("centre_exists", f"centre {code} is there already: choose another code")
        registry.add_centre(conn, code, name)
        audit_log.record(
            conn,
            who,
            "centre.open",
            f"centre:{code}",
            now_ms,
            reason=reason,
            after={"name": name},
        )


def close_quarantined(
    conn: Connection,
    item: str,
    note: str,
    *,
    centres: Sequence[int] | None,
    who: str,
    now_ms: int,
) -> Quarantined:
    """Say what came of an item; it stays where it is, and a repeat by the same person is one.

    Errors: NotFound, also for another centre's; Conflict `already_closed`.
    """
    with conn.transaction():
        of = _place(item) | {"centres": listed(centres)}
        row = conn.execute(query("quarantined_item"), of).fetchone()
        if row is None:
            raise NotFound("The item")
        found = Quarantined(*row)
        made = {"item": item, "who": who, "note": note, "now_ms": now_ms}
        if conn.execute(query("close_quarantined"), made).fetchone() is None:
            found = Quarantined(*_one(conn, "quarantined_item", of))
            if (found.closed_by, found.note) != (who, note):
                raise Conflict(
                    "already_closed", f"it was closed by {found.closed_by}: {found.note}"
                )
            return found
        audit_log.record(
            conn,
            who,
            "quarantine.close",
            f"quarantine:{item}",
            now_ms,
            reason=note,
            after={"reason": found.reason},
            meter=found.meter,
        )
        return Quarantined(*_one(conn, "quarantined_item", of))


_ITEM = re.compile(
    r"message-(?P<message>\d{1,18})|"
    r"reading-(?P<meter>\d{1,18})-(?P<register>[\d.]{1,20})-(?P<at_ms>\d{1,15})"
)


def _place(item: str) -> dict[str, Any]:
    found = _ITEM.fullmatch(item)
    if found is None:
        raise NotFound("The item")
    return found.groupdict()


def _one(conn: Connection, name: str, of: Mapping[str, object]) -> tuple[Any, ...]:
    row = conn.execute(query(name), of).fetchone()
    assert row is not None, "found above"
    return row


def quarantined(
    conn: Connection,
    *,
    reason: str | None,
    until_ms: int | None,
    skip: int,
    limit: int,
    centres: Sequence[int] | None = None,
    closed: bool | None = None,
) -> list[Quarantined]:
    """Newest first from `until_ms` on, without the first `skip`; one more than `limit`.

    `centres`: only items about meters of these. `closed`: only those that are, or are not.
    """
    of = {
        "reason": reason,
        "until_ms": until_ms,
        "skip": skip,
        "limit": limit + 1,
        "centres": listed(centres),
        "closed": closed,
    }
    return [Quarantined(*row) for row in conn.execute(query("quarantined_newest"), of)]


def commands(
    conn: Connection,
    *,
    meter: str | None,
    state: str | None,
    before_id: str | None,
    limit: int,
    centres: Sequence[int] | None = None,
    centre: str | None = None,
) -> list[IssuedCommand]:
    """Newest first; one more than `limit` when there is a next page."""
    of = {
        "centre": centre,
        "meter": meter,
        "state": state,
        "before": before_id,
        "limit": limit + 1,
        "centres": listed(centres),
    }
    return [IssuedCommand(*row) for row in conn.execute(query("commands_newest"), of)]


def meter(conn: Connection, number: str, centres: Sequence[int] | None = None) -> MeterReport:
    """One meter. Errors: NotFound, also for one of another centre."""
    of = {"number": number, "centres": listed(centres)}
    row = conn.execute(query("meter_report"), of).fetchone()
    if row is None:
        raise NotFound("The meter")
    return MeterReport(*row)


def meters(
    conn: Connection,
    *,
    centres: Sequence[int] | None,
    after_id: int | None,
    limit: int,
    centre: str | None = None,
    gateway: str | None = None,
    search: str | None = None,
) -> list[ListedMeter]:
    """In the order of registration; one more than `limit` when there is a next page.

    `centres`: only those of these centres. `centre`: of this one, by its code. `gateway`: behind
    it. `search`: the beginning of the meter's number, or of that of the account that it serves.
    """
    of = {
        "centres": listed(centres),
        "centre": centre,
        "gateway": gateway,
        "like": like_text(search),
        "after": after_id,
        "limit": limit + 1,
    }
    return [ListedMeter(*row) for row in conn.execute(query("meters_seen"), of)]


def register_supply(
    conn: Connection,
    new: NewSupply,
    now_ms: int,
    *,
    who: str,
    centres: Sequence[int] | None = None,
    reason: str | None = None,
) -> int | None:
    """Register a meter and open its account in one transaction; returns the holder's number, None
    without an account.

    `centres`: those that the operator has. Errors: as registry.add_meter and
    registry.open_account; NotFound (centre, tariff).
    """
    with conn.transaction():
        row = conn.execute(query("find_centre"), {"code": new.centre}).fetchone()
        if row is None or (centres is not None and row[0] not in centres):
            raise NotFound(f"Centre {new.centre}")
        centre = row[0]
        registry.add_meter(conn, centre, new.meter)
        audit_log.record(
            conn,
            who,
            "meter.register",
            f"meter:{new.meter.number}",
            now_ms,
            reason=reason,
            after={"centre": new.centre, "account": new.account, "tariff": new.tariff or None},
            meter=new.meter.number,
        )
        if new.account is None:
            return None
        assert new.installation is not None, "an account is opened with its first meter"
        found = conn.execute(query("find_tariff"), {"code": new.tariff}).fetchone()
        if found is None:
            raise NotFound(f"Tariff {new.tariff}")
        customer = registry.add_customer(conn, new.holder, now_ms)
        registry.open_account(
            conn,
            number=new.account,
            customer=customer,
            centre=centre,
            tariff=found[0],
            terms=new.terms or {},
            installation=new.installation,
            now_ms=now_ms,
        )
        return customer


def is_registered(conn: Connection, new: NewSupply, centres: Sequence[int] | None) -> bool:
    """Whether just this meter is registered in these centres, and serves just this account."""
    try:
        known = meter(conn, new.meter.number, centres)
    except NotFound:
        return False
    wanted = (new.centre, new.meter.gateway, new.account, new.meter.meter_pan)
    return wanted == (known.centre, known.gateway, known.account, known.meter_pan)


@dataclass(frozen=True, slots=True)
class Readiness:
    """`newest_commit_ms`: when the ledger last grew; None in a new database. `vending_key`: SGC and
    KRN of one that a meter has.
    """

    pending_migrations: tuple[str, ...]
    newest_commit_ms: int | None
    vending_key: tuple[str, int] | None = None


def readiness(conn: Connection) -> Readiness:
    """Whether the database can serve this version of the code."""
    try:
        pending = tuple(migrate.pending(conn))
    except UndefinedTable:
        # Nobody has migrated this database yet.
        pending = tuple(migration.name for migration in migrate.migrations())
    if pending:
        return Readiness(pending, None)
    row = conn.execute(query("newest_commit")).fetchone()
    key = conn.execute(query("vending_key_in_use")).fetchone()
    return Readiness(pending, None if row is None else row[0], key)
