"""A place in an account's events says the same after its way through a reader, or is refused."""

from hypothesis import given
from hypothesis import strategies as st

from store.account_events import Place, TopUpMark, parse_place

NUMBERS = st.integers(0, 2**63 - 1)
MARKS = st.lists(
    st.builds(TopUpMark, NUMBERS, st.integers(0, 127), st.text("idarp", max_size=16)), max_size=8
)
PLACES = st.builds(
    Place,
    account_id=NUMBERS,
    entry=NUMBERS,
    decision=st.integers(0, 2**31 - 1),
    reading_ms=st.integers(0, 10**15 - 1),
    relay=st.sampled_from(["", "open", "closed", "armed"]),
    top_ups=MARKS.map(tuple),
)


@given(PLACES)
def test_a_place_comes_back_as_it_went(place: Place) -> None:
    text = str(place)
    assert parse_place(text, place.account_id) == place
    assert len(text) <= 400
    assert text.isascii()
    assert text.isprintable()


@given(PLACES, NUMBERS)
def test_a_place_of_another_account_is_none(place: Place, account: int) -> None:
    if account != place.account_id:
        assert parse_place(str(place), account) is None


@given(st.text(max_size=80))
def test_what_is_no_place_is_none(text: str) -> None:
    assert parse_place(text, 1) is None


@given(PLACES, st.integers(0, 399), st.characters())
def test_a_damaged_place_is_refused_or_means_what_it_says(
    place: Place, at: int, wrong: str
) -> None:
    text = str(place)
    damaged = text[:at] + wrong + text[at + 1 :]
    found = parse_place(damaged, place.account_id)
    # Leading zeros, or other digits of Unicode, are no way to write a number here.
    assert found is None or parse_place(str(found), place.account_id) == found
