"""Customers: what they have, what they used, why it cost what it cost."""

from typing import Annotated

from fastapi import APIRouter, Query

from api import answers
from api.admission import KnownFirst
from api.answers import (
    AccountPage,
    BalanceAnswer,
    ConsumptionAnswer,
    EmergencyRequestAnswer,
    EntryPage,
    OpenedEntryAnswer,
    QuoteAnswer,
    TokenPage,
)
from api.dependencies import (
    PAGE_DEFAULT,
    AccountWithDigits,
    Around,
    Caller,
    CentreFilter,
    Cursor,
    Database,
    Limit,
    OwnAccount,
    PayableAccount,
    RowId,
    ServedAccount,
    name_of,
)
from api.errors import Forbidden, RequestRefused
from api.numbers import cursor_id, instant_ms, positive_micro
from api.requests import QuoteRequest, ReasonRequest, Typed
from credit_engine.days import DAY_MS
from schemas.contacts import typed_digits
from schemas.errors import DomainError
from schemas.quantities import format_instant
from store import reads, top_ups, vending
from store.reads import Resolution

router = APIRouter(prefix="/v1/accounts", tags=["customers"], route_class=KnownFirst)

# What a screen shows first when nobody says from when.
DEFAULT_RANGE_MS: dict[Resolution, int] = {
    # Of a meter that reads each minute, within the slots of an answer.
    "raw": DAY_MS // 2,
    "hour": 2 * DAY_MS,
    "day": 31 * DAY_MS,
    "month": 365 * DAY_MS,
}
InstantText = Annotated[str | None, Query(max_length=40, description="RFC 3339 instant.")]


@router.get("")
def list_accounts(
    conn: Database,
    caller: Caller,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    search: Annotated[
        str | None,
        Query(
            min_length=2,
            max_length=64,
            pattern=r"^[^\x00-\x1f]+$",
            description="The beginning of an account's or a meter's number, or a part of a name.",
        ),
        Typed,
    ] = None,
    centre: CentreFilter = None,
) -> AccountPage:
    """The accounts that the caller holds or may pay for; an operator sees each of his centres."""
    found = reads.accounts_seen(
        conn,
        caller,
        after_id=cursor_id(cursor),
        limit=limit,
        search=None if search is None else typed_digits(search),
        centre=centre,
    )
    items, following = answers.page(found, limit, lambda account: str(account.id))
    return AccountPage(
        items=[answers.account_answer(account) for account in items], next_cursor=following
    )


@router.get("/{account}/balance")
def show_balance(conn: Database, around: Around, account: OwnAccount) -> BalanceAnswer:
    """Balance, the energy it buys now, days left, supply, emergency credit, debt, last reading."""
    found = reads.balance(conn, around.terms, account.id, around.now_ms())
    return answers.balance_answer(account, found)


@router.get("/{account}/consumption")
def show_consumption(
    conn: Database,
    around: Around,
    account: OwnAccount,
    resolution: Resolution = "day",
    from_: Annotated[InstantText, Query(alias="from")] = None,
    to: InstantText = None,
) -> ConsumptionAnswer:
    """Energy and cost per slot of local time, with each slot's quality; gaps are explicit."""
    now_ms = around.now_ms()
    to_ms = now_ms if to is None else instant_ms(to, "?to")
    from_ms = to_ms - DEFAULT_RANGE_MS[resolution] if from_ is None else instant_ms(from_, "?from")
    try:
        slots = reads.consumption(conn, around.terms, account.id, from_ms, to_ms, resolution)
    except DomainError as error:
        if error.code != "range_refused":
            raise
        raise RequestRefused(error.code, str(error), "?from") from None
    return ConsumptionAnswer(
        account=account.number,
        currency=account.currency,
        timezone=account.timezone,
        resolution=resolution,
        as_of=format_instant(now_ms),
        slots=[answers.slot_answer(slot) for slot in slots],
    )


@router.get("/{account}/entries")
def list_entries(
    conn: Database, account: OwnAccount, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
) -> EntryPage:
    """Ledger entries, newest first by the order in which they were recorded."""
    found = reads.entries(conn, account.id, before_id=cursor_id(cursor), limit=limit)
    items, following = answers.page(found, limit, lambda entry: str(entry.id))
    return EntryPage(
        items=[answers.entry_answer(entry, account.currency) for entry in items],
        next_cursor=following,
    )


@router.get("/{account}/entries/{entry}")
def show_entry(conn: Database, account: OwnAccount, entry: RowId) -> OpenedEntryAnswer:
    """One entry with its legs and its explanation."""
    return answers.opened_entry_answer(reads.entry(conn, account.id, entry), account.currency)


@router.post("/{account}/quotes")
def ask_quote(
    conn: Database, around: Around, account: PayableAccount, body: QuoteRequest
) -> QuoteAnswer:
    """What an amount buys now, or what an energy or days of the usual use cost now."""
    if account.access == "payer" and body.days is not None:
        raise Forbidden(
            "usual_use_hidden", "Ask by amount or energy: the usual use is the holder's to know."
        )
    now_ms = around.now_ms()
    amount_micro = None
    energy_wh = body.energy_wh
    if body.amount is not None:
        amount_micro = positive_micro(body.amount, "/amount")
    elif body.days is not None:
        energy_wh = reads.usual_energy(conn, around.terms, account.id, body.days)
    found = top_ups.offer(
        conn, around.terms, account.id, now_ms, amount_micro=amount_micro, energy_wh=energy_wh
    )
    return answers.quote_answer(account, found)


@router.get("/{account}/tokens")
def list_tokens(
    conn: Database,
    around: Around,
    account: AccountWithDigits,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> TokenPage:
    """STS tokens newest first, each with its state at the meter."""
    found = top_ups.tokens(conn, account.id, before_id=cursor_id(cursor), limit=limit)
    items, following = answers.page(found, limit, lambda token: str(token.id))
    return TokenPage(
        items=[answers.token_answer(token) for token in items],
        as_of=format_instant(around.now_ms()),
        next_cursor=following,
    )


@router.post("/{account}/emergency-credit")
def request_emergency_credit(
    conn: Database,
    around: Around,
    caller: Caller,
    account: ServedAccount,
    body: ReasonRequest | None = None,
) -> EmergencyRequestAnswer:
    """Asks for emergency credit where it is on request; asking twice changes nothing."""
    now_ms = around.now_ms()
    in_use = vending.request_emergency_credit(
        conn,
        around.terms,
        account.id,
        now_ms,
        operator=name_of(caller) if caller.is_operator else None,
        reason=None if body is None else body.reason,
    )
    return EmergencyRequestAnswer(
        account=account.number, in_use=in_use, as_of=format_instant(now_ms)
    )
