"""What late readings cost the general way: what is rated again for them, and what is asked of the
database. `store.fills` takes most of them before.
"""

from typing import Any

import psycopg
import pytest

from store import ingest, settlement
from store.audit import audit
from store.positions import LATE_READINGS, RATED_AGAIN_MAX

MINUTE = 60_000
SLOT = 15 * MINUTE
OPENED = 1_772_323_200_000  # 2026-03-01T00:00:00Z
OPENING_WH = 100_000
SAID = 8 * LATE_READINGS


def anchors_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where each rating again begins from now on."""
    begun: list[int] = []
    stored_facts = settlement.stored_facts

    def note(conn: Any, anchors: Any) -> Any:
        begun.extend(anchors.values())
        return stored_facts(conn, anchors)

    monkeypatch.setattr(settlement, "stored_facts", note)
    return begun


def say(utility: Any, supply: Any, *places: int, step: int = SLOT, **more: Any) -> Any:
    """What a meter says at these steps after its opening, a Wh for each step."""
    return record(
        utility,
        *(
            utility.reading(
                supply.meter, OPENED + place * step, OPENING_WH + place, seq=place, **more
            )
            for place in places
        ),
    )


def record(utility: Any, *said: Any) -> Any:
    return ingest.record_in_general(utility.conn, utility.terms, said, utility.now)


def test_of_a_meter_that_speaks_each_minute_one_leaves_a_position_for_the_next_one_to_begin_at(
    utility: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    supply = utility.open()
    utility.top_up(supply, 50_000_000, "p", OPENED)

    utility.now = OPENED + (SAID + 10) * MINUTE
    first, second, third = SAID - 30, SAID - 20, 10
    # The credit came before them: rated again with it, they leave a position already.
    others = [minute for minute in range(1, SAID) if minute not in {first, second, third}]
    say(utility, supply, *others, step=MINUTE)
    begun = anchors_of(monkeypatch)
    say(utility, supply, first, step=MINUTE)
    say(utility, supply, second, step=MINUTE)
    # Overtaken by a fact before it, the position goes; rated again, one is left anew.
    say(utility, supply, third, step=MINUTE)
    say(utility, supply, SAID - 1, SAID, step=MINUTE)
    # The two that were missing among the last ones.
    kept_anew = SAID - LATE_READINGS
    kept = kept_anew - 2
    assert [(at_ms - OPENED) // MINUTE for at_ms in begun] == [kept, first - 1, 1]
    stored = utility.rows("SELECT anchor_ms FROM checkpoint")
    assert OPENED + kept_anew * MINUTE in stored
    assert OPENED + kept * MINUTE not in stored
    assert utility.state(supply).position.register_wh == OPENING_WH + SAID
    assert [check.name for check in audit(utility.conn) if not check.passed] == []


def test_what_a_gap_lacks_is_rated_from_where_the_account_stood_before_it(
    utility: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    supply = utility.open()
    utility.top_up(supply, 50_000_000, "p", OPENED)

    utility.now = OPENED + 26 * SLOT
    for slot in range(1, 20):
        say(utility, supply, slot)
    say(utility, supply, 25)
    begun = anchors_of(monkeypatch)
    # Where a meter comes back: the newest first, then its buffer, in whatever pieces.
    say(utility, supply, 20, hist=True)
    say(utility, supply, 22, 23, hist=True)
    say(utility, supply, 24, hist=True)
    say(utility, supply, 21, hist=True)
    assert [(at_ms - OPENED) // SLOT for at_ms in begun] == [19] * 4
    say(utility, supply, 26)
    assert len(begun) == 4
    assert utility.state(supply).position.register_wh == OPENING_WH + 26
    assert [check.name for check in audit(utility.conn) if not check.passed] == []


def test_a_long_gap_is_filled_from_where_its_last_row_was_rated(
    utility: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rated from the gap's beginning, a buffer of n rows would cost n times n."""
    supply = utility.open()
    utility.top_up(supply, 50_000_000, "p", OPENED)
    rows = 3 * RATED_AGAIN_MAX
    utility.now = OPENED + (rows + 1) * SLOT

    say(utility, supply, rows + 1)
    begun = anchors_of(monkeypatch)
    for slot in range(1, rows + 1):
        say(utility, supply, slot)
    behind = [
        slot - max(began - OPENED, 0) // SLOT
        for slot, began in zip(range(1, rows + 1), begun, strict=True)
    ]
    assert max(behind) <= RATED_AGAIN_MAX
    assert utility.state(supply).position.register_wh == OPENING_WH + rows + 1
    assert [check.name for check in audit(utility.conn) if not check.passed] == []


def test_many_accounts_are_looked_up_at_once(utility: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage nearly all meters of a place replay their buffers."""
    counted: list[str] = []
    execute = psycopg.Connection.execute

    def count(conn: Any, text: Any, *rest: Any, **more: Any) -> Any:
        counted.append(text)
        return execute(conn, text, *rest, **more)

    monkeypatch.setattr(psycopg.Connection, "execute", count)
    asked: list[int] = []
    for accounts in (2, 12):
        supplies = [utility.open() for _ in range(accounts)]
        for slot in (1, 3, 2):
            utility.now = OPENED + 3 * SLOT
            said = [
                utility.reading(each.meter, OPENED + slot * SLOT, OPENING_WH + slot, seq=slot)
                for each in supplies
            ]
            counted.clear()
            assert record(utility, *said).accepted == accounts
        asked.append(len(counted))
        for each in supplies:
            assert utility.state(each).position.register_wh == OPENING_WH + 3
    assert asked[0] == asked[1], counted
    assert [check.name for check in audit(utility.conn) if not check.passed] == []


def test_more_accounts_than_are_held_at_once_are_rated_as_each_by_itself(
    utility: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "LATE_AT_ONCE", 2)
    supplies = [utility.open() for _ in range(5)]
    for place, each in enumerate(supplies):
        utility.top_up(each, (place + 1) * 10_000_000, f"p{place}", OPENED + place)
    for slot in (1, 4, 2, 3):
        utility.now = OPENED + 4 * SLOT
        record(
            utility,
            *(
                utility.reading(
                    each.meter, OPENED + slot * SLOT, OPENING_WH + slot * (place + 1), seq=slot
                )
                for place, each in enumerate(supplies)
            ),
        )
    for place, each in enumerate(supplies):
        assert utility.state(each).position.register_wh == OPENING_WH + 4 * (place + 1)
    assert [check.name for check in audit(utility.conn) if not check.passed] == []
