"""Foreign devices on a real broker: what they say is stored and billed, and none of it is lost."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import aiomqtt
import psycopg
import pytest
from dlms_cosem.security import SecurityControlField, encrypt

from credit_engine.terms import Installation
from meter_gateway.foreign import device_profile as profile
from meter_gateway.foreign.keys import DeviceKeys, GlobalKey, SealingKey, seal
from meter_gateway.foreign.process import AdapterSettings, run_adapter
from meter_gateway.foreign.tahu import Payload
from meter_gateway.receiver import BrokerAddress
from schemas.quantities import format_instant
from store import devices, registry
from store.devices import NewDevice

TARIFF = {
    "timezone": "UTC",
    "currency": "MRU",
    "tariff": {
        "versions": [
            {
                "valid_from": "2020-01-01",
                "period": "month",
                "bands": [{"name": "all", "method": "graduated", "blocks": [{"price": "5.000"}]}],
            }
        ]
    },
}
SEALING = SealingKey(bytes(range(40, 72)))
KEYS = DeviceKeys(GlobalKey(bytes(range(3, 19))), GlobalKey(bytes(range(60, 76))))
TITLE = b"PRE\x01\x02\x03\x04\x05"
IMPORT = "Energy/Active Import"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Site:
    """A database, a broker, and topics of this test's own."""

    database_url: str
    broker_url: str
    tag: str
    conn: psycopg.Connection
    opened_ms: int

    def profile(self, name: str) -> Any:
        """A profile of ours on this test's topics."""
        text = files("meter_gateway").joinpath("profiles", f"{name}.yaml").read_text()
        for topic in ("tele/{device}", "dlms/{device}"):
            text = text.replace(f"topic: {topic}", f"topic: {self.tag}/{topic}")
        text = text.replace('"{device}/', f'"{self.tag}/{{device}}/')
        text = text.replace("group: meters", f"group: {self.tag}")
        return profile.parse(text, name)

    def supply(self, number: str, name: str, device: str, **more: Any) -> None:
        """An account whose meter is a device of a profile."""
        registry.add_meter(self.conn, self.centre, registry.NewMeter(number))
        found = profile.load(name)
        new = NewDevice(name, device, number, found.trusted, **more)
        devices.add(self.conn, new, "ops", self.opened_ms)
        registry.open_account(
            self.conn,
            number=number,
            customer=registry.add_customer(self.conn, number, self.opened_ms),
            centre=self.centre,
            tariff=self.tariff,
            terms={"activated_at": format_instant(self.opened_ms)},
            installation=Installation(number, 10**9, self.opened_ms, 0),
            now_ms=self.opened_ms,
        )

    @property
    def centre(self) -> int:
        return registry.add_centre(self.conn, "F", "Foreign")

    @property
    def tariff(self) -> int:
        known = registry.find_tariff(self.conn, "t")
        return registry.add_tariff(self.conn, "t", "T", TARIFF) if known is None else known

    def rows(self, text: str) -> list[Any]:
        return self.conn.execute(text).fetchall()  # type: ignore[call-overload,no-any-return]

    def broker(self, client_id: str) -> aiomqtt.Client:
        address = BrokerAddress.parse(self.broker_url)
        return aiomqtt.Client(
            address.host,
            address.port,
            username=address.username,
            password=address.password,
            identifier=f"{self.tag}-{client_id}",
            protocol=aiomqtt.ProtocolVersion.V5,
        )

    @contextlib.asynccontextmanager
    async def adapter(self, *names: str) -> AsyncIterator[asyncio.Task[None]]:
        settings = AdapterSettings(
            database_url=self.database_url,
            broker_url=self.broker_url,
            name=self.tag,
            profiles=[self.profile(name) for name in names],
            now_ms=now_ms,
            sealing_key=SEALING,
            session_expiry_s=120,
        )
        stopping, ready = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(run_adapter(settings, stopping, ready.set))
        await asyncio.wait_for(ready.wait(), 10)
        try:
            yield running
        finally:
            stopping.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(running, 20)


@pytest.fixture
def site(database_url: str, broker_url: str) -> Iterator[Site]:
    tag = f"t{uuid.uuid4().hex[:10]}"
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield Site(database_url, broker_url, tag, conn, now_ms() - 3_600_000)


async def until(found: Callable[[], bool], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not found():
            await asyncio.sleep(0.02)


def sensor(kwh: str, at_ms: int) -> bytes:
    at = datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f'{{"Time":"{at}","ENERGY":{{"Total":{kwh},"Power":5}}}}'.encode()


async def test_a_plug_is_stored_shown_and_bills_nobody(site: Site) -> None:
    site.supply("37000000017", "tasmota-energy", "plug")
    tele = f"{site.tag}/tele"
    async with site.adapter("tasmota-energy"), site.broker("say") as client:
        await client.publish(f"{tele}/plug/LWT", b"Online", qos=1)
        for _ in range(2):
            await client.publish(f"{tele}/plug/SENSOR", sensor("3.7059", now_ms()), qos=1)
        await client.publish(f"{tele}/stranger/SENSOR", sensor("9.9", now_ms()), qos=1)
        await client.publish(f"{tele}/plug/SENSOR", b'{"Time":"now"', qos=1)
        await until(lambda: site.rows("SELECT count(*) FROM quarantine") == [(2,)])
        await until(lambda: site.rows("SELECT online FROM meter_state") == [(True,)])
    assert set(site.rows("SELECT reason, topic FROM quarantine")) == {
        ("unknown_device", f"{tele}/stranger/SENSOR"),
        ("undecodable", f"{tele}/plug/SENSOR"),
    }
    assert site.rows("SELECT DISTINCT register, value_wh, verdict FROM reading") == [
        ("1.8.0", 3705, "untrusted")
    ]
    assert site.rows("SELECT detail FROM reading LIMIT 1") == [
        ({"via": "tasmota-energy", "inst": {"P": "5"}},)
    ]
    assert site.rows("SELECT count(*) FROM ledger_transaction WHERE energy_wh <> 0") == [(0,)]


def metrics(seq: int | None, *of: dict[str, Any]) -> bytes:
    message = Payload(timestamp=now_ms())
    if seq is not None:
        message.seq = seq
    for metric in of:
        message.metrics.add(**metric)
    return bytes(message.SerializeToString())


async def test_a_sparkplug_node_is_asked_for_its_birth_and_billed(site: Site) -> None:
    site.supply("37000000017", "sparkplug-meters", "N1/M1")
    topic = f"spBv1.0/{site.tag}"
    alias = {"alias": 4, "datatype": 10}
    async with site.adapter("sparkplug-meters"), site.broker("node") as client:
        await client.subscribe(f"{topic}/NCMD/N1")
        await client.publish(f"{topic}/DDATA/N1/M1", metrics(7, {"alias": 4, "double_value": 9.0}))
        asked = await asyncio.wait_for(anext(aiter(client.messages)), 15)
        request = Payload.FromString(asked.payload)
        assert request.metrics[0].name == "Node Control/Rebirth"
        birth = {"name": "bdSeq", "datatype": 8, "long_value": 1}
        await client.publish(f"{topic}/NBIRTH/N1", metrics(0, birth))
        named = {"name": IMPORT, **alias, "double_value": 10.5}
        await client.publish(f"{topic}/DBIRTH/N1/M1", metrics(1, named))
        await asyncio.sleep(0.01)
        later = {**alias, "timestamp": now_ms() + 1, "double_value": 12.25}
        await client.publish(f"{topic}/DDATA/N1/M1", metrics(2, later))
        await until(lambda: site.rows("SELECT count(*) FROM reading") == [(2,)])
        await client.publish(f"{topic}/NDEATH/N1", metrics(None, birth))
        await until(lambda: site.rows("SELECT online FROM meter_state") == [(False,)])
    assert site.rows("SELECT reason FROM quarantine") == [("no_birth",)]
    assert site.rows("SELECT sum(energy_wh)::bigint FROM ledger_transaction") == [(12250,)]


def push(counter: int, wh: int, at_ms: int) -> bytes:
    """A ciphered push of one register, its clock in UTC."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    clock = at.year.to_bytes(2, "big") + bytes(
        (at.month, at.day, 0xFF, at.hour, at.minute, at.second, 0, 0, 0, 0)
    )
    body = bytes.fromhex("020509060000010000ff090c") + clock
    body += bytes.fromhex("09060100010800ff06") + wh.to_bytes(4, "big")
    body += bytes.fromhex("02020f00161e")
    plain = b"\x0f\x00\x00\x00\x01\x00" + body
    control = SecurityControlField.from_bytes(b"\x30")
    secret = (KEYS.encryption.reveal(), plain, KEYS.authentication.reveal())
    content = b"\x30" + counter.to_bytes(4, "big")
    content += encrypt(control, TITLE, counter, *secret)
    return b"\xdb\x08" + TITLE + bytes([len(content)]) + content


async def test_a_ciphered_push_counts_once_and_never_again(site: Site) -> None:
    place = ("dlms-push", "modem-1")
    sealed = seal(KEYS, SEALING, place, bytes(range(12)))
    site.supply("37000000017", *place, sealed_keys=sealed)
    topic, at_ms = f"{site.tag}/dlms/modem-1/push", now_ms() - 60_000

    def refused() -> Sequence[str]:
        return [reason for (reason,) in site.rows("SELECT reason FROM quarantine ORDER BY id")]

    first, second = push(8, 1500, at_ms), push(9, 2500, at_ms + 10_000)
    async with site.adapter("dlms-push"), site.broker("modem") as client:
        for frame in (first, second, second):
            await client.publish(topic, frame, qos=1)
        await client.publish(topic, first, qos=1)
        await until(lambda: refused() == ["replayed"])
        forged = bytearray(push(10, 9000, at_ms + 20_000))
        forged[-1] ^= 1
        await client.publish(topic, bytes(forged), qos=1)
        await until(lambda: refused() == ["replayed", "not_authentic"])
    assert site.rows("SELECT frame_counter FROM foreign_device") == [(9,)]
    # The counter outlives the process.
    async with site.adapter("dlms-push"), site.broker("modem") as client:
        await client.publish(topic, push(8, 9000, at_ms + 30_000), qos=1)
        await until(lambda: len(refused()) == 3)
    assert refused()[-1] == "replayed"
    assert site.rows("SELECT verdict FROM reading") == [("accepted",), ("accepted",)]
    assert site.rows("SELECT sum(energy_wh)::bigint FROM ledger_transaction") == [(2500,)]


async def test_a_retained_message_without_a_clock_is_of_no_instant(site: Site) -> None:
    site.supply("37000000017", "shelly-em-gen2", "em")
    topic = f"{site.tag}/em/status/emdata:0"
    async with site.broker("say") as client:
        await client.publish(topic, b'{"id":0,"total_act":5.61}', qos=1, retain=True)
        async with site.adapter("shelly-em-gen2"):
            await until(lambda: site.rows("SELECT reason FROM quarantine") == [("no_time",)])
            await client.publish(topic, b'{"id":0,"total_act":20269.29}', qos=1)
            await until(lambda: site.rows("SELECT value_wh FROM reading") == [(20269,)])
        await client.publish(topic, b"", qos=1, retain=True)
    assert site.rows("SELECT online FROM meter_state") == [(None,)]


async def test_what_was_not_committed_comes_again_and_counts_once(
    site: Site, database_url: str, as_owner: Callable[[str], str]
) -> None:
    site.supply("37000000017", "tasmota-energy", "plug")
    topic, at_ms = f"{site.tag}/tele/plug/SENSOR", now_ms() - 60_000
    async with site.adapter("tasmota-energy") as running, site.broker("say") as client:
        with psycopg.connect(as_owner(database_url)) as blocking:
            blocking.execute("LOCK TABLE reading IN ACCESS EXCLUSIVE MODE")
            for place in range(5):
                await client.publish(topic, sensor(f"1.00{place}", at_ms + place * 1000), qos=1)
            waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"
            await until(lambda: site.rows(waiting) == [(True,)])
            # Killed with the batch in flight; what is published now waits at the broker.
            running.cancel()
            await client.publish(topic, sensor("1.005", at_ms + 5000), qos=1)
            blocking.rollback()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    async with site.adapter("tasmota-energy"):
        await until(lambda: site.rows("SELECT count(*) FROM reading") == [(6,)])
    values = site.rows("SELECT value_wh FROM reading ORDER BY ts")
    assert values == [(1000 + place,) for place in range(6)]
    assert site.rows("SELECT count(*) FROM quarantine") == [(0,)]
