"""What never reaches a log: tokens, keys, passwords and whole phone numbers."""

import pytest

from prepaid.logs import redact


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
