"""`prepaid hsm` against SoftHSM2: the wrapping key is made, used and never seen."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tokens.key_file import RANDOM_OCTETS, seal
from tokens.keys import VendingKey

ROOT = Path(__file__).parents[2]
PIN = "4711-of-this-test"
PASSPHRASE = "correct horse"
KEY = VendingKey.generate(4, secrets.token_bytes(20), base_date=2014)

READ_OUT = """
import pkcs11, sys
from pkcs11 import Attribute, KeyType, ObjectClass
token = pkcs11.lib(sys.argv[1]).get_token(token_label="desk")
session = token.open(rw=True, user_pin=sys.argv[2])
key = session.get_key(object_class=ObjectClass.SECRET_KEY, label="prepaid-vending-keys")
try:
    key[Attribute.VALUE]
except pkcs11.AttributeSensitive:
    print("sensitive")
key.destroy()
session.generate_key(KeyType.AES, 256, label="prepaid-vending-keys", store=True,
                     template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True})
"""


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """The environment of a token of these tests' own, and a sealed key file."""
    folder = tmp_path_factory.mktemp("hsm")
    (folder / "keys.sts").write_bytes(
        seal({("123456", 1): KEY}, PASSPHRASE, secrets.token_bytes(RANDOM_OCTETS))
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SEALED": str(folder / "keys.sts"),
        "PREPAID_STS__KEY_PASSPHRASE": PASSPHRASE,
        "PREPAID_STS__PKCS11_PIN": PIN,
        "PREPAID_STS__WRAPPED_KEYS": str(folder / "wrapped.json"),
    }
    # The host's SoftHSM2, or Debian's, fetched once into the cache: as anybody would try it.
    tried = prepaid(environment, "hsm", "try", str(folder / "token"))
    if "This host is no Debian" in tried.stderr:
        pytest.skip("SoftHSM2 is neither installed nor to be fetched: this host is no Debian")
    assert tried.returncode == 0, tried.stderr
    for line in tried.stdout.splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        environment[name] = value
    early = wrap(environment)
    assert (early.returncode, "--create" in early.stderr) == (2, True), "no wrapping key yet"
    made = wrap(environment, "--create")
    assert made.returncode == 0, made.stderr
    return environment


def prepaid(environment, *arguments, **changed):
    return subprocess.run(
        [sys.executable, "-c", "from prepaid.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment | changed,
    )


def wrap(environment, *options):
    target = environment["PREPAID_STS__WRAPPED_KEYS"]
    return prepaid(environment, "hsm", "wrap", environment["SEALED"], target, *options)


def test_keys_are_wrapped_by_the_token_and_opened_by_it(token):
    file = Path(token["PREPAID_STS__WRAPPED_KEYS"])
    assert file.stat().st_mode & 0o077 == 0
    found = json.loads(prepaid(token, "hsm", "check", "--json").stdout)["keys"]
    assert found == [{"sgc": "123456", "krn": 1, "check_value": KEY.check_value}]


def test_a_changed_file_does_not_open(token, tmp_path):
    rows = json.loads(Path(token["PREPAID_STS__WRAPPED_KEYS"]).read_text())
    rows[0]["ken"] = 7
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(rows))
    changed.chmod(0o600)
    done = prepaid(token, "hsm", "check", PREPAID_STS__WRAPPED_KEYS=str(changed))
    assert (done.returncode, "file was changed" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"PREPAID_STS__PKCS11_PIN": "000000"}, "PIN is refused"),
        ({"PREPAID_STS__PKCS11_TOKEN": "other"}, "no token of this name"),
        ({"PREPAID_STS__PKCS11_LIBRARY": "/nowhere.so"}, "see that it is connected"),
    ],
)
def test_a_token_that_does_not_answer_is_told_in_one_line(token, changed, said):
    done = prepaid(token, "hsm", "check", **changed)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert PIN not in done.stderr + done.stdout


def test_the_wrapping_key_is_made_once_and_a_file_is_never_overwritten(token):
    again = wrap(token, "--create")
    assert (again.returncode, "already" in again.stderr) == (2, True)
    kept = wrap(token)
    assert (kept.returncode, "File exists" in kept.stderr) == (2, True)


def test_the_wrapping_key_is_not_read_out_and_one_that_can_be_is_refused(token):
    """Last: it puts another key in the place of the wrapping key."""
    weaken = [sys.executable, "-c", READ_OUT, token["PREPAID_STS__PKCS11_LIBRARY"], PIN]
    shown = subprocess.run(weaken, env=token, check=True, capture_output=True, text=True)
    assert shown.stdout == "sensitive\n"
    done = prepaid(token, "hsm", "check")
    assert (done.returncode, "can be read out" in done.stderr) == (2, True)
