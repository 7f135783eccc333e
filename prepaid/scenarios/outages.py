"""Devices that fall silent, links that break, and servers that die in the middle of the work."""

import asyncio
import contextlib
import time
from collections.abc import Sequence

import aiomqtt

from prepaid.scenarios.messages import METERS_OF_BATCH, batch, behind, rows_of, say_as
from prepaid.scenarios.trial import (
    HOUR_MS,
    INTERVAL_MS,
    MICRO,
    MINUTE_MS,
    POLL_S,
    WAIT_S,
    Household,
    Plan,
    Trial,
)
from schemas.commands import encode
from simulators.device import Device
from simulators.meter import RETRY_MS
from store.audit import audit
from store.errors import Unavailable

STORM_METERS = 60
STORM_OUTAGE_MS = 12 * HOUR_MS
OUTAGE_MS = 10 * MINUTE_MS


async def will_without_power_fail(trial: Trial) -> None:
    """A meter's connection breaks and its last will says offline: it is known as offline, nothing
    is ordered or charged meanwhile, and its buffer brings the energy.
    """
    home = await trial.household()
    await trial.connect(home.device)
    await trial.advance(HOUR_MS, home.device)
    await home.device.vanish()
    await trial.until("offline", lambda: _online(trial, home, wanted=False))
    await trial.advance(3 * HOUR_MS, home.device)
    await trial.rig.settle()
    trial.expect("commands while offline", [], await trial.commands(home))
    await trial.connect(home.device)
    await trial.until("online", lambda: _online(trial, home, wanted=True))


async def _online(trial: Trial, home: Household, *, wanted: bool) -> bool:
    return (await trial.meter(home)).online is wanted


async def gateway_silent(trial: Trial) -> None:
    """A gateway with all its meters falls silent for three hours and then says what it kept: nobody
    is cut meanwhile, and all of the energy is charged once.
    """
    gateway = f"{trial.rig.tag}-d"
    homes = await behind(trial, gateway, METERS_OF_BATCH)
    begin_ms = trial.rig.now_ms()
    await trial.advance(INTERVAL_MS)
    await _said(trial, gateway, homes, begin_ms, hist=False)
    silent_ms = trial.rig.now_ms()
    await trial.advance(3 * HOUR_MS)
    await trial.rig.settle()
    for home in homes:
        trial.expect("commands in the silence", [], await trial.commands(home))
    await _said(trial, gateway, homes, silent_ms, hist=True)


async def _said(
    trial: Trial, gateway: str, homes: Sequence[Household], since_ms: int, *, hist: bool
) -> None:
    """What the gateway read of its meters every quarter of an hour since then, in one batch."""
    first_ms = since_ms + INTERVAL_MS
    slots = (trial.rig.now_ms() - since_ms) // INTERVAL_MS
    form = batch(first_ms, INTERVAL_MS, rows_of(homes, first_ms, INTERVAL_MS, slots))
    await say_as(trial, gateway, encode({**form, "hist": hist}))


async def reconnect_storm(trial: Trial) -> None:
    """After twelve hours without a network many meters come back at once, each with its buffer: all
    of it is taken, once, and live readings come first.
    """
    homes = [await trial.household(Plan(credit=1500 * MICRO)) for _ in range(STORM_METERS)]
    devices = [home.device for home in homes]
    await trial.advance(STORM_OUTAGE_MS, *devices)
    began_s = time.monotonic()
    await asyncio.gather(*(device.connect() for device in devices))
    await trial.rig.settle()
    seconds = time.monotonic() - began_s
    said = sum(len(device.arrived) for device in devices)
    trial.figures["taken"] = f"{STORM_METERS} meters and {said} readings in {seconds:.1f} s"


async def consumer_killed_before_puback(trial: Trial) -> None:
    """The gateway is killed after the commit of a message and before its PUBACK: the broker sends
    it again to the next gateway, and it counts once.
    """
    rig = trial.rig
    home = await trial.household()
    await trial.connect(home.device)
    await trial.advance(HOUR_MS, home.device)
    await rig.settle()
    rig.gateway_wire.hold()
    await trial.advance(INTERVAL_MS, home.device)
    newest_ms = max(home.device.arrived)

    async def committed() -> bool:
        found = await trial.found(home)
        return (home.device.number, newest_ms) in found.readings

    await trial.until("the commit", committed)
    await trial.until("a PUBACK that is held", lambda: _held(trial))
    await rig.kill_gateway()
    rig.gateway_wire.drop()
    rig.gateway_wire.release()
    await rig.start_gateway()
    await rig.settle()
    trial.figures["held"] = f"{rig.gateway_wire.held_bytes} bytes of acknowledgements"
    await trial.advance(HOUR_MS, home.device)


async def _held(trial: Trial) -> bool:
    return trial.rig.gateway_wire.held_bytes > 0


async def broker_restart(trial: Trial) -> None:
    """The broker is killed with messages in flight and started again: what it forgot the meters say
    again, because no receipt covered it, and it counts once.
    """
    rig, instance = trial.rig, trial.rig.servers.instance
    assert instance is not None, "it kills its own broker"
    assert instance.mosquitto is not None, "it kills its own broker"
    homes = [await trial.household() for _ in range(4)]
    devices = [home.device for home in homes]
    await trial.connect(*devices)
    await trial.advance(HOUR_MS, *devices)
    # Nothing that is said now is acknowledged: it is in flight when the broker dies.
    rig.gateway_wire.hold()
    await trial.advance(HOUR_MS, *devices)
    began_s = time.monotonic()
    await asyncio.to_thread(instance.mosquitto.kill)
    rig.gateway_wire.drop()
    rig.gateway_wire.release()
    for device in devices:
        await device.vanish()
    await trial.advance(INTERVAL_MS, *devices)
    await asyncio.to_thread(instance.mosquitto.start)
    await _reconnected(devices)
    await rig.settle()
    trial.figures["back"] = f"after {time.monotonic() - began_s:.1f} s"
    # A receipt that was lost with the broker is asked for again after an hour.
    await trial.advance(RETRY_MS + HOUR_MS, *devices)


async def _reconnected(devices: list[Device]) -> None:
    for device in devices:
        async with asyncio.timeout(WAIT_S):
            while True:
                with contextlib.suppress(aiomqtt.MqttError):
                    await device.connect()
                    break
                await device.vanish()
                await asyncio.sleep(POLL_S)


async def database_down_10_minutes(trial: Trial) -> None:
    """The database is killed and away for ten minutes while meters go on: the gateway stops
    acknowledging, goes on by itself, and nothing is lost or charged twice.
    """
    rig, instance = trial.rig, trial.rig.servers.instance
    assert instance is not None, "it kills its own database"
    assert instance.postgres is not None, "it kills its own database"
    plan = Plan(interval_ms=MINUTE_MS)
    homes = [await trial.household(plan) for _ in range(4)]
    devices = [home.device for home in homes]
    await trial.connect(*devices)
    await trial.advance(5 * MINUTE_MS, *devices)
    await rig.settle()
    began_s = time.monotonic()
    await asyncio.to_thread(instance.postgres.kill)
    await trial.advance(OUTAGE_MS, *devices)
    await asyncio.to_thread(instance.postgres.start)
    with contextlib.suppress(Unavailable):
        # The run's own connection died, too.
        await trial.meter(homes[0])
    await rig.settle()
    trial.figures["back"] = f"after {time.monotonic() - began_s:.1f} s"
    await trial.advance(5 * MINUTE_MS, *devices)


async def laws_after_all(trial: Trial) -> None:
    """After everything that was played before it the whole database is audited: every law of
    `prepaid audit` holds.
    """
    home = await trial.household()
    await trial.connect(home.device)
    await trial.advance(HOUR_MS, home.device)
    await trial.rig.settle()
    checks = await trial.rig.look(audit)
    for check in checks:
        broken = [f"{each.where}: {each.expected}, not {each.found}" for each in check.failures]
        trial.expect(check.name, [], broken)
    trial.figures["audited"] = f"{sum(check.checked for check in checks)} things"
