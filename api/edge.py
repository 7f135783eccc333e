"""Around every request: its id, a bound on its body, safe headers, one log line, metrics."""

import re
import time
from collections.abc import Callable
from http import HTTPStatus

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BodyTooLarge, TooManyRequests, problem
from api.pace import Pace
from api.paths import WATCHED

# A caller's own id travels through the log; what could forge a line does not.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Answers are a person's money: nobody keeps or frames them, they load nothing, and no other site's
# page reads them or opens a window onto them.
SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# Who came by TLS once does not come without it for a year; over plain HTTP it means nothing.
STRICT_TRANSPORT = "max-age=31536000"
# As the wire has them.
_RAW_SAFE_HEADERS = [
    (name.lower().encode(), value.encode()) for name, value in SAFE_HEADERS.items()
]
_STRICT = (b"strict-transport-security", STRICT_TRANSPORT.encode())
_SAFE_LINES = b"".join(b"%b: %b\r\n" % each for each in _RAW_SAFE_HEADERS)
_STRICT_LINES = _SAFE_LINES + b"%b: %b\r\n" % _STRICT
_SAFE_NAMES = frozenset({_STRICT[0], *(name for name, _ in _RAW_SAFE_HEADERS)})
_REQUEST_ID_HEADER = b"x-request-id"
# Where files come, more bytes than any other request: a partner's daily file, rows of CSV.
FILES = {"PUT": "/v1/partners/recon/", "POST": "/v1/imports/"}
# In the place of the template of a path that no route has.
UNMATCHED = "unmatched"
# From a lookup of one row to the statement timeout.
LATENCY_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

# What the server offers beside ASGI's messages, among the extensions of a scope: to send an answer
# whole. It takes lines of headers and a body, and says whether it has; what is sent in messages
# is looked through header by header. Inside of `Edge` it takes the body of an answer alone.
WHOLE = "prepaid.whole"
_JSON = b"content-type: application/json\r\n"

_log = structlog.stdlib.get_logger("api")


class Metrics:
    """Requests by route and status, and how long they took."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "prepaid_api_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "prepaid_api_request_seconds",
            "Time from the request's head to the answer's end.",
            ("route",),
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        # Routes and statuses are few; to look one up by its labels takes longer than to count.
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        counter = self._counters.get((method, route, status))
        if counter is None:
            counter = self.requests.labels(method, route, str(status))
            self._counters[method, route, status] = counter
        timer = self._timers.get(route)
        if timer is None:
            timer = self._timers[route] = self.seconds.labels(route)
        counter.inc()
        timer.observe(seconds)


class Edge:
    """The outermost layer that is ours; a defect behind it becomes a problem, never a bare 500."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        body_limit: int,
        file_limit: int,
        pace: Pace,
        new_id: Callable[[], str],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._body_limit = body_limit
        self._file_limit = file_limit
        self._pace = pace
        self._new_id = new_id
        # Bound once: the logger of the module is bound anew for each line.
        self._log = _log.bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = _said(scope, _REQUEST_ID_HEADER)
        request_id = asked if _REQUEST_ID.fullmatch(asked) else self._new_id()
        state = scope.setdefault("state", {})
        # How long an answer took is a matter of the machine, not of the system's clock.
        started = time.perf_counter()
        status = 0

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _safe(message, request_id, scope["scheme"])}
            await send(message)

        whole = scope.get("extensions", {}).get(WHOLE)
        if whole is not None:

            def send_whole(body: bytes) -> bool:
                nonlocal status
                lines = _SAFE_LINES if scope["scheme"] != "https" else _STRICT_LINES
                named = b"x-request-id: %b\r\n" % request_id.encode("latin-1")
                if not whole(_JSON + named + lines, body):
                    return False
                status = HTTPStatus.OK
                return True

            scope["extensions"][WHOLE] = send_whole

        before = structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            try:
                await self._guarded(scope, receive, send_safely)
            except Exception:
                _log.exception("request_failed", route=route_of(scope), method=scope["method"])
                if status:
                    # The answer has begun: the connection must break, so that nobody trusts it.
                    raise
                state["code"] = "internal"
                await problem(
                    HTTPStatus.INTERNAL_SERVER_ERROR,
                    "internal",
                    "This is a defect of ours: name the request's id when you ask about it.",
                )(scope, receive, send_safely)
            finally:
                # It holds the request that holds it, which only the collector would find.
                scope.get("extensions", {}).pop(WHOLE, None)
                self._report(scope, state, status, time.perf_counter() - started)
        finally:
            structlog.contextvars.reset_contextvars(**before)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client is not None and scope["path"] not in WATCHED:
            wait_s = self._pace.of_address(client[0])
            if wait_s is not None:
                await _answer(TooManyRequests(wait_s), wait_s)(scope, receive, send)
                return
        declared = _said(scope, b"content-length")
        files = FILES.get(scope["method"])
        file = files is not None and scope["path"].startswith(files)
        limit = self._file_limit if file else self._body_limit
        if declared.isdigit() and int(declared) > limit:
            too_large = BodyTooLarge(limit)
            await problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, too_large.code, str(too_large))(
                scope, receive, send
            )
            return
        taken = 0

        async def receive_bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise BodyTooLarge(limit)
            return message

        if scope["method"] != "HEAD" or scope["path"] not in WATCHED:
            await self._app(scope, receive_bounded, send)
            return
        # Answered as a GET is; the server sends the head of it alone.
        asked = {**scope, "method": "GET"}
        await self._app(asked, receive_bounded, send)
        scope["route"] = asked.get("route")

    def _report(self, scope: Scope, state: dict[str, object], status: int, seconds: float) -> None:
        route = route_of(scope)
        self._metrics.count(scope["method"], route, status, seconds)
        facts = {name: state[name] for name in ("caller", "code", "cause") if name in state}
        self._log.info(
            "request_served",
            method=scope["method"],
            route=route,
            status=status,
            milliseconds=round(seconds * 1000),
            **facts,
        )


def _said(scope: Scope, wanted: bytes) -> str:
    """The first header of a name, or nothing."""
    for name, value in scope["headers"]:
        if name == wanted:
            return str(value, "latin-1")
    return ""


def _safe(message: Message, request_id: str, scheme: str) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with those that every answer has and it does not say itself."""
    said = [each for each in message.get("headers", ()) if each[0] != _REQUEST_ID_HEADER]
    names = {name for name, _ in said}
    every = _RAW_SAFE_HEADERS if scheme != "https" else [*_RAW_SAFE_HEADERS, _STRICT]
    added = every
    if not names.isdisjoint(_SAFE_NAMES):
        added = [each for each in every if each[0] not in names]
    return [*said, (_REQUEST_ID_HEADER, request_id.encode("latin-1")), *added]


def _answer(error: TooManyRequests, wait_s: int) -> ASGIApp:
    return problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        error.code,
        str(error),
        headers={"Retry-After": str(wait_s)},
    )


def route_of(scope: Scope) -> str:
    """The template of the path: paths hold account numbers, and labels must stay few."""
    return str(getattr(scope.get("route"), "path_format", UNMATCHED))
