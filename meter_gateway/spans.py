"""Spans of the loops: one for a commit or a round, with counts, never one for a reading."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode, Tracer


def gateway_tracer() -> Tracer:
    """Makes spans that go nowhere unless the process has set up a provider (prepaid.traces)."""
    return trace.get_tracer("prepaid.gateway")


@contextmanager
def counting(tracer: Tracer, name: str) -> Iterator[Span]:
    """A span over what is done inside; an exception marks it as failed and goes on.

    What the exception says may hold the number of a meter, or the server's address: its type alone
    is told.
    """
    with tracer.start_as_current_span(
        name, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except Exception as error:
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(StatusCode.ERROR)
            raise
