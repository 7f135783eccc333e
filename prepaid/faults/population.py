"""Who lives in a run of faults: households with a meter each, an account, and little credit.

Their tariff is one that `simulators.auditor` can count: blocks and a standing charge, no tax and no
debt. Credit is short, so that supplies are cut, paid for and restored all the time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from zoneinfo import ZoneInfo

from credit_engine.terms import Installation
from prepaid.demo.centre import BASE_DATE, IIN, KEYS, DemoFiles
from schemas.quantities import format_instant, format_micro
from simulators.auditor import SimpleTariff
from simulators.load import SteadyLoad
from simulators.meter import Nameplate
from simulators.meter_state import MeterState
from simulators.token_entry import token_entry
from simulators.witness import WitnessedMeter
from store import registry, vending
from store.pool import Connection
from store.terms import TermsCache
from tokens.acceptance import MeterTokenState
from tokens.keys import decoder_key
from tokens.numbers import drn, meter_pan

CENTRE = ("FLT", "Faults")
ZONE = "Africa/Nouakchott"
# Makers' codes of DRNs run from 00; nobody's meters are numbered so.
MAKER = "98"
MICRO = 1_000_000
BLOCK_EDGE_WH = 5_000
PRICES = (2_459, 5_903)
STANDING_MICRO = 1_200_000
TARIFF = SimpleTariff(
    [(BLOCK_EDGE_WH, PRICES[0]), (None, PRICES[1])], STANDING_MICRO, ZoneInfo(ZONE)
)
MODULUS_WH = 1_000_000_000
WATTS = (900, 1800)
OPENING_CREDIT = (1 * MICRO, 12 * MICRO)
# A reading a minute: a second of the wall at the speed of a run.
INTERVAL_MS = 60_000


@dataclass(slots=True, eq=False)
class Household:
    """A customer. `credit_micro` is what the account began with; the meter knows the rest.
    `ahead_ms`: its clock is ahead of the true time by so much (behind: below zero).
    """

    number: str
    account: str
    meter: WitnessedMeter
    opened_ms: int
    opening_wh: int
    credit_micro: int
    ahead_ms: int = 0


def numbers(meters: int) -> list[str]:
    """The meters' numbers: the names by which the broker knows them."""
    return [drn(MAKER, f"{place:08d}") for place in range(1, meters + 1)]


def provision(
    conn: Connection, files: DemoFiles, meters: int, seed: int, opened_ms: int
) -> list[Household]:
    """Centre, tariff, accounts and meters, all open since `opened_ms`, in one transaction."""
    files.make_keys()
    random = Random(f"{seed}/population")  # noqa: S311  (habits, no secret)
    with conn.transaction():
        centre = registry.add_centre(conn, *CENTRE)
        tariff = registry.add_tariff(conn, "faults", "Faults", _tariff_form())
        made = []
        for place, number in enumerate(numbers(meters)):
            credit_micro = random.randint(*OPENING_CREDIT)
            household = Household(
                number,
                f"F-{number}",
                _meter(files, number, place * INTERVAL_MS // meters, opened_ms, random),
                opened_ms,
                120_000,
                credit_micro,
            )
            _open(conn, household, centre, tariff)
            made.append(household)
    return made


def _meter(
    files: DemoFiles, number: str, phase_ms: int, opened_ms: int, random: Random
) -> WitnessedMeter:
    attributes = KEYS[11]
    vending_key = files.keys()[attributes.sgc, attributes.krn]
    key = decoder_key(vending_key, meter_pan(IIN, number), attributes)
    plate = Nameplate(
        number,
        120_000,
        INTERVAL_MS,
        phase_ms,
        (files.trust.signing_key().verification_key,),
    )
    return WitnessedMeter(
        plate,
        SteadyLoad(random.randint(*WATTS), opened_ms),
        MeterState(),
        token_entry(lambda: MeterTokenState(decoder_key=key, attributes=attributes)),
    )


def _open(conn: Connection, household: Household, centre: int, tariff: int) -> None:
    number, now_ms = household.number, household.opened_ms
    registry.add_meter(
        conn,
        centre,
        registry.NewMeter(number, meter_pan(IIN, number), KEYS[11], interval_s=INTERVAL_MS // 1000),
    )
    registry.open_account(
        conn,
        number=household.account,
        customer=registry.add_customer(conn, f"Household {number}", now_ms),
        centre=centre,
        tariff=tariff,
        terms={"activated_at": format_instant(now_ms)},
        installation=Installation(number, MODULUS_WH, now_ms, household.opening_wh),
        now_ms=now_ms,
    )
    name = f"opening-{household.account}"
    payment = vending.Payment(
        channel="opening-credit",
        partner_txn_id=name,
        meter=number,
        amount_micro=household.credit_micro,
        paid_ms=now_ms,
        request_sha256=sha256(name.encode()).digest(),
    )
    vending.record_top_up(conn, TermsCache(), payment, name, now_ms, now_ms)


def _tariff_form() -> dict[str, object]:
    blocks: Sequence[dict[str, str]] = (
        {"up_to_kwh": str(BLOCK_EDGE_WH // 1000), "price": f"{PRICES[0] / 1000:.3f}"},
        {"price": f"{PRICES[1] / 1000:.3f}"},
    )
    version = {
        "valid_from": f"{BASE_DATE}-01-01",
        "period": "month",
        "bands": [{"name": "all", "method": "graduated", "blocks": list(blocks)}],
        "standing_per_day": format_micro(STANDING_MICRO)[:-4],
    }
    return {
        "timezone": ZONE,
        "currency": "MRU",
        "holidays": [],
        "tariff": {"versions": [version]},
    }
