"""Devices without trust: whatever they say is stored and shown, and bills nobody."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import DomainError
from schemas.quantities import parse_instant_ms
from store import clockwork, devices
from store.audit import audit
from store.devices import FrameCounter, NewDevice
from store.errors import Conflict, NotFound

OPENED = parse_instant_ms("2026-03-01T00:00:00Z")
HOUR = 3600 * 1000


def mapped(utility: Any, meter: str, *, trusted: bool, name: str | None = None) -> int:
    """Map a device of the meter's own name, unless another is given."""
    device = NewDevice("tasmota-energy", name or meter, meter, trusted, "Africa/Nouakchott")
    return devices.add(utility.conn, device, "ops", utility.now)


def verdicts(utility: Any, meter: str) -> list[str]:
    return list(
        utility.rows(
            "SELECT verdict FROM reading JOIN meter m ON m.id = meter_id WHERE m.number = %s", meter
        )
    )


def billed_wh(utility: Any, account: int) -> int:
    text = (
        "SELECT coalesce(sum(energy_wh), 0)::bigint FROM ledger_transaction WHERE account_id = %s"
    )
    [found] = utility.rows(text, account)
    return int(found)


def test_the_total_of_an_untrusted_device_is_stored_and_bills_nobody(utility: Any) -> None:
    supply = utility.open()
    mapped(utility, supply.meter, trusted=False)
    utility.vend(supply, 10_000_000, "p-1")
    before = utility.state(supply)
    recorded = utility.read(supply, OPENED + HOUR, 100_500)
    utility.read(supply, OPENED + 2 * HOUR, 999_999)
    assert (recorded.accepted, recorded.quarantined) == (0, 0)
    assert utility.rows("SELECT value_wh, verdict FROM reading ORDER BY ts") == [
        (100_500, "untrusted"),
        (999_999, "untrusted"),
    ]
    assert utility.state(supply).balance_micro == before.balance_micro
    assert utility.rows("SELECT count(*) FROM command WHERE type = 'relay'") == [0]
    # Nothing to look at for an operator, and the list of devices shows it.
    assert utility.rows("SELECT count(*) FROM quarantined") == [0]
    [line] = devices.listed(utility.conn)
    assert (line.trusted, line.last_wh, line.last_verdict) == (False, 999_999, "untrusted")
    assert [check for check in audit(utility.conn) if not check.passed] == []


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 10**9), st.booleans()), max_size=12))
def test_no_series_of_untrusted_totals_changes_what_an_account_owes(
    shared_utility: Any, said: list[tuple[int, int, bool]]
) -> None:
    utility = shared_utility
    mine, twin = utility.open(), utility.open()
    mapped(utility, mine.meter, trusted=False)
    utility.now = max(utility.now, OPENED + 400 * HOUR)
    for hour, wh, historical in said:
        utility.record(utility.reading(mine.meter, OPENED + hour * HOUR, wh, hist=historical))
    clockwork.settle_due(utility.conn, utility.terms, utility.now, 100)
    owed = [utility.state(each) for each in (mine, twin)]
    assert owed[0].balance_micro == owed[1].balance_micro
    assert billed_wh(utility, mine.id) == 0


def test_what_a_meter_said_in_stock_is_not_billed_once_it_is_untrusted(utility: Any) -> None:
    meter = utility.meter()
    utility.now = OPENED + 2 * HOUR
    utility.record(utility.reading(meter, OPENED + HOUR, 100_900))
    mapped(utility, meter, trusted=False)
    supply = utility.open(meter=meter)
    utility.vend(supply, 10_000_000, "p-1")
    clockwork.settle_due(utility.conn, utility.terms, utility.now, 100)
    assert utility.rows("SELECT verdict FROM reading") == ["untrusted"]
    assert utility.rows(
        "SELECT count(*) FROM ledger_transaction WHERE account_id = %s AND energy_wh <> 0",
        supply.id,
    ) == [0]
    assert [check for check in audit(utility.conn) if not check.passed] == []


def test_a_trusted_device_is_billed_as_any_meter(shared_utility: Any) -> None:
    supply = shared_utility.open()
    mapped(shared_utility, supply.meter, trusted=True)
    shared_utility.read(supply, OPENED + HOUR, 100_500)
    assert verdicts(shared_utility, supply.meter) == ["accepted"]
    assert billed_wh(shared_utility, supply.id) == 500


def test_a_meter_that_was_billed_takes_no_untrusted_device(shared_utility: Any) -> None:
    supply = shared_utility.open()
    shared_utility.read(supply, OPENED + HOUR, 100_500)
    with pytest.raises(Conflict) as refused:
        mapped(shared_utility, supply.meter, trusted=False)
    assert refused.value.code == "meter_is_billed"
    shared_utility.read(supply, OPENED + 2 * HOUR, 100_600)
    assert billed_wh(shared_utility, supply.id) == 600


def test_lost_trust_does_not_come_back_with_another_device(shared_utility: Any) -> None:
    supply = shared_utility.open()
    mapped(shared_utility, supply.meter, trusted=False)
    devices.remove(shared_utility.conn, "tasmota-energy", supply.meter)
    mapped(shared_utility, supply.meter, trusted=True)
    shared_utility.read(supply, OPENED + HOUR, 100_500)
    assert verdicts(shared_utility, supply.meter) == ["untrusted"]


def test_the_audit_finds_an_untrusted_total_that_was_billed(utility: Any) -> None:
    supply = utility.open()
    mapped(utility, supply.meter, trusted=False)
    utility.read(supply, OPENED + HOUR, 100_500)
    utility.conn.execute("UPDATE reading SET verdict = 'accepted'")
    failed = {check.name for check in audit(utility.conn) if not check.passed}
    assert "unbilled_readings_charge_nothing" in failed


def test_a_device_is_one_meter_and_a_meter_one_device(shared_utility: Any) -> None:
    first, second = shared_utility.meter(), shared_utility.meter()
    mapped(shared_utility, first, trusted=True)
    for meter, name in ((second, first), (first, "another")):
        with pytest.raises(Conflict) as refused:
            mapped(shared_utility, meter, trusted=True, name=name)
        assert refused.value.code == "device_exists"


def test_a_device_needs_a_meter_and_a_zone(shared_utility: Any) -> None:
    with pytest.raises(NotFound):
        mapped(shared_utility, "37000000017", trusted=True)
    device = NewDevice("p", "d", shared_utility.meter(), True, "Mars/Olympus")
    with pytest.raises(DomainError) as refused:
        devices.add(shared_utility.conn, device, "ops", shared_utility.now)
    assert refused.value.code == "bad_zone"
    with pytest.raises(NotFound):
        devices.remove(shared_utility.conn, "tasmota-energy", "nobody")


def test_a_frame_counter_never_goes_back(shared_utility: Any) -> None:
    meter = shared_utility.meter()
    device = mapped(shared_utility, meter, trusted=True)
    for counters in ((5, 9, 7), (8,), (9,)):
        frames = [FrameCounter(device, each, bytes([each])) for each in counters]
        devices.keep_counters(shared_utility.conn, frames)
    [found] = devices.find(shared_utility.conn, "tasmota-energy", [meter, "other"]).values()
    assert (found.counter, found.digest) == (9, b"\x09")
