"""Refusals as `application/problem+json`: one table says which status each kind has.

ApiError
├── RequestRefused  a field that the contract refuses, with its pointer
├── Unauthorized    no access key, an unknown one, or a signature that does not match
├── Forbidden       a known caller who may not do this
├── BodyTooLarge
├── TooManyRequests
└── TooManyStreams  more event streams at once than one caller, or this process, may have
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from api.paths import WATCHED, methods_at
from credit_engine.errors import CreditError
from schemas.errors import DomainError, Unproven
from store.customer_sessions import CodeRefused
from store.errors import (
    Conflict,
    MigrationError,
    NotFound,
    StoreError,
    TooManyAttempts,
    Unavailable,
)
from store.operators import SignInRefused
from tokens.errors import LimitReached, SecurityModuleAway, TokenError

# How long a caller waits before trying again when the database is away.
RETRY_AFTER_S = 5
# A request with a thousand faults is answered with the first of them.
MAX_FAULTS = 20


class ApiError(DomainError):
    """Root of the refusals that only this edge knows."""


class RequestRefused(ApiError):  # noqa: N818 - a state of the world, as in HTTP
    """A field that the contract refuses; `pointer` is its RFC 6901 place in the body."""

    def __init__(self, code: str, message: str, pointer: str) -> None:
        super().__init__(code, message)
        self.pointer = pointer


class Unauthorized(ApiError):  # noqa: N818 - a state of the world, as in HTTP
    """The caller is not known."""


class Forbidden(ApiError):  # noqa: N818 - a state of the world, as in HTTP
    """The caller is known and may not do this."""


class BodyTooLarge(ApiError):  # noqa: N818 - a state of the world, as in HTTP
    """More bytes than any request of the contract has."""

    def __init__(self, limit: int) -> None:
        super().__init__("body_too_large", f"Send at most {limit} bytes.")


class TooManyRequests(ApiError):  # noqa: N818 - a state of the world, as in HTTP
    """More than one may send in a minute; `retry_after_s` from now there is room again."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("too_many_requests", f"Wait {retry_after_s} seconds and send it again.")
        self.retry_after_s = retry_after_s


class TooManyStreams(ApiError):  # noqa: N818 - a state of the world, as in HTTP
    """As many streams are open as may be; `retry_after_s` from now one may have ended."""

    def __init__(self, retry_after_s: int, whose: str) -> None:
        super().__init__(
            "too_many_streams", f"{whose}: close one, or try again in {retry_after_s} seconds."
        )
        self.retry_after_s = retry_after_s


# The nearest class in the order of inheritance decides.
STATUS: Mapping[type[DomainError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    TooManyAttempts: HTTPStatus.TOO_MANY_REQUESTS,
    SignInRefused: HTTPStatus.UNAUTHORIZED,
    CodeRefused: HTTPStatus.UNAUTHORIZED,
    MigrationError: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreError: HTTPStatus.INTERNAL_SERVER_ERROR,
    CreditError: HTTPStatus.CONFLICT,
    TokenError: HTTPStatus.CONFLICT,
    LimitReached: HTTPStatus.TOO_MANY_REQUESTS,
    SecurityModuleAway: HTTPStatus.SERVICE_UNAVAILABLE,
    RequestRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    Unproven: HTTPStatus.UNAUTHORIZED,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    TooManyStreams: HTTPStatus.TOO_MANY_REQUESTS,
    DomainError: HTTPStatus.UNPROCESSABLE_ENTITY,
}


def status_of(error: DomainError) -> HTTPStatus:
    """The status of a refusal."""
    return next(STATUS[each] for each in type(error).__mro__ if each in STATUS)


class Fault(BaseModel):
    pointer: str
    detail: str


class Problem(BaseModel):
    """RFC 9457, with a stable `code` for programs and, for a body, the fields at fault."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[Fault] | None = None


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """One refusal as a response; `code` is stable, `detail` is for people."""
    body: dict[str, object] = {
        "type": f"urn:prepaid:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if errors:
        body["errors"] = list(errors)
    return JSONResponse(
        body, status, media_type="application/problem+json", headers=dict(headers or {})
    )


def answer_errors(app: FastAPI) -> None:
    """Every refusal of this application is a problem."""
    app.add_exception_handler(DomainError, _answer_domain_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)


def _answer_domain_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DomainError), "registered for it"
    status = status_of(error)
    request.state.code = error.code
    headers: dict[str, str] = {}
    detail = str(error)
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, LimitReached | TooManyAttempts | TooManyRequests | TooManyStreams):
        headers["Retry-After"] = str(error.retry_after_s)
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_S)
        # What the driver says names servers and users: it is for the log.
        request.state.cause = detail
        away = "security module" if isinstance(error, SecurityModuleAway) else "database"
        detail = f"The {away} is away: send the same request again."
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        request.state.cause = detail
        detail = (
            "This is a defect of ours: nothing was changed. Name the request's id when you ask."
        )
    errors = (
        [{"pointer": error.pointer, "detail": detail}] if isinstance(error, RequestRefused) else []
    )
    return problem(status, error.code, detail, errors=errors, headers=headers)


def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError), "registered for it"
    request.state.code = "invalid_request"
    faults = [
        {"pointer": pointer(fault["loc"]), "detail": str(fault["msg"])}
        for fault in jsonable_encoder(error.errors(), exclude={"ctx", "input", "url"})
    ][:MAX_FAULTS]
    places = ", ".join(fault["pointer"] or "the body" for fault in faults)
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", f"Correct {places}.", errors=faults
    )


def pointer(location: Sequence[object]) -> str:
    """The RFC 6901 pointer of a place in the body; `?name` and `{name}` outside it."""
    where, *path = location
    if where == "body":
        # A JSON syntax error has an offset where a field would be.
        fields = [part for part in path if not (len(path) == 1 and isinstance(part, int))]
        return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in fields)
    name = ".".join(map(str, path))
    return {"query": f"?{name}", "path": f"{{{name}}}"}.get(str(where), name)


def _answer_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException), "registered for it"
    if isinstance(error.__cause__, DomainError):
        # Raised while the framework read the body, which it reports as its own failure.
        return _answer_domain_error(request, error.__cause__)
    code = {404: "not_found", 405: "method_not_allowed", 400: "bad_request"}.get(
        error.status_code, "refused"
    )
    request.state.code = code
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = methods_at(request.app, request.url.path)
        headers["Allow"] = ", ".join([*allowed, "HEAD"] if request.url.path in WATCHED else allowed)
    return problem(error.status_code, code, str(error.detail), headers=headers)
