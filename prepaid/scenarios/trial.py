"""One scenario under way: its households, what it expects, and the auditor's word at the end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from credit_engine.terms import Installation
from prepaid.demo.centre import BASE_DATE, IIN, KEYS
from prepaid.scenarios.rig import Rig
from schemas.quantities import format_instant, format_micro
from simulators.auditor import SimpleTariff
from simulators.device import Device, Distort, TokenMemory
from simulators.load import SteadyLoad
from simulators.meter import Load, Meter, Nameplate
from simulators.meter_state import MeterState
from simulators.token_entry import token_entry
from simulators.truth import Found, Installed, Truth, told
from store import books, operations, registry, supply, top_ups, vending
from store.pool import Connection
from store.registry import NewMeter
from store.settlement import read_account
from store.terms import TermsCache
from tokens.acceptance import MeterTokenState
from tokens.keys import decoder_key
from tokens.numbers import meter_pan

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
INTERVAL_MS = 15 * MINUTE_MS
MICRO = 1_000_000
# Far beyond what one worker needs for a handful of meters; a busy machine takes its time.
WAIT_S = 30.0
POLL_S = 0.03
# For what the clockwork brings after the last message is committed.
AUDIT_S = 10.0
COMMANDS_SEEN = 1000
ZONE = "Africa/Nouakchott"
# The social tariff of the demonstration with a lower edge, so that a few hours cross it.
BLOCK_EDGE_WH = 5_000
PRICES = (2_459, 5_903)
STANDING_MICRO = 1_200_000
MODULUS_WH = 1_000_000_000


@dataclass(slots=True, eq=False)
class Household:
    """A customer with a meter, and the truth about both."""

    account: int
    number: str
    device: Device
    truth: Truth
    gateways: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a household begins; what is left out is ordinary."""

    credit: int = 500 * MICRO
    zone: str = ZONE
    watts: int = 0
    ago_ms: int = 60_000
    opening_wh: int = 120_000
    modulus_wh: int = MODULUS_WH
    max_power_w: int | None = None
    gateway: str | None = None
    interval_ms: int = INTERVAL_MS
    behind_ms: int = 0
    terms: Mapping[str, object] = field(default_factory=dict)
    load: Load | None = None
    distort: Distort = list


ORDINARY = Plan()


class Trial:
    """What a scenario is given; `failures` is empty when all that had to be true was."""

    def __init__(self, rig: Rig, name: str) -> None:
        self.rig = rig
        self.name = name
        # A story that anybody can have again, no secret.
        self.random = Random(f"{rig.seed}/{name}")  # noqa: S311  (simulation)
        self.households: list[Household] = []
        self.devices: list[Device] = []
        self.checked = 0
        self.failures: list[str] = []
        self.figures: dict[str, str] = {}
        self._terms = TermsCache()
        self._payments = 0

    # --- who takes part -----------------------------------------------------------------------

    async def household(self, plan: Plan = ORDINARY) -> Household:
        """A customer with credit, whose meter was powered a minute after its installation."""
        opened_ms = self.rig.now_ms() - plan.ago_ms
        device = self.new_device(plan, opened_ms)
        account = await self.rig.look(partial(self._open, plan, device, opened_ms))
        tariff = SimpleTariff(
            [(BLOCK_EDGE_WH, PRICES[0]), (None, PRICES[1])], STANDING_MICRO, ZoneInfo(plan.zone)
        )
        installed = Installed(device, opened_ms, plan.opening_wh)
        truth = Truth(tariff, [installed], {opened_ms: plan.credit})
        gateways = [] if plan.gateway is None else [plan.gateway]
        household = Household(account, f"S-{device.number}", device, truth, gateways)
        self.households.append(household)
        device.meter.power_up(opened_ms + MINUTE_MS)
        return household

    def new_device(self, plan: Plan, since_ms: int, number: str | None = None) -> Device:
        """A meter with its key and its load that nobody has registered yet."""
        trust = self.rig.servers.trust
        plate = Nameplate(
            self.rig.new_number() if number is None else number,
            plan.opening_wh,
            plan.interval_ms,
            0,
            () if trust is None else (trust.signing_key().verification_key,),
        )
        attributes = KEYS[11]
        key = decoder_key(
            self.rig.keys[attributes.sgc, attributes.krn], meter_pan(IIN, plate.meter), attributes
        )
        memory = TokenMemory()
        enter = token_entry(lambda: MeterTokenState(decoder_key=key, attributes=attributes))
        watts = plan.watts or self.random.randint(900, 1800)
        load = plan.load or SteadyLoad(watts, since_ms)
        meter = Meter(plate, load, MeterState(), memory.entering(enter))
        device = Device(
            meter,
            self.rig.broker,
            self.rig.now_ms,
            memory,
            plan.behind_ms,
            lambda: self.rig.credentials(plate.meter),
        )
        device.distort = plan.distort
        self.devices.append(device)
        return device

    def register(self, conn: Connection, number: str, gateway: str | None = None) -> None:
        """A meter in stock."""
        new = NewMeter(number, meter_pan(IIN, number), KEYS[11], gateway)
        registry.add_meter(conn, self.rig.centre, new)
        self.rig.certify(conn, number)

    def _open(self, plan: Plan, device: Device, opened_ms: int, conn: Connection) -> int:
        number, now_ms = device.number, self.rig.now_ms()
        with conn.transaction():
            self.register(conn, number, plan.gateway)
            account = registry.open_account(
                conn,
                number=f"S-{number}",
                customer=registry.add_customer(conn, f"Household of {self.name}", now_ms),
                centre=self.rig.centre,
                tariff=_tariff(conn, plan.zone),
                terms={"activated_at": format_instant(opened_ms), **plan.terms},
                installation=Installation(
                    number, plan.modulus_wh, opened_ms, plan.opening_wh, plan.max_power_w
                ),
                now_ms=now_ms,
            )
            payment = self._payment(number, plan.credit, opened_ms)
            vending.record_top_up(
                conn, self._terms, payment, payment.partner_txn_id, opened_ms, now_ms
            )
        return account

    # --- what happens to them -----------------------------------------------------------------

    async def connect(self, *devices: Device) -> None:
        """They come online, and their hello is heard before time goes on: it tells their clock."""
        for device in devices:
            await device.connect()
        await self.rig.settle()

    async def advance(self, ms: int, *devices: Device) -> None:
        """Time passes, and these meters live through it: each reads at its own instants."""
        end_ms = self.rig.now_ms() + ms
        while (now_ms := self.rig.now_ms()) < end_ms:
            wakes = [device.wake_ms() for device in devices]
            next_ms = max(min([*wakes, end_ms]), now_ms + 1)
            self.rig.clock.set(next_ms)
            for device in devices:
                if device.wake_ms() <= next_ms:
                    await device.live()

    async def pay(self, household: Household, micro: int) -> str:
        """A payment at the desk, as a channel would ask for it; returns the top-up's id."""
        number, now_ms = household.device.number, self.rig.now_ms()
        payment = self._payment(number, micro, now_ms)
        top_up = await self.rig.look(
            lambda conn: vending.vend(conn, self._terms, self.rig.module, payment, now_ms)
        )
        household.truth.paid[now_ms] = household.truth.paid.get(now_ms, 0) + micro
        return top_up

    def _payment(self, meter: str, micro: int, now_ms: int) -> vending.Payment:
        self._payments += 1
        name = f"{self.rig.tag}-{self.name}-{self._payments}-{meter}"
        return vending.Payment(
            channel="desk",
            partner_txn_id=name,
            meter=meter,
            amount_micro=micro,
            paid_ms=now_ms,
            request_sha256=sha256(name.encode()).digest(),
        )

    async def order(self, household: Household, kind: Any, args: Mapping[str, object]) -> str:
        """A command of an operator, with the expiry of a relay order; returns its id."""
        now_ms = self.rig.now_ms()
        expires_ms = now_ms + supply.RELAY_EXPIRY_MS

        def queue(conn: Connection) -> str:
            report = registry.find_meter(conn, household.device.number)
            assert report is not None, "registered by this trial"
            return supply.queue(conn, report, kind, args, now_ms, expires_ms)

        return await self.rig.look(queue)

    async def use_up(self, household: Household) -> None:
        """The household goes on until its meter was told to cut. Errors: TimeoutError."""
        device = household.device
        for _ in range(100):
            await self.advance(INTERVAL_MS, device)
            await self.rig.settle()
            report = await self.meter(household)
            if report.desired_relay == "open":
                return
        raise TimeoutError("the credit was never used up")

    # --- what is looked at --------------------------------------------------------------------

    async def meter(self, household: Household) -> operations.MeterReport:
        number = household.device.number
        return await self.rig.look(lambda conn: operations.meter(conn, number))

    async def commands(self, household: Household) -> list[operations.IssuedCommand]:
        """Oldest first."""
        number = household.device.number
        found = await self.rig.look(
            lambda conn: operations.commands(
                conn, meter=number, state=None, before_id=None, limit=COMMANDS_SEEN
            )
        )
        # Ids of one instant come in any order; counters never do.
        return sorted(found, key=lambda command: command.ctr)

    async def found(self, household: Household) -> Found:
        """What the server holds of it now."""
        return await self.rig.look(partial(look_at, household))

    def expect(self, what: str, wanted: object, seen: object) -> None:
        """Equal, or a failure."""
        self.checked += 1
        if wanted != seen:
            self.failures.append(f"{what}: {wanted} had to be, found {seen}")

    async def until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> bool:
        """Wait until it holds; a failure when it never does."""
        self.checked += 1
        loop = asyncio.get_running_loop()
        end_s = loop.time() + WAIT_S
        while not await holds():
            if loop.time() > end_s:
                self.failures.append(f"never seen: {what}")
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def until_command(self, household: Household, kind: str, state: str) -> None:
        """Until the newest command of a kind is in a state at the server."""

        async def holds() -> bool:
            mine = [each for each in await self.commands(household) if each.type == kind]
            return bool(mine) and mine[-1].state == state

        await self.until(f"{kind} {state}", holds)

    async def until_heard(self, device: Device, kind: str, count: int = 1) -> None:
        """Until the meter heard so many commands of a kind."""
        self.checked += 1
        if not await device.until(lambda: len(device.commands(kind)) >= count, WAIT_S):
            self.failures.append(f"never heard by {device.number}: {kind} number {count}")

    # --- the end ------------------------------------------------------------------------------

    async def audit(self) -> None:
        """The auditor's word on every household, as soon as the clockwork has caught up."""
        await self.rig.settle()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + AUDIT_S
        for household in self.households:
            self.checked += household.truth.checked()
            while True:
                found = await self.found(household)
                wrong = household.truth.differences(found, self.rig.now_ms())
                if not wrong:
                    break
                if loop.time() > end_s:
                    self.failures.append(f"{household.number}: {told(wrong)}")
                    break
                await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        for device in self.devices:
            await device.close()


def look_at(household: Household, conn: Connection) -> Found:
    """What the server holds, read plainly: stored rows and sums of ledger rows, nothing rated."""
    numbers = [each.device.number for each in household.truth.installed]
    state = read_account(conn, household.account)
    assert state is not None, "opened by this trial"
    postings = books.postings(conn, household.account)
    refused = books.refused_messages(conn, numbers + household.gateways)
    reasons = [reason for _, reason, _ in refused]
    commands = [
        each
        for number in numbers
        for each in operations.commands(
            conn, meter=number, state=None, before_id=None, limit=COMMANDS_SEEN
        )
    ]
    tokens = top_ups.tokens(conn, household.account, before_id=None, limit=COMMANDS_SEEN)
    return Found(
        readings={
            (number, at_ms): (wh, verdict)
            for number, at_ms, wh, verdict in books.readings_of_meters(conn, numbers)
        },
        refused={reason: reasons.count(reason) for reason in reasons},
        energy_wh=sum(posting.energy_wh for posting in postings),
        entries_micro=sum(
            amount for posting in postings for code, amount in posting.legs if code == "customer"
        ),
        balance_micro=state.balance_micro,
        relays={number: operations.meter(conn, number).reported_relay for number in numbers},
        tokens={each.digits: each.result for each in tokens},
        commands={each.id: (each.type, each.state) for each in commands},
    )


def _tariff(conn: Connection, zone: str) -> int:
    code = f"scenario-{zone}"
    known = registry.find_tariff(conn, code)
    if known is not None:
        return known
    blocks: Sequence[Mapping[str, str]] = (
        {"up_to_kwh": str(BLOCK_EDGE_WH // 1000), "price": f"{PRICES[0] / 1000:.3f}"},
        {"price": f"{PRICES[1] / 1000:.3f}"},
    )
    version = {
        "valid_from": f"{BASE_DATE}-01-01",
        "period": "month",
        "bands": [{"name": "all", "method": "graduated", "blocks": list(blocks)}],
        "standing_per_day": format_micro(STANDING_MICRO)[:-4],
    }
    form = {"timezone": zone, "currency": "MRU", "holidays": [], "tariff": {"versions": [version]}}
    return registry.add_tariff(conn, code, f"Scenarios in {zone}", form)
