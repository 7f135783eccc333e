"""The token side of a simulated meter: what its keypad and its network hand to `tokens`."""

import json
from collections.abc import Callable

from schemas.wire import TokenOutcome
from simulators.meter import EnterToken, TokenEntry
from tokens import apdu, meter_record
from tokens.acceptance import MeterTokenState, Verdict, accept

# Class 0 subclass 0 counts tenths of a kWh (IEC 62055-41 6.2.2).
WH_PER_UNIT = 100
SET_POWER_LIMIT = (apdu.METER_SPECIFIC, 0)
CLEAR_CREDIT = (apdu.METER_SPECIFIC, 1)
ELECTRICITY_REGISTERS = {0, 0xFFFF}


def token_entry(factory: Callable[[], MeterTokenState]) -> EnterToken:
    """How a meter enters tokens; `factory` gives the state it left the maker with."""

    def enter(memory: str | None, digits: str) -> TokenEntry:
        before = factory() if memory is None else meter_record.load(json.loads(memory))
        after, verdict = accept(before, digits)
        return TokenEntry(
            outcome=_outcome(verdict),
            memory=json.dumps(meter_record.dump_with_key(after)),
            credited_wh=_credited_wh(verdict),
            clears_credit=_clears_credit(verdict),
            limit_w=_limit_w(verdict),
        )

    return enter


def _outcome(verdict: Verdict) -> TokenOutcome:
    return {
        "format": verdict.format,
        "authentication": verdict.authentication,
        "validation": verdict.validation,
        "execution": verdict.execution,
        "result": verdict.result.value,
    }


def _credited_wh(verdict: Verdict) -> int:
    # Currency credit (subclass 4) is priced by the server; this meter has no tariff table.
    if verdict.credit is None or verdict.credit.subclass != 0:
        return 0
    return verdict.credit.amount * WH_PER_UNIT


def _clears_credit(verdict: Verdict) -> bool:
    setting = verdict.setting or {}
    return verdict.command == CLEAR_CREDIT and setting.get("register") in ELECTRICITY_REGISTERS


def _limit_w(verdict: Verdict) -> int | None:
    setting = verdict.setting or {}
    return setting.get("mpl") if verdict.command == SET_POWER_LIMIT else None
