"""What is no good and nobody needs costs its message nothing.

A form that does not fit is read once more without the fields that carry neither money nor an order:
they travel along as they came. Registers are judged one by one, and a `null` says nothing.
"""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from schemas.judging import Faults, note, register_fault
from schemas.payload import checked, printable, versioned
from schemas.telemetry import PayloadError

# Never the quality of a clock (`tq`), nor that a reading is a replay: what they say decides what is
# billed, and who is cut.
_BESIDE = frozenset({"buf", "cfg", "credit", "fw", "id", "info", "inst", "model", "relay"})

_Form = TypeVar("_Form")


def forgiven(
    adapter: TypeAdapter[_Form], value: object, faults: Faults
) -> tuple[_Form, dict[str, object]]:
    """The value as its form, and which fields of it are none; `faults` gets those of registers.

    Errors: PayloadError, where what is wrong is needed.
    """
    versioned(value)
    try:
        return adapter.validate_python(value), {}
    except ValidationError as error:
        places = {each["loc"][0] for each in error.errors(include_url=False) if each["loc"]}
    kept, odd = dict(cast("dict[object, object]", value)), dict[str, object]()
    for key in places & kept.keys():
        said = kept[key]
        if key == "reg" and isinstance(said, dict):
            kept[key] = sound_registers(cast("dict[Any, object]", said), faults)
        elif said is None and key != "tq":
            del kept[key]
        elif isinstance(key, str) and key in _BESIDE:
            odd[key] = kept.pop(key)
    try:
        return checked(adapter, kept), odd
    except PayloadError as error:
        for reason, details in faults.items():
            raise PayloadError(reason, details[0]) from error
        raise


def sound_registers(said: Mapping[Any, object], faults: Faults) -> dict[str, int]:
    """The registers that can be taken; a `null` is a gap, as in a gateway's batch."""
    sound: dict[str, int] = {}
    for register, value_wh in said.items():
        if not isinstance(register, str) or type(value_wh) is not int:
            if value_wh is not None:
                name = printable(str(register))
                note(PayloadError("wrong_type", f"reg.{name}: send an integer."), faults)
            continue
        fault = register_fault(register, value_wh)
        if fault is None:
            sound[register] = value_wh
        else:
            note(fault, faults)
    return sound
