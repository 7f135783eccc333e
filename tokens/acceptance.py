"""The meter's side: authenticate, validate and execute a token, and remember it.

accept() is a function of state and digits. The order of the checks is fixed, so that the first
result a person sees points at the cause:

    format, class, CRC, subclass, default key, key expiry, TID used, TID old, range, overflow

Order, TID memory and the effect of RO are the weakest part of the evidence (sts.md, open points);
they are stated here once and tested as a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from tokens import apdu, codec, keys, management, tid
from tokens.apdu import Apdu
from tokens.credit import Credit, credit_of
from tokens.errors import TokenError
from tokens.key_change import (
    BASE_DATES,
    FIRST,
    assemble,
    is_permitted,
    missing_sections,
)
from tokens.keys import DecoderKey, KeyAttributes
from tokens.sta import SAMPLE_TABLES, SubstitutionTables

# The standard asks for at least 50 (6.3.5.3).
TID_SLOTS = 50
# A slot that no token has filled. It is below every TID, so nothing is old for a meter until all
# of its slots are used, and tokens of one purchase may be entered in any order.
EMPTY_SLOT = -1
BLANK_MEMORY = (EMPTY_SLOT,) * TID_SLOTS

KRN_LAST, TI_LAST, SGC_LAST = 9, 99, 999_999


class Result(StrEnum):
    """Result names of IEC 62055-41 7.3."""

    ACCEPT = "Accept"
    FIRST_KCT = "1stKCT"  # a key change has begun
    SECOND_KCT = "2ndKCT"  # a further token of it, and more are due
    OVERFLOW_ERROR = "OverflowError"
    KEY_TYPE_ERROR = "KeyTypeError"
    FORMAT_ERROR = "FormatError"
    RANGE_ERROR = "RangeError"
    FUNCTION_ERROR = "FunctionError"
    OLD_ERROR = "OldError"
    USED_ERROR = "UsedError"
    KEY_EXPIRED_ERROR = "KeyExpiredError"
    DDTK_ERROR = "DDTKError"
    AUTHENTICATION_ERROR = "AuthenticationError"
    MFR_CODE_ERROR = "MfrCodeError"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the meter answers. The four flags say which stages the token passed.

    `credit` is set when credit was accepted, `setting` when a token of class 1 or 2 was (its
    fields as in `management.management`, its number in `command`). Key change tokens show nothing.
    """

    result: Result
    format: bool
    authentication: bool
    validation: bool
    execution: bool
    credit: Credit | None = None
    command: tuple[int, int] | None = None
    setting: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class MeterTokenState:
    """All that a meter keeps about tokens.

    decoder_key, attributes  in force
    remembered_tids          ascending; the most recent ones, or EMPTY_SLOT
    key_change               tokens of a key change set that is not complete yet
    credit_subclasses        the services this meter counts; others answer FunctionError
    mfr_code                 the maker code that class 1 tokens may name besides 0
    """

    decoder_key: DecoderKey
    attributes: KeyAttributes
    remembered_tids: tuple[int, ...] = BLANK_MEMORY
    key_change: tuple[Apdu, ...] = ()
    credit_subclasses: tuple[int, ...] = (0, 4)
    mfr_code: int = 0

    def __post_init__(self) -> None:
        if self.decoder_key.ea != self.attributes.ea:
            raise TokenError(
                "key_mismatch",
                f"The decoder key is not one of EA{self.attributes.ea:02}; correct the EA.",
            )


class Refusal(Exception):  # noqa: N818  (a normal answer of the meter, caught in accept)
    """Ends the checks. `stages` of the four were passed before."""

    def __init__(self, result: Result, stages: int) -> None:
        super().__init__(result.value)
        self.result = result
        self.stages = stages


# How a decoding error is answered, and how many stages were passed.
DECODING_REFUSALS = {
    "format_error": (Result.FORMAT_ERROR, 0),
    "unsupported_class": (Result.FUNCTION_ERROR, 1),
    "crc_error": (Result.AUTHENTICATION_ERROR, 1),
    "unsupported_subclass": (Result.FUNCTION_ERROR, 2),
}


def accept(
    state: MeterTokenState,
    digits: str,
    *,
    tables: SubstitutionTables = SAMPLE_TABLES,
    credit_room: int | None = None,
) -> tuple[MeterTokenState, Verdict]:
    """The meter's next state and its answer to 20 digits.

    `credit_room` is how many smallest units of the token's subclass the credit register can still
    take; None means enough. A refused token changes nothing and is not remembered.
    """
    try:
        token = _decode(state, digits, tables)
        if token.cls == apdu.METER_SPECIFIC and token.subclass in management.KEY_CHANGE_SUBCLASSES:
            return _change_key(state, token)
        _demand_function(state, token)
        _demand_valid(state, token)
        _demand_executable(state, token, credit_room)
    except Refusal as refusal:
        return state, _verdict(refusal.result, refusal.stages)
    return _remember(state, token), _accepted(token)


def _decode(state: MeterTokenState, digits: str, tables: SubstitutionTables) -> Apdu:
    try:
        return codec.decode(digits, state.decoder_key, tables)
    except TokenError as error:
        result, stages = DECODING_REFUSALS[error.code]
        raise Refusal(result, stages) from None


def _demand_function(state: MeterTokenState, token: Apdu) -> None:
    if token.cls == apdu.CREDIT and token.subclass not in state.credit_subclasses:
        raise Refusal(Result.FUNCTION_ERROR, 2)
    if token.cls == apdu.NON_METER_SPECIFIC and token.fields["mfr_code"] not in {0, state.mfr_code}:
        raise Refusal(Result.MFR_CODE_ERROR, 1)


def _demand_valid(state: MeterTokenState, token: Apdu) -> None:
    if token.cls == apdu.CREDIT and state.attributes.kt == keys.DDTK:
        raise Refusal(Result.DDTK_ERROR, 2)
    if "tid" not in token.fields:
        return
    number, memory = token.fields["tid"], state.remembered_tids
    if tid.is_expired(number, state.attributes.ken):
        raise Refusal(Result.KEY_EXPIRED_ERROR, 2)
    if number in memory:
        raise Refusal(Result.USED_ERROR, 2)
    if memory and number < min(memory):
        raise Refusal(Result.OLD_ERROR, 2)


def is_in_range(token: Apdu) -> bool:
    """Whether every field has a value that a meter knows; otherwise it answers RangeError."""
    fields = token.fields
    return (
        not fields.get("pad", 0)
        and fields.get("register", 0) in apdu.REGISTERS
        and 1 <= fields.get("krn", 1) <= KRN_LAST
        and fields.get("ti", 0) <= TI_LAST
        and fields.get("sgc", 0) <= SGC_LAST
    )


def _demand_executable(state: MeterTokenState, token: Apdu, credit_room: int | None) -> None:
    if not is_in_range(token):
        raise Refusal(Result.RANGE_ERROR, 3)
    overflows = (
        token.cls == apdu.CREDIT
        and credit_room is not None
        and credit_of(token).amount > credit_room
    )
    if overflows:
        raise Refusal(Result.OVERFLOW_ERROR, 3)


def _remember(state: MeterTokenState, token: Apdu) -> MeterTokenState:
    if "tid" not in token.fields:
        return state
    memory = sorted((*state.remembered_tids, token.fields["tid"]))
    return replace(state, remembered_tids=tuple(memory[-TID_SLOTS:]))


def _accepted(token: Apdu) -> Verdict:
    if token.cls == apdu.CREDIT:
        return _verdict(Result.ACCEPT, 4, credit=credit_of(token))
    return replace(
        _verdict(Result.ACCEPT, 4),
        command=(token.cls, token.subclass),
        setting=management.settings_of(token),
    )


def _change_key(state: MeterTokenState, token: Apdu) -> tuple[MeterTokenState, Verdict]:
    """Take one token of a set; with the last one the new key takes effect.

    A token of a section that is already there replaces it: a set may be issued again. Nothing in
    the tokens says to which set they belong, so sections of two sets make a key of neither.
    """
    if not is_in_range(token):
        raise Refusal(Result.RANGE_ERROR, 3)
    if token.subclass == FIRST and not is_permitted(state.attributes.kt, token.fields["kt"]):
        raise Refusal(Result.KEY_TYPE_ERROR, 3)
    sections = {part.subclass: part for part in state.key_change} | {token.subclass: token}
    fields = {number: part.fields for number, part in sections.items()}
    if missing_sections(fields, state.attributes.ea):
        result = Result.SECOND_KCT if len(sections) > 1 else Result.FIRST_KCT
        ordered = tuple(sections[number] for number in sorted(sections))
        return replace(state, key_change=ordered), _verdict(result, 4)
    new, old = assemble(fields, state.attributes.ea), state.attributes
    if (new.sgc or 0) > SGC_LAST or (new.rollover and old.base_date == BASE_DATES[-1]):
        raise Refusal(Result.RANGE_ERROR, 3)
    attributes = replace(
        old,
        sgc=old.sgc if new.sgc is None else f"{new.sgc:06}",
        krn=new.krn,
        kt=new.kt,
        ken=new.ken,
        ti=f"{new.ti:02}",
        # RO says that the base date changes, not to which: after a skip this one lags behind, which
        # matters to nothing but the refusal of an RO at the last.
        base_date=BASE_DATES[BASE_DATES.index(old.base_date) + 1]
        if new.rollover
        else old.base_date,
    )
    changed = replace(
        state,
        decoder_key=new.decoder_key,
        attributes=attributes,
        key_change=(),
        # TIDs of the old base date mean nothing in the new one, and would make its tokens old.
        remembered_tids=BLANK_MEMORY if new.rollover else state.remembered_tids,
    )
    return changed, _verdict(Result.ACCEPT, 4)


def _verdict(result: Result, stages: int, *, credit: Credit | None = None) -> Verdict:
    return Verdict(
        result,
        format=stages > 0,
        authentication=stages > 1,
        validation=stages > 2,
        execution=stages > 3,
        credit=credit,
    )
