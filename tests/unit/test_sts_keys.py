import copy
import json
import pickle
from dataclasses import asdict, replace

import pytest

from tokens import key_file, keys, numbers
from tokens.errors import TokenError
from tokens.keys import DecoderKey, KeyAttributes, VendingKey

PAN = "600727000000000009"
DES_KEY = bytes.fromhex("abababababababab")
KDF_KEY = bytes.fromhex("00112233445566778899aabbccddeeff00112233")
ATTRIBUTES = KeyAttributes(
    sgc="123456", krn=1, kt=2, ken=255, ti="01", base_date=2014, ea=7, dkga=2
)
OCTETS = bytes.fromhex("e653341f9d5bf36f")


def test_dkga02_gives_the_published_key():
    assert keys.decoder_key(VendingKey(DES_KEY), PAN, ATTRIBUTES).reveal() == OCTETS


def test_the_blocks_of_dkga02_are_the_published_ones():
    assert keys.pan_block(numbers.meter_pan("600727", "12345678903"), 2) == "0072712345678903"
    assert keys.control_block(ATTRIBUTES) == "2123456011FFFFFF"
    assert keys.pan_block(PAN, 3) == "0072700000000000"


def test_dkga02_does_not_depend_on_the_base_date_and_dkga04_does():
    old, new = ATTRIBUTES, replace(ATTRIBUTES, base_date=2035)
    des, kdf = VendingKey(DES_KEY), VendingKey(KDF_KEY)
    assert keys.decoder_key(des, PAN, old) == keys.decoder_key(des, PAN, new)
    old, new = replace(old, dkga=4), replace(new, dkga=4)
    assert keys.decoder_key(kdf, PAN, old) != keys.decoder_key(kdf, PAN, new)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sgc": "12345"}, "number_invalid"),
        ({"sgc": "12345x"}, "number_invalid"),
        ({"ti": "1"}, "number_invalid"),
        ({"ti": "1٠"}, "number_invalid"),
        ({"krn": 0}, "number_invalid"),
        ({"krn": 10}, "number_invalid"),
        ({"kt": 4}, "number_invalid"),
        ({"kt": -1}, "number_invalid"),
        ({"ken": 256}, "number_invalid"),
        ({"base_date": 2000}, "tid_out_of_range"),
        ({"ea": 9}, "algorithm_refused"),
        ({"dkga": 1}, "algorithm_refused"),
        ({"dkga": 3}, "algorithm_refused"),
        ({"ea": 11, "dkga": 2}, "algorithm_refused"),
    ],
)
def test_attributes_that_no_meter_can_hold_are_refused(change, code):
    with pytest.raises(TokenError) as refusal:
        replace(ATTRIBUTES, **change)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("key", "change", "code"),
    [
        (DES_KEY, {"kt": 0}, "key_type_refused"),  # DITK is the maker's
        (KDF_KEY, {"kt": 3, "dkga": 4}, "key_type_refused"),  # sources conflict
        (KDF_KEY, {}, "key_mismatch"),
        (DES_KEY, {"dkga": 4}, "key_mismatch"),
    ],
)
def test_a_decoder_key_is_not_made_where_the_rules_forbid_it(key, change, code):
    with pytest.raises(TokenError) as refusal:
        keys.decoder_key(VendingKey(key), PAN, replace(ATTRIBUTES, **change))
    assert refusal.value.code == code


def test_a_decoder_key_is_not_made_for_a_bad_meter_number():
    with pytest.raises(TokenError) as refusal:
        keys.decoder_key(VendingKey(DES_KEY), "600727000000000008", ATTRIBUTES)
    assert refusal.value.code == "number_invalid"


@pytest.mark.parametrize("octets", [b"", bytes(7), bytes(16), bytes(21), DES_KEY[:7] + b"\xaa"])
def test_a_vending_key_of_wrong_length_or_parity_is_refused(octets):
    with pytest.raises(TokenError) as refusal:
        VendingKey(octets)
    assert refusal.value.code == "key_invalid"


def test_only_a_20_byte_test_key_may_have_one_byte_more():
    key = VendingKey(bytes(range(20)))
    assert VendingKey.of_test_sheet(bytes(range(21))) == key
    assert VendingKey.of_test_sheet(bytes(range(20))) == key
    for size in (0, 9, 19, 22):
        with pytest.raises(TokenError):
            VendingKey.of_test_sheet(bytes([1] * size))
    with pytest.raises(TokenError):
        VendingKey(bytes(range(21)))


def test_the_ken_of_a_vending_key_is_one_octet():
    with pytest.raises(TokenError):
        VendingKey(DES_KEY, ken=256)


@pytest.mark.parametrize("size", [0, 7, 9, 20])
def test_a_decoder_key_of_wrong_length_is_refused(size):
    with pytest.raises(TokenError) as refusal:
        DecoderKey(bytes(size))
    assert refusal.value.code == "key_invalid"


@pytest.mark.parametrize("key", [VendingKey(DES_KEY), VendingKey(KDF_KEY), DecoderKey(OCTETS)])
def test_a_key_never_shows_its_octets(key):
    octets = key.reveal()
    shown = f"{key!r} {key!s} {key} {key:>40} {[key]}"
    for form in (octets.hex(), octets.hex().upper(), repr(octets)[2:-1], str(list(octets))):
        assert form not in shown
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("key", [VendingKey(KDF_KEY), DecoderKey(OCTETS)])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_key_does_not_pickle(key, protocol):
    with pytest.raises(TypeError, match="does not pickle"):
        pickle.dumps(key, protocol)


def test_a_key_is_compared_and_copied_but_is_no_dictionary_key():
    key = DecoderKey(OCTETS)
    assert key == DecoderKey(OCTETS)
    assert key != DecoderKey(bytes(8))
    assert key != OCTETS
    assert copy.copy(key) is key
    assert copy.deepcopy(key) is key
    with pytest.raises(TypeError):
        hash(key)


def test_a_key_does_not_serialise_as_json():
    with pytest.raises(TypeError):
        json.dumps(asdict(ATTRIBUTES) | {"key": DecoderKey(OCTETS)})


@pytest.mark.parametrize(("dkga", "size"), [(2, 8), (4, 20)])
def test_a_generated_key_is_valid_for_any_random_octets(dkga, size):
    for octets in (bytes(size), bytes([255] * size), bytes(range(size))):
        key = VendingKey.generate(dkga, octets, base_date=2014)
        assert key.dkga == dkga
        assert len(key.check_value) == 6


def test_a_key_is_not_generated_of_too_little_randomness():
    with pytest.raises(TokenError):
        VendingKey.generate(4, bytes(8))


def test_check_values_tell_keys_apart():
    values = {VendingKey(octets).check_value for octets in (DES_KEY, KDF_KEY, KDF_KEY[::-1])}
    assert len(values) == 3


class TestKeyFile:
    KEYS = {  # noqa: RUF012  (read only)
        ("123456", 1): VendingKey(DES_KEY, ken=85),
        ("123456", 2): VendingKey(KDF_KEY, base_date=2035),
    }
    SEALED = key_file.seal(KEYS, "correct horse", bytes(range(28)))

    def test_what_was_sealed_comes_back(self):
        found = key_file.unseal(self.SEALED, "correct horse")
        assert found == self.KEYS
        assert {slot: (key.ken, key.base_date) for slot, key in found.items()} == {
            ("123456", 1): (85, None),
            ("123456", 2): (None, 2035),
        }

    def test_the_file_does_not_hold_the_keys_in_clear(self):
        for form in (DES_KEY, KDF_KEY, DES_KEY.hex().encode(), b"123456"):
            assert form not in self.SEALED

    @pytest.mark.parametrize(
        "damage",
        [
            lambda sealed: b"",
            lambda sealed: sealed[:20],
            lambda sealed: b"NOTAKEYS" + sealed[8:],
            lambda sealed: sealed[:8] + b"\xff" + sealed[9:],
            lambda sealed: sealed[:-1],
            lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]),
        ],
    )
    def test_a_damaged_file_is_refused(self, damage):
        with pytest.raises(TokenError) as refusal:
            key_file.unseal(damage(self.SEALED), "correct horse")
        assert refusal.value.code == "key_file_invalid"

    def test_another_passphrase_is_refused_and_not_repeated(self):
        with pytest.raises(TokenError) as refusal:
            key_file.unseal(self.SEALED, "battery staple")
        assert refusal.value.code == "key_file_invalid"
        assert "staple" not in str(refusal.value)

    def test_a_short_passphrase_or_short_randomness_is_refused(self):
        with pytest.raises(TokenError, match="passphrase"):
            key_file.seal(self.KEYS, "short", bytes(28))
        with pytest.raises(TokenError, match="random"):
            key_file.seal(self.KEYS, "correct horse", bytes(27))
