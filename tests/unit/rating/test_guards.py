"""Each guard as a table: what stands before a cut, what does not, and until when."""

from dataclasses import replace

import pytest

from credit_engine.guards import GUARDS, CutFacts, CutRules, findings

HOUR = 3_600_000
NOW = 1_772_366_400_000  # 2026-03-01T12:00:00Z
RULES = CutRules(
    reading_age_ms=48 * HOUR, notice_ms=24 * HOUR, payment_ms=24 * HOUR, clock_margin_ms=HOUR // 4
)
# Nothing stands against this cut.
CLEAR = CutFacts(read_ms=NOW - HOUR, notice_ms=NOW - 30 * HOUR, window_ms=NOW + 8 * HOUR)


def standing(rules: CutRules, facts: CutFacts) -> list[tuple[str, int | None]]:
    return [(each.guard, each.until_ms) for each in findings(rules, facts, NOW) if each.stands]


def test_a_cut_against_which_nothing_stands_is_explained_by_every_guard() -> None:
    found = findings(RULES, CLEAR, NOW)
    assert standing(RULES, CLEAR) == []
    assert [each.guard for each in found] == [guard.__name__ for guard in GUARDS]
    assert all(each.words for each in found)
    assert found[0].words == "read 2026-03-01T11:00:00Z, at most 48 h ago"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"read_ms": NOW - 48 * HOUR}, []),
        ({"read_ms": NOW - 48 * HOUR - 1}, [("reading", None)]),
        ({"hold": 7}, [("hold", None)]),
        ({"hold": 7, "hold_until_ms": NOW + HOUR}, [("hold", NOW + HOUR)]),
        ({"payment_ms": NOW - HOUR}, [("payment", NOW + 23 * HOUR)]),
        # Money that nobody settles in a day does not protect for ever.
        ({"payment_ms": NOW - 24 * HOUR}, []),
        ({"notice_ms": None}, [("notice", None)]),
        ({"notice_ms": NOW - HOUR}, [("notice", NOW + 23 * HOUR)]),
        ({"notice_ms": NOW - 24 * HOUR}, []),
        ({"outage": True}, [("outage", None)]),
        ({"window_ms": None}, []),
        # The order needs a minute of life, and a quarter of an hour for the meter's clock.
        ({"window_ms": NOW + HOUR // 4 + 60_000}, []),
        ({"window_ms": NOW + HOUR // 4 + 59_999}, [("window", None)]),
        (
            {"hold": 7, "outage": True, "notice_ms": None},
            [("hold", None), ("notice", None), ("outage", None)],
        ),
    ],
)
def test_what_stands_against_a_cut_and_until_when(
    changes: dict[str, object], expected: list[tuple[str, int | None]]
) -> None:
    assert standing(RULES, replace(CLEAR, **changes)) == expected  # type: ignore[arg-type]  # the case


def test_what_a_centre_does_not_ask_for_does_not_stand() -> None:
    rules = replace(RULES, reading_age_ms=None, notice_ms=None)
    facts = replace(CLEAR, read_ms=0, notice_ms=None)
    assert standing(rules, facts) == []
