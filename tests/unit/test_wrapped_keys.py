"""The file of wrapped keys, with a wrapping key in memory in place of the token's."""

import json
import secrets

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from api.errors import status_of
from prepaid.hsm import WrappedSecurityModule, wrap
from prepaid.security_modules import open_security_module, wrapping_key
from prepaid.settings import Sts
from schemas.errors import DomainError
from tokens.errors import SecurityModuleAway, TokenError
from tokens.key_file import RANDOM_OCTETS, seal
from tokens.keys import KeyAttributes, VendingKey
from tokens.security_module import SecurityModule, SoftwareSecurityModule

PAN = "600727000000000009"
HELD = KeyAttributes(sgc="123456", krn=1, kt=2, ken=255, ti="01", base_date=2014, ea=11, dkga=4)
STA_HELD = KeyAttributes(sgc="654321", krn=1, kt=2, ken=255, ti="01", base_date=2014, ea=7, dkga=2)
VENDING_KEYS = {
    ("123456", 1): VendingKey.generate(4, secrets.token_bytes(20), base_date=2014),
    ("123456", 2): VendingKey(secrets.token_bytes(20), ken=200),
    ("654321", 1): VendingKey.generate(2, secrets.token_bytes(8)),
}
NOW = 6_400_000


class MemoryWrappingKey:
    def __init__(self):
        self._cipher = AESGCM(AESGCM.generate_key(256))

    def seal(self, nonce, clear, about):
        return self._cipher.encrypt(nonce, clear, about)

    def unseal(self, nonce, sealed, about):
        try:
            return self._cipher.decrypt(nonce, sealed, about)
        except InvalidTag:
            raise TokenError("key_file_invalid", "does not open") from None


WRAPPING = MemoryWrappingKey()
DOCUMENT = wrap(VENDING_KEYS, WRAPPING)
MODULE: SecurityModule = WrappedSecurityModule(DOCUMENT, WRAPPING)
SOFTWARE: SecurityModule = SoftwareSecurityModule(VENDING_KEYS)


@pytest.mark.parametrize("held", [HELD, STA_HELD], ids=["EA11", "EA07"])
def test_wrapped_keys_make_the_tokens_that_the_keys_make(held):
    credit = {"subclass": 0, "amount": 256, "tid_minutes": NOW, "rnd": 5}
    digits = MODULE.issue_credit(PAN, held, **credit)
    assert digits == SOFTWARE.issue_credit(PAN, held, **credit)
    work = {"subclass": 1, "fields": {"register": 0}, "tid_minutes": NOW, "rnd": 5}
    assert MODULE.issue_management(PAN, held, **work) == SOFTWARE.issue_management(
        PAN, held, **work
    )
    assert MODULE.verify(PAN, held, digits) == SOFTWARE.verify(PAN, held, digits)
    for slot, key in VENDING_KEYS.items():
        assert MODULE.key_check_value(*slot) == key.check_value


def test_a_key_change_opens_both_keys():
    new = KeyAttributes(sgc="123456", krn=2, kt=2, ken=200, ti="01", base_date=2014, ea=11, dkga=4)
    wanted = {"tid_minutes": NOW, "triplet": False}
    assert MODULE.issue_key_change(PAN, HELD, new, **wanted) == SOFTWARE.issue_key_change(
        PAN, HELD, new, **wanted
    )


def test_the_file_and_the_module_show_no_key():
    for key in VENDING_KEYS.values():
        assert key.reveal().hex() not in DOCUMENT.decode().lower()
    assert repr(MODULE).startswith("<WrappedSecurityModule, 3 vending keys")


def test_each_wrapping_has_a_nonce_of_its_own():
    rows = json.loads(DOCUMENT) + json.loads(wrap(VENDING_KEYS, WRAPPING))
    assert len({row["nonce"] for row in rows}) == 6


@pytest.mark.parametrize(
    "changed",
    [
        {"ken": 201},
        {"base_date": 2035},
        {"check_value": "000000"},
        {"nonce": "00" * 12},
        {"sealed": "00" * 36},
        {"sgc": "123457"},
    ],
)
def test_a_row_that_was_changed_does_not_open(changed):
    rows = json.loads(DOCUMENT)
    rows[0] |= changed
    module = WrappedSecurityModule(json.dumps(rows).encode(), WRAPPING)
    with pytest.raises(TokenError) as refusal:
        module.key_check_value(rows[0]["sgc"], rows[0]["krn"])
    assert refusal.value.code == "key_file_invalid"


def test_rows_cannot_change_places():
    rows = json.loads(DOCUMENT)
    rows[0]["sealed"], rows[1]["sealed"] = rows[1]["sealed"], rows[0]["sealed"]
    rows[0]["nonce"], rows[1]["nonce"] = rows[1]["nonce"], rows[0]["nonce"]
    module = WrappedSecurityModule(json.dumps(rows).encode(), WRAPPING)
    with pytest.raises(TokenError):
        module.key_check_value("123456", 1)


def test_another_wrapping_key_opens_nothing():
    with pytest.raises(TokenError) as refusal:
        WrappedSecurityModule(DOCUMENT, MemoryWrappingKey()).key_check_value("123456", 1)
    assert refusal.value.code == "key_file_invalid"


@pytest.mark.parametrize("document", [b"", b"STSKEYS1", b"{}", b'[{"sgc": "123456"}]'])
def test_what_is_no_file_of_wrapped_keys_is_refused(document):
    with pytest.raises(TokenError) as refusal:
        WrappedSecurityModule(document, WRAPPING)
    assert refusal.value.code == "key_file_invalid"


def test_a_key_that_is_not_in_the_file_is_unknown():
    with pytest.raises(TokenError) as refusal:
        MODULE.key_check_value("999999", 1)
    assert refusal.value.code == "key_unknown"


def test_settings_choose_the_sealed_key_file(tmp_path):
    file = tmp_path / "keys.sts"
    file.write_bytes(seal(VENDING_KEYS, "correct horse", secrets.token_bytes(RANDOM_OCTETS)))
    file.chmod(0o600)
    sts = Sts(key_file=file, key_passphrase=SecretStr("correct horse"))
    slot = ("123456", 1)
    assert open_security_module(sts).key_check_value(*slot) == VENDING_KEYS[slot].check_value


@pytest.mark.parametrize(
    ("sts", "code"),
    [
        (Sts(), "not_configured"),
        (Sts(key_file="/nowhere/keys"), "not_configured"),
        (Sts(key_file="/nowhere/keys", key_passphrase=SecretStr("x")), "secret_file"),
        (Sts(wrapped_keys="/nowhere/keys"), "secret_file"),
    ],
)
def test_settings_that_name_no_keys_are_refused(sts, code):
    with pytest.raises(DomainError) as refusal:
        open_security_module(sts)
    assert refusal.value.code == code


def test_a_token_that_is_not_named_is_not_looked_for():
    with pytest.raises(DomainError) as refusal:
        wrapping_key(Sts(pkcs11_token="desk"))
    assert refusal.value.code == "not_configured"


def test_a_security_module_that_is_away_is_worth_another_try():
    assert status_of(SecurityModuleAway("Token desk: it is gone.")) == 503
