"""Readings that come twice, late, in disorder, or from a register that does not only grow."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson

from credit_engine.terms import Installation
from prepaid.scenarios.trial import (
    DAY_MS,
    HOUR_MS,
    INTERVAL_MS,
    MICRO,
    MINUTE_MS,
    MODULUS_WH,
    WAIT_S,
    Plan,
    Trial,
)
from schemas.commands import encode
from schemas.identity import ACTIVE_IMPORT
from schemas.quantities import parse_instant_ms
from simulators.device import Distort
from simulators.meter import RECEIPT_EVERY, Publish
from simulators.meter_state import dump, load
from simulators.truth import Installed
from store import registry

EVENING_MS = 6 * HOUR_MS


class Hold:
    """Keeps readings back while `holding`; the rest goes out."""

    def __init__(self) -> None:
        self.holding = True
        self.held: list[Publish] = []

    def __call__(self, said: Sequence[Publish]) -> list[Publish]:
        if not self.holding:
            return list(said)
        self.held += [message for message in said if message.kind == "reading"]
        return [message for message in said if message.kind != "reading"]


def twice(said: Sequence[Publish]) -> list[Publish]:
    return [message for message in said for _ in range(2)]


def rewritten(change: Callable[[dict[str, Any]], None]) -> Distort:
    """A link that changes every form with registers before it goes out."""

    def distort(said: Sequence[Publish]) -> list[Publish]:
        return [Publish(kind, _rewrite(payload, change)) for kind, payload in said]

    return distort


def _rewrite(payload: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    if not payload.startswith((b"{", b"[")):
        return payload
    form = orjson.loads(payload)
    for each in form if isinstance(form, list) else [form]:
        if "reg" in each:
            change(each)
    return orjson.dumps(form) if isinstance(form, list) else encode(form)


async def duplicate(trial: Trial) -> None:
    """Every message comes twice, and all of them once more at the end: each reading is stored and
    charged once.
    """
    home = await trial.household(Plan(distort=twice))
    await trial.connect(home.device)
    await trial.advance(EVENING_MS, home.device)
    again = [form for form in home.device.said if form.kind == "reading"]
    await home.device.say(again)
    trial.figures["sent"] = f"{len(home.device.said)} messages"


async def out_of_order(trial: Trial) -> None:
    """A network mixes the readings of six hours: all is as if they had come in order."""
    link = Hold()
    home = await trial.household(Plan(distort=link))
    await trial.connect(home.device)
    await trial.advance(EVENING_MS, home.device)
    trial.random.shuffle(link.held)
    await home.device.say(link.held)
    link.holding = False
    await trial.advance(INTERVAL_MS, home.device)
    trial.figures["mixed"] = f"{len(link.held)} messages"


async def late_by_1_hour(trial: Trial) -> None:
    """The readings of one hour come after those of the next: the charge is placed where the energy
    was used, and nothing is charged twice.
    """
    link = Hold()
    home = await trial.household(Plan(distort=link))
    link.holding = False
    await trial.connect(home.device)
    await trial.advance(HOUR_MS, home.device)
    link.holding = True
    await trial.advance(HOUR_MS, home.device)
    link.holding = False
    await trial.advance(HOUR_MS, home.device)
    await trial.rig.settle()
    await home.device.say(link.held)
    trial.figures["late"] = f"{len(link.held)} messages"


async def late_by_3_days(trial: Trial) -> None:
    """A meter is away for three days and then says its whole buffer: the days are charged from its
    registers, the standing charges stay as they were.
    """
    home = await trial.household(Plan(credit=3000 * MICRO))
    await trial.connect(home.device)
    await trial.advance(HOUR_MS, home.device)
    await home.device.vanish()
    await trial.advance(3 * DAY_MS, home.device)
    await trial.rig.settle()
    trial.figures["late"] = f"{len(home.device.meter.state.pending)} readings"
    await trial.connect(home.device)


async def gap_then_register_returns(trial: Trial) -> None:
    """A meter loses six hours of readings for ever: the next register charges their energy."""
    home = await trial.household()
    await trial.connect(home.device)
    await trial.advance(HOUR_MS, home.device)
    await home.device.vanish()
    await trial.advance(EVENING_MS, home.device)
    trial.figures["lost"] = f"{len(home.device.meter.state.pending)} readings"
    home.device.meter.state.pending.clear()
    await trial.advance(INTERVAL_MS, home.device)
    await trial.connect(home.device)
    await trial.advance(HOUR_MS, home.device)


async def _rollover(trial: Trial, digits: int) -> None:
    modulus_wh = 10 ** (digits + 3)
    opening_wh = modulus_wh - 2_500

    def wrap(form: dict[str, Any]) -> None:
        form["reg"][ACTIVE_IMPORT] %= modulus_wh

    plan = Plan(
        opening_wh=opening_wh,
        modulus_wh=modulus_wh,
        max_power_w=6600,
        watts=1500,
        distort=rewritten(wrap),
    )
    home = await trial.household(plan)
    await trial.connect(home.device)
    await trial.advance(EVENING_MS, home.device)
    last = home.device.arrived[max(home.device.arrived)]
    trial.expect("the register went over", True, last < opening_wh)
    trial.figures["register"] = f"{opening_wh} to {last} Wh"


async def rollover_6_digits(trial: Trial) -> None:
    """A register of 6 digits of kWh passes 999999: the energy goes on where it was."""
    await _rollover(trial, 6)


async def rollover_7_digits(trial: Trial) -> None:
    """A register of 7 digits of kWh passes 9999999: the energy goes on where it was."""
    await _rollover(trial, 7)


async def rollover_8_digits(trial: Trial) -> None:
    """A register of 8 digits of kWh passes 99999999: the energy goes on where it was."""
    await _rollover(trial, 8)


async def exchange(trial: Trial) -> None:
    """A meter is replaced, its last buffer comes later, and it goes on talking in the workshop: the
    account is charged what both measured there, and the workshop's readings charge nothing.
    """
    home = await trial.household()
    old = home.device
    await trial.connect(old)
    await trial.advance(HOUR_MS, old)
    await old.vanish()
    await trial.advance(HOUR_MS, old)
    at_ms = trial.rig.now_ms()
    closing_wh = old.meter.register_wh(at_ms)
    plan = Plan(opening_wh=17)
    new = trial.new_device(plan, at_ms)
    installation = Installation(new.number, MODULUS_WH, at_ms, plan.opening_wh)
    await trial.rig.look(partial(trial.register, number=new.number))
    await trial.rig.look(
        lambda conn: registry.exchange_meter(conn, home.account, closing_wh, installation, at_ms)
    )
    home.truth.installed[0].closed_ms = at_ms
    home.truth.installed[0].closing_wh = closing_wh
    home.truth.installed.append(Installed(new, at_ms, plan.opening_wh))
    trial.rig.pass_ms(60_000)
    new.power_up()
    await trial.connect(new)
    await trial.advance(HOUR_MS, new, old)
    await trial.connect(old)
    await trial.advance(HOUR_MS, new, old)
    for ts_ms in old.truth:
        if ts_ms > at_ms:
            home.truth.unbilled[old.number, ts_ms] = "not_installed"


async def reset_to_zero(trial: Trial) -> None:
    """A register falls to 0 in the middle of its range: what follows is kept as register_decreased
    and charges nothing, and no energy is given back.
    """
    start_wh, start_ms = 0, trial.rig.now_ms() + DAY_MS

    def reset(form: dict[str, Any]) -> None:
        if parse_instant_ms(form["ts"]) > start_ms:
            form["reg"][ACTIVE_IMPORT] -= start_wh

    home = await trial.household(Plan(distort=rewritten(reset)))
    device = home.device
    await trial.connect(device)
    await trial.advance(HOUR_MS, device)
    before = set(device.arrived)
    start_ms = trial.rig.now_ms()
    start_wh = device.meter.register_wh(start_ms)
    await trial.advance(HOUR_MS, device)
    for ts_ms in device.arrived.keys() - before:
        home.truth.unbilled[device.number, ts_ms] = "register_decreased"
    trial.figures["refused"] = f"{len(home.truth.unbilled)} readings"


async def dst_day(trial: Trial) -> None:
    """A customer in Paris lives through the day of 25 hours: it is one day with one standing
    charge, and its energy is all there.
    """
    eve_ms = parse_instant_ms("2026-10-24T10:00:00Z")
    plan = Plan(
        zone="Europe/Paris",
        ago_ms=trial.rig.now_ms() - eve_ms,
        interval_ms=HOUR_MS,
        watts=180,
        credit=2000 * MICRO,
    )
    home = await trial.household(plan)
    await trial.connect(home.device)
    instants = [datetime.fromtimestamp(ts // 1000, UTC) for ts in home.device.arrived]
    trial.expect("readings of the long day", 25, _of_long_day(instants))


def _of_long_day(instants: Sequence[datetime]) -> int:
    begin = datetime(2026, 10, 24, 22, tzinfo=UTC)
    return sum(0 < (each - begin).total_seconds() <= 25 * 3600 for each in instants)


async def seq_gap_and_resend(trial: Trial) -> None:
    """Three readings are lost on the way: no receipt reaches beyond them, the meter is asked for
    the gap, sends it again, and nothing is missing.
    """
    # The next one asks for a receipt, which must not free these.
    lost = range(RECEIPT_EVERY + 1, 2 * RECEIPT_EVERY)

    def lossy(said: Sequence[Publish]) -> list[Publish]:
        def is_lost(message: Publish) -> bool:
            form = orjson.loads(message.payload) if message.kind == "reading" else {}
            return isinstance(form, dict) and form.get("seq") in lost and not form.get("hist")

        return [message for message in said if not is_lost(message)]

    home = await trial.household(Plan(distort=lossy))
    device = home.device
    await trial.connect(device)
    # Up to the reading that shows the gap, and then until it is old enough to be asked for.
    await trial.advance((2 * RECEIPT_EVERY - 1) * INTERVAL_MS, device)
    await trial.rig.settle()
    await trial.advance(11 * MINUTE_MS, device)
    await trial.until_command(home, "resend", "done")
    await trial.advance(HOUR_MS, device)
    await trial.rig.settle()
    freed = await device.until(lambda: len(device.meter.state.pending) < RECEIPT_EVERY, WAIT_S)
    trial.expect("a receipt for all of it", True, freed)
    kinds = [each.kind for each in device.heard]
    before = [each for each in device.heard[: kinds.index("cmd")] if each.kind == "receipt"]
    freed_to = max((orjson.loads(each.payload)["seq"] for each in before), default=0)
    trial.expect("a receipt that reaches beyond the gap", False, freed_to >= lost.start)
    said = sorted(home.device.arrived)
    trial.expect("instants said without a gap", sorted(home.device.truth), said)


async def clone(trial: Trial) -> None:
    """Somebody copies a meter's memory into another meter, and the two speak by turns under one
    name: the copy's readings are kept as boot_reused or conflict and charge nothing, and the
    true meter's are all charged.
    """
    home = await trial.household()
    true = home.device
    await trial.connect(true)
    await trial.advance(HOUR_MS, true)
    copy = trial.new_device(Plan(watts=4000, opening_wh=50_000), trial.rig.now_ms(), true.number)
    copy.meter.state = load(dump(true.meter.state))
    await true.vanish()
    true.meter.power_up(trial.rig.now_ms())
    await trial.connect(true)
    for _ in range(2):
        await true.vanish()
        # It keeps nothing for later: what it says in an hour is all that it says of it.
        copy.meter.state.pending.clear()
        await trial.connect(copy)
        await trial.advance(HOUR_MS, copy, true)
        await trial.rig.settle()
        await copy.vanish()
        await trial.connect(true)
        await trial.advance(HOUR_MS, true)
    # Of the hour between, the true one spoke before it: another value at a known instant, four
    # times, and once more as history, for no receipt covered the first of them.
    home.truth.refused.update(boot_reused=8, conflict=5)
    trial.figures["copy said"] = f"{len(copy.arrived)} readings"
