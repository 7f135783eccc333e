import itertools
import json
from dataclasses import replace

import pytest

from tokens import codec, meter_record, sta
from tokens.acceptance import (
    BLANK_MEMORY,
    TID_SLOTS,
    MeterTokenState,
    Result,
    accept,
)
from tokens.apdu import Apdu
from tokens.credit import Credit, transfer_credit
from tokens.errors import TokenError
from tokens.key_change import key_change_set
from tokens.keys import DecoderKey, KeyAttributes
from tokens.management import management

STA_KEY = DecoderKey(bytes.fromhex("0abc12def3456789"))
MISTY1_KEY = DecoderKey(bytes.fromhex("00112233445566778899aabbccddeeff"))
OTHER_STA_KEY = DecoderKey(bytes.fromhex("8899aabbccddeeff"))
OTHER_MISTY1_KEY = DecoderKey(bytes.fromhex("ffeeddccbbaa99887766554433221100"))
ATTRIBUTES = KeyAttributes(sgc="123456", krn=1, kt=2, ken=99, ti="01", base_date=2014, ea=7, dkga=4)
METER = MeterTokenState(STA_KEY, ATTRIBUTES, mfr_code=7)
EA11_METER = MeterTokenState(MISTY1_KEY, replace(ATTRIBUTES, ea=11))
NOW = 6_400_000
EXPIRED = 100 << 16


def credit(number=NOW, *, amount=256, subclass=0, key=STA_KEY, rnd=5):
    token = transfer_credit(Credit(subclass, amount), tid=number, rnd=rnd)
    return codec.encode(token, key)


def encoded(cls, subclass, fields, key=STA_KEY):
    return codec.encode(Apdu(cls, subclass, fields), key)


def raw(cls, content, key=STA_KEY):
    """A token that authenticates and whose subclass and content nobody defined."""
    check = codec.crc.token_crc(cls << 48 | content)
    block = codec.block_cipher(key).encrypt(content << 16 | check)
    return codec.join(cls, block)


def class_3():
    return f"{int(credit()) | 0b11 << 27:020}"


def used(state):
    return accept(state, credit())[0]


def full_of(first):
    return replace(METER, remembered_tids=tuple(range(first, first + TID_SLOTS)))


# (meter, digits, room, result, stages passed) in the order of the checks. Each token is also
# faulty in a later check where that can be, so the order is what decides.
CASES = {
    "19 digits": (METER, "1" * 19, None, Result.FORMAT_ERROR, 0),
    "letters": (METER, "1" * 19 + "x", None, Result.FORMAT_ERROR, 0),
    "67 bits": (METER, str(1 << 66), None, Result.FORMAT_ERROR, 0),
    "class 3": (METER, class_3(), None, Result.FUNCTION_ERROR, 1),
    "other key": (METER, credit(key=OTHER_STA_KEY), None, Result.AUTHENTICATION_ERROR, 1),
    "unknown subclass": (METER, raw(0, 9 << 44), None, Result.FUNCTION_ERROR, 2),
    "another service": (METER, credit(EXPIRED, subclass=1), None, Result.FUNCTION_ERROR, 2),
    "another maker": (
        METER,
        codec.encode_clear(Apdu(1, 0, {"control": 1, "mfr_code": 8})),
        None,
        Result.MFR_CODE_ERROR,
        1,
    ),
    "default key": (
        replace(METER, attributes=replace(ATTRIBUTES, kt=1)),
        credit(EXPIRED),
        None,
        Result.DDTK_ERROR,
        2,
    ),
    "expired": (
        replace(METER, remembered_tids=(EXPIRED,)),
        credit(EXPIRED),
        None,
        Result.KEY_EXPIRED_ERROR,
        2,
    ),
    "used": (used(METER), credit(), 0, Result.USED_ERROR, 2),
    "used, other RND and amount": (used(METER), credit(rnd=6, amount=1), 0, Result.USED_ERROR, 2),
    "old": (full_of(NOW + 1), credit(), 0, Result.OLD_ERROR, 2),
    "register unknown": (
        METER,
        encoded(2, 1, {"rnd": 0, "tid": NOW, "register": 8}),
        None,
        Result.RANGE_ERROR,
        3,
    ),
    "padding": (METER, raw(2, 5 << 44 | NOW << 16 | 1), None, Result.RANGE_ERROR, 3),
    "no room": (METER, credit(), 255, Result.OVERFLOW_ERROR, 3),
    "key type": (
        METER,
        encoded(2, 3, {"kenho": 15, "krn": 1, "ro": 0, "third_kct": 0, "kt": 0, "nkho": 1}),
        None,
        Result.KEY_TYPE_ERROR,
        3,
    ),
    "key revision 0": (
        METER,
        encoded(2, 3, {"kenho": 15, "krn": 0, "ro": 0, "third_kct": 0, "kt": 2, "nkho": 1}),
        None,
        Result.RANGE_ERROR,
        3,
    ),
    "tariff index 100": (
        METER,
        encoded(2, 4, {"kenlo": 15, "ti": 100, "nklo": 1}),
        None,
        Result.RANGE_ERROR,
        3,
    ),
    "supply group of seven digits": (
        METER,
        encoded(2, 8, {"sgc": 1_000_000}),
        None,
        Result.RANGE_ERROR,
        3,
    ),
    "padding of a key change": (
        METER,
        raw(2, 8 << 44 | 201_457 << 20 | 1),
        None,
        Result.RANGE_ERROR,
        3,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_faulty_token_is_refused_by_the_first_check_that_it_fails(case):
    meter, digits, room, result, stages = CASES[case]
    after, verdict = accept(meter, digits, credit_room=room)
    assert verdict.result is result
    passed = (verdict.format, verdict.authentication, verdict.validation, verdict.execution)
    assert passed == tuple(stages > stage for stage in range(4))
    assert after == meter
    assert verdict.credit is None
    assert verdict.command is None


def test_every_result_is_reached():
    reached = {case[3] for case in CASES.values()}
    reached |= {Result.ACCEPT, Result.FIRST_KCT, Result.SECOND_KCT}  # in the tests below
    assert reached == set(Result)


def test_result_names_are_those_of_the_message_contract():
    assert " ".join(Result) == (
        "Accept 1stKCT 2ndKCT OverflowError KeyTypeError FormatError RangeError FunctionError "
        "OldError UsedError KeyExpiredError DDTKError AuthenticationError MfrCodeError"
    )


@pytest.mark.parametrize(
    ("meter", "key"), [(METER, STA_KEY), (EA11_METER, MISTY1_KEY)], ids=["EA07", "EA11"]
)
@pytest.mark.parametrize(("subclass", "amount"), [(0, 256), (4, 123_45000), (4, -16383)])
def test_an_accepted_credit_is_reported_and_remembered(meter, key, subclass, amount):
    after, verdict = accept(meter, credit(subclass=subclass, amount=amount, key=key))
    assert verdict.result is Result.ACCEPT
    assert verdict.execution
    assert verdict.credit.subclass == subclass
    assert verdict.credit.amount >= amount
    assert NOW in after.remembered_tids
    assert len(after.remembered_tids) == TID_SLOTS


def test_credit_that_just_fits_is_accepted():
    assert accept(METER, credit(amount=256), credit_room=256)[1].result is Result.ACCEPT


def test_a_token_refused_for_want_of_room_may_be_entered_again():
    after, _ = accept(METER, credit(), credit_room=0)
    assert accept(after, credit())[1].result is Result.ACCEPT


def test_tokens_of_one_purchase_may_be_entered_in_any_order():
    state = METER
    for number in (NOW + 3, NOW, NOW + 2):
        state, verdict = accept(state, credit(number))
        assert verdict.result is Result.ACCEPT


def test_a_meter_whose_memory_is_full_forgets_the_oldest_and_then_calls_it_old():
    state = METER
    for number in range(NOW, NOW + TID_SLOTS + 1):
        state, verdict = accept(state, credit(number))
        assert verdict.result is Result.ACCEPT
    assert NOW not in state.remembered_tids
    assert accept(state, credit(NOW))[1].result is Result.OLD_ERROR
    assert accept(state, credit(NOW + 1))[1].result is Result.USED_ERROR


def test_a_setting_is_reported_in_its_unit():
    digits = codec.encode(management(0, {"mpl": 16385}, tid=NOW, rnd=1), STA_KEY)
    after, verdict = accept(METER, digits)
    assert (verdict.result, verdict.command) == (Result.ACCEPT, (2, 0))
    assert verdict.setting == {"mpl": 16394}
    assert NOW in after.remembered_tids


@pytest.mark.parametrize("mfr_code", [0, 7])
def test_a_display_token_of_the_maker_or_of_nobody_is_accepted_again_and_again(mfr_code):
    digits = codec.encode_clear(Apdu(1, 0, {"control": 2, "mfr_code": mfr_code}))
    after, verdict = accept(METER, digits)
    assert (verdict.result, verdict.command) == (Result.ACCEPT, (1, 0))
    assert after == METER


def test_the_tables_are_the_meters():
    tables = sta.SubstitutionTables(
        s1=tuple(range(16)), s2=(*range(1, 16), 0), permutation=tuple(range(64))
    )
    assert accept(METER, credit(), tables=tables)[1].result is Result.AUTHENTICATION_ERROR


NEW = replace(ATTRIBUTES, krn=2, ken=255, ti="42", kt=1)
NEW_SGC = replace(NEW, sgc="201457")
SETS = {
    "pair": (METER, NEW, OTHER_STA_KEY, STA_KEY, False),
    "triplet": (METER, NEW_SGC, OTHER_STA_KEY, STA_KEY, True),
    "quad": (
        EA11_METER,
        replace(NEW_SGC, ea=11),
        OTHER_MISTY1_KEY,
        MISTY1_KEY,
        False,
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_a_key_change_set_takes_effect_in_any_order_with_its_last_token(name):
    meter, new, new_key, old_key, triplet = SETS[name]
    tokens = key_change_set(meter.attributes, new, new_key, triplet=triplet)
    digits = [codec.encode(token, old_key) for token in tokens]
    for order in itertools.permutations(digits):
        state, results = meter, []
        for row in order:
            assert state.decoder_key == old_key
            state, verdict = accept(state, row)
            results.append(verdict.result)
        pending = [Result.FIRST_KCT, Result.SECOND_KCT, Result.SECOND_KCT][: len(order) - 1]
        assert results == [*pending, Result.ACCEPT]
        assert (state.decoder_key, state.attributes) == (new_key, new)
        assert state.key_change == ()


@pytest.mark.parametrize("name", SETS)
def test_a_section_entered_again_is_answered_as_before(name):
    meter, new, new_key, old_key, triplet = SETS[name]
    state = meter
    for token in key_change_set(meter.attributes, new, new_key, triplet=triplet)[:-1]:
        state, verdict = accept(state, codec.encode(token, old_key))
        assert accept(state, codec.encode(token, old_key)) == (state, verdict)


def test_after_a_key_change_only_the_new_key_works_and_used_tids_stay_used():
    state = used(METER)
    new = replace(ATTRIBUTES, krn=2)
    for token in key_change_set(ATTRIBUTES, new, OTHER_STA_KEY):
        state, _ = accept(state, codec.encode(token, STA_KEY))
    assert accept(state, credit(NOW + 5))[1].result is Result.AUTHENTICATION_ERROR
    assert accept(state, credit(NOW + 5, key=OTHER_STA_KEY))[1].result is Result.ACCEPT
    assert accept(state, credit(NOW, key=OTHER_STA_KEY))[1].result is Result.USED_ERROR


def test_a_change_of_base_date_clears_the_tid_memory():
    state = full_of(NOW)
    for token in key_change_set(ATTRIBUTES, replace(ATTRIBUTES, base_date=2035), OTHER_STA_KEY):
        state, verdict = accept(state, codec.encode(token, STA_KEY))
    assert verdict.result is Result.ACCEPT
    assert state.attributes.base_date == 2035
    assert state.remembered_tids == BLANK_MEMORY
    assert accept(state, credit(3, key=OTHER_STA_KEY))[1].result is Result.ACCEPT


def test_a_meter_may_skip_a_base_date():
    """One of 1993 that is found after 2045 has no way through 2014, whose last TID is past."""
    state = MeterTokenState(STA_KEY, replace(ATTRIBUTES, base_date=1993, ken=255))
    state = replace(state, remembered_tids=tuple(range((1 << 24) - TID_SLOTS, 1 << 24)))
    to_2035 = replace(state.attributes, base_date=2035)
    for token in key_change_set(state.attributes, to_2035, OTHER_STA_KEY):
        state, _ = accept(state, codec.encode(token, STA_KEY))
    state, verdict = accept(state, credit(3, key=OTHER_STA_KEY))
    assert verdict.result is Result.ACCEPT


def test_there_is_no_base_date_after_the_last():
    last = replace(METER, attributes=replace(ATTRIBUTES, base_date=2035))
    rollover = key_change_set(ATTRIBUTES, replace(ATTRIBUTES, base_date=2035), OTHER_STA_KEY)
    first, second = (codec.encode(token, STA_KEY) for token in rollover)
    half, _ = accept(last, first)
    after, verdict = accept(half, second)
    assert verdict.result is Result.RANGE_ERROR
    assert after == half


def test_a_quad_whose_supply_group_has_seven_digits_takes_no_effect():
    new = replace(EA11_METER.attributes, krn=2)
    *others, last = key_change_set(EA11_METER.attributes, new, OTHER_MISTY1_KEY)
    state = EA11_METER
    for token in others:
        state, _ = accept(state, codec.encode(token, MISTY1_KEY))
    too_large = Apdu(2, 9, {**last.fields, "sgcho": 1_000_000 >> 12})
    after, verdict = accept(state, codec.encode(too_large, MISTY1_KEY))
    assert verdict.result is Result.RANGE_ERROR
    assert after == state
    assert accept(state, codec.encode(last, MISTY1_KEY))[1].result is Result.ACCEPT


def test_a_set_that_is_issued_again_replaces_the_half_that_was_entered():
    first, _ = key_change_set(ATTRIBUTES, NEW, OTHER_STA_KEY)
    again = key_change_set(ATTRIBUTES, NEW, DecoderKey(bytes.fromhex("1122334455667788")))
    state, _ = accept(METER, codec.encode(first, STA_KEY))
    for token in again:
        state, verdict = accept(state, codec.encode(token, STA_KEY))
    assert verdict.result is Result.ACCEPT
    assert state.decoder_key == DecoderKey(bytes.fromhex("1122334455667788"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ea": 11}, "encryption algorithm"),
        ({"base_date": 1993}, "go back"),
        ({}, "changes nothing"),
    ],
)
def test_a_key_change_that_no_meter_can_follow_is_refused(change, reason):
    with pytest.raises(TokenError, match=reason) as refusal:
        key_change_set(ATTRIBUTES, replace(ATTRIBUTES, **change), OTHER_STA_KEY)
    assert refusal.value.code == "key_mismatch"


def test_the_key_of_a_meter_must_be_one_of_its_algorithm():
    with pytest.raises(TokenError) as refusal:
        MeterTokenState(MISTY1_KEY, ATTRIBUTES)
    assert refusal.value.code == "key_mismatch"


def half_changed():
    first, _ = key_change_set(ATTRIBUTES, NEW, OTHER_STA_KEY)
    return accept(used(METER), codec.encode(first, STA_KEY))[0]


def test_the_state_survives_storage_as_json():
    state = half_changed()
    stored = json.loads(json.dumps(meter_record.dump_with_key(state)))
    assert meter_record.load(stored) == state


def test_the_state_shows_neither_its_key_nor_sections_of_the_next():
    shown = repr(half_changed())
    for octets in (STA_KEY.reveal(), OTHER_STA_KEY.reveal()):
        assert octets.hex() not in shown
        assert str(int.from_bytes(octets[:4], "big")) not in shown


@pytest.mark.parametrize(
    "damage",
    [
        {"decoder_key": "zz"},
        {"decoder_key": 1},
        {"remembered_tids": ["1"]},
        {"attributes": {}},
        {"unknown": 1},
    ],
)
def test_a_damaged_record_is_refused_without_quoting_it(damage):
    record = meter_record.dump_with_key(METER) | damage
    with pytest.raises(TokenError) as refusal:
        meter_record.load(record)
    assert refusal.value.code == "state_invalid"
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__
