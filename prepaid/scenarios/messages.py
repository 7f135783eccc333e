"""Messages that a broken or hostile device sends: kept with their reason, and the next good one is
taken.
"""

from collections.abc import Sequence

import aiomqtt
import cbor2
import orjson
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from prepaid.scenarios.trial import HOUR_MS, INTERVAL_MS, Household, Plan, Trial
from schemas import topics
from schemas.decoding import CBOR, LIMIT_BYTES
from schemas.quantities import format_instant
from schemas.topics import Topic

METERS_OF_BATCH = 6
FAR_MS = 5 * 365 * 24 * HOUR_MS


def reading(trial: Trial, home: Household, **other: object) -> dict[str, object]:
    """A good reading of this instant under the next counter, with some of its keys otherwise."""
    state = home.device.meter.state
    state.seq += 1
    form: dict[str, object] = {
        "v": 1,
        "boot": state.boot,
        "seq": state.seq,
        "ts": format_instant(trial.rig.now_ms()),
        "reg": {"1.8.0": home.device.meter.register_wh(trial.rig.now_ms())},
    }
    return {**form, **other}


async def _amid(
    trial: Trial, bad: Sequence[tuple[bytes, str | None]], home: Household | None = None
) -> Household:
    """An hour of a meter, then bytes (with their content type), then an hour more."""
    if home is None:
        home = await trial.household()
        await trial.connect(home.device)
    await trial.advance(HOUR_MS, home.device)
    for payload, content_type in bad:
        await home.device.publish_raw("reading", payload, content_type)
    await trial.advance(HOUR_MS, home.device)
    return home


async def _connected(trial: Trial) -> Household:
    home = await trial.household()
    await trial.connect(home.device)
    return home


async def negative_and_sentinel(trial: Trial) -> None:
    """A register says -1, another -500: each is refused by its own name, and the other registers of
    the same message are taken.
    """
    home = await _connected(trial)
    for wh in (-1, -500):
        form = reading(trial, home, reg={"1.8.0": wh, "2.8.0": 7})
        await _amid(trial, [(orjson.dumps(form), None)], home)
    home.truth.refused.update(sentinel_register=1, negative_register=1)


async def far_future_and_1970(trial: Trial) -> None:
    """A clock stands five years ahead, then in 1970: both are refused, and neither becomes the
    newest reading.
    """
    home = await _connected(trial)
    instants = (format_instant(trial.rig.now_ms() + FAR_MS), "1970-01-01T00:03:20Z")
    bad = [(orjson.dumps(reading(trial, home, ts=ts)), None) for ts in instants]
    await _amid(trial, bad, home)
    home.truth.refused.update(future=1, clock_1970=1)


async def zoneless_time(trial: Trial) -> None:
    """Instants come without a zone, as local digits, and as a number: refused as bad_instant or
    wrong_type, never guessed.
    """
    home = await _connected(trial)
    local = format_instant(trial.rig.now_ms()).removesuffix("Z")
    words: tuple[object, ...] = (local, local.replace("T", " "), "20261103061500", 1_793_686_500)
    bad = [(orjson.dumps(reading(trial, home, ts=word)), None) for word in words]
    await _amid(trial, bad, home)
    home.truth.refused.update(bad_instant=3, wrong_type=1)


async def same_seq_different_value(trial: Trial) -> None:
    """A message comes again with the same counter and instant and another register: the first
    stays, the second is kept as a conflict.
    """
    home = await _connected(trial)
    await trial.advance(HOUR_MS, home.device)
    row = home.device.meter.state.pending[-1]
    other = {"boot": row.boot, "seq": row.seq, "ts": format_instant(row.ts_ms)}
    form = reading(trial, home, **other, reg={"1.8.0": row.wh + 400})
    await _amid(trial, [(orjson.dumps(form), None)], home)
    home.truth.refused.update(conflict=1)


async def unknown_version(trial: Trial) -> None:
    """Messages of version 2, "1" and none come: each is refused, and version 1 goes on."""
    home = await _connected(trial)
    forms = [reading(trial, home, v=2), reading(trial, home, v="1"), reading(trial, home)]
    del forms[2]["v"]
    await _amid(trial, [(orjson.dumps(form), None) for form in forms], home)
    home.truth.refused.update(unknown_version=3)


async def broken_json_and_cbor(trial: Trial) -> None:
    """Cut JSON, bytes of no text, cut CBOR and a thousand brackets come: refused as undecodable,
    and good CBOR beside them is taken.
    """
    home = await _connected(trial)
    good = reading(trial, home)
    text, binary = orjson.dumps(good), cbor2.dumps(good)
    bad: list[tuple[bytes, str | None]] = [
        (text[:-7], None),
        (b"\xff\xfe\x00rubbish", None),
        (b"[" * 1000, None),
        (binary[:-5], CBOR),
        (text, CBOR),
        (binary, None),
    ]
    await _amid(trial, bad, home)
    trial.rig.pass_ms(1000)
    await home.device.publish_raw("reading", cbor2.dumps(reading(trial, home)), CBOR)
    _said_now(trial, home)
    home.truth.refused.update(undecodable=6)


def _said_now(trial: Trial, home: Household) -> None:
    """A reading of this instant was said in another way than the meter's."""
    device, now_ms = home.device, trial.rig.now_ms()
    device.truth[now_ms] = device.arrived[now_ms] = device.meter.register_wh(now_ms)


# --- a gateway's batch ------------------------------------------------------------------------


async def behind(trial: Trial, gateway: str, count: int) -> list[Household]:
    return [await trial.household(Plan(gateway=gateway)) for _ in range(count)]


async def say_as(trial: Trial, gateway: str, payload: bytes, cbor: bool = False) -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
    if cbor:
        properties.ContentType = CBOR
    topic = topics.build(Topic("g", gateway, "up", "batch"))
    client: aiomqtt.Client
    async with trial.rig.anybody() as client:
        await client.publish(topic, payload, qos=1, properties=properties)


def rows_of(homes: Sequence[Household], t0_ms: int, dt_ms: int, slots: int) -> list[list[object]]:
    """What the meters measured in these slots; it counts as said."""
    rows: list[list[object]] = []
    for home in homes:
        device = home.device
        values = []
        for i in range(slots):
            wh = device.meter.register_wh(t0_ms + i * dt_ms)
            device.truth[t0_ms + i * dt_ms] = device.arrived[t0_ms + i * dt_ms] = wh
            values.append([wh])
        rows.append([device.number, 1, device.meter.state.seq + 1, values])
        device.meter.state.seq += slots
    return rows


def batch(t0_ms: int, dt_ms: int, rows: Sequence[object]) -> dict[str, object]:
    return {
        "v": 1,
        "t0": format_instant(t0_ms),
        "dt": dt_ms // 1000,
        "cols": ["1.8.0"],
        "rows": list(rows),
    }


async def batch_with_one_bad_row(trial: Trial) -> None:
    """A gateway's batch holds a row of nonsense and a row of another gateway's meter: both are
    refused as rows, and all the others are taken; the same again as CBOR.
    """
    gateway = f"{trial.rig.tag}-a"
    homes = await behind(trial, gateway, METERS_OF_BATCH)
    (stranger,) = await behind(trial, f"{trial.rig.tag}-b", 1)
    for number, cbor in ((1, False), (2, True)):
        begin_ms = trial.rig.now_ms()
        await trial.advance(4 * INTERVAL_MS)
        first_ms = begin_ms + INTERVAL_MS
        bad: list[object] = [
            [homes[0].device.number, 1, f"seq {number}", [[1]]],
            [stranger.device.number, 1, 100 * number, [[999_999]]],
        ]
        form = batch(first_ms, INTERVAL_MS, [*rows_of(homes, first_ms, INTERVAL_MS, 4), *bad])
        payload = cbor2.dumps(form) if cbor else orjson.dumps(form)
        await say_as(trial, gateway, payload, cbor)
    for home in homes:
        home.truth.refused.update(wrong_type=2, not_assigned=2)
    trial.figures["taken"] = f"{8 * METERS_OF_BATCH} readings"


async def message_of_64_kib(trial: Trial) -> None:
    """A batch of exactly 64 KiB and a meter's list of exactly 4 KiB come, and each once more with a
    byte too many: the first are taken whole, the others refused as too_large.
    """
    gateway = f"{trial.rig.tag}-c"
    homes = await behind(trial, gateway, METERS_OF_BATCH)
    begin_ms, dt_ms, slots = trial.rig.now_ms() + 60_000, 4_000, 800
    await trial.advance(HOUR_MS)
    payload = orjson.dumps(batch(begin_ms, dt_ms, rows_of(homes, begin_ms, dt_ms, slots)))
    whole = payload.ljust(LIMIT_BYTES["g"])
    trial.expect("bytes of the batch", LIMIT_BYTES["g"], len(whole))
    await say_as(trial, gateway, whole)
    await say_as(trial, gateway, whole + b" ")
    for home in homes:
        home.truth.refused.update(too_large=1)
    single = await _connected(trial)
    trial.rig.pass_ms(1000)
    text = orjson.dumps([reading(trial, single)]).ljust(LIMIT_BYTES["m"])
    await single.device.publish_raw("reading", text)
    await single.device.publish_raw("reading", text + b" ")
    _said_now(trial, single)
    single.truth.refused.update(too_large=1)
    trial.figures["batch"] = f"{METERS_OF_BATCH * slots} readings"
