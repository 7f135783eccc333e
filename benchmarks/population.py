"""A fleet to measure with: one account opened and rated by the production code, and its copies.

Every meter says a register every quarter of an hour; what it says never depends on what was sent.
What each account must have left is counted here once more, from the tariff's words alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import orjson
from psycopg import ClientCursor, Connection

from credit_engine.terms import Installation
from schemas.decoding import decode_up
from schemas.quantities import format_instant, parse_instant_ms
from schemas.topics import parse
from store import ingest, registry
from store.adjustments import CarriedOver
from store.incoming import Incoming
from store.lanes import Lanes
from store.registry import NewMeter
from store.terms import TermsCache

SLOT_MS = 15 * 60 * 1000
OPENED_MS = parse_instant_ms("2026-06-01T00:05:00Z")
# The first slot that a measurement may send; the template has said everything before it.
FIRST_SLOT = 1
SLOTS_AN_HOUR = 4
SLOTS_A_DAY = 24 * SLOTS_AN_HOUR
# Up to here the first block of the month lasts; beyond it the expectation would need the second.
LAST_SLOT = 1_300
CREDIT_MICRO = 10_000_000_000
# Of TARIFF below, written down a second time: micro-units per Wh and per day, per cent.
PEAK_HOURS = range(19, 23)
PEAK_MICRO_PER_WH, MICRO_PER_WH = 5_903, 2_459
STANDING_MICRO = 1_200_000
VAT_PERCENT = 16
MAX_POWER_W = 6_600
# Old accounts were opened so long before the others: two weeks of whole days after that one.
HISTORY_SLOTS = 15 * SLOTS_A_DAY
# A meter number is followed by another far away, as meters report in the order of no table.
STRIDE = 7919

TARIFF: dict[str, Any] = {
    "timezone": "Africa/Nouakchott",
    "currency": "MRU",
    "holidays": [],
    "tariff": {
        "versions": [
            {
                "valid_from": "2024-01-01",
                "period": "month",
                "bands": [
                    {
                        "name": "peak",
                        "windows": [
                            {
                                "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
                                "from": "19:00",
                                "to": "23:00",
                            }
                        ],
                        "method": "graduated",
                        "blocks": [{"price": "5.903"}],
                    },
                    {
                        "name": "all",
                        "method": "graduated",
                        "blocks": [{"up_to_kwh": "100", "price": "2.459"}, {"price": "5.903"}],
                    },
                ],
                "standing_per_day": "1.20",
                "taxes": [
                    {
                        "name": "vat",
                        "percent": "16",
                        "on": ["energy", "standing"],
                        "included": False,
                    }
                ],
            }
        ]
    },
}


@dataclass(frozen=True, slots=True)
class Population:
    """Meters 1 to `meters`; meter n's number is n in 11 digits, its account is `B-n`. Those of
    `old` said a register each quarter of an hour for two weeks, the others one alone.
    """

    meters: int
    old: frozenset[int] = frozenset()

    def number(self, place: int) -> str:
        """The number of the meter at a place of the sending order, from 0 on."""
        return f"{place * STRIDE % self.meters + 1:011d}"

    def expected_balance_micro(self, number: str) -> int:
        """What the account of a meter has left before anything is sent."""
        slots_before = HISTORY_SLOTS if int(number) in self.old else 0
        return expected_balance_micro(FIRST_SLOT, slots_before)


def register_wh(slot: int) -> int:
    """A load of 25 to 120 Wh a quarter of an hour that repeats after 20 of them."""
    whole, rest = divmod(slot, 20)
    return whole * 20 * 72 + sum(25 + 5 * each for each in range(rest))


def payload(slot: int, *, receipt: bool = False, slots_before: int = 0) -> bytes:
    """What a meter says at a slot: a register and what a real one sends beside it.

    `slots_before`: so many before the first one its register was 0.
    """
    seq = slot + slots_before
    return orjson.dumps(
        {
            "v": 1,
            "boot": 17,
            "seq": seq,
            "ts": format_instant(instant_ms(slot)),
            "tq": "sync",
            "hist": False,
            "reg": {"1.8.0": register_wh(seq)},
            "inst": {"P": 412, "V": [230.4], "I": [1.83]},
            "relay": "closed",
            "rcpt": receipt,
        }
    )


def batch(numbers: Sequence[str], slot: int) -> bytes:
    """What a gateway says of its meters at a slot."""
    return orjson.dumps(
        {
            "v": 1,
            "t0": format_instant(instant_ms(slot)),
            "dt": SLOT_MS // 1000,
            "cols": ["1.8.0"],
            "rows": [[number, 17, slot, [[register_wh(slot)]]] for number in numbers],
        }
    )


def instant_ms(slot: int) -> int:
    return OPENED_MS - OPENED_MS % SLOT_MS + slot * SLOT_MS


def expected_balance_micro(slot: int, slots_before: int = 0) -> int:
    """What every account has left after the slot's reading; shares no line with the engine."""
    assert slot <= LAST_SLOT, "a longer run reaches the second block"
    # Slot 0 begins a month.
    spent = {False: 0, True: 0}
    for each in range(1 - slots_before, slot + 1):
        seq, this_month = each + slots_before, each > 0
        used_wh = register_wh(seq) - register_wh(seq - 1)
        began_hour = (each - 1) % SLOTS_A_DAY // SLOTS_AN_HOUR
        price = PEAK_MICRO_PER_WH if began_hour in PEAK_HOURS else MICRO_PER_WH
        spent[this_month] += used_wh * price
        if each % SLOTS_A_DAY == 0:
            spent[each >= 0] += STANDING_MICRO
    # Of each month so far, rounded once, half up.
    vat = sum((2 * micro * VAT_PERCENT + 100) // 200 for micro in spent.values())
    return CREDIT_MICRO - sum(spent.values()) - vat


def incoming(number: str, body: bytes, now_ms: int) -> Incoming:
    """A message as the ingest loop would hand it to the store."""
    text = f"pm/v1/m/{number}/up/reading"
    topic = parse(text)
    return Incoming(topic, text, body, None, decode_up(topic, body, None, now_ms))


def populate(conn: Connection[Any], meters: int, old_places: Iterable[int] = ()) -> Population:
    """Fill an empty, migrated database; each account has a carried credit and its readings, those
    at `old_places` of the sending order two weeks of them.
    """
    old = frozenset(int(Population(meters).number(place)) for place in old_places)
    centre = registry.add_centre(conn, "bench", "Benchmark")
    tariff = registry.add_tariff(conn, "bench", "Benchmark", TARIFF)
    customer = registry.add_customer(conn, "Benchmark", OPENED_MS)
    young = [number for number in range(1, meters + 1) if number not in old]
    for numbers, slots_before in ((young, 0), (sorted(old), HISTORY_SLOTS)):
        if not numbers:
            continue
        number, opened_ms = f"{numbers[0]:011d}", OPENED_MS - slots_before * SLOT_MS
        meter = registry.add_meter(conn, centre, NewMeter(number))
        account = registry.open_account(
            conn,
            number=f"B-{numbers[0]}",
            customer=customer,
            centre=centre,
            tariff=tariff,
            terms={"activated_at": format_instant(opened_ms)},
            installation=Installation(number, 10**9, opened_ms, 0, MAX_POWER_W),
            now_ms=opened_ms,
            carried_over=CarriedOver(CREDIT_MICRO, "bench", "bench-2"),
        )
        _say(conn, number, slots_before)
        text = files("benchmarks").joinpath("population.sql").read_text(encoding="utf-8")
        of = {"numbers": numbers[1:], "meter": meter, "account": account, "number": number}
        with ClientCursor(conn) as cursor:
            cursor.execute(text.encode(), {**of, "template": f"B-{numbers[0]}"})
    conn.execute("VACUUM ANALYZE")
    return Population(meters, old)


def _say(conn: Connection[Any], number: str, slots_before: int) -> None:
    """The readings of a template, an hour at once, up to that of the first slot."""
    terms, lanes = TermsCache(), Lanes()
    slots = range(1 - slots_before, FIRST_SLOT + 1)
    for first in range(0, len(slots), SLOTS_AN_HOUR):
        said = slots[first : first + SLOTS_AN_HOUR]
        now_ms = instant_ms(said[-1])
        messages = [
            incoming(number, payload(slot, slots_before=slots_before), now_ms) for slot in said
        ]
        recorded = ingest.record(conn, terms, messages, now_ms, lanes)
        assert recorded.accepted == len(messages), recorded
