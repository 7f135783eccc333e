"""Devices that are not who they say, and orders that nobody gave: at a broker with certificates."""

import asyncio

import aiomqtt
import orjson

from meter_gateway.receiver import BrokerAddress
from prepaid.clock import wall_ms
from prepaid.demo.trust import DemoTrust
from prepaid.runtime import Mosquitto
from prepaid.scenarios.messages import reading
from prepaid.scenarios.trial import HOUR_MS, WAIT_S, Household, Trial
from prepaid.trust.authority import Authority
from prepaid.trust.broker_log import LogFile, Seen, read_line
from prepaid.trust.desk import Desk, end_connection
from prepaid.trust.files import passphrase
from schemas.commands import Command, payload
from schemas.identity import command_id
from schemas.topics import Topic, build
from store import trust as certificates
from store.pool import Connection
from store.supply import RELAY_EXPIRY_MS

WHO = "scenario"


def _guarded(trial: Trial) -> tuple[DemoTrust, Mosquitto]:
    servers = trial.rig.servers
    assert servers.trust is not None, "it is played at a broker with certificates"
    assert servers.mosquitto is not None, "that broker is ours"
    return servers.trust, servers.mosquitto


async def _two(trial: Trial) -> tuple[Household, Household]:
    first, second = await trial.household(), await trial.household()
    await trial.connect(first.device, second.device)
    await trial.advance(HOUR_MS, first.device, second.device)
    return first, second


async def certificate_of_a_on_topic_of_b(trial: Trial) -> None:
    """A meter with its own good certificate publishes readings of another meter: the broker refuses
    and tells of each, nothing of it arrives, and both go on.
    """
    _, broker = _guarded(trial)
    thief, victim = await _two(trial)
    log = LogFile(broker.log)
    seen: list[Seen] = []
    for _ in range(3):
        trial.rig.pass_ms(1000)
        forged = orjson.dumps(reading(trial, victim, reg={"1.8.0": 999_999}))
        await thief.device.publish_as(victim.device.number, "reading", forged)

    async def told() -> bool:
        seen.extend(filter(None, map(read_line, log.lines())))
        return len([each for each in seen if each.reason == "denied_publish"]) >= 3

    await trial.until("refusals in the broker's log", told)
    denied = {(each.device, each.detail) for each in seen if each.reason == "denied_publish"}
    topic = build(Topic("m", victim.device.number, "up", "reading"))
    trial.expect("who was refused what", {(thief.device.number, topic)}, denied)
    await trial.advance(HOUR_MS, thief.device, victim.device)
    trial.figures["refused"] = "3 publications"


async def revoked_certificate(trial: Trial) -> None:
    """A certificate is revoked while its meter is connected: the connection ends, no new one opens,
    and the other meters go on.
    """
    trust, broker = _guarded(trial)
    lost, other = await _two(trial)
    number = lost.device.number
    desk = Desk(Authority.load(trust.ca, passphrase(trust.ca_passphrase)), trust.ca, broker.files)

    def revoke(conn: Connection) -> bool:
        certificates.revoke(conn, number, WHO, "the meter was stolen", wall_ms(), None)
        return desk.publish_revocations(conn, wall_ms())

    trial.expect("a broker that reads the list", True, await trial.rig.look(revoke))
    address = BrokerAddress.parse(broker.part_url("part.watch"))
    trial.expect("the connection ends", True, await end_connection(address, number))
    trial.expect("the meter sees it", True, await lost.device.thrown_out(WAIT_S))
    await lost.device.vanish()
    trial.expect("a new connection", "refused", await _knock(lost))
    await trial.advance(HOUR_MS, lost.device, other.device)
    trial.figures["lost"] = (
        f"{len(lost.device.truth) - len(lost.device.arrived)} readings stay outside"
    )


async def _knock(home: Household) -> str:
    try:
        async with asyncio.timeout(WAIT_S):
            await home.device.connect()
    except aiomqtt.MqttError:
        await home.device.vanish()
        return "refused"
    return "opened"


async def forged_order(trial: Trial) -> None:
    """Somebody with power over the broker sends orders to cut, one unsigned and one under a foreign
    key: the meter refuses both, and the light stays on.
    """
    home, _ = await _two(trial)
    device, now_ms = home.device, trial.rig.now_ms()
    for signature in (None, "A" * 86):
        cmd = command_id(now_ms, trial.random.randbytes(10))
        args = {"to": "open", "why": "out_of_credit"}
        order = Command(cmd, "relay", 1000, now_ms, now_ms + RELAY_EXPIRY_MS, args)
        await device.obey(payload(order, signature))
        trial.expect("its answer", "refused", device.answers.get(cmd))
        home.truth.forged.add(cmd)
    home.truth.refused.update(unknown_command=2)
    trial.expect("the relay", "closed", device.meter.state.relay)
    await trial.advance(HOUR_MS, device)
