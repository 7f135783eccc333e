"""Whether a supply that is to be cut may be cut now: the guards, asked only then.

The words of every guard go onto the decision; a cut that is withheld is a row that says since when
and by which guards, until it is made, the credit comes back, or other guards stand. Where time
alone lets a guard go, the account's schedule (`due_ms`) asks again at that instant.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from psycopg import Connection
from psycopg.types.json import Jsonb

from credit_engine.guards import CutFacts, Finding, findings
from credit_engine.protection import protection_of
from store import brakes, centres, notices, outages, supply
from store.centres import CentreSettings
from store.settlement import Settled
from store.sql import query
from store.supply import InstalledMeter

# Guards that go by what nobody tells us of: a notice that leaves the outbox, an outage that ends.
LOOKED_AFTER = frozenset({"notice", "outage"})
LOOK_AGAIN_MS = 10 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Review:
    """What the guards found about one account. `standing`: those that withhold its cut, as
    `hold:7`, `notice`; none where it is cut. `freed`: the first of those that withheld it until
    now. `due_ms`: when to ask again, at the latest.
    """

    standing: tuple[str, ...]
    guards: Mapping[str, str]
    freed: str | None
    due_ms: int | None


@dataclass(frozen=True, slots=True)
class Withheld:
    """A cut that was due and not made. `ended_ms`, `ended_by` are None while it is withheld."""

    standing: Sequence[str]
    guards: Mapping[str, str]
    from_ms: int
    ended_ms: int | None
    ended_by: str | None


@dataclass(frozen=True, slots=True)
class _Case:
    """One account that would be cut: what the guards need, and what they found."""

    settled: Settled
    meter: InstalledMeter
    rules: CentreSettings
    found: tuple[Finding, ...]
    noticed_ms: int | None


def review(
    conn: Connection,
    settled: Iterable[Settled],
    meters: Mapping[int, InstalledMeter],
    now_ms: int,
) -> dict[int, Review]:
    """Ask the guards about the accounts that would be cut now; the others are left out.

    A supply is cut by its first order: while one is desired, nothing is asked. What a guard needs
    to let go (a reading, a notice) is asked of the meter. Cuts that pass are counted by the brake.
    """
    cases = _cases(conn, settled, meters, now_ms)
    if not cases:
        return {}
    passing = Counter(
        case.meter.centre_id for case in cases if not any(each.stands for each in case.found)
    )
    settings = {case.meter.centre_id: case.rules for case in cases}
    braked = brakes.admit(conn, passing, settings, now_ms)
    accounts = [case.settled.state.account_id for case in cases]
    rows = conn.execute(query("open_withheld_cuts"), {"accounts": accounts})
    known = {account: tuple(standing) for account, standing in rows}
    reviews = {
        account: _reviewed(case, braked, known.get(account), now_ms)
        for account, case in zip(accounts, cases, strict=True)
    }
    _ask_meters(conn, cases, now_ms)
    _record(conn, reviews, known, now_ms)
    return reviews


def may_repeat(conn: Connection, settled: Settled, meter: InstalledMeter, now_ms: int) -> bool:
    """Whether a cut that was decided before may be ordered again: its guards are asked anew, and
    a brake that was pulled since holds it, too. It is not counted a second time.
    """
    if settled.state.supply != "disconnected":
        return False
    case = _case_of(conn, [(settled, meter)], now_ms)[0]
    newest = conn.execute(query("newest_brake"), {"centre": meter.centre_id}).fetchone()
    pulled = newest is not None and newest[1] == "pulled"
    return not pulled and not any(each.stands for each in case.found)


def credit_is_back(conn: Connection, accounts: Sequence[int], now_ms: int) -> None:
    """Whatever withheld the cuts of these accounts: there is none to make any more."""
    conn.execute(
        query("end_withheld_cuts"), {"accounts": list(accounts), "by": "credit", "now_ms": now_ms}
    )


def of_account(conn: Connection, account_id: int, *, limit: int) -> list[Withheld]:
    """Why an account was not cut, newest first."""
    of = {"account": account_id, "limit": limit}
    return [Withheld(*row) for row in conn.execute(query("withheld_cuts_of_account"), of)]


def _cases(
    conn: Connection,
    settled: Iterable[Settled],
    meters: Mapping[int, InstalledMeter],
    now_ms: int,
) -> list[_Case]:
    asked = []
    for each in settled:
        meter = meters.get(each.state.account_id)
        # A cut that is decided and ordered is history, whatever stands now.
        decided = each.before.decided_supply == "disconnected"
        if meter is not None and not (decided and meter.desired_relay == "open"):
            asked.append((each, meter))
    return _case_of(conn, asked, now_ms) if asked else []


def _case_of(
    conn: Connection, asked: Sequence[tuple[Settled, InstalledMeter]], now_ms: int
) -> list[_Case]:
    settings = centres.settings_of(conn, (meter.centre_id for _, meter in asked))
    dark = outages.suppressed(conn, [meter.id for _, meter in asked], now_ms)
    of = {"accounts": [each.state.account_id for each, _ in asked], "now_ms": now_ms}
    facts = {account: rest for account, *rest in conn.execute(query("cut_facts"), of)}
    cases = []
    for each, meter in asked:
        hold, hold_until_ms, payment_ms, notice_ms, noticed_ms = facts[each.state.account_id]
        protection = protection_of(each.terms.tariff, each.terms.non_disconnection)
        asks = CutFacts(
            # The anchor is the newest accepted reading, whatever was refused after it.
            read_ms=max(each.state.anchor_ms, each.state.opened_ms),
            hold=hold,
            hold_until_ms=hold_until_ms,
            payment_ms=payment_ms,
            notice_ms=notice_ms,
            outage=meter.id in dark,
            window_ms=protection.next_edge(now_ms),
        )
        rules = settings[meter.centre_id]
        found = findings(rules.cut_rules, asks, now_ms)
        cases.append(_Case(each, meter, rules, found, noticed_ms))
    return cases


def _reviewed(
    case: _Case, braked: Mapping[int, int], known: tuple[str, ...] | None, now_ms: int
) -> Review:
    standing = [_name(each) for each in case.found if each.stands]
    guards: dict[str, str] = {each.guard: each.words for each in case.found}
    brake = braked.get(case.meter.centre_id)
    if not standing:
        guards["brake"] = "free" if brake is None else f"brake {brake}"
        if brake is not None:
            standing.append(f"brake:{brake}")
    due = []
    for each in case.found:
        if each.stands and each.until_ms is not None:
            due.append(each.until_ms)
        elif each.stands and each.guard in LOOKED_AFTER:
            due.append(now_ms + LOOK_AGAIN_MS)
    # The first of them: what stands for longer is found again then.
    freed = None if standing or known is None else known[0]
    return Review(tuple(standing), guards, freed, min(due, default=None))


def _name(found: Finding) -> str:
    return found.words.replace(" ", ":") if found.guard == "hold" else found.guard


def _ask_meters(conn: Connection, cases: Sequence[_Case], now_ms: int) -> None:
    """A reading where the newest is too old, a notice where none is under way."""
    stale = [case.meter.id for case in cases if _stands(case, "reading")]
    if stale:
        rows = conn.execute(query("open_reads"), {"meters": stale})
        asked = {meter for (meter,) in rows}
        for meter in sorted(set(stale) - asked):
            supply.queue(conn, meter, "read", {}, now_ms, now_ms + supply.READ_EXPIRY_MS)
    for case in cases:
        if _stands(case, "notice") and (
            case.noticed_ms is None or now_ms - case.noticed_ms >= notices.AGAIN_MS
        ):
            notices.say(conn, case.settled.state.account_id, case.meter.id, now_ms)


def _stands(case: _Case, guard: str) -> bool:
    return any(each.stands and each.guard == guard for each in case.found)


def _record(
    conn: Connection,
    reviews: Mapping[int, Review],
    known: Mapping[int, tuple[str, ...]],
    now_ms: int,
) -> None:
    ended: dict[str, list[int]] = {"cut": [], "other_guards": []}
    for account, each in reviews.items():
        if account in known and known[account] != each.standing:
            ended["other_guards" if each.standing else "cut"].append(account)
    for by, accounts in ended.items():
        if accounts:
            conn.execute(
                query("end_withheld_cuts"), {"accounts": accounts, "by": by, "now_ms": now_ms}
            )
    for account, each in reviews.items():
        if each.standing and known.get(account) != each.standing:
            conn.execute(
                query("withhold_cut"),
                {
                    "account": account,
                    "standing": list(each.standing),
                    "guards": Jsonb(dict(each.guards)),
                    "now_ms": now_ms,
                },
            )
