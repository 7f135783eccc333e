"""Operators sign in, see who they are, and sign out."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import SecretStr, StringConstraints

from api.admission import KnownFirst
from api.answers import Answer, Instant
from api.dependencies import Around, Database, Open, Operator
from api.pace import network
from api.requests import Body, Identifier
from schemas.quantities import format_instant
from store import operators
from store.operators import OperatorRole, Passed

router = APIRouter(prefix="/v1/auth", tags=["sign-in"], route_class=KnownFirst)


class SignInRequest(Body):
    """`code`: of the second factor, for operators who have one."""

    name: Identifier
    password: Annotated[SecretStr, StringConstraints(min_length=1, max_length=256)]
    code: Annotated[SecretStr, StringConstraints(min_length=6, max_length=10)] | None = None


class SessionAnswer(Answer):
    """`session` goes where an access key goes: `Authorization: Bearer`."""

    session: str
    expires_at: Instant


class OperatorAnswer(Answer):
    """`centres`: codes; None for every centre."""

    name: str
    role: OperatorRole
    centres: list[str] | None


@router.post("/operator", dependencies=[Open])
def sign_in(request: Request, conn: Database, around: Around, body: SignInRequest) -> SessionAnswer:
    """A session for the right name, password and code; one answer for whatever is wrong."""
    passed = Passed(
        name=body.name,
        password=body.password.get_secret_value(),
        code=None if body.code is None else body.code.get_secret_value(),
        address=network("" if request.client is None else request.client.host),
    )
    session = operators.sign_in(conn, passed, around.wall_ms())
    return SessionAnswer(session=session.key, expires_at=format_instant(session.expires_ms))


@router.get("/operator")
def show_operator(conn: Database, caller: Operator) -> OperatorAnswer:
    """Who the caller is, and what for."""
    assert caller.name is not None, "an operator has a name"
    found = operators.find(conn, caller.name)
    codes = None if found.centres is None else list(found.centre_codes or ())
    return OperatorAnswer(name=found.name, role=found.role, centres=codes)


@router.delete("/operator", status_code=204)
def sign_out(request: Request, conn: Database, around: Around, caller: Operator) -> None:
    """Ends the session of this request; an access key stays as it is."""
    key = request.headers["authorization"].split(" ", 1)[1].strip()
    operators.sign_out(conn, key, around.wall_ms())
