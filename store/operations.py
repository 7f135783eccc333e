"""What operators look at and enter: quarantine, commands, meters, and a new supply point."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import Connection
from psycopg.errors import UndefinedTable

from credit_engine.terms import Installation
from store import migrate, registry
from store.errors import NotFound
from store.registry import NewMeter
from store.sql import query


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
class NewSupply:
    """A meter and, with `account`, the supply point that it opens."""

    meter: NewMeter
    centre: str
    account: str | None = None
    holder: str = ""
    tariff: str = ""
    terms: Mapping[str, object] | None = None
    installation: Installation | None = None


def quarantined(
    conn: Connection, *, reason: str | None, until_ms: int | None, skip: int, limit: int
) -> list[Quarantined]:
    """Newest first from `until_ms` on, without the first `skip`; one more than `limit`."""
    of = {"reason": reason, "until_ms": until_ms, "skip": skip, "limit": limit + 1}
    return [Quarantined(*row) for row in conn.execute(query("quarantined_newest"), of)]


def commands(
    conn: Connection, *, meter: str | None, state: str | None, before_id: str | None, limit: int
) -> list[IssuedCommand]:
    """Newest first; one more than `limit` when there is a next page."""
    of = {"meter": meter, "state": state, "before": before_id, "limit": limit + 1}
    return [IssuedCommand(*row) for row in conn.execute(query("commands_newest"), of)]


def meter(conn: Connection, number: str) -> MeterReport:
    """One meter. Errors: NotFound."""
    row = conn.execute(query("meter_report"), {"number": number}).fetchone()
    if row is None:
        raise NotFound("The meter")
    return MeterReport(*row)


def register_supply(conn: Connection, new: NewSupply, now_ms: int) -> str | None:
    """Register a meter and open its account in one transaction; returns the holder's access key,
    None without an account.

    Errors: as registry.add_meter and registry.open_account; NotFound (centre, tariff).
    """
    with conn.transaction():
        row = conn.execute(query("find_centre"), {"code": new.centre}).fetchone()
        if row is None:
            raise NotFound(f"Centre {new.centre}")
        centre = row[0]
        registry.add_meter(conn, centre, new.meter)
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
        return registry.add_access_key(conn, customer, now_ms)


@dataclass(frozen=True, slots=True)
class Readiness:
    """`newest_commit_ms`: when the ledger last grew; None in a new database."""

    pending_migrations: tuple[str, ...]
    newest_commit_ms: int | None


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
    return Readiness(pending, None if row is None else row[0])
