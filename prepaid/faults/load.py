"""What goes on while faults come: meters that live by themselves, and a bank that sells credit.

The meters are `simulators.fleet`'s: store-and-forward buffers, receipts, commands and tokens
obeyed, repeats, late and swapped readings, links that drop, reboots. The bank asks again under one
number until it knows, and now and then once more after that.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import httpx

from api.signatures import sign
from prepaid.faults.population import MICRO, Household
from prepaid.faults.system import METERS_TO_BROKER, SPEED, System
from prepaid.secrets_files import read_secret
from schemas.quantities import format_instant
from simulators.faults import Faults
from simulators.fleet import Broker, Member, Site, run_fleet
from simulators.state_file import StateFile

# Of a thousand: what a network does to readings on an ordinary day.
DUPLICATE, REORDER, DELAY, DROP, REBOOT = 40, 20, 15, 2, 1
# A second of the wall: long enough to be overtaken, short enough not to hide what recovery takes.
DELAY_MS = 60_000
# A meter that comes while its broker is away behind a wire is told nothing: it gives up after this.
METERS_PATIENCE_S = 3.0
# A bank's own patience, and how soon it asks again.
ANSWER_S = 3.0
AGAIN_S = 0.4
# Now and then it hangs up before any answer can have come.
HASTY_S = 0.02
HASTY_OF_TEN = 2
REPEATED_OF_TEN = 3
AMOUNTS = (2 * MICRO, 6 * MICRO)
# Without these answers the bank does not know yet what became of its request.
UNDECIDED = frozenset({408, 425, 429})


@dataclass(slots=True)
class Sale:
    """A payment as the bank knows it; `top_up` is set once it was acknowledged."""

    txn: str
    meter: str
    micro: int
    asked_ms: int
    requests: int = 0
    top_up: str | None = None
    refused: str | None = None

    @property
    def decided(self) -> bool:
        return self.top_up is not None or self.refused is not None


@dataclass(slots=True)
class Load:
    """Made by `start`; `sales` by the bank's numbers."""

    system: System
    seed: int
    sales: dict[str, Sale] = field(default_factory=dict)
    # What the bank was told that cannot be true.
    contradictions: list[str] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _http: httpx.AsyncClient = field(default_factory=httpx.AsyncClient)
    _bank: tuple[str, str] = ("", "")

    async def start(self, folder: Path) -> None:
        """The meters begin to live; their memories lie in `folder`."""
        system = self.system
        form = json.loads(read_secret(system.files.partners))[0]
        self._bank = form["code"], form["keys"][0]
        self._stack.push_async_callback(self._http.aclose)
        memory = self._stack.enter_context(StateFile(folder))
        names = [each.number for each in system.households]
        passwords = system.files.trust.passwords(names)
        faults = Faults(DUPLICATE, REORDER, DELAY, DELAY_MS, DROP, REBOOT, self.seed)
        connecting = asyncio.Semaphore(8)
        for each in system.households:
            site = Site(
                Broker("127.0.0.1", system.wires.ports[METERS_TO_BROKER]),
                memory,
                partial(self._meter_ms, each),
                SPEED,
                faults,
                answer_s=METERS_PATIENCE_S,
                connecting=connecting,
            )
            member = Member(each.meter, passwords[each.number])
            self._run(run_fleet(site, [member], self._stop), f"meter-{each.number}")

    async def stop(self) -> None:
        """The meters say goodbye; what is still asked by the bank is given up."""
        self._stop.set()
        for task in self._tasks:
            if task.get_name().startswith("sale"):
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    @property
    def bank(self) -> str:
        return self._bank[0]

    def ended_meters(self) -> list[str]:
        """Simulated meters that broke: a defect of the run, told as such."""
        return [
            f"{task.get_name()}: {task.exception()}"
            for task in self._tasks
            if task.done() and not task.cancelled() and task.exception() is not None
        ]

    def _meter_ms(self, household: Household) -> int:
        return self.system.true_clock.now_ms() + household.ahead_ms

    def _run(self, work: object, name: str) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)  # type: ignore[arg-type]  # a coroutine
        self._tasks.add(task)
        if name.startswith("sale"):
            task.add_done_callback(self._tasks.discard)

    # --- the bank -----------------------------------------------------------------------------

    def sell(self, households: Sequence[Household], random: Random) -> None:
        """Somebody pays: whose supply is off goes first."""
        dark = [each for each in households if each.meter.state.relay != "closed"]
        household = random.choice(dark or households)
        micro = random.randint(*AMOUNTS) // 10_000 * 10_000
        now_ms = self.system.true_clock.now_ms()
        sale = Sale(f"flt-{secrets.token_hex(8)}", household.number, micro, now_ms)
        self.sales[sale.txn] = sale
        habits = Random(random.getrandbits(64))  # noqa: S311  (habits, no secret)
        self._run(self._sell(sale, habits), f"sale-{sale.txn}")

    async def _sell(self, sale: Sale, random: Random) -> None:
        form = {
            "partner_txn_id": sale.txn,
            "meter": sale.meter,
            "amount": f"{sale.micro // MICRO}.{sale.micro % MICRO // 10_000:02d}",
            "paid_at": format_instant(sale.asked_ms),
        }
        body = json.dumps(form).encode()
        hasty = random.randrange(10) < HASTY_OF_TEN
        while not sale.decided:
            await self._ask(sale, body, HASTY_S if hasty else ANSWER_S)
            hasty = False
            if not sale.decided:
                await asyncio.sleep(AGAIN_S)
        if random.randrange(10) < REPEATED_OF_TEN:
            await asyncio.sleep(random.random())
            await self._ask(sale, body, ANSWER_S)

    async def _ask(self, sale: Sale, body: bytes, patience_s: float) -> None:
        sale.requests += 1
        try:
            answer = await self._http.post(
                f"{self.system.api_url}/v1/partners/payments",
                content=body,
                headers=self._headers(body),
                timeout=patience_s,
            )
        except httpx.HTTPError:
            return  # unknown is not failed
        if answer.status_code == httpx.codes.CREATED:
            self._acknowledged(sale, answer.json())
        elif answer.is_client_error and answer.status_code not in UNDECIDED:
            code = answer.json().get("code", "")
            if code == "clock_behind":
                return  # it asks to come again
            if sale.top_up is not None:
                self.contradictions.append(f"payment {sale.txn}: acknowledged, then {code}")
            sale.refused = code

    def _acknowledged(self, sale: Sale, form: dict[str, object]) -> None:
        top_up = str(form["id"])
        if sale.top_up not in {None, top_up}:
            self.contradictions.append(f"payment {sale.txn}: {sale.top_up}, then {top_up}")
        sale.top_up = top_up

    def _headers(self, body: bytes) -> dict[str, str]:
        code, key = self._bank
        message_id, timestamp_s = f"msg_{secrets.token_hex(12)}", int(time.time())
        return {
            "webhook-partner": code,
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": sign(key, message_id, timestamp_s, body),
            "content-type": "application/json",
        }
