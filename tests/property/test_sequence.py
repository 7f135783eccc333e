"""Whatever order readings come in, the gaps are exactly what is missing between those that came."""

from hypothesis import given
from hypothesis import strategies as st

from store.sequence import GAPS_PER_METER, SEQ_MAX, Gap, Place, adjoin, asks, follow

INTERVAL = 900_000


def place(boot: int, seq: int) -> Place:
    return Place(boot, seq, seq * INTERVAL)


def hear(order: list[Place], interval_ms: int | None = None) -> list[Gap]:
    """The gaps after places were heard in this order, each by itself."""
    gaps: tuple[Gap, ...] = ()
    newest: Place | None = None
    for heard in order:
        jumps = [(newest, heard)] if newest and heard.counter > newest.counter else []
        late = [] if jumps or newest is None else [heard]
        gaps = follow(gaps, jumps, late, 0, interval_ms).open
        newest = heard if newest is None else max(newest, heard)
    return list(gaps)


def missing(gaps: list[Gap]) -> set[int]:
    return {seq for gap in gaps for seq in range(gap.after.seq + 1, gap.before.seq)}


counts = st.lists(st.integers(0, 40), min_size=1, max_size=30, unique=True)


@given(counts, st.randoms(use_true_random=False))
def test_gaps_are_what_is_missing_whatever_the_order(seqs: list[int], random) -> None:
    first = min(seqs)
    rest = [seq for seq in seqs if seq != first]
    random.shuffle(rest)
    found = hear([place(1, seq) for seq in [first, *rest]])
    assert missing(found) == set(range(first, max(seqs) + 1)) - set(seqs)
    assert all(not adjoin(gap.after, gap.before, None) for gap in found)


@given(counts, st.sets(st.integers(0, 40)), st.randoms(use_true_random=False))
def test_a_counter_that_goes_on_over_boots_loses_nothing_by_them(
    seqs: list[int], reboots: set[int], random
) -> None:
    def at(seq: int) -> Place:
        return place(1 + sum(edge <= seq for edge in reboots), seq)

    first = min(seqs)
    rest = [seq for seq in seqs if seq != first]
    random.shuffle(rest)
    found = hear([at(first), *(at(seq) for seq in rest)])
    assert missing(found) == set(range(first, max(seqs) + 1)) - set(seqs)


@given(counts)
def test_a_repeat_changes_no_gap(seqs: list[int]) -> None:
    order = [place(1, seq) for seq in seqs if seq >= seqs[0]]
    assert hear(order) == hear([*order, *order])


def test_what_is_filled_or_parted_keeps_its_row_and_its_ask() -> None:
    stored = Gap(place(1, 1), place(1, 9), id=7, opened_ms=5, asks=1, asked_ms=6, requests=("c",))
    parted = follow([stored], [], [place(1, 5)], 99, None)
    assert [(gap.id, gap.after.seq, gap.before.seq) for gap in parted.open] == [
        (7, 1, 5),
        (None, 5, 9),
    ]
    assert {(gap.asks, gap.asked_ms, gap.requests) for gap in parted.open} == {(1, 6, ("c",))}
    whole = follow([stored], [], [place(1, seq) for seq in range(2, 9)], 99, None)
    assert whole == ((), (7,))


def test_a_counter_that_begins_anew_is_judged_by_the_interval() -> None:
    before, soon, late = Place(1, 50, 0), Place(2, 3, INTERVAL), Place(2, 3, 4 * INTERVAL)
    assert adjoin(before, soon, INTERVAL)
    assert not adjoin(before, late, INTERVAL)
    assert not adjoin(before, soon, None)
    assert adjoin(before, Place(2, 1, 4 * INTERVAL), None)


def test_a_device_that_does_not_count_one_by_one_fills_no_table() -> None:
    gaps = hear([place(1, seq) for seq in range(0, 1000, 10)])
    assert len(gaps) == GAPS_PER_METER
    assert (gaps[0].after.seq, gaps[-1].before.seq) == (0, 990)


def test_asks_name_every_boot_of_a_gap() -> None:
    assert asks(Gap(place(3, 10), place(3, 14))) == [{"boot": 3, "from": 11, "to": 13}]
    assert asks(Gap(place(3, 10), place(5, 14))) == [
        {"boot": boot, "from": 11, "to": 13} for boot in (3, 4, 5)
    ]
    assert asks(Gap(place(3, 10), place(4, 5))) == [
        {"boot": 3, "from": 11, "to": SEQ_MAX},
        {"boot": 4, "from": 0, "to": 4},
    ]
    assert len(asks(Gap(place(3, 10), place(300, 5)))) == 4
