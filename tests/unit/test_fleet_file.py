import json
from pathlib import Path

import pytest

from schemas.errors import DomainError
from simulators.fleet_file import read_fleet_file
from simulators.meter_state import MeterState
from simulators.state_file import FILE_NAME, StateFile
from tokens import codec
from tokens.credit import Credit, transfer_credit
from tokens.keys import DecoderKey
from tokens.management import management

# A key for tests: counts from zero.
HEX = bytes(range(16)).hex()
KEY = {
    "decoder_key": HEX,
    "sgc": "123456",
    "krn": 1,
    "kt": 2,
    "ken": 255,
    "ti": "01",
    "base_date": 2014,
    "ea": 11,
    "dkga": 4,
}
METER = {
    "number": "600727000000000009",
    "pan": "600727000000000009",
    "key": KEY,
    "annual_kwh": 3000,
    "seed": 7,
    "since": "2026-01-01T00:00:00Z",
    "opening_wh": 1234,
    "interval_s": 900,
}


def written(folder: Path, *meters: object, mode: int = 0o600) -> Path:
    path = folder / "meters.json"
    path.write_text(json.dumps({"v": 1, "meters": meters}))
    path.chmod(mode)
    return path


def test_a_fleet_file_describes_meters(tmp_path: Path) -> None:
    (meter,) = read_fleet_file(written(tmp_path, METER)).meters
    plate = meter.nameplate()
    assert (plate.meter, plate.opening_wh, plate.interval_ms) == (METER["number"], 1234, 900_000)
    assert 0 <= plate.phase_ms < 900_000
    assert meter.load().annual_wh == 3_000_000
    assert HEX not in repr(meter)


@pytest.mark.parametrize(
    ("meters", "mode", "message"),
    [
        ([METER], 0o644, "chmod 600"),
        ([METER, METER], 0o600, "once"),
        ([], 0o600, "meters"),
        ([{**METER, "number": "12"}], 0o600, "number"),
        ([{**METER, "surprise": 1}], 0o600, "surprise"),
        ([{**METER, "seed": "7"}], 0o600, "seed"),
        ([{**METER, "since": "now"}], 0o600, "instant"),
        ([{**METER, "key": {**KEY, "decoder_key": "zz"}}], 0o600, "hex"),
        ([{**METER, "key": {**KEY, "decoder_key": "00"}}], 0o600, "8 or 16 bytes"),
        ([{**METER, "key": {**KEY, "krn": 0}}], 0o600, "KRN"),
    ],
)
def test_a_wrong_fleet_file_is_refused_and_no_key_is_shown(
    tmp_path: Path, meters: list[object], mode: int, message: str
) -> None:
    with pytest.raises(DomainError, match=message) as caught:
        read_fleet_file(written(tmp_path, *meters, mode=mode))
    assert HEX not in str(caught.value)


def test_a_missing_fleet_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DomainError, match=r"none\.json"):
        read_fleet_file(tmp_path / "none.json")


def test_a_file_without_secrets_may_be_open(tmp_path: Path) -> None:
    plain = {name: value for name, value in METER.items() if name != "key"}
    (meter,) = read_fleet_file(written(tmp_path, plain, mode=0o644)).meters
    assert meter.enter_token() is None


def test_a_fleet_spreads_its_readings_over_the_interval(tmp_path: Path) -> None:
    meters = [{**METER, "number": f"{i:011d}", "seed": i} for i in range(300)]
    fleet = read_fleet_file(written(tmp_path, *meters))
    quarters = [meter.nameplate().phase_ms * 4 // 900_000 for meter in fleet.meters]
    assert min(quarters.count(i) for i in range(4)) > 50


def test_tokens_are_entered_and_remembered_over_a_restart(tmp_path: Path) -> None:
    (meter,) = read_fleet_file(written(tmp_path, METER)).meters
    enter = meter.enter_token()
    assert enter is not None
    key = DecoderKey(bytes.fromhex(HEX))

    def credit(tid: int) -> str:
        return codec.encode(transfer_credit(Credit(0, 125), tid=tid, rnd=5), key)

    first = enter(None, credit(6_000_000))
    assert (first.outcome["result"], first.credited_wh) == ("Accept", 12_500)
    assert all(first.outcome[stage] for stage in ("format", "authentication", "validation"))
    again = enter(first.memory, credit(6_000_000))
    assert (again.outcome["result"], again.credited_wh) == ("UsedError", 0)
    assert again.outcome["execution"] is False
    memory = first.memory
    for tid in range(6_000_010, 6_000_060):
        memory = enter(memory, credit(tid)).memory
    assert enter(memory, credit(5_999_999)).outcome["result"] == "OldError"
    assert enter(memory, "1" * 19).outcome["result"] == "FormatError"


def test_management_tokens_clear_the_credit_and_set_the_limit(tmp_path: Path) -> None:
    (meter,) = read_fleet_file(written(tmp_path, METER)).meters
    enter = meter.enter_token()
    assert enter is not None
    key = DecoderKey(bytes.fromhex(HEX))
    limit = codec.encode(management(0, {"mpl": 2000}, tid=6_000_000, rnd=5), key)
    clear = codec.encode(management(1, {"register": 0}, tid=6_000_002, rnd=5), key)
    water = codec.encode(management(1, {"register": 1}, tid=6_000_004, rnd=5), key)
    assert enter(None, limit).limit_w == 2000
    assert enter(None, clear).clears_credit is True
    assert enter(None, water).clears_credit is False


def test_the_state_file_keeps_each_meter_and_is_closed_to_others(tmp_path: Path) -> None:
    with StateFile(tmp_path / "state") as state_file:
        state = MeterState(boot=3, seq=9, relay="open", last_ack=b"{}")
        state_file.save("37000000017", state)
        state_file.save("37000000017", state)
        assert state_file.load("37000000025") == MeterState()
    with StateFile(tmp_path / "state") as state_file:
        assert state_file.load("37000000017") == state
        # A damaged memory is refused rather than forgotten: its register would run backwards.
        state_file._database.execute("UPDATE meter SET memory = ?", (b"{}",))
        with pytest.raises(DomainError) as caught:
            state_file.load("37000000017")
    assert caught.value.code == "state_damaged"
    assert (tmp_path / "state" / FILE_NAME).stat().st_mode & 0o077 == 0
