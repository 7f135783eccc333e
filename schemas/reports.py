"""What devices say beside readings: answers to commands, births, events, states, questions."""

from collections.abc import Mapping

from pydantic import TypeAdapter

from schemas import wire
from schemas.judging import instant_fault, instant_ms, register_fault, safe_integer
from schemas.payload import parsed
from schemas.telemetry import Ack, Decoded, Event, Hello, PayloadError, Refused
from schemas.topics import Topic

_ACK: TypeAdapter[wire.Ack] = TypeAdapter(wire.Ack)
_HELLO: TypeAdapter[wire.Hello] = TypeAdapter(wire.Hello)
_EVENT: TypeAdapter[wire.Event] = TypeAdapter(wire.Event)
_TIME_REQUEST: TypeAdapter[wire.TimeRequest] = TypeAdapter(wire.TimeRequest)


def decode_ack(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    form = parsed(_ACK, payload, cbor)
    tokens = tuple(form.get("tokens", ()))
    ts_ms, refused = _instant_said(form["ts"], topic, payload, now_ms)
    ack = Ack(
        meter=_speaker(topic, form.get("meter")),
        cmd=form["cmd"],
        state=form["state"],
        ts_ms=ts_ms,
        relay=form.get("relay"),
        reg=_judged_registers(form.get("reg", {})),
        tokens=tokens,
        why=form.get("why"),
        last_token=None if tokens else form.get("token"),
    )
    return Decoded(ack=ack, refused=refused)


def decode_hello(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    form = parsed(_HELLO, payload, cbor)
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
        reg=_judged_registers(form.get("reg", {})),
        ctr=safe_integer(form["ctr"]) if "ctr" in form else None,
        buffered=safe_integer(buffered["rows"]) if buffered is not None else None,
    )
    return Decoded(hello=hello)


def decode_event(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    form = parsed(_EVENT, payload, cbor)
    ts_ms, refused = _instant_said(form["ts"], topic, payload, now_ms)
    event = Event(
        meter=_speaker(topic, form.get("meter")),
        type=form["type"],
        ts_ms=ts_ms,
        boot=safe_integer(form["boot"]) if "boot" in form else None,
        seq=safe_integer(form["seq"]) if "seq" in form else None,
        info=form.get("info", {}),
    )
    return Decoded(event=event, refused=refused)


def decode_state(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    # Bare words, because a last will is written once and read by people.
    word = payload.strip().strip(b'"')
    if word not in {b"online", b"offline"}:
        raise PayloadError("wrong_type", "Say online or offline.")
    return Decoded(online=word == b"online")


def decode_time(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    return Decoded(time_request_ms=parsed(_TIME_REQUEST, payload, cbor)["t1"])


def _instant_said(
    text: str, topic: Topic, payload: bytes, now_ms: int
) -> tuple[int, tuple[Refused, ...]]:
    """The instant by the meter's clock; where that is wrong, with the refusal to date anything by
    it. What was done was done: the word itself counts, or no command of a meter whose clock has
    lost its battery would ever end.
    """
    ts_ms = instant_ms(text)
    fault = instant_fault(ts_ms, now_ms)
    if fault is None:
        return ts_ms, ()
    meter = topic.device if topic.side == "m" else None
    return ts_ms, (Refused(fault.reason, str(fault), None, payload, meter),)


def _speaker(topic: Topic, named: str | None) -> str | None:
    """A meter speaks for itself, whatever it names; a gateway for the meter it names, if any."""
    return topic.device if topic.side == "m" else named


def _judged_registers(registers: Mapping[str, int]) -> Mapping[str, int]:
    for register, value_wh in registers.items():
        fault = register_fault(register, value_wh)
        if fault is not None:
            raise fault
    return registers
