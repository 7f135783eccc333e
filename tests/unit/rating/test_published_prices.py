"""Rows worked out by hand from published prices, against the engine.

Mauritania: press figures of 2021 (social 2.459, ordinary 5.903 MRU a kWh; VAT 16 %, on energy here;
whether the published prices contain it is not known, so the rows name the charge without it too).
Senegal, Woyofal: 91.17 XOF a kWh up to 150 kWh a month, then 136.49 (press, December 2025).
"""

from itertools import permutations
from typing import Any

import pytest

from credit_engine.scenario import parse_scenario, run
from schemas.quantities import parse_kwh

SOCIAL = [{"price": "2.459"}]
ORDINARY = [{"price": "5.903"}]
WOYOFAL = [{"up_to_kwh": "150", "price": "91.17"}, {"price": "136.49"}]
TARIFFS = {"social": ("MRU", SOCIAL), "ordinary": ("MRU", ORDINARY), "woyofal": ("XOF", WOYOFAL)}

#        tariff      kWh in a month   energy             with 16 % VAT
ROWS = """
         social      0.1              0.245900           0.285244
         social      30               73.770000          85.573200
         social      100              245.900000         285.244000
         ordinary    1                5.903000           6.847480
         ordinary    100              590.300000         684.748000
         ordinary    243.7            1438.561100        1668.730876
         woyofal     145.2            13237.884000       15355.945440
         woyofal     150              13675.500000       15863.580000
         woyofal     150.1            13689.149000       15879.412840
         woyofal     151              13811.990000       16021.908400
         woyofal     246.9            26901.381000       31205.601960
         woyofal     250              27324.500000       31696.420000
"""


def scenario(tariff: str, registers: list[int], **more: Any) -> dict[str, Any]:
    """Readings of one day, at an hour of their own each."""
    currency, blocks = TARIFFS[tariff]
    tax = {"name": "vat", "percent": "16", "on": ["energy"], "included": False}
    version = {
        "valid_from": "2026-01-01",
        "period": "month",
        "bands": [{"name": "all", "method": "graduated", "blocks": blocks}],
        "taxes": [tax] if more.pop("vat", True) else [],
    }
    readings = [
        {"reading": {"time": f"2026-03-02T{hour:02}:00:00Z", "wh": wh}}
        for hour, wh in enumerate(registers, start=1)
    ]
    return {
        "timezone": "Africa/Nouakchott",
        "currency": currency,
        "tariff": {"versions": [version]},
        "account": {"activated_at": "2026-03-01T00:00:00Z"},
        "meter": {
            "id": "m",
            "modulus_wh": 10**9,
            "opened_at": "2026-03-01T00:00:00Z",
            "opening_wh": 0,
        },
        "facts": readings + more.pop("facts", []),
        "until": "2026-03-03T00:00:00Z",
        **more,
    }


@pytest.mark.parametrize("row", ROWS.split("\n")[1:-1])
def test_a_published_price_gives_the_row(row: str) -> None:
    tariff, kwh, energy, with_vat = row.split()
    found = run(parse_scenario(scenario(tariff, [parse_kwh(kwh)])))
    assert found["months"]["2026-03"]["charges"]["energy"] == energy
    assert found["balance"] == f"-{with_vat}"


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_same_month_in_three_readings_of_any_arrival_costs_the_same(
    order: tuple[int, ...],
) -> None:
    mapping = scenario("woyofal", [145_200, 150_100, 246_900])
    mapping["facts"] = [mapping["facts"][place] for place in order]
    found = run(parse_scenario(mapping))
    assert found["months"]["2026-03"]["charges"]["energy"] == "26901.381000"


def test_two_equal_payments_of_one_day_buy_as_was_disputed_in_public() -> None:
    """14,000 XOF bought 145.2 and then 101.7 kWh. The prices alone would buy 152.3 and 104.1: what
    lies between are taxes and dues whose rates the press does not give; the order is the blocks'.
    """
    first = run(
        parse_scenario(
            scenario(
                "woyofal", [], vat=False, quotes=[{"at": "2026-03-02T00:00:00Z", "amount": "14000"}]
            )
        )
    )["quotes"][0]
    assert (first["energy_wh"], first["change"]) == (152_300, "10.573000")
    paid = {"top_up": {"id": "p", "time": "2026-03-01T09:00:00Z", "amount": "13237.884"}}
    second = run(
        parse_scenario(
            scenario(
                "woyofal",
                [145_200],
                vat=False,
                facts=[paid],
                quotes=[{"at": "2026-03-02T12:00:00Z", "amount": "14000"}],
            )
        )
    )["quotes"][0]
    assert (second["energy_wh"], second["change"]) == (104_100, "8.927000")
    blocks = [(line["wh"], line["price"]) for line in second["lines"] if "wh" in line]
    assert blocks == [(4_800, "91.170000"), (99_300, "136.490000")]
