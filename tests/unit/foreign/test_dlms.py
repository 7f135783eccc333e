"""Frames as published: Aidon's list of its HAN interface, a Kaifa push, the Green Book's cipher."""

from datetime import datetime

import pytest
from dlms_cosem.security import SecurityControlField, encrypt

from meter_gateway.foreign import device_profile as profile
from meter_gateway.foreign import dlms
from meter_gateway.foreign.device_profile import DlmsProfile
from meter_gateway.foreign.keys import DeviceKeys, GlobalKey
from meter_gateway.foreign.values import ForeignReading
from schemas.quantities import parse_instant_ms
from schemas.telemetry import PayloadError

# "RJ12 HAN interface" v1.5 of Aidon, without its HDLC frame and LLC header: 27 rows.
AIDON = bytes.fromhex(
    "0f4000000000011b"
    "020209060000010000ff090c07e30c1001073b28ff8000ff"
    "020309060100010700ff060000046202020f00161b"
    "020309060100020700ff060000000002020f00161b"
    "020309060100030700ff06000005e302020f00161d"
    "020309060100040700ff060000000002020f00161d"
    "0203090601001f0700ff10000002020fff1621"
    "020309060100330700ff10004b02020fff1621"
    "020309060100470700ff10000002020fff1621"
    "020309060100200700ff12090302020fff1623"
    "020309060100340700ff1209c302020fff1623"
    "020309060100480700ff12090402020fff1623"
    "020309060100150700ff060000000002020f00161b"
    "020309060100160700ff060000000002020f00161b"
    "020309060100170700ff060000000002020f00161d"
    "020309060100180700ff060000000002020f00161d"
    "020309060100290700ff060000046202020f00161b"
    "0203090601002a0700ff060000000002020f00161b"
    "0203090601002b0700ff06000005e202020f00161d"
    "0203090601002c0700ff060000000002020f00161d"
    "0203090601003d0700ff060000000002020f00161b"
    "0203090601003e0700ff060000000002020f00161b"
    "0203090601003f0700ff060000000002020f00161d"
    "020309060100400700ff060000000002020f00161d"
    "020309060100010800ff060099598602020f00161e"
    "020309060100020800ff060000000802020f00161e"
    "020309060100030800ff060064ed4b02020f001620"
    "020309060100040800ff060000000502020f001620"
)
# A push of a Kaifa meter in Austria, as published: time in the envelope and in the list.
KAIFA = bytes.fromhex(
    "0f0017fa980c07e60b0c0610360000ffc40002100906"
    "0000010000ff090c07e60b0c0610360000ffc4000202"
    "09060000600100ff090e314b464d3132303032333438303402020906"
    "00002a0000ff09104b464d31323030323030323334383034"
    "020309060100200700ff1208f402020fff1623"
    "020309060100340700ff12090c02020fff1623"
    "020309060100480700ff12090a02020fff1623"
    "0203090601001f0700ff1200a502020ffe1621"
    "020309060100330700ff1200ad02020ffe1621"
    "020309060100470700ff12002502020ffe1621"
    "020309060100010700ff06000002ca02020f00161b"
    "020309060100020700ff060000000002020f00161b"
    "020309060100010800ff060014416002020f00161e"
    "020309060100020800ff060000000002020f00161e"
    "020309060100030800ff06000012d202020f001620"
    "020309060100040800ff060005be6002020f001620"
)
KEYS = DeviceKeys(GlobalKey(bytes(range(16))), GlobalKey(bytes(range(0xD0, 0xE0))))
TITLE = bytes.fromhex("4D4D4D0000BC614E")


def of(name: str, **changes: object) -> DlmsProfile:
    found = profile.load(name)
    assert isinstance(found, DlmsProfile)
    return found.model_copy(update=changes)


HAN = of("dlms-han")
PUSH = of("dlms-push")
CLEAR = of("dlms-push", protection="none")


def ciphered(apdu: bytes, counter: int, keys: DeviceKeys = KEYS, control: int = 0x30) -> bytes:
    field = SecurityControlField.from_bytes(bytes([control]))
    secret = (keys.encryption.reveal(), apdu, keys.authentication.reveal())
    cipher = encrypt(field, TITLE, counter, *secret)
    content = bytes([control]) + counter.to_bytes(4, "big") + cipher
    return b"\xdb\x08" + TITLE + b"\x82" + len(content).to_bytes(2, "big") + content


def reading(found: DlmsProfile, frame: bytes, keys: DeviceKeys | None = None) -> object:
    return dlms.read(found, "M1", dlms.open_push(found, frame, keys))


def test_a_row_says_its_register_with_scaler_and_unit() -> None:
    # The clock tells no offset: the zone of the device places it.
    assert reading(HAN, AIDON) == ForeignReading(
        "M1", {"1.8.0": 10049926, "2.8.0": 8}, local=datetime(2019, 12, 16, 7, 59, 40)
    )


def test_a_push_carries_its_instant() -> None:
    assert reading(CLEAR, KAIFA) == ForeignReading(
        "M1", {"1.8.0": 1327456, "2.8.0": 0}, parse_instant_ms("2022-11-12T15:54:00Z")
    )


def test_a_deviation_that_is_not_to_be_believed_is_left_to_the_zone() -> None:
    local = datetime(2022, 11, 12, 16, 54)
    found = reading(of("dlms-han", trusted=True), KAIFA)
    assert found == ForeignReading("M1", {"1.8.0": 1327456, "2.8.0": 0}, local=local)


def test_the_tcp_wrapper_is_taken_off() -> None:
    wrapped = bytes.fromhex("0001000100010000")[:6] + len(KAIFA).to_bytes(2, "big") + KAIFA
    assert reading(CLEAR, wrapped) == reading(CLEAR, KAIFA)


def clocked(clock: str, *rows: str) -> bytes:
    """A notification of one flat list: clock, then rows."""
    count = 2 + sum(3 if "0202" in row else 2 for row in rows)
    head = f"0f000000010002{count:02x}09060000010000ff090c{clock}"
    return bytes.fromhex(head + "".join(rows))


IMPORT = "09060100010800ff"


@pytest.mark.parametrize(
    ("row", "wh"),
    [
        (IMPORT + "060000007b02020f01161e", 1230),
        (IMPORT + "060000007b02020fff161e", 12),
        (IMPORT + "150000000000000100" + "02020f00161e", 256),
        (IMPORT + "060000007b02020f03161e", 123000),
    ],
)
def test_a_scaler_is_a_power_of_ten(row: str, wh: int) -> None:
    found = reading(CLEAR, clocked("07ea030100000000ff000000", row))
    assert found == ForeignReading("M1", {"1.8.0": wh}, parse_instant_ms("2026-03-01T00:00:00Z"))


def test_a_meter_that_says_no_unit_has_the_profiles() -> None:
    tens = profile.DlmsRegister(unit="Wh", scale="10")
    found = of("dlms-push", protection="none", registers={"1.8.0": tens})
    frame = clocked("07ea030100000000ff000000", IMPORT + "060000007b")
    said = reading(found, frame)
    assert isinstance(said, ForeignReading)
    assert said.registers == {"1.8.0": 1230}
    with pytest.raises(PayloadError) as refused:
        reading(CLEAR, frame)
    assert refused.value.code == "wrong_type"


@pytest.mark.parametrize(
    ("status", "quality"), [("00", "sync"), ("01", "lost"), ("02", "drift"), ("ff", "sync")]
)
def test_a_clock_says_how_good_it_is(status: str, quality: str) -> None:
    frame = clocked(f"07ea030100000000ff0000{status}", IMPORT + "060000007b02020f00161e")
    said = reading(CLEAR, frame)
    assert isinstance(said, ForeignReading)
    assert said.quality == quality


def test_a_push_of_other_objects_says_nothing_of_energy() -> None:
    assert reading(CLEAR, clocked("07ea030100000000ff000000")) is None


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "undecodable"),
        (b"\x0f", "undecodable"),
        (b"\xc0\x01\xc1\x00", "undecodable"),
        (AIDON[:-1], "undecodable"),
        (AIDON + b"\x00", "undecodable"),
        # An array of 2^32 nulls, of which none is there; nesting; an unknown type.
        (bytes.fromhex("0f00000001000184ffffffff00"), "undecodable"),
        (bytes.fromhex("0f0000000100") + b"\x01\x01" * 1000, "undecodable"),
        (bytes.fromhex("0f000000010063"), "undecodable"),
        (bytes.fromhex("0001000100010004") + b"\x0f", "undecodable"),
        (clocked("ffffffffffffffffff8000ff", IMPORT + "060000007b02020f00161e"), "bad_instant"),
        (clocked("07ea0d0100000000ff000000", IMPORT + "060000007b02020f00161e"), "bad_instant"),
        (clocked("07ea030100000000ff000000", IMPORT + "060000007b02020f00161b"), "wrong_type"),
        (clocked("07ea030100000000ff000000", IMPORT + "060000007b02020f7f161e"), "wrong_type"),
    ],
)
def test_bytes_that_are_no_push_are_refused(frame: bytes, reason: str) -> None:
    with pytest.raises(PayloadError) as refused:
        reading(CLEAR, frame)
    assert refused.value.code == reason


def test_a_ciphered_push_is_read_with_the_keys_of_its_meter() -> None:
    push = dlms.open_push(PUSH, ciphered(KAIFA, 99), KEYS)
    assert push.counter == 99
    assert dlms.read(PUSH, "M1", push) == reading(CLEAR, KAIFA)


def test_the_cipher_is_that_of_the_green_book() -> None:
    # Its example: get-request of the clock, suite 0, counter 01234567. Authentic, and no push.
    frame = bytes.fromhex(
        "db084d4d4d0000bc614e1e3001234567411312ff935a47566827c467bc7d825c3be4a77c3fcc056b6b"
    )
    with pytest.raises(PayloadError) as refused:
        dlms.open_push(PUSH, frame, KEYS)
    assert refused.value.code == "undecodable"
    assert frame == ciphered(bytes.fromhex("c0010000080000010000ff0200"), 0x01234567).replace(
        b"\x82\x00\x1e", b"\x1e"
    )


OTHER = DeviceKeys(GlobalKey(bytes(range(1, 17))), KEYS.authentication)
OTHER_AUTHENTICATION = DeviceKeys(KEYS.encryption, GlobalKey(bytes(range(1, 17))))


@pytest.mark.parametrize(
    ("frame", "keys"),
    [
        (ciphered(KAIFA, 99), None),
        (ciphered(KAIFA, 99), OTHER),
        (ciphered(KAIFA, 99), OTHER_AUTHENTICATION),
        (ciphered(KAIFA, 99)[:-1] + b"\x00", KEYS),
        (ciphered(KAIFA, 99)[:40], KEYS),
        (KAIFA, KEYS),
        # Only authenticated, only encrypted, compressed, with the broadcast key.
        (ciphered(KAIFA, 99, control=0x10), KEYS),
        (ciphered(KAIFA, 99, control=0x20), KEYS),
        (ciphered(KAIFA, 99, control=0xB0), KEYS),
        (ciphered(KAIFA, 99, control=0x70), KEYS),
        (b"\xdb", KEYS),
        (b"\xdb\x08" + TITLE + b"\xff" * 200, KEYS),
    ],
)
def test_a_frame_that_is_not_this_meters_is_not_authentic(
    frame: bytes, keys: DeviceKeys | None
) -> None:
    with pytest.raises(PayloadError) as refused:
        dlms.open_push(PUSH, frame, keys)
    assert refused.value.code == "not_authentic"
    for octets in (KEYS.encryption.reveal(), KEYS.authentication.reveal()):
        assert octets.hex() not in str(refused.value)


def test_every_changed_octet_of_a_ciphered_frame_is_noticed() -> None:
    frame = ciphered(clocked("07ea030100000000ff000000", IMPORT + "060000007b02020f00161e"), 7)
    for place in range(len(frame)):
        changed = bytearray(frame)
        changed[place] ^= 0x01
        with pytest.raises(PayloadError):
            dlms.open_push(PUSH, bytes(changed), KEYS)
