"""Structured logs on standard error; keys, codes, names and addresses never reach them."""

import json
import re
import sys
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TextIO

import orjson
import structlog
from opentelemetry import trace

# 20 digits in a row, in blocks or not, are an STS token.
_TOKEN = re.compile(r"\b(?:\d{4}[ -]?){4}\d{4}\b")
# `code` alone is the code of a refusal.
_SECRET_KEYS = re.compile(
    r"key|secret|passphrase|password|authorization|signature|digits|one_time|otp|passcode", re.I
)
_URL_PASSWORD = re.compile(r"(\w+://[^:/@\s]+:)[^@\s]+@")
_PHONE = re.compile(r"\+?\d{6,}(\d{2})\b")
# With its plus sign a number is a phone wherever it stands; an e-mail address has its sign, too.
_E164 = re.compile(r"\+\d{6,13}(\d{2})\b")
_EMAIL = re.compile(r"[^\s@<>\"'=,;:/]+@([\w-]+\.[\w.-]+)")
# All of these have, and most texts have not, an at sign or six digits, blanks and hyphens aside.
_SUSPECT = re.compile(r"@|(?:\d[ -]?){6}")
# What the processors before `redact` write themselves.
_OURS = frozenset({"level", "timestamp"})
# Fields with few values, each of them a word of ours.
_WORDS = frozenset({"event", "method", "route"})
# Fields that hold what a person is called.
_NAME_KEYS = frozenset({"holder", "customer_name", "person_name"})


def redact(_: object, __: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """Take secrets out of one log event, by the name of the field and by the form of the value."""
    for name, value in event.items():
        if name in _OURS:
            continue
        if name != "event" and _is_secret(name):
            event[name] = "[redacted]"
        elif name in {"phone", "msisdn"} and isinstance(value, str):
            event[name] = _PHONE.sub(r"…\1", value)
        elif name in _NAME_KEYS and isinstance(value, str):
            event[name] = " ".join(f"{part[0]}•••" for part in value.split())
        elif isinstance(value, str):
            event[name] = (_masked_word if name in _WORDS else _masked)(value)
    return event


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return _SECRET_KEYS.search(name) is not None


def _masked(text: str) -> str:
    """A text without tokens, passwords of addresses, phones and e-mail addresses."""
    if _SUSPECT.search(text) is None:
        return text
    text = _URL_PASSWORD.sub(r"\1…@", _TOKEN.sub("[token]", text))
    return _E164.sub(r"…\1", _EMAIL.sub(r"…@\1", text))


_masked_word = lru_cache(maxsize=1024)(_masked)


def name_span(
    _: object, __: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    """Add `trace_id` and `span_id` to a line that is written inside a recorded span."""
    span = trace.get_current_span()
    if span.is_recording():
        context = span.get_span_context()
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


@lru_cache(maxsize=4)
def _second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def stamp(_: object, __: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """Add the instant, in UTC: its second is worded once for all lines of it."""
    at_s, rest_ns = divmod(time.time_ns(), 1_000_000_000)
    event["timestamp"] = f"{_second(at_s)}.{rest_ns // 1000:06d}Z"
    return event


class _Lines:
    """A text stream that takes whole lines, each in one write: of whichever thread, none within
    another.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()

    debug = info = warning = error = critical = exception = fatal = log = msg


def _json(event: object, default: Callable[[object], object], **_: object) -> str:
    """As JSON; integers of more than 64 bits, which the quick writer refuses, the slower way."""
    try:
        return orjson.dumps(event, default=default).decode()
    except orjson.JSONEncodeError:
        return json.dumps(event, default=default)


def configure(*, as_json: bool, level: str = "info") -> None:
    """JSON lines for programs, aligned text for people."""
    lines = _Lines(sys.stderr)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.contextvars.merge_contextvars,
            name_span,
            structlog.processors.add_log_level,
            stamp,
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(serializer=_json)
            if as_json
            else structlog.dev.ConsoleRenderer(colors=False, sort_keys=False),
        ],
        logger_factory=lambda *_: lines,
    )
