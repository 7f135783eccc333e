"""OpenTelemetry traces, where the standard environment variables ask for them (ADR 0026)."""

import os

from opentelemetry import trace

from schemas.errors import DomainError

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def set_up(service_name: str) -> None:
    """Send this process's spans to the collector that the environment names; without one, nothing.

    `service_name` is how the process calls itself where OTEL_SERVICE_NAME says nothing. The SDK
    reads all other variables. As the process ends, what still waits is sent.

    Errors: DomainError `traces_not_installed`.
    """
    if not _asked_for():
        return
    try:
        # An extra: who wants no traces does without the SDK, and without the time it takes to load.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - an extra
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import (  # noqa: PLC0415 - an extra
            SERVICE_NAME,
            OTELResourceDetector,
            Resource,
        )
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra
    except ImportError:
        raise DomainError(
            "traces_not_installed",
            f"{' or '.join(ENDPOINT_VARIABLES)} asks for traces, and what sends them is not "
            "installed: install prepaid with its extra `traces`, or unset the variable.",
        ) from None
    # What the environment says of the process comes last, so that it wins.
    resource = Resource.create({SERVICE_NAME: service_name}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=True)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _asked_for() -> bool:
    """Whether an endpoint is named, and neither the SDK nor its traces are switched off."""
    if _value("OTEL_SDK_DISABLED") == "true" or _value("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(_value(name) for name in ENDPOINT_VARIABLES)


def _value(variable: str) -> str:
    """Empty means unset, as the specification has it."""
    return os.environ.get(variable, "").strip().lower()
