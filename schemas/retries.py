"""What follows when a command ends without its effect: when to try again, and when to give up.

| ended as                              | relay, arm | token   | others  |
|---------------------------------------|------------|---------|---------|
| `expired`: never said                 | again      | again   | nothing |
| `unknown`: said and not answered      | read       | again   | nothing |
| `failed: expired`, `refused: stale`   | wait       | again   | nothing |
| `failed`                              | wait       | give up | nothing |
| `refused`                             | give up    | give up | give up |

A token command whose every token was taken, now or before (`UsedError`), is done, whatever the
meter calls it.

`again`: a new command with a new counter, after a back-off. `read`: the meter may have obeyed, so
it is read, and its word decides (a blind repeat never does). `wait`: it has just been heard; its
next report decides. `give up`: a person looks at it. Tries end at an age, too.
"""

from collections.abc import Sequence
from typing import Literal

from schemas.commands import TOKEN_SUCCESSES, CommandState, CommandType
from schemas.wire import AckState, TokenResult

Follow = Literal["nothing", "again", "read", "wait", "give_up"]

# Doubled with each attempt, up to an hour: a silent meter costs its cell a message an hour.
BACK_OFF_MS = 30 * 1000
BACK_OFF_MOST_MS = 60 * 60 * 1000
# From the first attempt on. A relay that does not obey for two days needs a visit; a token is
# worth carrying for a week, and the customer has its digits all the same.
AGE_MOST_MS: dict[CommandType, int] = {
    "relay": 48 * 3600 * 1000,
    "arm": 48 * 3600 * 1000,
    "token": 7 * 24 * 3600 * 1000,
}
# Words of a meter that came too late to act, or after a newer order: it did nothing.
LATE: frozenset[tuple[str, str | None]] = frozenset({("failed", "expired"), ("refused", "stale")})

_RELAY: dict[str, Follow] = {
    "expired": "again",
    "unknown": "read",
    "late": "wait",
    "failed": "wait",
    "refused": "give_up",
}
_TOKEN: dict[str, Follow] = {
    "expired": "again",
    "unknown": "again",
    "late": "again",
    "failed": "give_up",
    "refused": "give_up",
}
_OTHER: dict[str, Follow] = {"refused": "give_up"}


def end_of_tokens(said: AckState, results: Sequence[TokenResult | None]) -> AckState:
    """What a meter's word on a token command comes to; `results` has one per token of the command,
    None where the meter did not tell it.
    """
    taken = bool(results) and all(each in TOKEN_SUCCESSES for each in results)
    return "done" if taken and said in {"failed", "refused"} else said


def follow_up(kind: CommandType, state: CommandState, why: str | None) -> Follow:
    """What follows a command that ended in `state`, with the meter's reason where it gave one."""
    table = {"relay": _RELAY, "arm": _RELAY, "token": _TOKEN}.get(kind, _OTHER)
    return table.get("late" if (state, why) in LATE else state, "nothing")


def back_off_ms(attempt: int) -> int:
    """How long after the issue of this attempt (from 1) the next may follow."""
    return min(BACK_OFF_MS << min(attempt - 1, 20), BACK_OFF_MOST_MS)


def is_too_old(kind: CommandType, first_issued_ms: int, now_ms: int) -> bool:
    """Whether a command of this type was tried for long enough."""
    most_ms = AGE_MOST_MS.get(kind)
    return most_ms is not None and now_ms - first_issued_ms >= most_ms
