"""Known answers: lines of JSON in, one outcome per line out (sts.md section 10).

Every expected value must be computed here and be equal; a kind, profile or expected name that is
not known is a failure, never a skip. Vectors of EA07 are made with the sample tables.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tokens import amount, apdu, codec, crc, keys, misty1, numbers, sta, tid
from tokens.acceptance import DECODING_REFUSALS, MeterTokenState, Result, accept
from tokens.apdu import Apdu
from tokens.credit import Credit, transfer_credit
from tokens.errors import TokenError
from tokens.key_change import key_change_set
from tokens.keys import DecoderKey, KeyAttributes, VendingKey
from tokens.management import management
from tokens.number_vectors import check_luhn

# The algorithm that a profile names; class 1 is in clear.
EA_BY_PROFILE = {"EA07/iec-sample-tables": apdu.STA, "EA11": apdu.MISTY1, "clear": None}
STA_PROFILES = ("iec-sample-tables", "EA07/iec-sample-tables")
KNOWN_PROFILES = {*EA_BY_PROFILE, *STA_PROFILES}

# The inputs of each management subclass, by the field that they fill.
MANAGEMENT_INPUTS = {
    0: {"max_power_limit_W": "mpl"},
    1: {"register": "register"},
    2: {"tariff_rate": "rate"},
    5: {},
    6: {"max_phase_unbalance_W": "mppul"},
    7: {"water_meter_factor": "wmf"},
    10: {"ext_index": "index", "ext_value10": "value"},
}

SET_SIZES = {"pair": 2, "triplet": 3, "quad": 4}

# What a meter's answer is called in a vector file; what is not here keeps the standard's name.
METER_RESULTS = {
    **dict.fromkeys((Result.ACCEPT, Result.FIRST_KCT, Result.SECOND_KCT), "accepted"),
    Result.USED_ERROR: "used_tid",
    Result.OLD_ERROR: "old_tid",
    Result.AUTHENTICATION_ERROR: "crc_error",
    Result.FORMAT_ERROR: "format_error",
    Result.FUNCTION_ERROR: "unsupported_class",
    Result.KEY_EXPIRED_ERROR: "key_expired",
}

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One checked line; `problems` is empty when it passed."""

    id: str
    problems: tuple[str, ...]


class UnknownVectorError(Exception):
    """The line asks for something that no check here covers."""


def check_lines(lines: Iterable[str]) -> Iterator[Outcome]:
    """One outcome per line that is not blank."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _check_line(number, line)


def _check_line(number: int, line: str) -> Outcome:
    name, expected = f"line {number}", None
    try:
        # Decimals: a binary fraction would already have lost the amount.
        vector = json.loads(line, parse_float=Decimal)
        name = str(vector["id"])
        compute = KINDS.get(vector["kind"])
        if compute is None:
            return Outcome(name, (f"kind {vector['kind']!r} is unknown",))
        _demand_known_profile(vector)
        expected = vector["expected"]
        return Outcome(name, tuple(_differences(expected, compute(vector))))
    except UnknownVectorError as error:
        return Outcome(name, (str(error),))
    except TokenError as error:
        return Outcome(name, (f"expected {_shown(expected)}, came {error.code}",))
    except (LookupError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
        # A damaged line is that line's failure; the lines after it are still worth checking.
        return Outcome(name, (f"the line does not read: {type(error).__name__} {error}",))
    except RecursionError:
        return Outcome(name, ("the line does not read: it is nested too deep",))


def _differences(expected: Values, actual: Values) -> Iterator[str]:
    compared = [name for name in expected if name != "note"]
    if not compared:
        yield "the line expects nothing"
    for name in compared:
        if name not in actual:
            yield f"{name}: expected {_shown(expected[name])}, and nothing here computes it"
        elif _comparable(actual[name]) != _comparable(expected[name]):
            yield f"{name}: expected {_shown(expected[name])}, came {_shown(actual[name])}"


def _comparable(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)


def _integer(hexadecimal: str) -> int:
    return int(hexadecimal, 16)


def _instant_ms(text: str) -> int:
    """Of `time_utc`, which need not repeat what its name says."""
    at = datetime.fromisoformat(text)
    since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(milliseconds=1)


def _tid(inputs: Values) -> int:
    return tid.tid_minutes(_instant_ms(inputs["time_utc"]), int(inputs["base_date"]))


def _demand_known_profile(vector: Values) -> None:
    """Whatever the kind: a line of a profile that is unknown here may mean another algorithm."""
    for profile in (vector.get("profile"), vector["inputs"].get("profile")):
        if profile is not None and profile not in KNOWN_PROFILES:
            raise UnknownVectorError(f"profile {profile!r} is unknown")


def _ea_of_profile(vector: Values) -> int | None:
    profile = vector.get("profile", vector["inputs"].get("profile"))
    if profile not in EA_BY_PROFILE:
        raise UnknownVectorError(f"profile {profile!r} is unknown")
    return EA_BY_PROFILE[profile]


def _attributes(inputs: Values, ea: int, *, ken: int = tid.KEN_NEVER_EXPIRES) -> KeyAttributes:
    return KeyAttributes(
        sgc=inputs["sgc"],
        krn=inputs["krn"],
        kt=inputs["kt"],
        ken=inputs.get("ken", ken),
        ti=inputs["ti"],
        base_date=int(inputs.get("base_date", 2014)),  # DKGA02 does not look at it
        ea=ea,
        dkga=int(inputs.get("dkga", 0)),
    )


def _vending_key(inputs: Values) -> VendingKey:
    return VendingKey.of_test_sheet(bytes.fromhex(inputs["vending_key"]))


def _check_dkga(vector: Values) -> Values:
    inputs = vector["inputs"]
    attributes = _attributes(inputs, int(inputs.get("ea", apdu.STA)))
    pan = inputs["pan"]
    key = keys.decoder_key(_vending_key(inputs), pan, attributes)
    actual = {
        "decoder_key": key.reveal().hex(),
        "pan_block": keys.pan_block(pan, attributes.kt),
        "control_block": keys.control_block(attributes),
    }
    if attributes.dkga == 4:
        actual["data_block"] = keys.data_block(pan, attributes).hex()
    return actual


def _check_des(vector: Values) -> Values:
    inputs = vector["inputs"]
    key, block = bytes.fromhex(inputs["key"]), bytes.fromhex(inputs["plaintext"])
    return {"ciphertext": keys.des_encrypt(key, block).hex()}


def _check_misty1(vector: Values) -> Values:
    return _both_ways(misty1.Misty1(bytes.fromhex(vector["inputs"]["key"])), vector)


def _check_sta(vector: Values) -> Values:
    if vector.get("profile", STA_PROFILES[0]) not in STA_PROFILES:
        raise UnknownVectorError(f"profile {vector['profile']!r} is unknown")
    return _both_ways(sta.Sta(bytes.fromhex(vector["inputs"]["key"])), vector)


def _both_ways(cipher: codec.BlockCipher, vector: Values) -> Values:
    plain = _integer(vector["inputs"]["plaintext"])
    encrypted = cipher.encrypt(plain)
    if cipher.decrypt(encrypted) != plain:
        return {"ciphertext": "decryption does not give the plaintext back"}
    return {"ciphertext": f"{encrypted:016x}"}


def _check_crc16(vector: Values) -> Values:
    inputs = vector["inputs"]
    value = crc.token_crc(_integer(inputs["data56"]), currency=inputs.get("currency_suffix", False))
    return {"crc": f"{value:04x}"}


def _check_amount(vector: Values) -> Values:
    field = amount.encode_amount(vector["inputs"]["tenths"])
    return {"field": f"{field:04x}", "decoded_tenths": amount.decode_amount(field)}


def _check_currency_amount(vector: Values) -> Values:
    coded = amount.encode_currency(vector["inputs"]["hundred_thousandths"])
    decoded = amount.decode_currency(coded.s_and_e, coded.amount)
    return {"field": f"{coded.amount:04x}", "s_and_e": coded.s_and_e, "decoded": decoded}


def _check_tid(vector: Values) -> Values:
    number = _tid(vector["inputs"])
    return {"tid": number, "tid_hex": f"{number:06x}", "key_period": tid.key_period(number)}


def _check_luhn(vector: Values) -> Values:
    return check_luhn(vector["inputs"], vector["expected"])


def _check_token(vector: Values) -> Values:
    ea, inputs = _ea_of_profile(vector), vector["inputs"]
    cls, subclass = vector["cls"], vector["subclass"]
    if (ea is None) != (cls == apdu.NON_METER_SPECIFIC):
        raise UnknownVectorError(f"profile {vector['profile']!r} is not one of class {cls}")
    if ea is None:
        fields = {"control": _integer(inputs["control"]), "mfr_code": inputs["mfr_code"]}
        token = Apdu(cls, subclass, fields)
        digits = codec.encode_clear(token)
        return _compare_back(token, codec.decode_clear(digits), digits, apdu.STA)
    if int(inputs["ea"]) != ea:
        raise UnknownVectorError(f"profile {vector['profile']!r} is not EA{inputs['ea']}")
    attributes = _attributes(inputs, ea)
    key = keys.decoder_key(_vending_key(inputs), inputs["pan"], attributes)
    token = _token(cls, subclass, inputs, attributes)
    digits = codec.encode(token, key)
    actual = _compare_back(token, codec.decode(digits, key), digits, ea)
    return actual | {"decoder_key": key.reveal().hex()}


def _token(cls: int, subclass: int, inputs: Values, attributes: KeyAttributes) -> Apdu:
    if cls == apdu.CREDIT:
        places = 5 if apdu.is_currency(cls, subclass) else 1
        credit = Credit(subclass, amount.smallest_units(Decimal(inputs["amount"]), places))
        return transfer_credit(credit, tid=_tid(inputs), rnd=inputs.get("rnd", 0))
    if cls == apdu.METER_SPECIFIC and subclass in MANAGEMENT_INPUTS:
        wanted = MANAGEMENT_INPUTS[subclass]
        fields = {field: inputs[name] for name, field in wanted.items()}
        return management(subclass, fields, tid=_tid(inputs), rnd=inputs["rnd"])
    if "new" in inputs:
        return _key_change_token(subclass, inputs, attributes)
    raise UnknownVectorError(f"no inputs are known for a token of class {cls}.{subclass}")


def _key_change_token(subclass: int, inputs: Values, attributes: KeyAttributes) -> Apdu:
    new = _attributes({"dkga": attributes.dkga, **inputs["new"]}, attributes.ea)
    new_key = DecoderKey(bytes.fromhex(inputs["new"]["decoder_key"]))
    name, size = inputs["token_set"], SET_SIZES.get(inputs["token_set"])
    tokens = key_change_set(attributes, new, new_key, triplet=size == 3)
    if len(tokens) != size:
        raise UnknownVectorError(f"token set {name!r} is none of EA{attributes.ea:02}")
    if tokens[0].fields["ro"] != inputs["new"].get("ro", tokens[0].fields["ro"]):
        raise UnknownVectorError("RO does not agree with the base dates")
    for token in tokens:
        if token.subclass == subclass:
            return token
    raise UnknownVectorError(f"a {name} has no token 2.{subclass}")


def _compare_back(token: Apdu, decoded: Apdu, digits: str, ea: int) -> dict[str, Any]:
    """The printed forms of a token, after reading it back."""
    read = {name: value for name, value in decoded.fields.items() if name != "pad"}
    if (decoded.cls, decoded.subclass, read) != (token.cls, token.subclass, dict(token.fields)):
        raise UnknownVectorError(f"{digits} decodes to {decoded!r}, made from {token!r}")
    _, block = codec.split(digits)
    actual: dict[str, Any] = {
        "token": digits,
        "clear_block": f"{codec.clear_block(token, ea):016x}",
        "cipher_block": f"{block:016x}",
    }
    if "tid" in decoded.fields:
        actual["tid"] = decoded.fields["tid"]
    if "amount" in decoded.fields:
        actual["amount_field"] = f"{decoded.fields['amount']:04x}"
    if "s_and_e" in decoded.fields:
        actual["s_and_e_field"] = decoded.fields["s_and_e"]
    return actual


def _check_negative(vector: Values) -> Values:
    """Judged by its inputs: `case` only names what the line is about."""
    inputs = vector["inputs"]
    if "tokens" in inputs:
        return {"results": _answers(vector, inputs["tokens"])}
    if "ken" in inputs and "time_utc" in inputs:
        return _issuing(inputs)
    if "token" in inputs:
        (answer,) = _answers(vector, [inputs["token"]])
        return {"result": answer, "valid": answer == "accepted"}
    for names, attempt in ATTEMPTS:
        if names <= set(inputs):
            return _attempt(attempt, vector)
    raise UnknownVectorError(f"case {vector.get('case')!r} has inputs that are not known")


def _issuing(inputs: Values) -> Values:
    """Whether a key with this KEN may issue at this instant: never outside its base date's bits."""
    at_ms, base_date = _instant_ms(inputs["time_utc"]), int(inputs["base_date"])
    number = (at_ms - tid.base_date_ms(base_date)) // tid.MINUTE_MS
    allowed = False
    if 0 <= number <= tid.TID_LAST:
        number = tid.tid_minutes(at_ms, base_date)
        allowed = not tid.is_expired(number, inputs["ken"])
    return {"tid": number, "tid_high_byte": tid.key_period(number), "allowed": allowed}


def _attempt(attempt: Callable[[Values], object], vector: Values) -> Values:
    try:
        attempt(vector)
    except TokenError as error:
        return {"result": error.code, "valid": False}
    return {"result": "accepted", "valid": True}


def _given_key(vector: Values) -> DecoderKey:
    key = DecoderKey(bytes.fromhex(vector["inputs"]["decoder_key"]))
    if key.ea != _ea_of_profile(vector):
        raise UnknownVectorError("the decoder key is not one of this profile")
    return key


def _answers(vector: Values, rows: Iterable[str]) -> list[str]:
    """What a meter answers that remembers only what this line makes it remember."""
    inputs = vector["inputs"]
    if "decoder_key" not in inputs:
        return [METER_RESULTS[_answer_without_key(digits)] for digits in rows]
    key = _given_key(vector)
    attributes = KeyAttributes(
        sgc="000000",
        krn=1,
        kt=keys.DUTK,
        ti="01",
        dkga=4,
        ken=inputs.get("ken", tid.KEN_NEVER_EXPIRES),
        base_date=inputs.get("base_date", 2014),
        ea=key.ea,
    )
    remembered = tuple(sorted(inputs.get("remembered_tids", ())))
    state = MeterTokenState(
        key, attributes, remembered_tids=remembered, credit_subclasses=tuple(range(8))
    )
    answers = []
    for digits in rows:
        maker = inputs.get("mfr_code", _maker_of(digits))
        state, verdict = accept(replace(state, mfr_code=maker), digits)
        answers.append(METER_RESULTS.get(verdict.result, verdict.result.value))
    return answers


def _answer_without_key(digits: str) -> Result:
    """As far as every meter agrees; class 1 is in clear, so it is read to the end."""
    try:
        cls, _ = codec.split(digits)
        if cls == apdu.NON_METER_SPECIFIC:
            codec.decode_clear(digits)
    except TokenError as error:
        return DECODING_REFUSALS[error.code][0]
    return Result.ACCEPT


def _maker_of(digits: str) -> int:
    """The maker whose meters a class 1 token is for: a line that names no meter means theirs."""
    try:
        return codec.decode_clear(digits).fields["mfr_code"]
    except TokenError:
        return 0


ATTEMPTS: tuple[tuple[frozenset[str], Callable[[Values], object]], ...] = (
    (frozenset({"tenths"}), _check_amount),
    (frozenset({"hundred_thousandths"}), _check_currency_amount),
    (frozenset({"time_utc", "base_date"}), _check_tid),
    (frozenset({"pan"}), lambda vector: numbers.validate_meter_pan(vector["inputs"]["pan"])),
    (frozenset({"drn"}), lambda vector: numbers.validate_drn(vector["inputs"]["drn"])),
)

KINDS: Mapping[str, Callable[[Values], Values]] = {
    "token": _check_token,
    "dkga": _check_dkga,
    "des": _check_des,
    "misty1": _check_misty1,
    "sta": _check_sta,
    "crc16": _check_crc16,
    "amount": _check_amount,
    "currency_amount": _check_currency_amount,
    "tid": _check_tid,
    "luhn": _check_luhn,
    "negative": _check_negative,
}
