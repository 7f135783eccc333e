"""What a meter holds, what it should hold, and the sets that lead there (IEC 62055-41 6.2.6 ff).

The record of a meter follows the meter, never our wish: it moves when the meter says that a set was
taken, when it reads credit under the new key, or when an operator confirms the entry at the keypad.
Between issue and that word the meter may hold either key; then credit goes under the new key and
the whole set goes with it again, which does no harm to a meter that has taken it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from psycopg import Connection

from schemas.quantities import format_instant
from store import audit_log
from store.errors import Conflict, NotFound
from store.sql import query
from tokens import tid
from tokens.apdu import MISTY1, STA
from tokens.errors import TokenError
from tokens.keys import DDTK, DUTK, KeyAttributes, demand_vendable
from tokens.management import KEY_CHANGE_SUBCLASSES
from tokens.numbers import is_digits
from tokens.security_module import SecurityModule

# Results to the sections of a set; `Accept` is that of the last one.
ENTERED = frozenset({"1stKCT", "2ndKCT", "Accept"})
# Results to credit that passed authentication.
READ_CREDIT = frozenset({"Accept", "UsedError", "OldError", "OverflowError"})
# Maker 00, serial 0: no meter has it.
NOBODYS_PAN = "600727000000000009"
SUPERSEDED = "the meter took another set"


@dataclass(frozen=True, slots=True)
class VendingKeyRevision:
    """A supply group's vending key from `from_ms` on: attributes and check value, no octets."""

    sgc: str
    krn: int
    ken: int
    base_date: int
    dkga: int
    check_value: str
    from_ms: int


@dataclass(frozen=True, slots=True)
class OpenKeyChange:
    """A set that is issued and not confirmed; `digits` in the order of entry."""

    id: int
    digits: tuple[str, ...]
    subclasses: tuple[int, ...]
    to: KeyAttributes


@dataclass(frozen=True, slots=True)
class SetResult:
    """What a meter said to a token of a set, or to credit under the key that the set leads to."""

    key_change: int
    token_class: int
    result: str

    @property
    def proves_key(self) -> bool:
        """The set was completed, or credit was read under its key: no other key would read it."""
        return self.result in (READ_CREDIT if self.token_class == 0 else {"Accept"})


@dataclass(frozen=True, slots=True)
class TokenMeter:
    """A meter that takes tokens, locked. `online` says that it was ever heard."""

    id: int
    number: str
    meter_pan: str
    third_kct: bool
    online: bool
    held: KeyAttributes
    wanted: KeyAttributes
    open: OpenKeyChange | None


def adopt_vending_key(
    conn: Connection,
    module: SecurityModule,
    *,
    sgc: str,
    krn: int,
    ken: int,
    base_date: int,
    dkga: int,
    from_ms: int,
    by: str,
    now_ms: int,
) -> VendingKeyRevision:
    """Record that a supply group uses a vending key from an instant on; a repeat is the first.

    From then on each vend to a meter of the group that holds another one begins with a key change.
    Errors: TokenError (no such key in the security module, attributes no meter could hold);
    Conflict `key_mismatch` (the key has another KEN, base date or DKGA), `key_not_in_order` (before
    the newest one, before its base date, or back to an earlier one) and `key_unfit` (meters of the
    group could not follow).
    """
    check_value = module.key_check_value(sgc, krn)
    _demand_of_key(module, sgc=sgc, krn=krn, ken=ken, base_date=base_date, dkga=dkga)
    wanted = VendingKeyRevision(sgc, krn, ken, base_date, dkga, check_value, from_ms)
    with conn.transaction():
        conn.execute(query("lock_vending_keys"))
        row = conn.execute(query("newest_vending_key"), {"sgc": sgc}).fetchone()
        if row is not None and VendingKeyRevision(*row) == wanted:
            return wanted
        _demand_in_order(wanted, None if row is None else VendingKeyRevision(*row))
        beyond = conn.execute(query("meters_beyond_vending_key"), asdict(wanted)).fetchone()
        if beyond is not None and beyond[0]:
            raise Conflict(
                "key_unfit",
                f"{beyond[0]} meters of SGC {sgc} hold a later base date, EA11 with a key for "
                "DKGA02, or a common key (KT 3) with one for DKGA04: name a vending key that they "
                "can follow",
            )
        conn.execute(query("add_vending_key"), asdict(wanted) | {"by": by, "now_ms": now_ms})
        audit_log.record(
            conn, by, "vending_key.adopt", f"supply_group:{sgc}", now_ms, after=asdict(wanted)
        )
    return wanted


def _demand_of_key(module: SecurityModule, **of_key: Any) -> None:
    """A set that nobody gets shows what the module knows of the key: better refused here than at
    each payment.
    """
    ea = STA if of_key["dkga"] == 2 else MISTY1
    default = KeyAttributes(kt=DDTK, ti="00", ea=ea, **of_key)
    try:
        module.issue_key_change(NOBODYS_PAN, default, replace(default, kt=DUTK), tid_minutes=0)
    except TokenError as error:
        if error.code != "key_mismatch":
            raise
        raise Conflict(
            "key_mismatch",
            "the security module knows another KEN, base date or DKGA for this key: give those of "
            f"the key ({error})",
        ) from None


def _demand_in_order(wanted: VendingKeyRevision, newest: VendingKeyRevision | None) -> None:
    if wanted.from_ms < tid.base_date_ms(wanted.base_date):
        raise Conflict(
            "key_not_in_order",
            f"base date {wanted.base_date} has not begun on {format_instant(wanted.from_ms)}: "
            "let the key become current later",
        )
    if newest is None:
        return
    if wanted.from_ms <= newest.from_ms:
        raise Conflict(
            "key_not_in_order",
            f"SGC {wanted.sgc} has a vending key from {format_instant(newest.from_ms)} on: "
            "name a later instant",
        )
    if wanted.base_date < newest.base_date:
        raise Conflict(
            "key_not_in_order",
            f"SGC {wanted.sgc} is at base date {newest.base_date}: meters cannot go back to "
            f"{wanted.base_date}",
        )


def current_vending_key(conn: Connection, sgc: str, now_ms: int) -> VendingKeyRevision | None:
    """The vending key that a supply group uses now; None where none is recorded."""
    of = {"sgc": sgc, "now_ms": now_ms}
    row = conn.execute(query("current_vending_key"), of).fetchone()
    return None if row is None else VendingKeyRevision(*row)


def lock_token_meter(conn: Connection, meter_id: int, now_ms: int) -> TokenMeter:
    """The meter, locked until the transaction ends. Errors: Conflict `no_tokens`."""
    row = conn.execute(query("lock_token_meter"), {"meter": meter_id}).fetchone()
    assert row is not None, "the caller found this meter"
    _, number, meter_pan, third_kct, online, wanted_sgc, wanted_ti, *held_columns = row
    if meter_pan is None:
        raise Conflict("no_tokens", f"meter {number} takes no tokens: register its MeterPAN first")
    held = KeyAttributes(*held_columns)
    key = current_vending_key(conn, wanted_sgc or held.sgc, now_ms)
    change = conn.execute(query("open_key_change"), {"meter": meter_id}).fetchone()
    return TokenMeter(
        id=meter_id,
        number=number,
        meter_pan=meter_pan,
        third_kct=third_kct,
        online=online,
        held=held,
        wanted=wanted_attributes(held, key, wanted_ti),
        open=None if change is None else _open(change),
    )


def _open(row: Sequence[object]) -> OpenKeyChange:
    change_id, digits, subclasses, *to = row
    return OpenKeyChange(
        id=change_id,  # type: ignore[arg-type] # the columns of open_key_change
        digits=tuple(digits),  # type: ignore[arg-type]  # as above
        subclasses=tuple(subclasses),  # type: ignore[arg-type]  # as above
        to=KeyAttributes(*to),  # type: ignore[arg-type]  # as above
    )


def wanted_attributes(
    held: KeyAttributes, key: VendingKeyRevision | None, ti: str | None
) -> KeyAttributes:
    """What a meter should hold: its group's current vending key, its tariff index, a unique key.

    A meter under the default key takes no credit, so it moves to its own. The algorithm stays:
    no token changes it. Without a recorded vending key the group's meters keep theirs.
    """
    unique = replace(held, kt=DUTK if held.kt == DDTK else held.kt, ti=ti or held.ti)
    if key is None:
        return unique
    return replace(
        unique, sgc=key.sgc, krn=key.krn, ken=key.ken, base_date=key.base_date, dkga=key.dkga
    )


def issue_key_change(
    conn: Connection, module: SecurityModule, meter: TokenMeter, now_ms: int
) -> OpenKeyChange | None:
    """The set that a meter needs: the open one, a new one, or None when it holds what it should.

    Errors: TokenError (an expired or unknown key, an algorithm that no token changes).
    """
    if meter.open is not None or meter.wanted == meter.held:
        return meter.open
    digits = module.issue_key_change(
        meter.meter_pan,
        meter.held,
        meter.wanted,
        tid_minutes=tid.tid_minutes(now_ms, meter.wanted.base_date),
        triplet=meter.third_kct,
    )
    subclasses = KEY_CHANGE_SUBCLASSES[: len(digits)]
    row = conn.execute(
        query("insert_key_change"),
        {f"from_{name}": value for name, value in asdict(meter.held).items()}
        | {f"to_{name}": value for name, value in asdict(meter.wanted).items()}
        | {
            "meter": meter.id,
            "digits": list(digits),
            "subclasses": list(subclasses),
            "now_ms": now_ms,
        },
    ).fetchone()
    assert row is not None, "inserted above"
    return OpenKeyChange(row[0], digits, subclasses, meter.wanted)


def sta_meters(conn: Connection) -> int:
    """How many meters take tokens under EA07, whose tables are the operator's."""
    row = conn.execute(query("sta_meters")).fetchone()
    assert row is not None, "a count always comes"
    return int(row[0])


def take_results(conn: Connection, results: Sequence[SetResult], now_ms: int) -> None:
    """Draw from a meter's results which key it holds."""
    entered = {r.key_change for r in results if r.token_class == 2 and r.result in ENTERED}
    if entered:
        of = {"ids": sorted(entered), "now_ms": now_ms}
        conn.execute(query("mark_key_changes_entered"), of)
    for change_id in sorted({r.key_change for r in results if r.proves_key}):
        _confirm(conn, change_id, None, now_ms)


def _confirm(conn: Connection, change_id: int, by: str | None, now_ms: int) -> None:
    of = {"id": change_id, "by": by, "now_ms": now_ms}
    row = conn.execute(query("confirm_key_change"), of).fetchone()
    if row is None:
        return
    conn.execute(query("hold_confirmed_key"), of)
    conn.execute(
        query("abandon_key_changes"),
        {"meter": row[0], "but": change_id, "by": None, "reason": SUPERSEDED, "now_ms": now_ms},
    )


def confirm_entry(
    conn: Connection, meter: str, by: str, now_ms: int, *, note: str | None = None
) -> KeyAttributes:
    """An operator saw the set accepted at the keypad; returns what the meter holds now.

    Errors: NotFound; Conflict `no_key_change` (no set is open: the record stands).
    """
    with conn.transaction():
        found = _lock_by_number(conn, meter, now_ms)
        if found.open is None:
            raise Conflict("no_key_change", f"meter {meter} has no open key change to confirm")
        _confirm(conn, found.open.id, by, now_ms)
        audit_log.record(
            conn,
            by,
            "key_change.confirm",
            f"meter:{meter}",
            now_ms,
            reason=note,
            before=asdict(found.held),
            after=asdict(found.open.to),
            meter=meter,
        )
        return found.open.to


def abandon(conn: Connection, meter: str, by: str, reason: str, now_ms: int) -> None:
    """Take back an open set that never reached its meter.

    Errors: NotFound; Conflict `no_key_change`, and `credit_depends` when credit is out under the
    new key: it would be lost.
    """
    with conn.transaction():
        found = _lock_by_number(conn, meter, now_ms)
        if found.open is None:
            raise Conflict("no_key_change", f"meter {meter} has no open key change to take back")
        row = conn.execute(query("credit_under_key_change"), {"id": found.open.id}).fetchone()
        if row is not None and row[0]:
            raise Conflict(
                "credit_depends",
                f"{row[0]} credit tokens of meter {meter} are out under the new key: "
                "have the set entered and confirm it",
            )
        conn.execute(
            query("abandon_key_changes"),
            {"meter": found.id, "but": 0, "by": by, "reason": reason, "now_ms": now_ms},
        )
        audit_log.record(
            conn,
            by,
            "key_change.abandon",
            f"meter:{meter}",
            now_ms,
            reason=reason,
            before={"key_change": found.open.id},
            meter=meter,
        )


def want(
    conn: Connection,
    meter: str,
    now_ms: int,
    *,
    by: str,
    sgc: str | None = None,
    ti: str | None = None,
) -> KeyAttributes:
    """Say which supply group or tariff index a meter should move to; returns what it should hold.

    The next vend or campaign issues the set. Errors: NotFound; Conflict `bad_attribute`,
    `key_unfit` (the group has no current vending key, or the meter cannot follow it).
    """
    if ti is not None and not (len(ti) == 2 and is_digits(ti)):
        raise Conflict("bad_attribute", f"tariff index {ti!r} is not two digits: correct it")
    with conn.transaction():
        found = _lock_by_number(conn, meter, now_ms)
        if sgc is not None and sgc != found.held.sgc:
            key = current_vending_key(conn, sgc, now_ms)
            if key is None or not _can_follow(found.held, key):
                raise Conflict(
                    "key_unfit",
                    f"SGC {sgc} has no current vending key that meter {meter} can follow: "
                    "record one, or name another group",
                )
        conn.execute(query("want_of_meter"), {"meter": found.id, "sgc": sgc, "ti": ti})
        wanted = lock_token_meter(conn, found.id, now_ms).wanted
        if wanted != found.wanted:
            audit_log.record(
                conn,
                by,
                "key_change.want",
                f"meter:{meter}",
                now_ms,
                before=asdict(found.wanted),
                after=asdict(wanted),
                meter=meter,
            )
        return wanted


def _can_follow(held: KeyAttributes, key: VendingKeyRevision) -> bool:
    """Whether a key change leads a meter to another group's key."""
    if key.base_date < held.base_date:
        return False
    try:
        demand_vendable(held)
        demand_vendable(wanted_attributes(held, key, None))
    except TokenError:
        return False
    return True


def _lock_by_number(conn: Connection, meter: str, now_ms: int) -> TokenMeter:
    row = conn.execute(query("find_meter"), {"number": meter}).fetchone()
    if row is None:
        raise NotFound(f"Meter {meter}")
    return lock_token_meter(conn, row[0], now_ms)
