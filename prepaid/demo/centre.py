"""A demonstration centre: tariffs, accounts, meters with keys, a bank, and where their secrets lie.

All keys are random and made at the first start; none is in the source. The prices are 2021 press
figures of the Mauritanian market; standing charge and VAT are there to be seen, and labelled so.
"""

import base64
import json
import secrets
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from credit_engine.terms import Installation
from prepaid.demo.trust import VISITOR, DemoTrust
from prepaid.secrets_files import read_secret, write_secret
from schemas.errors import DomainError
from schemas.quantities import format_instant
from store import contacts, operators, registry, vending
from store.contacts import Actor
from store.pool import Connection
from store.terms import TermsCache
from tokens.key_file import RANDOM_OCTETS, seal, unseal
from tokens.keys import KeyAttributes, VendingKey, decoder_key
from tokens.numbers import drn, meter_pan

CENTRE = ("TVZ-1", "Tevragh Zeina 1 (demonstration)")
BANK = ("demo-bank", "Demonstration Bank")
OPERATOR = "demo"
IIN = "600727"
BASE_DATE = 2014
# One key group per algorithm, so that both are seen at work.
KEYS = {
    7: KeyAttributes(
        sgc="999907", krn=1, kt=2, ken=255, ti="01", base_date=BASE_DATE, ea=7, dkga=2
    ),
    11: KeyAttributes(
        sgc="999911", krn=1, kt=2, ken=255, ti="01", base_date=BASE_DATE, ea=11, dkga=4
    ),
}
INTERVAL_S = 900
MAX_POWER_W = 6600
MODULUS_WH = 1_000_000_000
FIRST_SERIAL = 1
# One household in so many is behind a gateway, the others have a connection of their own; and so
# many of them share a gateway, and a transformer.
GATEWAY_EVERY = 4
METERS_PER_GATEWAY = 25
# Of the first household; codes to it go to the log of the API and nowhere else.
PHONE = "+22222334455"
WORDING = "demonstration-1"
ACCOUNT_PREFIX = "TVZ-"
GATEWAY_PREFIX = "TVZ-DC-"
TRANSFORMER_PREFIX = "TVZ-TR-"


@dataclass(frozen=True, slots=True)
class DemoTariff:
    """Code, name and blocks as (upper edge in kWh or None, price per kWh)."""

    code: str
    name: str
    blocks: tuple[tuple[str | None, str], ...]
    annual_kwh: tuple[int, int]


TARIFFS = (
    DemoTariff(
        "social",
        "Social, 2021 press figures (standing charge and VAT for demonstration)",
        (("100", "2.459"), (None, "5.903")),
        (600, 1500),
    ),
    DemoTariff(
        "household",
        "Household, 2021 press figures (standing charge and VAT for demonstration)",
        ((None, "5.903"),),
        (1800, 5000),
    ),
)


def tariff_form(tariff: DemoTariff) -> dict[str, Any]:
    """The tariff in the form of rating.md section 10."""
    blocks = [
        {"price": price} if upper is None else {"up_to_kwh": upper, "price": price}
        for upper, price in tariff.blocks
    ]
    version = {
        "valid_from": "2021-01-01",
        "period": "month",
        "bands": [{"name": "all", "method": "graduated", "blocks": blocks}],
        "standing_per_day": "1.20",
        "taxes": [
            {"name": "vat", "percent": "16", "on": ["energy", "standing"], "included": False}
        ],
    }
    return {
        "timezone": "Africa/Nouakchott",
        "currency": "MRU",
        "holidays": [],
        "tariff": {"versions": [version]},
    }


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Where the demonstration keeps its secrets; every file is its owner's alone."""

    folder: Path

    @property
    def vending_keys(self) -> Path:
        return self.folder / "vending-keys"

    @property
    def passphrase(self) -> Path:
        return self.folder / "vending-keys.passphrase"

    @property
    def partners(self) -> Path:
        return self.folder / "partners.json"

    @property
    def meters(self) -> Path:
        return self.folder / "meters.json"

    @property
    def access_keys(self) -> Path:
        return self.folder / "access-keys.json"

    @property
    def shell(self) -> Path:
        return self.folder / "shell"

    @property
    def trust(self) -> DemoTrust:
        return DemoTrust(self.folder / "trust")

    def write_shell(
        self, api_url: str, broker_url: str, clients: Path | None, more: Mapping[str, str]
    ) -> None:
        """Addresses and keys as shell variables, to source in another terminal; `broker_url` is
        the one for devices.
        """
        access = json.loads(read_secret(self.access_keys))
        broker = urlsplit(broker_url)
        values = {
            "API": api_url,
            "BROKER_HOST": broker.hostname or "",
            "BROKER_PORT": str(broker.port or 1883),
            "OPERATOR_KEY": access["operator"],
            "CUSTOMER_KEY": access["customer"]["key"],
            "ACCOUNT": access["customer"]["account"],
            "PHONE": PHONE,
            "METER": Household(FIRST_SERIAL).number,
            "PREPAID_PARTNERS__FILE": str(self.partners),
            "VISITOR_PASSWORD": self.trust.passwords(())[VISITOR],
            **more,
        }
        own = [f"PATH=$PATH:{shlex.quote(str(path))}\n" for path in self._programs(clients)]
        lines = own + [f"export {name}={shlex.quote(value)}\n" for name, value in values.items()]
        write_secret(self.shell, "".join(lines).encode())

    @staticmethod
    def _programs(clients: Path | None) -> list[Path]:
        """Folders of `prepaid` and of mosquitto_pub."""
        return [Path(sys.executable).parent, *([] if clients is None else [clients])]

    def make_keys(self) -> None:
        """Vending keys and the bank's signing key, once."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.partners.exists():
            return
        passphrase = secrets.token_urlsafe(24)
        keys = {
            (KEYS[7].sgc, KEYS[7].krn): VendingKey.generate(
                2, secrets.token_bytes(8), base_date=BASE_DATE
            ),
            (KEYS[11].sgc, KEYS[11].krn): VendingKey.generate(
                4, secrets.token_bytes(20), base_date=BASE_DATE
            ),
        }
        write_secret(self.passphrase, passphrase.encode())
        write_secret(self.vending_keys, seal(keys, passphrase, secrets.token_bytes(RANDOM_OCTETS)))
        signing = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        bank = {"code": BANK[0], "name": BANK[1], "keys": [signing]}
        # Written last: with it, the keys are complete.
        write_secret(self.partners, json.dumps([bank]).encode())

    def keys(self) -> Mapping[tuple[str, int], VendingKey]:
        return unseal(read_secret(self.vending_keys), read_secret(self.passphrase).decode())


@dataclass(frozen=True, slots=True)
class Household:
    """One demonstration customer; everything follows from its serial number."""

    serial: int

    @property
    def random(self) -> Random:
        return Random(self.serial)  # noqa: S311 - a household's habits, not a secret

    @property
    def number(self) -> str:
        return drn("00", f"{self.serial:08d}")

    @property
    def account(self) -> str:
        return f"{ACCOUNT_PREFIX}{self.serial:06d}"

    @property
    def gateway(self) -> str | None:
        """The gateway that speaks for its meter."""
        if self.serial % GATEWAY_EVERY:
            return None
        return f"{GATEWAY_PREFIX}{self.serial // GATEWAY_EVERY // METERS_PER_GATEWAY + 1}"

    @property
    def transformer(self) -> str:
        """What feeds it: neighbours share one."""
        return f"{TRANSFORMER_PREFIX}{self.serial // METERS_PER_GATEWAY + 1}"

    @property
    def tariff(self) -> DemoTariff:
        return TARIFFS[self.serial % 2]

    @property
    def attributes(self) -> KeyAttributes:
        return KEYS[7 if self.serial % 4 < 2 else 11]

    @property
    def pan(self) -> str:
        return meter_pan(IIN, self.number)

    @property
    def annual_kwh(self) -> int:
        return self.random.randint(*self.tariff.annual_kwh)

    def terms(self, opened_ms: int) -> dict[str, Any]:
        """A few with old debt, a few with emergency credit, a few protected at night."""
        terms: dict[str, Any] = {"activated_at": format_instant(opened_ms)}
        if self.serial % 10 == 3:
            rule = {"kind": "payment_share", "percent": "20", "cap_per_month": "100.00"}
            terms["debt"] = {"outstanding": "150.00", "rules": [rule]}
        if self.serial % 10 == 5:
            terms["emergency"] = {"limit": "5.00", "activation": "automatic"}
        if self.serial % 10 == 7:
            days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
            terms["non_disconnection"] = [{"days": days, "from": "18:00", "to": "08:00"}]
        return terms

    def opening_credit_micro(self) -> int:
        """A third of them are about to run out, so that there is something to see."""
        cents = (
            self.random.randint(15, 200)
            if self.serial % 3 == 0
            else self.random.randint(1_000, 9_000)
        )
        return cents * 10_000

    def opening_wh(self) -> int:
        return self.random.randint(100_000, 90_000_000)


def provision(conn: Connection, files: DemoFiles, meters: int, now_ms: int) -> int:
    """Bring the demonstration to `meters` meters; returns how many were added now.

    Errors: DomainError `demo_keys_lost`.
    """
    first = Household(FIRST_SERIAL)
    if not files.partners.exists() and registry.find_meter(conn, first.number) is not None:
        raise DomainError(
            "demo_keys_lost",
            f"the database holds the demonstration's meters, but their keys are not in "
            f"{files.folder}: restore that folder, or start with another database",
        )
    files.make_keys()
    centre = registry.add_centre(conn, *CENTRE)
    tariffs = {tariff.code: _tariff(conn, tariff) for tariff in TARIFFS}
    forms = _known_meters(files)
    keys = files.keys()
    added = 0
    access = json.loads(read_secret(files.access_keys)) if files.access_keys.exists() else {}
    if "operator" not in access:
        access["operator"] = _operator_key(conn, now_ms)
    for serial in range(FIRST_SERIAL, FIRST_SERIAL + meters):
        household = Household(serial)
        if household.number in forms:
            continue
        _open(conn, household, centre, tariffs[household.tariff.code], now_ms)
        forms[household.number] = _meter_form(household, keys, now_ms)
        added += 1
    if "customer" not in access:
        customer = registry.customer_of_account(conn, first.account)
        key = registry.add_access_key(conn, customer, now_ms)
        access["customer"] = {"account": first.account, "key": key}
    if "phone" not in access:
        _register_phone(conn, first.account, now_ms)
        access["phone"] = PHONE
    if added:
        fleet = {"v": 1, "gateways": _gateways(forms.values()), "meters": list(forms.values())}
        write_secret(files.meters, json.dumps(fleet).encode())
    write_secret(files.access_keys, json.dumps(access).encode())
    return added


def device_names(files: DemoFiles, meters: int) -> list[str]:
    """Who will connect at a start with `meters` meters: the meters with a connection of their own,
    those there are and those to be, and the gateways of the others.
    """
    there = {number: form.get("gateway") for number, form in _known_meters(files).items()}
    for serial in range(FIRST_SERIAL, FIRST_SERIAL + meters):
        household = Household(serial)
        there.setdefault(household.number, household.gateway)
    return sorted({gateway or number for number, gateway in there.items()})


def equip(files: DemoFiles, at: DemoTrust, *, tls: bool) -> None:
    """Give every meter what it must show to the broker and the key that it obeys."""
    meters = _known_meters(files)
    gateways = _gateways(meters.values())
    at.show(
        {form["number"]: form for form in meters.values() if not form.get("gateway")}
        | {form["name"]: form for form in gateways},
        tls=tls,
    )
    at.obey(meters.values())
    fleet = {"v": 1, "gateways": gateways, "meters": list(meters.values())}
    write_secret(files.meters, json.dumps(fleet).encode())


def _operator_key(conn: Connection, now_ms: int) -> str:
    """Of an administrator without a password: the demonstration's own programs have the key."""
    if all(each.name != OPERATOR for each in operators.listed(conn)):
        operators.add(conn, OPERATOR, "admin", who=OPERATOR, now_ms=now_ms)
    return operators.add_access_key(conn, OPERATOR, "prepaid up", who=OPERATOR, now_ms=now_ms)


def _register_phone(conn: Connection, account: str, now_ms: int) -> None:
    """So that somebody can sign in with a code."""
    customer = registry.customer_of_account(conn, account)
    by = Actor(OPERATOR, is_operator=True, place=CENTRE[0])
    contacts.register(conn, customer, "phone", PHONE, wording=WORDING, by=by, now_ms=now_ms)
    known = contacts.of_customer(conn, customer)
    if any(each.channel == "phone" and each.verified_ms is None for each in known):
        note = "made up for the demonstration"
        contacts.verify_at_desk(conn, customer, "phone", note, by=by, now_ms=now_ms, wall_ms=now_ms)


def _known_meters(files: DemoFiles) -> dict[str, dict[str, Any]]:
    if not files.meters.exists():
        return {}
    fleet = json.loads(read_secret(files.meters))
    return {form["number"]: form for form in fleet["meters"]}


def _gateways(forms: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The gateways of these meters; every second one speaks CBOR."""
    names = sorted({form["gateway"] for form in forms if form.get("gateway")})
    return [{"name": name, "cbor": place % 2 == 1} for place, name in enumerate(names)]


def _tariff(conn: Connection, tariff: DemoTariff) -> int:
    known = registry.find_tariff(conn, tariff.code)
    if known is not None:
        return known
    return registry.add_tariff(conn, tariff.code, tariff.name, tariff_form(tariff))


def _open(conn: Connection, household: Household, centre: int, tariff: int, now_ms: int) -> None:
    if registry.find_meter(conn, household.number) is not None:
        return  # a start before this one got so far and no further
    with conn.transaction():
        customer = registry.add_customer(conn, f"Household {household.serial}", now_ms)
        registry.add_meter(
            conn,
            centre,
            registry.NewMeter(
                household.number,
                household.pan,
                household.attributes,
                gateway=household.gateway,
                transformer=household.transformer,
                interval_s=INTERVAL_S,
            ),
        )
        registry.open_account(
            conn,
            number=household.account,
            customer=customer,
            centre=centre,
            tariff=tariff,
            terms=household.terms(now_ms),
            installation=Installation(
                meter_id=household.number,
                modulus_wh=MODULUS_WH,
                opened_at_ms=now_ms,
                opening_wh=household.opening_wh(),
                max_power_w=MAX_POWER_W,
            ),
            now_ms=now_ms,
        )
        top_up = f"opening-{household.account}"
        payment = vending.Payment(
            channel="opening-credit",
            partner_txn_id=top_up,
            meter=household.number,
            amount_micro=household.opening_credit_micro(),
            paid_ms=now_ms,
            request_sha256=sha256(top_up.encode()).digest(),
        )
        vending.record_top_up(conn, TermsCache(), payment, top_up, now_ms, now_ms)


def _meter_form(
    household: Household, keys: Mapping[tuple[str, int], VendingKey], now_ms: int
) -> dict[str, Any]:
    attributes = household.attributes
    vending_key = keys[attributes.sgc, attributes.krn]
    return {
        "number": household.number,
        "pan": household.pan,
        "key": {
            "decoder_key": decoder_key(vending_key, household.pan, attributes).reveal().hex(),
            "sgc": attributes.sgc,
            "krn": attributes.krn,
            "kt": attributes.kt,
            "ken": attributes.ken,
            "ti": attributes.ti,
            "base_date": attributes.base_date,
            "ea": attributes.ea,
            "dkga": attributes.dkga,
        },
        "annual_kwh": household.annual_kwh,
        "seed": household.serial,
        "since": format_instant(now_ms),
        "opening_wh": household.opening_wh(),
        "interval_s": INTERVAL_S,
        **({} if household.gateway is None else {"gateway": household.gateway}),
    }
