"""The table of states, by its laws."""

from store.payment_states import STATES, TRANSITIONS, allowed


def reachable(state: str) -> set[str]:
    found: set[str] = set()
    open_ = {state}
    while open_:
        each = open_.pop()
        found.add(each)
        open_ |= set(TRANSITIONS[each]) - found  # type: ignore[index] # a state by its name
    return found


def test_every_state_has_its_row_and_every_row_is_of_states() -> None:
    assert set(TRANSITIONS) == set(STATES)
    assert {each for after in TRANSITIONS.values() for each in after} <= set(STATES)


def test_money_can_always_come_and_is_never_given_up() -> None:
    for state in STATES:
        assert "paid" in reachable(state)
    assert TRANSITIONS["paid"] == frozenset()
    assert reachable("received") == {"received", "paid"}


def test_what_has_ended_is_begun_no_more() -> None:
    for ended in ("failed", "expired"):
        assert reachable(ended) == {ended, "received", "paid"}


def test_nothing_comes_back_to_the_beginning() -> None:
    assert not any(allowed(before, "started") for before in STATES)


def test_no_state_follows_itself() -> None:
    assert not any(allowed(each, each) for each in STATES)


def test_unknown_comes_of_asking_alone() -> None:
    assert [each for each in STATES if allowed(each, "unknown")] == ["pending"]
