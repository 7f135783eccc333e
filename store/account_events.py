"""What happened to an account beyond a place, from what is committed: nothing lost, nothing twice.

A place says how far somebody was told: the newest ledger entry and decision (both grow in the order
of commits, since whoever writes them holds the account's row), the newest reading, the relay, and
of the newest top-ups which states they and their tokens had reached. It travels as the id of an
event, so a reader goes on where he was, at any process. Nothing is written for it, and nothing is
added to the way of a reading: whoever watches asks for the marks of his accounts (`marks`).

What went back and forth while nobody listened is not told: a relay that opened and closed again,
a reading that came late to who knows a newer one (it moves the balance), the states of top-ups
beyond the newest.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from psycopg import Connection

from schemas.commands import TOKEN_SUCCESSES
from store import top_ups
from store.pool import snapshot
from store.sql import query
from store.top_ups import IssuedToken, TopUp, TopUpState

# Of one look: a reader who was away for long is told in parts.
PAGE = 100
# Top-ups whose states are followed; an account has rarely one on its way.
TOP_UPS = 8
# The bits of a top-up's mark, as account_marks sets them. It is credited as it is received.
STATES: Sequence[tuple[int, TopUpState]] = (
    (1, "credited"),
    (2, "token_issued"),
    (4, "delivered"),
    (8, "accepted"),
    (16, "on_supply"),
    (32, "rejected"),
    (64, "reversed"),
)
_LARGEST = 2**63 - 1
_PLACE = re.compile(
    r"1\.(\d{1,19})\.(\d{1,19})\.(\d{1,10})\.(\d{1,15})\.(open|closed|armed|)"
    r"\.((?:\d{1,19}:\d{1,3}:[idarp]{0,16}(?:,|$)){0,8})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class TopUpMark:
    """Of one top-up: its receipt number, the states reached as bits, a letter for each token."""

    receipt: int
    states: int
    tokens: str


@dataclass(frozen=True, slots=True)
class Place:
    """How far somebody was told about an account; `relay` is empty before its meter spoke."""

    account_id: int
    entry: int
    decision: int
    reading_ms: int
    relay: str
    top_ups: tuple[TopUpMark, ...]

    def __str__(self) -> str:
        marks = ",".join(f"{each.receipt}:{each.states}:{each.tokens}" for each in self.top_ups)
        return (
            f"1.{self.account_id}.{self.entry}.{self.decision}.{self.reading_ms}.{self.relay}"
            f".{marks}"
        )


def parse_place(text: str, account_id: int) -> Place | None:
    """The place that an event's id says; None for another account's, or what is none."""
    found = _PLACE.fullmatch(text)
    if found is None:
        return None
    account, entry, decision, reading_ms = (int(found[place]) for place in range(1, 5))
    if account != account_id or entry > _LARGEST or decision > 2**31 - 1:
        return None
    marks = tuple(_top_up_mark(each) for each in found[6].split(",") if each)
    return Place(account, entry, decision, reading_ms, found[5], marks)


def _top_up_mark(text: str) -> TopUpMark:
    receipt, states, tokens = text.split(":")
    return TopUpMark(int(receipt), int(states), tokens)


@dataclass(frozen=True, slots=True)
class BalanceMoved:
    """A ledger entry and the balance after it; `entry` None: the balance as it stands."""

    balance_micro: int
    recorded_ms: int
    entry: int | None = None
    kind: str | None = None
    at_ms: int | None = None
    amount_micro: int | None = None
    energy_wh: int | None = None


@dataclass(frozen=True, slots=True)
class ReadingTaken:
    meter: str
    at_ms: int
    wh: int


@dataclass(frozen=True, slots=True)
class SupplyMoved:
    """`state` as decided, `reported` the relay in the meter's own word; `at_ms` of what moved."""

    state: str
    reported: str | None
    at_ms: int | None


@dataclass(frozen=True, slots=True)
class TopUpMoved:
    top_up: TopUp
    state: TopUpState
    at_ms: int


@dataclass(frozen=True, slots=True)
class TokenMoved:
    token: IssuedToken


Happened = BalanceMoved | ReadingTaken | SupplyMoved | TopUpMoved | TokenMoved


@dataclass(frozen=True, slots=True)
class Event:
    """`place`: how far its reader is once he has it."""

    place: Place
    happened: Happened


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order, and the place after them. `mark`: how far the account is; `more`: ask again
    at once.
    """

    events: Sequence[Event]
    place: Place
    mark: Place
    more: bool


def marks(conn: Connection, accounts: Sequence[int]) -> dict[int, Place]:
    """How far each of these accounts is now: another mark means that something happened."""
    of = {"accounts": list(accounts), "top_ups": TOP_UPS, "successes": sorted(TOKEN_SUCCESSES)}
    return {
        account: Place(
            account, entry, decision, reading_ms, relay, tuple(map(_top_up_mark, top_up_marks))
        )
        for account, entry, decision, reading_ms, relay, top_up_marks in conn.execute(
            query("account_marks"), of
        )
    }


def since(conn: Connection, account_id: int, place: Place | None) -> Page:
    """What happened beyond a place; without one, how everything stands now."""
    with snapshot(conn):
        mark = marks(conn, [account_id])[account_id]
        if place is None:
            return Page([Event(mark, each) for each in _standing(conn, mark)], mark, mark, False)
        return _beyond(conn, place, mark)


def _standing(conn: Connection, mark: Place) -> Iterator[Happened]:
    of = {"account": mark.account_id}
    row = conn.execute(query("balance_as_recorded"), of).fetchone()
    if row is not None:
        yield BalanceMoved(*row)
    newest = of | {"after_ms": mark.reading_ms - 1, "limit": 1}
    if mark.reading_ms:
        yield from (ReadingTaken(*row) for row in conn.execute(query("readings_beyond"), newest))
    yield _supply(conn, mark.account_id)


def _supply(conn: Connection, account_id: int) -> SupplyMoved:
    row = conn.execute(query("supply_as_decided"), {"account": account_id}).fetchone()
    assert row is not None, "an account has its state"
    return SupplyMoved(*row)


def _beyond(conn: Connection, place: Place, mark: Place) -> Page:
    """Readings, then what they cost, then what followed; each kind up to a page."""
    account = place.account_id
    events: list[Event] = []
    of = {"account": account, "limit": PAGE + 1}
    readings = conn.execute(
        query("readings_beyond"), of | {"after_ms": place.reading_ms}
    ).fetchall()
    for meter, at_ms, wh in readings[:PAGE]:
        place = replace(place, reading_ms=at_ms)
        events.append(Event(place, ReadingTaken(meter, at_ms, wh)))
    entries = conn.execute(query("entries_after"), of | {"after": place.entry}).fetchall()
    for entry, kind, at_ms, recorded_ms, amount, balance, wh in entries[:PAGE]:
        place = replace(place, entry=entry)
        moved = BalanceMoved(balance, recorded_ms, entry, kind, at_ms, amount, wh)
        events.append(Event(place, moved))
    if len(readings) > PAGE or len(entries) > PAGE:
        # What followed from these is told after them.
        return Page(events, place, mark, True)
    decided = conn.execute(
        query("supply_decisions_after"), of | {"after": place.decision}
    ).fetchall()
    for ordinal, kind, at_ms in decided[:PAGE]:
        place = replace(place, decision=ordinal)
        events.append(Event(place, SupplyMoved(kind, mark.relay or None, at_ms)))
    if len(decided) > PAGE:
        return Page(events, place, mark, True)
    place = replace(place, decision=max(place.decision, mark.decision))
    if place.relay != mark.relay:
        place = replace(place, relay=mark.relay)
        events.append(Event(place, _supply(conn, account)))
    for event in _of_top_ups(conn, place, mark):
        place = event.place
        events.append(event)
    return Page(events, replace(place, top_ups=mark.top_ups), mark, False)


def _of_top_ups(conn: Connection, place: Place, mark: Place) -> Iterator[Event]:
    """New states of top-ups and tokens, oldest top-up first."""
    told = {each.receipt: each for each in place.top_ups}
    if all(told.get(each.receipt) == each for each in mark.top_ups):
        return
    paid = {
        each.receipt_number: each
        for each in top_ups.top_ups(conn, place.account_id, before_id=None, limit=TOP_UPS)
    }
    for new in mark.top_ups:
        old = told.get(new.receipt, TopUpMark(new.receipt, 0, ""))
        if old == new:
            continue
        top_up = paid[new.receipt]
        times = dict(top_up.states())
        # A refusal that a replacement took back is no state any more.
        old = replace(old, states=old.states & new.states)
        for bit, state in STATES:
            if new.states & bit and not old.states & bit:
                old = replace(old, states=old.states | bit)
                place = _told(place, old, mark)
                yield Event(place, TopUpMoved(top_up, state, times[state]))
        for at, token in enumerate(_tokens(conn, place.account_id, top_up.id)):
            if old.tokens[at : at + 1] != new.tokens[at]:
                old = replace(old, tokens=new.tokens[: at + 1] + old.tokens[at + 1 :])
                place = _told(place, old, mark)
                yield Event(place, TokenMoved(token))


def _told(place: Place, told: TopUpMark, mark: Place) -> Place:
    """The place once a top-up is told so far; top-ups that nobody follows any more leave it."""
    followed = {each.receipt for each in mark.top_ups}
    kept = {each.receipt: each for each in place.top_ups if each.receipt in followed}
    kept[told.receipt] = told
    return replace(place, top_ups=tuple(kept[receipt] for receipt in sorted(kept)))


def _tokens(conn: Connection, account_id: int, top_up: str) -> list[IssuedToken]:
    """The tokens of a top-up in the order of issue, as the letters of its mark stand."""
    found = top_ups.tokens(conn, account_id, before_id=None, limit=PAGE)
    return sorted((each for each in found if each.top_up == top_up), key=lambda each: each.id)
