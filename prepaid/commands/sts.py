"""`prepaid token`: issue, decode and check STS tokens; make key changes and key files.

The module is not called token.py because the standard library has one.
"""

import json
import os
import re
import secrets
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from prepaid.commands import (
    sts_again,
    sts_campaign,
    sts_engineering,
    sts_key,
    sts_key_file,
    sts_report,
)
from prepaid.commands.sts_record import issued_by_us
from schemas.errors import DomainError
from tokens import apdu, codec, key_file, numbers, tid
from tokens.amount import smallest_units
from tokens.apdu import Apdu
from tokens.display import initiate_test
from tokens.errors import TokenError
from tokens.keys import KeyAttributes, VendingKey
from tokens.security_module import SoftwareSecurityModule
from tokens.slips import likely_slips
from tokens.sta import SAMPLE_TABLES, SubstitutionTables
from tokens.vectors import check_lines

PASSPHRASE_VARIABLE = "PREPAID_STS__KEY_PASSPHRASE"  # noqa: S105 - a name, not a passphrase
OWNER_ONLY = 0o600
AMOUNT = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

app = typer.Typer(
    no_args_is_help=True,
    help="""Issue, decode and check STS tokens (IEC 62055-41).

    Vending keys come from a sealed file (--key-file, its passphrase in the
    environment as PREPAID_STS__KEY_PASSPHRASE) or, for trying out, in hex
    from a file or standard input (--test-key). Never from the command line
    itself, where others could read them.
    """,
)


class Service(StrEnum):
    """Whom a credit is for; the order is that of the subclasses."""

    ELECTRICITY = "electricity"
    WATER = "water"
    GAS = "gas"
    TIME = "time"


METER_HELP = "MeterPAN (18 digits) or DRN (11 or 13 digits)."
SGC_HELP = "Supply group code, six digits."
Meter = Annotated[str, typer.Argument(help=METER_HELP)]
Sgc = Annotated[str, typer.Option(help=SGC_HELP)]
Krn = Annotated[int, typer.Option(help="Key revision number, 1 to 9.")]
Kt = Annotated[int, typer.Option(help="Key type: 1 default, 2 unique, 3 common.")]
Ken = Annotated[int, typer.Option(help="Key expiry number; 255 does not expire.")]
Ti = Annotated[str, typer.Option(help="Tariff index, two digits.")]
BaseDate = Annotated[int, typer.Option(help="Base date of the TID: 1993, 2014 or 2035.")]
Ea = Annotated[
    int | None, typer.Option(help="7 (STA) or 11 (MISTY1); by default what the key is made for.")
]
KeyFile = Annotated[Path | None, typer.Option(help="Sealed key file.")]
TestKey = Annotated[
    Path | None, typer.Option(help="File with one vending key in hex, or - for standard input.")
]
Tables = Annotated[
    Path | None, typer.Option(help="Licensed EA07 tables; without them, the sample set.")
]
At = Annotated[str | None, typer.Option(help="Instant of issue, RFC 3339; by default now.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")]
Amount = Annotated[
    str | None, typer.Option(help="Credit in kWh, m3, minutes, or currency; rounded up.")
]
Management = Annotated[
    int | None, typer.Option(help="Class 2 subclass instead of credit: 0 1 2 5 6 7 10.")
]
TestDisplay = Annotated[
    int | None, typer.Option(help="Class 1 subclass instead of credit: 0 1 2; needs no key.")
]
Fields = Annotated[list[str] | None, typer.Option(help="NAME=NUMBER of a token; may be repeated.")]


@app.command()
def issue(
    meter: Annotated[str | None, typer.Argument(help=METER_HELP)] = None,
    sgc: Annotated[str | None, typer.Option(help=SGC_HELP)] = None,
    amount: Amount = None,
    service: Annotated[Service, typer.Option(help="What the credit is for.")] = Service.ELECTRICITY,
    currency: Annotated[bool, typer.Option(help="The amount is money, not units.")] = False,
    management: Management = None,
    test_display: TestDisplay = None,
    field: Fields = None,
    krn: Krn = 1,
    kt: Kt = 2,
    ken: Ken = 255,
    ti: Ti = "01",
    base_date: BaseDate = 2014,
    ea: Ea = None,
    at: At = None,
    key_file: KeyFile = None,
    test_key: TestKey = None,
    tables: Tables = None,
    as_json: Json = False,
) -> None:
    """Issue one token and print its 20 digits.

    Credit of 25.6 kWh:
    prepaid token issue 07123456787 --sgc 123456 --amount 25.6 --key-file FILE

    Clear all credit:
    the same with --management 1 --field register=65535 instead of --amount

    Fields of management tokens: 0 mpl (W), 1 register, 2 rate, 5 none,
    6 mppul (W), 7 wmf, 10 index and value.

    Test 0 of all meters of a maker, in clear:
    prepaid token issue --test-display 1 --field mfr_code=5638

    Its fields: mfr_code (by default 0; only subclass 1 has room for four
    digits) and control (by default all ones, test 0; subclass 2 has none).

    Nothing remembers the TID: two tokens of one minute for one meter collide.
    Tokens that are sold come from the service, which keeps that record.
    """
    if [amount, management, test_display].count(None) != 2:
        raise DomainError("bad_option", "Give one of --amount, --management and --test-display.")
    fields = sts_engineering.numbered_fields(field or [])
    if test_display is not None:
        sts_report.write(_in_clear(initiate_test(test_display, fields), meter), as_json=as_json)
        return
    if meter is None or sgc is None:
        raise DomainError("bad_option", "Name the meter and its supply group (--sgc).")
    pan = numbers.to_meter_pan(meter)
    vending_keys = _vending_keys(key_file, test_key, (sgc, krn))
    attributes = _attributes(sgc, krn, kt, ken, ti, base_date, ea, vending_keys)
    loaded = _tables(tables)
    module = SoftwareSecurityModule(vending_keys, loaded)
    minutes = tid.tid_minutes(_instant_ms(at), base_date)
    made = {"tid_minutes": minutes, "rnd": secrets.randbelow(16)}
    if management is not None:
        digits = module.issue_management(
            pan, attributes, subclass=management, fields=fields, **made
        )
    else:
        subclass = list(Service).index(service) + (4 if currency else 0)
        units = _smallest_units(amount or "", subclass)
        digits = module.issue_credit(pan, attributes, subclass=subclass, amount=units, **made)
    report = _token_report(digits, module.verify(pan, attributes, digits), attributes)
    report |= {"meter_pan": pan, "key_check_value": module.key_check_value(sgc, krn)}
    sts_report.write(report | _table_note(attributes, loaded), as_json=as_json)


@app.command()
def decode(
    digits: Annotated[list[str], typer.Argument(help="20 digits, with or without blanks.")],
    meter: Annotated[
        str | None, typer.Option(help="The meter it was typed into, to read all of it.")
    ] = None,
    sgc: Sgc = "000000",
    krn: Krn = 1,
    kt: Kt = 2,
    ken: Ken = 255,
    ti: Ti = "01",
    base_date: BaseDate = 2014,
    ea: Ea = None,
    key_file: KeyFile = None,
    test_key: TestKey = None,
    tables: Tables = None,
    as_json: Json = False,
) -> None:
    """Say what a token is: class, subclass, minute of issue, amount.

    Without --meter and a key only the class can be said; class 1 is in clear.
    With them, digits that do not authenticate are compared with their
    neighbours: one digit wrong, two swapped, one missing or one too many.
    Sections of keys are never shown. With PREPAID_DATABASE__URL it also says
    when these digits were issued by us, to which meter, and what it answered.

    Exit status 1 means that the digits are no token that this meter takes.
    """
    typed = numbers.compact("".join(digits))
    if meter is None and (key_file or test_key):
        raise DomainError("bad_option", "A key belongs to a meter; name it with --meter.")
    if meter is None:
        found = _without_key(typed) | issued_by_us(typed)
        sts_report.write(found, as_json=as_json)
        raise typer.Exit(1 if "problem" in found else 0)
    pan = numbers.to_meter_pan(meter)
    vending_keys = _vending_keys(key_file, test_key, (sgc, krn))
    attributes = _attributes(sgc, krn, kt, ken, ti, base_date, ea, vending_keys)
    loaded = _tables(tables)
    module = SoftwareSecurityModule(vending_keys, loaded)

    def read(row: str) -> Apdu:
        return module.verify(pan, attributes, row)

    try:
        report = _token_report(typed, read(typed), attributes)
    except TokenError as error:
        if error.code not in sts_report.OF_THE_DIGITS:
            raise
        report = sts_report.refused(typed, error)
        if error.code in sts_report.MISTYPED:
            slips = likely_slips(typed, read)
            report["likely_meant"] = [_token_report(*slip, attributes) for slip in slips]
    report |= {"meter_pan": pan} | issued_by_us(typed) | _table_note(attributes, loaded)
    sts_report.write(report, as_json=as_json)
    raise typer.Exit(1 if "problem" in report else 0)


@app.command("key-change")
def key_change(
    meter: Meter,
    sgc: Sgc,
    krn: Krn = 1,
    kt: Kt = 2,
    ken: Ken = 255,
    ti: Ti = "01",
    base_date: BaseDate = 2014,
    ea: Ea = None,
    to_sgc: Annotated[str | None, typer.Option(help="New supply group code.")] = None,
    to_krn: Annotated[int | None, typer.Option(help="New key revision number.")] = None,
    to_kt: Annotated[int | None, typer.Option(help="New key type.")] = None,
    to_ken: Annotated[int | None, typer.Option(help="New key expiry number.")] = None,
    to_ti: Annotated[str | None, typer.Option(help="New tariff index.")] = None,
    to_base_date: Annotated[int | None, typer.Option(help="New base date.")] = None,
    triplet: Annotated[
        bool, typer.Option(help="EA07: a third token that carries the new SGC.")
    ] = False,
    at: At = None,
    key_file: KeyFile = None,
    test_key: TestKey = None,
    tables: Tables = None,
    as_json: Json = False,
) -> None:
    """Issue the set of tokens that moves a meter to other key attributes.

    Name what the meter holds now, and with --to-... what is to change. All
    tokens of the set go into the meter, in any order; the next credit token
    must be issued under the new attributes. --test-key serves for both sides.
    """
    pan = numbers.to_meter_pan(meter)
    wanted = {"sgc": to_sgc, "krn": to_krn, "kt": to_kt, "ken": to_ken, "ti": to_ti}
    wanted["base_date"] = to_base_date
    changes: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    new_slot = (changes.get("sgc", sgc), changes.get("krn", krn))
    vending_keys = _vending_keys(key_file, test_key, (sgc, krn), new_slot)
    old = _attributes(sgc, krn, kt, ken, ti, base_date, ea, vending_keys)
    new = replace(old, **changes)
    loaded = _tables(tables)
    tokens = SoftwareSecurityModule(vending_keys, loaded).issue_key_change(
        pan,
        old,
        new,
        tid_minutes=tid.tid_minutes(_instant_ms(at), new.base_date),
        triplet=triplet,
    )
    report = {
        "tokens": list(tokens),
        "meter_pan": pan,
        "from": sts_report.attributes(old),
        "to": sts_report.attributes(new),
    }
    sts_report.write(report | _table_note(old, loaded), as_json=as_json)


@app.command()
def vectors(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="Known answers, one JSON per line.")
    ],
    as_json: Json = False,
) -> None:
    """Check known answers; the last line is `N passed, M failed`, exit status 1 if any failed.

    Each failure names its id, what was expected and what came. EA07 lines are
    made with the sample tables of the standard; EA11 needs no secret table.
    """
    # A byte that is no UTF-8 spoils its own line only; a mark at the beginning spoils none.
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        outcomes = list(check_lines(lines))
    failures = [outcome for outcome in outcomes if outcome.problems]
    passed = len(outcomes) - len(failures)
    if as_json:
        named = [{"id": outcome.id, "problems": list(outcome.problems)} for outcome in failures]
        typer.echo(json.dumps({"passed": passed, "failed": len(failures), "failures": named}))
    else:
        for outcome in failures:
            typer.echo(f"{outcome.id}: {'; '.join(outcome.problems)}")
        typer.echo(f"{passed} passed, {len(failures)} failed")
    raise typer.Exit(1 if failures or not outcomes else 0)


@app.command("new-key-file")
def new_key_file(
    path: Annotated[Path, typer.Argument(help="The file to create; an existing one is kept.")],
    sgc: Sgc,
    krn: Krn = 1,
    dkga: Annotated[int, typer.Option(help="4 (20-byte key) or 2 (8-byte key).")] = 4,
    base_date: BaseDate = 2014,
) -> None:
    """Make a vending key for demonstration and test, sealed under the passphrase.

    The keys of real meters come from a key management centre of the STS Association: `prepaid
    token add-key` takes them.
    """
    octets = secrets.token_bytes(8 if dkga == 2 else 20)
    key = VendingKey.generate(dkga, octets, base_date=base_date)
    KeyAttributes(sgc, krn, 2, 255, "01", base_date, 7, dkga)  # refuses what no meter could hold
    sealed = key_file.seal(
        {(sgc, krn): key}, _passphrase(), secrets.token_bytes(key_file.RANDOM_OCTETS)
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(sealed)
    except OSError as error:
        raise DomainError("file_unwritable", f"{path}: {error.strerror}; name another.") from None
    typer.echo(f"{path}: SGC {sgc}, KRN {krn}, key check value {key.check_value}")


def register(root: typer.Typer) -> None:
    sts_again.register(app)
    sts_key_file.register(app)
    app.add_typer(sts_campaign.app, name="campaign")
    app.add_typer(sts_engineering.app, name="engineering")
    app.add_typer(sts_key.app, name="key")
    root.add_typer(app, name="token")


def _attributes(
    sgc: str,
    krn: int,
    kt: int,
    ken: int,
    ti: str,
    base_date: int,
    ea: int | None,
    vending_keys: dict[tuple[str, int], VendingKey],
) -> KeyAttributes:
    key = vending_keys.get((sgc, krn))
    if key is None:
        raise DomainError(
            "key_unknown", f"The key file has no key for SGC {sgc}, KRN {krn}; correct both."
        )
    by_default = apdu.STA if key.dkga == 2 else apdu.MISTY1
    return KeyAttributes(sgc, krn, kt, ken, ti, base_date, ea or by_default, key.dkga)


def _vending_keys(
    file: Path | None, test_key: Path | None, *slots: tuple[str, int]
) -> dict[tuple[str, int], VendingKey]:
    if (file is None) == (test_key is None):
        raise DomainError("bad_option", "Give either --key-file or --test-key.")
    if file is not None:
        return key_file.unseal(_read(file), _passphrase())
    raw = sys.stdin.buffer.read() if str(test_key) == "-" else _read(test_key or Path())
    try:
        octets = bytes.fromhex(raw.decode("ascii"))
    except ValueError:
        # Without the cause: it could quote the key.
        raise DomainError("key_invalid", "The test key is no row of hex digits.") from None
    return dict.fromkeys(slots, VendingKey.of_test_sheet(octets))


def _passphrase() -> str:
    passphrase = os.environ.get(PASSPHRASE_VARIABLE)
    if not passphrase:
        raise DomainError(
            "passphrase_missing", f"Set {PASSPHRASE_VARIABLE} to the passphrase of the key file."
        )
    return passphrase


def _tables(file: Path | None) -> SubstitutionTables:
    return SAMPLE_TABLES if file is None else SubstitutionTables.load(_read(file))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DomainError("file_unreadable", f"{file}: {error.strerror}; name another.") from None


def _instant_ms(text: str | None) -> int:
    if text is None:
        return time.time_ns() // 1_000_000
    try:
        since = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, TypeError):
        raise DomainError(
            "bad_option", f"--at {text!r} is no instant like 2026-03-01T10:15:00Z."
        ) from None
    return since // timedelta(milliseconds=1)


def _smallest_units(text: str, subclass: int) -> int:
    # Nothing is left out of an amount: without its hyphen "5-" would be credit, "1-5" fifteen.
    typed = text.translate(numbers.KEYBOARD_DIGITS).strip()
    if AMOUNT.fullmatch(typed) is None:
        raise DomainError("bad_option", f"--amount {text!r} is no decimal number like 25.6.")
    return smallest_units(Decimal(typed), sts_report.DECIMALS[subclass])


def _without_key(typed: str) -> dict[str, Any]:
    try:
        cls, _ = codec.split(typed)
        if cls == apdu.NON_METER_SPECIFIC:
            return sts_report.token(typed, codec.decode_clear(typed), base_date=None)
    except TokenError as error:
        return sts_report.refused(typed, error)
    return {
        "token": typed,
        "class": cls,
        "class_name": sts_report.CLASS_NAMES[cls],
        "note": "encrypted: name the meter (--meter, --sgc, ...) and a key to read the rest",
    }


def _in_clear(token: Apdu, meter: str | None) -> dict[str, Any]:
    named = {} if meter is None else {"meter_pan": numbers.to_meter_pan(meter)}
    return sts_report.token(codec.encode_clear(token), token, base_date=None) | named


def _token_report(digits: str, token: Apdu, attributes: KeyAttributes) -> dict[str, Any]:
    return sts_report.token(digits, token, base_date=attributes.base_date)


def _table_note(attributes: KeyAttributes, tables: SubstitutionTables) -> dict[str, str]:
    if attributes.ea != apdu.STA or tables.is_production:
        return {}
    return {"note": "EA07 with the sample tables: no real meter understands this token"}
