"""What another tariff version would have cost: real consumption, the production engine, no writes.

Each account of the tariff is rated twice from one stored position on the same stored facts: with
the terms that it has, and with the proposed version in force in the window. A window begins and
ends at local midnights, where segments are cut anyway, so each posting lies on one side of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date

from psycopg import Connection

from credit_engine.days import midnight_ms
from credit_engine.engine import advance
from credit_engine.outcome import Posting
from credit_engine.tariff import parse_tariff
from credit_engine.terms import Tariff, TariffVersion, Terms
from store import registry, tariffs
from store.errors import Conflict
from store.facts import ACCEPTED, stored_facts
from store.pool import snapshot
from store.settlement import position_before, read_account
from store.sql import query
from store.terms import TermsCache

# Accounts fetched at a time; each is rated in a snapshot of its own.
PAGE = 500


@dataclass(frozen=True, slots=True)
class Impact:
    """What an account used in the window, and its charges with taxes under both, in µ."""

    account: str
    energy_wh: int
    old_micro: int
    new_micro: int

    @property
    def difference_micro(self) -> int:
        return self.new_micro - self.old_micro


@dataclass(frozen=True, slots=True)
class Simulation:
    """A proposed version on a window of the past. `accounts`: how many the tariff prices."""

    tariff: int
    currency: str
    proposed: TariffVersion
    from_day: date
    to_day: date
    from_ms: int
    to_ms: int
    accounts: int


def prepare(
    conn: Connection,
    code: str,
    version: Mapping[str, object],
    from_day: date,
    to_day: date,
    now_ms: int,
) -> Simulation:
    """Read and check a proposal; its `valid_from`, if any, is set to `from_day`.

    `to_day` is excluded. Errors: NotFound; CreditError bad_input; Conflict `window_refused` (it
    ends before it begins, or in the future).
    """
    if from_day >= to_day:
        raise Conflict("window_refused", "let --from lie before --to, which is excluded")
    tariff = tariffs.find(conn, code)
    form = registry.tariff_form(conn, tariff)
    dated = {**version, "valid_from": from_day.isoformat()}
    parsed = parse_tariff({**form, "tariff": {"versions": [dated]}})
    to_ms = midnight_ms(parsed.zone, to_day)
    if to_ms > now_ms:
        raise Conflict("window_refused", "the window is of real consumption: let it end by today")
    of = {"tariff": tariff, "day": from_day}
    row = conn.execute(query("count_accounts_of_tariff"), of).fetchone()
    assert row is not None, "a count always comes"
    return Simulation(
        tariff=tariff,
        currency=parsed.currency,
        proposed=parsed.versions[0],
        from_day=from_day,
        to_day=to_day,
        from_ms=midnight_ms(parsed.zone, from_day),
        to_ms=to_ms,
        accounts=row[0],
    )


def simulate(conn: Connection, simulation: Simulation) -> Iterator[Impact]:
    """Account by account, those that the tariff prices on the first day of the window."""
    known = TermsCache()
    # Accounts of one series of versions share one series with the proposal, and its days.
    proposed: dict[Tariff, Tariff] = {}
    after = 0
    while True:
        of = {
            "tariff": simulation.tariff,
            "day": simulation.from_day,
            "after": after,
            "limit": PAGE,
        }
        page = conn.execute(query("accounts_of_tariff"), of).fetchall()
        for account_id, number in page:
            with snapshot(conn):
                yield _of_account(conn, known, proposed, simulation, account_id, number)
        if len(page) < PAGE:
            return
        after = page[-1][0]


def with_proposal(tariff: Tariff, simulation: Simulation) -> Tariff:
    """The tariff with the proposed version instead of its own in the window and after it."""
    kept = [each for each in tariff.versions if each.valid_from < simulation.from_day]
    return Tariff(
        zone=tariff.zone,
        currency=tariff.currency,
        holidays=tariff.holidays,
        versions=(*kept, simulation.proposed),
    )


def _of_account(
    conn: Connection,
    known: TermsCache,
    proposed: dict[Tariff, Tariff],
    simulation: Simulation,
    account_id: int,
    number: str,
) -> Impact:
    state = read_account(conn, account_id)
    assert state is not None, "an account has its state from its opening on"
    agreed = known.get(conn, account_id, state.terms_revision)
    start = position_before(conn, state, simulation.from_ms)
    facts, known_readings = stored_facts(conn, {account_id: start.at_ms})[account_id]
    # Up to the reading that ends the window's last interval: a part of it lies in the window.
    until_ms = min(
        (
            at_ms
            for (_, at_ms), verdict in known_readings.items()
            if at_ms >= simulation.to_ms and verdict == ACCEPTED
        ),
        default=simulation.to_ms,
    )
    other = proposed.get(agreed.tariff)
    if other is None:
        other = proposed[agreed.tariff] = with_proposal(agreed.tariff, simulation)
    old = advance(agreed, start, facts, until_ms).postings
    new = advance(_on(agreed, other), start, facts, until_ms).postings
    _expect_charged(conn, simulation, account_id, number, old)
    return Impact(
        account=number,
        energy_wh=sum(each.energy_wh for each in _in_window(old, simulation)),
        old_micro=_cost(old, simulation),
        new_micro=_cost(new, simulation),
    )


def _expect_charged(
    conn: Connection,
    simulation: Simulation,
    account_id: int,
    number: str,
    postings: tuple[Posting, ...],
) -> None:
    """What the facts give under today's terms was charged, or they are not all here.

    Energy only: it is posted with its readings, a standing charge when its midnight is settled.
    """
    given_micro = _cost(tuple(each for each in postings if each.kind == "energy"), simulation)
    of = {"account": account_id, "from_ms": simulation.from_ms, "to_ms": simulation.to_ms}
    row = conn.execute(query("charged_between"), of).fetchone()
    assert row is not None, "a sum always comes"
    if row[0] != given_micro:
        raise Conflict(
            "readings_missing",
            f"account {number} was charged {row[0]} µ and its stored readings give {given_micro}: "
            "they were dropped by retention; simulate a window that is still stored",
        )


def _on(terms: Terms, tariff: Tariff) -> Terms:
    return replace(terms, tariff=tariff)


def _in_window(postings: tuple[Posting, ...], simulation: Simulation) -> Iterator[Posting]:
    """Energy of segments that end in `(from, to]`, charges at instants of `[from, to)`."""
    for posting in postings:
        if posting.kind == "energy":
            if simulation.from_ms < posting.at_ms <= simulation.to_ms:
                yield posting
        elif posting.kind == "standing" and (
            simulation.from_ms <= posting.at_ms < simulation.to_ms
        ):
            yield posting


def _cost(postings: tuple[Posting, ...], simulation: Simulation) -> int:
    """What the customer was debited, taxes that are not included with it."""
    return -sum(
        amount
        for posting in _in_window(postings, simulation)
        for account, amount in posting.legs
        if account == "customer"
    )
