import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from standardwebhooks import Webhook

from api.errors import Unauthorized
from api.settings import Partner
from api.signatures import Envelope, Signers, sign

KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
SHARED = "whsec_" + base64.b64encode(bytes(range(2, 34))).decode()
AT = 1_790_000_000
SIGNERS = Signers([Partner("bank", "A bank", (SecretStr(KEY), SecretStr(OTHER)))])


@given(st.text("abc123_", min_size=1), st.integers(0, 2**33), st.text())
def test_signatures_are_those_of_the_reference_library(message_id: str, at: int, body: str) -> None:
    wanted = Webhook(KEY).sign(message_id, datetime.fromtimestamp(at, UTC), body)
    assert sign(KEY, message_id, at, body.encode()) == wanted


@given(st.binary(max_size=200), st.sampled_from([KEY, OTHER]))
def test_what_a_partners_key_signed_is_taken_among_other_signatures(body: bytes, key: str) -> None:
    signature = f"v2,AAAA v1,AAAA v1,**** {sign(key, 'm', AT, body)}"
    assert SIGNERS.verify(Envelope("bank", "m", str(AT), signature), body, AT).code == "bank"


@given(st.binary(max_size=60), st.data())
def test_any_changed_byte_is_refused(body: bytes, data: st.DataObject) -> None:
    signed = f"m.{AT}.".encode() + body
    place = data.draw(st.integers(0, len(signed) - 1))
    changed = bytearray(signed)
    changed[place] ^= data.draw(st.integers(1, 255))
    head, tail = (
        bytes(changed[: len(signed) - len(body)]),
        bytes(changed[len(signed) - len(body) :]),
    )
    parts = head.decode("latin-1").split(".")
    if len(parts) != 3:
        return
    envelope = Envelope("bank", parts[0], parts[1], sign(KEY, "m", AT, body))
    with pytest.raises(Unauthorized):
        SIGNERS.verify(envelope, tail, AT)


@pytest.mark.parametrize("timestamp", ["", "-1", "1e9", "١٧٩٠٠٠٠٠٠٠", "9" * 13, str(AT + 301)])
def test_a_timestamp_that_is_no_time_of_now_is_refused(timestamp: str) -> None:
    with pytest.raises(Unauthorized) as refusal:
        SIGNERS.verify(Envelope("bank", "m", timestamp, "v1,AAAA"), b"", AT)
    assert refusal.value.code == ("signature_expired" if timestamp else "signature_missing")


@pytest.mark.parametrize("key", ["", "whsec_", "whsec_*", "whsec_" + "AAAA" * 3])
def test_a_weak_or_broken_key_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="partner bank") as refusal:
        Signers([Partner("bank", "A bank", (SecretStr(key),))])
    assert "AAAA" not in str(refusal.value)


def test_a_partner_stands_once() -> None:
    bank = Partner("bank", "A bank", (SecretStr(KEY),))
    with pytest.raises(ValueError, match="twice"):
        Signers([bank, bank])


def test_no_key_shows_itself() -> None:
    assert KEY not in repr(SIGNERS) + repr(Partner("bank", "A bank", (SecretStr(KEY),)))


@given(st.binary(max_size=60), st.sampled_from([KEY, OTHER]), st.sampled_from([None, ""]))
def test_who_names_nobody_is_whoever_has_the_key(body: bytes, key: str, name: str | None) -> None:
    signers = Signers(
        [
            Partner("bank", "A bank", (SecretStr(KEY),)),
            Partner("wallet", "A wallet", (SecretStr(OTHER), SecretStr(SHARED))),
            Partner("shop", "A shop", (SecretStr(SHARED),)),
        ]
    )
    found = signers.verify(Envelope(name, "m", str(AT), sign(key, "m", AT, body)), body, AT)
    assert found.code == ("bank" if key == KEY else "wallet")
    # Of a key that two have nobody knows whose request it is, until he says so.
    shared = sign(SHARED, "m", AT, body)
    with pytest.raises(Unauthorized):
        signers.verify(Envelope(name, "m", str(AT), shared), body, AT)
    assert signers.verify(Envelope("shop", "m", str(AT), shared), body, AT).code == "shop"
