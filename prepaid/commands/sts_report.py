"""What `prepaid token` says about a token: one dictionary, printed as lines or as JSON."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import typer

from tokens import apdu, management, numbers, tid
from tokens.acceptance import is_in_range
from tokens.amount import EXACT
from tokens.apdu import Apdu
from tokens.credit import credit_of
from tokens.errors import TokenError, UnsupportedSubclass
from tokens.keys import KEY_TYPES, KeyAttributes

CLASS_NAMES = {
    apdu.CREDIT: "credit",
    apdu.NON_METER_SPECIFIC: "test or display, the same for every meter",
    apdu.METER_SPECIFIC: "management of one meter",
}

# Decimal places between the printed unit and the smallest unit, and the printed unit.
DECIMALS = {0: 1, 1: 1, 2: 1, 3: 1, 4: 5, 5: 5, 6: 5, 7: 5}
UNITS = {0: "kWh", 1: "m3", 2: "m3", 3: "min"}

# Refusals that a slip of the fingers explains, and those that say what the digits are or are not.
MISTYPED = frozenset({"crc_error", "format_error", "unsupported_class"})
OF_THE_DIGITS = MISTYPED | {"unsupported_subclass"}


def token(digits: str, unit: Apdu, *, base_date: int | None) -> dict[str, Any]:
    """Every field that may be shown; sections of keys are not."""
    row = _layout_name(unit)
    report: dict[str, Any] = {
        "token": digits,
        "class": unit.cls,
        "subclass": unit.subclass,
        "name": row,
    }
    if "tid" in unit.fields and base_date is not None:
        number = unit.fields["tid"]
        issued = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
            milliseconds=tid.tid_ms(number, base_date)
        )
        report |= {"issued": issued.strftime("%Y-%m-%dT%H:%MZ"), "tid": number}
    if unit.cls == apdu.CREDIT:
        credit = credit_of(unit)
        amount = Decimal(credit.amount).scaleb(-DECIMALS[credit.subclass], EXACT)
        report |= {"amount": f"{amount:f}", "unit": UNITS.get(credit.subclass, "currency")}
    else:
        settings = management.settings_of(unit)
        report["fields"] = {
            name: "hidden" if name in apdu.SECRET_FIELDS else value
            for name, value in settings.items()
        }
    if not is_in_range(unit):
        report |= {
            "problem": "The token authenticates, but a field of it has a value that no meter "
            "takes: it answers RangeError.",
            "code": "field_out_of_range",
        }
    return report


def refused(digits: str, error: TokenError) -> dict[str, Any]:
    """Why a row of digits is no token to read, and what it is instead."""
    report = {"problem": str(error), "code": error.code}
    if not isinstance(error, UnsupportedSubclass):
        return report | recognised(digits)
    return report | {
        "token": digits,
        "class": error.cls,
        "subclass": error.subclass,
        "assignment": error.assignment,
    }


def attributes(held: KeyAttributes) -> str:
    """One line for people, in the order in which key attributes are spoken of."""
    return (
        f"SGC {held.sgc}, KRN {held.krn}, KT {held.kt} ({KEY_TYPES[held.kt]}), TI {held.ti}, "
        f"KEN {held.ken}, base date {held.base_date}, EA{held.ea:02}, DKGA{held.dkga:02}"
    )


def recognised(digits: str) -> dict[str, str]:
    """What a row of digits that is no STS token may be instead."""
    if not numbers.is_digits(digits):
        return {}
    try:
        return {"looks_like": f"the number of meter {numbers.to_meter_pan(digits)}, not a token"}
    except TokenError:
        pass
    if len(digits) in (9, 15):
        return {"looks_like": f"an OpenPAYGO token ({len(digits)} digits)"}
    if len(digits) == 20 and int(digits) >= 1 << 66:
        return {"looks_like": "no STS token: its value is too large; perhaps a UTRN or a voucher"}
    return {}


def write(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report))
        return
    for name, value in report.items():
        if isinstance(value, list) and name != "tokens":
            typer.echo(f"{name.replace('_', ' '):16} {len(value) or 'none'}")
            for row in value:
                typer.echo(f"  {_line(row)}")
        else:
            typer.echo(f"{name.replace('_', ' '):16} {_shown(name, value)}")


def _line(row: dict[str, Any]) -> str:
    rest = ", ".join(f"{name} {_shown(name, v)}" for name, v in row.items() if name != "token")
    return f"{numbers.grouped(row['token'])}: {rest}"


def _shown(name: str, value: Any) -> str:
    if name == "tokens":
        return "\n                 ".join(numbers.grouped(digits) for digits in value)
    if name in {"token", "meter_pan"}:
        return numbers.grouped(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown}" for key, shown in value.items()) or "none"
    return str(value)


def _layout_name(unit: Apdu) -> str:
    rows = (row for row in apdu.LAYOUTS if (row.cls, row.subclass) == (unit.cls, unit.subclass))
    return next(rows).name
