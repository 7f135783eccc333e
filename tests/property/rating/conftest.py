"""Invented scenarios, for every law of the rating contract.

A mapping in the form of section 10, drawn so that things happen: small balances, edges of
blocks and windows, clocks that change, conflicts, exchanges, late and odd readings.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = 60_000
GRID = 15 * MINUTE  # every generated window edge and every offset of the zones below lies on it
WEEKDAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
# Zones and days on which clocks go forward, back, back across the first of a month, or stay.
PLACES = [
    ("Africa/Nouakchott", date(2026, 2, 27)),
    ("Europe/Paris", date(2026, 3, 27)),
    ("Europe/Paris", date(2026, 10, 24)),
    ("Europe/Paris", date(2025, 12, 30)),
    ("America/St_Johns", date(2026, 10, 31)),
    ("Asia/Kathmandu", date(2026, 2, 27)),
    ("Africa/Cairo", date(2026, 4, 23)),
]


def ms_of(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


def text_of(ms: int) -> str:
    at = (EPOCH + timedelta(milliseconds=ms)).replace(tzinfo=None)
    return at.isoformat(timespec="milliseconds") + "Z"


class Invented:
    def __init__(self, random: Random) -> None:
        self.random = random
        zone, first = random.choice(PLACES)
        self.zone, self.first = ZoneInfo(zone), first
        midnight = datetime(first.year, first.month, first.day, tzinfo=self.zone)
        self.begin = (midnight - EPOCH) // timedelta(milliseconds=1)
        self.begin += random.choice([0, 0, 7 * GRID + 1, 13 * GRID])
        self.opened = self.begin + random.choice([0, 0, 3 * GRID, 5])
        self.until = self.opened + random.choice([1, 2, 4]) * 24 * 60 * MINUTE
        self.until += random.choice([0, -1, 1, 3 * GRID])

    def some(self, *options: Any) -> Any:
        return self.random.choice(options)

    def at(self) -> int:
        ms = self.random.randrange(self.opened // GRID, self.until // GRID + 1) * GRID
        return max(self.begin, ms + self.some(0, 0, 0, 1, -1, 123_457))

    def window(self, *extra: str) -> dict[str, Any]:
        begin, end = self.random.sample(range(96), 2)
        days = self.random.sample([*WEEKDAYS, *extra], self.some(1, 3, 5, 7))
        clock = [f"{each // 4:02}:{each % 4 * 15:02}" for each in (begin, end)]
        return {"days": days, "from": clock[0], "to": self.some(clock[1], clock[1], "24:00")}

    def band(self, name: str) -> dict[str, Any]:
        prices = sorted(self.random.sample(["1", "2.459", "4", "5.903", "0.5", "7.001"], 3))
        method = self.some("graduated", "volume")
        if method == "graduated":
            self.random.shuffle(prices)
        edges = self.some(["0.7", "3.5"], ["2", "2.001"], ["1.5", "40"])
        count = self.some(1, 2, 3)
        blocks = [{"up_to_kwh": e, "price": p} for e, p in zip(edges, prices, strict=False)]
        return {
            "name": name,
            "method": method,
            "blocks": [*blocks[: count - 1], {"price": prices[-1]}],
        }

    def version(self, valid_from: date) -> dict[str, Any]:
        named = [self.band(name) for name in self.some([], ["night"], ["night", "early"])]
        for band in named:
            band["windows"] = [self.window("holiday") for _ in range(self.some(1, 2))]
        taxes = [
            {
                "name": self.some("vat", "levy"),
                "percent": percent,
                "on": self.some(["energy"], ["standing"], ["energy", "standing"]),
                "included": self.some(True, False),
            }
            for percent in self.some([], ["16"], ["12.5", "3.3333"])
        ]
        return {
            "valid_from": valid_from.isoformat(),
            "period": self.some("month", "year"),
            "bands": [*named, self.band("rest")],
            "standing_per_day": self.some("0", "1.20", "0.000007"),
            "taxes": taxes,
        }

    def account(self) -> dict[str, Any]:
        account: dict[str, Any] = {"activated_at": text_of(self.begin)}
        share = {"kind": "payment_share", "percent": self.some("20", "33.3333", "100")}
        capped = {**share, "cap_per_month": self.some("0.50", "3")}
        daily = {"kind": "daily", "amount": self.some("0.70", "2")}
        rules = self.some([], [share], [capped], [daily], [daily, share], [capped, daily])
        if self.some(True, False):
            account["debt"] = {"outstanding": self.some("3", "40.000001"), "rules": rules}
        if self.some(True, False):
            activation = self.some("automatic", "on_request", "on_request")
            account["emergency"] = {"limit": self.some("2", "9"), "activation": activation}
        if self.some(True, False):
            account["reconnect_at"] = self.some("1.00", "4", "-1")
        if self.some(True, False):
            account["non_disconnection"] = [self.window("holiday") for _ in range(2)]
        return account

    def facts(self) -> list[dict[str, Any]]:
        facts: list[dict[str, Any]] = []
        wh, at = 9_950_000, self.opened
        for step in [self.some(GRID, 4 * GRID, 17 * GRID, 50 * GRID + 777) for _ in range(12)]:
            at, wh = at + step, wh + self.some(0, 1, 333, 900, 2_500, 6_000)
            value = self.some(*[wh] * 12, wh - 5_000, wh + 10**6) % 10**7
            facts.append({"reading": {"time": text_of(at), "wh": value}})
        if self.some(True, False):
            meter = {"id": "2", "max_power_w": 6600, "modulus_wh": 10**7, "opening_wh": 9_960_000}
            at = max(self.at(), self.opened + 1)
            closing = {"time": text_of(at), "closing_wh": wh % 10**7, "meter": meter}
            facts.append({"exchange": closing})
        for place in range(self.some(1, 4, 6)):
            top_up = {
                "id": f"p{place}",
                "time": text_of(self.at()),
                "amount": self.some("3", "9", "25"),
            }
            facts.append({"top_up": top_up})
            if self.some(True, False, False):
                later = text_of(max(self.at(), ms_of(top_up["time"])))
                facts.append({"reversal": {"top_up": top_up["id"], "time": later}})
        requests = [text_of(self.at()) for _ in range(self.some(0, 1, 3))]
        facts += [{"emergency_request": {"time": each}} for each in requests]
        for named in self.some([], [], ["1"], ["2", "1"], [None]):
            known = self.some(*facts)
            at = ms_of(next(iter(known.values()))["time"]) - self.some(0, 0, 60 * GRID)
            odd = {"time": text_of(at), "wh": self.some(wh, 17)}
            facts.append({"reading": odd if named is None else {**odd, "meter": named}})
        facts += self.random.sample(facts, 2)
        self.random.shuffle(facts)
        return facts

    def scenario(self) -> dict[str, Any]:
        versions = [self.version(self.first - timedelta(days=400))]
        if self.some(True, False):
            versions.insert(0, self.version(self.first + timedelta(days=1)))
        quotes = [{"at": text_of(self.some(self.until, self.at())), "amount": "5.55"}]
        return {
            "timezone": str(self.zone),
            "currency": "MRU",
            "holidays": [(self.first + timedelta(days=self.some(0, 1, 2))).isoformat()],
            "tariff": {"versions": versions},
            "account": self.account(),
            "meter": {
                "id": "1",
                "max_power_w": self.some(6600, 60_000, 60_000),
                "modulus_wh": 10**7,
                "opened_at": text_of(self.opened),
                "opening_wh": 9_950_000,
            },
            "facts": self.facts(),
            "quotes": [each for each in quotes if ms_of(each["at"]) <= self.until],
            "until": text_of(self.until),
        }


@pytest.fixture(scope="session")
def invent() -> Callable[[Random], dict[str, Any]]:
    return lambda random: Invented(random).scenario()
