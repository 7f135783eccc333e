"""The tariff and the account as data, in the form of section 10 of the rating contract.

The same mapping is what the database keeps as JSON. Every refusal names the field by its path,
and both fields where a rule binds two.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, cast
from zoneinfo import ZoneInfo

from credit_engine.days import midnight_ms
from credit_engine.form import Form, bad_input
from credit_engine.terms import (
    MINUTES_PER_DAY,
    Band,
    Debt,
    Emergency,
    Installation,
    Tariff,
    TariffVersion,
    Tax,
    Terms,
    Window,
)

PRICE_DIGITS = 3  # per kWh: an integer number of µ per Wh
ENERGY_DIGITS = 3  # of kWh: whole Wh
PERCENT_DIGITS = 4  # whole parts per million
DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday")
# Names of charges and quote lines that a tax must not take.
RESERVED_NAMES = ("energy", "standing", "debt", "owed", "change")

TARIFF_KEYS = ("timezone", "currency", "holidays", "tariff")


def parse_terms(mapping: Mapping[str, Any]) -> Terms:
    """`timezone`, `currency`, `holidays`, `tariff` and `account`. Errors: CreditError bad_input."""
    fields = Form("", dict(mapping)).fields(
        ("timezone", "currency", "tariff", "account"), TARIFF_KEYS
    )
    tariff = parse_tariff({key: form.value for key, form in fields.items() if key in TARIFF_KEYS})
    return parse_account(fields["account"].value, tariff)


def parse_tariff(mapping: Mapping[str, Any]) -> Tariff:
    """`timezone`, `currency`, `holidays` and `tariff`: what accounts share."""
    fields = Form("", dict(mapping)).fields(("timezone", "currency", "tariff"), TARIFF_KEYS)
    currency = fields["currency"].text()
    if not (len(currency) == 3 and currency.isascii() and currency.isupper()):
        raise fields["currency"].refuse('give an ISO 4217 code, as "MRU"')
    holidays = fields["holidays"].items() if "holidays" in fields else []
    forms = fields["tariff"].fields(("versions",))["versions"].items(at_least=1)
    versions = sorted(
        (_version(place, form) for place, form in enumerate(forms)),
        key=lambda version: version.valid_from,
    )
    for earlier, later in pairwise(versions):
        if earlier.valid_from == later.valid_from:
            raise (
                forms[later.place]
                .child("valid_from")
                .refuse(
                    "two versions begin on one day: keep one",
                    forms[earlier.place].child("valid_from"),
                )
            )
    return Tariff(
        zone=_zone(fields["timezone"]),
        currency=currency,
        holidays=frozenset(form.day() for form in holidays),
        versions=tuple(versions),
    )


def parse_account(mapping: Any, tariff: Tariff) -> Terms:
    """The account's own part: `activated_at`, `debt`, `emergency`, `reconnect_at`,
    `non_disconnection`.
    """
    optional = ("debt", "emergency", "reconnect_at", "non_disconnection")
    fields = Form("account", mapping).fields(("activated_at",), optional)
    activated_at_ms = fields["activated_at"].instant()
    first = tariff.versions[0]
    if midnight_ms(tariff.zone, first.valid_from) > activated_at_ms:
        raise bad_input(
            "the first tariff version must be in force when the account is activated",
            "account.activated_at",
            f"tariff.versions[{first.place}].valid_from",
        )
    protected = fields.get("non_disconnection")
    reconnect_at = fields.get("reconnect_at")
    return Terms(
        tariff=tariff,
        activated_at_ms=activated_at_ms,
        debt=_debt(fields["debt"]) if "debt" in fields else Debt(),
        emergency=_emergency(fields["emergency"]) if "emergency" in fields else None,
        reconnect_at_micro=None if reconnect_at is None else reconnect_at.money(signed=True),
        non_disconnection=tuple(map(_window, protected.items())) if protected is not None else (),
    )


def parse_installation(form: Form, opened_at_ms: int | None = None) -> Installation:
    """A meter; `opened_at` is its own field unless an exchange gives it."""
    required = ["id", "modulus_wh", "opening_wh"]
    if opened_at_ms is None:
        required.append("opened_at")
    fields = form.fields(required, ("max_power_w",))
    power = fields.get("max_power_w")
    return Installation(
        meter_id=fields["id"].text(),
        modulus_wh=fields["modulus_wh"].integer(minimum=1),
        opened_at_ms=fields["opened_at"].instant() if opened_at_ms is None else opened_at_ms,
        opening_wh=fields["opening_wh"].integer(),
        max_power_w=None if power is None else power.integer(),
    )


def _zone(form: Form) -> ZoneInfo:
    try:
        return ZoneInfo(form.text())
    # A name can be unknown, a folder of the database, or not a name at all.
    except (KeyError, ValueError, OSError):
        raise form.refuse('give an IANA time zone, as "Africa/Nouakchott"') from None


def _version(place: int, form: Form) -> TariffVersion:
    optional = ("standing_per_day", "taxes")
    fields = form.fields(("valid_from", "period", "bands"), optional)
    bands = fields["bands"].items(at_least=1)
    parsed = [_band(band, last=band is bands[-1]) for band in bands]
    names = [band.child("name") for band in bands]
    _refuse_twice([(name.text(), name) for name in names])
    return TariffVersion(
        place=place,
        valid_from=fields["valid_from"].day(),
        period=cast("Literal['month', 'year']", fields["period"].choice("month", "year")),
        bands=tuple(parsed),
        standing_micro=(fields["standing_per_day"].money() if "standing_per_day" in fields else 0),
        taxes=_taxes(fields["taxes"]) if "taxes" in fields else (),
    )


def _band(form: Form, *, last: bool) -> Band:
    fields = form.fields(("name", "method", "blocks"), ("windows",))
    if last and "windows" in fields:
        raise fields["windows"].refuse("the last band applies otherwise: give it no windows")
    if not last and "windows" not in fields:
        raise form.child("windows").refuse("is missing: only the last band has none")
    method = cast("Literal['graduated', 'volume']", fields["method"].choice("graduated", "volume"))
    upper_wh, prices = _blocks(fields["blocks"], method)
    windows = fields["windows"].items(at_least=1) if "windows" in fields else []
    return Band(
        name=fields["name"].text(),
        method=method,
        upper_wh=upper_wh,
        prices=prices,
        windows=tuple(map(_window, windows)),
    )


def _blocks(form: Form, method: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    blocks = form.items(at_least=1)
    upper_wh: list[int] = []
    prices: list[int] = []
    for block in blocks:
        fields = block.fields(("price",), ("up_to_kwh",))
        upper = block.child("up_to_kwh")
        price = fields["price"].decimal(PRICE_DIGITS)
        before = blocks[len(prices) - 1] if prices else None
        if block is blocks[-1]:
            if "up_to_kwh" in fields:
                raise upper.refuse("the last block is open: leave it out")
        elif "up_to_kwh" not in fields:
            raise upper.refuse("is missing: only the last block is open")
        else:
            edge = upper.decimal(ENERGY_DIGITS)
            if edge == 0:
                raise upper.refuse("must be above zero")
            if before is not None and edge <= upper_wh[-1]:
                raise upper.refuse("edges must rise from block to block", before.child("up_to_kwh"))
            upper_wh.append(edge)
        if method == "volume" and before is not None and price < prices[-1]:
            raise fields["price"].refuse(
                "prices of method volume must not fall from block to block", before.child("price")
            )
        prices.append(price)
    return tuple(upper_wh), tuple(prices)


def _window(form: Form) -> Window:
    fields = form.fields(("days", "from", "to"))
    days = [DAY_NAMES.index(day.choice(*DAY_NAMES)) for day in fields["days"].items(at_least=1)]
    from_minute, to_minute = fields["from"].clock(), fields["to"].clock()
    whole_day = (from_minute, to_minute) == (0, MINUTES_PER_DAY)
    if from_minute % MINUTES_PER_DAY == to_minute % MINUTES_PER_DAY and not whole_day:
        raise fields["from"].refuse('must differ; a whole day is "00:00" to "24:00"', fields["to"])
    return Window(frozenset(days), from_minute, to_minute)


def _taxes(form: Form) -> tuple[Tax, ...]:
    taxes: dict[tuple[str, int, bool], Tax] = {}
    places: dict[tuple[str, int, bool, str], Form] = {}
    for item in form.items():
        fields = item.fields(("name", "percent", "on", "included"))
        name, ppm = fields["name"].text(), fields["percent"].decimal(PERCENT_DIGITS)
        included = fields["included"].truth()
        if name in RESERVED_NAMES:
            raise fields["name"].refuse(f"{name} is the name of another line: choose a new one")
        charges = {each.choice("energy", "standing") for each in fields["on"].items(at_least=1)}
        for charge in sorted(charges):
            earlier = places.setdefault((name, ppm, included, charge), item)
            if earlier is not item:
                raise item.refuse(f"the same tax on {charge} twice: keep one", earlier)
        # One name, rate and kind is one tax, with one base, wherever it is written.
        key = (name, ppm, included)
        known = taxes.get(key, Tax(*key, on_energy=False, on_standing=False))
        taxes[key] = Tax(
            *key,
            on_energy=known.on_energy or "energy" in charges,
            on_standing=known.on_standing or "standing" in charges,
        )
    return tuple(taxes.values())


def _debt(form: Form) -> Debt:
    fields = form.fields(("outstanding",), ("rules",))
    share_ppm = share_cap = daily = None
    rules = fields["rules"].items() if "rules" in fields else []
    kinds: list[tuple[str, Form]] = []
    for rule in rules:
        if not isinstance(rule.value, dict):
            raise rule.refuse("give a mapping")
        kind = rule.child("kind").choice("payment_share", "daily")
        kinds.append((kind, rule.child("kind")))
        if kind == "daily":
            daily = rule.fields(("kind", "amount"))["amount"].money()
            continue
        given = rule.fields(("kind", "percent"), ("cap_per_month",))
        share_ppm = given["percent"].decimal(PERCENT_DIGITS)
        if share_ppm > 1_000_000:
            raise given["percent"].refuse('a share of a top-up is at most "100"')
        share_cap = given["cap_per_month"].money() if "cap_per_month" in given else None
    _refuse_twice(kinds)
    return Debt(fields["outstanding"].money(), share_ppm, share_cap, daily)


def _emergency(form: Form) -> Emergency:
    fields = form.fields(("limit", "activation"))
    activation = fields["activation"].choice("automatic", "on_request")
    return Emergency(fields["limit"].money(), activation == "on_request")


def _refuse_twice(named: list[tuple[str, Form]]) -> None:
    first: dict[str, Form] = {}
    for name, form in named:
        earlier = first.setdefault(name, form)
        if earlier is not form:
            raise form.refuse(f"{name} stands twice: keep one", earlier)
