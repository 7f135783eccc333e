"""Known answers of kind `luhn`: meter numbers and their check digits (sts.md sections 5 and 10).

No example of the kind was published, so a line may name a MeterPAN, a DRN, what they are made of,
or a number without a name; and it may ask for whichever part of the answer it likes. A number
without a name is one to judge or one to complete: a line passes if one of both readings gives all
that it expects.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tokens import numbers
from tokens.errors import TokenError

Answer = Mapping[str, Any]

PAN_NAMES = ("pan", "meter_pan")
DRN_NAMES = ("drn", "iain")
MAKER_NAMES = ("maker", "maker_code", "mfr_code", "manufacturer")
SERIAL_NAMES = ("serial", "serial_number")
NUMBER_NAMES = ("number", "digits")
PAYLOAD_NAMES = ("payload", "body")
COMPLETED_NAMES = ("number", "full", "complete", *PAN_NAMES, *DRN_NAMES)


def check_luhn(inputs: Mapping[str, Any], expected: Mapping[str, Any]) -> Answer:
    """The first reading that gives all of `expected`, else the first. Errors: ValueError."""
    as_number = isinstance(expected.get("check_digit"), int)
    wanted = {name: value for name, value in expected.items() if name != "note"}
    readings = [_like(answer, as_number=as_number) for answer in _readings(inputs)]
    missing = object()
    for answer in readings:
        if all(answer.get(name, missing) == value for name, value in wanted.items()):
            return answer
    return readings[0]


def _like(answer: Answer, *, as_number: bool) -> Answer:
    """With the check digit in the type that the line uses for it."""
    if as_number and "check_digit" in answer:
        return {**answer, "check_digit": int(answer["check_digit"])}
    return answer


def _readings(inputs: Mapping[str, Any]) -> Iterator[Answer]:
    texts = {name: str(value) for name, value in inputs.items()}
    iin, maker = texts.get("iin"), _named(texts, MAKER_NAMES)
    serial, drn, pan = (_named(texts, each) for each in (SERIAL_NAMES, DRN_NAMES, PAN_NAMES))
    if maker is not None and serial is not None:
        made = _judged("", lambda: _pan_of(iin, numbers.drn(maker, serial)))
        yield made | _last_digit(made, "drn")
        if iin is not None:
            yield made | _last_digit(made, "pan")
    elif drn is not None:
        answer = _judged(drn, lambda: _pan_of(iin, drn))
        yield answer | (_last_digit(answer, "pan") if iin is not None else {})
        if len(drn) + 1 in numbers.MAKER_DIGITS_BY_DRN:
            yield from _completed(drn)
    elif pan is not None:
        yield _judged(pan, lambda: numbers.validate_meter_pan(pan))
        if len(pan) + 1 == numbers.PAN_DIGITS:
            yield from _completed(pan)
    else:
        yield from _readings_of_one(texts)


def _readings_of_one(texts: Mapping[str, str]) -> Iterator[Answer]:
    """Of a number whose name does not say what it is."""
    named = {name: text for name, text in texts.items() if name in (*NUMBER_NAMES, *PAYLOAD_NAMES)}
    with_digits = {name: text for name, text in texts.items() if any(map(str.isdigit, text))}
    found = named or with_digits or texts
    if len(found) != 1:
        raise ValueError("a luhn line has one number as its input")
    ((name, text),) = found.items()
    if name not in PAYLOAD_NAMES:
        yield {"valid": numbers.has_valid_check_digit(text), **_due_digit(text)}
    elif not numbers.is_digits(text):
        yield {"valid": False}
    yield from _completed(text)


def _judged(typed: str, to_pan: Callable[[], str]) -> dict[str, Any]:
    """Every part of the meter number that `to_pan` makes, or that it is none."""
    try:
        pan = to_pan()
    except TokenError as error:
        return {"valid": False, "result": error.code, **_due_digit(typed)}
    iin, drn = numbers.parts(pan)
    makers = numbers.MAKER_DIGITS_BY_DRN[len(drn)]
    return {
        "valid": True,
        "result": "accepted",
        "iin": iin,
        **_due_digit(typed),
        **dict.fromkeys(PAN_NAMES, pan),
        **dict.fromkeys(DRN_NAMES, drn),
        **dict.fromkeys(MAKER_NAMES, drn[:makers]),
        **dict.fromkeys(SERIAL_NAMES, drn[makers:-1]),
    }


def _pan_of(iin: str | None, drn: str) -> str:
    number = numbers.validate_drn(drn)
    return numbers.to_meter_pan(number) if iin is None else numbers.meter_pan(iin, number)


def _completed(payload: str) -> Iterator[Answer]:
    if numbers.is_digits(payload):
        digit = numbers.check_digit(payload)
        yield {"check_digit": digit, **dict.fromkeys(COMPLETED_NAMES, payload + digit)}


def _due_digit(number: str) -> dict[str, str]:
    """The check digit that a complete number should have had."""
    payload = numbers.compact(number)[:-1]
    return {"check_digit": numbers.check_digit(payload)} if numbers.is_digits(payload) else {}


def _last_digit(answer: Mapping[str, Any], name: str) -> dict[str, str]:
    return {"check_digit": answer[name][-1]} if name in answer else {}


def _named(texts: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((texts[name] for name in names if name in texts), None)
