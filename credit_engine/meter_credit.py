"""The meter's own credit against the tokens that it took (hybrid mode).

A meter that counts credit down adds each token that it accepts and takes off what its register
counts. So `credit + register - accepted tokens` stays what it was when both sides last agreed. A
difference beyond the tolerance is one of three things, and a person looks at it: the ledger is the
book of record, and nothing here changes it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

CreditClass = Literal["matched", "missed_token", "missed_reading", "tamper_suspect"]

# Sums of more tokens than this are not told apart: beyond it every gap would be some sum.
TOKENS_COMPARED = 8


@dataclass(frozen=True, slots=True)
class CreditFacts:
    """One reading with credit; all in Wh.

    `base_wh`: credit + register - accepted tokens at the last agreement. `accepted_wh`: all tokens
    that were accepted by the meter's word, none of those near the reading. `near_wh`: accepted so
    close to it that it may be before or after. `unanswered_wh`: issued, and the meter has said
    nothing about them: the customer may have entered them by hand. `lately_accepted_wh`: accepted
    since the last agreement. `rows_missing`: readings in between did not come.
    """

    credit_wh: int
    register_wh: int
    base_wh: int
    accepted_wh: int
    near_wh: Sequence[int] = ()
    unanswered_wh: Sequence[int] = ()
    lately_accepted_wh: Sequence[int] = ()
    rows_missing: bool = False
    tolerance_wh: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """`gap_wh`: the meter's credit above (+) or below (-) what the tokens and the register give."""

    verdict: CreditClass
    gap_wh: int


def compare(facts: CreditFacts) -> Comparison:
    """Which of the four it is, the harmless ones first.

    | the gap is, within the tolerance                                     | class          |
    |----------------------------------------------------------------------|----------------|
    | nothing, or tokens near the reading; or the credit has run out       | matched        |
    | above by unanswered tokens, or below by tokens said to be accepted   | missed_token   |
    | anything else, and readings in between are missing                   | missed_reading |
    | anything else                                                        | tamper_suspect |
    """
    expected_wh = facts.base_wh + facts.accepted_wh - facts.register_wh
    gap_wh = facts.credit_wh - expected_wh
    near = _sums(facts.near_wh)
    gaps = [gap_wh - part for part in near]
    least = min(gaps, key=abs)
    if abs(least) <= facts.tolerance_wh or (
        # A meter shows no credit below zero; what was used beyond it is the ledger's alone.
        facts.credit_wh == 0 and expected_wh + min(near) <= facts.tolerance_wh
    ):
        return Comparison("matched", least)
    more, less = _sums(facts.unanswered_wh), _sums(facts.lately_accepted_wh)
    if any(
        abs(gap - part) <= facts.tolerance_wh
        for gap in gaps
        for part in (*more, *(-part for part in less))
        if part
    ):
        return Comparison("missed_token", least)
    return Comparison("missed_reading" if facts.rows_missing else "tamper_suspect", least)


def _sums(parts: Iterable[int]) -> set[int]:
    """What some of these come to; nothing is one of them."""
    found = {0}
    for part in list(parts)[:TOKENS_COMPARED]:
        found |= {part + each for each in found}
    return found
