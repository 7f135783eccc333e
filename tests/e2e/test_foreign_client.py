"""A client that we did not write walks through the whole MQTT contract, by 3.1.1 and by 5.

mosquitto_sub is the meter's ear and its last will, mosquitto_pub its mouth; every message is
written out here as the contract shows it.
"""

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from prepaid.runtime import Instance, resolve
from prepaid.scenarios.rig import Rig, Servers, rigged
from prepaid.scenarios.trial import MICRO, Household, Plan, Trial
from schemas.quantities import format_instant
from store import operations, top_ups

WAIT_S = 30
MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def clients(runtime: Instance) -> Path:
    """The folder of mosquitto_pub and mosquitto_sub: the host's, or the private runtime's."""
    found = shutil.which("mosquitto_pub")
    if found is not None:
        return Path(found).parent
    return resolve(lambda _: None, os.environ).mosquitto.clients


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(runtime: Instance, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    servers = Servers(runtime.database_url, runtime.broker_url)
    async with rigged(servers, tmp_path_factory.mktemp("rig"), seed=7) as made:
        yield made


class ForeignMeter:
    """One meter made of two programs."""

    def __init__(self, rig: Rig, clients: Path, number: str, version: str) -> None:
        self.number = number
        self.up, self.dn = f"pm/v1/m/{number}/up", f"pm/v1/m/{number}/dn"
        self._rig = rig
        self._clients = clients
        self._broker = ["-h", rig.broker.host, "-p", str(rig.broker.port), "-V", version]
        self._heard: list[tuple[str, dict[str, Any]]] = []
        self._seq = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Subscribed in a session that stays, with a last will; killed, so that the will speaks."""
        ear = [str(self._clients / "mosquitto_sub"), *self._broker, "-i", self.number, "-c"]
        ear += ["-q", "1", "-t", f"{self.dn}/+", "-v"]
        if "mqttv5" in self._broker:
            ear += ["-x", "3600"]
        # It ends once the subscription stands; what is said from then on waits for the next one.
        subscribing = await asyncio.create_subprocess_exec(*ear, "-E")
        assert await subscribing.wait() == 0
        will = ["--will-topic", f"{self.up}/state", "--will-payload", "offline"]
        will += ["--will-qos", "1", "--will-retain"]
        process = await asyncio.create_subprocess_exec(*ear, *will, stdout=asyncio.subprocess.PIPE)
        listening = asyncio.create_task(self._listen(process))
        try:
            yield
        finally:
            process.kill()
            await process.wait()
            await listening

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            topic, _, payload = line.decode().strip().partition(" ")
            self._heard.append((topic.rpartition("/")[2], json.loads(payload)))

    async def say(self, kind: str, payload: str, *options: str) -> None:
        qos = "0" if kind == "time" else "1"
        process = await asyncio.create_subprocess_exec(
            str(self._clients / "mosquitto_pub"),
            *(*self._broker, "-q", qos, "-t", f"{self.up}/{kind}", "-m", payload, *options),
        )
        assert await process.wait() == 0

    def reading(self, wh: int, **other: object) -> dict[str, object]:
        self._seq += 1
        form: dict[str, object] = {
            "v": 1,
            "boot": 1,
            "seq": self._seq,
            "ts": self.now(),
            "tq": "sync",
        }
        return {**form, "reg": {"1.8.0": wh}, **other}

    def now(self) -> str:
        return format_instant(self._rig.now_ms())

    async def hears(self, kind: str, **fields: object) -> dict[str, Any]:
        """The next message of a kind with these fields; QoS 1 may have brought others twice."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for place, (said, form) in enumerate(self._heard):
                    if said == kind and all(
                        form.get(name) == value for name, value in fields.items()
                    ):
                        del self._heard[place]
                        return form
                await asyncio.sleep(0.02)

    async def answers(self, command: dict[str, Any], relay: str, wh: int, **other: object) -> None:
        said = {
            "v": 1,
            "cmd": command["cmd"],
            "relay": relay,
            "reg": {"1.8.0": wh},
            "ts": self.now(),
        }
        await self.say("ack", json.dumps({**said, "state": "accepted"}))
        await self.say("ack", json.dumps({**said, "state": "done", **other}))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
async def test_a_foreign_client_walks_through_the_contract(
    rig: Rig, clients: Path, version: str
) -> None:
    trial = Trial(rig, f"foreign-{version}")
    home = await trial.household(Plan(credit=5 * MICRO))
    meter = ForeignMeter(rig, clients, home.device.number, version)
    async with meter.listening():
        await said_hello_and_readings(rig, trial, meter, home)
        await cut_when_the_credit_is_gone(rig, trial, meter, home)
        await paid_and_on_again(rig, trial, meter, home)
    await trial.until("its last will", lambda: is_offline(trial, home))
    refused = await rig.look(
        lambda conn: operations.quarantined(conn, reason=None, until_ms=None, skip=0, limit=100)
    )
    assert [each for each in refused if meter.number in (each.topic + str(each.meter))] == []
    assert trial.failures == []


async def is_offline(trial: Trial, home: Household) -> bool:
    return (await trial.meter(home)).online is False


async def said_hello_and_readings(
    rig: Rig, trial: Trial, meter: ForeignMeter, home: Household
) -> None:
    await meter.say("state", "online", "-r")
    hello = {
        "v": 1,
        "model": "FOREIGN",
        "fw": "2.1",
        "boot": 1,
        "ts": meter.now(),
        "relay": "closed",
    }
    await meter.say("hello", json.dumps(hello))
    # It tells the meter's clock: let it be heard before time goes on.
    await rig.settle()
    rig.pass_ms(MINUTE_MS)
    await meter.say("reading", json.dumps(meter.reading(120_100, relay="closed", rcpt=True)))
    await meter.hears("receipt", boot=1, seq=1)
    first = meter.now()
    rig.pass_ms(MINUTE_MS)
    rows = [meter.reading(120_200, rcpt=True)]
    rig.pass_ms(MINUTE_MS)
    rows.append(meter.reading(120_300, rcpt=True))
    await meter.say("reading", json.dumps(rows))
    await meter.hears("receipt", boot=1, seq=3)
    cover = {"v": 1, "type": "cover_open", "ts": first, "boot": 1, "info": {"times": 2}}
    await meter.say("event", json.dumps(cover))
    asked_ms = rig.now_ms()
    await meter.say("time", json.dumps({"v": 1, "t1": asked_ms}))
    answer = await meter.hears("time", t1=asked_ms)
    assert abs(answer["t2"] - asked_ms) < 1000
    assert answer["t2"] <= answer["t3"]
    await rig.settle()
    report = await trial.meter(home)
    assert (report.online, report.reported_relay, report.boot, report.seq) == (True, "closed", 1, 3)
    found = await trial.found(home)
    assert [wh for wh, _ in found.readings.values()] == [120_100, 120_200, 120_300]
    assert found.energy_wh == 300
    assert found.balance_micro == 5 * MICRO - 300 * 2_459


async def cut_when_the_credit_is_gone(
    rig: Rig, trial: Trial, meter: ForeignMeter, home: Household
) -> None:
    rig.pass_ms(30 * MINUTE_MS)
    await meter.say("reading", json.dumps(meter.reading(122_500)))
    order = await meter.hears("cmd", type="relay")
    assert order["args"]["to"] == "open"
    assert order["iat"] < order["exp"]
    await meter.answers(order, "open", 122_510)
    await trial.until_command(home, "relay", "done")
    assert (await trial.meter(home)).reported_relay == "open"


async def paid_and_on_again(rig: Rig, trial: Trial, meter: ForeignMeter, home: Household) -> None:
    rig.pass_ms(MINUTE_MS)
    top_up = await trial.pay(home, 50 * MICRO)
    delivery = await meter.hears("cmd", type="token")
    outcome = {"format": True, "authentication": True, "validation": True, "execution": True}
    accepted = {**outcome, "result": "Accept"}
    await meter.answers(delivery, "open", 122_510, token=accepted, tokens=[accepted])
    on = {"to": "close", "why": "credit"}
    order = await meter.hears("cmd", type="relay", args=on)
    assert order["ctr"] > delivery["ctr"]
    await meter.answers(order, "closed", 122_510)
    await trial.until_command(home, "token", "done")
    await trial.until_command(home, "relay", "done")
    paid = await rig.look(lambda conn: top_ups.top_up(conn, home.account, top_up))
    (issued,) = await rig.look(
        lambda conn: top_ups.tokens(conn, home.account, before_id=None, limit=9)
    )
    assert (delivery["args"]["tokens"], issued.result) == ([issued.digits], "Accept")
    assert paid.accepted_ms is not None
    assert paid.on_supply_ms is not None
    assert (await trial.meter(home)).reported_relay == "closed"
