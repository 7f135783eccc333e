"""What happens to an account, as it happens: server-sent events that resume where a reader was."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Request

from api import answers
from api.answers import Answer, Instant, Money, TokenAnswer
from api.dependencies import (
    DIGITS_ROLES,
    AccountWithDigits,
    Allowed,
    Around,
    caller_name,
    digest_of,
)
from api.streams import EventStream
from schemas.quantities import format_instant
from schemas.wire import Relay
from store import account_events, reads
from store.account_events import (
    BalanceMoved,
    Event,
    Happened,
    Page,
    Place,
    ReadingTaken,
    SupplyMoved,
    TopUpMoved,
)
from store.errors import NotFound
from store.pool import Connection, borrow
from store.reads import Account, Principal
from store.top_ups import TopUpState

router = APIRouter(prefix="/v1/accounts", tags=["customers"])

EventName = Literal["balance", "reading", "supply", "top_up", "token"]


class BalanceEvent(Answer):
    """The balance after a ledger entry; without `entry` the balance as it stands."""

    account: str
    balance: Money
    as_of: Instant
    entry: str | None
    kind: str | None
    at: Instant | None
    amount: Money | None
    energy_wh: int | None


class ReadingEvent(Answer):
    account: str
    meter: str
    at: Instant
    wh: int


class SupplyEvent(Answer):
    """`state` as decided, `reported` the relay in the meter's own word."""

    account: str
    state: Literal["connected", "protected", "disconnected"]
    reported: Relay | None
    at: Instant | None


class TopUpEvent(Answer):
    """A state that a top-up reached; the whole of it is at `/top-ups/{id}`."""

    account: str
    id: str
    receipt_number: str
    amount: Money
    energy_wh: int
    state: TopUpState
    at: Instant


class TokenEvent(TokenAnswer):
    account: str


@router.get("/{account}/events", status_code=200, response_class=EventStream, response_model=None)
async def stream_events(
    request: Request,
    around: Around,
    caller: Annotated[Principal, Depends(Allowed(*DIGITS_ROLES))],
    account: AccountWithDigits,
    last_event_id: Annotated[
        str | None,
        Header(max_length=400, description="The id of the last event that was received."),
    ] = None,
) -> EventStream:
    """Server-sent events `balance`, `reading`, `supply`, `top_up` and `token`, from what is
    committed. Without Last-Event-ID, or with one that is none of this account's, it begins with how
    everything stands; with it, with what happened since: nothing is left out, nothing comes twice.
    It ends with the session.
    """
    place = None
    if last_event_id is not None:
        place = account_events.parse_place(last_event_id, account.id)
    # The same that `principal` took.
    digest = digest_of(request.headers["authorization"].split(" ", 1)[1].strip())

    def look(place: Place | None) -> Page | None:
        with borrow(around.pool) as conn:
            if not _may(conn, digest, around.wall_ms(), account.number):
                return None
            return account_events.since(conn, account.id, place)

    stream = around.streams.admit(caller_name(caller), account.id, place)
    return EventStream(
        around.streams.told(stream, look, lambda event: _written(account, event)),
        lambda: around.streams.leave(stream),
    )


def _may(conn: Connection, digest: bytes, wall_ms: int, number: str) -> bool:
    """Whether the credential still works, and may still see the account."""
    caller = reads.principal_of_key(conn, digest, wall_ms)
    if caller is None or caller.role not in DIGITS_ROLES:
        return False
    try:
        reads.account_seen(conn, number, caller)
    except NotFound:
        return False
    return True


def _written(account: Account, event: Event) -> bytes:
    """One event as the stream has it: our ids and JSON hold no line break."""
    name, form = _form(account, event.happened)
    return f"event: {name}\nid: {event.place}\ndata: {form.model_dump_json()}\n\n".encode()


def _form(account: Account, happened: Happened) -> tuple[EventName, Answer]:
    of, currency = account.number, account.currency
    if isinstance(happened, BalanceMoved):
        return "balance", _balance(account, happened)
    if isinstance(happened, ReadingTaken):
        at = format_instant(happened.at_ms)
        return "reading", ReadingEvent(account=of, meter=happened.meter, at=at, wh=happened.wh)
    if isinstance(happened, SupplyMoved):
        form = {"account": of, "state": happened.state, "reported": happened.reported}
        at_ms = answers.instant(happened.at_ms)
        return "supply", SupplyEvent.model_validate(form | {"at": at_ms})
    if isinstance(happened, TopUpMoved):
        top_up = happened.top_up
        return "top_up", TopUpEvent(
            account=of,
            id=top_up.id,
            receipt_number=str(top_up.receipt_number),
            amount=answers.money(top_up.amount_micro, currency),
            energy_wh=top_up.energy_wh,
            state=happened.state,
            at=format_instant(happened.at_ms),
        )
    token = answers.token_answer(happened.token).model_dump()
    return "token", TokenEvent.model_validate(token | {"account": of})


def _balance(account: Account, moved: BalanceMoved) -> BalanceEvent:
    currency = account.currency
    amount = moved.amount_micro
    return BalanceEvent(
        account=account.number,
        balance=answers.money(moved.balance_micro, currency),
        as_of=format_instant(moved.recorded_ms),
        entry=None if moved.entry is None else str(moved.entry),
        kind=moved.kind,
        at=answers.instant(moved.at_ms),
        amount=None if amount is None else answers.money(amount, currency),
        energy_wh=moved.energy_wh,
    )
