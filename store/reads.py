"""What customers and operators look at: accounts, balances, consumption, ledger entries.

Every function reads one snapshot, so that an answer agrees with itself, and writes nothing. Lists
return one row more than asked for when there is a next page.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from typing import Literal

from psycopg import Connection

from credit_engine.days import HOUR_MS, local_time, midnight_ms
from credit_engine.errors import CreditError
from credit_engine.forecast import MIN_DAYS, DaysLeft, Reason, days_left, quantile
from credit_engine.outcome import Outcome, Status
from credit_engine.quote import bought_wh
from credit_engine.terms import Terms
from schemas.errors import DomainError
from store.customer_sessions import IDLE_MS
from store.errors import Conflict, NotFound
from store.forecasts import usage
from store.operators import OperatorRole
from store.pool import snapshot
from store.settlement import AccountState, look, read_account
from store.sql import like_text, query
from store.terms import TermsCache

# More slots than a screen or a year of days shows; a caller who wants more asks in parts.
MAX_SLOTS = 1000
# Two years and some: a year beside the year before.
MAX_RANGE_MS = 800 * 24 * HOUR_MS

Resolution = Literal["raw", "hour", "day", "month"]
Role = Literal["customer"] | OperatorRole
Quality = Literal["measured", "interpolated", "gap"]
# A customer's own account; one that he was given a part in; one that he may pay for and not see.
Access = Literal["owner", "holder", "payer"]
Act = Literal["manage", "see", "pay"]
MAY: Mapping[Access, tuple[Act, ...]] = {
    "owner": ("manage", "see", "pay"),
    "holder": ("see", "pay"),
    "payer": ("pay",),
}
# What a session has in place of a customer's id: of no row, and never None, which is everybody's.
NO_CUSTOMER = 0


@dataclass(frozen=True, slots=True)
class Principal:
    """Who an access key or a session stands for: a customer, or an operator by role and name.

    `centres`: whose accounts and meters an operator may see; None for every centre. `person_id`:
    of a session of a customer, whose `customer_id` is NO_CUSTOMER: a person may be several, or none
    and pay for others. An access key has the one `customer_id` that it was made for.
    """

    role: Role
    customer_id: int | None
    operator_id: int | None = None
    name: str | None = None
    centres: Sequence[int] | None = None
    person_id: int | None = None
    session_id: int | None = None
    began_ms: int = 0
    seen_ms: int = 0

    @property
    def is_operator(self) -> bool:
        return self.operator_id is not None


@dataclass(frozen=True, slots=True)
class Account:
    """A supply point as its holder sees it; `meter` is the number of the one that serves it now.

    `access`: a customer's part in it; None for operators and partners.
    """

    id: int
    number: str
    holder: str
    currency: str
    timezone: str
    meter: str | None
    access: Access | None = None


@dataclass(frozen=True, slots=True)
class Supply:
    """The meter's side: what its relay should be, what it said, and its newest accepted reading."""

    meter: str
    desired_relay: str
    reported_relay: str | None
    reported_ms: int | None
    online: bool | None
    seen_ms: int | None
    reading_ms: int | None
    reading_wh: int | None


@dataclass(frozen=True, slots=True)
class Balance:
    """`buys_wh` is None where no amount bounds the energy (its last block is free)."""

    status: Status
    buys_wh: int | None
    days_left: DaysLeft | Reason
    emergency_limit_micro: int | None
    emergency_on_request: bool
    supply: Supply | None


@dataclass(frozen=True, slots=True)
class Slot:
    """Energy and its cost (taxes on it included) in `(from_ms, to_ms]`.

    `measured`: no two readings around it are further apart than it is long. `interpolated`: they
    are, and the energy is a part of what was metered between them. `gap`: readings do not reach
    over the whole slot; what they reach is counted, None where they reach nothing of it.
    """

    from_ms: int
    to_ms: int
    wh: int | None
    cost_micro: int | None
    quality: Quality


@dataclass(frozen=True, slots=True)
class Entry:
    """One ledger transaction from the customer's side; `amount_micro` is the customer's leg."""

    id: int
    kind: str
    from_ms: int | None
    at_ms: int
    recorded_ms: int
    amount_micro: int
    balance_micro: int
    energy_wh: int
    band: str | None
    corrects: int | None


@dataclass(frozen=True, slots=True)
class OpenedEntry:
    """An entry with all its legs (ledger account, signed µ) and its explanation as recorded."""

    entry: Entry
    legs: tuple[tuple[str, int], ...]
    explanation: Mapping[str, object]
    corrected_by: tuple[int, ...]


def principal_of_key(conn: Connection, sha256: bytes, wall_ms: int) -> Principal | None:
    """Whose access key or live session has this digest; None for unknown and ended ones."""
    of = {"sha256": sha256, "wall_ms": wall_ms, "idle_ms": IDLE_MS}
    row = conn.execute(query("principal_of_key"), of).fetchone()
    return None if row is None else Principal(*row)


def accounts(
    conn: Connection,
    customer_id: int | None,
    *,
    after_id: int | None,
    limit: int,
    centres: Sequence[int] | None = None,
    search: str | None = None,
    ids: Sequence[int] | None = None,
    centre: str | None = None,
) -> list[Account]:
    """A customer's accounts in the order in which they were opened; all for `customer_id` None.

    `centres`: only those of these centres. `search`: the beginning of an account's or a meter's
    number, or a part of the holder's name. `ids`: only these. `centre`: only those of this one, by
    its code.
    """
    of = {
        "customer": customer_id,
        "ids": None if ids is None else list(ids),
        "number": None,
        "centres": None if centres is None else list(centres),
        "centre": centre,
        "like": like_text(search),
        "after": after_id,
        "limit": limit + 1,
    }
    return [Account(*row) for row in conn.execute(query("accounts_of_customer"), of)]


def account(
    conn: Connection,
    number: str,
    customer_id: int | None,
    centres: Sequence[int] | None = None,
) -> Account:
    """An account by its number. Errors: NotFound, also for that of another customer or centre."""
    of = {
        "customer": customer_id,
        "ids": None,
        "number": number,
        "centres": None if centres is None else list(centres),
        "centre": None,
        "like": None,
        "after": None,
        "limit": 1,
    }
    row = conn.execute(query("accounts_of_customer"), of).fetchone()
    if row is None:
        raise NotFound("The account")
    return Account(*row)


def ids_of_accounts(
    conn: Connection, numbers: Sequence[str], centres: Sequence[int] | None
) -> list[int]:
    """Of these numbers, the accounts that there are in these centres."""
    of = {"numbers": list(numbers), "centres": None if centres is None else list(centres)}
    return [account for (account,) in conn.execute(query("ids_of_accounts"), of)]


def accounts_seen(
    conn: Connection,
    caller: Principal,
    *,
    after_id: int | None,
    limit: int,
    search: str | None = None,
    centre: str | None = None,
) -> list[Account]:
    """The accounts that a caller has any part in, each with that part; as `accounts`."""
    if caller.person_id is None:
        return accounts(
            conn,
            caller.customer_id,
            after_id=after_id,
            limit=limit,
            centres=caller.centres,
            search=search,
            centre=centre,
        )
    parts = access_of_person(conn, caller.person_id)
    # What a payer may not see he cannot search by either.
    found = accounts(conn, None, after_id=after_id, limit=limit, ids=sorted(parts))
    return [replace(each, access=parts[each.id]) for each in found]


def account_seen(conn: Connection, number: str, caller: Principal, act: Act = "see") -> Account:
    """The account of a number for a caller who may do this with it. Errors: NotFound, also for
    one that he may only do less with.
    """
    if caller.person_id is None:
        return account(conn, number, caller.customer_id, caller.centres)
    found = account(conn, number, None)
    access = access_of_person(conn, caller.person_id).get(found.id)
    if access is None or act not in MAY[access]:
        raise NotFound("The account")
    return replace(found, access=access)


def access_of_person(conn: Connection, person_id: int) -> dict[int, Access]:
    """A person's part in each account that he has one in, the greatest where there are two."""
    parts: dict[int, Access] = {}
    for account_id, access in conn.execute(query("access_of_person"), {"person": person_id}):
        held = parts.get(account_id)
        if held is None or len(MAY[access]) > len(MAY[held]):
            parts[account_id] = access
    return parts


def account_served_by(conn: Connection, meter: str) -> Account:
    """The account that a meter serves now. Errors: NotFound."""
    row = conn.execute(query("account_served_by"), {"meter": meter}).fetchone()
    if row is None:
        raise NotFound("A meter with this number that serves an account")
    return Account(*row)


def terms_of(conn: Connection, terms: TermsCache, account_id: int) -> tuple[AccountState, Terms]:
    """An account's state and parsed terms. Errors: NotFound."""
    state = read_account(conn, account_id)
    if state is None:
        raise NotFound("The account")
    return state, terms.get(conn, account_id, state.terms_revision)


def balance(conn: Connection, terms: TermsCache, account_id: int, now_ms: int) -> Balance:
    """An account as of now, midnight charges included that no worker has posted yet."""
    with snapshot(conn):
        state, agreed = terms_of(conn, terms, account_id)
        outcome = look(conn, terms, state, now_ms)
        used = usage(conn, account_id, agreed, state)
        row = conn.execute(query("supply_of_account"), {"account": account_id}).fetchone()
    return balance_of(agreed, outcome, used.costs_micro, None if row is None else Supply(*row))


def balance_of(
    agreed: Terms, outcome: Outcome, costs_micro: Sequence[int], supply: Supply | None
) -> Balance:
    """What an account's outcome as of now means to its holder; costs are those of its last days."""
    status = outcome.status
    buys_wh = None
    try:
        # What is in the balance has paid its share of debt: all of it buys energy and taxes.
        amount_micro = max(status.balance_micro, 0)
        buys_wh = bought_wh(agreed, outcome.totals, status.at_ms, amount_micro)
    except CreditError as error:
        if error.code not in {"free_energy", "no_tariff"}:
            raise
    offer = agreed.emergency
    return Balance(
        status=status,
        buys_wh=buys_wh,
        days_left=days_left(status.balance_micro, costs_micro),
        emergency_limit_micro=None if offer is None else offer.limit_micro,
        emergency_on_request=offer is not None and offer.on_request,
        supply=supply,
    )


def usual_energy(conn: Connection, terms: TermsCache, account_id: int, days: int) -> int:
    """The energy of so many usual days: the middle one of the last two weeks, times `days`.

    Errors: Conflict `too_few_days`, `no_use`, as for the days left.
    """
    with snapshot(conn):
        state, agreed = terms_of(conn, terms, account_id)
        used = usage(conn, account_id, agreed, state)
    if len(used.energy_wh) < MIN_DAYS:
        raise Conflict(
            "too_few_days", f"ask by amount or energy: under {MIN_DAYS} days of use are known"
        )
    wh = quantile(used.energy_wh, 1, 2) * days
    if wh == 0:
        raise Conflict("no_use", "ask by amount or energy: the usual day uses nothing")
    return wh


def consumption(
    conn: Connection,
    terms: TermsCache,
    account_id: int,
    from_ms: int,
    to_ms: int,
    resolution: Resolution,
) -> list[Slot]:
    """Energy and its cost in the slots that `[from_ms, to_ms)` touches, oldest first.

    Days and months are local; `raw` slots lie between consecutive readings. Errors: DomainError
    `range_refused`: nothing between the two, too long a time or too many slots.
    """
    if not from_ms < to_ms:
        raise DomainError("range_refused", "let `from` lie before `to`")
    if to_ms - from_ms > MAX_RANGE_MS:
        raise DomainError("range_refused", "ask for at most 800 days at once")
    with snapshot(conn):
        _, agreed = terms_of(conn, terms, account_id)
        if resolution == "raw":
            points = _points(conn, account_id, from_ms, to_ms)
            edges = [at for at in points if from_ms <= at <= to_ms]
        else:
            edges = slot_edges(agreed, from_ms, to_ms, resolution)
            points = _points(conn, account_id, edges[0], edges[-1])
        if len(edges) > MAX_SLOTS + 1:
            raise DomainError(
                "range_refused",
                f"that is {len(edges) - 1} slots and {MAX_SLOTS} is the most: ask for a shorter "
                "time or a coarser resolution",
            )
        if len(edges) < 2:
            return []
        of = {"account": account_id, "edges": edges}
        sums = {
            place: (wh, micro)
            for place, wh, micro in conn.execute(query("consumption_of_slots"), of)
        }
    return [
        _slot(points, low, high, sums.get(place, (0, 0)))
        for place, (low, high) in enumerate(pairwise(edges), start=1)
    ]


def _points(conn: Connection, account_id: int, from_ms: int, to_ms: int) -> list[int]:
    of = {"account": account_id, "from_ms": from_ms, "to_ms": to_ms}
    return [at_ms for (at_ms,) in conn.execute(query("reading_points"), of)]


def _slot(points: Sequence[int], low: int, high: int, sums: tuple[int, int]) -> Slot:
    """The slot `(low, high]` with its quality, from the instants at which the register is known."""
    if not points or high <= points[0] or low >= points[-1]:
        return Slot(low, high, None, None, "gap")
    if low < points[0] or high > points[-1]:
        return Slot(low, high, *sums, "gap")
    # Only the intervals that reach over an edge can be longer than the slot.
    longest = max(_interval(points, low + 1), _interval(points, high))
    return Slot(low, high, *sums, "measured" if longest <= high - low else "interpolated")


def _interval(points: Sequence[int], at_ms: int) -> int:
    """The length of the interval between two readings that holds an instant."""
    after = bisect_left(points, at_ms)
    return points[after] - points[after - 1]


def slot_edges(
    agreed: Terms, from_ms: int, to_ms: int, resolution: Literal["hour", "day", "month"]
) -> list[int]:
    """The edges of the local hours, days or months that `[from_ms, to_ms)` touches.

    Midnights are those of the ledger: the first instant of a date in the account's zone. An hour
    lasts 60 minutes; the day on which clocks change has 23 or 25 of them.
    """
    tariff = agreed.tariff
    day = local_time(tariff.zone, from_ms).date()
    while midnight_ms(tariff.zone, day) > from_ms:
        day -= timedelta(days=1)
    if resolution == "month":
        day = day.replace(day=1)
    edges = [midnight_ms(tariff.zone, day)]
    while edges[-1] < to_ms:
        day = _next_month(day) if resolution == "month" else day + timedelta(days=1)
        next_ms = midnight_ms(tariff.zone, day)
        if resolution == "hour":
            edges.extend(range(edges[-1] + HOUR_MS, next_ms, HOUR_MS))
        edges.append(next_ms)
        # A zone that skipped a date has an empty day: it is no slot.
        if edges[-1] == edges[-2]:
            edges.pop()
    first = max(place for place, edge in enumerate(edges) if edge <= from_ms)
    last = min(place for place, edge in enumerate(edges) if edge >= to_ms)
    return edges[first : last + 1]


def _next_month(day: date) -> date:
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)


def entries(conn: Connection, account_id: int, *, before_id: int | None, limit: int) -> list[Entry]:
    """Ledger entries, newest first by the order in which they were recorded."""
    of = {"account": account_id, "before": before_id, "limit": limit + 1}
    return [Entry(*row) for row in conn.execute(query("entries_of_account"), of)]


def entry(conn: Connection, account_id: int, entry_id: int) -> OpenedEntry:
    """One entry, opened. Errors: NotFound."""
    of = {"account": account_id, "entry": entry_id}
    row = conn.execute(query("entry_of_account"), of).fetchone()
    if row is None:
        raise NotFound("The entry")
    *fields, legs, explanation, corrected_by = row
    return OpenedEntry(
        Entry(*fields),
        tuple((code, amount) for code, amount in legs or ()),
        explanation,
        tuple(corrected_by),
    )


def receipt_lines(conn: Connection, top_up: str) -> list[tuple[str, str]]:
    """(name, amount) of each line of a top-up's receipt, as recorded."""
    return conn.execute(query("lines_of_top_up"), {"top_up": top_up}).fetchall()
