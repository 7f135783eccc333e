"""What a run of scenarios stands on: two servers, one gateway process, one clock, one database.

The gateway is `prepaid gateway` as anybody starts it, under a share group of this run. Its clock is
a file that only the run moves (`prepaid.clock.HandClock`), so an hour takes no time and the same
seed gives the same story. Between gateway and broker lies a wire that a scenario may cut or hold.
"""

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import aiomqtt
import orjson
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from meter_gateway.overtaking import session_names
from meter_gateway.receiver import BrokerAddress
from prepaid.clock import HandClock
from prepaid.demo.centre import BASE_DATE, KEYS
from prepaid.demo.processes import Child, environment
from prepaid.demo.trust import DemoTrust
from prepaid.runtime import Instance, Mosquitto
from prepaid.trust.authority import CA_FILE
from schemas import topics
from schemas.quantities import format_instant, parse_instant_ms
from schemas.topics import Topic
from simulators.fleet import Broker
from simulators.wire import Wire
from store import registry
from store.pool import Connection
from store.registry import NewMeter
from store.scratch import scratch_database
from store.session import Session
from tokens.keys import VendingKey
from tokens.numbers import drn
from tokens.security_module import SoftwareSecurityModule

_Result = TypeVar("_Result")

# A Tuesday morning after the clocks of Europe went back, so that the long day is already history.
BEGIN_MS = parse_instant_ms("2026-11-03T06:00:00Z")
CENTRE = ("SCN", "Scenarios")
# Makers' codes of DRNs run from 00; nobody's meters are numbered so.
MAKER = "99"
READY_S = 60.0
# One word with its receipt takes milliseconds; this is for a machine with a lot else to do.
RECEIPT_S = 60.0
REPEAT_S = 2.0
SOON_S = 0.05
SECOND_MS = 1000


@dataclass(frozen=True, slots=True)
class Servers:
    """`instance` is set where the servers are ours, so that a scenario may kill them; `trust`
    where their broker admits devices by certificate and the gateway signs what it orders.
    """

    database_url: str
    broker_url: str
    instance: Instance | None = None
    trust: DemoTrust | None = None

    @property
    def mosquitto(self) -> Mosquitto | None:
        return None if self.instance is None else self.instance.mosquitto


class Rig:
    """Made by `rigged`."""

    def __init__(self, servers: Servers, database_url: str, folder: Path, seed: int) -> None:
        self.servers = servers
        self.database_url = database_url
        self.seed = seed
        self.tag = f"scenario-{secrets.token_hex(4)}"
        self.clock = HandClock(path=folder / "clock")
        self.clock.set(BEGIN_MS)
        self.keys = {
            (each.sgc, each.krn): VendingKey.generate(
                each.dkga, secrets.token_bytes(8 if each.dkga == 2 else 20), base_date=BASE_DATE
            )
            for each in KEYS.values()
        }
        self.module = SoftwareSecurityModule(self.keys)
        address = BrokerAddress.parse(servers.broker_url)
        self.broker = Broker(address.host, address.port)
        if servers.trust is not None and servers.mosquitto is not None:
            devices = BrokerAddress.parse(servers.mosquitto.device_url)
            self.broker = Broker(devices.host, devices.port, servers.trust.ca / CA_FILE)
        self.gateway_wire = Wire(address.host, address.port)
        self.session = Session(database_url, self.tag)
        self.centre = 0
        self._folder = folder
        # Runs side by side on one broker take other numbers.
        self._serial = secrets.randbelow(10_000) * 10_000
        self._numbers: list[str] = []
        self._beacon = Beacon(self)
        self.gateway: Child | None = None

    # --- time ---------------------------------------------------------------------------------

    def now_ms(self) -> int:
        return self.clock.now_ms()

    def pass_ms(self, ms: int) -> None:
        """It is so much later, for everybody."""
        self.clock.set(self.now_ms() + ms)

    # --- registry and database ----------------------------------------------------------------

    def new_number(self) -> str:
        """A DRN that no other run on this broker uses."""
        self._serial += 1
        number = drn(MAKER, f"{self._serial:08d}")
        self._numbers.append(number)
        return number

    async def look(self, work: Callable[[Connection], _Result]) -> _Result:
        """Anything of the database of this run. Errors: Unavailable and those of `work`."""
        return await self.session.run(work)

    # --- the gateway process ------------------------------------------------------------------

    async def start_gateway(self) -> None:
        """Up to its being connected and subscribed."""
        await self.gateway_wire.open()
        values = environment(
            PREPAID_DATABASE__URL=self.database_url,
            PREPAID_BROKER__URL=self._through_wire(self.servers.broker_url),
            PREPAID_CLOCK=str(self.clock),
            **self._parts(),
        )
        arguments = ["gateway", "--name", self.tag, "--group", self.tag, "--json"]
        child = Child("gateway", arguments, values, self._folder)
        child.start()
        self.gateway = child
        async with asyncio.timeout(READY_S):
            while child.said() != "ready":
                if not child.running():
                    raise RuntimeError(f"the gateway did not start: {self.gateway_log()}")
                await asyncio.sleep(0.02)

    def _through_wire(self, url: str) -> str:
        """The address of a part of the server, by way of the wire."""
        user, at, _ = urlsplit(url).netloc.rpartition("@")
        return f"mqtt://{user}{at}127.0.0.1:{self.gateway_wire.port}"

    def _parts(self) -> dict[str, str]:
        trust, broker = self.servers.trust, self.servers.mosquitto
        if trust is None or broker is None:
            return {}
        return {
            "PREPAID_BROKER__DISPATCH_URL": self._through_wire(broker.part_url("part.dispatch")),
            "PREPAID_TRUST__SIGNING_KEY": str(trust.signing_key_file),
        }

    def credentials(self, number: str) -> ssl.SSLContext | None:
        """What a meter shows to the broker of this run."""
        if self.servers.trust is None:
            return None
        folder = self.servers.trust.certificates
        return self.broker.tls(folder / f"{number}.pem", folder / f"{number}.key")

    def certify(self, conn: Connection, number: str) -> None:
        """A certificate for a registered meter, where the broker asks for one."""
        if self.servers.trust is not None:
            self.servers.trust.certify(conn, [number])

    async def kill_gateway(self) -> None:
        """As a power cut would; `start_gateway` begins it anew."""
        if self.gateway is not None:
            await asyncio.to_thread(self.gateway.kill)

    def gateway_log(self, lines: int = 20) -> str:
        """The last lines that it logged."""
        path = self._folder / "gateway.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    async def settle(self) -> None:
        """Until everything that was published before is committed and acknowledged."""
        await self._beacon.answered()

    # --- beginning and end --------------------------------------------------------------------

    async def open(self) -> None:
        self.centre = await self.look(lambda conn: registry.add_centre(conn, *CENTRE))
        await self.start_gateway()
        await self._beacon.open()

    async def close(self) -> None:
        """Nothing of the run stays at the broker: no session, no retained word."""
        await self._beacon.close()
        if self.gateway is not None:
            await asyncio.to_thread(self.gateway.stop)
        await self.gateway_wire.close()
        await self.session.close()
        if self.servers.mosquitto is None:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._forget_sessions()

    async def _forget_sessions(self) -> None:
        for name in (*session_names(self.tag), f"prepaid-dispatch-{self.tag}"):
            # A session that is begun clean and ends at once takes its subscription with it.
            async with self._client(name):
                pass
        async with self._client(f"{self.tag}-end") as client:
            for number in self._numbers:
                topic = topics.build(Topic("m", number, "up", "state"))
                await client.publish(topic, b"", qos=1, retain=True)

    def _client(self, name: str, credentials: ssl.SSLContext | None = None) -> aiomqtt.Client:
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
        session.SessionExpiryInterval = 0
        return aiomqtt.Client(
            self.broker.host,
            self.broker.port,
            identifier=name,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            properties=session,
            tls_context=credentials,
        )

    def meter(self, number: str) -> aiomqtt.Client:
        """A connection of a meter that has no other."""
        return self._client(number, self.credentials(number))

    def anybody(self) -> aiomqtt.Client:
        """A connection of our own to say anything on any topic, where the broker lets anybody."""
        return self._client(f"{self.tag}-{secrets.token_hex(3)}")


class Beacon:
    """A meter in stock whose readings are confirmed: what came before one of them is committed.

    It holds because one worker commits in the order in which the broker gives.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._seq = 0
        self._confirmed = 0
        self._number = ""
        self._news = asyncio.Event()
        self._stack: AsyncExitStack | None = None
        self._client: aiomqtt.Client | None = None

    async def open(self) -> None:
        self._number = self._rig.new_number()
        new = NewMeter(self._number)
        await self._rig.look(lambda conn: registry.add_meter(conn, self._rig.centre, new))
        await self._rig.look(lambda conn: self._rig.certify(conn, self._number))

    async def close(self) -> None:
        stack, self._stack, self._client = self._stack, None, None
        if stack is not None:
            with contextlib.suppress(aiomqtt.MqttError):
                await stack.aclose()

    async def answered(self) -> None:
        """Errors: TimeoutError."""
        self._rig.pass_ms(SECOND_MS)
        self._seq += 1
        form = {
            "v": 1,
            "boot": 1,
            "seq": self._seq,
            "ts": format_instant(self._rig.now_ms()),
            "reg": {"1.8.0": self._seq},
            "rcpt": True,
        }
        topic = topics.build(Topic("m", self._number, "up", "reading"))
        async with asyncio.timeout(RECEIPT_S):
            while self._confirmed < self._seq:
                self._news.clear()
                try:
                    client = await self._connected()
                    await client.publish(topic, orjson.dumps(form), qos=1)
                except aiomqtt.MqttError:
                    # The broker was restarted meanwhile, or is away still.
                    await self.close()
                    await asyncio.sleep(SOON_S)
                    continue
                with contextlib.suppress(TimeoutError):
                    # A receipt may be lost with the gateway that would have sent it.
                    await asyncio.wait_for(self._news.wait(), REPEAT_S)

    async def _connected(self) -> aiomqtt.Client:
        if self._client is None:
            self._stack = AsyncExitStack()
            client = await self._stack.enter_async_context(self._rig.meter(self._number))
            receipt = topics.build(Topic("m", self._number, "dn", "receipt"))
            await client.subscribe(receipt, qos=1)
            hearing = asyncio.create_task(self._hear(client))
            self._stack.callback(hearing.cancel)
            self._client = client
        return self._client

    async def _hear(self, client: aiomqtt.Client) -> None:
        # The connection's end shows at the next word; there is nothing to hear until then.
        with contextlib.suppress(aiomqtt.MqttError):
            async for message in client.messages:
                assert isinstance(message.payload, bytes), "receipts are bytes"
                self._confirmed = max(self._confirmed, orjson.loads(message.payload)["seq"])
                self._news.set()


@asynccontextmanager
async def rigged(servers: Servers, folder: Path, seed: int) -> AsyncIterator[Rig]:
    """A rig on these servers, in a database of its own that is dropped at the end."""
    with scratch_database(servers.database_url) as database_url:
        rig = Rig(servers, database_url, folder, seed)
        try:
            await rig.open()
            yield rig
        finally:
            await rig.close()
