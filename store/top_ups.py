"""What became of payments: top-ups with each state's time, tokens with what the meter said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg import Connection

from credit_engine.days import cell_at, day_at
from credit_engine.outcome import Status
from credit_engine.quote import Quote, amount_for, quote
from credit_engine.rating import share_of_top_up
from credit_engine.terms import Terms
from schemas.commands import TOKEN_SUCCESSES
from schemas.errors import DomainError
from store.errors import NotFound
from store.pool import snapshot
from store.quotes import Basis, basis_of
from store.reads import terms_of
from store.settlement import look
from store.sql import query
from store.terms import TermsCache

# Of cash: a quote for an energy asks for whole hundredths of the currency unit.
PAYABLE_STEP_MICRO = 10_000
# A quote is of its moment; this long it is worth showing.
QUOTE_LIFE_MS = 15 * 60 * 1000
# Beyond a customer's use of a century; above it a field was mistaken for another.
MAX_ENERGY_WH = 10**9

TopUpState = Literal[
    "received",
    "credited",
    "token_issued",
    "delivered",
    "accepted",
    "on_supply",
    "rejected",
    "reversed",
]
TokenState = Literal["issued", "delivered", "accepted", "rejected", "replaced"]


@dataclass(frozen=True, slots=True)
class TopUp:
    """A payment that became credit; `lines` is the quote of that instant, as recorded."""

    id: str
    account: str
    meter: str
    currency: str
    channel: str
    partner_txn_id: str
    amount_micro: int
    paid_ms: int
    credited_ms: int
    receipt_number: int
    energy_wh: int
    lines: Sequence[Mapping[str, object]]
    token_issued_ms: int | None
    delivered_ms: int | None
    accepted_ms: int | None
    on_supply_ms: int | None
    rejected_ms: int | None
    reversed_ms: int | None
    tokens: Sequence[str]

    def states(self) -> list[tuple[TopUpState, int]]:
        """Every state reached, each with its time, in the order of the contract."""
        times: dict[TopUpState, int | None] = {
            # Money is credited in the transaction that receives it.
            "received": self.credited_ms,
            "credited": self.credited_ms,
            "token_issued": self.token_issued_ms,
            "delivered": self.delivered_ms,
            "accepted": self.accepted_ms,
            "on_supply": self.on_supply_ms,
            "rejected": self.rejected_ms,
            "reversed": self.reversed_ms,
        }
        return [(state, at_ms) for state, at_ms in times.items() if at_ms is not None]

    @property
    def state(self) -> TopUpState:
        """The state of now. A meter that was never cut reports `on_supply` before it has taken the
        token: then the token's own progress is what is still awaited.
        """
        awaited = self.token_issued_ms is not None and self.accepted_ms is None
        reached: list[TopUpState] = [
            state for state, _ in self.states() if not (state == "on_supply" and awaited)
        ]
        return reached[-1]


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """An STS token; `amount` in its subclass's unit, `result` as IEC 62055-41 names it."""

    id: int
    meter: str
    top_up: str
    ordinal: int
    digits: str
    token_class: int
    subclass: int
    amount: int
    issued_ms: int
    command_state: str | None
    result: str | None
    answered_ms: int | None
    replaced: bool

    @property
    def state(self) -> TokenState:
        """Where the token is: only the meter's own word makes it accepted or rejected."""
        if self.replaced and self.result not in TOKEN_SUCCESSES:
            return "replaced"
        if self.result is not None:
            return "accepted" if self.result in TOKEN_SUCCESSES else "rejected"
        return (
            "issued"
            if self.command_state in {None, "queued", "expired", "superseded"}
            else "delivered"
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """A quote, what it follows from, and until when its price and position are worth showing."""

    quote: Quote
    status: Status
    valid_until_ms: int
    basis: Basis


def top_ups(conn: Connection, account_id: int, *, before_id: str | None, limit: int) -> list[TopUp]:
    """Top-ups newest first; one more than `limit` when there is a next page."""
    of = {"account": account_id, "before": before_id, "top_ups": None, "limit": limit + 1}
    return [TopUp(*row) for row in conn.execute(query("top_ups_of_account"), of)]


def top_up(conn: Connection, account_id: int, top_up_id: str) -> TopUp:
    """One top-up of an account. Errors: NotFound."""
    found = top_ups_by_id(conn, account_id, [top_up_id])
    if not found:
        raise NotFound("The top-up")
    return found[0]


def top_ups_by_id(conn: Connection, account_id: int, ids: Sequence[str]) -> list[TopUp]:
    """Those of these top-ups that an account has, newest first."""
    of = {"account": account_id, "before": None, "top_ups": list(ids), "limit": len(ids)}
    return [TopUp(*row) for row in conn.execute(query("top_ups_of_account"), of)]


def top_up_by_payment(conn: Connection, channel: str, partner_txn_id: str) -> TopUp:
    """The top-up of a channel's own payment. Errors: NotFound."""
    of = {"channel": channel, "partner_txn_id": partner_txn_id}
    row = conn.execute(query("top_up_by_payment"), of).fetchone()
    if row is None:
        raise NotFound("The payment")
    return TopUp(*row)


def is_taken(conn: Connection, channel: str, partner_txn_id: str) -> bool:
    """Whether a channel's payment of this number was taken before, credited or held."""
    of = {"channel": channel, "partner_txn_id": partner_txn_id}
    return any(
        conn.execute(query(name), of).fetchone() is not None
        for name in ("top_up_of_payment", "suspect_of_payment")
    )


def tokens(
    conn: Connection, account_id: int, *, before_id: int | None, limit: int
) -> list[IssuedToken]:
    """Tokens newest first; one more than `limit` when there is a next page."""
    of = {"account": account_id, "before": before_id, "limit": limit + 1}
    return [IssuedToken(*row) for row in conn.execute(query("tokens_of_account"), of)]


def offer(
    conn: Connection,
    terms: TermsCache,
    account_id: int,
    now_ms: int,
    *,
    amount_micro: int | None = None,
    energy_wh: int | None = None,
) -> Offer:
    """What an amount buys now, or the least payable amount that buys an energy (rating.md 9).

    Exactly one of the two. Errors: NotFound; CreditError no_tariff, free_energy; DomainError
    `energy_refused` (more than a meter could ever count).
    """
    with snapshot(conn):
        state, agreed = terms_of(conn, terms, account_id)
        outcome = look(conn, terms, state, now_ms)
        at_ms = outcome.status.at_ms
        if amount_micro is None:
            assert energy_wh is not None, "one of the two is given"
            if energy_wh > MAX_ENERGY_WH:
                raise DomainError("energy_refused", f"ask for at most {MAX_ENERGY_WH} Wh at once")
            least = amount_for(agreed, outcome.totals, at_ms, energy_wh)
            amount_micro = -(-least // PAYABLE_STEP_MICRO) * PAYABLE_STEP_MICRO
        return Offer(
            quote(agreed, outcome.totals, at_ms, amount_micro),
            outcome.status,
            _valid_until(agreed, at_ms),
            basis_of(state, agreed, outcome),
        )


def _valid_until(agreed: Terms, at_ms: int) -> int:
    """Not beyond the tariff's cell: after it another band, block position or version prices."""
    return min(at_ms + QUOTE_LIFE_MS, cell_at(agreed.tariff, at_ms).end_ms)


def debt_share(conn: Connection, terms: TermsCache, account_id: int, now_ms: int) -> int | None:
    """The part per million of a payment that debt takes now; None where it takes nothing, as there
    is none, or the month's cap is used up.
    """
    with snapshot(conn):
        state, agreed = terms_of(conn, terms, account_id)
        outcome = look(conn, terms, state, now_ms)
    month = day_at(agreed.tariff, outcome.status.at_ms).month
    # Of one unit of the currency any share is more than nothing, while there is one.
    taken = share_of_top_up(agreed, outcome.totals, month, 1_000_000)
    return agreed.debt.share_ppm if taken > 0 else None
