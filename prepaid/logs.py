"""Structured logs on standard error; keys, tokens and phone numbers never reach them."""

import re
import sys
from collections.abc import MutableMapping

import structlog

# 20 digits in a row, in blocks or not, are an STS token.
_TOKEN = re.compile(r"\b(?:\d{4}[ -]?){4}\d{4}\b")
_SECRET_KEYS = re.compile(
    r"key|secret|passphrase|password|passcode|authorization|signature|digits", re.I
)
_URL_PASSWORD = re.compile(r"(\w+://[^:/@\s]+:)[^@\s]+@")
_PHONE = re.compile(r"\+?\d{6,}(\d{2})\b")


def redact(_: object, __: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """Take secrets out of one log event, by the name of the field and by the form of the value."""
    for name, value in event.items():
        if name != "event" and _SECRET_KEYS.search(name):
            event[name] = "[redacted]"
        elif name in {"phone", "msisdn"} and isinstance(value, str):
            event[name] = _PHONE.sub(r"…\1", value)
        elif isinstance(value, str):
            event[name] = _URL_PASSWORD.sub(r"\1…@", _TOKEN.sub("[token]", value))
    return event


def configure(*, as_json: bool, level: str = "info") -> None:
    """JSON lines for programs, aligned text for people."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer()
            if as_json
            else structlog.dev.ConsoleRenderer(colors=False, sort_keys=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
