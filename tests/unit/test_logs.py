"""What never reaches a log: tokens, keys, passwords and whole phone numbers."""

import json

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, use_span

from prepaid.logs import configure, name_span, redact


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("detail", "token 51043465443420856213 was sent", "token [token] was sent"),
        ("detail", "5104 3465 4434 2085 6213", "[token]"),
        ("detail", "5104-3465-4434-2085-6213", "[token]"),
        (
            "database",
            "postgresql://prepaid:hunter2@127.0.0.1/x",
            "postgresql://prepaid:…@127.0.0.1/x",
        ),
        ("vending_key", "00112233", "[redacted]"),
        ("Authorization", "Bearer abc", "[redacted]"),
        ("digits", "1", "[redacted]"),
        ("passphrase", "open", "[redacted]"),
        ("passcode", "1234", "[redacted]"),
        ("webhook_signature", "v1,x", "[redacted]"),
        ("msisdn", "+22244556677", "…77"),
        ("phone", "22244556677", "…77"),
        ("text", "from +22244556677 to 5", "from …77 to 5"),
        ("text", "mail a.sow@example.org now", "mail …@example.org now"),
        ("holder", "Aminata Sow", "A••• S•••"),
        ("one_time_code", "123456", "[redacted]"),
        ("otp", "123456", "[redacted]"),
        ("code", "code_refused", "code_refused"),
        ("meter", "37000000017", "37000000017"),
        ("event", "key_change_issued", "key_change_issued"),
    ],
)
def test_an_event_is_shown_without_its_secrets(name: str, value: str, shown: str) -> None:
    assert redact(None, "info", {name: value}) == {name: shown}


def test_numbers_stay_numbers() -> None:
    assert redact(None, "info", {"count": 7}) == {"count": 7}


def test_a_line_carries_the_ids_of_the_span_around_it_and_only_of_a_recorded_one() -> None:
    sampled = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    dropped = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test")
    with sampled.start_as_current_span("commit") as span:
        inside = name_span(None, "info", {"event": "batch_failed"})
        with dropped.start_as_current_span("unseen"):
            unseen = name_span(None, "info", {"event": "batch_failed"})
    context = span.get_span_context()
    assert inside == {
        "event": "batch_failed",
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
    }
    assert unseen == {"event": "batch_failed"}
    assert name_span(None, "info", {"event": "batch_failed"}) == {"event": "batch_failed"}


def test_lines_as_they_are_written_carry_the_ids_unmasked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # All digits, as an id may be: it must not be taken for a token or a phone.
    context = SpanContext(int("1234567890" * 3 + "12", 16), int("1234567890123456", 16), False)
    before = structlog.get_config()
    try:
        configure(as_json=True)
        with use_span(_Recorded(context)):
            structlog.get_logger().info("batch_failed", messages=3)
    finally:
        structlog.configure(**before)
    line = json.loads(capsys.readouterr().err)
    assert line["trace_id"] == "1234567890" * 3 + "12"
    assert (line["span_id"], line["messages"]) == ("1234567890123456", 3)


class _Recorded(NonRecordingSpan):
    """A span with ids of the test's choice."""

    def is_recording(self) -> bool:
        return True


def test_a_line_holds_integers_of_any_size_and_things_that_json_has_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = structlog.get_config()
    try:
        configure(as_json=True)
        structlog.get_logger().info("counted", small=2**63, large=2**64 + 1, thing={1})
    finally:
        structlog.configure(**before)
    line = json.loads(capsys.readouterr().err)
    assert (line["small"], line["large"], line["thing"]) == (2**63, 2**64 + 1, "{1}")
