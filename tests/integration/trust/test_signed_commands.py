"""A dispatcher that signs for a simulated meter with a certificate; and a forger who has every
right at the broker, but not the key.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import structlog

from meter_gateway.dispatch import Dispatcher
from prepaid.clock import wall_ms
from prepaid.secrets_files import read_secret
from schemas.commands import Command, payload
from schemas.signing import SigningKey, VerificationKey
from simulators import fleet
from simulators.meter import Meter, Nameplate
from simulators.state_file import StateFile
from store import registry, supply
from store.session import Session

METER = "37000000025"
ANSWER_S = 15
HOUR_MS = 3_600_000
Site = Any


class NoLoad:
    def energy_wh(self, ms: int) -> int:
        return 0


class Answers:
    """What the meter said on `up/ack`, to wait for."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        # It has subscribed by then; before its first session the broker keeps nothing for it.
        self.hello = asyncio.Event()

    def sent(self, meter: str, kind: str, content: bytes) -> None:
        if kind == "hello":
            self.hello.set()
        if kind == "ack":
            self._said.put_nowait(json.loads(content))

    async def next(self) -> tuple[str, str, str | None]:
        async with asyncio.timeout(ANSWER_S):
            said = await self._said.get()
        return said["cmd"], said["state"], said.get("why")


@asynccontextmanager
async def living(site: Site, folder: Path, meter: Meter, answers: Answers) -> AsyncIterator[None]:
    """The meter on the broker, with its certificate."""
    with StateFile(folder) as state_file:
        at = fleet.Site(
            broker=fleet.Broker("localhost", site.ports["certificates"], site.ca_file),
            state_file=state_file,
            now_ms=wall_ms,
            sent=answers.sent,
        )
        certificate, key = site.certs / f"{METER}.pem", site.certs / f"{METER}.key"
        member = fleet.Member(meter, certificate=certificate, private_key=key)
        stop = asyncio.Event()
        running = asyncio.create_task(fleet.run_fleet(at, [member], stop))
        try:
            async with asyncio.timeout(ANSWER_S):
                await answers.hello.wait()
            yield
        finally:
            stop.set()
            await running


def queue(site: Site, kind: str, **args: object) -> str:
    with psycopg.connect(site.database_url, autocommit=True) as conn:
        meter = registry.find_meter(conn, METER)
        assert meter is not None
        now_ms = wall_ms()
        return supply.queue(conn, meter, kind, args, now_ms, now_ms + HOUR_MS)  # type: ignore[arg-type]


def state_of(site: Site, cmd: str) -> str:
    with psycopg.connect(site.database_url) as conn:
        row = conn.execute("SELECT state FROM command WHERE id = %s", (cmd,)).fetchone()
        assert row is not None
        return str(row[0])


@asynccontextmanager
async def dispatching(
    site: Site, key: SigningKey | None, part: str = "dispatch"
) -> AsyncIterator[None]:
    session, stopping = Session(site.database_url, "dispatch"), asyncio.Event()
    at = Dispatcher(site.part(part), f"prepaid-{part}-signed", session, wall_ms, 1, key)
    running = asyncio.create_task(at.run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await running
        await session.close()


async def test_a_meter_obeys_the_server_and_not_who_runs_the_broker(
    site: Site, tmp_path: Path
) -> None:
    shown = site.done("certs", "signing-key", str(tmp_path / "one")).strip()
    key = SigningKey.from_pem(read_secret(tmp_path / "one"))
    assert key.verification_key == VerificationKey(shown)
    answers, state = Answers(), StateFile(tmp_path)
    plate = Nameplate(METER, 0, 900_000, 0, (key.verification_key,))
    meter = Meter(plate, NoLoad(), state.load(METER))
    async with living(site, tmp_path, meter, answers):
        async with dispatching(site, key):
            cmd = queue(site, "relay", to="open", why="test")
            assert await answers.next() == (cmd, "accepted", None)
            assert await answers.next() == (cmd, "done", None)
        now_ms = wall_ms()
        close = Command("forged", "relay", 10**9, now_ms - 1000, now_ms + HOUR_MS, {"to": "close"})
        stranger = SigningKey.from_octets(b"stranger" * 4)
        forger = site.part("dispatch")
        async with site.client(
            "parts", username=forger.username, password=forger.password
        ) as broker:
            for forged, why in (
                (payload(close), "unsigned"),
                (payload(*stranger.sign_command(close, METER)), "bad_signature"),
            ):
                await broker.publish(f"pm/v1/m/{METER}/dn/cmd", forged, qos=1)
                assert await answers.next() == ("forged", "refused", why)
        assert meter.state.relay == "open"

        new = SigningKey.from_octets(b"new key " * 4)
        site.environ["PREPAID_TRUST__SIGNING_KEY"] = str(tmp_path / "one")
        said = await asyncio.to_thread(
            site.done, "certs", "publish-keys", shown, new.verification_key.text, "--by", "a"
        )
        assert said.startswith("version 1 ")
        async with dispatching(site, new):
            cmd = queue(site, "relay", to="close", why="test")
            assert await answers.next() == (cmd, "accepted", None)
            assert await answers.next() == (cmd, "done", None)
    assert meter.state.cfg_version == 1


async def test_a_command_that_the_broker_refuses_stays_queued(site: Site, until: Any) -> None:
    cmd = queue(site, "read")
    with structlog.testing.capture_logs() as logs:
        async with dispatching(site, None, "watch"):
            async with asyncio.timeout(ANSWER_S):
                while not any(each["event"] == "dispatch_lost_broker" for each in logs):
                    await asyncio.sleep(0.02)
    assert "Not authorized" in logs[0]["reason"]
    assert state_of(site, cmd) == "queued"
