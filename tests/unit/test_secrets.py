"""No secret stands in the repository: not in code, tests, fixtures, documents or settings.

Keys of tests are readable when decoded ("bank-key-of-this-test-run"), so that nobody takes one for
a real one; what looks random is taken for real.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Written by programs, or not ours.
SKIPPED = {
    ".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis",
    "node_modules", "dist", "build",
}  # fmt: skip
LARGEST = 2_000_000
PATTERNS = {
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{20}"),
    "cloud key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}\b"),
    "forge key": re.compile(r"\b(?:gh[pousr]_\w{36}|github_pat_\w{22,}|glpat-[\w-]{20})"),
    "chat key": re.compile(r"\bxox[abprs]-[\w-]{10,}"),
    "payment key": re.compile(r"\b[sr]k_live_\w{16,}"),
    "signed claims": re.compile(r"\beyJ[\w-]{20,}\.eyJ[\w-]{20,}\."),
    "password hash": re.compile(r"\$argon2id\$v=\d+\$[^\s\"']{40,}"),
}
SIGNING = re.compile(r"whsec_([A-Za-z0-9+/]{20,}={0,2})")
IN_URL = re.compile(r"\b[a-z][a-z0-9+]*://[^\s/:@\"']+:([^\s/@\"']+)@")
# Of examples: a word, a place to fill in, or a code of the program itself.
EXAMPLE = re.compile(r"[a-z]{1,12}(?:[ -][a-z]{1,8})?[0-9]?|[A-Z_]+|a%20b|…|\$?\{.*\}")


def files() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        if SKIPPED & set(path.parts) or path == Path(__file__) or not path.is_file():
            continue
        if path.stat().st_size <= LARGEST:
            yield path


def secrets_in(text: str) -> Iterator[str]:
    """Each kind of secret that a text holds."""
    for kind, pattern in PATTERNS.items():
        if pattern.search(text):
            yield kind
    for found in SIGNING.finditer(text):
        if not is_readable(found[1]):
            yield "signing key"
    for found in IN_URL.finditer(text):
        if not EXAMPLE.fullmatch(found[1]):
            yield f"password in an address: {found[1][:3]}..."


def is_readable(text: str) -> bool:
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return re.fullmatch(rb"[ -~]+", octets) is not None


def test_no_file_holds_a_secret() -> None:
    found = []
    for path in files():
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {kind}" for kind in secrets_in(text)]
    assert found == []
    assert sum(1 for _ in files()) > 300


# Put together here, so that no scan takes this file for a leak.
PLANTED = {
    "private key": "-----BEGIN EC " + "PRIVATE KEY-----\nMHcCAQEEIBrandomrandomrandom",
    "cloud key": "AKIA" + "ABCDEFGHIJKLMNOP",
    "forge key": "ghp_" + "a1" * 18,
    "chat key": "xoxb-" + "1234567890-abc",
    "payment key": "sk_live_" + "4eC39HqLyjWDarjt",
    "signed claims": "eyJhbGciOiJIUzI1NiIsInR5" + ".eyJzdWIiOiIxMjM0NTY3ODkwIiwi" + ".c2ln",
    "password hash": "$argon2id$v=19$m=65536,t=3,p=4$" + "c29tZXNhbHRzb21lc2FsdA$" + "x" * 43,
    "signing key": "whsec_" + base64.b64encode(bytes(range(128, 160))).decode(),
    "password in an address": "postgresql://prepaid:" + "Xk9-v2Lq7TzR@db.example/prepaid",
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_secret_is_seen(kind: str) -> None:
    assert [each.partition(":")[0] for each in secrets_in(f"key = {PLANTED[kind]}\n")] == [kind]


@pytest.mark.parametrize(
    "harmless",
    [
        "whsec_" + base64.b64encode(b"bank-key-of-this-test-run-0000").decode(),
        "postgresql://prepaid:PASSWORD@127.0.0.1/prepaid",
        "mqtts://user:password@host:port",
        "https://prepaid.example/v1/accounts?limit=3",
    ],
)
def test_an_example_is_none(harmless: str) -> None:
    assert list(secrets_in(harmless)) == []
