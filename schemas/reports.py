"""What devices say beside readings: answers to commands, births, events, states, questions."""

import orjson
from pydantic import TypeAdapter

from schemas import wire
from schemas.forgiving import forgiven, sound_registers
from schemas.judging import Faults, instant_fault, instant_ms, note, refusals, safe_integer
from schemas.payload import parsed, read_value, storable
from schemas.telemetry import Ack, Decoded, Event, Hello, PayloadError, Refused
from schemas.topics import Topic

_ACK: TypeAdapter[wire.Ack] = TypeAdapter(wire.Ack)
# What has a place of its own in `Ack`, besides the instant as it was written.
_ACK_FIELDS = frozenset(wire.Ack.__annotations__) - {"ts"}
_HELLO: TypeAdapter[wire.Hello] = TypeAdapter(wire.Hello)
_EVENT: TypeAdapter[wire.Event] = TypeAdapter(wire.Event)
_TIME_REQUEST: TypeAdapter[wire.TimeRequest] = TypeAdapter(wire.TimeRequest)


def decode_ack(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    faults: Faults = {}
    form, odd = forgiven(_ACK, read_value(payload, cbor), faults)
    tokens = tuple(form.get("tokens", ()))
    ack = Ack(
        meter=_speaker(topic, form.get("meter")),
        cmd=form["cmd"],
        state=form["state"],
        ts_ms=_instant_said(form["ts"], now_ms, faults),
        relay=form.get("relay"),
        reg=sound_registers(form.get("reg", {}), faults),
        tokens=tokens,
        why=form.get("why"),
        last_token=None if tokens else form.get("token"),
        beside=_beside({**form}, odd),
    )
    return Decoded(ack=ack, refused=_refused(faults, topic, payload))


def decode_hello(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    faults: Faults = {}
    form, _ = forgiven(_HELLO, read_value(payload, cbor), faults)
    buffered = form.get("buf")
    hello = Hello(
        boot=safe_integer(form["boot"]),
        # A birth with a wrong clock still tells who is there; readings are judged on their own.
        ts_ms=instant_ms(form["ts"]),
        seq=safe_integer(form["seq"]) if "seq" in form else None,
        tq=form.get("tq", "sync"),
        model=form.get("model"),
        firmware=form.get("fw"),
        relay=form.get("relay"),
        reg=sound_registers(form.get("reg", {}), faults),
        ctr=safe_integer(form["ctr"]) if "ctr" in form else None,
        buffered=safe_integer(buffered["rows"]) if buffered is not None else None,
    )
    return Decoded(hello=hello, refused=_refused(faults, topic, payload))


def decode_event(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    faults: Faults = {}
    form, _ = forgiven(_EVENT, read_value(payload, cbor), faults)
    event = Event(
        meter=_speaker(topic, form.get("meter")),
        type=form["type"].replace("-", "_"),
        ts_ms=_instant_said(form["ts"], now_ms, faults),
        boot=safe_integer(form["boot"]) if "boot" in form else None,
        seq=safe_integer(form["seq"]) if "seq" in form else None,
        info=form.get("info", {}),
    )
    return Decoded(event=event, refused=_refused(faults, topic, payload))


def decode_state(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    # Bare words, because a last will is written once and read by people.
    word = payload.strip().strip(b'"')
    if not payload:
        # The state that the broker held is taken back: nobody said anything.
        return Decoded()
    if word not in {b"online", b"offline"}:
        raise PayloadError("wrong_type", "Say online or offline.")
    return Decoded(online=word == b"online")


def decode_time(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    t1 = parsed(_TIME_REQUEST, payload, cbor)["t1"]
    safe_integer(abs(t1))
    return Decoded(time_request_ms=t1)


def _beside(form: dict[str, object], odd: dict[str, object]) -> dict[str, object]:
    more = {key: value for key, value in form.items() if key not in _ACK_FIELDS}
    beside: dict[str, object] = orjson.loads(storable(more | odd))
    return beside


def _instant_said(text: str, now_ms: int, faults: Faults) -> int:
    """The instant by the meter's clock. Where that is wrong nothing is to be dated by it, and yet
    what was done was done: the word itself counts, or no command of a meter whose clock has lost
    its battery would ever end.
    """
    ts_ms = instant_ms(text)
    fault = instant_fault(ts_ms, now_ms)
    if fault is not None:
        note(fault, faults)
    return ts_ms


def _refused(faults: Faults, topic: Topic, payload: bytes) -> tuple[Refused, ...]:
    meter = topic.device if topic.side == "m" else None
    return tuple(refusals(faults, None, payload, meter))


def _speaker(topic: Topic, named: str | None) -> str | None:
    """A meter speaks for itself, whatever it names; a gateway for the meter it names, if any."""
    return topic.device if topic.side == "m" else named
