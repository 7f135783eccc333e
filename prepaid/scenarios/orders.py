"""Commands that come twice, late or not at all, and relays that do not do what they say."""

import secrets
from collections.abc import Sequence

import orjson

from prepaid.scenarios.trial import HOUR_MS, MICRO, MINUTE_MS, Household, Plan, Trial
from schemas import topics
from schemas.identity import command_id
from schemas.quantities import format_instant
from schemas.topics import Topic
from schemas.wire import Relay
from simulators.meter import Meter, Publish
from store.supply import RELAY_EXPIRY_MS

# Enough for a few hours beside the charge of a midnight.
LITTLE = Plan(credit=3 * MICRO)
AFTER_EXPIRY_MS = RELAY_EXPIRY_MS + MINUTE_MS


class LostAcks:
    """A link that loses the meter's answers while `losing`, and keeps them."""

    def __init__(self) -> None:
        self.losing = True
        self.lost: list[Publish] = []

    def __call__(self, said: Sequence[Publish]) -> list[Publish]:
        if not self.losing:
            return list(said)
        self.lost += [message for message in said if message.kind == "ack"]
        return [message for message in said if message.kind != "ack"]


async def _cut(trial: Trial, home: Household, state: str = "done") -> bytes:
    """The household runs out of credit, its meter hears the order, and the server heard of it; the
    order as it came.
    """
    await trial.connect(home.device)
    await trial.use_up(home)
    await trial.until_heard(home.device, "relay")
    await trial.until_command(home, "relay", state)
    return home.device.commands("relay")[-1]


async def _relay_orders(trial: Trial, home: Household) -> list[tuple[str, str]]:
    return [
        (str((each.args or {}).get("to")), each.state)
        for each in await trial.commands(home)
        if each.type == "relay"
    ]


async def ack_lost(trial: Trial) -> None:
    """A meter cuts as ordered and its answer is lost: the server reads it instead of cutting again,
    and knows the relay as it is.
    """
    link = LostAcks()
    home = await trial.household(Plan(credit=LITTLE.credit, distort=link))
    order = orjson.loads(await _cut(trial, home, "sent"))
    link.losing = False
    trial.rig.pass_ms(AFTER_EXPIRY_MS)
    await trial.until_command(home, "read", "done")
    await trial.advance(HOUR_MS, home.device)
    await trial.rig.settle()
    home.truth.overtaken[order["cmd"]] = "unknown"
    trial.expect("the relay moved", 1, home.device.switched)
    trial.expect("orders", [("open", "unknown")], await _relay_orders(trial, home))


async def ack_after_expiry(trial: Trial) -> None:
    """The answer to an order comes after the order's end, and another order reaches its meter after
    its end: the late answer still tells how the first ended, the second moves nothing.
    """
    link = LostAcks()
    home = await trial.household(Plan(credit=LITTLE.credit, distort=link))
    away = await trial.household()
    await trial.connect(away.device)
    await trial.rig.settle()
    await _cut(trial, home, "sent")
    await away.device.vanish()
    too_late = await trial.order(away, "relay", {"to": "open", "why": "test of a late order"})
    await trial.until_command(away, "relay", "sent")
    trial.rig.pass_ms(AFTER_EXPIRY_MS)
    await trial.until_command(home, "relay", "unknown")
    link.losing = False
    await home.device.say(link.lost)
    await trial.until_command(home, "relay", "done")
    await trial.connect(away.device)
    await trial.until_heard(away.device, "relay")
    await trial.until_command(away, "relay", "failed")
    trial.expect("answer to the late order", "failed", away.device.answers.get(too_late))
    trial.expect("the relay moved by it", 0, away.device.switched)


async def ack_for_unknown_command(trial: Trial) -> None:
    """A meter answers a command that nobody gave, and one of another meter: both answers are kept
    as unknown_command and change nothing.
    """
    home = await trial.household(Plan(credit=LITTLE.credit))
    other = await trial.household()
    await trial.connect(other.device)
    order = orjson.loads(await _cut(trial, home))
    nobodys = command_id(trial.rig.now_ms(), secrets.token_bytes(10))
    for cmd in (nobodys, order["cmd"], "no-number-of-ours"):
        ack = {
            "v": 1,
            "cmd": cmd,
            "state": "failed",
            "ts": format_instant(trial.rig.now_ms()),
        }
        await other.device.publish_raw("ack", orjson.dumps(ack))
    other.truth.refused.update(unknown_command=3)


async def duplicate_command(trial: Trial) -> None:
    """The network brings the order to cut and the token once more: the meter repeats its answers,
    moves its relay once and enters the token once.
    """
    home = await trial.household(LITTLE)
    device = home.device
    off = await _cut(trial, home)
    await _again(trial, home, off)
    await trial.pay(home, 50 * MICRO)
    await trial.until_heard(device, "token")
    await trial.until_command(home, "token", "done")
    await trial.until_command(home, "relay", "done")
    # What came last before is answered from memory; what came earlier is stale.
    for payload in (*device.commands("token"), *device.commands("relay")[-1:]):
        await _again(trial, home, payload)
    home.truth.overtaken = {each.id: each.state for each in await trial.commands(home)}
    results = list(device.tokens.results.values())
    trial.expect("tokens entered", [["Accept"]], results)
    trial.expect("the relay moved", 2, device.switched)


async def _again(trial: Trial, home: Household, payload: bytes) -> None:
    """The same bytes once more on the meter's topic, as a broker may."""
    before = len(home.device.heard)
    topic = topics.build(Topic("m", home.device.number, "dn", "cmd"))
    async with trial.rig.anybody() as client:
        await client.publish(topic, payload, qos=1)
    heard = await home.device.until(lambda: len(home.device.heard) > before, 30)
    trial.expect("the repeat was heard", True, heard)


async def stale_off_after_on(trial: Trial) -> None:
    """A customer pays and is on again; then the old order to cut comes once more: the meter refuses
    it as stale, and the light stays on.
    """
    home = await trial.household(LITTLE)
    off = await _cut(trial, home)
    await trial.pay(home, 100 * MICRO)
    await trial.until_heard(home.device, "relay", 2)
    await trial.until_command(home, "relay", "done")
    await _again(trial, home, off)
    trial.expect("the relay", "closed", home.device.meter.state.relay)
    last = orjson.loads(home.device.said[-1].payload)
    trial.expect("the meter's answer", ("refused", "stale"), (last["state"], last.get("why")))
    home.truth.overtaken[orjson.loads(off)["cmd"]] = "done"
    await trial.advance(HOUR_MS, home.device)


class WeldedMeter(Meter):
    """Its contacts are welded: it believes that they open, and the energy goes on."""

    def _move_relay(self, now_ms: int, to: Relay) -> None:
        self.state.relay = to


async def relay_stuck(trial: Trial) -> None:
    """A meter says that its relay is open and its register goes on: all of the energy is charged,
    below zero, and the order to cut is not repeated for ever.
    """
    home = await trial.household(LITTLE)
    device = home.device
    device.meter.__class__ = WeldedMeter
    await _cut(trial, home)
    before = device.meter.register_wh(trial.rig.now_ms())
    await trial.advance(3 * HOUR_MS, device)
    used_wh = device.meter.register_wh(trial.rig.now_ms()) - before
    trial.expect("energy behind an open relay", True, used_wh > 0)
    trial.expect("orders", [("open", "done")], await _relay_orders(trial, home))
    trial.figures["used"] = f"{used_wh} Wh behind an open relay"


async def relay_moved_by_hand(trial: Trial) -> None:
    """A customer without credit closes the relay by hand: the energy is charged, and the meter is
    ordered to cut again.
    """
    await _moved_by_hand(trial, LITTLE)


async def _moved_by_hand(trial: Trial, plan: Plan) -> None:
    home = await trial.household(plan)
    device = home.device
    await _cut(trial, home)
    trial.rig.pass_ms(MINUTE_MS)
    await device.move_by_hand("closed")
    await trial.advance(device.wake_ms() - trial.rig.now_ms(), device)
    await trial.until_heard(device, "relay", 2)
    await trial.advance(HOUR_MS, device)
    trial.expect("the relay", "open", device.meter.state.relay)
    trial.expect("the relay moved", 3, device.switched)


async def relay_moved_by_hand_and_clock_behind(trial: Trial) -> None:
    """The same with a meter whose clock is five minutes behind, as far as may be: it is ordered to
    cut again all the same.
    """
    await _moved_by_hand(trial, Plan(credit=LITTLE.credit, ago_ms=HOUR_MS, behind_ms=5 * MINUTE_MS))
