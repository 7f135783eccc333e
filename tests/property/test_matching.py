"""Reconciliation: every seeded difference is found in its class, whatever the order."""

import hashlib
from dataclasses import replace
from datetime import date
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import DomainError
from store.matching import Line, Ours, Trailer, canonical, check_trailer, match

DAY = date(2026, 3, 2)
NEXT_DAY = date(2026, 3, 3)
NOON = 1_772_452_800_000
DAY_MS = 86_400_000
KINDS = (
    "matched", "ours_only", "theirs_only", "amount_differs", "duplicate", "late", "paid_again",
    "renumbered",
)  # fmt: skip


def seeded(kinds: list[str]) -> tuple[list[Line], list[Ours], dict[str, str]]:
    """Both sides with one difference per kind, and the class that each place must get.

    Meters differ, so that nothing meets by meter and amount but what is meant to.
    """
    lines: list[Line] = []
    payments: list[Ours] = []
    wanted: dict[str, str] = {}
    for place, kind in enumerate(kinds):
        number, paid = f"n{place}", NOON + place * 1000
        line = Line(number, f"m{place}", 1_000_000 + place, paid)
        ours = Ours(f"id{place}", number, f"m{place}", 1_000_000 + place, paid, DAY)
        if kind != "ours_only":
            lines.append(line)
        if kind != "theirs_only":
            payments.append(ours)
        if kind == "ours_only":
            wanted[f"ours:id{place}"] = kind
            continue
        wanted[f"theirs:{number}"] = kind
        if kind == "amount_differs":
            payments[-1] = replace(ours, amount_micro=5)
        elif kind == "late":
            payments[-1] = replace(ours, business_date=NEXT_DAY, paid_ms=paid + DAY_MS)
        elif kind == "duplicate":
            lines.append(replace(line, paid_ms=paid + 1))
            wanted |= {f"theirs:{number}": "matched", f"theirs:{number}#2": "duplicate"}
        elif kind == "paid_again":
            payments[-1] = replace(ours, accounted_for=True)
            wanted[f"theirs:{number}"] = "duplicate"
        elif kind == "renumbered":
            payments[-1] = replace(ours, partner_txn_id=f"other{place}", paid_ms=paid - DAY_MS)
            wanted[f"theirs:{number}"] = "matched"
    return lines, payments, wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(KINDS), max_size=14), st.integers(0, 2**32).map(Random))
def test_every_seeded_difference_is_found_in_its_class(kinds: list[str], random: Random) -> None:
    lines, payments, wanted = seeded(kinds)
    items = match(lines, payments, DAY)
    assert {item.place: item.cls for item in items} == wanted
    random.shuffle(lines)
    random.shuffle(payments)
    assert match(lines, payments, DAY) == items
    # Each line is in one item, and each payment that is not another's second line.
    assert sorted(str(item.theirs) for item in items if item.theirs) == sorted(map(str, lines))
    told = [item.ours.id for item in items if item.ours and item.cls != "duplicate"]
    assert len(told) == len(set(told))


def test_the_nearest_of_the_same_money_meet_first_and_a_day_is_the_limit() -> None:
    def ours(name: str, paid: int) -> Ours:
        return Ours(name, f"x{name}", "m", 7, paid, DAY)

    line = Line("n", "m", 7, NOON)
    far, near = ours("far", NOON + 5000), ours("near", NOON - 1000)
    assert [item.cls for item in match([line], [far, near], DAY)] == ["ours_only", "matched"]
    assert match([line], [far, near], DAY)[1].ours == near
    edge, beyond = ours("edge", NOON - DAY_MS), ours("beyond", NOON - DAY_MS - 1)
    assert match([line], [edge], DAY)[0].cls == "matched"
    assert {item.cls for item in match([line], [beyond], DAY)} == {"theirs_only", "ours_only"}


@pytest.mark.parametrize("name", ["count", "sum_micro", "sha256"])
def test_a_trailer_that_is_not_that_of_the_lines_is_refused(name: str) -> None:
    lines = [Line("n1", "m", 7, NOON), Line("n2", "m", 8, NOON)]
    right = Trailer(2, 15, hashlib.sha256(canonical(lines)).digest())
    check_trailer(lines, right)
    wrong = replace(right, **{name: bytes(32) if name == "sha256" else 3})
    with pytest.raises(DomainError, match="send the whole file again") as refusal:
        check_trailer(lines, wrong)
    assert refusal.value.code == "trailer_differs"
    assert name.removesuffix("_micro") in str(refusal.value)


def test_the_form_that_is_digested_is_told_to_the_octet() -> None:
    assert canonical([Line("A-1", "37000000017", 50_130_000, NOON)]) == (
        b"A-1\t37000000017\t50.130000\t2026-03-02T12:00:00Z\n"
    )
