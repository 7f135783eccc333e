"""Customers as people: language, contacts with consent and verification, paper, their data."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import Field, SecretStr, StringConstraints

from api import answers
from api.admission import KnownFirst
from api.answers import Answer, Instant
from api.dependencies import (
    PAGE_DEFAULT,
    Allowed,
    Around,
    CentreFilter,
    Cursor,
    Database,
    Limit,
    ReasonText,
    RowId,
    actor_of,
    demand_fresh,
)
from api.errors import Forbidden
from api.numbers import contact_address, cursor_id
from api.requests import Body, Identifier, Name
from schemas.contacts import Channel, Language
from schemas.quantities import format_instant
from store import contacts, customers, personal_data
from store.contacts import Contact, ContactEvent, EventKind
from store.customers import Customer
from store.reads import Principal

router = APIRouter(prefix="/v1/customers", tags=["customers"], route_class=KnownFirst)

# The customer himself, and who serves him.
ForCustomer = Annotated[Principal, Depends(Allowed("customer", "desk", "supervisor", "admin"))]
CustomerId = RowId
Wording = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, pattern=r"^[!-~]+$"),
    Field(description="The version of the words that the customer agreed to."),
]


class LanguageRequest(Body):
    language: Language
    reason: Name | None = None


class PaperRequest(Body):
    """`wanted`: on paper whatever the centre does."""

    wanted: bool
    reason: Name | None = None


class ContactRequest(Body):
    """`wording`: consent to be written to on this channel, by the version of its words; None: none
    given. `centre`: where an operator takes it down.
    """

    channel: Channel
    address: Annotated[str, StringConstraints(min_length=3, max_length=260)]
    wording: Wording | None = None
    centre: Identifier | None = None
    reason: Name | None = None


class ConsentRequest(Body):
    """`wording` None withdraws it."""

    wording: Wording | None
    centre: Identifier | None = None
    reason: Name | None = None


class ConfirmationRequest(Body):
    code: Annotated[SecretStr, StringConstraints(min_length=1, max_length=20)]


class DeskVerificationRequest(Body):
    """`note`: what was looked at, and by whom; no number of a document."""

    note: Name
    centre: Identifier | None = None


class ErasureRequest(Body):
    """`name`: the name too becomes a pseudonym, for somebody who is a customer no more."""

    reason: Name
    name: bool = False


class PaperAnswer(Answer):
    """`sent`: whether paper goes out now, by request or because the centre sends it to all."""

    requested: bool
    requested_at: Instant | None
    sent: bool


class CustomerAnswer(Answer):
    id: str
    name: str
    language: Language
    accounts: list[str]
    centres: list[str]
    paper: PaperAnswer


class CustomerPage(Answer):
    items: list[CustomerAnswer]
    next_cursor: str | None


class ContactAnswer(Answer):
    """`verified_at` None: it waits for its code or a desk, and the one before is used meanwhile."""

    channel: Channel
    address: str
    registered_at: Instant
    verified_at: Instant | None
    consent_at: Instant | None
    wording: str | None


class ContactList(Answer):
    items: list[ContactAnswer]


class ContactEventAnswer(Answer):
    """`by`: an operator's name, or `person:` or `customer:` with a number."""

    id: str
    channel: Channel
    kind: EventKind
    at: Instant
    by: str
    wording: str | None
    place: str | None
    note: str | None


class ContactEventPage(Answer):
    items: list[ContactEventAnswer]
    next_cursor: str | None


class CodeOnItsWayAnswer(Answer):
    detail: str = "A code is on its way to the contact."


class ErasureAnswer(Answer):
    """How many addresses are gone; what the ledger holds stays, under the customer's number."""

    customer: str
    addresses: int
    name: bool
    as_of: Instant


@router.get("")
def list_customers(
    conn: Database,
    around: Around,
    caller: ForCustomer,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    contact: Annotated[
        str | None, Query(max_length=260, description="A phone or e-mail address of now, whole.")
    ] = None,
    name: Annotated[
        str | None, Query(min_length=2, max_length=64, pattern=r"^[^\x00-\x1f]+$")
    ] = None,
    centre: CentreFilter = None,
) -> CustomerPage:
    """The customers that the caller is; an operator sees those of his centres."""
    address = None
    if contact is not None:
        channel: Channel = "email" if "@" in contact else "whatsapp"
        address = contact_address(channel, contact, around.settings.phone_plan, "?contact")
    found = customers.seen(
        conn,
        caller,
        after_id=cursor_id(cursor),
        limit=limit,
        address=address,
        name=name,
        centre=centre,
    )
    items, following = answers.page(found, limit, lambda each: str(each.id))
    return CustomerPage(items=[_customer_answer(each) for each in items], next_cursor=following)


@router.get("/{customer}")
def show_customer(conn: Database, caller: ForCustomer, customer: CustomerId) -> CustomerAnswer:
    """One customer with language, accounts and paper."""
    return _customer_answer(customers.one(conn, caller, customer))


@router.put("/{customer}/language")
def set_language(
    conn: Database, around: Around, caller: ForCustomer, customer: CustomerId, body: LanguageRequest
) -> CustomerAnswer:
    """What the customer is written to in."""
    found = customers.one(conn, caller, customer)
    by = actor_of(caller, reason=body.reason)
    customers.set_language(conn, found.id, body.language, by=by, now_ms=around.now_ms())
    return show_customer(conn, caller, customer)


@router.put("/{customer}/paper")
def request_paper(
    conn: Database, around: Around, caller: ForCustomer, customer: CustomerId, body: PaperRequest
) -> CustomerAnswer:
    """Asks for paper, or for none; where the centre still sends it to all it goes out anyway."""
    found = customers.one(conn, caller, customer)
    by = actor_of(caller, reason=body.reason)
    customers.request_paper(conn, found.id, wanted=body.wanted, by=by, now_ms=around.now_ms())
    return show_customer(conn, caller, customer)


@router.get("/{customer}/contacts")
def list_contacts(conn: Database, caller: ForCustomer, customer: CustomerId) -> ContactList:
    """How the customer is reached: what is used, and what waits to be verified."""
    found = customers.one(conn, caller, customer)
    return ContactList(
        items=[_contact_answer(each) for each in contacts.of_customer(conn, found.id)]
    )


@router.get("/{customer}/contacts/history")
def list_contact_events(
    conn: Database,
    caller: ForCustomer,
    customer: CustomerId,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> ContactEventPage:
    """What happened to the contacts, newest first, without addresses; nothing is removed."""
    found = customers.one(conn, caller, customer)
    events = contacts.history(conn, found.id, before_id=cursor_id(cursor), limit=limit)
    items, following = answers.page(events, limit, lambda each: str(each.id))
    return ContactEventPage(items=[_event_answer(each) for each in items], next_cursor=following)


@router.post("/{customer}/contacts", status_code=201)
def register_contact(
    conn: Database, around: Around, caller: ForCustomer, customer: CustomerId, body: ContactRequest
) -> ContactAnswer:
    """Takes down a contact, with consent where `wording` says to what; it waits to be verified."""
    demand_fresh(caller, around.wall_ms())
    found = customers.one(conn, caller, customer)
    address = contact_address(body.channel, body.address, around.settings.phone_plan, "/address")
    made = contacts.register(
        conn,
        found.id,
        body.channel,
        address,
        wording=body.wording,
        by=actor_of(caller, body.centre, body.reason),
        now_ms=around.now_ms(),
    )
    return _contact_answer(made)


@router.post("/{customer}/contacts/{channel}/code", status_code=202)
def send_contact_code(
    conn: Database, around: Around, caller: ForCustomer, customer: CustomerId, channel: Channel
) -> CodeOnItsWayAnswer:
    """Sends a code to the contact that waits; whoever has it says the code."""
    found = customers.one(conn, caller, customer)
    contacts.send_code(conn, found.id, channel, found.language, around.wall_ms())
    around.code_queued()
    return CodeOnItsWayAnswer()


@router.post("/{customer}/contacts/{channel}/confirmation")
def confirm_contact(
    conn: Database,
    around: Around,
    caller: ForCustomer,
    customer: CustomerId,
    channel: Channel,
    body: ConfirmationRequest,
) -> ContactAnswer:
    """The right code puts the contact into use; the one before is used no more."""
    found = customers.one(conn, caller, customer)
    verified = contacts.verify_by_code(
        conn,
        found.id,
        channel,
        body.code.get_secret_value(),
        by=actor_of(caller),
        now_ms=around.now_ms(),
        wall_ms=around.wall_ms(),
    )
    return _contact_answer(verified)


@router.post("/{customer}/contacts/{channel}/desk-verification")
def verify_contact_at_desk(
    conn: Database,
    around: Around,
    caller: Annotated[Principal, Depends(Allowed("desk", "supervisor", "admin"))],
    customer: CustomerId,
    channel: Channel,
    body: DeskVerificationRequest,
) -> ContactAnswer:
    """An operator has seen that the contact is the customer's, and says how."""
    found = customers.one(conn, caller, customer)
    verified = contacts.verify_at_desk(
        conn,
        found.id,
        channel,
        body.note,
        by=actor_of(caller, body.centre),
        now_ms=around.now_ms(),
        wall_ms=around.wall_ms(),
    )
    return _contact_answer(verified)


@router.put("/{customer}/contacts/{channel}/consent")
def set_consent(
    conn: Database,
    around: Around,
    caller: ForCustomer,
    customer: CustomerId,
    channel: Channel,
    body: ConsentRequest,
) -> ContactList:
    """Consent to be written to on a channel, or its withdrawal; codes are sent all the same."""
    found = customers.one(conn, caller, customer)
    changed = contacts.set_consent(
        conn,
        found.id,
        channel,
        body.wording,
        by=actor_of(caller, body.centre, body.reason),
        now_ms=around.now_ms(),
    )
    return ContactList(items=[_contact_answer(each) for each in changed])


@router.delete("/{customer}/contacts/{channel}", status_code=204)
def remove_contact(
    conn: Database,
    around: Around,
    caller: ForCustomer,
    customer: CustomerId,
    channel: Channel,
    reason: ReasonText = None,
) -> None:
    """The channel is used no more; whoever signed in with that phone is signed out."""
    demand_fresh(caller, around.wall_ms())
    found = customers.one(conn, caller, customer)
    contacts.remove(
        conn,
        found.id,
        channel,
        by=actor_of(caller, reason=reason),
        now_ms=around.now_ms(),
        wall_ms=around.wall_ms(),
    )


@router.get("/{customer}/export")
def export_customer(
    conn: Database, around: Around, caller: ForCustomer, customer: CustomerId
) -> dict[str, Any]:
    """All that is kept about the person, as one JSON document; ledger entries by their pages."""
    demand_fresh(caller, around.wall_ms())
    found = customers.one(conn, caller, customer)
    return personal_data.export(conn, found, by=actor_of(caller), now_ms=around.now_ms())


@router.post("/{customer}/erasure")
def erase_customer(
    conn: Database,
    around: Around,
    caller: Annotated[Principal, Depends(Allowed("supervisor", "admin"))],
    customer: CustomerId,
    body: ErasureRequest,
) -> ErasureAnswer:
    """Erases every address, and with `name` the name; what the ledger holds stays as it is."""
    found = customers.one(conn, caller, customer)
    if body.name and caller.centres is not None:
        raise Forbidden(
            "scope_refused", "A name is erased by an operator who has every centre: ask one."
        )
    erased = personal_data.erase(
        conn,
        found.id,
        name=body.name,
        reason=body.reason,
        by=actor_of(caller),
        now_ms=around.now_ms(),
        wall_ms=around.wall_ms(),
    )
    return ErasureAnswer(
        customer=str(found.id),
        addresses=erased,
        name=body.name,
        as_of=format_instant(around.now_ms()),
    )


def _customer_answer(found: Customer) -> CustomerAnswer:
    return CustomerAnswer(
        id=str(found.id),
        name=found.name,
        language=found.language,
        accounts=list(found.accounts),
        centres=list(found.centres),
        paper=PaperAnswer(
            requested=found.paper_requested_ms is not None,
            requested_at=answers.instant(found.paper_requested_ms),
            sent=found.gets_paper,
        ),
    )


def _contact_answer(contact: Contact) -> ContactAnswer:
    assert contact.address is not None, "what is not ended has its address"
    return ContactAnswer(
        channel=contact.channel,
        address=contact.address,
        registered_at=format_instant(contact.registered_ms),
        verified_at=answers.instant(contact.verified_ms),
        consent_at=answers.instant(contact.consent_ms),
        wording=contact.wording,
    )


def _event_answer(event: ContactEvent) -> ContactEventAnswer:
    return ContactEventAnswer(
        id=str(event.id),
        channel=event.channel,
        kind=event.kind,
        at=format_instant(event.at_ms),
        by=event.by,
        wording=event.wording,
        place=event.place,
        note=event.note,
    )
