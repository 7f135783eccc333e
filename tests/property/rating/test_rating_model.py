"""The engine against a naive model of the rating contract: no positions, no cells, no closed forms.

The model works on the raw scenario and walks a fine grid of instants. At each it charges the
consumption since the one before, posts what is due, and looks at the supply, also one millisecond
before: between two instants of the grid nothing but consumption happens.
"""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from credit_engine.scenario import parse_scenario, run
from credit_engine.scenario_report import differences

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = 60_000
GRID = 15 * MINUTE  # every invented window edge and every offset of the zones below lies on it
WEEKDAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def ms_of(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


def text_of(ms: int) -> str:
    at = (EPOCH + timedelta(milliseconds=ms)).replace(tzinfo=None)
    return at.isoformat(timespec="milliseconds") + "Z"


def micro(text: str) -> int:
    amount = Fraction(text) * 1_000_000
    assert amount.denominator == 1
    return int(amount)


def money(amount: int) -> str:
    sign = "-" if amount < 0 else ""
    return f"{sign}{abs(amount) // 10**6}.{abs(amount) % 10**6:06}"


class Model:
    def __init__(self, scenario: dict[str, Any], until_ms: int) -> None:
        self.scenario = scenario
        self.until_ms = until_ms
        self.zone = ZoneInfo(scenario["timezone"])
        self.account = scenario["account"]
        self.debt_terms = self.account.get("debt", {"outstanding": "0", "rules": []})
        self.activated_ms = ms_of(self.account["activated_at"])
        self.holidays = set(scenario.get("holidays", []))
        self.facts = [
            (kind, fact)
            for each in scenario["facts"]
            for kind, fact in each.items()
            if ms_of(fact["time"]) <= until_ms
        ]
        self.balance = 0
        self.debt = micro(self.debt_terms["outstanding"])
        self.consumed: Counter[Any] = Counter()
        self.taxed: Counter[Any] = Counter()
        self.cap_used: Counter[str] = Counter()
        self.energy_wh: Counter[Any] = Counter()
        self.charges: Counter[Any] = Counter()
        self.splits: dict[str, tuple[int, int]] = {}
        self.readings: Counter[str] = Counter()
        self.quarantined: list[tuple[int, int, str]] = []
        self.requested = self.armed = False
        self.supply = "disconnected"

    def local(self, ms: int) -> datetime:
        return (EPOCH + timedelta(milliseconds=ms)).astimezone(self.zone).replace(tzinfo=None)

    def rule(self, kind: str) -> dict[str, str] | None:
        return next((rule for rule in self.debt_terms["rules"] if rule["kind"] == kind), None)

    # Readings

    def intervals(self) -> list[tuple[int, int, int]]:
        meters = [{**self.scenario["meter"], "at": ms_of(self.scenario["meter"]["opened_at"])}]
        arrivals: list[tuple[int, int, str | None]] = []
        seen_exchanges = []
        for kind, fact in self.facts:
            if kind == "exchange" and fact not in seen_exchanges:
                seen_exchanges.append(fact)
                meters.append({**fact["meter"], "at": ms_of(fact["time"])})
                arrivals.append((ms_of(fact["time"]), fact["closing_wh"], None))
            elif kind == "reading":
                arrivals.append((ms_of(fact["time"]), fact["wh"], fact.get("meter")))
        meters.sort(key=lambda meter: meter["at"])
        stored: list[tuple[int, str, int]] = []
        found = []
        for at, wh, named in arrivals:
            owners = [meter for meter in meters if meter["at"] < at]
            owner = owners[-1]["id"] if owners else meters[0]["id"]
            name = named or owner
            others = [each for each in stored if each[:2] == (at, name)]
            stored.append((at, name, wh))
            if (at, name, wh) in others:
                self.readings["duplicate"] += 1
            elif others:
                self.quarantined.append((at, wh, "conflict"))
            elif not owners:
                self.quarantined.append((at, wh, "before_installation"))
            elif name != owner:
                self.quarantined.append((at, wh, "not_installed"))
            else:
                found.append((at, wh))
        found.sort()
        intervals = []
        for meter, following in pairwise([*meters, {"at": self.until_ms + 1}]):
            last, last_wh = meter["at"], meter["opening_wh"]
            for at, wh in found:
                if not meter["at"] < at <= following["at"]:
                    continue
                energy = wh - last_wh
                tenth = Fraction(meter["modulus_wh"], 10)
                if energy < 0 and last_wh >= 9 * tenth and wh <= tenth:
                    energy += meter["modulus_wh"]
                hours = Fraction(at - last, 3_600_000)
                limit = Fraction(11, 10) * meter.get("max_power_w", 10**15) * hours
                if energy < 0:
                    self.quarantined.append((at, wh, "register_decreased"))
                elif energy - 10 > limit:
                    self.quarantined.append((at, wh, "implausible"))
                else:
                    self.readings["accepted"] += 1
                    intervals.append((last, at, energy))
                    last, last_wh = at, wh
        return intervals

    # Tariff

    def version(self, ms: int) -> dict[str, Any]:
        today = self.local(ms).date().isoformat()
        versions = sorted(self.scenario["tariff"]["versions"], key=lambda each: each["valid_from"])
        return [each for each in versions if each["valid_from"] <= today][-1]

    def in_window(self, window: dict[str, Any], ms: int, *, holiday_excludes: bool) -> bool:
        wall = self.local(ms)
        clock = wall.strftime("%H:%M")

        def begins_on(day: date) -> bool:
            is_holiday = day.isoformat() in self.holidays
            if is_holiday and "holiday" in window["days"]:
                return True
            weekday = WEEKDAYS[day.weekday()] in window["days"]
            return weekday and not (is_holiday and holiday_excludes)

        today, yesterday = wall.date(), wall.date() - timedelta(days=1)
        if window["from"] < window["to"]:
            return begins_on(today) and window["from"] <= clock < window["to"]
        return (begins_on(today) and clock >= window["from"]) or (
            begins_on(yesterday) and clock < window["to"]
        )

    def band(self, ms: int) -> dict[str, Any]:
        for band in self.version(ms)["bands"]:
            windows = band.get("windows")
            if windows is None or any(
                self.in_window(window, ms, holiday_excludes=True) for window in windows
            ):
                return band
        raise AssertionError

    @staticmethod
    def total(band: dict[str, Any], wh: int) -> int:
        edges = [Fraction(b["up_to_kwh"]) * 1000 for b in band["blocks"] if "up_to_kwh" in b]
        prices = [Fraction(block["price"]) * 1000 for block in band["blocks"]]
        if band["method"] == "volume":
            return int(wh * prices[sum(1 for edge in edges if wh > edge)])
        parts = [0, *edges, max(wh, *edges, 0) if edges else wh]
        return int(
            sum(
                max(0, min(wh, high) - low) * price
                for (low, high), price in zip(pairwise(parts), prices, strict=True)
            )
        )

    def period(self, ms: int) -> str:
        today = self.local(ms).date().isoformat()
        return today[:7] if self.version(ms)["period"] == "month" else today[:4]

    def charge(self, kind: str, amount: int, ms: int, *, post: bool = True) -> int:
        """Debit the customer; the amount with its taxes."""
        month = self.local(ms).date().isoformat()[:7]
        debited = amount
        for tax in self.version(ms).get("taxes", []):
            if kind not in tax["on"]:
                continue
            key = (month, tax["name"], tax["percent"], tax["included"])
            rate = Fraction(tax["percent"]) / 100
            if tax["included"]:
                rate /= 1 + rate
            before, after = (
                (2 * base * rate + 1) // 2 for base in (self.taxed[key], self.taxed[key] + amount)
            )
            if post:
                self.taxed[key] += amount
                self.charges[month, tax["name"]] += after - before
            if not tax["included"]:
                debited += after - before
        if post:
            self.charges[month, kind] += amount
            self.balance -= debited
        return debited

    # Time

    def run(self) -> "Model":
        intervals = self.intervals()
        times = {ms_of(fact["time"]) for _, fact in self.facts} | {self.activated_ms}
        times |= {end for _, end, _ in intervals} | {start for start, _, _ in intervals}
        low = min(times) // GRID * GRID
        times |= set(range(low, self.until_ms, GRID)) | {self.until_ms}
        instants = sorted(times | {each - 1 for each in times})
        for before, now in pairwise([instants[0] - 1, *instants]):
            if now > self.until_ms:
                break
            for start, end, energy in intervals:
                if start <= before and now <= end:
                    self.consume(start, end, energy, before, now)
            self.post(now)
            self.look(now)
        return self

    def consume(self, start: int, end: int, energy: int, before: int, now: int) -> None:
        used = energy * (now - start) // (end - start) - energy * (before - start) // (end - start)
        band, today = self.band(before), self.local(before).date().isoformat()
        key = (self.period(before), band["name"])
        position = self.consumed[key]
        amount = self.total(band, position + used) - self.total(band, position)
        for length in (7, 4):
            self.consumed[today[:length], band["name"]] += used
        self.energy_wh[today[:7], band["name"]] += used
        self.charge("energy", amount, before)

    def post(self, now: int) -> None:
        month = self.local(now).date().isoformat()[:7]
        if self.local(now).date() != self.local(now - 1).date() and now > self.activated_ms:
            self.charge("standing", micro(self.version(now).get("standing_per_day", "0")), now)
            daily = self.rule("daily")
            if daily and self.balance > 0:
                moved = min(self.debt, micro(daily["amount"]))
                self.balance, self.debt = self.balance - moved, self.debt - moved
        due = [(kind, fact) for kind, fact in self.facts if ms_of(fact["time"]) == now]
        for top_up in sorted((f for kind, f in due if kind == "top_up"), key=lambda f: f["id"]):
            if top_up["id"] not in self.splits:
                taken = self.share(month, micro(top_up["amount"]))
                rest = micro(top_up["amount"]) - taken
                self.splits[top_up["id"]] = (rest, taken)
                self.cap_used[month] += taken
                self.balance, self.debt = self.balance + rest, self.debt - taken
        for reversed_id in sorted({f["top_up"] for kind, f in due if kind == "reversal"}):
            rest, taken = self.splits[reversed_id]
            self.balance, self.debt = self.balance - rest, self.debt + taken

    def share(self, month: str, amount: int) -> int:
        rule = self.rule("payment_share")
        if not rule:
            return 0
        taken = min(self.debt, int(amount * Fraction(rule["percent"]) / 100))
        if "cap_per_month" in rule:
            taken = min(taken, micro(rule["cap_per_month"]) - self.cap_used[month])
        return taken

    def look(self, now: int) -> None:
        emergency = self.account.get("emergency")
        request = any(k == "emergency_request" and ms_of(f["time"]) == now for k, f in self.facts)
        self.requested = self.balance <= 0 and (self.requested or request)
        floor = 0
        if emergency and (self.requested or emergency["activation"] == "automatic"):
            floor = -micro(emergency["limit"])
        if now < self.activated_ms:
            return
        reconnect_at = self.account.get("reconnect_at")
        enough = not self.armed or reconnect_at is None or self.balance >= micro(reconnect_at)
        if self.balance > floor and enough:
            self.supply, self.armed = "connected", False
        elif any(
            self.in_window(window, now, holiday_excludes=False)
            for window in self.account.get("non_disconnection", [])
        ):
            self.supply = "protected"
        else:
            self.supply, self.armed = "disconnected", True

    # Result

    def quote(self, amount: str) -> dict[str, Any]:
        at = self.until_ms
        debt = self.share(self.local(at).date().isoformat()[:7], micro(amount))
        owed = min(micro(amount) - debt, max(0, -self.balance))
        rest = micro(amount) - debt - owed
        band = self.band(at)
        position = self.consumed[self.period(at), band["name"]]

        def cost(wh: int) -> int:
            gross = self.total(band, position + wh) - self.total(band, position)
            return self.charge("energy", gross, at, post=False)

        energy = 0
        while cost(energy + 100) <= rest:
            energy += 100
        return {
            "energy_wh": energy,
            "debt": money(debt),
            "owed": money(owed),
            "change": money(rest - cost(energy)),
        }

    def result(self) -> dict[str, Any]:
        months: dict[str, Any] = {}
        for (month, band), wh in self.energy_wh.items():
            months.setdefault(month, {}).setdefault("energy_wh", {})[band] = wh
        for (month, name), amount in self.charges.items():
            months.setdefault(month, {}).setdefault("charges", {})[name] = money(int(amount))
        quarantined = [
            {"time": text_of(at).replace(".000Z", "Z"), "wh": wh, "reason": reason}
            for at, wh, reason in sorted(self.quarantined)
        ]
        return {
            "balance": money(self.balance),
            "debt_outstanding": money(self.debt),
            "supply": self.supply,
            "months": months,
            "readings": {
                "accepted": self.readings["accepted"],
                "duplicate": self.readings["duplicate"],
                "quarantined": quarantined,
            },
        }


@settings(max_examples=60, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_the_engine_agrees_with_the_naive_model(
    invent: Callable[[Random], dict[str, Any]], random: Random
) -> None:
    scenario = invent(random)
    expected = Model(scenario, ms_of(scenario["until"])).run().result()
    expected["quotes"] = [
        Model(scenario, ms_of(each["at"])).run().quote(each["amount"])
        for each in scenario["quotes"]
    ]
    assert differences(expected, run(parse_scenario(scenario))) == []
