"""`prepaid token campaign` from the new key to the last confirmation; `decode` of its tokens."""

import json
import os
import secrets

import psycopg
import pytest

from prepaid.clock import wall_ms
from schemas.quantities import parse_instant_ms
from store import registry
from store.registry import NewMeter
from tests.typed import typed
from tokens.key_file import RANDOM_OCTETS, seal
from tokens.keys import KeyAttributes, VendingKey

METER, METER_PAN = "07123456787", "600727071234567873"
HELD = KeyAttributes(sgc="123456", krn=1, kt=2, ken=104, ti="01", base_date=2014, ea=11, dkga=4)
NOON = parse_instant_ms("2026-03-02T12:00:00Z")
KEYS = {
    ("123456", krn): VendingKey.generate(4, secrets.token_bytes(20), base_date=2014)
    for krn in (1, 2)
}


@pytest.fixture
def prepaid(database_url, tmp_path):
    file = tmp_path / "keys.sts"
    file.write_bytes(seal(KEYS, "correct horse", secrets.token_bytes(RANDOM_OCTETS)))
    file.chmod(0o600)
    with psycopg.connect(database_url, autocommit=True) as conn:
        centre = registry.add_centre(conn, "north", "North")
        registry.add_meter(conn, centre, NewMeter(METER, METER_PAN, HELD))
    environment = {
        **os.environ,
        "PREPAID_DATABASE__URL": database_url,
        "PREPAID_STS__KEY_FILE": str(file),
        "PREPAID_STS__KEY_PASSPHRASE": "correct horse",
        "PREPAID_CLOCK": f"{wall_ms()}:{NOON}:1",
    }

    def run(*arguments, **changed):
        return typed("token", *arguments, environment=environment | changed)

    return run


def rows(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_campaign_from_the_warning_to_the_confirmation(prepaid):
    warned = prepaid("campaign", "expiry")
    assert warned.returncode == 1
    assert "key expiry number" in warned.stdout
    assert "for 1 meters" in warned.stdout
    early = prepaid("campaign", "plan", "C1", "--sgc", "123456", "--by", "vera", "--reason", "KEN")
    assert (early.returncode, "record the new one" in early.stderr) == (2, True)
    adopted = prepaid("campaign", "adopt", "--sgc", "123456", "--krn", "2", "--by", "vera")
    assert KEYS["123456", 2].check_value in adopted.stdout
    options = ("--sgc", "123456", "--by", "vera", "--reason", "KEN", "--json")
    assert [row["meters"] for row in rows(prepaid("campaign", "plan", "C1", *options))] == [1]
    assert rows(prepaid("campaign", "issue", "C1", "--batch", "1", "--json"))[0]["issued"] == 1
    (slip,) = rows(prepaid("campaign", "slips", "C1", "--batch", "1", "--json"))
    decoded = rows(prepaid("decode", slip["digits"][0], "--json"))
    assert decoded["issued_by_us"].startswith("on 2026-03-02T12:")
    assert METER in decoded["issued_by_us"]
    assert "KRN 2" in prepaid("key", "confirm", METER, "--by", "vera").stdout
    (centre,) = rows(prepaid("campaign", "progress", "C1", "--json"))
    assert (centre["centre"], centre["meters"], centre["confirmed"]) == ("north", 1, 1)
    assert prepaid("campaign", "expiry").returncode == 0


def test_digits_of_others_and_a_silent_database_are_told(prepaid):
    digits = "51043465443420856213"
    assert rows(prepaid("decode", digits, "--json"))["issued_by_us"] == "no"
    away = {"PREPAID_DATABASE__URL": "postgresql://nobody@127.0.0.1:1/none"}
    assert "does not answer" in rows(prepaid("decode", digits, "--json", **away))["issued_by_us"]
    done = prepaid("campaign", "progress", "C1", **away)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
