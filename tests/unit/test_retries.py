"""What follows a command that ended without its effect, as a table."""

import pytest

from schemas.commands import COMMAND_TYPES, FINAL
from schemas.retries import (
    AGE_MOST_MS,
    BACK_OFF_MOST_MS,
    back_off_ms,
    end_of_tokens,
    follow_up,
    is_too_old,
)

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("kind", "state", "why", "follows"),
    [
        ("relay", "expired", None, "again"),
        ("relay", "unknown", None, "read"),
        ("arm", "unknown", None, "read"),
        ("relay", "failed", "expired", "wait"),
        ("relay", "refused", "stale", "wait"),
        ("relay", "failed", "stuck", "wait"),
        ("relay", "refused", "bad_command", "give_up"),
        ("token", "expired", None, "again"),
        ("token", "unknown", None, "again"),
        ("token", "refused", "stale", "again"),
        ("token", "failed", None, "give_up"),
        ("token", "refused", "unknown_type", "give_up"),
        ("read", "unknown", None, "nothing"),
        ("display", "expired", None, "nothing"),
        ("resend", "failed", "not_kept", "nothing"),
        ("limit", "refused", "unknown_type", "give_up"),
        ("display", "refused", "stale", "nothing"),
    ],
)
def test_what_follows_an_end(kind: str, state: str, why: str | None, follows: str) -> None:
    assert follow_up(kind, state, why) == follows  # type: ignore[arg-type]  # the case


@pytest.mark.parametrize("kind", COMMAND_TYPES)
def test_nothing_follows_what_was_done_or_is_under_way(kind: str) -> None:
    for state in ("queued", "sent", "accepted", "executing", "done", "superseded"):
        assert follow_up(kind, state, None) == "nothing"  # type: ignore[arg-type]  # the case
    # Nothing that ends badly is lost without anybody asking what follows.
    for state in FINAL - {"done", "superseded"}:
        assert kind not in AGE_MOST_MS or follow_up(kind, state, None) != "nothing"  # type: ignore[arg-type]  # the case


@pytest.mark.parametrize(
    ("said", "results", "ended"),
    [
        ("failed", ["UsedError"], "done"),
        ("refused", ["UsedError"], "done"),
        ("failed", ["1stKCT", "2ndKCT", "Accept", "UsedError"], "done"),
        ("failed", ["AuthenticationError", "UsedError"], "failed"),
        ("failed", [None, "UsedError"], "failed"),
        ("refused", [None], "refused"),
        ("refused", [], "refused"),
        ("executing", ["Accept"], "executing"),
        ("done", ["OldError"], "done"),
    ],
)
def test_tokens_that_were_all_taken_are_done(
    said: str, results: list[str | None], ended: str
) -> None:
    assert end_of_tokens(said, results) == ended  # type: ignore[arg-type]  # the case


def test_the_back_off_doubles_up_to_an_hour() -> None:
    waits = [back_off_ms(attempt) for attempt in range(1, 40)]
    assert waits[:4] == [30_000, 60_000, 120_000, 240_000]
    assert waits == sorted(waits)
    assert waits[-1] == BACK_OFF_MOST_MS == HOUR


@pytest.mark.parametrize(
    ("kind", "age_h", "too_old"),
    [("relay", 47, False), ("relay", 48, True), ("token", 167, False), ("token", 168, True),
     ("read", 10_000, False)],
)  # fmt: skip
def test_tries_end_at_an_age(kind: str, age_h: int, too_old: bool) -> None:
    assert is_too_old(kind, 0, age_h * HOUR) is too_old  # type: ignore[arg-type]  # the case
