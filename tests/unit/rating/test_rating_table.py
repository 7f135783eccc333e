"""The rating contract as text tables: one line, one case."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from credit_engine.consumption import judge
from credit_engine.days import cell_at, local_time, midnight_ms
from credit_engine.form import Form, decimal_text, instant_text
from credit_engine.quote import amount_for, energy_cost, quote
from credit_engine.rating import block_lines, tax_due
from credit_engine.scenario import parse_scenario, rate, run
from credit_engine.tariff import parse_tariff
from credit_engine.terms import Band, Installation, Tax


def rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.strip().splitlines() if not line.startswith("#")]


def ms(text: str) -> int:
    return Form("", text).instant()


def blocks(text: str) -> list[dict[str, str]]:
    """`100:2.459,5.903`: up to 100 kWh at 2.459, then 5.903."""
    parts = [part.split(":") for part in text.split(",")]
    return [
        {"up_to_kwh": part[0], "price": part[1]} if len(part) == 2 else {"price": part[0]}
        for part in parts
    ]


def band(method: str, text: str) -> Band:
    tariff = parse_tariff(
        {
            "timezone": "UTC",
            "currency": "XXX",
            "tariff": {
                "versions": [
                    {
                        "valid_from": "2026-01-01",
                        "period": "month",
                        "bands": [{"name": "all", "method": method, "blocks": blocks(text)}],
                    }
                ]
            },
        }
    )
    return tariff.versions[0].bands[0]


@pytest.mark.parametrize(
    ("method", "edges", "consumed", "energy", "charge", "lines"),
    rows("""
graduated  5.9              0       0       0.000000    -
graduated  5.9              0       1       0.005900    1@5.9
graduated  100:2.459,5.903  0       100000  245.900000  100000@2.459
graduated  100:2.459,5.903  0       130000  422.990000  100000@2.459+30000@5.903
graduated  100:2.459,5.903  99999   2       0.008362    1@2.459+1@5.903
graduated  100:2.459,5.903  100000  1       0.005903    1@5.903
graduated  1:0,2:3,0.5      0       3000    3.500000    1000@0+1000@3+1000@0.5
graduated  0.001:7,9        0       2       0.016000    1@7+1@9
volume     100:2,200:3,5    0       100000  200.000000  100000@2
volume     100:2,200:3,5    100000  1       100.003000  1@3
volume     100:2,200:3,5    200000  50000   650.000000  50000@5
volume     100:2,200:3,5    0       250000  1250.000000 250000@5
"""),
)
def test_charge_of_energy_by_blocks(
    method: str, edges: str, consumed: str, energy: str, charge: str, lines: str
) -> None:
    tariff = band(method, edges)
    start, used = int(consumed), int(energy)
    assert decimal_text(tariff.total_micro(start + used) - tariff.total_micro(start)) == charge
    if lines != "-":
        found = block_lines(tariff, start, used)
        wanted = [part.split("@") for part in lines.split("+")]
        assert [line["wh"] for line in found] == [int(wh) for wh, _ in wanted]
        prices = [Form("", price).decimal(3) for _, price in wanted]
        assert [line["price_micro_per_wh"] for line in found] == prices
        assert decimal_text(sum(line["amount_micro"] for line in found)) == charge


@pytest.mark.parametrize(
    ("ppm", "included", "base", "due"),
    rows("""
125000   no   12        2
125000   no   24        3
125000   no   36        5
160000   no   0         0
160000   no   3         0
160000   no   4         1
33333    no   15        0
33333    no   16        1
160000   yes  5900000   813793
600000   yes  4         2
0        no   99999     0
"""),
)
def test_tax_due_is_rounded_half_up_on_the_base_of_the_month(
    ppm: str, included: str, base: str, due: str
) -> None:
    tax = Tax("vat", int(ppm), included == "yes", on_energy=True, on_standing=True)
    assert tax_due(tax, int(base)) == int(due)


@pytest.mark.parametrize(
    ("modulus", "power", "from_wh", "wh", "minutes", "judgement", "energy"),
    rows("""
1000000  6600  899999   100000   600000   register_decreased  0
1000000  6600  900000   100001   600000   register_decreased  0
1000000  6600  900000   100000   600000   accepted            200000
1000000  6600  999999   0        1        accepted            1
1000000  6600  500      499      1        register_decreased  0
1000000  6600  500      500      1        accepted            0
1000000  6600  0        7270     60       accepted            7270
1000000  6600  0        7271     60       implausible         0
1000000  0     0        10       60       accepted            10
1000000  0     0        11       60       implausible         0
1000000  -     0        999999   1        accepted            999999
1000000  6600  3000000  100000   600000   register_decreased  0
"""),
)
def test_judgement_of_a_reading(
    modulus: str, power: str, from_wh: str, wh: str, minutes: str, judgement: str, energy: str
) -> None:
    meter = Installation("1", int(modulus), 0, 0, None if power == "-" else int(power))
    assert judge(meter, 0, int(from_wh), int(minutes) * 60_000, int(wh)) == (
        judgement,
        int(energy),
    )


@pytest.mark.parametrize(
    ("zone", "day", "first_instant"),
    rows("""
Africa/Nouakchott    2026-03-01  2026-03-01T00:00:00Z
Asia/Kathmandu       2026-03-01  2026-02-28T18:15:00Z
Europe/Paris         2026-03-29  2026-03-28T23:00:00Z
Europe/Paris         2026-03-30  2026-03-29T22:00:00Z
America/St_Johns     2026-11-01  2026-11-01T02:30:00Z
America/St_Johns     2026-11-02  2026-11-02T03:30:00Z
# 00:00 does not exist: the day begins at 01:00
Africa/Cairo         2026-04-24  2026-04-23T22:00:00Z
America/Santiago     2026-09-06  2026-09-06T04:00:00Z
# 00:00 comes twice: the day begins at the first
America/Havana       2026-11-01  2026-11-01T04:00:00Z
# at 00:01 the clock went back to 23:01 of the day before
America/St_Johns     2010-11-07  2010-11-07T02:30:00Z
# the zone skipped 30 December
Pacific/Apia         2011-12-30  2011-12-30T10:00:00Z
Pacific/Apia         2011-12-31  2011-12-30T10:00:00Z
"""),
)
def test_local_midnight_is_the_first_instant_of_a_date(
    zone: str, day: str, first_instant: str
) -> None:
    found = midnight_ms(ZoneInfo(zone), date.fromisoformat(day))
    assert instant_text(found) == first_instant


def test_every_midnight_of_every_changing_zone_is_the_first_instant_of_its_date() -> None:
    for name in ("Africa/Cairo", "America/Havana", "Asia/Beirut", "Europe/Lisbon", "Asia/Tehran"):
        zone = ZoneInfo(name)
        for ordinal in range(date(2021, 3, 1).toordinal(), date(2022, 4, 1).toordinal()):
            day = date.fromordinal(ordinal)
            found = midnight_ms(zone, day)
            assert local_time(zone, found).date() == day
            assert local_time(zone, found - 1).date() == day - timedelta(days=1)


@pytest.mark.parametrize(
    ("zone", "days", "begin", "end", "wall", "applies"),
    rows("""
# 2026-03-20 is a Friday and a holiday
Africa/Nouakchott  thu             22:00  06:00  2026-03-19T22:00  yes
Africa/Nouakchott  thu             22:00  06:00  2026-03-20T05:59  yes
Africa/Nouakchott  thu             22:00  06:00  2026-03-20T06:00  no
Africa/Nouakchott  fri             22:00  06:00  2026-03-20T23:00  no
Africa/Nouakchott  fri             22:00  06:00  2026-03-21T01:00  no
Africa/Nouakchott  holiday         22:00  06:00  2026-03-20T01:00  no
Africa/Nouakchott  holiday         22:00  06:00  2026-03-21T01:00  yes
Africa/Nouakchott  holiday         00:00  24:00  2026-03-20T00:00  yes
Africa/Nouakchott  holiday         00:00  24:00  2026-03-21T00:00  no
Africa/Nouakchott  sat             12:00  00:00  2026-03-21T23:59  yes
Africa/Nouakchott  sat             12:00  00:00  2026-03-22T00:00  no
Africa/Nouakchott  sat             24:00  06:00  2026-03-22T05:59  yes
Africa/Nouakchott  sat             24:00  06:00  2026-03-21T05:59  no
# the hour 02-03 comes twice on 25 October, and not at all on 29 March
Europe/Paris       sun             02:00  03:00  2026-10-25T02:30  yes
Europe/Paris       sun             02:00  03:00  2026-03-29T03:00  no
Europe/Paris       sun             01:30  02:30  2026-03-29T01:59  yes
"""),
)
def test_a_window_belongs_to_the_date_on_which_it_began(
    zone: str, days: str, begin: str, end: str, wall: str, applies: str
) -> None:
    window = {"days": days.split(","), "from": begin, "to": end}
    named = {"name": "named", "method": "graduated", "blocks": [{"price": "1"}]}
    bands = [{**named, "windows": [window]}, {**named, "name": "rest"}]
    version = {"valid_from": "2026-01-01", "period": "month", "bands": bands}
    tariff = parse_tariff(
        {
            "timezone": zone,
            "currency": "XXX",
            "holidays": ["2026-03-20"],
            "tariff": {"versions": [version]},
        }
    )
    for fold in (0, 1):
        at = datetime.fromisoformat(wall).replace(tzinfo=ZoneInfo(zone), fold=fold)
        cell = cell_at(tariff, ms(at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")))
        assert (cell.band.name == "named") == (applies == "yes")


# Stories: 1.000 per kWh; each line is a fact, or nothing, and what the account is just after it.
# `read N`: the register in Wh. All on 6 March 2026, a Friday, unless a day of March is named.


def story_account(words: list[str]) -> dict[str, Any]:
    account: dict[str, Any] = {"activated_at": "2026-03-06T00:00:00Z"}
    for word in words:
        name, _, value = word.partition("=")
        if name in {"automatic", "on_request"}:
            account["emergency"] = {"limit": value, "activation": name}
        elif name == "reconnect_at":
            account["reconnect_at"] = value
        elif name == "protected":
            begin, _, end = value.partition("-")
            account["non_disconnection"] = [{"days": ["fri"], "from": begin, "to": end}]
        elif name == "debt":
            account["debt"] = {"outstanding": value, "rules": []}
        elif name == "share":
            percent, _, cap = value.partition("/")
            rule = {"kind": "payment_share", "percent": percent}
            account["debt"]["rules"].append({**rule, "cap_per_month": cap} if cap else rule)
        else:
            assert name == "daily", name
            account["debt"]["rules"].append({"kind": "daily", "amount": value})
    return account


def story_instant(text: str) -> str:
    day, clock = text.split("/") if "/" in text else ("6", text)
    return f"2026-03-{int(day):02}T{clock + ':00' if len(clock) == 5 else clock}Z"


def story_fact(time: str, words: list[str]) -> dict[str, Any]:
    match words:
        case ["read", wh]:
            return {"reading": {"time": time, "wh": int(wh)}}
        case ["pay", id, amount]:
            return {"top_up": {"id": id, "time": time, "amount": amount}}
        case ["reverse", id]:
            return {"reversal": {"top_up": id, "time": time}}
        case ["request"]:
            return {"emergency_request": {"time": time}}
    raise AssertionError(words)


STORIES = {
    "requested emergency credit lasts until the balance is above zero": """
on_request=20
00:00    pay p1 10   | 10.000000   0.000000  connected
10:00    read 12000  | -2.000000   0.000000  disconnected
10:00:01 request     | -2.000000   0.000000  connected
11:00    pay p2 2    | 0.000000    0.000000  connected
12:00    pay p3 1    | 1.000000    0.000000  connected
12:30    read 12000  | 1.000000    0.000000  connected
13:00    read 14000  | -1.000000   0.000000  disconnected
""",
    "a request while the balance is above zero is worth nothing": """
on_request=20
00:00    pay p1 10   | 10.000000   0.000000  connected
05:00    request     | 10.000000   0.000000  connected
10:00    read 12000  | -2.000000   0.000000  disconnected
""",
    "a request at the instant of a top-up is judged after it": """
on_request=20
05:00    read 0      | 0.000000    0.000000  disconnected
05:00    request     | 0.000000    0.000000  connected
05:00    pay p1 1    | 1.000000    0.000000  connected
10:00    read 2000   | -1.000000   0.000000  disconnected
""",
    "the limit of emergency credit is not above itself": """
automatic=20
00:00    pay p1 10   | 10.000000   0.000000  connected
10:00    read 29999  | -19.999000  0.000000  connected
11:00    read 30000  | -20.000000  0.000000  disconnected
""",
    "reconnect_at waits although the balance is above the floor": """
reconnect_at=5
00:00    pay p1 1    | 1.000000    0.000000  connected
01:00    read 1000   | 0.000000    0.000000  disconnected
02:00    pay p2 4.99 | 4.990000    0.000000  disconnected
03:00    pay p3 0.01 | 5.000000    0.000000  connected
03:30    read 1000   | 5.000000    0.000000  connected
04:00    read 4000   | 2.000000    0.000000  connected
""",
    # One millisecond before the window begins, 11999 Wh of 12000 are used.
    "a thousandth left when a protected window begins arms nothing": """
reconnect_at=5 protected=12:00-24:00
00:00    pay p1 12     | 12.000000   0.000000  connected
12:00    read 12000    | 0.000000    0.000000  protected
13:00    pay p2 1      | 1.000000    0.000000  connected
""",
    "nothing left in the last millisecond before a protected window arms reconnect_at": """
reconnect_at=5 protected=12:00-24:00
00:00    pay p1 11.999 | 11.999000   0.000000  connected
12:00    read 12000    | -0.001000   0.000000  protected
13:00    pay p2 1      | 0.999000    0.000000  protected
""",
    "a share of a top-up pays debt up to the cap of the month": """
debt=30 share=20/15
00:00    pay p1 100  | 85.000000   15.000000 connected
01:00    pay p2 10   | 95.000000   15.000000 connected
02:00    reverse p1  | 10.000000   30.000000 connected
03:00    pay p3 50   | 60.000000   30.000000 connected
""",
    "daily debt waits while nothing is left": """
debt=3 daily=2
00:00    pay p1 1    | 1.000000    3.000000  connected
7/00:00  -           | -1.000000   1.000000  disconnected
8/00:00  -           | -1.000000   1.000000  disconnected
8/09:00  pay p2 2    | 1.000000    1.000000  connected
9/00:00  -           | 0.000000    0.000000  disconnected
""",
    "at one instant: consumption, midnight, top-ups, reversals": """
debt=3 daily=2
00:00    pay p1 3    | 3.000000    3.000000  connected
7/00:00  read 2000   | -1.000000   1.000000  disconnected
7/00:00  pay p2 7    | 6.000000    1.000000  connected
7/00:00  reverse p2  | -1.000000   1.000000  disconnected
""",
}


def story_cases() -> list[Any]:
    return [pytest.param(text, id=name) for name, text in STORIES.items()]


@pytest.mark.parametrize("text", story_cases())
def test_story(text: str) -> None:
    header, *lines = text.strip().splitlines()
    facts: list[dict[str, Any]] = []
    steps = []
    for line in lines:
        told, _, after = line.partition("|")
        time, *words = told.split()
        if words != ["-"]:
            facts.append(story_fact(story_instant(time), words))
        steps.append((len(facts), story_instant(time), after.split()))
    plain = {"name": "all", "method": "graduated", "blocks": [{"price": "1"}]}
    version = {"valid_from": "2026-01-01", "period": "month", "bands": [plain]}
    for count, until, after in steps:
        meter = {"id": "1", "modulus_wh": 10**6, "opening_wh": 0}
        result = run(
            parse_scenario(
                {
                    "timezone": "UTC",
                    "currency": "MRU",
                    "tariff": {"versions": [version]},
                    "account": story_account(header.split()),
                    "meter": {**meter, "opened_at": "2026-03-06T00:00:00Z"},
                    "facts": facts[:count],
                    "until": until,
                }
            )
        )
        found = [result["balance"], result["debt_outstanding"], result["supply"]]
        assert found == after, (until, facts[:count])


def quoted(amount: str, **version: Any) -> Any:
    plain = {"name": "all", "method": "graduated", "blocks": blocks("2:1,3")}
    mapping = {
        "timezone": "UTC",
        "currency": "MRU",
        "tariff": {
            "versions": [
                {"valid_from": "2026-01-01", "period": "month", "bands": [plain], **version}
            ]
        },
        "account": {
            "activated_at": "2026-03-06T00:00:00Z",
            "debt": {"outstanding": "10", "rules": [{"kind": "payment_share", "percent": "10"}]},
        },
        "meter": {
            "id": "1",
            "modulus_wh": 10**6,
            "opening_wh": 0,
            "opened_at": "2026-03-06T00:00:00Z",
        },
        "facts": [{"reading": {"time": "2026-03-06T12:00:00Z", "wh": 1000}}],
        "quotes": [{"at": "2026-03-06T12:00:00Z", "amount": amount}],
        "until": "2026-03-06T12:00:00Z",
    }
    return parse_scenario(mapping)


def test_the_lines_of_a_quote_sum_to_its_amount() -> None:
    vat = {"name": "vat", "percent": "10", "on": ["energy"], "included": False}
    scenario = quoted("10", taxes=[vat])
    (line,) = run(scenario)["quotes"]
    # 1 kWh used: 1.10 owed. 10 - 1 debt - 1.10 = 7.90: 1 kWh at 1 and 2 kWh at 3 cost 7.70.
    assert [list(each.values()) for each in line["lines"]] == [
        ["debt", "1.000000"],
        ["owed", "1.100000"],
        ["energy", 1000, "1.000000", "1.000000"],
        ["energy", 2000, "3.000000", "6.000000"],
        ["vat", "0.700000"],
        ["change", "0.200000"],
    ]
    assert line["energy_wh"] == 3000


def test_the_least_amount_for_an_energy_buys_it_and_one_micro_less_does_not() -> None:
    scenario = quoted("1")
    outcome, _ = rate(scenario)
    at_ms = scenario.until_ms
    for energy_wh in (100, 1000, 1100, 50_000):
        amount = amount_for(scenario.terms, outcome.totals, at_ms, energy_wh)
        enough = quote(scenario.terms, outcome.totals, at_ms, amount)
        assert (enough.energy_wh, enough.change_micro) == (energy_wh, 0)
        less = quote(scenario.terms, outcome.totals, at_ms, amount - 1)
        assert less.energy_wh == energy_wh - 100
        lines = energy_cost(scenario.terms, outcome.totals, at_ms, energy_wh)
        assert sum(line.amount_micro for line in lines) == enough.cost_micro
    assert amount_for(scenario.terms, outcome.totals, at_ms, 0) == 0
