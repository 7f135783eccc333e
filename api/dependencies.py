"""What routes ask for, as Annotated aliases: the surroundings, a connection, the caller, a page."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.edge import Metrics
from api.errors import Forbidden, Unauthorized
from api.settings import ApiSettings, Partner
from api.signatures import Envelope, Signers
from store import reads
from store.pool import Connection, Pool, borrow
from store.reads import Account, Principal
from store.settlement import TermsCache
from tokens.security_module import SecurityModule

# Of a list: a screen's worth, and what a program may ask for.
PAGE_DEFAULT = 50
PAGE_MAX = 500
# A key of ours has 43 characters; a longer text is none, and is not hashed.
ACCESS_KEY_MAX = 128


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What one application was made with; there is no state outside it."""

    settings: ApiSettings
    pool: Pool
    security_module: SecurityModule
    # The system's clock, which may be a demonstration's; signatures are judged by real time.
    now_ms: Callable[[], int]
    wall_s: Callable[[], float]
    signers: Signers
    metrics: Metrics
    terms: TermsCache = field(default_factory=TermsCache)


def surroundings(request: Request) -> Surroundings:
    found = request.app.state.surroundings
    assert isinstance(found, Surroundings), "create_app puts it there"
    return found


Around = Annotated[Surroundings, Depends(surroundings)]


def connection(around: Around) -> Iterator[Connection]:
    with borrow(around.pool) as conn:
        yield conn


# Given back before the answer is sent: a slow reader must not keep a connection.
Database = Annotated[Connection, Depends(connection, scope="function")]

_access_key = HTTPBearer(
    auto_error=False, scheme_name="access_key", description="An access key of this system."
)


def principal(
    request: Request,
    conn: Database,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_access_key)],
) -> Principal:
    """Who calls, by the access key. Errors: Unauthorized."""
    if given is None or not given.credentials:
        raise Unauthorized(
            "access_key_missing", "Send the header Authorization: Bearer and your access key."
        )
    found = None
    if len(given.credentials) <= ACCESS_KEY_MAX:
        digest = hashlib.sha256(given.credentials.encode()).digest()
        found = reads.principal_of_key(conn, digest)
    if found is None:
        raise Unauthorized("access_key_unknown", "This access key is not known: ask for a new one.")
    request.state.caller = (
        "operator" if found.customer_id is None else f"customer:{found.customer_id}"
    )
    return found


Caller = Annotated[Principal, Depends(principal)]


def operator(caller: Caller) -> Principal:
    """Errors: Forbidden `role_refused` for customers."""
    if caller.role != "operator":
        raise Forbidden("role_refused", "This is for operators: use an operator's access key.")
    return caller


Operator = Annotated[Principal, Depends(operator)]


def account_of_caller(
    conn: Database,
    caller: Caller,
    account: Annotated[str, Path(max_length=64, pattern=r"^[^\x00-\x1f]+$")],
) -> Account:
    """The account in the path, if it is the caller's; an operator sees each. Errors: NotFound."""
    return reads.account(conn, account, caller.customer_id)


OwnAccount = Annotated[Account, Depends(account_of_caller)]


def _signature_header(name: str, meaning: str) -> Any:
    # Not required here: what is missing is answered 401, like a signature that does not match.
    return Header(alias=f"webhook-{name}", description=meaning)


async def signed_by(
    request: Request,
    around: Around,
    code: Annotated[str | None, _signature_header("partner", "Your partner code.")] = None,
    message_id: Annotated[str | None, _signature_header("id", "Of this request.")] = None,
    timestamp: Annotated[
        str | None, _signature_header("timestamp", "Seconds since 1970, within 5 minutes.")
    ] = None,
    signature: Annotated[
        str | None,
        _signature_header(
            "signature",
            "Standard Webhooks: v1, and the base64 of HMAC-SHA-256 over "
            "webhook-id.webhook-timestamp.body; several are separated by blanks.",
        ),
    ] = None,
) -> Partner:
    """The partner that signed the raw body. Errors: Unauthorized."""
    envelope = Envelope(code, message_id, timestamp, signature)
    partner = around.signers.verify(envelope, await request.body(), around.wall_s())
    request.state.caller = f"partner:{partner.code}"
    return partner


Signed = Annotated[Partner, Depends(signed_by)]

Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="At most this many items.")]
Cursor = Annotated[
    str | None,
    Query(
        max_length=64, pattern=r"^[!-~]+$", description="next_cursor of the page before; opaque."
    ),
]
