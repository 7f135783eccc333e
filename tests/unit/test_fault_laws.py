"""Each law of `prepaid faults`, with the harm that it must find planted in what is held."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from prepaid.faults.laws import Breach, Span, Truth
from prepaid.faults.load import Sale
from prepaid.faults.population import Household
from schemas.commands import Command, payload
from schemas.quantities import parse_instant_ms
from schemas.wire import TokenOutcome
from simulators.load import SteadyLoad
from simulators.meter import Nameplate, TokenEntry
from simulators.meter_state import MeterState
from simulators.witness import WitnessedMeter
from store.holdings import (
    HeldCommand,
    HeldReading,
    HeldRefusal,
    HeldSums,
    HeldToken,
    Holdings,
)

OPENED = parse_instant_ms("2026-11-03T06:00:00Z")
MINUTE = 60_000
NUMBER = "98000000012"
TOKEN = "12345678901234567890"
COMMAND = "01a1a051-8c84-751c-a849-d76e59856623"
CREDIT = 5_000_000
LAST = OPENED + 3 * MINUTE
ACCEPT: TokenOutcome = {
    "format": True, "authentication": True, "validation": True, "execution": True,
    "result": "Accept",
}  # fmt: skip


def lived() -> Household:
    """A meter that read three times and took a token."""
    meter = WitnessedMeter(
        Nameplate(NUMBER, 120_000, MINUTE, 0),
        SteadyLoad(1200, OPENED),
        MeterState(),
        lambda memory, digits: TokenEntry(ACCEPT, memory),
    )
    meter.power_up(OPENED + MINUTE)
    meter.tick(LAST)
    args: Mapping[str, object] = {"tokens": [TOKEN], "tid": 1}
    order = Command(COMMAND, "token", 1, OPENED, LAST + MINUTE, args)
    meter.receive(LAST, "cmd", payload(order))
    return Household(NUMBER, f"F-{NUMBER}", meter, OPENED, 120_000, CREDIT)


def sold() -> Sale:
    return Sale("txn-1", NUMBER, 2_000_000, OPENED, requests=1, top_up="top-up-1")


def held(household: Household) -> Holdings:
    """What the server must hold of it."""
    measured = household.meter.testimony.measured
    used_wh = measured[LAST] - 120_000
    balance = CREDIT + 2_000_000 - used_wh * 2_459
    return Holdings(
        readings={(NUMBER, ts_ms): HeldReading(wh, "accepted") for ts_ms, wh in measured.items()},
        refusals=(),
        sums={household.account: HeldSums(used_wh, balance, balance)},
        payments={"txn-1": (1, 2_000_000)},
        tokens={TOKEN: HeldToken(NUMBER, "Accept")},
        commands={COMMAND: HeldCommand(NUMBER, "token", "done")},
        relays={NUMBER: "closed"},
    )


def found(
    holdings: Holdings, household: Household, sale: Sale, spans: list[Span] | None = None
) -> list[Breach]:
    truth = Truth([household], {sale.txn: sale}, spans or [], LAST)
    truth.note()
    truth.take(holdings, 0)
    broken = truth.breaches(holdings, 0, LAST)
    broken += truth.unsettled(holdings, {COMMAND})
    known = truth.relays(holdings, {NUMBER})
    return broken + [Breach("relays_known", "wrong", NUMBER) for _ in {NUMBER} - known]


def test_what_is_true_breaks_no_law() -> None:
    household = lived()
    assert len(household.meter.testimony.measured) == 3
    assert found(held(household), household, sold()) == []


def without(mapping: Mapping[Any, Any], key: object) -> dict[Any, Any]:
    return {each: value for each, value in mapping.items() if each != key}


PLACE = (NUMBER, LAST - MINUTE)
REFUSAL = HeldRefusal(1, "conflict", f"pm/v1/m/{NUMBER}/up/reading", None, b"{}")
Harm = Callable[[Holdings], Holdings]
HARMS: dict[str, tuple[str, str, Harm]] = {
    "a reading is gone": (
        "readings_held", "loss", lambda h: replace(h, readings=without(h.readings, PLACE)),
    ),
    "a reading is another": (
        "readings_true", "wrong",
        lambda h: replace(h, readings={**h.readings, PLACE: HeldReading(1, "accepted")}),
    ),
    "a reading nobody made": (
        "readings_true", "double",
        lambda h: replace(
            h, readings={**h.readings, (NUMBER, OPENED + 1): HeldReading(120_000, "accepted")}
        ),
    ),
    "a reading was not believed": (
        "readings_true", "wrong",
        lambda h: replace(
            h,
            readings={**h.readings, PLACE: h.readings[PLACE]._replace(verdict="clock_lost")},
        ),
    ),
    "a message was refused": (
        "nothing_refused", "wrong", lambda h: replace(h, refusals=(REFUSAL,)),
    ),
    "energy is not billed": (
        "energy_billed", "loss",
        lambda h: replace(
            h, sums={n: s._replace(energy_wh=s.energy_wh - 1) for n, s in h.sums.items()}
        ),
    ),
    "energy is billed twice": (
        "energy_billed", "double",
        lambda h: replace(
            h, sums={n: s._replace(energy_wh=2 * s.energy_wh) for n, s in h.sums.items()}
        ),
    ),
    "a debit is twice in the balance": (
        "balance_true", "double",
        lambda h: replace(
            h, sums={n: s._replace(balance_micro=s.balance_micro - 1) for n, s in h.sums.items()}
        ),
    ),
    "a debit is not among the entries": (
        "balance_true", "loss",
        lambda h: replace(
            h, sums={n: s._replace(entries_micro=s.entries_micro + 1) for n, s in h.sums.items()}
        ),
    ),
    "an acknowledged payment is gone": (
        "payments_once", "loss", lambda h: replace(h, payments={}),
    ),
    "a payment is there twice": (
        "payments_once", "double", lambda h: replace(h, payments={"txn-1": (2, 4_000_000)}),
    ),
    "a payment is of another amount": (
        "payments_once", "wrong", lambda h: replace(h, payments={"txn-1": (1, 2_000_001)}),
    ),
    "a payment nobody made": (
        "payments_once", "double",
        lambda h: replace(h, payments={**h.payments, "txn-2": (1, 1_000_000)}),
    ),
    "a token never came": (
        "tokens_once", "loss",
        lambda h: replace(h, tokens={**h.tokens, "9" * 20: HeldToken(NUMBER, None)}),
    ),
    "a token was taken and that is not known": (
        "tokens_once", "wrong", lambda h: replace(h, tokens={TOKEN: HeldToken(NUMBER, None)}),
    ),
    "a token nobody issued": ("tokens_once", "wrong", lambda h: replace(h, tokens={})),
    "a command nobody gave": ("commands_once", "wrong", lambda h: replace(h, commands={})),
    "a command has no end": (
        "commands_end", "loss",
        lambda h: replace(h, commands={COMMAND: HeldCommand(NUMBER, "token", "accepted")}),
    ),
    "a command ended otherwise": (
        "commands_end", "wrong",
        lambda h: replace(h, commands={COMMAND: HeldCommand(NUMBER, "token", "failed")}),
    ),
    "a relay is not known": (
        "relays_known", "wrong", lambda h: replace(h, relays={NUMBER: "open"}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMS)
def test_a_planted_harm_is_found(name: str) -> None:
    law, harm, plant = HARMS[name]
    household = lived()
    broken = found(plant(held(household)), household, sold())
    assert {(each.law, each.harm) for each in broken} == {(law, harm)}, broken


def test_what_a_meter_did_twice_is_found() -> None:
    household = lived()
    testimony = household.meter.testimony
    testimony.executed[COMMAND] += 1
    testimony.tokens.results[TOKEN].append("Accept")
    broken = found(held(household), household, sold())
    assert {(each.law, each.harm) for each in broken} == {
        ("tokens_once", "double"),
        ("commands_once", "double"),
    }


def test_a_repeat_that_the_meter_knows_is_no_harm() -> None:
    household = lived()
    household.meter.testimony.tokens.results[TOKEN].append("UsedError")
    assert found(held(household), household, sold()) == []


@pytest.mark.parametrize(
    ("sale", "law"),
    [
        (replace(sold(), top_up=None), "payments_answered"),
        (replace(sold(), top_up=None, refused="unknown_meter"), "payments_once"),
    ],
)
def test_a_payment_without_a_good_answer_is_found(sale: Sale, law: str) -> None:
    household = lived()
    broken = found(held(household), household, sale)
    assert {each.law for each in broken} == {law}


def test_a_command_that_a_broker_repeats_after_a_later_one_ended_as_it_did_first() -> None:
    household = lived()
    later = Command("another", "display", 2, OPENED, LAST + MINUTE, {"text": "hello"})
    args: Mapping[str, object] = {"tokens": [TOKEN], "tid": 1}
    before = Command(COMMAND, "token", 1, OPENED, LAST + MINUTE, args)
    for order in (later, before):
        household.meter.receive(LAST, "cmd", payload(order))
    assert household.meter.testimony.answers[COMMAND] == {"done", "refused"}
    broken = Truth([household], {}, [], LAST).unsettled(held(household), {COMMAND})
    assert broken == []


def test_only_a_wrong_clock_excuses_what_was_not_believed() -> None:
    household = lived()
    lost = HARMS["a reading was not believed"][2](held(household))
    # What is not believed is not billed; the next register is.
    assert found(lost, household, sold(), [Span(LAST - 2 * MINUTE, LAST)]) == []
    assert found(lost, household, sold(), [Span(LAST, LAST)]) != []


def test_a_witness_forgets_what_a_receipt_frees() -> None:
    household = lived()
    meter = household.meter
    meter.receive(LAST, "receipt", b'{"v":1,"boot":1,"seq":2}')
    assert [row.seq for row in meter.state.pending] == [3]
    assert not meter.state.archive
    assert len(meter.testimony.measured) == 3
