"""A late reading of a meter that speaks each minute does not make us rate its whole day again."""

from typing import Any

import pytest

from store import settlement
from store.audit import audit
from store.settlement import LATE_READINGS, RATED_AGAIN_MAX

MINUTE = 60_000
OPENED = 1_772_323_200_000  # 2026-03-01T00:00:00Z
OPENING_WH = 100_000
SAID = 2 * RATED_AGAIN_MAX


def test_it_leaves_a_position_for_the_next_one_to_begin_at(
    utility: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    supply = utility.open()
    utility.top_up(supply, 50_000_000, "p", OPENED)

    def say(minutes: list[int]) -> None:
        utility.now = OPENED + (SAID + 10) * MINUTE
        utility.record(
            *(
                utility.reading(
                    supply.meter, OPENED + minute * MINUTE, OPENING_WH + minute, seq=minute
                )
                for minute in minutes
            )
        )

    begun: list[int] = []
    stored_facts = settlement.stored_facts

    def note(conn: Any, account: int, anchor_ms: int) -> Any:
        begun.append(anchor_ms)
        return stored_facts(conn, account, anchor_ms)

    first, second, third = SAID - 30, SAID - 20, 10
    # The credit came before them: rated again with it, they leave a position already.
    say([minute for minute in range(1, SAID) if minute not in {first, second, third}])
    monkeypatch.setattr(settlement, "stored_facts", note)
    say([first])
    say([second])
    # Overtaken by a fact before it, the position goes; rated again, one is left anew.
    say([third])
    say([SAID - 1, SAID])
    # The two that were missing among the last ones.
    kept_anew = SAID - LATE_READINGS
    kept = kept_anew - 2
    assert [(at_ms - OPENED) // MINUTE for at_ms in begun] == [kept, kept, 1]
    stored = utility.rows("SELECT anchor_ms FROM checkpoint")
    assert OPENED + kept_anew * MINUTE in stored
    assert OPENED + kept * MINUTE not in stored
    assert utility.state(supply).position.register_wh == OPENING_WH + SAID
    assert [check.name for check in audit(utility.conn) if not check.passed] == []
