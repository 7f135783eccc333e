"""What ingest refuses is kept where it belongs, what is good beside it is taken, and a repeat
changes nothing.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from meter_gateway.inbox import Delivery
from meter_gateway.ingest import IngestLoop
from meter_gateway.metrics import GatewayMetrics
from schemas.identity import command_id
from schemas.quantities import format_instant
from schemas.telemetry import Decoded
from store import ingest
from store.answers import BatchAnswer, Receipt
from store.audit import audit
from store.incoming import Incoming
from store.session import Session
from store.terms import TermsCache

OPENED_WH = 100_000
T0 = 1_772_323_200_000  # 2026-03-01T00:00:00Z, when the accounts of these tests are opened
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def test_workers_in_turn_never_go_by_what_another_has_overtaken(utility: Any) -> None:
    supply = utility.open()
    workers = [utility.terms, TermsCache()]
    for hour in (1, 2, 3, 5, 4, 6, 7):
        utility.terms = workers[hour % 3 == 0]
        assert utility.read(supply, T0 + hour * HOUR, OPENED_WH + 300 * hour).accepted == 1
    assert all(check.passed for check in audit(utility.conn))


def quarantined(utility: Any) -> list[str]:
    return sorted(utility.rows("SELECT reason FROM quarantine"))


def verdicts(utility: Any) -> list[str | None]:
    return list(utility.rows("SELECT verdict FROM reading ORDER BY meter_id, register, ts"))


def contents(utility: Any) -> dict[str, Any]:
    """Everything that a message may cause, except when it was said."""
    tables = {
        "reading": "meter_id, register, ts, value_wh, verdict",
        "quarantine": "reason, topic, payload",
        "event": "meter_id, kind, body::text",
        "ledger_transaction": "id, key, amounts",
        "command": "id, state",
        "meter_state": "meter_id, boot, seq, reported_relay, desired_relay, next_ctr",
        "account_state": "account_id, balance_micro, supply",
        "account_position": "account_id, position::text",
    }
    return {
        table: utility.rows(f"SELECT {columns} FROM {table} ORDER BY {columns}")
        for table, columns in tables.items()
    }


def body(at_ms: int, registers: dict[str, int], **more: Any) -> dict[str, Any]:
    seq = (at_ms - T0) // 1000 + 10**6
    form = {"v": 1, "boot": 1, "seq": seq, "ts": format_instant(at_ms), "reg": registers}
    return form | more


def listed(utility: Any, meter: str, *forms: object) -> Incoming:
    return utility.message(f"pm/v1/m/{meter}/up/reading", list(forms))


# What one row of a list is refused for by its form: the row beside it is good.
FORMS = {
    "unknown_version": {"v": 2},
    "wrong_type": {"boot": "one"},
    "bad_instant": {"ts": "yesterday"},
    "clock_1970": {"ts": "1970-01-01T00:04:00Z"},
    "future": {"ts": "2026-03-01T02:06:00Z"},
    "negative_register": {"reg": {"1.8.0": -5}},
    "sentinel_register": {"reg": {"1.8.0": -1}},
    "unsafe_integer": {"reg": {"1.8.0": 2**53}},
    "unknown_register": {"reg": {"x": 1}},
}


@pytest.mark.parametrize("reason", FORMS)
def test_a_row_of_bad_form_is_kept_with_its_reason_and_the_good_one_is_taken(
    utility: Any, reason: str
) -> None:
    supply = utility.open()
    utility.now = T0 + 2 * HOUR
    bad = body(T0 + HOUR, {"1.8.0": OPENED_WH + 500}) | FORMS[reason]
    good = body(T0 + 2 * HOUR, {"1.8.0": OPENED_WH + 1000})
    message = listed(utility, supply.meter, bad, good)
    recorded = utility.record(message)
    assert quarantined(utility) == [reason]
    assert verdicts(utility) == ["accepted"]
    assert (recorded.accepted, recorded.quarantined) == (1, 1)
    before = contents(utility)
    utility.record(message)
    assert contents(utility) == before


@pytest.mark.parametrize(
    ("reason", "payload"), [("undecodable", b"\xff{"), ("too_large", b" " * 5000)]
)
def test_a_message_that_cannot_be_read_is_kept_as_it_came(
    utility: Any, reason: str, payload: bytes
) -> None:
    supply = utility.open()
    message = utility.message(f"pm/v1/m/{supply.meter}/up/reading", payload)
    utility.record(message)
    utility.record(message)
    [(found, kept)] = utility.rows("SELECT reason, payload FROM quarantine")
    assert found == reason
    assert payload.startswith(bytes(kept))


# How a second reading at T0 + 2 h is judged after one at T0 + 1 h; (form, verdict of its row).
JUDGED: dict[str, tuple[dict[str, Any], str]] = {
    "register_decreased": ({"reg": {"1.8.0": OPENED_WH - 1}}, "register_decreased"),
    "implausible": ({"reg": {"1.8.0": OPENED_WH + 10**8}}, "implausible"),
    "clock_lost": ({"tq": "lost"}, "clock_lost"),
    "before_installation": ({"ts": "2026-03-01T00:00:00Z", "seq": 1}, "before_installation"),
}


@pytest.mark.parametrize("reason", JUDGED)
def test_a_reading_that_charges_nothing_is_stored_with_its_verdict(
    utility: Any, reason: str
) -> None:
    supply = utility.open()
    utility.read(supply, T0 + HOUR, OPENED_WH + 500)
    balance = utility.state(supply).balance_micro
    utility.now = T0 + 2 * HOUR
    changes, verdict = JUDGED[reason]
    bad = body(T0 + 2 * HOUR, {"1.8.0": OPENED_WH + 600}) | changes
    message = listed(utility, supply.meter, bad)
    recorded = utility.record(message)
    assert (recorded.accepted, recorded.quarantined) == (0, 1)
    assert sorted(verdicts(utility)) == sorted(["accepted", verdict])
    assert utility.rows("SELECT reason FROM quarantined") == [verdict]
    assert utility.state(supply).balance_micro == balance
    before = contents(utility)
    again = utility.record(message)
    assert (again.duplicate, contents(utility)) == (1, before)
    # It does not become what the next one is compared to.
    utility.read(supply, T0 + 3 * HOUR, OPENED_WH + 1500)
    assert utility.rows("SELECT sum(energy_wh)::bigint FROM ledger_transaction") == [1500]
    assert all(check.passed for check in audit(utility.conn))


def test_a_reading_of_a_meter_in_stock_is_kept_and_not_judged(utility: Any) -> None:
    meter = utility.meter()
    utility.now = T0 + HOUR
    utility.record(utility.reading(meter, T0 + HOUR, 7))
    assert verdicts(utility) == ["not_installed"]


def test_a_reading_of_a_meter_that_was_taken_down_is_not_installed(utility: Any) -> None:
    supply, spare = utility.open(), utility.meter()
    utility.exchange(supply, T0 + HOUR, OPENED_WH + 100, spare)
    utility.read(supply, T0 + 2 * HOUR, OPENED_WH + 900)
    assert verdicts(utility) == ["not_installed"]


def test_another_value_at_the_same_instant_is_a_conflict_and_the_first_stays(utility: Any) -> None:
    supply = utility.open()
    utility.read(supply, T0 + HOUR, OPENED_WH + 500)
    # The same within one batch, where the first is not stored yet.
    utility.now = T0 + 2 * HOUR
    utility.record(
        utility.reading(supply.meter, T0 + HOUR, OPENED_WH + 501),
        utility.reading(supply.meter, T0 + 2 * HOUR, OPENED_WH + 700),
        utility.reading(supply.meter, T0 + 2 * HOUR, OPENED_WH + 701),
    )
    assert quarantined(utility) == ["conflict", "conflict"]
    assert utility.rows("SELECT value_wh FROM reading ORDER BY ts") == [
        OPENED_WH + 500,
        OPENED_WH + 700,
    ]


def test_a_counter_that_goes_back_with_a_new_instant_is_kept_apart(utility: Any) -> None:
    supply = utility.open()
    utility.read(supply, T0 + HOUR, OPENED_WH + 500, seq=20)
    recorded = utility.read(supply, T0 + 2 * HOUR, OPENED_WH + 900, seq=20)
    assert quarantined(utility) == ["seq_reused"]
    assert (recorded.accepted, recorded.quarantined) == (0, 1)
    # After a boot the counter may begin anew; a late reading has a lower one by right.
    utility.read(supply, T0 + 3 * HOUR, OPENED_WH + 1200, boot=2, seq=1)
    utility.read(supply, T0 + HOUR // 2, OPENED_WH + 250, seq=10)
    assert verdicts(utility) == ["accepted"] * 3


def test_other_registers_are_stored_and_charge_nothing(utility: Any) -> None:
    supply = utility.open()
    registers = {"1.8.0": OPENED_WH + 100, "2.8.0": 40, "3.8.0": 1}
    utility.read(supply, T0 + HOUR, registers)
    assert verdicts(utility) == ["accepted", None, None]


# What was said first at the instant of another value of 2.8.0, and what comes with that value.
ALONE = {
    "alone": ({"2.8.0": 5}, {"2.8.0": 7}),
    "with the total": ({"2.8.0": 5}, {"1.8.0": OPENED_WH + 100, "2.8.0": 7}),
    "after a refused total": ({"1.8.0": -1, "2.8.0": 5}, {"1.8.0": OPENED_WH, "2.8.0": 7}),
}


@pytest.mark.parametrize("said_first", [True, False], ids=["apart", "together"])
@pytest.mark.parametrize("case", ALONE)
def test_another_value_of_any_register_is_a_conflict(
    utility: Any, case: str, said_first: bool
) -> None:
    supply = utility.open()
    utility.now = T0 + 2 * HOUR
    messages = [utility.reading(supply.meter, T0 + HOUR, form) for form in ALONE[case]]
    for batch in [[each] for each in messages] if said_first else [messages]:
        utility.record(*batch)
    assert quarantined(utility).count("conflict") == 1
    assert utility.rows("SELECT value_wh FROM reading WHERE register = '2.8.0'") == [5]
    before = contents(utility)
    recorded = utility.record(*messages)
    assert recorded.accepted == 0
    assert contents(utility) == before


def test_what_nobody_registered_is_kept(utility: Any) -> None:
    utility.now = T0 + HOUR
    stranger = "37000000017"
    utility.record(utility.reading(stranger, T0, 5))
    utility.say(stranger, "hello", boot=1, ts=format_instant(T0))
    utility.say(stranger, "ack", cmd="x", state="done", ts=format_instant(T0))
    assert quarantined(utility) == ["unknown_meter"] * 3


def test_an_answer_to_no_command_of_this_meter_is_kept(utility: Any) -> None:
    supply, other = utility.open(sts=True), utility.open(sts=True)
    utility.vend(other, 90_000_000, "p-1")
    [foreign] = utility.rows("SELECT id::text FROM command WHERE type = 'token'")
    never = command_id(T0, bytes(10))
    for cmd in ("not-a-uuid", never, foreign):
        utility.say(supply.meter, "ack", cmd=cmd, state="done", ts=format_instant(T0))
    assert quarantined(utility) == ["unknown_command"] * 3
    assert utility.rows("SELECT state FROM command WHERE type = 'token'") == ["queued"]


@pytest.mark.parametrize("offset", [2**53 - 1, 1 - 2**53, 2**70])
def test_what_no_database_holds_costs_a_batch_nothing(utility: Any, offset: int) -> None:
    supply, other = utility.open(), utility.open()
    utility.now = T0 + HOUR
    ts, said = format_instant(T0), f"pm/v1/m/{supply.meter}/up"
    odd = {"v": 1, "type": "tamper", "ts": ts, "x": "a\0b"}
    asked = utility.message(f"{said}/time", {"v": 1, "t1": offset})
    asked.received_ms = utility.now
    refused = replace(utility.message(f"{said}/state", []), content_type="text/\0")
    utility.record(
        utility.reading(other.meter, T0 + HOUR, OPENED_WH + 5),
        utility.message(f"{said}/event", odd),
        utility.message(f"{said}/hello", {**odd, "boot": 1}),
        asked,
        refused,
    )
    assert verdicts(utility) == ["accepted"]
    kept = utility.rows("SELECT body #>> '{}' FROM event WHERE kind IN ('hello', 'tamper')")
    assert [json.loads(bytes.fromhex(body))["x"] for body in kept] == ["a\0b"] * 2
    assert utility.rows("SELECT content_type FROM quarantine WHERE topic LIKE '%%state'") == [
        "text/?"
    ]


def test_a_topic_outside_the_tree_is_kept(utility: Any) -> None:
    message = Incoming(None, "pm/v1/m/x\0y", b"{}", None, Decoded())
    utility.record(message)
    utility.record(message)
    assert utility.rows("SELECT reason, topic FROM quarantine") == [("bad_topic", "pm/v1/m/x?y")]


def test_a_gateway_speaks_for_its_own_meters_only(utility: Any) -> None:
    mine, foreign = utility.open(gateway="dcu-1"), utility.open(gateway="dcu-2")
    utility.now = T0 + HOUR
    form = {
        "v": 1,
        "t0": format_instant(T0 + HOUR),
        "dt": 900,
        "cols": ["1.8.0"],
        "id": "b-7",
        "rows": [
            [mine.meter, 1, 100, [[OPENED_WH + 100]]],
            [foreign.meter, 1, 100, [[OPENED_WH + 100]]],
            ["37000000017", 1, 5, [[3]]],
            [mine.meter, 1, 101, [["many"]]],
        ],
    }
    message = utility.message("pm/v1/g/dcu-1/up/batch", form)
    recorded = utility.record(message)
    assert sorted(quarantined(utility)) == ["not_assigned", "unknown_meter", "wrong_type"]
    assert utility.rows(
        "SELECT DISTINCT m.number FROM reading r JOIN meter m ON m.id = meter_id"
    ) == [mine.meter]
    # What is kept is committed, whatever was thought of it: the gateway may free all of it, and
    # hears of each row that was refused.
    (answer,) = recorded.answers
    assert (answer.gateway, answer.batch_id, recorded.receipts) == ("dcu-1", "b-7", [])
    assert answer.kept == {(mine.meter, 1): 100, (foreign.meter, 1): 100, ("37000000017", 1): 5}
    assert answer.refused == [
        {"reason": "wrong_type", "row": 3, "meter": mine.meter},
        {"reason": "not_assigned", "meter": foreign.meter, "boot": 1, "seq": 100},
        {"reason": "unknown_meter", "meter": "37000000017"},
    ]
    before = contents(utility)
    utility.record(message)
    assert contents(utility) == before


def test_receipts_name_the_highest_counter_of_each_boot(utility: Any) -> None:
    supply = utility.open()
    utility.now = T0 + 4 * HOUR
    recorded = utility.record(
        listed(
            utility,
            supply.meter,
            body(T0 + HOUR, {"1.8.0": OPENED_WH + 1}, boot=1, seq=7, hist=True),
            body(T0 + 2 * HOUR, {"1.8.0": OPENED_WH + 2}, boot=1, seq=8, hist=True),
            body(T0 + 3 * HOUR, {"1.8.0": OPENED_WH + 3}, boot=2, seq=1, rcpt=True),
            body(T0 + 4 * HOUR, {"1.8.0": OPENED_WH + 4}, boot=2, seq=2),
        )
    )
    assert sorted(recorded.receipts) == [
        Receipt(supply.meter, 1, 8),
        Receipt(supply.meter, 2, 1),
    ]


def test_a_replayed_reading_is_billed_and_cuts_nobody(utility: Any) -> None:
    supply = utility.open()
    utility.top_up(supply, 1_000_000, "p-1", T0)
    assert utility.state(supply).supply == "connected"
    utility.read(supply, T0 + HOUR, OPENED_WH + 9000, hist=True)
    assert utility.state(supply).supply == "disconnected"
    desired = "SELECT desired_relay FROM meter_state"
    assert utility.rows(desired) == ["closed"]
    assert all(check.passed for check in audit(utility.conn))
    recorded = utility.read(supply, T0 + 2 * HOUR, OPENED_WH + 9000)
    assert recorded.commands == 1
    assert utility.rows(desired) == ["open"]


# --- the loop, with one message that breaks us ----------------------------------------------


@dataclass
class Waiting:
    """A receiver whose messages are all there; it notes what was acknowledged."""

    deliveries: list[Delivery]
    acknowledged: list[Delivery]
    done: asyncio.Event

    async def take(self, limit: int, linger_s: float) -> list[Delivery]:
        if not self.deliveries:
            await asyncio.Event().wait()
        taken, self.deliveries = self.deliveries[:limit], self.deliveries[limit:]
        return taken

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self.acknowledged += deliveries
        if not self.deliveries:
            self.done.set()


class Silent:
    def receipts(self, receipts: Sequence[Receipt], answers: Sequence[BatchAnswer]) -> None:
        self.said = receipts

    def answer(self, topic: str, payload: bytes) -> None:
        raise AssertionError("nobody asked for the time")


async def test_a_message_that_breaks_us_is_set_aside_and_the_rest_goes_on(
    utility: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    supplies = [utility.open() for _ in range(3)]
    poison = supplies[1].meter
    settle: Callable[..., Any] = ingest.settle_accounts

    def settle_or_break(conn: Any, terms: Any, news: Any, now_ms: int) -> Any:
        if any(each.state.account_id == supplies[1].id for each in news):
            raise ZeroDivisionError("a defect of ours\0")
        return settle(conn, terms, news, now_ms)

    monkeypatch.setattr(ingest, "settle_accounts", settle_or_break)
    utility.now = T0 + HOUR
    messages = [utility.reading(each.meter, T0 + HOUR, OPENED_WH + 100) for each in supplies]
    deliveries = [
        Delivery(each.topic_text, each.payload, None, place, 0, None)  # type: ignore[arg-type]
        for place, each in enumerate(messages)
    ]
    stopping = asyncio.Event()
    receiver = Waiting(list(deliveries), [], stopping)
    session = Session(utility.url, "test")
    metrics = GatewayMetrics(1)
    loop = IngestLoop(
        receiver=receiver,  # type: ignore[arg-type]
        sessions=[session],
        downlink=Silent(),
        now_ms=lambda: utility.now,
        metrics=metrics,
    )
    try:
        async with asyncio.timeout(20):
            await loop.run(stopping)
    finally:
        await session.close()
    assert receiver.acknowledged == deliveries
    for name in ("prepaid_commit_seconds_count", "prepaid_ingest_lag_seconds_count"):
        assert metrics.registry.get_sample_value(name) == 1
    [(reason, topic, detail, kept)] = utility.rows(
        "SELECT reason, topic, detail, payload FROM quarantine"
    )
    assert (reason, topic) == ("internal", f"pm/v1/m/{poison}/up/reading")
    assert detail == "ZeroDivisionError: a defect of ours?"
    assert bytes(kept) == messages[1].payload
    assert verdicts(utility) == ["accepted", "accepted"]


def test_a_commit_that_fails_leaves_nothing_of_the_batch(
    utility: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    supply = utility.open()
    before = contents(utility)
    utility.now = T0 + HOUR
    message = utility.reading(supply.meter, T0 + HOUR, OPENED_WH + 100)

    def away(*_: object, **__: object) -> int:
        raise psycopg.OperationalError("the wire is cut")

    with monkeypatch.context() as patched:
        patched.setattr(ingest.decisions, "record", away)
        with pytest.raises(psycopg.OperationalError):
            utility.record(message)
    assert contents(utility) == before
    assert utility.record(message).accepted == 1
