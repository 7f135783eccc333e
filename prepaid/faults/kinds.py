"""The faults: each strikes at a moment of its own choice, lasts a little, and is lifted.

A kind is a function of the system and of chance; its docstring is what the table says of it, and
what it returns says what exactly was done. When it returns, the fault is lifted.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from prepaid.faults.processes import Program, family, stopped
from prepaid.faults.quota import Bounded
from prepaid.faults.system import (
    API_TO_DATABASE,
    GATEWAYS_TO_BROKER,
    GATEWAYS_TO_DATABASE,
    METERS_TO_BROKER,
    System,
)
from schemas.errors import DomainError
from store.errors import Unavailable
from store.holdings import backends_of, end_backends

# Real seconds that a fault lasts.
SHORT, LONG = 0.3, 2.5
# The broker writes its snapshot every two seconds; a full disk must meet at least one of them.
SNAPSHOT_S = 2.2
# Of everything that uses the database, by the name that it gives.
PARTS = ("prepaid-ingest", "prepaid-dispatch", "prepaid-clockwork", "prepaid-api")
MINUTE_MS = 60_000

Strike = Callable[[System, Random], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Kind:
    """`clocks`: readings may have been dated by a wrong clock meanwhile. `bounded`: it needs
    folders that may run full.
    """

    name: str
    happens: str
    strike: Strike
    clocks: bool = False
    bounded: bool = False


KINDS: dict[str, Kind] = {}


def chosen(names: Sequence[str]) -> list[Kind]:
    """The kinds of these names, or of the groups that begin so; all of them for none.

    Errors: DomainError `no_such_kind`.
    """
    if not names:
        return list(KINDS.values())
    found: dict[str, Kind] = {}
    for wanted in names:
        mine = {name: kind for name, kind in KINDS.items() if f"{name}-".startswith(f"{wanted}-")}
        if not mine:
            raise DomainError(
                "no_such_kind", f"there is no fault {wanted}: see prepaid faults --list"
            )
        found |= mine
    return list(found.values())


def _kind(*, clocks: bool = False, bounded: bool = False) -> Callable[[Strike], Strike]:
    def added(strike: Strike) -> Strike:
        name = getattr(strike, "__name__", "").replace("_", "-")
        happens = " ".join((strike.__doc__ or "").split()).removesuffix(".")
        KINDS[name] = Kind(name, happens, strike, clocks, bounded)
        return strike

    return added


async def _last(random: Random, least_s: float = SHORT, most_s: float = LONG) -> str:
    seconds = random.uniform(least_s, most_s)
    await asyncio.sleep(seconds)
    return f"{seconds:.1f} s"


# --- our own processes ------------------------------------------------------------------------


async def _killed(programs: Sequence[Program], random: Random) -> str:
    for program in programs:
        program.kill()
    lasted = await _last(random)
    for program in programs:
        program.start()
    return f"{', '.join(program.name for program in programs)}, away for {lasted}"


async def _paused(program: Program, random: Random) -> str:
    with program.paused():
        lasted = await _last(random)
    return f"{program.name}, {lasted}"


async def _restarted(program: Program, random: Random) -> str:
    await program.stop()
    lasted = await _last(random, 0.0, 1.0)
    program.start()
    return f"{program.name}, away for {lasted}"


@_kind()
async def gateway_kill(system: System, random: Random) -> str:
    """SIGKILL to one gateway worker, with its dispatcher and clockwork."""
    return await _killed([random.choice(system.gateways)], random)


@_kind()
async def gateway_kill_all(system: System, random: Random) -> str:
    """SIGKILL to all gateway workers at once."""
    return await _killed(system.gateways, random)


@_kind()
async def gateway_pause(system: System, random: Random) -> str:
    """SIGSTOP of one gateway worker, and SIGCONT."""
    return await _paused(random.choice(system.gateways), random)


@_kind()
async def gateway_restart(system: System, random: Random) -> str:
    """One gateway worker ends in order and starts again."""
    return await _restarted(random.choice(system.gateways), random)


@_kind()
async def api_kill(system: System, random: Random) -> str:
    """SIGKILL to the API while payments are asked for."""
    return await _killed([system.api], random)


@_kind()
async def api_pause(system: System, random: Random) -> str:
    """SIGSTOP of the API, and SIGCONT."""
    return await _paused(system.api, random)


@_kind()
async def api_restart(system: System, random: Random) -> str:
    """The API ends in order and starts again."""
    return await _restarted(system.api, random)


# --- the broker -------------------------------------------------------------------------------


@_kind()
async def broker_kill(system: System, random: Random) -> str:
    """SIGKILL to the broker: what it took since its last snapshot is gone."""
    await asyncio.to_thread(system.mosquitto.kill)
    lasted = await _last(random, 0.0, 1.5)
    await asyncio.to_thread(system.mosquitto.start)
    return f"away for {lasted}"


@_kind()
async def broker_amnesia(system: System, random: Random) -> str:
    """SIGKILL to the broker, which comes back with an older snapshot or with none."""
    snapshot = system.mosquitto.files.state / "mosquitto.db"
    older = snapshot.read_bytes() if snapshot.exists() and random.random() < 1 / 2 else None
    await _last(random, SNAPSHOT_S, SNAPSHOT_S + LONG)
    await asyncio.to_thread(system.mosquitto.kill)
    if older is None:
        snapshot.unlink(missing_ok=True)
    else:
        # In place, so that it stays the file of the broker's account.
        with snapshot.open("r+b") as file:
            file.write(older)
            file.truncate()
    lasted = await _last(random, 0.0, 1.5)
    await asyncio.to_thread(system.mosquitto.start)
    return f"{'no' if older is None else 'an older'} snapshot, away for {lasted}"


@_kind()
async def broker_pause(system: System, random: Random) -> str:
    """SIGSTOP of the broker, and SIGCONT."""
    with stopped([system.mosquitto.pid]):
        return await _last(random)


@_kind()
async def broker_restart(system: System, random: Random) -> str:
    """The broker writes its state, ends and starts again."""
    await asyncio.to_thread(system.mosquitto.stop)
    lasted = await _last(random, 0.0, 1.5)
    await asyncio.to_thread(system.mosquitto.start)
    return f"away for {lasted}"


@_kind(bounded=True)
async def broker_full(system: System, random: Random) -> str:
    """The broker's folder runs full, so that no snapshot is written; then SIGKILL."""
    with _of(system.broker_quota).full():
        lasted = await _last(random, SNAPSHOT_S, SNAPSHOT_S + LONG)
        await asyncio.to_thread(system.mosquitto.kill)
    await asyncio.to_thread(system.mosquitto.start)
    return f"full for {lasted}"


# --- the database -----------------------------------------------------------------------------


@_kind()
async def database_kill(system: System, random: Random) -> str:
    """SIGKILL to the postmaster and all its processes."""
    await asyncio.to_thread(system.postgres.kill)
    lasted = await _last(random, 0.0, 1.5)
    await asyncio.to_thread(system.postgres.start)
    return f"away for {lasted}"


@_kind()
async def database_pause(system: System, random: Random) -> str:
    """SIGSTOP of all processes of the database, and SIGCONT."""
    with stopped(family(system.postgres.pid)):
        return await _last(random)


@_kind()
async def database_restart(system: System, random: Random) -> str:
    """The database shuts down in order and starts again."""
    await asyncio.to_thread(system.postgres.stop)
    lasted = await _last(random, 0.0, 1.5)
    await asyncio.to_thread(system.postgres.start)
    return f"away for {lasted}"


@_kind()
async def backend_kill(system: System, random: Random) -> str:
    """SIGKILL to one backend: the postmaster ends all others and recovers."""
    part = random.choice(PARTS)
    pids = await system.look(partial(backends_of, part=part))
    if not pids:
        return f"{part} had none"
    with contextlib.suppress(ProcessLookupError):
        os.kill(random.choice(pids), signal.SIGKILL)
    # The postmaster has seen it, and serves again.
    await asyncio.sleep(SHORT)
    await _served(system)
    return f"of {part}"


@_kind()
async def backend_end(system: System, random: Random) -> str:
    """The connections of one part of the system are ended by the database, thrice."""
    part = random.choice(PARTS)
    ended = 0
    for _ in range(3):
        ended += await system.look(partial(end_backends, part=part))
        await _last(random, 0.05, 0.6)
    return f"{ended} of {part}"


@_kind(bounded=True)
async def database_full(system: System, random: Random) -> str:
    """The folder of the tables runs full."""
    with _of(system.database_quota).full():
        lasted = await _last(random, SHORT, SNAPSHOT_S + LONG)
    return f"full for {lasted}"


async def _served(system: System) -> None:
    while True:
        try:
            await system.look(lambda conn: conn.execute("SELECT 1"))
        except Unavailable:
            await asyncio.sleep(SHORT / 3)
        else:
            return


def _of(bounded: Bounded | None) -> Bounded:
    assert bounded is not None, "the run asks for folders that may run full, or leaves these out"
    return bounded


# --- the network ------------------------------------------------------------------------------


WAYS: dict[str, tuple[str, ...]] = {
    "meters and broker": (METERS_TO_BROKER,),
    "one gateway and broker": GATEWAYS_TO_BROKER[:1],
    "gateways and broker": GATEWAYS_TO_BROKER,
    "one gateway and database": GATEWAYS_TO_DATABASE[1:],
    "gateways and database": GATEWAYS_TO_DATABASE,
    "API and database": (API_TO_DATABASE,),
    "everybody and database": (*GATEWAYS_TO_DATABASE, API_TO_DATABASE),
}


@_kind()
async def network_cut(system: System, random: Random) -> str:
    """A way is cut: connections end, and new ones are refused."""
    way = random.choice(sorted(WAYS))
    await system.wires.do("cut", WAYS[way])
    lasted = await _last(random)
    await system.wires.do("open", WAYS[way])
    return f"between {way}, {lasted}"


@_kind()
async def network_reset(system: System, random: Random) -> str:
    """All connections of a way are reset, three times."""
    way = random.choice(sorted(WAYS))
    for _ in range(3):
        await system.wires.do("drop", WAYS[way])
        await _last(random, 0.1, 0.8)
    return f"between {way}"


@_kind()
async def network_delay(system: System, random: Random) -> str:
    """Everything on a way takes longer."""
    way = random.choice(sorted(WAYS))
    delay_s = random.uniform(0.02, 0.2)
    await system.wires.do("delay", WAYS[way], delay_s)
    lasted = await _last(random, 1.0, 3.0)
    await system.wires.do("delay", WAYS[way], 0.0)
    return f"between {way}, {delay_s * 1000:.0f} ms each way for {lasted}"


@_kind()
async def network_half_open(system: System, random: Random) -> str:
    """Nothing comes through on a way and nobody is told; then it comes late, or never."""
    way = random.choice(sorted(WAYS))
    await system.wires.do("hold", WAYS[way])
    lasted = await _last(random)
    ends = random.choice(("comes late", "is lost"))
    if ends == "is lost":
        await system.wires.do("drop", WAYS[way])
    await system.wires.do("release", WAYS[way])
    return f"between {way}, {lasted}, then what was sent {ends}"


# --- clocks -----------------------------------------------------------------------------------


async def _stepped(system: System, by_ms: int, random: Random) -> str:
    system.step_clock(by_ms)
    if random.random() < 1 / 2:
        # Meters that come back meanwhile tell their time, and are judged by the wrong clock.
        await system.wires.do("drop", [METERS_TO_BROKER])
    lasted = await _last(random, 1.0, LONG)
    system.step_clock(0)
    # Meters whose clock was held for wrong say the time again.
    await system.wires.do("drop", [METERS_TO_BROKER])
    return f"{by_ms / MINUTE_MS:+.1f} min for {lasted}"


@_kind(clocks=True)
async def clock_forward(system: System, random: Random) -> str:
    """The system's clock is stepped forward, and back."""
    return await _stepped(system, random.choice((2, 4, 12, 18)) * MINUTE_MS, random)


@_kind(clocks=True)
async def clock_back(system: System, random: Random) -> str:
    """The system's clock is stepped back, and forward."""
    return await _stepped(system, -random.choice((2, 4, 12, 18)) * MINUTE_MS, random)


@_kind(clocks=True)
async def clock_meters(system: System, random: Random) -> str:
    """The clocks of a third of the meters are stepped, and put right."""
    by_ms = random.choice((-18, -12, -4, -2, 2, 4, 8)) * MINUTE_MS
    wrong = random.sample(system.households, max(len(system.households) // 3, 1))
    for household in wrong:
        household.ahead_ms = by_ms
    lasted = await _last(random, 1.0, LONG)
    for household in wrong:
        household.ahead_ms = 0
    await system.wires.do("drop", [METERS_TO_BROKER])
    return f"{by_ms / MINUTE_MS:+.1f} min for {lasted}"
