"""Bytes to values: JSON or CBOR as a form of `schemas.wire`, or why not.

Whatever the bytes are, the answer is a value or a PayloadError, whose words are fit for any log.
"""

import json
from io import BytesIO
from typing import NoReturn, TypeVar

import cbor2
import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from schemas.telemetry import PayloadError

# Deeper than any form here; shallower than any stack.
MAX_DEPTH = 16
# Tag 55799, which says no more than that CBOR follows (RFC 8949 clause 3.4.6).
_SELF_DESCRIBED = bytes.fromhex("d9d9f7")

_Form = TypeVar("_Form")


def parsed(adapter: TypeAdapter[_Form], payload: bytes, cbor: bool) -> _Form:
    return checked(adapter, read_value(payload, cbor))


def checked(adapter: TypeAdapter[_Form], value: object) -> _Form:
    """The value as its form; the version is judged first, since another one may differ at will."""
    versioned(value)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise PayloadError("wrong_type", first_fault(error)) from None


def versioned(value: object) -> None:
    """Errors: PayloadError, for what is no object of our version."""
    if not isinstance(value, dict):
        raise PayloadError("wrong_type", "Send an object, or in up/reading a list of objects.")
    version = value.get("v")
    if type(version) is not int or version != 1:
        raise PayloadError("unknown_version", 'Send "v":1, the one version of the contract.')


def read_value(payload: bytes, cbor: bool) -> object:
    try:
        return _read_cbor(payload) if cbor else from_json(payload, allow_inf_nan=False)
    except Exception as error:
        # Whatever a decoder raises on hostile bytes, the answer is the same and never a crash.
        detail = f"Send {'CBOR' if cbor else 'JSON'}: {printable(str(error))}"
        raise PayloadError("undecodable", detail) from None


def _read_cbor(payload: bytes) -> object:
    source = BytesIO(payload.removeprefix(_SELF_DESCRIBED))
    value = cbor2.CBORDecoder(
        source,
        max_depth=MAX_DEPTH,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
        semantic_decoders=_NO_TAGS,
        tag_hook=_refuse_tag,
    ).decode()
    if source.read(1):
        raise ValueError("more than one item")
    return value


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("no form of the contract uses a tag")


# Dates, decimals, shared references: each would make values that no form holds, or cycles.
_NO_TAGS = dict.fromkeys(
    (*range(6), 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 261, 1004, 43000), _refuse_tag
)


def row_bytes(row: object) -> bytes:
    """The row as JSON; of CBOR that no JSON holds (keys that are no text), as readable text."""
    try:
        return json.dumps(row, default=repr, separators=(",", ":")).encode()
    except (TypeError, ValueError):
        return json.dumps(repr(row)).encode()


def first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(printable(str(part)) for part in fault["loc"]) or "payload"
    return f"{where}: {printable(fault['msg'])}"


def printable(text: str) -> str:
    """Printable ASCII of bounded length: fit for any log and any database text."""
    shown = text.encode("ascii", "backslashreplace").decode("ascii")[:120]
    return "".join(letter if letter.isprintable() else "?" for letter in shown)


def storable(rest: dict[str, object]) -> bytes:
    """As JSON; what no database JSON can hold (NUL, bytes, 65-bit integers) as readable text.

    It carries no money, so it must not cost the meter its reading, nor the batch its commit.
    """
    try:
        octets = orjson.dumps(rest)
        if b"\\u0000" not in octets:
            return octets
    except TypeError:
        pass
    return orjson.dumps({"unstorable": printable(repr(rest))})
