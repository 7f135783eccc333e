"""The result of a scenario as plain data, and how it differs from what was expected."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from credit_engine.form import decimal_text, instant_text
from credit_engine.outcome import Outcome, Posting, Verdict
from credit_engine.quote import Quote, QuoteLine
from credit_engine.terms import Terms

# A price per kWh is money; what is kept is µ per Wh.
WH_PER_KWH = 1000


def report(terms: Terms, outcome: Outcome, quotes: Iterable[Quote]) -> dict[str, Any]:
    """The result of section 10: strings, integers, lists and mappings only."""
    status = outcome.status
    result: dict[str, Any] = {
        "balance": decimal_text(status.balance_micro),
        "debt_outstanding": decimal_text(status.debt_outstanding_micro),
        "supply": status.supply,
        "months": months(outcome.postings),
        "readings": readings(outcome.verdicts),
        "quotes": [quote_report(quote) for quote in quotes],
    }
    return result


def months(postings: Iterable[Posting]) -> dict[str, Any]:
    """Energy per band and charges per name in each local calendar month, in order of months."""
    energy: dict[str, Counter[str]] = {}
    charges: dict[str, Counter[str]] = {}
    for posting in postings:
        if posting.kind not in {"energy", "standing"}:
            continue
        month = posting.local_day.isoformat()[:7]
        if posting.band is not None:
            energy.setdefault(month, Counter())[posting.band] += posting.energy_wh
        charged = charges.setdefault(month, Counter())
        charged[posting.kind] += posting.charge_micro
        for account, micro in posting.legs:
            ledger, _, name = account.partition(":")
            if ledger == "tax":
                charged[name] += micro
    return {
        month: {
            "energy_wh": dict(sorted(energy.get(month, {}).items())),
            "charges": {name: decimal_text(micro) for name, micro in sorted(charged.items())},
        }
        for month, charged in sorted(charges.items())
    }


def readings(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    quarantined = []
    for verdict in verdicts:
        counts[verdict.judgement] += 1
        if verdict.judgement not in {"accepted", "duplicate"}:
            quarantined.append((verdict.at_ms, verdict.wh, verdict.judgement))
    return {
        "accepted": counts["accepted"],
        "duplicate": counts["duplicate"],
        "quarantined": [
            {"time": instant_text(at_ms), "wh": wh, "reason": reason}
            for at_ms, wh, reason in sorted(quarantined)
        ],
    }


def quote_report(quote: Quote) -> dict[str, Any]:
    return {
        "energy_wh": quote.energy_wh,
        "debt": decimal_text(quote.debt_micro),
        "owed": decimal_text(quote.owed_micro),
        "change": decimal_text(quote.change_micro),
        "lines": [_line(line) for line in quote.lines],
    }


def _line(line: QuoteLine) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": line.name}
    if line.wh is not None and line.price_micro_per_wh is not None:
        shown["wh"] = line.wh
        shown["price"] = decimal_text(line.price_micro_per_wh * WH_PER_KWH)
    shown["amount"] = decimal_text(line.amount_micro)
    return shown


def differences(expected: Any, got: Any, path: str = "") -> list[str]:
    """One line per value of `expected` that `got` does not have; empty where all agree.

    Of a mapping `expected` may hold a subset; of a list every item, none more and none fewer. A
    month, band or charge that is zero may be left out of `got`.
    """
    if isinstance(expected, dict) and isinstance(got, dict):
        lines = []
        for key, value in expected.items():
            place = f"{path}.{key}" if path else str(key)
            if key in got:
                lines += differences(value, got[key], place)
            elif not (place.startswith("months.") and _is_zero(value)):
                lines.append(f"{place}: expected {value!r}, got nothing")
        return lines
    if isinstance(expected, list) and isinstance(got, list):
        lines = (
            []
            if len(expected) == len(got)
            else [f"{path}: expected {len(expected)} items, got {len(got)}"]
        )
        for index, (value, other) in enumerate(zip(expected, got, strict=False)):
            lines += differences(value, other, f"{path}[{index}]")
        return lines
    if type(expected) is type(got) and expected == got:
        return []
    return [f"{path}: expected {expected!r}, got {got!r}"]


def _is_zero(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_zero(each) for each in value.values())
    return value in (0, decimal_text(0))
