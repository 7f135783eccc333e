from dataclasses import replace

import pytest

from tokens import codec, slips
from tokens.amount import AMOUNT_LAST, CURRENCY_AMOUNT_LAST
from tokens.apdu import Apdu
from tokens.credit import Credit, credit_of
from tokens.errors import SecurityModuleAway, TokenError
from tokens.keys import DecoderKey, KeyAttributes, VendingKey
from tokens.security_module import SecurityModule, SoftwareSecurityModule

PAN = "600727000000000009"
KDF_KEY = bytes.fromhex("00112233445566778899aabbccddeeff00112233")
NEXT_KEY = bytes.fromhex("33221100ffeeddccbbaa99887766554433221100")
MODULE: SecurityModule = SoftwareSecurityModule(
    {
        ("123456", 1): VendingKey(KDF_KEY, ken=100),
        ("123456", 2): VendingKey(NEXT_KEY, base_date=2035),
    }
)
HELD = KeyAttributes(sgc="123456", krn=1, kt=2, ken=255, ti="01", base_date=2014, ea=11, dkga=4)
NEXT = replace(HELD, krn=2, base_date=2035)
NOW = 6_400_000


def issue(attributes=HELD, *, meter_pan=PAN, subclass=0, amount=256, tid_minutes=NOW, rnd=5):
    return MODULE.issue_credit(
        meter_pan,
        attributes,
        subclass=subclass,
        amount=amount,
        tid_minutes=tid_minutes,
        rnd=rnd,
    )


def test_the_worked_example_of_the_standard():
    token = Apdu(0, 0, {"rnd": 11, "tid": 0x19EB23, "amount": 0x0100})
    key = DecoderKey(bytes.fromhex("0abc12def3456789"))
    assert codec.clear_block(token, 7) == 0x0B19EB230100C207
    assert codec.encode(token, key) == "51043465443420856213"
    assert codec.decode("51043465443420856213", key) == token
    assert credit_of(token) == Credit(0, 256)


def test_what_is_issued_verifies_under_the_same_attributes_only():
    digits = issue()
    assert credit_of(MODULE.verify(PAN, HELD, digits)) == Credit(0, 256)
    for other in (replace(HELD, ti="02"), replace(HELD, kt=1), replace(HELD, base_date=1993)):
        with pytest.raises(TokenError) as refusal:
            MODULE.verify(PAN, other, digits)
        assert refusal.value.code == "crc_error"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"attributes": replace(HELD, kt=1)}, "key_type_refused"),
        ({"attributes": replace(HELD, kt=0)}, "key_type_refused"),
        ({"attributes": replace(HELD, kt=3)}, "key_type_refused"),
        ({"attributes": replace(HELD, sgc="999999")}, "key_unknown"),
        ({"attributes": replace(HELD, krn=9)}, "key_unknown"),
        ({"attributes": replace(HELD, krn=2)}, "key_mismatch"),  # base date of the key is 2035
        ({"attributes": replace(HELD, ea=7, dkga=2)}, "key_mismatch"),
        ({"attributes": replace(HELD, ken=50)}, "key_expired"),  # KEN of the meter
        ({"tid_minutes": 101 << 16}, "key_expired"),  # KEN of the vending key
        ({"tid_minutes": 1440 * 3000 + 1}, "tid_out_of_range"),  # 00:01
        ({"meter_pan": "600727000000000008"}, "number_invalid"),
        ({"subclass": 8}, "unsupported_subclass"),
        ({"subclass": -1}, "unsupported_subclass"),
        ({"amount": -1}, "amount_out_of_range"),
        ({"amount": AMOUNT_LAST + 1}, "amount_out_of_range"),
        ({"subclass": 4, "amount": CURRENCY_AMOUNT_LAST + 1}, "amount_out_of_range"),
        ({"subclass": 4, "amount": -CURRENCY_AMOUNT_LAST - 1}, "amount_out_of_range"),
        ({"rnd": 16}, "field_out_of_range"),
        ({"rnd": -1}, "field_out_of_range"),
    ],
)
def test_credit_that_may_not_be_issued_is_refused(asked, code):
    with pytest.raises(TokenError) as refusal:
        issue(**asked)
    assert refusal.value.code == code
    assert KDF_KEY.hex()[:8] not in str(refusal.value)


@pytest.mark.parametrize(
    ("subclass", "fields", "code"),
    [
        (3, {}, "unsupported_subclass"),
        (11, {}, "unsupported_subclass"),
        (1, {"register": 8}, "field_out_of_range"),
        (1, {}, "field_out_of_range"),
        (1, {"register": 65535, "tid": NOW - 1}, "field_out_of_range"),
        (1, {"register": 65535, "rnd": 1}, "field_out_of_range"),
        (5, {"pad": 0, "register": 0}, "field_out_of_range"),
        (5, {"pad": 0}, "field_out_of_range"),
        (5, {"tid": NOW}, "field_out_of_range"),
        (2, {"rate": 65536}, "field_out_of_range"),
        (10, {"index": 64, "value": 0}, "field_out_of_range"),
        (0, {"mpl": AMOUNT_LAST + 1}, "amount_out_of_range"),
    ],
)
def test_a_management_token_that_is_not_defined_is_refused(subclass, fields, code):
    with pytest.raises(TokenError) as refusal:
        MODULE.issue_management(PAN, HELD, subclass=subclass, fields=fields, tid_minutes=NOW, rnd=0)
    assert refusal.value.code == code


def test_a_management_token_is_issued_under_the_default_key_too():
    held = replace(HELD, kt=1)
    digits = MODULE.issue_management(PAN, held, subclass=5, fields={}, tid_minutes=NOW, rnd=0)
    assert MODULE.verify(PAN, held, digits).subclass == 5


def test_a_key_change_leads_away_from_an_expired_key():
    expired = replace(HELD, ken=0)
    tokens = MODULE.issue_key_change(PAN, expired, NEXT, tid_minutes=10)
    assert [MODULE.verify(PAN, HELD, digits).subclass for digits in tokens] == [3, 4, 8, 9]


def test_a_key_change_does_not_lead_to_an_expired_key():
    with pytest.raises(TokenError) as refusal:
        MODULE.issue_key_change(PAN, HELD, replace(NEXT, ken=3), tid_minutes=4 << 16)
    assert refusal.value.code == "key_expired"


@pytest.mark.parametrize("known", [None, 100, 110, 255])
@pytest.mark.parametrize("told", [100, 110, 255])
def test_a_meter_is_told_no_other_ken_than_the_keys(known, told):
    module = SoftwareSecurityModule(
        {("123456", 1): VendingKey(KDF_KEY, ken=known), ("123456", 2): VendingKey(NEXT_KEY)}
    )
    held = replace(NEXT, base_date=2014)
    wanted = replace(HELD, ken=told)
    if known in {None, told}:
        tokens = module.issue_key_change(PAN, held, wanted, tid_minutes=NOW)
        first, second = (module.verify(PAN, held, digits).fields for digits in tokens[:2])
        assert first["kenho"] << 4 | second["kenlo"] == told
        return
    with pytest.raises(TokenError) as refusal:
        module.issue_key_change(PAN, held, wanted, tid_minutes=NOW)
    assert refusal.value.code == "key_mismatch"


def test_production_does_not_run_on_the_sample_tables():
    module = SoftwareSecurityModule({("123456", 1): VendingKey(KDF_KEY)}, production=True)
    wanted = {"subclass": 0, "amount": 1, "tid_minutes": NOW, "rnd": 0}
    assert module.issue_credit(PAN, HELD, **wanted)  # EA11 has no tables
    held = replace(HELD, ea=7)
    with pytest.raises(TokenError) as refusal:
        module.issue_credit(PAN, held, **wanted)
    assert refusal.value.code == "tables_invalid"
    with pytest.raises(TokenError) as refusal:
        module.issue_key_change(PAN, held, replace(held, ti="02"), tid_minutes=NOW)
    assert refusal.value.code == "tables_invalid"


def test_check_values_are_asked_for_by_group_and_revision():
    assert MODULE.key_check_value("123456", 1) == VendingKey(KDF_KEY).check_value
    with pytest.raises(TokenError) as refusal:
        MODULE.key_check_value("123456", 3)
    assert refusal.value.code == "key_unknown"


def test_the_module_shows_how_many_keys_it_holds_and_none_of_them():
    assert "2 vending keys" in repr(MODULE)
    assert KDF_KEY.hex()[:8] not in repr(MODULE)


def test_a_token_of_class_0_is_not_read_without_a_key():
    with pytest.raises(TokenError) as refusal:
        codec.decode_clear(issue())
    assert refusal.value.code == "key_unknown"
    with pytest.raises(TokenError):
        codec.encode_clear(Apdu(0, 0, {"rnd": 0, "tid": 0, "amount": 0}))


def test_padding_is_not_settable():
    with pytest.raises(TokenError, match="padding"):
        codec.clear_block(Apdu(2, 5, {"rnd": 0, "tid": 0, "pad": 1}), 11)


def read(digits):
    return MODULE.verify(PAN, HELD, digits)


@pytest.mark.parametrize(
    "slip",
    [
        lambda t: t[:7] + str((int(t[7]) + 1) % 10) + t[8:],
        lambda t: t[:3] + t[4] + t[3] + t[5:],
        lambda t: t[:11] + t[12:],
        lambda t: t[:11] + "0" + t[11:],
    ],
    ids=["one wrong", "two swapped", "one missing", "one too many"],
)
def test_a_slip_of_the_fingers_is_found(slip):
    digits = issue()
    wrong = slip(digits)
    assert wrong != digits
    assert digits in dict(slips.likely_slips(wrong, read))


@pytest.mark.parametrize("digits", ["", "12345", "x" * 20])
def test_no_slip_is_sought_in_what_is_far_from_a_token(digits):
    assert slips.likely_slips(digits, read) == ()


def test_a_search_for_slips_ends_with_what_is_not_about_the_digits():
    """A limit or a module that is away must not look like "no slip was found"."""
    asked = []

    def away(row):
        asked.append(row)
        raise SecurityModuleAway("It is gone.")

    with pytest.raises(SecurityModuleAway):
        slips.likely_slips("12345678901234567890", away)
    assert len(asked) == 1
