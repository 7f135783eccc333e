"""Roll-overs: a supply group's meters move to its current vending key, batch by batch.

Years pass between the first set and the last confirmation, so that a campaign is a plan and a
count; what each meter holds is in its own record. A meter that buys on the way gets its set with
the purchase (`store.issuing`), and the campaign counts it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from psycopg import Connection

from schemas.quantities import format_instant
from store import audit_log
from store.errors import Conflict, NotFound
from store.issuing import issue_set
from store.key_changes import current_vending_key, lock_token_meter
from store.sql import query
from tokens.errors import TokenError
from tokens.security_module import SecurityModule
from tokens.tid import KEN_NEVER_EXPIRES, key_end_ms

METERS_AT_ONCE = 200
DAY_MS = 24 * 3600 * 1000
# The roll-over of 2024 took utilities several years: crews visit every keypad meter.
NOTICE_MS = 5 * 365 * DAY_MS
URGENT_MS = 2 * 365 * DAY_MS


@dataclass(frozen=True, slots=True)
class Campaign:
    """A plan for one supply group and the vending key that was its current one then."""

    id: int
    code: str
    sgc: str
    krn: int
    base_date: int
    ken: int
    reason: str
    planned_by: str
    planned_ms: int


@dataclass(frozen=True, slots=True)
class CentreProgress:
    """Meters of one centre by how far they are; each count includes those further on."""

    centre: str
    name: str
    meters: int
    issued: int
    entered: int
    confirmed: int
    refused: int


@dataclass(frozen=True, slots=True)
class BatchProgress:
    batch: int
    meters: int
    issued: int
    confirmed: int


@dataclass(frozen=True, slots=True)
class BatchIssue:
    """What one round of issuing a batch did; `refused` are kept with their reason."""

    issued: int = 0
    held_already: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Slip:
    """A set to be entered at a meter's keypad, in this order."""

    centre: str
    meter: str
    digits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyExpiry:
    """A vending key that meters hold, and when it ends: by its KEN or with its base date."""

    sgc: str
    krn: int
    ken: int
    base_date: int
    meters: int
    ends_ms: int
    cause: Literal["key expiry number", "base date"]
    level: Literal["expired", "urgent", "notice"]


def plan(
    conn: Connection, code: str, sgc: str, batch_size: int, by: str, reason: str, now_ms: int
) -> Campaign:
    """List the group's meters that hold another key than the current one, in batches.

    Errors: Conflict `key_unfit` (no current vending key is recorded), `campaign_exists`,
    `nothing_to_change`, `bad_batch`.
    """
    if batch_size < 1:
        raise Conflict("bad_batch", f"a batch of {batch_size} meters is none: give at least 1")
    with conn.transaction():
        key = current_vending_key(conn, sgc, now_ms)
        if key is None:
            raise Conflict(
                "key_unfit", f"SGC {sgc} has no current vending key: record the new one first"
            )
        target = {"sgc": sgc, "krn": key.krn, "base_date": key.base_date, "ken": key.ken}
        row = conn.execute(
            query("add_campaign"),
            target | {"code": code, "reason": reason, "by": by, "now_ms": now_ms},
        ).fetchone()
        if row is None:
            raise Conflict("campaign_exists", f"campaign {code} is there already: name another")
        planned = conn.execute(
            query("plan_campaign_meters"), target | {"campaign": row[0], "size": batch_size}
        )
        if planned.rowcount == 0:
            raise Conflict(
                "nothing_to_change", f"every meter of SGC {sgc} holds the current vending key"
            )
        audit_log.record(
            conn,
            by,
            "campaign.plan",
            f"campaign:{code}",
            now_ms,
            reason=reason,
            after=target | {"meters": planned.rowcount},
        )
    return campaign(conn, code)


def campaign(conn: Connection, code: str) -> Campaign:
    """A campaign by its code. Errors: NotFound."""
    row = conn.execute(query("campaign_of_code"), {"code": code}).fetchone()
    if row is None:
        raise NotFound(f"Campaign {code}")
    return Campaign(*row)


def campaigns(conn: Connection) -> list[Campaign]:
    """Every campaign, newest first."""
    return [Campaign(*row) for row in conn.execute(query("campaigns_newest"))]


def issue_batch(
    conn: Connection,
    module: SecurityModule,
    code: str,
    batch: int,
    now_ms: int,
    report: Callable[[int], None] = lambda _: None,
) -> BatchIssue:
    """Issue the sets of a batch, one meter per transaction: a stop in the middle goes on next time.

    A meter that was ever online is sent its set; the others need a slip. `report` gets the number
    of meters done. Errors: NotFound (campaign or batch).
    """
    plan_of = campaign(conn, code)
    of = {"campaign": plan_of.id, "batch": batch}
    row = conn.execute(query("batch_exists"), of).fetchone()
    if row is None or not row[0]:
        raise NotFound(f"Batch {batch} of campaign {code}")
    counts = {"issued": 0, "held_already": 0, "refused": 0}
    after = 0
    while rows := conn.execute(
        query("next_campaign_meters"), of | {"after": after, "limit": METERS_AT_ONCE}
    ).fetchall():
        for (meter_id,) in rows:
            counts[_issue_one(conn, module, plan_of, meter_id, now_ms)] += 1
            report(sum(counts.values()))
            after = meter_id
    return BatchIssue(**counts)


def _issue_one(
    conn: Connection, module: SecurityModule, plan_of: Campaign, meter_id: int, now_ms: int
) -> str:
    noted: dict[str, object] = {"campaign": plan_of.id, "meter": meter_id}
    try:
        with conn.transaction():
            meter = lock_token_meter(conn, meter_id, now_ms)
            change = issue_set(conn, module, meter, now_ms)
            if change is None:
                return "held_already"
            conn.execute(
                query("note_campaign_meter"), noted | {"key_change": change.id, "refusal": None}
            )
            return "issued"
    except (TokenError, Conflict) as error:
        # One meter that cannot follow does not hold up its batch.
        conn.execute(
            query("note_campaign_meter"), noted | {"key_change": None, "refusal": str(error)}
        )
        return "refused"


def progress(conn: Connection, code: str) -> list[CentreProgress]:
    """How far each centre is. Errors: NotFound."""
    of = {"campaign": campaign(conn, code).id}
    return [CentreProgress(*row) for row in conn.execute(query("campaign_progress"), of)]


def batches(conn: Connection, code: str) -> list[BatchProgress]:
    """How far each batch is. Errors: NotFound."""
    of = {"campaign": campaign(conn, code).id}
    return [BatchProgress(*row) for row in conn.execute(query("campaign_batches"), of)]


def slips(conn: Connection, code: str, batch: int) -> list[Slip]:
    """Sets of a batch that no meter has confirmed, for entry by hand. Errors: NotFound."""
    of = {"campaign": campaign(conn, code).id, "batch": batch}
    rows = conn.execute(query("campaign_slips"), of)
    return [Slip(centre, meter, tuple(digits)) for centre, meter, digits in rows]


def key_expiries(conn: Connection, now_ms: int) -> list[KeyExpiry]:
    """Vending keys in meters that end within five years, the next one first."""
    found = []
    for sgc, krn, ken, base_date, meters in conn.execute(query("held_keys")):
        ends_ms = key_end_ms(ken, base_date)
        left_ms = ends_ms - now_ms
        if left_ms > NOTICE_MS:
            continue
        found.append(
            KeyExpiry(
                sgc,
                krn,
                ken,
                base_date,
                meters,
                ends_ms,
                cause="base date" if ken == KEN_NEVER_EXPIRES else "key expiry number",
                level="expired" if left_ms <= 0 else "urgent" if left_ms <= URGENT_MS else "notice",
            )
        )
    return sorted(found, key=lambda each: (each.ends_ms, each.sgc, each.krn))


def advice(expiry: KeyExpiry) -> str:
    """One sentence for people: what ends when, for how many meters, and what to do."""
    verb = "ended" if expiry.level == "expired" else "ends"
    return (
        f"the vending key of SGC {expiry.sgc}, KRN {expiry.krn} {verb} by its {expiry.cause} on "
        f"{format_instant(expiry.ends_ms)} for {expiry.meters} meters: adopt the next key and plan "
        "a campaign"
    )
