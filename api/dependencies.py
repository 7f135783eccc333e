"""What routes ask for, as Annotated aliases: the surroundings, a connection, the caller, a page."""

import asyncio
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Depends, Header, Path, Query, Request
from fastapi.concurrency import contextmanager_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, BeforeValidator

from api.edge import Metrics
from api.errors import Forbidden, TooManyRequests, Unauthorized
from api.module_watch import ModuleWatch
from api.pace import Pace
from api.paying import NO_PAYMENTS, Payments
from api.settings import ApiSettings, Partner
from api.signatures import Envelope, Signers
from api.streams import Streams
from schemas.contacts import typed_digits
from store import customer_sessions, idempotency, operators, reads
from store.contacts import ONLINE, Actor
from store.errors import NotFound, Unavailable
from store.pool import WAIT_S, Connection, Pool, borrow
from store.reads import Account, Act, Principal, Role
from store.terms import TermsCache
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
    pace: Pace
    streams: Streams
    # Told when a code was queued, so that a deliverer in this process need not wait.
    code_queued: Callable[[], None]
    payments: Payments = NO_PAYMENTS
    terms: TermsCache = field(default_factory=TermsCache)
    module_watch: ModuleWatch = field(init=False)
    # Requests that may hold a connection at once: as many as the pool has.
    turns: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "turns", asyncio.Semaphore(self.pool.max_size))
        watch = ModuleWatch(self.security_module, self.wall_s)
        object.__setattr__(self, "module_watch", watch)

    def wall_ms(self) -> int:
        """Real time: sessions, second factors and bounds on tries go by it."""
        return int(self.wall_s() * 1000)


def surroundings(request: Request) -> Surroundings:
    found = request.app.state.surroundings
    assert isinstance(found, Surroundings), "create_app puts it there"
    return found


Around = Annotated[Surroundings, Depends(surroundings)]


async def connection(around: Around) -> AsyncIterator[Connection]:
    """A connection of the pool. Who has one goes on in threads, so that nobody may wait for one in
    a thread: else the waiting take the threads of those for whom they wait.
    """
    try:
        await asyncio.wait_for(around.turns.acquire(), WAIT_S)
    except TimeoutError:
        raise Unavailable("every connection is in use") from None
    try:
        async with contextmanager_in_threadpool(borrow(around.pool)) as conn:
            yield conn
    finally:
        around.turns.release()


# Given back before the answer is sent: a slow reader must not keep a connection.
Database = Annotated[Connection, Depends(connection, scope="function")]

access_key = HTTPBearer(
    auto_error=False,
    scheme_name="access_key",
    description="An access key of this system, or the key of a session.",
)


def principal(
    request: Request,
    conn: Database,
    around: Around,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(access_key)],
) -> Principal:
    """Who calls, by the access key or the session; found once. Errors: Unauthorized."""
    known = getattr(request.state, "principal", None)
    if isinstance(known, Principal):
        return known
    if given is None or not given.credentials:
        raise Unauthorized(
            "access_key_missing", "Send the header Authorization: Bearer and your access key."
        )
    found = None
    if len(given.credentials) <= ACCESS_KEY_MAX:
        found = reads.principal_of_key(conn, digest_of(given.credentials), around.wall_ms())
    if found is None:
        raise Unauthorized(
            "access_key_unknown",
            "This access key is not known or its session has ended: sign in, or ask for a new one.",
        )
    _name_caller(request, around, caller_name(found))
    if found.session_id is not None:
        customer_sessions.touch(conn, found.session_id, found.seen_ms, around.wall_ms())
    request.state.principal = found
    return found


def digest_of(credential: str) -> bytes:
    """What is kept of an access key or the key of a session."""
    return hashlib.sha256(credential.encode()).digest()


def caller_name(caller: Principal) -> str:
    """A caller as logs and bounds know him: by name or number, never by phone."""
    if caller.is_operator:
        return f"operator:{caller.name}"
    if caller.person_id is not None:
        return f"person:{caller.person_id}"
    return f"customer:{caller.customer_id}"


def _name_caller(request: Request, around: Surroundings, caller: str) -> None:
    request.state.caller = caller
    wait_s = around.pace.of_caller(caller)
    if wait_s is not None:
        raise TooManyRequests(wait_s)


Authenticated = Annotated[Principal, Depends(principal)]
OPERATOR_ROLES: tuple[Role, ...] = operators.ROLES
# Who may read an STS token: its digits are worth what was paid for them.
DIGITS_ROLES: frozenset[Role] = frozenset({"customer", "desk", "supervisor", "admin"})


class Allowed:
    """Who may call a route; every route declares it, and docs/roles.md is made from it.

    `everywhere`: what belongs to no one centre asks for an operator of every centre. Elsewhere the
    routes look at `centres` of the caller, and what lies outside looks like what does not exist.
    """

    def __init__(self, *roles: Role, everywhere: bool = False) -> None:
        self.roles = frozenset(roles)
        self.everywhere = everywhere

    def __call__(self, caller: Authenticated) -> Principal:
        """Errors: Forbidden `role_refused`, `scope_refused`."""
        if caller.role not in self.roles:
            raise Forbidden(
                "role_refused",
                f"This is for {', '.join(sorted(self.roles))}: you are {caller.role}.",
            )
        if self.everywhere and caller.centres is not None:
            raise Forbidden(
                "scope_refused", "This concerns every centre: ask an operator who has them all."
            )
        return caller


def principal_briefly(
    request: Request,
    around: Around,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(access_key)],
) -> Principal:
    """As principal, without keeping a connection for the length of the request."""
    known = getattr(request.state, "principal", None)
    if isinstance(known, Principal):
        return known
    with borrow(around.pool) as conn:
        return principal(request, conn, around, given)


class AllowedBriefly(Allowed):
    """As Allowed, for a route that waits for somebody outside."""

    def __call__(self, caller: Annotated[Principal, Depends(principal_briefly)]) -> Principal:
        return super().__call__(caller)


def name_of(caller: Principal) -> str:
    """An operator's name, as the audit log keeps it."""
    assert caller.name is not None, "a route for operators admits nobody else"
    return caller.name


def named(caller: Principal) -> str:
    """Who asks, as the audit log keeps it: an operator's name, `customer:ID` or `person:ID`."""
    return caller.name or caller_name(caller)


def actor_of(caller: Principal, place: str | None = None, reason: str | None = None) -> Actor:
    """Who does something to a customer's contacts or accounts; `place`: a centre's code. `reason`:
    why an operator does.
    """
    if caller.is_operator:
        return Actor(name_of(caller), is_operator=True, place=place or "desk", reason=reason)
    return Actor(caller_name(caller), is_operator=False, place=ONLINE)


def demand_fresh(caller: Principal, wall_ms: int) -> None:
    """For what a stolen telephone must not do: a session has to be new. Errors: Forbidden
    `sign_in_again`.
    """
    if caller.session_id is not None and wall_ms - caller.began_ms > customer_sessions.FRESH_MS:
        raise Forbidden(
            "sign_in_again",
            "Sign in again with a new code, then send this once more within a quarter of an hour.",
        )


def anyone() -> None:
    """Declares that a route is open to all: health, and the doors to sign in."""


Open = Depends(anyone)
Caller = Annotated[Principal, Depends(Allowed("customer", *OPERATOR_ROLES))]
Operator = Annotated[Principal, Depends(Allowed(*OPERATOR_ROLES))]


def account_for(*roles: Role, act: Act = "see") -> Callable[..., Account]:
    """A dependency: the account in the path, for these roles; an operator sees those of his
    centres, a customer those that he may do this with. Errors: NotFound; as Allowed.
    """

    def account_of_caller(
        conn: Database,
        caller: Annotated[Principal, Depends(Allowed(*roles))],
        account: Annotated[str, Path(max_length=64, pattern=r"^[^\x00-\x1f]+$")],
    ) -> Account:
        return reads.account_seen(conn, typed_digits(account), caller, act)

    return account_of_caller


# Who may see an account and with it its balance; api.plain_balances asks the same of a caller.
BALANCE_ROLES: tuple[Role, ...] = ("customer", *OPERATOR_ROLES)
OwnAccount = Annotated[Account, Depends(account_for(*BALANCE_ROLES))]
# Whose holder may act on it: himself, and who serves him at a desk.
ServedAccount = Annotated[Account, Depends(account_for("customer", "desk", "supervisor", "admin"))]
# Who may pay for it, also one who may not see it: what is answered tells nothing of its use.
PayableAccount = Annotated[Account, Depends(account_for("customer", *OPERATOR_ROLES, act="pay"))]
# Whose holder decides who else has a part in it.
ManagedAccount = Annotated[
    Account, Depends(account_for("customer", "desk", "supervisor", "admin", act="manage"))
]
AccountWithDigits = Annotated[Account, Depends(account_for(*DIGITS_ROLES))]


@dataclass(frozen=True, slots=True)
class OnceOnly:
    """A request that takes effect once: the caller's key, and a digest of what is asked for."""

    key: str
    sha256: bytes


async def once_only(
    request: Request,
    key: Annotated[
        str,
        Header(
            alias="Idempotency-Key",
            max_length=64,
            pattern=r"^[!-~]+$",
            description="Your own, for each thing that you want done: a repeat is given the "
            "first answer.",
        ),
    ],
) -> OnceOnly:
    body = await request.body()
    # Other blanks or another order of keys are the same request; what is no JSON, or nested deeper
    # than any request of the contract, is refused later.
    with suppress(orjson.JSONDecodeError, orjson.JSONEncodeError):
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    asked = b"\0".join((request.method.encode(), request.url.path.encode(), body))
    return OnceOnly(key, hashlib.sha256(asked).digest())


Once = Annotated[OnceOnly, Depends(once_only)]


def once_in_secret(
    once: Once, given: Annotated[HTTPAuthorizationCredentials | None, Depends(access_key)]
) -> OnceOnly:
    """As once_only, of a body with a few secret digits: a bare digest would give them away to
    whoever tries all. It is keyed with what the caller signs in with, which nobody keeps: a repeat
    after another sign-in is another request.
    """
    secret = b"" if given is None else given.credentials.encode()
    return OnceOnly(once.key, hmac.digest(secret, once.sha256, "sha256"))


OnceInSecret = Annotated[OnceOnly, Depends(once_in_secret)]
_Answered = TypeVar("_Answered", bound=BaseModel)


def answer_once(
    conn: Connection,
    caller: Principal,
    once: OnceOnly,
    now_ms: int,
    work: Callable[[], _Answered],
    form: type[_Answered],
) -> _Answered:
    """The first answer of `work` under the caller's key, in one transaction with its effect."""

    def answer() -> Mapping[str, Any]:
        return work().model_dump(mode="json")

    if caller.operator_id is not None:
        kept = idempotency.once(conn, caller.operator_id, once.key, once.sha256, now_ms, answer)
    else:
        kept = idempotency.once_of_customer(
            conn, caller_name(caller), once.key, once.sha256, now_ms, answer
        )
    return form.model_validate(kept)


def _signature_header(name: str, meaning: str) -> Any:
    # Not required here: what is missing is answered 401, like a signature that does not match.
    return Header(alias=f"webhook-{name}", description=meaning)


async def signed_by(
    request: Request,
    around: Around,
    code: Annotated[
        str | None, _signature_header("partner", "Your partner code; the key says it, too.")
    ] = None,
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
    """The partner that signed the raw body, found once for a request. Errors: Unauthorized."""
    known = getattr(request.state, "partner", None)
    if isinstance(known, Partner):
        return known
    envelope = Envelope(code, message_id, timestamp, signature)
    envelope.check(around.wall_s())
    partner = around.signers.verify(envelope, await request.body(), around.wall_s())
    _name_caller(request, around, f"partner:{partner.code}")
    request.state.partner = partner
    return partner


Signed = Annotated[Partner, Depends(signed_by)]

_ROW_ID = re.compile(r"[1-9][0-9]{0,18}")


def _row_id(value: object) -> int:
    """Errors: NotFound: what is no number of a row is the number of none."""
    if not isinstance(value, str) or _ROW_ID.fullmatch(value) is None or int(value) > ROW_MAX:
        raise NotFound("The object")
    return int(value)


# The number of a row in a path.
ROW_MAX = 2**63 - 1
RowId = Annotated[int, Path(ge=1, le=ROW_MAX), BeforeValidator(_row_id)]

# Why, where a request has no body to say it in.
ReasonText = Annotated[
    str | None,
    Query(max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$", description="Why, for the audit log."),
]
CentreFilter = Annotated[
    str | None,
    Query(max_length=64, pattern=r"^[!-~]+$", description="A centre's code: what is there alone."),
]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="At most this many items.")]
Cursor = Annotated[
    str | None,
    Query(
        max_length=128, pattern=r"^[!-~]+$", description="next_cursor of the page before; opaque."
    ),
]
