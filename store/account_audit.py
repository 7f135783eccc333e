"""The laws of one account: its ledger rows against themselves, against the registers, and against
the engine's rating of all its facts.

The first two share nothing with the engine but the accepted readings.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from psycopg import Connection

from credit_engine.engine import advance
from credit_engine.facts import Exchange, Fact, Reading
from credit_engine.outcome import Outcome
from credit_engine.position import GENESIS_MS, Position, genesis
from schemas.quantities import format_instant, format_micro
from store.facts import ACCEPTED, Place, installations, stored_facts
from store.ledger import ledger_codes
from store.settlement import NEVER_MS, AccountState, has_tail, read_account
from store.sql import query
from store.terms import TermsCache

# Each law with the things that it is checked on.
LAWS = {
    "transactions_sum_to_zero": "transactions",
    "balances_equal_entries": "accounts",
    "running_balances_unbroken": "transactions",
    "debts_equal_entries": "accounts",
    "corrections_point_home": "corrections",
    "no_interval_charged_twice": "energy segments",
    "no_interval_missing": "intervals between readings",
    "ledger_equals_rerating": "postings",
    "states_equal_rerating": "accounts",
    "checkpoints_equal_rerating": "stored positions",
    "verdicts_equal_rejudging": "readings",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a law is broken, what the law expects there, and what was found."""

    where: str
    expected: str
    found: str

    def of(self, owner: str) -> "Finding":
        return replace(self, where=f"{owner} {self.where}".rstrip())


class Row(NamedTuple):
    """A ledger row as stored."""

    id: int
    key: str
    correction: int
    kind: str
    from_ms: int | None
    at_ms: int
    energy_wh: int
    legs: Sequence[int]
    amounts: Sequence[int]
    customer_micro: int
    balance_micro: int
    corrects: int | None


@dataclass(slots=True)
class _Net:
    """What the rows of one key come to."""

    kind: str
    from_ms: int | None
    at_ms: int
    energy_wh: int = 0
    legs: dict[str, int] = field(default_factory=dict)

    def content(self) -> tuple[int, dict[str, int]]:
        return self.energy_wh, {code: amount for code, amount in self.legs.items() if amount}


@dataclass(slots=True)
class Audited:
    """How many things of an account each law was checked on, and where it is broken."""

    checked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LAWS, 0))
    findings: list[tuple[str, Finding]] = field(default_factory=list)

    def see(self, law: str, count: int = 1) -> None:
        self.checked[law] += count

    def expect(self, law: str, where: str, expected: object, found: object) -> None:
        """Equal, or a finding."""
        if expected != found:
            self.findings.append((law, Finding(where, str(expected), str(found))))


def audit_account(
    conn: Connection, terms: TermsCache, account_id: int, kept_from_ms: int | None
) -> Audited:
    """Every law of `LAWS` on one account. `conn` is in a transaction that sees one snapshot."""
    audited = Audited()
    codes = ledger_codes(conn)
    of = {"account": account_id}
    rows = [Row(*row) for row in conn.execute(query("audited_rows"), of)]
    _check_sums(audited, rows, codes)
    _check_corrections(audited, rows)
    nets = _nets(rows, codes)
    _check_overlaps(audited, nets)
    audited.see("balances_equal_entries")
    audited.see("debts_equal_entries")
    audited.see("states_equal_rerating")
    try:
        # A damaged row may break anything that reads it: that is a finding, not the audit's end.
        state = read_account(conn, account_id)
        if state is None:
            audited.expect("states_equal_rerating", "state", "a row", "no row")
            return audited
        _check_folds(audited, rows, nets, state)
        if state.due_ms <= state.settled_until_ms:
            # Its terms changed a moment ago, and the clockwork has not come to it yet.
            return audited
        rating = _rate(conn, terms, state, kept_from_ms)
        _check_rerating(conn, audited, nets, rating)
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        audited.expect("ledger_equals_rerating", "facts", "facts that can be rated", detail)
    return audited


def _check_sums(audited: Audited, rows: Sequence[Row], codes: Mapping[int, str]) -> None:
    before = 0
    for row in rows:
        where = f"transaction {row.id} ({row.key})"
        audited.see("transactions_sum_to_zero")
        audited.see("running_balances_unbroken")
        law = "transactions_sum_to_zero"
        audited.expect(law, f"{where} amounts", len(row.legs), len(row.amounts))
        audited.expect(law, f"{where} sum", "0.000000", format_micro(sum(row.amounts)))
        customer = sum(
            amount
            for leg, amount in zip(row.legs, row.amounts, strict=False)
            if codes.get(leg) == "customer"
        )
        audited.expect(
            "balances_equal_entries",
            f"{where} customer's leg",
            format_micro(customer),
            format_micro(row.customer_micro),
        )
        audited.expect(
            "running_balances_unbroken",
            f"{where} balance",
            format_micro(before + row.customer_micro),
            format_micro(row.balance_micro),
        )
        before = row.balance_micro


def _check_corrections(audited: Audited, rows: Sequence[Row]) -> None:
    law = "corrections_point_home"
    firsts: dict[str, Row] = {}
    counts: dict[str, int] = {}
    for row in rows:
        where = f"transaction {row.id} ({row.key})"
        count = counts[row.key] = counts.get(row.key, -1) + 1
        audited.expect(law, f"{where} place among its corrections", count, row.correction)
        first = firsts.setdefault(row.key, row)
        if first is row:
            audited.expect(law, f"{where} corrects", None, row.corrects)
            continue
        audited.see(law)
        audited.expect(law, f"{where} corrects", first.id, row.corrects)
        same = (first.kind, first.from_ms, first.at_ms)
        audited.expect(law, f"{where} place", same, (row.kind, row.from_ms, row.at_ms))


def _nets(rows: Iterable[Row], codes: Mapping[int, str]) -> dict[str, _Net]:
    nets: dict[str, _Net] = {}
    for row in rows:
        net = nets.setdefault(row.key, _Net(row.kind, row.from_ms, row.at_ms))
        net.energy_wh += row.energy_wh
        for leg, amount in zip(row.legs, row.amounts, strict=False):
            code = codes.get(leg, f"unknown account {leg}")
            net.legs[code] = net.legs.get(code, 0) + amount
    return nets


def _segments(nets: Mapping[str, _Net]) -> list[tuple[int, int, int]]:
    """(from, to, Wh) of every segment that is charged once corrections are counted, by its end."""
    return sorted(
        (net.at_ms if net.from_ms is None else net.from_ms, net.at_ms, net.energy_wh)
        for net in nets.values()
        if net.kind == "energy" and net.content() != (0, {})
    )


def _check_overlaps(audited: Audited, nets: Mapping[str, _Net]) -> None:
    reached_ms: int | None = None
    for from_ms, to_ms, _ in _segments(nets):
        audited.see("no_interval_charged_twice")
        if reached_ms is not None and from_ms < reached_ms:
            audited.expect(
                "no_interval_charged_twice",
                f"segment to {format_instant(to_ms)}",
                f"from {format_instant(reached_ms)} on",
                f"from {format_instant(from_ms)} on",
            )
        reached_ms = to_ms if reached_ms is None else max(reached_ms, to_ms)


def _check_folds(
    audited: Audited, rows: Sequence[Row], nets: Mapping[str, _Net], state: AccountState
) -> None:
    customer = sum(net.legs.get("customer", 0) for net in nets.values())
    debt = -sum(net.legs.get("debt", 0) for net in nets.values())
    stored = format_micro(state.balance_micro)
    audited.expect("balances_equal_entries", "balance", format_micro(customer), stored)
    newest = format_micro(rows[-1].balance_micro if rows else 0)
    audited.expect("balances_equal_entries", "balance after the newest row", newest, stored)
    audited.expect(
        "debts_equal_entries", "debt", format_micro(debt), format_micro(state.debt_micro)
    )


class _Rating(NamedTuple):
    """All facts of an account since `start`, rated in one run without its stored positions."""

    state: AccountState
    start: Position
    facts: Sequence[Fact]
    known: Mapping[Place, str | None]
    outcome: Outcome


def _rate(
    conn: Connection, terms: TermsCache, state: AccountState, kept_from_ms: int | None
) -> _Rating:
    agreed = terms.get(conn, state.account_id, state.terms_revision)
    account = state.account_id
    start = genesis(agreed, installations(conn, [account])[account][0][0])
    if kept_from_ms is not None and state.opened_ms < kept_from_ms:
        start = next(
            (
                Position.from_json(stored)
                for anchor_ms, stored in _checkpoints(conn, account)
                if anchor_ms >= kept_from_ms
            ),
            state.position,
        )
    facts, known = stored_facts(conn, {account: start.at_ms})[account]
    keep_at = {anchor_ms for anchor_ms, _ in _checkpoints(conn, account)}
    outcome = advance(agreed, start, facts, state.settled_until_ms, keep_at=keep_at)
    return _Rating(state, start, facts, known, outcome)


def _checkpoints(conn: Connection, account_id: int) -> list[tuple[int, Mapping[str, object]]]:
    return conn.execute(query("audited_checkpoints"), {"account": account_id}).fetchall()


def _check_rerating(
    conn: Connection, audited: Audited, nets: Mapping[str, _Net], rating: _Rating
) -> None:
    since_ms = rating.start.at_ms
    posted = {
        key: net
        for key, net in nets.items()
        if net.at_ms > since_ms or (net.at_ms == since_ms and net.kind != "energy")
    }
    _check_postings(audited, posted, rating.outcome)
    _check_registers(audited, posted, rating)
    of_account = {"accounts": [rating.state.account_id]}
    withheld = conn.execute(query("open_withheld_cuts"), of_account).fetchone() is not None
    _check_state(audited, rating, withheld)
    _check_checkpoints(audited, _checkpoints(conn, rating.state.account_id), rating)
    for verdict in rating.outcome.verdicts:
        if isinstance(verdict.fact, Reading):
            audited.see("verdicts_equal_rejudging")
            audited.expect(
                "verdicts_equal_rejudging",
                f"meter {verdict.meter_id} at {format_instant(verdict.at_ms)}",
                verdict.judgement,
                rating.known[verdict.meter_id, verdict.at_ms],
            )


def _check_postings(audited: Audited, posted: Mapping[str, _Net], outcome: Outcome) -> None:
    law = "ledger_equals_rerating"
    ideal = {posting.key: posting for posting in outcome.postings}
    audited.see(law, len(ideal))
    for key, posting in ideal.items():
        wanted = (posting.energy_wh, dict(posting.legs))
        audited.expect(law, key, wanted, posted[key].content() if key in posted else "no posting")
    for key in posted.keys() - ideal.keys():
        audited.expect(law, key, (0, {}), posted[key].content())


def _check_registers(audited: Audited, posted: Mapping[str, _Net], rating: _Rating) -> None:
    """Between consecutive accepted readings, what is charged is what the register moved."""
    law = "no_interval_missing"
    segments = _segments(posted)
    place = 0
    for start_ms, end_ms, energy_wh in _register_moves(rating):
        audited.see(law)
        charged_wh = 0
        while place < len(segments) and segments[place][1] <= end_ms:
            from_ms, to_ms, wh = segments[place]
            if from_ms >= start_ms:
                charged_wh += wh
            else:
                audited.expect(
                    law,
                    f"segment to {format_instant(to_ms)}",
                    f"from {format_instant(start_ms)} on",
                    f"from {format_instant(from_ms)} on",
                )
            place += 1
        audited.expect(
            law,
            f"{format_instant(start_ms)} to {format_instant(end_ms)}",
            f"{energy_wh} Wh",
            f"{charged_wh} Wh",
        )
    for from_ms, to_ms, wh in segments[place:]:
        audited.expect(
            law, f"{format_instant(from_ms)} to {format_instant(to_ms)}", "0 Wh", f"{wh} Wh"
        )


def _register_moves(rating: _Rating) -> Iterable[tuple[int, int, int]]:
    """(from, to, Wh) between consecutive accepted registers, by the stored verdicts."""
    values = {
        fact.at_ms: fact.wh
        for fact in rating.facts
        if isinstance(fact, Reading)
        and fact.meter_id is not None
        and rating.known[fact.meter_id, fact.at_ms] == ACCEPTED
    }
    opened = {}
    for verdict in rating.outcome.verdicts:
        if isinstance(verdict.fact, Exchange):
            opened[verdict.at_ms] = verdict.fact.meter
            # The closing value has no row of its own with a verdict.
            if verdict.judgement == ACCEPTED:
                values[verdict.at_ms] = verdict.wh
    meter = rating.start.installation
    from_ms, from_wh = rating.start.register_at_ms, rating.start.register_wh
    for at_ms in sorted(values.keys() | opened.keys()):
        if at_ms in values:
            moved = values[at_ms] - from_wh
            yield from_ms, at_ms, moved if moved >= 0 else moved + meter.modulus_wh
            from_ms, from_wh = at_ms, values[at_ms]
        if at_ms in opened:
            meter = opened[at_ms]
            from_ms, from_wh = at_ms, meter.opening_wh


def _check_state(audited: Audited, rating: _Rating, withheld: bool) -> None:
    law = "states_equal_rerating"
    state, outcome = rating.state, rating.outcome
    status = outcome.status
    readings = [fact.at_ms for fact in rating.facts if isinstance(fact, Reading)]
    next_ms = NEVER_MS if status.next_change_ms is None else status.next_change_ms
    if withheld:
        # The schedule asks the guards of a withheld cut again, sooner than anything changes.
        next_ms = min(next_ms, state.due_ms)
    pairs = {
        "balance": (format_micro(status.balance_micro), format_micro(state.balance_micro)),
        "debt": (format_micro(status.debt_outstanding_micro), format_micro(state.debt_micro)),
        "supply": (status.supply, state.supply),
        "emergency credit in use": (status.emergency_in_use, state.emergency_in_use),
        "position": (outcome.position, state.position),
        "anchor": (outcome.position.at_ms, state.anchor_ms),
        "opening": (rating.start.installation.opened_at_ms, state.opened_ms)
        if rating.start.at_ms == GENESIS_MS
        else (None, None),
        "next change": (next_ms, state.due_ms),
    }
    for name, (expected, found) in pairs.items():
        audited.expect(law, name, expected, found)
    newest_ms = max(readings, default=state.newest_reading_ms)
    if state.newest_reading_ms < newest_ms:
        audited.expect(law, "newest reading", newest_ms, state.newest_reading_ms)
    if not state.has_tail and has_tail(rating.facts, outcome):
        audited.expect(law, "facts after the anchor", True, state.has_tail)


def _check_checkpoints(
    audited: Audited, stored: Iterable[tuple[int, Mapping[str, object]]], rating: _Rating
) -> None:
    law = "checkpoints_equal_rerating"
    rated = {point.at_ms: point for point in (rating.start, *rating.outcome.checkpoints)}
    found = dict(stored)
    if rating.start.at_ms == GENESIS_MS:
        audited.expect(law, "the position of the opening", True, GENESIS_MS in found)
    for anchor_ms, form in found.items():
        if anchor_ms < rating.start.at_ms:
            continue
        audited.see(law)
        where = "opening" if anchor_ms == GENESIS_MS else format_instant(anchor_ms)
        position = Position.from_json(form)
        audited.expect(law, f"{where} anchor", anchor_ms, position.at_ms)
        audited.expect(law, where, rated.get(anchor_ms, "no position there"), position)
