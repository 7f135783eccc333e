"""Who gets in and what they may do, by real handshakes with a real broker."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiomqtt
import psycopg
import pytest

from meter_gateway.checked_client import CheckedClient
from meter_gateway.receiver import BrokerAddress, Receiver
from meter_gateway.tls import TlsFiles
from prepaid.clock import wall_ms
from prepaid.runtime import Binaries
from prepaid.runtime.server_process import LOOPBACK
from prepaid.trust.authority import Authority, key_pem, new_key
from prepaid.trust.broker_log import LogFile, Tally, read_line
from schemas.topics import shared_up_filter
from store import trust

METER, OTHER, PASSWORD_METER, PSK_METER = (
    "37000000017", "37000000025", "37000000033", "37000000041",
)  # fmt: skip
GATEWAY, CLAIM, HOST = "DCU-7", "claim.batch-1", "broker.utility.example"
ANSWER_S = 5

Site = Any


def up(meter: str, kind: str = "reading", side: str = "m") -> str:
    return f"pm/v1/{side}/{meter}/up/{kind}"


async def heard(client: CheckedClient) -> tuple[str, bytes]:
    async with asyncio.timeout(ANSWER_S):
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            return message.topic.value, message.payload
    raise AssertionError("the connection ended")


async def denied(client: CheckedClient, topic: str) -> None:
    client.raise_refused()
    await client.publish(topic, b"foreign", qos=1)
    with pytest.raises(aiomqtt.MqttError, match="Not authorized"):
        client.raise_refused()


def part(site: Site, name: str, **options: Any) -> CheckedClient:
    at = site.part(name)
    return site.client("parts", username=at.username, password=at.password, **options)


async def test_what_a_certified_device_says_reaches_ingest_and_nothing_else_does(
    site: Site,
) -> None:
    receiver = Receiver(site.part("ingest"), "prepaid-ingest-t1", shared_up_filter("t1"))
    running = asyncio.create_task(receiver.run())
    try:
        async with asyncio.timeout(ANSWER_S):
            await receiver.connected.wait()
        async with site.device(METER) as meter, site.device(GATEWAY) as gateway:
            for topic in (up(OTHER), up(OTHER, side="g"), f"pm/v1/m/{METER}/dn/cmd", "pm/v1/x"):
                await denied(meter, topic)
            await denied(gateway, up(METER))
            await meter.publish(up(METER), b"own", qos=1)
            await gateway.publish(up(GATEWAY, "batch", "g"), b"own", qos=1)
            async with asyncio.timeout(ANSWER_S):
                taken = []
                while len(taken) < 2:
                    taken += await receiver.take(10, 0)
        assert {(each.topic, each.payload) for each in taken} == {
            (up(METER), b"own"),
            (up(GATEWAY, "batch", "g"), b"own"),
        }
    finally:
        await receiver.close()
        running.cancel()


async def test_a_publication_on_anothers_topic_is_refused_and_counted(
    site: Site, until: Callable[..., Any]
) -> None:
    log, tally = LogFile(site.log), Tally()
    async with site.device(METER) as meter:
        for _ in range(2):
            await denied(meter, up(OTHER))
        await meter.subscribe(f"pm/v1/m/{OTHER}/dn/+", qos=1)

    assert not site.admits(site.context(None))
    assert not site.admits(site.context(None), "passwords", METER, "guessed")
    reasons: set[str] = set()

    def read() -> bool:
        for seen in filter(None, map(read_line, log.lines())):
            reasons.add(seen.reason)
            tally.add(seen)
        return reasons >= {
            "denied_publish", "foreign_subscription", "certificate_refused", "login_refused",
        }  # fmt: skip

    until(read, "the broker did not tell all")
    counted = {(each.device, each.reason): each for each in tally.take()}
    assert counted[METER, "broker:denied_publish"].times == 2
    assert counted[METER, "broker:denied_publish"].detail == up(OTHER)
    assert counted[METER, "broker:foreign_subscription"].times == 1
    with psycopg.connect(site.database_url, autocommit=True) as conn:
        trust.count_refusals(conn, counted.values(), 0)
        trust.count_refusals(conn, counted.values(), 1)
        rows = {(each.device, each.reason): each for each in trust.refusals(conn, 0)}
    assert rows[METER, "broker:denied_publish"].times == 4


def test_an_operator_pipes_the_log_in_and_sees_who_was_refused(site: Site) -> None:
    told = f"1: Denied PUBLISH from {OTHER} (d0, q1, r0, m1, '{up(METER)}', ... (2 bytes))\n"
    assert site.prepaid_reading(told * 3, "broker", "watch", "-")[0] == 0
    shown = [json.loads(line) for line in site.done("broker", "refusals", "--json").splitlines()]
    (mine,) = [each for each in shown if each["device"] == OTHER]
    assert (mine["reason"], mine["times"], mine["last_detail"]) == (
        "broker:denied_publish", 3, up(METER),
    )  # fmt: skip
    assert f"{OTHER}  broker:denied_publish  3" in site.done("broker", "refusals")


async def test_another_devices_downlink_is_not_delivered_even_if_it_is_asked_for(
    site: Site,
) -> None:
    async with site.device(METER) as meter, part(site, "dispatch") as sender:
        for topic in ("#", f"pm/v1/m/{OTHER}/dn/+", f"pm/v1/m/{METER}/dn/+"):
            await meter.subscribe(topic, qos=1)
        await sender.publish(f"pm/v1/m/{OTHER}/dn/cmd", b"not for you", qos=1)
        await sender.publish(f"pm/v1/m/{METER}/dn/cmd", b"for you", qos=1)
        assert (await heard(meter))[1] == b"for you"


@pytest.mark.parametrize(
    ("name", "topic"),
    [
        ("dispatch", up(METER)),
        ("ingest", f"pm/v1/m/{METER}/dn/cmd"),
        ("ingest", up(METER)),
        ("enrolment", f"pm/v1/m/{METER}/dn/cmd"),
        ("watch", f"pm/v1/m/{METER}/dn/cmd"),
        ("watch", up("part.watch")),
    ],
)
async def test_a_part_of_the_server_may_do_its_own_work_only(
    site: Site, name: str, topic: str
) -> None:
    async with part(site, name) as client:
        await denied(client, topic)


async def test_a_claim_may_ask_and_nothing_else(site: Site) -> None:
    async with site.device(CLAIM) as claim:
        await claim.publish(f"pm/v1/e/{CLAIM}/csr", b"{}", qos=1)
        for topic in (
            up(METER), up(CLAIM), up(CLAIM, "batch", "g"), "pm/v1/e/claim.other/csr",
            f"pm/v1/e/{CLAIM}/cert",
        ):  # fmt: skip
            await denied(claim, topic)


async def test_a_device_cannot_take_over_anothers_session(site: Site) -> None:
    async with site.device(OTHER) as victim:
        await victim.subscribe(f"pm/v1/m/{OTHER}/dn/+", qos=1)
        async with site.device(METER, identifier=OTHER) as thief:
            await thief.publish(up(METER), b"{}", qos=1)
            async with part(site, "dispatch") as sender:
                await sender.publish(f"pm/v1/m/{OTHER}/dn/cmd", b"still here", qos=1)
            assert (await heard(victim))[1] == b"still here"


def test_without_a_certificate_of_ours_nobody_gets_in(site: Site, tmp_path: Path) -> None:
    stranger, key = Authority.create("prepaid devices", wall_ms()), new_key()
    forged = stranger.issue(key.public_key(), "meter", METER, wall_ms())
    (tmp_path / "x.pem").write_bytes(forged.pem)
    (tmp_path / "x.key").write_bytes(key_pem(key))
    context = site.context(None)
    context.load_cert_chain(tmp_path / "x.pem", tmp_path / "x.key")
    assert site.admits(site.context(METER))
    assert not site.admits(context)
    assert not site.admits(site.context(None))
    assert not site.admits(site.context(None), "passwords")
    assert not site.admits(None, "parts")
    # Plain text on the listeners for devices.
    assert not site.admits(None)
    assert not site.admits(None, "passwords")


async def test_a_client_refuses_a_broker_that_it_cannot_name(site: Site, tmp_path: Path) -> None:
    """The receiver's own TLS, with a certificate, by the name that the broker was given."""
    ca, port = site.folder / "ca" / "ca.pem", site.ports["certificates"]
    mine = (site.certs / f"{METER}.pem", site.certs / f"{METER}.key")
    (tmp_path / "other.pem").write_bytes(Authority.create("other", wall_ms()).pem)
    for files, lets_in in (
        (TlsFiles(ca, *mine, server_name=HOST), True),
        (TlsFiles(ca, *mine, server_name="other.example"), False),
        (TlsFiles(tmp_path / "other.pem", *mine, server_name=HOST), False),
    ):
        address = BrokerAddress.parse(f"mqtts://{LOOPBACK}:{port}", files)
        receiver = Receiver(address, METER, f"pm/v1/m/{METER}/dn/+")
        if lets_in:
            await receiver._connect()
            await receiver.close()
        else:
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                await receiver._connect()


async def test_a_password_is_taken_until_it_is_forgotten_and_then_the_connection_ends(
    site: Site, until: Callable[..., Any]
) -> None:
    secret = site.done("broker", "password", PASSWORD_METER).strip()

    def admitted(word: str) -> bool:
        return bool(site.admits(site.context(None), "passwords", PASSWORD_METER, word))

    until(lambda: admitted(secret), "the password is not taken")
    assert not admitted("wrong")
    device = site.client(
        "passwords", username=PASSWORD_METER, password=secret, tls_context=site.context(None)
    )

    async def live() -> None:
        async with device as client, asyncio.timeout(ANSWER_S):
            await client.publish(up(PASSWORD_METER), b"{}", qos=1)
            site.done("broker", "forget", PASSWORD_METER)
            async for _ in client.messages:
                pass

    with pytest.raises(aiomqtt.MqttError):
        await live()
    assert not admitted(secret)
    assert site.prepaid("broker", "forget", PASSWORD_METER)[0] == 2


def test_a_pre_shared_key_lets_its_own_device_in(
    site: Site, binaries: Binaries, until: Callable[..., Any]
) -> None:
    client = binaries.mosquitto.clients / "mosquitto_pub"
    if not client.exists():
        pytest.skip("no client here speaks TLS with pre-shared keys")
    key = site.done("broker", "psk", PSK_METER).strip()

    def says(secret: str, topic: str) -> bool:
        command = [
            str(client), "-h", LOOPBACK, "-p", str(site.ports["keys"]), "--psk", secret,
            "--psk-identity", PSK_METER, "-q", "1", "-V", "5", "-t", topic, "-m", "{}", "-d",
        ]  # fmt: skip
        ran = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return ran.returncode == 0 and "not authorized" not in (ran.stdout + ran.stderr).lower()

    until(lambda: says(key, up(PSK_METER)), "the key is not taken")
    assert not says("00" * 32, up(PSK_METER))
    assert not says(key, up(METER))
