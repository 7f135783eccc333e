"""Customers sign in with a code to their phone, see where they are signed in, and sign out."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import SecretStr, StringConstraints

from api.admission import KnownFirst
from api.answers import Answer, Instant
from api.dependencies import Allowed, Around, Database, Open
from api.errors import Forbidden
from api.numbers import phone_number
from api.pace import network
from api.requests import Body, Number
from api.routes.sign_in import SessionAnswer
from schemas.quantities import format_instant
from store import customer_sessions
from store.reads import Principal

router = APIRouter(prefix="/v1/auth", tags=["sign-in"], route_class=KnownFirst)

CustomerCaller = Annotated[Principal, Depends(Allowed("customer"))]


class CodeRequest(Body):
    """`phone` as typed: national, with + or with 00."""

    phone: Number


class CodeSentAnswer(Answer):
    """The same for every number: whether anybody has it is not told."""

    detail: str = "If this number is registered, a code is on its way to it."


class CodeSignInRequest(Body):
    phone: Number
    code: Annotated[SecretStr, StringConstraints(min_length=1, max_length=20)]


class CustomerSessionAnswer(Answer):
    """`id`: `current` names this one in the path, too."""

    id: str
    began_at: Instant
    seen_at: Instant
    expires_at: Instant
    current: bool


class CustomerSessionList(Answer):
    items: list[CustomerSessionAnswer]


@router.post("/otp", status_code=202, dependencies=[Open])
def ask_code(request: Request, conn: Database, around: Around, body: CodeRequest) -> CodeSentAnswer:
    """Sends a code to a phone that is registered; the answer is the same for every number."""
    phone = phone_number(body.phone, around.settings.phone_plan, "/phone")
    customer_sessions.ask_code(conn, phone, _network(request), around.wall_ms())
    around.code_queued()
    return CodeSentAnswer()


@router.post("/otp/verify", dependencies=[Open])
def sign_in_with_code(
    request: Request, conn: Database, around: Around, body: CodeSignInRequest
) -> SessionAnswer:
    """A session for the code, once; one answer for whatever is wrong."""
    phone = phone_number(body.phone, around.settings.phone_plan, "/phone")
    session = customer_sessions.sign_in(
        conn, phone, body.code.get_secret_value(), _network(request), around.wall_ms()
    )
    return SessionAnswer(session=session.key, expires_at=format_instant(session.expires_ms))


@router.get("/sessions")
def list_sessions(conn: Database, around: Around, caller: CustomerCaller) -> CustomerSessionList:
    """Where this person is signed in, newest first."""
    found = customer_sessions.listed(conn, _person(caller), around.wall_ms())
    return CustomerSessionList(
        items=[
            CustomerSessionAnswer(
                id=str(each.id),
                began_at=format_instant(each.began_ms),
                seen_at=format_instant(each.seen_ms),
                expires_at=format_instant(each.expires_ms),
                current=each.id == caller.session_id,
            )
            for each in found
        ]
    )


@router.delete("/sessions", status_code=204)
def end_sessions(conn: Database, around: Around, caller: CustomerCaller) -> None:
    """Signs this person out everywhere, here too."""
    customer_sessions.end_all(conn, _person(caller), around.wall_ms())


@router.delete("/sessions/{session}", status_code=204)
def end_session(
    conn: Database,
    around: Around,
    caller: CustomerCaller,
    session: Annotated[str, Path(pattern=r"^(current|[1-9][0-9]{0,17})$")],
) -> None:
    """Ends one session; `current` is this one."""
    person = _person(caller)
    number = caller.session_id if session == "current" else int(session)
    assert number is not None, "a person calls with a session"
    customer_sessions.end(conn, person, number, around.wall_ms())


def _person(caller: Principal) -> int:
    if caller.person_id is None:
        raise Forbidden("no_session", "An access key has no sessions: sign in with a code for one.")
    return caller.person_id


def _network(request: Request) -> str:
    return network("" if request.client is None else request.client.host)
