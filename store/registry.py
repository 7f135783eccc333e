"""Who is supplied, by which meter, on which terms: what operators enter.

Terms and tariffs are parsed by the engine before they are stored, so that nothing is kept that it
would refuse later.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from credit_engine.days import midnight_ms
from credit_engine.position import genesis
from credit_engine.tariff import parse_account, parse_tariff
from credit_engine.terms import Installation
from schemas.quantities import format_instant
from store import adjustments, decisions
from store.adjustments import CarriedOver
from store.errors import Conflict, NotFound
from store.positions import keep_positions, position_text
from store.replacements import demand_nothing_replaced
from store.settlement import Settled, lock_accounts, settle_account
from store.sql import query
from store.terms import TermsCache
from tokens.errors import TokenError
from tokens.keys import KeyAttributes, demand_vendable
from tokens.numbers import to_meter_pan, validate_meter_pan


@dataclass(frozen=True, slots=True)
class NewMeter:
    """A meter in stock. Without `meter_pan` and `attributes`, which go together: no tokens.

    Errors: TokenError `number_invalid`: a wrong check digit, or a number that is not the DRN or
    MeterPAN of the same meter (one that takes no tokens may have any number); `key_type_refused`.

    `third_kct`: an EA07 meter of the 2014 edition, which knows the third key change token.
    `gateway` speaks for it, `transformer` feeds it, `interval_s` is how often it reads.
    """

    number: str
    meter_pan: str | None = None
    attributes: KeyAttributes | None = None
    gateway: str | None = None
    third_kct: bool = False
    transformer: str | None = None
    interval_s: int | None = None

    def __post_init__(self) -> None:
        if self.meter_pan is None or self.attributes is None:
            return
        pan = validate_meter_pan(self.meter_pan)
        of_number = to_meter_pan(self.number)
        if of_number != pan:
            raise TokenError(
                "number_invalid",
                f"Meter number {self.number} is that of MeterPAN {of_number}, and {pan} is "
                "another meter; correct one of them.",
            )
        demand_vendable(self.attributes)


def _one(conn: Connection, name: str, values: Mapping[str, object]) -> int | None:
    row = conn.execute(query(name), values).fetchone()
    return None if row is None else int(row[0])


def add_centre(conn: Connection, code: str, name: str) -> int:
    """A centre, by its code."""
    centre = _one(conn, "add_centre", {"code": code, "name": name})
    assert centre is not None
    return centre


def find_centre(conn: Connection, code: str) -> int:
    """A centre by its code. Errors: NotFound."""
    centre = _one(conn, "find_centre", {"code": code})
    if centre is None:
        raise NotFound(f"Centre {code}")
    return centre


def currency_of_meter(conn: Connection, number: str) -> str:
    """What the account of a meter is priced in. Errors: NotFound."""
    row = conn.execute(query("currency_of_meter"), {"number": number}).fetchone()
    if row is None:
        raise NotFound(f"A meter {number} that serves an account")
    return str(row[0])


def add_customer(conn: Connection, name: str, now_ms: int) -> int:
    """A person or body that holds accounts."""
    customer = _one(conn, "add_customer", {"name": name, "now_ms": now_ms})
    assert customer is not None
    return customer


def add_tariff(conn: Connection, code: str, name: str, form: Mapping[str, object]) -> int:
    """A tariff with its versions, in the form of rating.md section 10 (`timezone`, `currency`,
    `holidays`, `tariff`). Errors: CreditError bad_input; Conflict `tariff_exists`.
    """
    parse_tariff(form)
    with conn.transaction():
        if find_tariff(conn, code) is not None:
            raise Conflict("tariff_exists", f"tariff {code} is there already: add a version to it")
        tariff = _one(
            conn,
            "add_tariff",
            {
                "code": code,
                "name": name,
                "currency": form["currency"],
                "timezone": form["timezone"],
                "holidays": Jsonb(form.get("holidays", [])),
            },
        )
        assert tariff is not None
        versions = form["tariff"]
        assert isinstance(versions, Mapping), "parsed above"
        for version in versions["versions"]:
            _insert_version(conn, tariff, version)
        return tariff


def tariff_form(conn: Connection, tariff: int) -> dict[str, Any]:
    """A tariff with its versions, as `add_tariff` takes it. Errors: NotFound."""
    row = conn.execute(query("tariff_form"), {"tariff": tariff}).fetchone()
    if row is None:
        raise NotFound("The tariff")
    timezone, currency, holidays, versions = row
    return {
        "timezone": timezone,
        "currency": currency,
        "holidays": holidays,
        "tariff": {"versions": versions or []},
    }


def find_tariff(conn: Connection, code: str) -> int | None:
    """The tariff of this code, if there is one."""
    return _one(conn, "find_tariff", {"code": code})


def customer_of_account(conn: Connection, number: str) -> int:
    """Who holds an account. Errors: NotFound."""
    customer = _one(conn, "customer_of_account", {"number": number})
    if customer is None:
        raise NotFound(f"Account {number}")
    return customer


def find_meter(conn: Connection, number: str) -> int | None:
    """The meter of this number, if it is registered."""
    return _one(conn, "find_meter", {"number": number})


def add_tariff_version(conn: Connection, tariff: int, version: Mapping[str, object]) -> None:
    """One more version, from a local date on, which may be past: the clockwork then rates the
    accounts again from there. Whether it may be past is `store.tariffs`' rule.

    Errors: CreditError bad_input, NotFound.
    """
    with conn.transaction():
        form = tariff_form(conn, tariff)
        versions = [*form["tariff"]["versions"], version]
        parsed = parse_tariff({**form, "tariff": {"versions": versions}})
        _insert_version(conn, tariff, version)
        valid_from = date.fromisoformat(str(version["valid_from"]))
        accounts = [row[0] for row in conn.execute(query("priced_accounts"), {"tariff": tariff})]
        reprice(conn, accounts, midnight_ms(parsed.zone, valid_from))


def reprice(conn: Connection, accounts: Sequence[int], from_ms: int) -> None:
    """The prices of these accounts change from an instant on: parsed terms are old, and what was
    rated beyond the instant already (a meter's clock may be ahead) is rated again.
    """
    since = {"accounts": list(accounts), "from_ms": from_ms}
    conn.execute(query("bump_terms"), since)
    conn.execute(query("rewind_accounts"), since)
    conn.execute(query("drop_checkpoints_from"), since)


def _insert_version(conn: Connection, tariff: int, version: Mapping[str, object]) -> None:
    body = {key: value for key, value in version.items() if key != "valid_from"}
    conn.execute(
        query("add_tariff_version"),
        {"tariff": tariff, "valid_from": version["valid_from"], "body": Jsonb(body)},
    )


def add_meter(conn: Connection, centre: int, meter: NewMeter) -> int:
    """A meter in stock. Errors: Conflict `meter_exists`."""
    with conn.transaction():
        gateway = None
        if meter.gateway is not None:
            gateway = _one(conn, "add_gateway", {"number": meter.gateway})
        keys = meter.attributes
        names = ("sgc", "krn", "kt", "ken", "ti", "base_date", "ea", "dkga")
        meter_id = _one(
            conn,
            "add_meter",
            {
                "number": meter.number,
                "centre": centre,
                "gateway": gateway,
                "meter_pan": meter.meter_pan if keys is not None else None,
                "third_kct": meter.third_kct,
                "transformer": meter.transformer,
                "interval_s": meter.interval_s,
            }
            | {name: None if keys is None else getattr(keys, name) for name in names},
        )
        if meter_id is None:
            raise Conflict("meter_exists", f"meter {meter.number} is registered already")
        conn.execute(query("add_meter_state"), {"meter": meter_id})
        return meter_id


def open_account(
    conn: Connection,
    *,
    number: str,
    customer: int,
    centre: int,
    tariff: int,
    terms: Mapping[str, object],
    installation: Installation,
    now_ms: int,
    carried_over: CarriedOver | None = None,
) -> int:
    """A supply point with its first meter, settled up to now.

    `terms` is the `account` part of rating.md section 10; a debt from the time before is its
    `debt.outstanding`, a credit is `carried_over`. Errors: CreditError bad_input; NotFound
    (tariff, meter); Conflict `account_exists`, `adjustment_refused`, `second_person_needed`.
    """
    with conn.transaction():
        tariff_terms = parse_tariff(tariff_form(conn, tariff))
        position = genesis(parse_account(terms, tariff_terms), installation)
        meter = _meter(conn, installation.meter_id)
        account = _one(
            conn,
            "add_account",
            {
                "number": number,
                "customer": customer,
                "centre": centre,
                "tariff": tariff,
                "terms": Jsonb(dict(terms)),
                "opened_ms": installation.opened_at_ms,
            },
        )
        if account is None:
            raise Conflict("account_exists", f"account {number} is there already")
        _install(conn, account, meter, installation, None, now_ms)
        conn.execute(
            query("create_account_state"),
            {
                "account": account,
                "position": position_text(position),
                "anchor_ms": position.at_ms,
                "opened_ms": installation.opened_at_ms,
            },
        )
        keep_positions(conn, [(account, position)])
        if carried_over is not None:
            adjustments.carry_over(
                conn, account, number, carried_over, installation.opened_at_ms, now_ms
            )
        # No order yet: a supply point that is opened before its first payment stays as it is until
        # its first reading or its first charge.
        settled = _settle_from(conn, account, installation.opened_at_ms, meter, now_ms)
        decisions.record(conn, [settled], now_ms, live=())
        return account


def exchange_meter(
    conn: Connection, account: int, closing_wh: int, new: Installation, now_ms: int
) -> bool:
    """The account's meter is replaced; False when this very exchange is recorded already.

    Errors: NotFound (meter); Conflict `exchange_conflict` (another exchange at that instant, or
    one not after the account's opening), `key_change_due` (store.replacements).
    """
    with conn.transaction():
        state = lock_accounts(conn, [account]).get(account)
        if state is None:
            raise NotFound("The account")
        if new.opened_at_ms <= state.opened_ms:
            raise Conflict("exchange_conflict", "a meter is exchanged after the account's opening")
        at = {"account": account, "opened_ms": new.opened_at_ms}
        known = conn.execute(query("installation_at"), at).fetchone()
        wanted = (new.meter_id, new.opening_wh, closing_wh, new.max_power_w, new.modulus_wh)
        if known is not None:
            if known == wanted:
                return False
            raise Conflict(
                "exchange_conflict",
                f"another exchange is recorded at {format_instant(new.opened_at_ms)}",
            )
        meter = _meter(conn, new.meter_id)
        _install(conn, account, meter, new, closing_wh, now_ms)
        settled = _settle_from(conn, account, new.opened_at_ms, meter, now_ms)
        decisions.record(conn, [settled], now_ms)
        return True


def _settle_from(conn: Connection, account: int, at_ms: int, meter: int, now_ms: int) -> Settled:
    newest = conn.execute(query("newest_reading_of_meter"), {"meter": meter}).fetchone()
    if newest is not None and newest[0] is not None:
        conn.execute(query("remember_newest"), {"accounts": [account], "newest": [newest[0]]})
    state = lock_accounts(conn, [account])[account]
    return settle_account(conn, TermsCache(), state, (), now_ms, touched_from_ms=at_ms)


def _install(
    conn: Connection,
    account: int,
    meter: int,
    installation: Installation,
    closing_wh: int | None,
    now_ms: int,
) -> None:
    # A reading of a meter in stock locks no account: it and the installation meet at this row.
    conn.execute(query("lock_meters"), {"numbers": [installation.meter_id]})
    demand_nothing_replaced(conn, meter, installation.meter_id)
    conn.execute(
        query("add_installation"),
        {
            "account": account,
            "opened_ms": installation.opened_at_ms,
            "meter": meter,
            "opening_wh": installation.opening_wh,
            "closing_wh": closing_wh,
            "max_power_w": installation.max_power_w,
            "modulus_wh": installation.modulus_wh,
            "now_ms": now_ms,
        },
    )


def _meter(conn: Connection, number: str) -> int:
    meter = find_meter(conn, number)
    if meter is None:
        raise NotFound(f"Meter {number}")
    return meter


def add_access_key(conn: Connection, customer: int, now_ms: int) -> str:
    """A new credential for a customer; shown once, only its digest is stored."""
    key = secrets.token_urlsafe(32)
    conn.execute(
        query("add_access_key"),
        {
            "sha256": hashlib.sha256(key.encode()).digest(),
            "customer": customer,
            "now_ms": now_ms,
        },
    )
    return key


def simulated_now(conn: Connection) -> int | None:
    """Where the demonstration's time stood when it was last kept."""
    return _one(conn, "simulated_now", {})


def keep_simulated_now(conn: Connection, now_ms: int) -> None:
    """Keep the demonstration's time for the next start."""
    conn.execute(query("keep_simulated_now"), {"now_ms": now_ms})
