"""The adapter: foreign topics -> profile -> readings of the contract -> the commit of any reading.

- Source: the topics of the profiles, in a persistent session of its own; one adapter per profile,
  since a Sparkplug node's messages belong in one place and in order.
- Delivery: a foreign message is acknowledged after the commit of what it says. A repeat is the
  same reading. What was sent with QoS 0 (Sparkplug data) may be lost; totals make up for it.
- Refused: what cannot be taken is kept with its reason, as for our own meters.
- Memory: Sparkplug births of at most `NODES_MAX` nodes, and the highest frame counter of a device.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import aiomqtt
import orjson
import structlog

from meter_gateway.dispatch import RETRY_S, publishing_client
from meter_gateway.foreign import dlms, json_messages
from meter_gateway.foreign.device_profile import DlmsProfile, JsonProfile, SparkplugProfile
from meter_gateway.foreign.keys import SealingKey, unseal
from meter_gateway.foreign.sparkplug import SparkplugNodes, rebirth_request
from meter_gateway.foreign.values import ForeignReading, ForeignState, placed_ms
from meter_gateway.inbox import Delivery
from meter_gateway.receiver import BrokerAddress
from schemas.decoding import decode_up
from schemas.errors import DomainError
from schemas.quantities import format_instant
from schemas.telemetry import Decoded, PayloadError, Reason, Refused
from schemas.topics import Topic
from store.devices import Device, FrameCounter, find
from store.errors import Unavailable
from store.incoming import Incoming
from store.session import Session

log = structlog.get_logger()

# A concentrator's message is the largest that the contract takes; a foreign one is not larger.
PAYLOAD_MAX = 64 * 1024
NAME_MAX = 200
REQUESTS_MAX = 1000
RETRY_DEVICES_S = 1.0

AnyProfile = JsonProfile | DlmsProfile | SparkplugProfile


@dataclass(slots=True)
class _Heard:
    """One foreign message: which profile, and what it says before its devices are looked up."""

    delivery: Delivery
    profile: AnyProfile
    # of JSON and DLMS topics
    device: str | None
    readings: Sequence[ForeignReading] = ()
    states: Sequence[ForeignState] = ()
    refused: Sequence[Refused] = ()

    @property
    def names(self) -> set[str]:
        said = {each.device for each in self.readings} | {each.device for each in self.states}
        return said if self.device is None else said | {self.device}


class Adapter:
    """Foreign deliveries -> incoming messages, for `IngestLoop`."""

    def __init__(
        self,
        profiles: Sequence[AnyProfile],
        session: Session,
        now_ms: Callable[[], int],
        sealing_key: SealingKey | None,
        ask: Callable[[str, bytes], None],
    ) -> None:
        self._profiles = profiles
        self._session = session
        self._now_ms = now_ms
        self._sealing_key = sealing_key
        self._ask = ask
        self._nodes = {
            each.profile: SparkplugNodes(each)
            for each in profiles
            if isinstance(each, SparkplugProfile)
        }
        # Ahead of the database by the batch that is being committed.
        self._frames: dict[int, FrameCounter] = {}

    @property
    def filters(self) -> tuple[str, ...]:
        """The topics of all profiles."""
        return tuple(dict.fromkeys(each for profile in self._profiles for each in profile.filters))

    async def __call__(self, deliveries: Sequence[Delivery]) -> list[Incoming]:
        """What these messages say, with their devices looked up; waits while the store is away."""
        heard = [each for delivery in deliveries for each in self._hear(delivery)]
        known = await self._lookup(heard)
        now_ms = self._now_ms()
        return [
            incoming
            for each in heard
            for incoming in self._resolve(each, known[each.profile.profile], now_ms)
        ]

    # --- what is said -------------------------------------------------------------------------

    def _hear(self, delivery: Delivery) -> list[_Heard]:
        """A topic may be of several profiles; one that is of none was not asked for."""
        found: list[_Heard] = []
        for profile in self._profiles:
            try:
                heard = self._read(profile, delivery)
            except PayloadError as error:
                heard = _Heard(delivery, profile, None, refused=[_refusal(error, delivery)])
            except Exception:
                # Not thought of: kept, so that nothing is lost and the loop goes on.
                log.exception("foreign_message_failed", profile=profile.profile)
                refused = Refused("undecodable", "The profile failed.", None, delivery.payload)
                heard = _Heard(delivery, profile, None, refused=[refused])
            if heard is not None:
                found.append(heard)
        return found

    def _read(self, profile: AnyProfile, delivery: Delivery) -> _Heard | None:
        if isinstance(profile, SparkplugProfile):
            if not delivery.topic.startswith(f"spBv1.0/{profile.group}/"):
                return None
            _check_size(delivery)
            now_ms = self._now_ms()
            outcome = self._nodes[profile.profile].read(delivery.topic, delivery.payload, now_ms)
            if outcome.rebirth is not None:
                self._ask(outcome.rebirth, rebirth_request(now_ms))
            refused = [each._replace(raw=delivery.payload) for each in outcome.refused]
            return _Heard(delivery, profile, None, outcome.readings, outcome.states, refused)
        if isinstance(profile, DlmsProfile):
            device = profile.device(delivery.topic)
            if device is None:
                return None
            _check_size(delivery)
            return _Heard(delivery, profile, device)
        for message in profile.messages:
            device = message.device(delivery.topic)
            if device is None:
                continue
            _check_size(delivery)
            said = json_messages.read(message, device, delivery.payload)
            readings = [said] if isinstance(said, ForeignReading) else []
            states = [said] if isinstance(said, ForeignState) else []
            return _Heard(delivery, profile, None, readings, states)
        return None

    # --- who said it --------------------------------------------------------------------------

    async def _lookup(self, heard: Sequence[_Heard]) -> Mapping[str, Mapping[str, Device]]:
        names: dict[str, set[str]] = {}
        for each in heard:
            # The database's text holds no NUL; such a name is nobody's.
            fit = {name for name in each.names if len(name) <= NAME_MAX and "\0" not in name}
            names.setdefault(each.profile.profile, set()).update(fit)
        found: dict[str, Mapping[str, Device]] = {}
        for profile, of in names.items():
            found[profile] = await self._find(profile, sorted(of)) if of else {}
        return found

    async def _find(self, profile: str, names: Sequence[str]) -> Mapping[str, Device]:
        while True:
            try:
                return await self._session.run(partial(find, profile=profile, names=names))
            except Unavailable as error:
                log.warning("database_away", reason=str(error))
            await asyncio.sleep(RETRY_DEVICES_S)

    def _resolve(self, heard: _Heard, known: Mapping[str, Device], now_ms: int) -> list[Incoming]:
        frame: FrameCounter | None = None
        refused = list(heard.refused)
        readings = heard.readings
        try:
            if isinstance(heard.profile, DlmsProfile) and heard.device is not None:
                device = known.get(heard.device)
                if device is None:
                    raise _unknown(heard.device)
                readings, frame = self._open(heard.profile, heard.device, device, heard.delivery)
        except PayloadError as error:
            refused.append(_refusal(error, heard.delivery))
        messages: list[Incoming] = []
        for reading in readings:
            device = known.get(reading.device)
            if device is None:
                refused.append(_refusal(_unknown(reading.device), heard.delivery))
                continue
            messages.append(_incoming(heard, device, reading, now_ms, frame))
        for state in heard.states:
            device = known.get(state.device)
            if device is not None:
                topic = Topic("m", device.meter, "up", "state")
                messages.append(_said(heard, topic, Decoded(online=state.online)))
        if refused:
            messages.append(_said(heard, None, Decoded(refused=tuple(dict.fromkeys(refused)))))
        return messages

    def _open(
        self, profile: DlmsProfile, name: str, device: Device, delivery: Delivery
    ) -> tuple[Sequence[ForeignReading], FrameCounter | None]:
        """A push of a known device. Errors: PayloadError."""
        keys = None
        if device.sealed_keys is not None:
            if self._sealing_key is None:
                raise PayloadError("not_authentic", "The adapter was started without its key.")
            try:
                keys = unseal(device.sealed_keys, self._sealing_key, (profile.profile, name))
            except DomainError as error:
                raise PayloadError("not_authentic", str(error)) from None
        push = dlms.open_push(profile, delivery.payload, keys)
        frame = None
        if push.counter is not None and push.digest is not None:
            frame = FrameCounter(device.id, push.counter, push.digest)
            self._check_counter(device, frame)
        reading = dlms.read(profile, name, push)
        return ([] if reading is None else [reading]), frame

    def _check_counter(self, device: Device, frame: FrameCounter) -> None:
        """The invocation counter must grow; the very frame again is the broker's repeat."""
        last = self._frames.get(device.id)
        if device.counter is not None and (last is None or device.counter > last.counter):
            last = FrameCounter(device.id, device.counter, device.digest or b"")
        if last is not None and frame.counter <= last.counter and frame != last:
            raise PayloadError(
                "replayed", f"Invocation counter {frame.counter} came after {last.counter}."
            )
        self._frames[device.id] = frame


class RebirthRequests:
    """Publishes what `ask` is given. Lost without harm: the next message asks again."""

    def __init__(self, address: BrokerAddress, client_id: str) -> None:
        self._address = address
        self._client_id = client_id
        self._waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(REQUESTS_MAX)

    def ask(self, topic: str, payload: bytes) -> None:
        if not self._waiting.full():
            self._waiting.put_nowait((topic, payload))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with publishing_client(self._address, self._client_id) as client:
                    while True:
                        topic, payload = await self._waiting.get()
                        await client.publish(topic, payload, qos=0)
                        log.info("rebirth_asked", topic=topic)
            except aiomqtt.MqttError as error:
                log.warning("rebirth_lost_broker", reason=str(error))
                await asyncio.sleep(RETRY_S)


# --- what the contract calls it ---------------------------------------------------------------


def _incoming(
    heard: _Heard,
    device: Device,
    reading: ForeignReading,
    now_ms: int,
    frame: FrameCounter | None,
) -> Incoming:
    """A foreign reading as one of clause 2, judged by the decoder of our own meters."""
    topic = Topic("m", device.meter, "up", "reading")
    try:
        form = _form(heard, device, reading, now_ms)
    except PayloadError as error:
        refused = (_refusal(error, heard.delivery)._replace(meter=device.meter),)
        return replace(_said(heard, topic, Decoded(refused=refused)), frame=frame)
    decoded = decode_up(topic, orjson.dumps(form), None, now_ms)
    kept = tuple(each._replace(raw=heard.delivery.payload) for each in decoded.refused)
    return replace(_said(heard, topic, decoded._replace(refused=kept)), frame=frame)


def _form(
    heard: _Heard, device: Device, reading: ForeignReading, now_ms: int
) -> Mapping[str, object]:
    quality, at_ms = reading.quality, reading.at_ms
    if at_ms is None and reading.local is not None:
        at_ms, certain = placed_ms(reading.local, device.zone)
        quality = quality if certain else "lost"
    elif at_ms is None:
        if heard.delivery.retained:
            raise PayloadError("no_time", "A retained message without a time is of no instant.")
        at_ms = now_ms
    try:
        ts = format_instant(at_ms)
    except DomainError as error:
        raise PayloadError("bad_instant", str(error)) from None
    # These devices count neither boots nor messages: the instant is the counter, so that a repeat
    # is the same message and a buffer may come late.
    return {
        "v": 1,
        "boot": 0,
        "seq": max(at_ms, 0),
        "ts": ts,
        "tq": quality,
        "hist": reading.historical,
        "reg": dict(reading.registers),
        "inst": dict(reading.instantaneous),
        "via": heard.profile.profile,
    }


def _said(heard: _Heard, topic: Topic | None, decoded: Decoded) -> Incoming:
    delivery = heard.delivery
    return Incoming(topic, delivery.topic, delivery.payload, delivery.content_type, decoded)


def _check_size(delivery: Delivery) -> None:
    if len(delivery.payload) > PAYLOAD_MAX:
        raise PayloadError("too_large", f"{len(delivery.payload)} bytes, at most {PAYLOAD_MAX}")


def _refusal(error: PayloadError, delivery: Delivery) -> Refused:
    return Refused(error.reason, str(error), None, delivery.payload[:PAYLOAD_MAX])


def _unknown(name: str) -> PayloadError:
    reason: Reason = "unknown_device"
    shown = name.encode("ascii", "backslashreplace").decode()[:NAME_MAX].replace("\0", "?")
    return PayloadError(reason, f"No device {shown} is mapped to a meter.")
