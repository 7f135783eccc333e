"""The watch of tests/conftest.py bites: what it would find in a log of this run, and what not."""

import secrets
import shutil
import subprocess
import sys

import pytest

from tokens.keys import DecoderKey, VendingKey

KEY = VendingKey(secrets.token_bytes(20))


@pytest.mark.parametrize(
    "said",
    [
        lambda key: key.reveal().hex(),
        lambda key: f"row 7: {key.reveal().hex().upper()}",
        lambda key: "00ff" + key.reveal().hex() + "00",
        lambda key: f"derived under {key.reveal()!r} for meter 7",
    ],
)
def test_a_key_in_a_log_is_found_in_whatever_form(key_watch, said):
    assert key_watch.found_in(said(KEY))
    assert key_watch.found_in(said(DecoderKey(secrets.token_bytes(8))))


@pytest.mark.parametrize(
    "said",
    [
        repr,
        lambda key: f"{key} {key!r} {key:>40}",
        lambda key: f"check value {key.check_value}",
        lambda key: secrets.token_hex(20),
    ],
)
def test_what_says_nothing_about_a_key_passes(key_watch, said):
    assert not key_watch.found_in(said(KEY))


def test_a_key_that_is_a_word_of_our_own_code_is_no_secret(key_watch):
    VendingKey(b"application/cbor+key")
    assert not key_watch.found_in("sent b'application/cbor+key'")


def test_a_test_that_prints_a_key_fails(pytestconfig, tmp_path):
    """The hook of this very run, on a run of its own."""
    root = pytestconfig.rootpath
    shutil.copy(root / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_loud.py").write_text(
        "import secrets\n"
        "from tokens.keys import DecoderKey\n"
        "def test_loud():\n"
        "    print(DecoderKey(secrets.token_bytes(16)).reveal().hex())\n"
        "def test_quiet():\n"
        "    print(DecoderKey(secrets.token_bytes(16)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 1 passed" in done.stdout
    assert "test_loud printed or logged a key" in done.stdout
