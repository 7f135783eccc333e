"""MeterTokenState as JSON values, for a simulated meter that survives a restart.

The record holds the decoder key in clear: whoever stores it must treat it as a key.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tokens.acceptance import MeterTokenState
from tokens.apdu import Apdu
from tokens.errors import TokenError
from tokens.keys import DecoderKey, KeyAttributes


class _Attributes(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    sgc: str
    krn: int
    kt: int
    ken: int
    ti: str
    base_date: int
    ea: int
    dkga: int


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    cls: int
    subclass: int
    fields: dict[str, int]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    decoder_key: str
    attributes: _Attributes
    remembered_tids: list[int]
    key_change: list[_Section]
    credit_subclasses: list[int]
    mfr_code: int


def dump_with_key(state: MeterTokenState) -> dict[str, Any]:
    """JSON values of `state`, the decoder key among them."""
    return {
        "decoder_key": state.decoder_key.reveal().hex(),
        "attributes": asdict(state.attributes),
        "remembered_tids": list(state.remembered_tids),
        "key_change": [
            {"cls": part.cls, "subclass": part.subclass, "fields": dict(part.fields)}
            for part in state.key_change
        ],
        "credit_subclasses": list(state.credit_subclasses),
        "mfr_code": state.mfr_code,
    }


def load(record: Mapping[str, Any]) -> MeterTokenState:
    """The state that `dump_with_key` wrote: the two are each other's inverse."""
    try:
        values = _Record.model_validate(record)
        octets = bytes.fromhex(values.decoder_key)
    except (ValidationError, ValueError):
        # The cause is cut off: it could quote the key.
        raise TokenError(
            "state_invalid", "The meter's token record is damaged; commission the meter again."
        ) from None
    return MeterTokenState(
        decoder_key=DecoderKey(octets),
        attributes=KeyAttributes(**values.attributes.model_dump()),
        remembered_tids=tuple(sorted(values.remembered_tids)),
        key_change=tuple(Apdu(s.cls, s.subclass, s.fields) for s in values.key_change),
        credit_subclasses=tuple(values.credit_subclasses),
        mfr_code=values.mfr_code,
    )
