"""One span around every request; it names a route, never an account, and quotes no error."""

from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.edge import UNMATCHED, WHOLE, route_of

# A caller may write any word in the place of a method, and it would go on to the collector.
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
# Of the caller's headers only `traceparent` and `tracestate` are read: no baggage.
_CALLER = TraceContextTextMapPropagator()


class RequestSpans:
    """Around `Edge`, so that the line that this logs of a request carries the span's ids.

    A stream's span is as long as the stream. Without a tracer provider nothing is recorded.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tracer = trace.get_tracer("prepaid.api")
        # Without a provider there is nobody to give spans to. It is set before the first request:
        # to ask for it looks through the environment each time.
        self._untold = isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._untold or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # What is sent whole passes no `send` that could be noted.
        scope.get("extensions", {}).pop(WHOLE, None)
        known = scope["method"] in METHODS
        name = scope["method"] if known else "HTTP"
        span = self._tracer.start_span(
            name,
            context=_CALLER.extract(Headers(scope=scope)),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": name if known else "_OTHER"},
        )

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                span.set_attribute("http.response.status_code", status)
                # A refusal is the caller's matter; only a failure of ours is an error.
                if status >= 500:
                    span.set_attribute("error.type", str(status))
                    span.set_status(StatusCode.ERROR)
            await send(message)

        # What an exception says may name an account: its type alone is told.
        with trace.use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            try:
                await self._app(scope, receive, send_and_note)
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(StatusCode.ERROR)
                raise
            finally:
                route = route_of(scope)
                if route != UNMATCHED:
                    span.update_name(f"{name} {route}")
                    span.set_attribute("http.route", route)
