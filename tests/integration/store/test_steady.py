"""The lean way of steady readings and the general way are one: the books are equal."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store import clockwork, fills, ingest, steady
from store.answers import Receipt
from store.audit import audit
from store.incoming import Incoming
from store.lanes import Lanes
from store.sql import query
from store.terms import TermsCache

MINUTE = 60_000
QUARTER = 15 * MINUTE
OPENED = 1_772_323_200_000  # 2026-03-01T00:00:00Z
OPENING_WH = 100_000

# What stands under each key. How it came to that depends on what came together, and so do the
# counts of the month that it says: they are those of when it was recorded.
BOOKS = """
    SELECT t.key, min(t.kind), min(t.from_ms), min(t.at_ms), min(t.local_day), min(t.band),
           sum(t.energy_wh)::bigint, n.legs,
           (array_agg(coalesce(t.explanation -> 'now', t.explanation)
                      - '{meter,taxes,position_wh}'::text[] ORDER BY t.id DESC)
            FILTER (WHERE t.kind = 'energy'))[1]
    FROM ledger_transaction t
    CROSS JOIN LATERAL (
        SELECT jsonb_object_agg(l.leg, l.micro) AS legs
        FROM (SELECT e.leg, sum(e.amount) AS micro FROM ledger_transaction o
              CROSS JOIN LATERAL unnest(o.legs, o.amounts) AS e (leg, amount)
              WHERE o.account_id = t.account_id AND o.key = t.key
              GROUP BY e.leg HAVING sum(e.amount) <> 0) l) n
    WHERE t.account_id = %s AND n.legs IS NOT NULL
    GROUP BY t.key, n.legs ORDER BY min(t.at_ms), t.key"""
READINGS = """
    SELECT r.register, r.ts, r.value_wh, r.boot, r.seq, r.clock, r.historical, r.received_at,
           r.verdict, r.detail
    FROM reading r JOIN meter m ON m.id = r.meter_id WHERE m.number = %s
    ORDER BY r.ts, r.register"""
HEARD = """
    SELECT h.boot, h.seq, h.seq_ts, h.seen_at, h.reported_relay, h.reported_at, h.desired_relay
    FROM meter_heard h JOIN meter m ON m.id = h.meter_id WHERE m.number = %s"""
AROUND = """
    SELECT (SELECT count(*) FROM decision WHERE account_id = %(account)s),
           (SELECT count(*) FROM command c JOIN meter m ON m.id = c.meter_id
            WHERE m.number = %(meter)s),
           (SELECT jsonb_agg(jsonb_build_array(after_seq, ms_of(after_ts), before_seq)
                             ORDER BY after_seq)
            FROM gap g JOIN meter m ON m.id = g.meter_id
            WHERE m.number = %(meter)s AND closed_at IS NULL),
           (SELECT array_agg(DISTINCT reason)
            FROM gap g JOIN meter m ON m.id = g.meter_id WHERE m.number = %(meter)s)"""


class Twins:
    """Two supplies to which the same happens: one by the lean way, one by the general way."""

    def __init__(self, utility: Any, random: Random) -> None:
        self.utility, self.random = utility, random
        utility.now = OPENED
        terms: dict[str, Any] = random.choice(
            [{}, {"reconnect_at": "3.00"}, {"emergency": EMERGENCY}]
        )
        self.lean, self.general = utility.open(**terms), utility.open(**terms)
        self.lanes = Lanes()
        self.seq, self.wh, self.at_ms = 0, OPENING_WH, OPENED
        self.late: list[tuple[int, int, int]] = []

    def message(self, supply: Any, at_ms: int, wh: int, seq: int, more: dict[str, Any]) -> Incoming:
        registers = {"2.8.0": 7, "1.8.0": wh} if more.get("both") else wh
        more = {key: value for key, value in more.items() if key != "both"}
        said: Incoming = self.utility.reading(supply.meter, at_ms, registers, seq=seq, **more)
        return said

    def say(self, *said: tuple[int, int, int], **more: Any) -> None:
        """The same readings of both: (instant, register, counter)."""
        both = [
            [self.message(supply, *each, more) for each in said]
            for supply in (self.lean, self.general)
        ]
        conn, terms, now = self.utility.conn, self.utility.terms, self.utility.now
        ours = ingest.record(conn, terms, both[0], now, self.lanes)
        theirs = ingest.record_in_general(conn, terms, both[1], now)
        for name in ("accepted", "duplicate", "quarantined", "commands"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert promised(ours.receipts) == promised(theirs.receipts)

    def next(self) -> tuple[int, int, int]:
        self.at_ms += self.random.choice([QUARTER] * 8 + [QUARTER + MINUTE, 4 * QUARTER, 1])
        self.wh += self.random.choice([0, 3, 40, 40, 80, 120, 900])
        self.seq += 1
        self.utility.now = max(self.utility.now, self.at_ms + self.random.choice([0, 900, 70_000]))
        return self.at_ms, self.wh, self.seq

    def step(self) -> None:
        act = self.random.randrange(100)
        if act < 48:
            self.say(self.next(), relay=self.random.choice(["closed"] * 14 + ["open"]))
        elif act < 53:
            self.say(*(self.next() for _ in range(3)), both=True, inst={"P": 3})
        elif act < 56:
            self.say(self.next(), hist=True, rcpt=True)
        elif act < 66:
            self.late += [self.next() for _ in range(self.random.choice([1, 1, 4, 7]))]
        elif act < 86:
            self.catch_up()
        elif act < 88:
            said = self.next()
            self.say(said, said)
            self.say(said)
        elif act < 90:
            at_ms, wh, seq = self.next()
            self.say((at_ms, wh - 5_000, seq))
        elif act < 92:
            self.say(self.next(), tq=self.random.choice(["drift", "lost"]))
        else:
            self.beside(act)

    def catch_up(self) -> None:
        """Some of what is missing: mostly its oldest, by itself or before what comes now."""
        random = self.random
        if not self.late:
            self.late.append(self.next())
        if random.randrange(8) == 0:
            random.shuffle(self.late)
        count = random.choice([1, 1, 2, 4])
        said, self.late = self.late[:count], self.late[count:]
        if random.randrange(6) == 0:
            at_ms, wh, seq = said[0]
            said[0] = (at_ms, wh + random.choice([-7, 1, 100_000]), seq)
        if random.randrange(3) == 0:
            said.append(self.next())
        self.say(*said, **random.choice([{}, {"hist": True}, {"relay": "closed"}, {"rcpt": True}]))

    def beside(self, act: int) -> None:
        utility = self.utility
        if act < 95:
            clockwork.settle_due(utility.conn, utility.terms, utility.now, 100)
        elif act < 97:
            self.lanes = Lanes()
        else:
            for supply in (self.lean, self.general):
                txn = f"{supply.meter}-{self.seq}"
                utility.top_up(supply, 20_000_000, txn, utility.now)

    def credit(self) -> None:
        for supply in (self.lean, self.general):
            txn = f"{supply.meter}-first"
            self.utility.top_up(supply, 30_000_000, txn, OPENED)

    def compare(self) -> None:
        utility = self.utility
        clockwork.settle_due(utility.conn, utility.terms, utility.now, 100)
        ours, theirs = utility.state(self.lean), utility.state(self.general)
        fields = set(ours.__slots__) - {"account_id", "position"}
        assert {name: getattr(ours, name) for name in fields} == {
            name: getattr(theirs, name) for name in fields
        }
        assert ours.position.numbers() == theirs.position.numbers()
        assert ours.position.totals == theirs.position.totals
        for text, names in ((BOOKS, "id"), (READINGS, "meter"), (HEARD, "meter")):
            lean, general = (
                utility.rows(text, getattr(each, names)) for each in (self.lean, self.general)
            )
            assert unnamed(lean) == unnamed(general)
        around = [
            utility.conn.execute(AROUND, {"account": each.id, "meter": each.meter}).fetchone()
            for each in (self.lean, self.general)
        ]
        assert around[0] == around[1]


EMERGENCY = {"limit": "5.00", "activation": "automatic"}


def promised(receipts: list[Receipt]) -> dict[int, int]:
    """Up to where each boot is held, as the meter hears it."""
    found: dict[int, int] = {}
    for each in receipts:
        found[each.boot] = max(each.seq, found.get(each.boot, 0))
    return found


def unnamed(rows: Any) -> list[Any]:
    """Rows without the names of their own account: keys of its top-ups."""
    return [
        tuple(
            "top_up" if isinstance(value, str) and value.startswith("top_up:") else value
            for value in (row if isinstance(row, tuple) else (row,))
        )
        for row in rows
    ]


@pytest.fixture(scope="module")
def debits(shared_utility: Any) -> Iterator[None]:
    """The law is about something: the lean ways were taken."""
    filled: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        write = fills.Filling.write

        def count(self: fills.Filling, *of: Any) -> None:
            write(self, *of)
            filled.append(len(self.kept()))

        patch.setattr(fills.Filling, "write", count)
        yield
    (found,) = shared_utility.rows("SELECT count(*) FROM energy_debit")
    assert found > 50
    assert sum(filled) > 3
    assert [check.name for check in audit(shared_utility.conn) if not check.passed] == []


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_whatever_comes_the_books_are_equal(seed: int, shared_utility: Any, debits: None) -> None:
    random = Random(seed)
    twins = Twins(shared_utility, random)
    twins.credit()
    for _ in range(45):
        twins.step()
    twins.compare()


# --- what a lane cannot know ------------------------------------------------------------------


@pytest.fixture
def steady_supply(utility: Any) -> Any:
    """A supply whose next readings are steady, and the readings up to now."""
    supply = utility.open(gateway="G1")
    utility.top_up(supply, 50_000_000, "p", OPENED)
    for seq in range(1, 5):
        utility.slot(supply.meter, seq)
    assert debited(utility) > 0
    return supply


def debited(utility: Any) -> int:
    (found,) = utility.rows("SELECT count(*) FROM energy_debit")
    return int(found)


def test_two_workers_of_one_fleet_neither_lose_nor_double(utility: Any, steady_supply: Any) -> None:
    mine, theirs = utility.lanes, Lanes()
    for seq in range(5, 60):
        utility.lanes = mine if seq % 3 else theirs
        recorded = utility.slot(steady_supply.meter, seq)
        assert recorded.accepted == 1
    assert sum(utility.rows("SELECT energy_wh FROM ledger_transaction")) == 59 * 10
    assert debited(utility) > 20
    assert [check.name for check in audit(utility.conn) if not check.passed] == []


def test_two_threads_share_lanes_that_are_too_few(utility: Any) -> None:
    """Each forgets all lanes again and again, while the other rates or writes by some of them."""
    shares = [[utility.open() for _ in range(4)] for _ in range(2)]
    for supply in [*shares[0], *shares[1]]:
        utility.top_up(supply, 50_000_000, supply.number, OPENED)
    slots = range(1, 25)
    utility.now = OPENED + slots[-1] * QUARTER
    said = [
        [[utility.reading(each.meter, OPENED + slot * QUARTER, OPENING_WH + slot * 10, seq=slot)
          for each in share] for slot in slots]
        for share in shares
    ]  # fmt: skip
    lanes = Lanes(limit=5)
    # Batch by batch, or a quick one would be done before the other begins.
    together = threading.Barrier(len(said), timeout=60)

    def record_all(batches: list[list[Incoming]]) -> int:
        accepted, terms = 0, TermsCache()
        with psycopg.connect(utility.url, autocommit=True) as conn:
            for batch in batches:
                together.wait()
                accepted += ingest.record(conn, terms, batch, utility.now, lanes).accepted
        return accepted

    with ThreadPoolExecutor(len(said)) as threads:
        accepted = list(threads.map(record_all, said))
    assert accepted == [4 * len(slots)] * 2
    # From the second batch on, one of the two finds its lanes forgotten.
    assert lanes.age >= len(slots) - 1
    assert debited(utility) > 4 * len(slots)
    energy = "SELECT sum(energy_wh)::bigint FROM ledger_transaction GROUP BY account_id"
    assert utility.rows(energy) == [len(slots) * 10] * 8
    assert [check.name for check in audit(utility.conn) if not check.passed] == []


def test_a_place_that_went_to_another_meter_is_left_to_it(
    utility: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the commit of a batch and the keeping of its lanes another thread forgot them all."""
    ours, theirs = utility.open(), utility.open()
    for supply in (ours, theirs):
        utility.top_up(supply, 50_000_000, supply.number, OPENED)
        utility.slot(supply.meter, 1)
    lanes = utility.lanes = Lanes(limit=1)
    keep = Lanes.keep

    def late(self: Lanes, *of: Any) -> None:
        lanes.ready(utility.conn, utility.terms, [theirs.meter], utility.now)
        keep(self, *of)

    monkeypatch.setattr(Lanes, "keep", late)
    before = debited(utility)
    utility.slot(ours.meter, 2)
    assert debited(utility) == before + 1
    [their_id] = utility.rows("SELECT id FROM meter WHERE number = %s", theirs.meter)
    assert lanes.rows[lanes.known[theirs.meter]]["meter_id"] == their_id


CHANGES: dict[str, Callable[[Any, Any], object]] = {
    "a meter that is behind another gateway": lambda utility, supply: utility.rows(
        "UPDATE meter SET gateway_id = NULL WHERE number = %s RETURNING id", supply.meter
    ),
    "a meter that is installed elsewhere": lambda utility, supply: utility.exchange(
        supply, utility.now, OPENING_WH + 40, utility.meter()
    ),
    "a clock that was lost": lambda utility, supply: utility.rows(
        "UPDATE meter_state SET clock = 'lost' RETURNING meter_id"
    ),
    "a relay that was asked for": lambda utility, supply: utility.rows(
        "UPDATE meter_state SET desired_relay = 'open' RETURNING meter_id"
    ),
    "a top-up that waits for the supply": lambda utility, supply: utility.top_up(
        supply, 1_000_000, "q", utility.now
    ),
    "a tariff that changed": lambda utility, supply: utility.conn.execute(
        query("bump_terms"), {"accounts": [supply.id]}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_meanwhile_is_seen(utility: Any, steady_supply: Any, change: str) -> None:
    lane = utility.lanes.rows[utility.lanes.known[steady_supply.meter]]
    before = (int(lane["meter_version"]), int(lane["account_version"]))
    assert CHANGES[change](utility, steady_supply) is not False
    versions = utility.rows(
        "SELECT m.xmin::text::bigint, a.xmin::text::bigint FROM meter_state m"
        " JOIN account_state a ON a.heard_meter_id = m.meter_id"
    )
    assert before not in versions
    utility.slot(steady_supply.meter, 5)
    assert utility.rows("SELECT count(*) FROM reading") == [5]


def test_a_reading_that_is_stored_already_goes_the_general_way(
    utility: Any, steady_supply: Any
) -> None:
    """A register beside the total was said before: COPY would refuse the whole batch."""
    at_ms = OPENED + 5 * QUARTER
    utility.now = at_ms
    utility.record(utility.reading(steady_supply.meter, at_ms, {"2.8.0": 9}, seq=5))
    said = utility.reading(
        steady_supply.meter, at_ms, {"1.8.0": OPENING_WH + 50, "2.8.0": 9}, seq=6
    )
    assert utility.record(said).accepted == 1
    assert utility.rows("SELECT count(*) FROM reading WHERE register = '2.8.0'") == [1]


def test_what_a_lost_connection_rolled_back_is_read_anew(utility: Any, steady_supply: Any) -> None:
    with utility.conn.transaction(force_rollback=True):
        utility.slot(steady_supply.meter, 5)
    assert utility.rows("SELECT count(*) FROM reading") == [4]
    assert utility.slot(steady_supply.meter, 5).accepted == 1
    assert utility.slot(steady_supply.meter, 6).accepted == 1
    assert [check.name for check in audit(utility.conn) if not check.passed] == []


def test_a_price_outlives_the_batch_that_first_rated_by_it(
    utility: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is rolled back; what the worker knows of the price must still be true."""
    supply = utility.open()
    utility.top_up(supply, 50_000_000, "p", OPENED)
    utility.slot(supply.meter, 1)
    writing = steady._copy

    def fail(*of: Any) -> None:
        monkeypatch.setattr(steady, "_copy", writing)
        raise ConnectionError("the server went away")

    monkeypatch.setattr(steady, "_copy", fail)
    with pytest.raises(ConnectionError):
        utility.slot(supply.meter, 2)
    assert utility.slot(supply.meter, 2).accepted == 1
    assert sum(utility.rows("SELECT energy_wh FROM ledger_transaction")) == 20
